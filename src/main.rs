//! The binary: hands the arguments to [`keystead::cli`].

use std::process::ExitCode;

/// Fewer instructions a message than the system's. Without huge pages, of which one small part in use
/// keeps 2 MiB: see docs/PERFORMANCE.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(keystead::cli::run(std::env::args_os()))
}
