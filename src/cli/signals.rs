//! Being told to stop: Ctrl-C everywhere, SIGTERM where there is such a thing.

/// Waits for the first signal to stop; its name.
///
/// # Errors
/// When signals cannot be listened for.
#[cfg(unix)]
pub(super) async fn stop_signal() -> std::io::Result<&'static str> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| "Ctrl-C"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}

/// Waits for the first signal to stop; its name.
///
/// # Errors
/// When signals cannot be listened for.
#[cfg(not(unix))]
pub(super) async fn stop_signal() -> std::io::Result<&'static str> {
    tokio::signal::ctrl_c().await.map(|()| "Ctrl-C")
}
