//! The operating system's randomness, from a seed on simulation threads.
//!
//! Hash maps, `rand::rng()`, openraft's election timeouts and tokio's own generator all start
//! from the C library's `getrandom`. This module defines that symbol itself: on a thread that
//! [`seed_this_thread`] was called on the bytes come from the seed, on every other thread from
//! the kernel. It needs no compiler flags. It is the only module here with unsafe code.
//!
//! Crates also keep counters that all threads of a process share (tokio, futures), so the same
//! seed gives the same run only in a fresh thread of a *fresh process*: see `runner`.

#![allow(unsafe_code)]

use crate::dice::Dice;
use std::cell::RefCell;

thread_local! {
    static SEEDED: RefCell<Option<Dice>> = const { RefCell::new(None) };
}

/// From now on this thread's system randomness comes from the seed. Call it first on a fresh
/// thread: what has already drawn its own seed keeps it.
pub fn seed_this_thread(seed: u64) {
    SEEDED.with(|seeded| *seeded.borrow_mut() = Some(Dice::new(seed, "getrandom")));
}

/// Fills the buffer if this thread is seeded.
fn fill_from_seed(buffer: &mut [u8]) -> bool {
    // A thread that is being torn down, or that is in here already, asks the kernel.
    SEEDED
        .try_with(|seeded| match seeded.try_borrow_mut() {
            Ok(mut seeded) => seeded.as_mut().map(|dice| dice.fill(buffer)).is_some(),
            Err(_) => false,
        })
        .unwrap_or(false)
}

/// Replaces the C library's function of the same name.
///
/// # Safety
/// As the C library demands: `buffer` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> isize {
    if buffer.is_null() || length == 0 {
        // The getrandom crate probes with an empty buffer whether the call exists.
        return 0;
    }
    // SAFETY: the caller promises `length` writable bytes at `buffer`, which is not null; bytes
    // of any content are valid `u8`, and the slice lives only for this call.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    if fill_from_seed(bytes) {
        return length as isize;
    }
    // SAFETY: the arguments are those of the system call, passed on unchanged; it writes at most
    // `length` bytes at `buffer`.
    unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngCore;
    use std::collections::HashSet;
    use std::collections::hash_map::RandomState;
    use std::hash::BuildHasher;

    fn in_fresh_thread<T: Send + 'static>(seed: Option<u64>, work: fn() -> T) -> T {
        std::thread::Builder::new()
            .spawn(move || {
                if let Some(seed) = seed {
                    seed_this_thread(seed);
                }
                work()
            })
            .expect("a thread")
            .join()
            .expect("no panic")
    }

    fn draw() -> (u64, u64, Vec<u32>) {
        let order: HashSet<u32> = (0..50).collect();
        (RandomState::new().hash_one(1_u8), rand::rng().next_u64(), order.into_iter().collect())
    }

    #[test]
    fn a_seeded_thread_repeats_itself() {
        assert_eq!(in_fresh_thread(Some(1), draw), in_fresh_thread(Some(1), draw));
        assert_ne!(in_fresh_thread(Some(1), draw), in_fresh_thread(Some(2), draw));
    }

    #[test]
    fn other_threads_have_real_randomness() {
        assert_ne!(in_fresh_thread(None, draw).1, in_fresh_thread(None, draw).1);
    }
}
