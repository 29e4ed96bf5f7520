//! What a notifier says of itself to those who watch over it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use common::{shutdown::Shutdown, telemetry};
use metrics::{describe_counter, describe_gauge, describe_histogram};
use tokio::net::TcpListener;

/// The parts that must work for mails to go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Topics are there and the group has let us in.
    Kafka,
    /// The last connection or mail was accepted.
    Smtp,
    /// The last question was answered.
    Registry,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Smtp => "smtp",
            Self::Registry => "schema registry",
        }
    }
}

/// What does not work, and why. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Health(Arc<Mutex<BTreeMap<Part, String>>>);

impl Health {
    /// Nothing works before the group has let us in.
    #[must_use]
    pub fn starting() -> Self {
        let why = "not a member of the group yet".to_owned();
        Self(Arc::new(Mutex::new([(Part::Kafka, why)].into())))
    }

    /// `part` works.
    pub fn works(&self, part: Part) {
        self.parts().remove(&part);
    }

    /// `part` does not, because of `why`.
    pub fn fails(&self, part: Part, why: &dyn std::fmt::Display) {
        self.parts().insert(part, why.to_string());
    }

    /// One line for each part that does not work.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let parts = self.parts();
        let lines = parts.iter().map(|(p, why)| format!("{}: {why}", p.name()));
        lines.collect()
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<Part, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves `/livez`, `/readyz` and `/metrics` until `shutdown`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    shutdown: Shutdown,
) -> std::io::Result<()> {
    axum::serve(listener, router(health))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

fn router(health: Health) -> Router {
    let recorder = telemetry::metrics();
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(async move || recorder.render()))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    let complaints = health.complaints();
    if complaints.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let text = complaints.join("\n") + "\n";
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

/// Names and explains the metrics.
pub fn describe_metrics() {
    describe_counter!(
        "notifier_records_total",
        "Records of the states topic that are done with, by outcome: mailed, no-mail, tombstone, dead-letter"
    );
    describe_counter!(
        "notifier_mails_sent_total",
        "Mails that the mail server accepted"
    );
    describe_counter!(
        "notifier_mails_refused_total",
        "Mails that the mail server refused for good"
    );
    describe_counter!(
        "notifier_mail_retries_total",
        "Attempts after which a mail is sent again, by kind: retry (not accepted), unknown (nobody knows)"
    );
    describe_counter!(
        "notifier_connect_failures_total",
        "Connections to the mail server that failed"
    );
    describe_counter!(
        "notifier_undecodable_total",
        "Records that could not be decoded, by reason"
    );
    describe_gauge!(
        "notifier_partitions",
        "Partitions assigned to this notifier"
    );
    describe_histogram!(
        "notifier_mail_seconds",
        "Time for the mail server to accept a mail"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn says_why_it_is_not_ready() {
        let health = Health::starting();
        let (status, text) = ready(State(health.clone())).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "kafka: not a member of the group yet\n");
        health.works(Part::Kafka);
        health.fails(Part::Smtp, &"connection refused");
        health.fails(Part::Registry, &"timed out");
        let (_, text) = ready(State(health.clone())).await;
        assert_eq!(
            text,
            "smtp: connection refused\nschema registry: timed out\n"
        );
        health.works(Part::Smtp);
        health.works(Part::Registry);
        assert_eq!(ready(State(health)).await.0, StatusCode::OK);
    }
}
