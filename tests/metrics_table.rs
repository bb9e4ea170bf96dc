//! `docs/METRICS.md` lists the metrics of a running peer; this compares. To write it anew:
//! `KEYSTEAD_WRITE_DOCS=1 cargo test --test metrics_table`.

use keystead::Grid;
use keystead::node::GridService;
use std::fmt::Write;
use std::path::PathBuf;

const HEAD: &str = "\
# Metrics

`keystead start --http 127.0.0.1:7481` serves these at `/metrics`, in Prometheus' text format. Counters
count from the start of the process. This page is made from what a peer serves; a test compares.

| name | kind | means |
|---|---|---|
";

/// From `# HELP name help.` and `# TYPE name kind`, which come in pairs.
fn document(metrics: &str) -> String {
    let mut out = HEAD.to_owned();
    let mut help = "";
    for line in metrics.lines() {
        if let Some((_, text)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help = text.trim_end_matches('.');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            writeln!(out, "| `{name}{suffix}` | {kind} | {help} |").expect("a string");
        }
    }
    out
}

#[tokio::test]
async fn the_page_lists_what_a_peer_serves() {
    let grid = Grid::builder().listen("127.0.0.1:0").memory().start().await.expect("a peer starts");
    let written = document(&grid.node().metrics());
    grid.shutdown().await;
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/METRICS.md");
    if std::env::var_os("KEYSTEAD_WRITE_DOCS").is_some() {
        std::fs::write(&path, &written).expect("docs/METRICS.md can be written");
    }
    let page = std::fs::read_to_string(&path).expect("docs/METRICS.md can be read");
    assert!(page == written, "docs/METRICS.md is out of date; KEYSTEAD_WRITE_DOCS=1 writes it anew");
}
