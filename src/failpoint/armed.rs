//! Failpoints as a test has armed them, over the crate `fail`. In: a step's name and what is to be done
//! there, in that crate's words (`3*off->return(crash)`: the fourth time). Out: the end of the process
//! as kill -9 would bring it, or an error of the disk. Asks nobody before the first step is armed.

use super::POINTS;
use crate::error::{Code, Error, Result};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// The variable that arms steps of a peer from its start: `point=actions;point=actions`.
const VARIABLE: &str = "FAILPOINTS";

/// Whether any step was ever armed.
static ARMED: AtomicBool = AtomicBool::new(false);

fn refused(what: String) -> Error {
    Error::new(Code::InvalidConfig, what).remedy("name a point of src/failpoint.rs")
}

/// Arms a step: `return(crash)` ends the process there, `return(full)` and `return(error)` are errors of
/// the disk.
///
/// # Errors
/// `InvalidConfig` for a step that is not there, or actions that cannot be read.
pub fn arm(point: &str, actions: &str) -> Result<()> {
    if !POINTS.contains(&point) {
        return Err(refused(format!("there is no failpoint {point:?}")));
    }
    set(point, actions)
}

fn set(point: &str, actions: &str) -> Result<()> {
    ARMED.store(true, Ordering::SeqCst);
    fail::cfg(point, actions).map_err(|error| refused(format!("failpoint {point}: {error}")))
}

/// Lets a step do nothing again.
pub fn disarm(point: &str) {
    fail::remove(point);
}

/// Arms what the variable `FAILPOINTS` names.
///
/// # Errors
/// As [`arm`].
pub fn arm_from_environment() -> Result<()> {
    let named = std::env::var(VARIABLE).unwrap_or_default();
    for one in named.split(';').map(str::trim).filter(|one| !one.is_empty()) {
        let (point, actions) = one.split_once('=').ok_or_else(|| refused(format!("{one:?} names no action")))?;
        arm(point.trim(), actions.trim())?;
    }
    Ok(())
}

/// What a test wants to be done at a step, now that it is reached.
fn asked(point: &str) -> Option<String> {
    if !ARMED.load(Ordering::Relaxed) {
        return None;
    }
    fail::fail_point!(point, |what: Option<String>| what);
    None
}

/// A step at which the process may die.
pub fn reach(point: &'static str) {
    if asked(point).is_some() {
        die(point);
    }
}

/// A step at which the disk may have no room, and the process may die.
///
/// # Errors
/// `StorageFull` or `Other` where a test has asked for it.
pub fn disk(point: &'static str) -> io::Result<()> {
    match asked(point).as_deref() {
        None => Ok(()),
        Some("full") => Err(io::Error::new(io::ErrorKind::StorageFull, format!("failpoint {point}"))),
        Some("error") => Err(io::Error::other(format!("failpoint {point}"))),
        Some(_) => die(point),
    }
}

/// Whether a test has armed a step: then it is worth going in two.
pub fn is_armed(point: &'static str) -> bool {
    ARMED.load(Ordering::Relaxed) && fail::list().iter().any(|(name, actions)| name == point && !actions.is_empty())
}

/// Ends the process at once: nothing is flushed, nobody is told, nothing is dropped.
fn die(point: &str) -> ! {
    // Whoever watches the process learns at which step it died.
    drop(writeln!(io::stderr(), "failpoint {point}: the process ends here"));
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_an_error_from_the_time_on_that_was_asked_for() {
        // Not one of the sources': other tests come to those.
        const HERE: &str = "a-test";
        assert!(disk(HERE).is_ok() && !is_armed(HERE), "nobody has armed it");
        set(HERE, "2*off->return(full)").expect("armed");
        let full: Vec<bool> = (0..4).map(|_| disk(HERE).is_err()).collect();
        assert_eq!(full, [false, false, true, true]);
        assert!(is_armed(HERE) && crate::storage::disk::is_full(&disk(HERE).expect_err("full")));
        disarm(HERE);
        assert!(disk(HERE).is_ok() && !is_armed(HERE));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        assert_eq!(arm("nowhere", "return(crash)").expect_err("no point").code, Code::InvalidConfig);
        assert_eq!(set("another-test", "explode").expect_err("no action").code, Code::InvalidConfig);
    }
}
