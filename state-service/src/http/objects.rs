//! Reads: one object, its reports, all objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use common::{schema, wire};
use engine::{
    intake::check_key,
    query::LocalTask,
    scenario::{
        Scenario,
        object::{Slot, Stored},
        view,
    },
    store::{OBJECT, row_key},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{App, Problem, Shared};
use crate::{
    cluster::{self, PATIENCE, Place},
    commands::Position,
};

/// Objects in one answer, unless asked for fewer.
const PAGE: usize = 1_000;

/// What a read may ask for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadOptions {
    /// Answer only when the command at this position has been applied.
    at_least: Option<String>,
    /// How long to wait for that, for example `5s`.
    wait: Option<String>,
}

/// What a list may ask for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListOptions {
    /// Only objects with this verdict.
    verdict: Option<String>,
    /// Only objects after this id.
    after: Option<String>,
    /// At most so many.
    limit: Option<usize>,
}

/// A page of objects, sorted by id.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    objects: Vec<schema::State>,
    /// Pass it as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// An agent's latest report.
#[derive(Debug, Serialize)]
pub(crate) struct ReportView {
    agent_id: String,
    /// Is it part of the vote?
    counted: bool,
    weight: u32,
    /// The report as it was sent.
    report: Value,
}

/// GET /v1/objects/{id}
pub(crate) async fn get<S: Scenario>(
    State(shared): State<Shared<S>>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
    options: Result<Query<ReadOptions>, QueryRejection>,
) -> Result<Response, Problem> {
    let app = shared.app()?;
    let id = object_id(id, app.longest_object_id)?;
    let Query(options) = options.map_err(|e| Problem::bad_request(e.body_text()))?;
    let deadline = Instant::now() + wait(options.wait.as_deref())?.unwrap_or(PATIENCE);
    let at_least = options
        .at_least
        .map(|text| text.parse::<Position>())
        .transpose()
        .map_err(Problem::bad_request)?;
    let read = Read {
        id: &id,
        hop: cluster::is_hop(&headers),
        at_least,
        what: "",
        deadline,
    };
    match read.find(&app).await? {
        Found::There(response) => Ok(response),
        Found::Here(task) => {
            let stored = stored(&task, &id)?.ok_or_else(|| Problem::not_found(&id))?;
            let state = view::state::<S>(&id, &stored).ok_or_else(|| Problem::not_found(&id))?;
            Ok(Json(state).into_response())
        }
    }
}

/// GET /v1/objects/{id}/reports
pub(crate) async fn reports<S: Scenario>(
    State(shared): State<Shared<S>>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let app = shared.app()?;
    let id = object_id(id, app.longest_object_id)?;
    let read = Read {
        id: &id,
        hop: cluster::is_hop(&headers),
        at_least: None,
        what: "/reports",
        deadline: Instant::now() + PATIENCE,
    };
    match read.find(&app).await? {
        Found::There(response) => Ok(response),
        Found::Here(task) => {
            let stored = stored(&task, &id)?.ok_or_else(|| Problem::not_found(&id))?;
            let mut reports = Vec::with_capacity(stored.slots.len());
            for slot in stored.slots {
                reports.push(report_view(&app, slot).await?);
            }
            Ok(Json(reports).into_response())
        }
    }
}

async fn report_view<S: Scenario>(app: &App<S>, slot: Slot) -> Result<ReportView, Problem> {
    let (schema_id, datum) = wire::split(&slot.report).map_err(|e| Problem::internal(&e))?;
    let writer = app.registry.resolve(schema_id).await;
    let writer = writer.map_err(|e| Problem::unavailable(e.to_string()))?;
    let report = app.codecs.report(&writer, datum);
    let report = report.map_err(|e| Problem::internal(&e))?;
    Ok(ReportView {
        agent_id: slot.agent_id,
        counted: slot.counted,
        weight: slot.weight,
        report: serde_json::to_value(report).map_err(|e| Problem::internal(&e))?,
    })
}

/// One object to be read somewhere.
pub(crate) struct Read<'a> {
    pub(crate) id: &'a str,
    pub(crate) hop: bool,
    pub(crate) at_least: Option<Position>,
    /// What is behind the object's path.
    pub(crate) what: &'static str,
    pub(crate) deadline: Instant,
}

/// Where it was found.
pub(crate) enum Found {
    Here(LocalTask),
    There(Response),
}

