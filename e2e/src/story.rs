//! How a story is told: its frame, and waiting for what must happen.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};
use devkit::Servers;
use tokio::sync::OnceCell;

use crate::Application;

/// How long to wait for something that must happen and normally does at once: long enough for a busy machine. A
/// story that asserts a speed uses a deadline of its own.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(30);

/// A look that takes longer has seen nothing.
const LOOK: Duration = Duration::from_secs(15);

/// Waits until `look` succeeds, and returns what it saw. A failure of `look` says what is there instead.
///
/// # Errors
/// It was not seen in time: the error says `what`, and why the last look was not it.
pub async fn eventually<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let started = Instant::now();
    let mut last: Option<Error> = None;
    loop {
        // A look under way is given up at the deadline, but the first one has some time in any case.
        let left = patience.saturating_sub(started.elapsed()).max(POLL);
        match tokio::time::timeout(left.min(LOOK), look()).await {
            Ok(Ok(seen)) => return Ok(seen),
            Ok(Err(error)) => last = Some(error),
            Err(_) => {
                let open = "the look did not end";
                last = Some(last.map_or_else(|| anyhow!(open), |seen| seen.context(open)));
            }
        }
        if started.elapsed() >= patience {
            let last = last.unwrap_or_else(|| anyhow!("nothing"));
            return Err(anyhow!(
                "not seen within {patience:?}: {what}; last seen: {last:#}"
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until what `look` returns is `wanted`, and returns it.
///
/// # Errors
/// As for [`eventually`]; the last value is in the error.
pub async fn until<T: Debug>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
    wanted: impl Fn(&T) -> bool,
) -> Result<T> {
    eventually(what, patience, async || {
        let value = look().await?;
        if wanted(&value) {
            Ok(value)
        } else {
            Err(anyhow!("{value:?}"))
        }
    })
    .await
}

/// The servers that all stories of this process share: one Kafka and one registry, those that the environment
/// names or own ones. They end with the process.
///
/// # Errors
/// They do not start.
pub async fn shared_servers() -> Result<&'static Servers> {
    static SERVERS: OnceCell<Servers> = OnceCell::const_new();
    SERVERS.get_or_try_init(Servers::acquire).await
}

/// Tells a story about an application of its own on the shared servers.
///
/// # Errors
/// As for [`story_of`].
pub async fn story(name: &str, tell: impl AsyncFnOnce(&Application) -> Result<()>) -> Result<()> {
    story_of(Application::on(name, shared_servers().await?)?, tell).await
}

/// Tells a story about this application.
///
/// # Errors
/// The story's error, with the ends of all logs; the folder stays.
pub async fn story_of(
    mut app: Application,
    tell: impl AsyncFnOnce(&Application) -> Result<()>,
) -> Result<()> {
    let told = tell(&app).await;
    told.map_err(|error| {
        app.keep();
        error.context(format!("story {}\n{}", app.id(), app.tails()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_returns_what_was_awaited() {
        let mut looks = 0;
        let look = async || {
            looks += 1;
            Ok(looks)
        };
        let seen = until("three looks", PATIENCE, look, |n| *n == 3).await;
        assert_eq!(seen.unwrap(), 3);
    }

    #[tokio::test]
    async fn waiting_in_vain_says_for_what_and_what_was_there() {
        let patience = Duration::from_millis(5);
        let look = async || Ok("a cat");
        let error = until("a dog", patience, look, |v| *v == "a dog").await;
        assert_eq!(
            error.unwrap_err().to_string(),
            "not seen within 5ms: a dog; last seen: \"a cat\""
        );
        let error = eventually("an end", patience, std::future::pending::<Result<()>>).await;
        assert_eq!(
            error.unwrap_err().to_string(),
            "not seen within 5ms: an end; last seen: the look did not end"
        );
    }
}
