//! Failpoints without the feature: nothing, so that the code around them is as it would be without.

use std::io;

/// A step at which the process may die: it does not.
#[inline(always)]
pub fn reach(_point: &'static str) {}

/// A step at which the disk may have no room: it has.
///
/// # Errors
/// None.
#[inline(always)]
pub fn disk(_point: &'static str) -> io::Result<()> {
    Ok(())
}

/// Whether a test has armed a step: none has.
#[inline(always)]
pub fn is_armed(_point: &'static str) -> bool {
    false
}
