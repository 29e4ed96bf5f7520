//! One token that every part of a service watches: cancelled by SIGTERM or Ctrl-C.

use std::{io::Write as _, process::ExitCode};

pub use tokio_util::sync::CancellationToken as Shutdown;

/// Ends the process without taking it down piece by piece: a thread that is still within a call of RocksDB
/// or librdkafka, because a disk or a broker does not answer, would meet destructors of what it is using.
pub fn exit(code: ExitCode) -> ! {
    let failed = code != ExitCode::SUCCESS;
    // Whoever reads them is gone if that fails.
    drop(std::io::stdout().flush());
    drop(std::io::stderr().flush());
    signal_hook::low_level::exit(i32::from(failed))
}

/// A token that SIGTERM, SIGINT or SIGHUP cancels. A second signal ends the process at once, for a
/// person who does not want to wait.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signal() -> std::io::Result<Shutdown> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let shutdown = Shutdown::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hang_up.recv() => "SIGHUP",
            };
            if token.is_cancelled() {
                tracing::warn!("{name} again: leaving without finishing");
                std::process::exit(130);
            }
            tracing::info!("{name}: shutting down");
            token.cancel();
        }
    });
    Ok(shutdown)
}