impl Read<'_> {
    /// Finds the owner and, if that is another instance, its answer. Follows the object when it moves.
    pub(crate) async fn find<S: Scenario>(&self, app: &App<S>) -> Result<Found, Problem> {
        let key = self.id.as_bytes();
        let partition = app.query.partition(key);
        let partition = partition.ok_or_else(|| Problem::unavailable("still starting"))?;
        if self.at_least.is_some_and(|at| at.partition != partition) {
            return Err(Problem::bad_request(format!(
                "at_least is a position of another partition; {:?} is on {partition}",
                self.id
            )));
        }
        loop {
            match cluster::locate(&app.query, partition, self.hop, self.deadline).await? {
                Place::Here(task) => {
                    if self.applied(&task).await? {
                        return Ok(Found::Here(task));
                    }
                }
                Place::There(endpoint) => {
                    let path = self.path();
                    if let Some(answer) =
                        cluster::ask(&app.client, &endpoint, &path, None, self.deadline).await
                    {
                        return Ok(Found::There(cluster::pass_on(answer).await));
                    }
                }
            }
            if Instant::now() >= self.deadline {
                return Err(Problem::unavailable(format!(
                    "the owner of partition {partition} did not answer in time"
                )));
            }
        }
    }

    /// Waits until the task has applied the asked position; `false` if it was closed meanwhile.
    async fn applied(&self, task: &LocalTask) -> Result<bool, Problem> {
        let Some(position) = self.at_least else {
            return Ok(true);
        };
        let mut applied = task.applied.clone();
        let left = self.deadline.saturating_duration_since(Instant::now());
        let reached = applied.wait_for(|next| *next > position.offset);
        match tokio::time::timeout(left, reached).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(_)) => Ok(false),
            Err(_) => Err(Problem::new(
                axum::http::StatusCode::GATEWAY_TIMEOUT,
                format!("position {position} has not been applied in time"),
            )),
        }
    }

    fn path(&self) -> String {
        let id: String = form_urlencoded::byte_serialize(self.id.as_bytes()).collect();
        // In a path, a plus is a plus.
        let id = id.replace('+', "%20");
        let query = self.at_least.map(|at| {
            let left = self.deadline.saturating_duration_since(Instant::now());
            format!("?at_least={at}&wait={}ms", left.as_millis())
        });
        format!("/v1/objects/{id}{}{}", self.what, query.unwrap_or_default())
    }
}

/// GET /v1/objects
pub(crate) async fn list<S: Scenario>(
    State(shared): State<Shared<S>>,
    headers: HeaderMap,
    options: Result<Query<ListOptions>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let app = shared.app()?;
    let Query(options) = options.map_err(|e| Problem::bad_request(e.body_text()))?;
    let hop = cluster::is_hop(&headers);
    let most = if hop { PAGE + 1 } else { PAGE };
    let limit = options.limit.unwrap_or(PAGE).clamp(1, most);
    let objects = if hop {
        let asked = cluster::asked_partitions(&headers)?;
        let objects = local(&app, &options, limit, asked.as_ref())?;
        objects.ok_or_else(|| Problem::unavailable("not all of these partitions are here"))?
    } else {
        gather(&app, &options, limit, Instant::now() + PATIENCE).await?
    };
    Ok(Json(page(objects, limit)))
}

/// Sorts, and keeps the first `limit`.
fn page(mut objects: Vec<schema::State>, limit: usize) -> Page {
    objects.sort_by(|a, b| a.object_id.cmp(&b.object_id));
    // While a partition moves, two instances may both show it.
    objects.dedup_by(|a, b| a.object_id == b.object_id);
    let more = objects.len() > limit;
    objects.truncate(limit);
    let last = objects.last().map(|o| o.object_id.clone());
    Page {
        next: last.filter(|_| more),
        objects,
    }
}

/// The objects of every partition: here, and at every other owner. Complete, or an error.
async fn gather<S: Scenario>(
    app: &Arc<App<S>>,
    options: &ListOptions,
    limit: usize,
    deadline: Instant,
) -> Result<Vec<schema::State>, Problem> {
    let partitions = app.query.view().borrow().partitions;
    loop {
        let mut mine = BTreeSet::new();
        let mut theirs = BTreeMap::<String, BTreeSet<u32>>::new();
        for partition in 0..partitions {
            match cluster::locate(&app.query, partition, false, deadline).await? {
                Place::Here(_) => mine.insert(partition),
                Place::There(endpoint) => theirs.entry(endpoint).or_default().insert(partition),
            };
        }
        let objects = local(app, options, limit, Some(&mine))?;
        if let Some(objects) = add_theirs(app, options, limit, deadline, objects, &theirs).await? {
            return Ok(objects);
        }
        if Instant::now() >= deadline {
            return Err(Problem::unavailable("partitions are moving; try again"));
        }
        tokio::time::sleep(cluster::PAUSE).await;
    }
}

