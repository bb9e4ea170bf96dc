//! `docs/ERRORS.md` is made from the table of error codes; this compares. To write it anew:
//! `KEYSTEAD_WRITE_DOCS=1 cargo test --test error_table`.

use keystead::error::{Class, Code, Retry};
use std::fmt::Write;
use std::path::PathBuf;

const HEAD: &str = "\
# Error codes

Every error that leaves Keystead has a code that never changes its meaning, and says what happened,
where, and how to mend it. This page is made from the table in `src/error.rs`; a test compares.

The class decides the gRPC status and the exit status of the command line. The advice says what a
client may do with the same request: `never` ask again, ask the `same peer` after a pause, or ask
another peer (the leader, if the error names one).

| code | name | class | gRPC status | exit status | retry | usual remedy |
|---|---|---|---|---|---|---|
";

fn class(class: Class) -> &'static str {
    match class {
        Class::BadRequest => "bad request",
        Class::NotFound => "not found",
        Class::Conflict => "conflict",
        Class::Unavailable => "unavailable",
        Class::OutcomeUnknown => "outcome unknown",
        Class::DeadlineExceeded => "deadline exceeded",
        Class::Exhausted => "exhausted",
        Class::UserCode => "user code",
        Class::DataLoss => "data loss",
        Class::Denied => "denied",
        Class::Internal => "internal",
    }
}

fn grpc(status: i32) -> &'static str {
    match status {
        2 => "UNKNOWN",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        other => panic!("gRPC status {other} has no name here"),
    }
}

fn document() -> String {
    let mut out = HEAD.to_owned();
    for code in Code::ALL {
        let (of, retry, remedy) = code.facts();
        let retry = match retry {
            Retry::Never => "never",
            Retry::SamePeer => "same peer",
            Retry::OtherPeer => "other peer",
        };
        let (of, status, exit) = (class(of), grpc(code.grpc()), code.exit_status());
        writeln!(out, "| {code} | {code:?} | {of} | {status} | {exit} | {retry} | {remedy} |").expect("a string");
    }
    out
}

#[test]
fn the_page_is_the_table() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/ERRORS.md");
    if std::env::var_os("KEYSTEAD_WRITE_DOCS").is_some() {
        std::fs::write(&path, document()).expect("docs/ERRORS.md can be written");
    }
    let page = std::fs::read_to_string(&path).expect("docs/ERRORS.md can be read");
    assert!(page == document(), "docs/ERRORS.md is out of date; KEYSTEAD_WRITE_DOCS=1 writes it anew");
}
