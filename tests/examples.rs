//! Runs every example, as built by `cargo test`, and checks what it prints. What is in Python, and the peer that
//! it walks through, is run by `tests/python.rs`.

use std::path::PathBuf;
use std::process::Command;

/// Runs an example; what it printed.
fn run(name: &str) -> String {
    let mut path = PathBuf::from(env!("CARGO_BIN_EXE_keystead"));
    path.pop();
    path.push("examples");
    path.push(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is missing: `cargo build --examples` makes it", path.display());
    let run = Command::new(&path).output().expect("the example starts");
    let (out, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{name}: {}\n{out}{errors}", run.status);
    out.into_owned()
}

/// Every one of these lines is among what was printed, in this order.
fn check(name: &str, lines: &[&str]) {
    let printed = run(name);
    let mut rest = printed.lines();
    for line in lines {
        assert!(rest.any(|printed| printed.contains(line)), "{name} did not print {line:?} in its place:\n{printed}");
    }
}

#[test]
fn typed_map() {
    let order = "order 42: Some(Order { item: \"mug\", pieces: 3 })";
    let later = "order 42: Some(LaterOrder { item: \"mug\", pieces: 4, gift: true })";
    let lines = ["listening on 127.0.0.1:", order, "written again: false", later, "deleted: true", "order 42: None"];
    check("typed_map", &lines);
}

#[test]
fn affinity_task() {
    check(
        "affinity_task",
        &[
            "left: 700, saved: Some(300)",
            "refused: KS4001: too-little: {anna}:current holds only 700",
            "saved: Some(300)",
        ],
    );
}

#[test]
fn grpc_client() {
    let lines =
        ["member n1 at 127.0.0.1:", "written at revision", "order 42 is open", "{\"total\":250}", "refused: KS2001"];
    check("grpc_client", &lines);
}

#[test]
fn word_count() {
    let lines = ["14 words, 8 different", "the: 5", "rain: 2", "roof: 2", "street is counted: true"];
    check("word_count", &lines);
}

#[test]
fn top_k() {
    let lines = [
        "largest totals: Int(96), Int(92), Int(85)",
        "mean: 48.5",
        "refused: KS4005: the payload is not what the task takes: it is the number 7, and must be text (task mean); \
         send a payload such as \"orders\"",
    ];
    check("top_k", &lines);
}

#[test]
fn no_example_is_forgotten() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(directory).expect("there are examples");
    let mut names: Vec<String> =
        files.map(|file| file.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(
        names,
        ["affinity_task.rs", "grpc_client.rs", "own_peer.rs", "python", "top_k.rs", "typed_map.rs", "word_count.rs"],
        "run a new example here or in tests/python.rs"
    );
}
