//! The REST API.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    extract::{FromRef, Request},
    http::StatusCode,
    middleware::{self, Next},
    response::Response,
    routing::{delete, get},
};
use common::{registry::Registry, shutdown::Shutdown};
use engine::{
    query::Query,
    scenario::{Codecs, Scenario},
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, sync::watch};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{cluster::Client, commands::Commands};

mod health;
mod objects;
mod problem;
mod writes;

pub(crate) use problem::Problem;

/// How far the service is.
pub(crate) enum Stage<S: Scenario> {
    /// Not there yet, and why.
    Starting(String),
    /// It answers.
    Running(Arc<App<S>>),
}

/// What requests are answered with.
pub(crate) struct App<S: Scenario> {
    pub(crate) query: Query,
    pub(crate) commands: Commands,
    pub(crate) codecs: Arc<Codecs<S>>,
    pub(crate) registry: Registry,
    pub(crate) client: Client,
    pub(crate) longest_object_id: usize,
}

/// State of the router.
pub(crate) struct Shared<S: Scenario> {
    stage: watch::Receiver<Stage<S>>,
    metrics: PrometheusHandle,
}

impl<S: Scenario> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self {
            stage: self.stage.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

impl<S: Scenario> FromRef<Shared<S>> for PrometheusHandle {
    fn from_ref(shared: &Shared<S>) -> Self {
        shared.metrics.clone()
    }
}

impl<S: Scenario> Shared<S> {
    /// The running service, or why there is none.
    pub(crate) fn app(&self) -> Result<Arc<App<S>>, Problem> {
        match &*self.stage.borrow() {
            Stage::Running(app) => Ok(Arc::clone(app)),
            Stage::Starting(why) => Err(Problem::unavailable(why.clone())),
        }
    }
}

/// Answers requests until `shutdown`.
pub(crate) async fn serve<S: Scenario>(
    listener: TcpListener,
    stage: watch::Receiver<Stage<S>>,
    metrics: PrometheusHandle,
    shutdown: Shutdown,
) {
    let router = router(Shared { stage, metrics });
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP server has ended");
    }
}

fn router<S: Scenario>(shared: Shared<S>) -> Router {
    Router::new()
        .route("/v1/objects", get(objects::list::<S>))
        .route(
            "/v1/objects/{id}",
            get(objects::get::<S>)
                .put(writes::put::<S>)
                .delete(writes::delete::<S>),
        )
        .route("/v1/objects/{id}/reports", get(objects::reports::<S>))
        .route("/v1/objects/{id}/override", delete(writes::clear::<S>))
        .route("/v1/cluster", get(health::cluster::<S>))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready::<S>))
        .route("/metrics", get(health::metrics))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing under this path"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path has no such method",
            )
        })
        .layer(middleware::from_fn(count))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .with_state(shared)
}

/// Counts requests by method and status.
async fn count(request: Request, next: Next) -> Result<Response, Infallible> {
    let method = request.method().to_string();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::counter!("http_requests_total", "method" => method, "status" => status).increment(1);
    Ok(response)
}