/// Adds what the others have of their partitions; `None` if one of them does not have them all.
async fn add_theirs<S: Scenario>(
    app: &App<S>,
    options: &ListOptions,
    limit: usize,
    deadline: Instant,
    objects: Option<Vec<schema::State>>,
    theirs: &BTreeMap<String, BTreeSet<u32>>,
) -> Result<Option<Vec<schema::State>>, Problem> {
    let Some(mut objects) = objects else {
        return Ok(None);
    };
    let path = list_path(options, limit);
    for (endpoint, partitions) in theirs {
        let answer = cluster::ask(&app.client, endpoint, &path, Some(partitions), deadline).await;
        let Some(answer) = answer.filter(|answer| answer.status().is_success()) else {
            return Ok(None);
        };
        let page: Page = answer.json().await.map_err(|e| Problem::internal(&e))?;
        objects.extend(page.objects);
    }
    Ok(Some(objects))
}

/// What another instance is asked: one object more than fits tells that there is a next page.
fn list_path(options: &ListOptions, limit: usize) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &(limit + 1).to_string());
    for (name, value) in [("verdict", &options.verdict), ("after", &options.after)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("/v1/objects?{}", query.finish())
}

/// The objects of these partitions, or of all that this instance has: up to one more than `limit` of each.
/// `None` if one of them is not here, or not at the moment.
fn local<S: Scenario>(
    app: &App<S>,
    options: &ListOptions,
    limit: usize,
    partitions: Option<&BTreeSet<u32>>,
) -> Result<Option<Vec<schema::State>>, Problem> {
    let mut tasks = app.query.local_tasks();
    tasks.retain(|task| partitions.is_none_or(|asked| asked.contains(&task.partition)));
    if partitions.is_some_and(|asked| tasks.len() < asked.len()) {
        return Ok(None);
    }
    let mut objects = Vec::new();
    for task in tasks {
        let after = options.after.as_deref().unwrap_or_default();
        let mut found = 0;
        let mut bad = None;
        let scanned = task
            .store
            .scan(&row_key(OBJECT, after.as_bytes()), |key, row| {
                let id = String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned();
                if id == after {
                    return true;
                }
                match Stored::decode(row) {
                    Ok(stored) => {
                        if let Some(state) = view::state::<S>(&id, &stored)
                            && options.verdict.as_ref().is_none_or(|v| *v == state.verdict)
                        {
                            objects.push(state);
                            found += 1;
                        }
                    }
                    Err(what) => bad = Some(what),
                }
                found <= limit && bad.is_none()
            });
        scanned.map_err(|e| Problem::internal(&e))?;
        if let Some(what) = bad {
            return Err(Problem::internal(&what));
        }
    }
    Ok(Some(objects))
}

fn stored(task: &LocalTask, id: &str) -> Result<Option<Stored>, Problem> {
    let row = task.store.get(&row_key(OBJECT, id.as_bytes()));
    let row = row.map_err(|e| Problem::internal(&e))?;
    let stored = row.map(|row| Stored::decode(&row)).transpose();
    stored.map_err(|e| Problem::internal(&e))
}

/// The object id of a path.
pub(crate) fn object_id(
    id: Result<Path<String>, PathRejection>,
    longest: usize,
) -> Result<String, Problem> {
    let Path(id) = id.map_err(|e| Problem::bad_request(e.body_text()))?;
    check_key(Some(id.as_bytes()), longest).map_err(Problem::bad_request)?;
    Ok(id)
}

/// A `wait` parameter.
pub(crate) fn wait(text: Option<&str>) -> Result<Option<Duration>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let wait = humantime::parse_duration(text)
        .map_err(|e| Problem::bad_request(format!("wait={text}: {e}; write it as 5s or 500ms")))?;
    if wait > Duration::from_secs(60) {
        return Err(Problem::bad_request("wait: at most 60s"));
    }
    Ok(Some(wait))
}
