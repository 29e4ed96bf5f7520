//! Looks after the thread that conducts the instance, as that one looks after all others. The beats come
//! from a thread of their own: without this one, a conductor that is stuck would hold its tasks for ever.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::watchdog::{Pulse, Watchdog};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Starts the thread. It ends when the sender that belongs to `gone` is dropped, or calls `stuck` with
/// the reason when the pulse has not beaten for `limit`.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn start(
    pulse: Pulse,
    limit: Duration,
    gone: mpsc::Receiver<()>,
    stuck: impl FnOnce(String) + Send + 'static,
) -> anyhow::Result<()> {
    let look = move || {
        let mut watchdog = Watchdog::default();
        watchdog.watch("the thread that conducts this instance".into(), pulse);
        let mut looked = Instant::now();
        let timeout = Err(mpsc::RecvTimeoutError::Timeout);
        while gone.recv_timeout(LOOK_EVERY.min(limit)) == timeout {
            let passed = looked.elapsed();
            looked = Instant::now();
            if let Some(name) = watchdog.look(passed, limit) {
                return stuck(format!("{name} has shown no sign of life for {limit:?}"));
            }
        }
    };
    let thread = thread::Builder::new().name("lookout".into());
    thread.spawn(look).context("thread")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_who_is_stuck_and_nothing_of_who_has_ended() {
        let (alive, gone) = mpsc::channel();
        let (told, heard) = mpsc::channel();
        let tell = move |why| told.send(why).unwrap();
        start(Pulse::default(), Duration::ZERO, gone, tell).unwrap();
        let why = heard.recv().unwrap();
        assert!(why.contains("no sign of life"), "{why}");
        drop(alive);

        let (alive, gone) = mpsc::channel::<()>();
        let (told, heard) = mpsc::channel::<String>();
        let tell = move |why| told.send(why).unwrap();
        drop(alive);
        start(Pulse::default(), Duration::from_mins(10), gone, tell).unwrap();
        assert!(heard.recv().is_err(), "the thread has ended");
    }
}
