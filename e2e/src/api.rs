//! The REST API as a user of it sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::schema::State;
use reqwest::{Client, Method, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::Metrics;

/// The REST API of one instance. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    client: Client,
    url: String,
}

/// An answer of any kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body; a string if it is not JSON.
    pub body: Value,
}

impl Answer {
    /// The body of a success.
    ///
    /// # Errors
    /// It is no success, or not this type.
    pub fn json<T: DeserializeOwned>(self) -> Result<T> {
        ensure!(self.status.is_success(), "{} {}", self.status, self.body);
        let shown = self.body.to_string();
        serde_json::from_value(self.body).with_context(|| format!("unexpected body {shown}"))
    }
}

/// What an operator sets.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Set<'a> {
    /// One of the scenario's verdicts.
    pub verdict: &'a str,
    /// Who orders it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<&'a str>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'a str>,
    /// When the vote counts again, for example `15m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<&'a str>,
}

/// Answer to a write.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Written {
    /// Where the command is, `partition:offset`.
    pub position: String,
    /// Has it been applied?
    pub applied: bool,
}

/// An agent's latest report.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Report {
    /// Who reported.
    pub agent_id: String,
    /// Is it part of the vote?
    pub counted: bool,
    /// What it weighs.
    pub weight: u32,
    /// The report as it was sent.
    pub report: Value,
}

/// Objects, sorted by id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Page {
    /// The objects.
    pub objects: Vec<State>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// The cluster as an instance sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Cluster {
    /// The instance that answers.
    pub instance: String,
    /// The application.
    pub application_id: String,
    /// Number of the plan in force; 0 before the first.
    pub plan: u64,
    /// Who made it.
    pub leader: Option<String>,
    /// Partitions of the source topic.
    pub partitions: u32,
    /// Every known instance.
    pub instances: Vec<Instance>,
    /// Every partition.
    pub tasks: Vec<Task>,
    /// Consumers that have joined the application's group.
    pub strangers: Vec<String>,
    /// Why the instance does not process everything that it should.
    pub not_ready: Option<String>,
}

/// An instance of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Where it answers.
    pub endpoint: String,
    /// Its label.
    pub rack: Option<String>,
    /// Is it here?
    pub present: bool,
    /// Its stores that are not complete yet, by partition.
    pub restores: BTreeMap<u32, Restore>,
}

/// A store on its way to the end of the changelog.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Restore {
    /// Changelog records that it lacks; `None` before anybody knows.
    pub remaining: Option<i64>,
    /// How fast it comes forward.
    pub records_per_second: u64,
    /// How long it will take; `None` if nobody can tell.
    pub seconds_left: Option<u64>,
}

/// A partition of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Task {
    /// Its number.
    pub partition: u32,
    /// Who should own it.
    pub owner: Option<String>,
    /// Does the owner process it already?
    pub running: bool,
    /// Who follows it.
    pub standbys: Vec<Standby>,
}

/// Who follows a partition.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Standby {
    /// The instance.
    pub instance: String,
    /// How many changelog records it lacks; `None` before it has told.
    pub lag: Option<i64>,
}

impl Cluster {
    /// The partition of an object.
    pub fn partition_of(&self, id: &str) -> u32 {
        common::partitioner::partition_of(id.as_bytes(), self.partitions.max(1))
    }

    /// The instance that owns an object's partition and processes it.
    pub fn owner_of(&self, id: &str) -> Option<&str> {
        let partition = self.partition_of(id);
        let task = self.tasks.iter().find(|task| task.partition == partition)?;
        task.owner.as_deref().filter(|_| task.running)
    }

    /// How many partitions this instance owns and processes.
    pub fn running_at(&self, instance: &str) -> usize {
        let mine = |task: &&Task| task.running && task.owner.as_deref() == Some(instance);
        self.tasks.iter().filter(mine).count()
    }
}

impl Api {
    /// The API at this URL.
    pub fn new(client: Client, url: String) -> Self {
        Self { client, url }
    }

    /// The URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of an object.
    pub fn object_url(&self, id: &str) -> String {
        format!("{}{}", self.url, object(id))
    }

    /// Any request; `path` is everything after the port.
    ///
    /// # Errors
    /// No answer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let url = format!("{}{path}", self.url);
        let mut request = self.client.request(method.clone(), &url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let context = || format!("{method} {url}");
        let answer = request.send().await.with_context(context)?;
        let status = answer.status();
        let text = answer.text().await.with_context(context)?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, body })
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.request(Method::GET, path, None).await?.json()
    }

    /// The state of an object; none if the service does not know it.
    ///
    /// # Errors
    /// Another answer, or none.
    pub async fn get(&self, id: &str) -> Result<Option<State>> {
        let answer = self.request(Method::GET, &object(id), None).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.json().map(Some)
    }

    /// The state of an object.
    ///
    /// # Errors
    /// The service does not know it, or does not answer.
    pub async fn state(&self, id: &str) -> Result<State> {
        let state = self.get(id).await?;
        state.with_context(|| format!("{id} is not known"))
    }

    /// The latest report of each agent.
    ///
    /// # Errors
    /// The service does not know the object, or does not answer.
    pub async fn reports(&self, id: &str) -> Result<Vec<Report>> {
        self.read(&format!("{}/reports", object(id))).await
    }

    /// Objects; `query` is empty, or as in `?verdict=CLEAR&limit=10`.
    ///
    /// # Errors
    /// The service does not answer.
    pub async fn list(&self, query: &str) -> Result<Page> {
        self.read(&format!("/v1/objects{query}")).await
    }

    /// The cluster as this instance sees it.
    ///
    /// # Errors
    /// The service does not answer.
    pub async fn cluster(&self) -> Result<Cluster> {
        self.read("/v1/cluster").await
    }

    /// Sets the state of an object by override, and waits until it is applied.
    ///
    /// # Errors
    /// It is refused, or not applied within ten seconds.
    pub async fn set(&self, id: &str, set: &Set<'_>) -> Result<Written> {
        let body = serde_json::to_value(set)?;
        self.write(Method::PUT, &object(id), Some(&body)).await
    }

    /// Ends an override, and waits until that is applied.
    ///
    /// # Errors
    /// It is refused, or not applied within ten seconds.
    pub async fn clear(&self, id: &str) -> Result<Written> {
        let path = format!("{}/override", object(id));
        self.write(Method::DELETE, &path, None).await
    }

    /// Makes the service forget an object, and waits until it has.
    ///
    /// # Errors
    /// It is refused, or not applied within ten seconds.
    pub async fn delete(&self, id: &str) -> Result<Written> {
        self.write(Method::DELETE, &object(id), None).await
    }

    async fn write(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Written> {
        let path = format!("{path}?wait=10s");
        let written: Written = self.request(method, &path, body).await?.json()?;
        ensure!(written.applied, "not applied within 10 s: {written:?}");
        Ok(written)
    }

    /// What the instance counts.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self) -> Result<Metrics> {
        let url = format!("{}/metrics", self.url);
        let answer = self.client.get(url).send().await?.error_for_status()?;
        Ok(Metrics::new(answer.text().await?))
    }
}

pub(crate) fn client() -> Result<Client> {
    let client = Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(15));
    client.build().context("an HTTP client")
}

/// The path of an object.
fn object(id: &str) -> String {
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    // In a path, a plus is a plus.
    format!("/v1/objects/{}", id.replace('+', "%20"))
}
