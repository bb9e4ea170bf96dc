//! The binary: hands the arguments to [`keystead::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(keystead::cli::run(std::env::args_os()))
}
