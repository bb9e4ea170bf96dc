//! The kernel's own delay and loss, in addition to the proxy's, where a network namespace with `tc netem`
//! may be had without privileges.
//!
//! In: the wish. Out: this program again in a namespace of its own, whose loopback device loses, delays
//! and reorders real packets on demand; or why that cannot be.

use keystead::clock;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long `tc` may take.
const WITHIN: Duration = Duration::from_secs(20);

/// Runs what stands behind it with the loopback device up.
const INSIDE: &str = "ip link set lo up && exec \"$0\" \"$@\"";

/// Whether it may be had.
///
/// # Errors
/// Why not.
pub fn permitted() -> Result<(), String> {
    let mut command = Command::new("unshare");
    command.args(["-Urn", "sh", "-c", INSIDE, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]);
    match command.stdin(Stdio::null()).output() {
        Err(error) => Err(format!("unshare cannot be run: {error}")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Becomes this program with further arguments, inside a namespace. Returns only if that fails.
pub fn enter(more: &[&str]) -> anyhow::Error {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error.into(),
    };
    let mut command = Command::new("unshare");
    command.args(["-Urn", "sh", "-c", INSIDE]).arg(program).args(std::env::args_os().skip(1)).args(more);
    command.exec().into()
}

/// Lets the loopback device of this namespace lose, delay and reorder, or no more. Whether that came about.
pub async fn shape(how: Option<(u64, u64)>) -> bool {
    let mut command = tokio::process::Command::new("tc");
    match how {
        Some((milliseconds, percent)) => {
            let (delay, jitter) = (format!("{milliseconds}ms"), format!("{}ms", milliseconds / 2));
            command.args(["qdisc", "replace", "dev", "lo", "root", "netem", "delay", &delay, &jitter]);
            command.args(["loss", &format!("{percent}%"), "duplicate", "1%", "reorder", "10%"]);
        }
        None => {
            command.args(["qdisc", "del", "dev", "lo", "root"]);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    // A fault that does not come about is no finding.
    matches!(clock::timeout(WITHIN, command.status()).await, Ok(Ok(status)) if status.success())
}
