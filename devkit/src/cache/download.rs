//! One file from the network: retried, verified, and put in place in one step.

use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::{Client, StatusCode};
use sha2::{Digest, Sha256};
use url::Url;

use super::progress::Progress;
use super::{Download, Source};

const MAVEN_CENTRAL: &str = "https://repo1.maven.org/maven2";
const PYPI: &str = "https://pypi.org/simple";

/// The pauses between attempts.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// Why an attempt failed, and whether another may succeed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Network(#[from] reqwest::Error),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error(
        "its SHA-256 is {found} and should be {wanted}: the server holds another file, or the download was damaged"
    )]
    Checksum { found: String, wanted: String },
    #[error("the index page {0} does not list the file")]
    NotListed(Url),
    #[error("{0:#}")]
    Local(anyhow::Error),
}

impl Failure {
    fn is_worth_retrying(&self) -> bool {
        match self {
            Self::Network(error) => !error.is_builder(),
            Self::Status(status) => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Checksum { .. } | Self::NotListed(_) | Self::Local(_) => false,
        }
    }
}

/// Fetches `file` into `target`.
pub(super) async fn fetch(
    client: &Client,
    file: &Download,
    target: &Path,
    progress: &Progress,
) -> Result<()> {
    let mut pauses = PAUSES.iter();
    let failure = loop {
        match attempt(client, file, target, progress).await {
            Ok(()) => return Ok(()),
            Err(failure) if failure.is_worth_retrying() => match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => break failure,
            },
            Err(failure) => break failure,
        }
    };
    let (url, variable) = match &file.source {
        Source::Maven(path) => (maven_url(path), "MAVEN_REPOSITORY"),
        Source::PyPi { project, file } => (
            format!("{}/{project}/ ({file})", pypi_index()),
            "PYPI_INDEX",
        ),
        Source::Url(url) => (url.clone(), "HTTPS_PROXY"),
    };
    Err(anyhow::Error::new(failure)).with_context(|| {
        format!(
            "cannot download {url}; check the network, or set {variable} to one that works from here, \
             or put the file with SHA-256 {} at {} yourself",
            file.sha256,
            target.display()
        )
    })
}

async fn attempt(
    client: &Client,
    file: &Download,
    target: &Path,
    progress: &Progress,
) -> Result<(), Failure> {
    let url = match &file.source {
        Source::Maven(path) => maven_url(path),
        Source::PyPi { project, file } => find_in_index(client, project, file).await?.into(),
        Source::Url(url) => url.clone(),
    };
    let mut received = 0;
    let result = receive(client, &url, file, target, |bytes| {
        received += bytes;
        progress.advance(bytes);
    })
    .await;
    if result.is_err() {
        progress.take_back(received);
    }
    result
}

async fn receive(
    client: &Client,
    url: &str,
    file: &Download,
    target: &Path,
    mut on_bytes: impl FnMut(u64),
) -> Result<(), Failure> {
    let mut response = client.get(url).send().await?;
    if !response.status().is_success() {
        return Err(Failure::Status(response.status()));
    }
    let local = |error: std::io::Error| {
        Failure::Local(
            anyhow::Error::new(error).context(format!("cannot write {}", target.display())),
        )
    };
    let folder = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(local)?;
    // Writes of one chunk to a local file are short enough for the runtime's threads.
    let mut temporary = tempfile::Builder::new()
        .prefix(".download-")
        .tempfile_in(folder)
        .map_err(local)?;
    let mut hasher = Sha256::new();
    while let Some(chunk) = response.chunk().await? {
        hasher.update(&chunk);
        temporary.write_all(&chunk).map_err(local)?;
        on_bytes(chunk.len() as u64);
    }
    let found = hexadecimal(&hasher.finalize());
    if found != file.sha256 {
        return Err(Failure::Checksum {
            found,
            wanted: file.sha256.clone(),
        });
    }
    temporary.as_file().sync_all().map_err(local)?;
    temporary
        .persist(target)
        .map_err(|error| local(error.error))?;
    Ok(())
}

/// The file's address as the project's index page gives it, which may point anywhere.
async fn find_in_index(client: &Client, project: &str, file: &str) -> Result<Url, Failure> {
    let page = format!("{}/{project}/", pypi_index());
    let response = client.get(&page).send().await?;
    if !response.status().is_success() {
        return Err(Failure::Status(response.status()));
    }
    let page = response.url().clone();
    let text = response.text().await?;
    link_to(&text, &page, file).ok_or(Failure::NotListed(page))
}

/// The first link of an HTML page whose path ends in `/file` (or is just `file`).
pub(super) fn link_to(html: &str, page: &Url, file: &str) -> Option<Url> {
    html.split("href=")
        .skip(1)
        .filter_map(|rest| {
            let quote = rest
                .chars()
                .next()
                .filter(|first| matches!(first, '"' | '\''))?;
            rest[1..].split(quote).next()
        })
        .filter_map(|link| page.join(link).ok())
        .find(|link| link.path_segments().and_then(|mut parts| parts.next_back()) == Some(file))
}

fn maven_url(path: &str) -> String {
    format!("{}/{path}", base("MAVEN_REPOSITORY", MAVEN_CENTRAL))
}

fn pypi_index() -> String {
    base("PYPI_INDEX", PYPI)
}

fn base(variable: &str, default: &str) -> String {
    let set = env::var(variable).ok().filter(|value| !value.is_empty());
    set.as_deref()
        .unwrap_or(default)
        .trim_end_matches('/')
        .to_owned()
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
