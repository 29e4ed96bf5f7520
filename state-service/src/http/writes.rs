//! Writes: a command to the source topic, answered with its position, or after it has been applied.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use common::schema::{ClearOverride, DeleteObject, SetState, Verdict as _};
use engine::{scenario::Scenario, worker::now_ms};
use serde::{Deserialize, Serialize};

use super::{
    App, Problem, Shared,
    objects::{Found, Read, object_id, wait},
};
use crate::commands::Position;

/// Body of a PUT.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Set {
    /// One of the scenario's verdicts.
    verdict: String,
    /// Who orders it.
    operator: Option<String>,
    /// Why.
    note: Option<String>,
    /// When the vote counts again, for example `15m`; absent: not before it is cleared.
    expires_in: Option<String>,
}

/// Query of a write.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteOptions {
    /// Answer when the command has been applied, or after this time.
    wait: Option<String>,
    /// Who orders it, where there is no body.
    operator: Option<String>,
}

/// Answer to a write.
#[derive(Debug, Serialize)]
struct Written {
    /// Where the command is; pass it as `at_least` to a read.
    position: String,
    /// Has it been applied when this answer was given?
    applied: bool,
}

/// PUT /v1/objects/{id}: set the state by override.
pub(crate) async fn put<S: Scenario>(
    State(shared): State<Shared<S>>,
    id: Result<Path<String>, PathRejection>,
    options: Result<Query<WriteOptions>, QueryRejection>,
    body: Result<Json<Set>, JsonRejection>,
) -> Result<Response, Problem> {
    let (app, id, options) = accept(&shared, id, options)?;
    let Json(set) = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    if S::Verdict::named(&set.verdict).is_none() {
        let names: Vec<&str> = <S::Verdict as common::schema::Verdict>::ALL
            .iter()
            .map(|v| v.name())
            .collect();
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!(
                "{:?} is not a verdict; choose one of {}",
                set.verdict,
                names.join(", ")
            ),
        ));
    }
    let issued_at_ms = now_ms();
    let command = SetState {
        expires_at_ms: expiry(set.expires_in.as_deref(), issued_at_ms)?,
        object_id: id.clone(),
        verdict: set.verdict,
        operator: set.operator.or(options.operator),
        note: set.note,
        issued_at_ms,
    };
    let position = app.commands.set_state(&command).await;
    answer(&app, &id, options.wait.as_deref(), position).await
}

/// DELETE /v1/objects/{id}: forget the object.
pub(crate) async fn delete<S: Scenario>(
    State(shared): State<Shared<S>>,
    id: Result<Path<String>, PathRejection>,
    options: Result<Query<WriteOptions>, QueryRejection>,
) -> Result<Response, Problem> {
    let (app, id, options) = accept(&shared, id, options)?;
    let command = DeleteObject {
        object_id: id.clone(),
        operator: options.operator,
        issued_at_ms: now_ms(),
    };
    let position = app.commands.delete_object(&command).await;
    answer(&app, &id, options.wait.as_deref(), position).await
}

/// DELETE /v1/objects/{id}/override: back to the vote.
pub(crate) async fn clear<S: Scenario>(
    State(shared): State<Shared<S>>,
    id: Result<Path<String>, PathRejection>,
    options: Result<Query<WriteOptions>, QueryRejection>,
) -> Result<Response, Problem> {
    let (app, id, options) = accept(&shared, id, options)?;
    let command = ClearOverride {
        object_id: id.clone(),
        operator: options.operator,
        issued_at_ms: now_ms(),
    };
    let position = app.commands.clear_override(&command).await;
    answer(&app, &id, options.wait.as_deref(), position).await
}

type Accepted<S> = (Arc<App<S>>, String, WriteOptions);

/// Everything that can be refused is refused before anything is written.
fn accept<S: Scenario>(
    shared: &Shared<S>,
    id: Result<Path<String>, PathRejection>,
    options: Result<Query<WriteOptions>, QueryRejection>,
) -> Result<Accepted<S>, Problem> {
    let app = shared.app()?;
    let id = object_id(id, app.longest_object_id)?;
    let Query(options) = options.map_err(|e| Problem::bad_request(e.body_text()))?;
    wait(options.wait.as_deref())?;
    Ok((app, id, options))
}

async fn answer<S: Scenario>(
    app: &Arc<App<S>>,
    id: &str,
    waits: Option<&str>,
    position: anyhow::Result<Position>,
) -> Result<Response, Problem> {
    let position = position.map_err(|error| {
        tracing::warn!(
            error = format!("{error:#}"),
            object_id = id,
            "a command was not written"
        );
        Problem::unavailable("Kafka did not take the command; it may or may not be applied later")
    })?;
    let applied = match wait(waits)? {
        None => false,
        Some(wait) => applied(app, id, position, wait).await,
    };
    let status = if applied {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let written = Written {
        position: position.to_string(),
        applied,
    };
    Ok((status, Json(written)).into_response())
}

/// Reads the object at the command's position, wherever it is by then.
async fn applied<S: Scenario>(
    app: &Arc<App<S>>,
    id: &str,
    position: Position,
    wait: Duration,
) -> bool {
    let read = Read {
        id,
        hop: false,
        at_least: Some(position),
        what: "",
        deadline: Instant::now() + wait,
    };
    match read.find(app).await {
        Ok(Found::Here(_)) => true,
        // A deleted object is not found, at or after the position.
        Ok(Found::There(response)) => {
            response.status().is_success() || response.status() == StatusCode::NOT_FOUND
        }
        Err(_) => false,
    }
}

fn expiry(expires_in: Option<&str>, now_ms: i64) -> Result<Option<i64>, Problem> {
    let Some(text) = expires_in else {
        return Ok(None);
    };
    let lasts = humantime::parse_duration(text).map_err(|e| {
        Problem::bad_request(format!("expires_in={text:?}: {e}; write it as 15m or 2h"))
    })?;
    let lasts = i64::try_from(lasts.as_millis()).ok().filter(|ms| *ms > 0);
    let lasts = lasts.ok_or_else(|| Problem::bad_request("expires_in: out of range"))?;
    Ok(Some(now_ms.saturating_add(lasts)))
}
