//! Is it alive, is it ready, what does it count, what does the cluster look like.

use axum::{Json, extract::State};
use engine::{query::View, scenario::Scenario};
use metrics_exporter_prometheus::PrometheusHandle;

use super::{Problem, Shared};

/// Alive: the process answers, and none of its threads is stuck.
pub(crate) async fn live<S: Scenario>(
    State(shared): State<Shared<S>>,
) -> Result<&'static str, Problem> {
    let stuck = match shared.app() {
        Ok(app) => app.query.view().borrow().stuck.clone(),
        // Waiting for other servers is not being stuck.
        Err(_) => None,
    };
    stuck.map_or(Ok("alive\n"), |why| Err(Problem::unavailable(why)))
}

/// Ready: everything that this instance should process, it does.
pub(crate) async fn ready<S: Scenario>(
    State(shared): State<Shared<S>>,
) -> Result<&'static str, Problem> {
    let app = shared.app()?;
    match &app.query.view().borrow().not_ready {
        None => Ok("ready\n"),
        Some(why) => Err(Problem::unavailable(why.clone())),
    }
}

/// Counters and gauges in Prometheus' text format.
pub(crate) async fn metrics(State(metrics): State<PrometheusHandle>) -> String {
    metrics.render()
}

/// The cluster as this instance sees it.
pub(crate) async fn cluster<S: Scenario>(
    State(shared): State<Shared<S>>,
) -> Result<Json<View>, Problem> {
    let app = shared.app()?;
    let view = app.query.view().borrow().clone();
    Ok(Json(view))
}
