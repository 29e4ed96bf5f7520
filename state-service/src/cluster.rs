//! Any instance answers for any object: finding the owner, asking it, and waiting through a move.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use engine::query::{LocalTask, Query, Route};
use tokio::sync::OnceCell;

use crate::http::Problem;

/// Marks a request from another instance: it is answered here or not at all.
pub(crate) const HOP: HeaderName = HeaderName::from_static("x-shared-state-hop");
/// Which partitions another instance takes to be here: whoever lists objects must have them all.
const PARTITIONS: HeaderName = HeaderName::from_static("x-shared-state-partitions");
/// How long a request waits for an owner by default: longer than a takeover lasts.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);
/// Before partitions that move are looked for again.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// Asks other instances. Made with the first question, because it reads the system's certificates: many instances ask nobody.
/// Where none can be made, the service has not started, as the registry's client reads them too.
#[derive(Debug, Default)]
pub(crate) struct Client(OnceCell<reqwest::Client>);

impl Client {
    async fn get(&self, url: String) -> reqwest::Result<reqwest::RequestBuilder> {
        let make = || async {
            reqwest::Client::builder()
                .connect_timeout(Duration::from_secs(1))
                .no_proxy()
                .build()
        };
        Ok(self.0.get_or_try_init(make).await?.get(url))
    }
}

/// Is the request from another instance?
pub(crate) fn is_hop(headers: &HeaderMap) -> bool {
    headers.contains_key(HOP)
}

/// The partitions that a request from another instance is about; `None` if it does not say.
pub(crate) fn asked_partitions(headers: &HeaderMap) -> Result<Option<BTreeSet<u32>>, Problem> {
    let Some(listed) = headers.get(PARTITIONS) else {
        return Ok(None);
    };
    let listed = listed.to_str().unwrap_or_default();
    let partitions: Result<_, _> = listed.split(',').map(str::parse).collect();
    let wrong = |_| Problem::bad_request(format!("{PARTITIONS}: {listed:?} are no partitions"));
    partitions.map(Some).map_err(wrong)
}

/// Where an object's task is.
pub(crate) enum Place {
    Here(LocalTask),
    There(String),
}

/// Finds the owner of a partition, waiting until `deadline` for one.
pub(crate) async fn locate(
    query: &Query,
    partition: u32,
    hop: bool,
    deadline: Instant,
) -> Result<Place, Problem> {
    loop {
        let why = match query.route_partition(partition) {
            Route::Local(task) => return Ok(Place::Here(task)),
            Route::Remote { endpoint, .. } if !hop => return Ok(Place::There(endpoint)),
            Route::Remote { instance, .. } => {
                format!("partition {partition} is at instance {instance}")
            }
            Route::Nowhere(why) => why,
        };
        if Instant::now() >= deadline {
            return Err(Problem::unavailable(why));
        }
        // What is asked by another instance is not waited for here: that one asks again.
        if hop {
            return Err(Problem::unavailable(why));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks another instance, which must have all of `partitions`; `None` if it did not answer and somebody
/// else may by now.
pub(crate) async fn ask(
    client: &Client,
    endpoint: &str,
    path_and_query: &str,
    partitions: Option<&BTreeSet<u32>>,
    deadline: Instant,
) -> Option<reqwest::Response> {
    let ask = async {
        let request = client.get(format!("{endpoint}{path_and_query}")).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let mut request = request
            .header(HOP, HeaderValue::from_static("1"))
            .timeout(left.max(Duration::from_millis(100)));
        if let Some(partitions) = partitions {
            let listed: Vec<String> = partitions.iter().map(u32::to_string).collect();
            request = request.header(PARTITIONS, listed.join(","));
        }
        request.send().await
    };
    match ask.await {
        Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => Some(answer),
        Ok(_) => {
            tokio::time::sleep(PAUSE).await;
            None
        }
        Err(error) => {
            tracing::debug!(%error, endpoint, "an instance did not answer");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

/// Another instance's answer as our own.
pub(crate) async fn pass_on(answer: reqwest::Response) -> Response {
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    let body = answer.bytes().await.unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    if let Some(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}
