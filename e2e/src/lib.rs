//! User stories against the real thing: Kafka, a schema registry, and the workspace's own programs as
//! processes of their own.
//!
//! - [`story`]: a test's frame; tells the ends of all logs when the story goes wrong.
//! - [`Application`]: a unique application id, the servers it uses, a folder for state and logs.
//! - [`Service`]: a running state-service or notifier: killed, terminated, paused, started again.
//! - [`Agents`]: a running `agent-sim`.
//! - [`Api`]: the REST API, typed.
//! - [`Topics`]: what is in the application's topics, and putting more there.
//! - [`eventually`] and [`until`]: wait for a condition; say what was seen instead.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use e2e::{PATIENCE, story, until};
//!
//! story("attack", async |app| {
//!     let a = app.state_service("a", &[("quorum", "1")])?;
//!     a.ready().await?;
//!     let report = ["report", "shop.example.com", "UNDER_ATTACK", "--agent", "me"];
//!     app.agents("me", &report)?.finished().await?;
//!     let api = a.api().await?;
//!     let verdict = async || Ok(api.get("shop.example.com").await?.map(|state| state.verdict));
//!     until("the site is under attack", PATIENCE, verdict, |v| {
//!         v.as_deref() == Some("UNDER_ATTACK")
//!     })
//!     .await?;
//!     Ok(())
//! })
//! .await
//! # }
//! ```

pub mod api;
mod application;
mod binaries;
pub mod demo;
mod flags;
mod log;
mod metrics;
mod service;
mod story;
pub mod topics;

pub use api::Api;
pub use application::Application;
pub use binaries::binary;
pub use log::Log;
pub use metrics::Metrics;
pub use service::{Agents, Service};
pub use story::{PATIENCE, eventually, shared_servers, story, story_of, until};
pub use topics::Topics;
