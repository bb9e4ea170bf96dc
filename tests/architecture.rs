//! The rules that keep the modules apart, checked on the sources: the direction of dependencies,
//! the one place that names each big dependency, a description at the head of each file, and a
//! code map in `docs/ARCHITECTURE.md` that names what is there and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The modules under `src`, top to bottom: each uses only its own layer and those below.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["grid"],
    &["api", "client"],
    &["node"],
    &["compute"],
    &["partition"],
    &["meta"],
    &["raft"],
    &["storage", "net"],
    &["membership", "ring"],
    &["types", "error", "config", "clock", "failpoint", "planted"],
];

/// Each big dependency, and where alone under `src` it may be named.
const NAMED_ONLY_IN: &[(&str, &[&str])] = &[
    ("openraft", &["src/raft"]),
    ("chitchat", &["src/membership"]),
    ("sled", &["src/storage/backend"]),
    ("fjall", &["src/storage/backend"]),
    ("fail", &["src/failpoint"]),
    ("hashring", &["src/ring"]),
    ("tonic", &["src/api", "src/client", "src/net"]),
    ("axum", &["src/api"]),
    ("prometheus_client", &["src/node"]),
    ("clap", &["src/cli"]),
    ("csv", &["src/cli/demo"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A source file: its path from the project's root, and its text.
struct Source {
    path: String,
    text: String,
}

fn collect(directory: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("readable").path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            collect(&entry, into);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            into.push(entry);
        }
    }
}

fn sources(directory: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join(directory), &mut paths);
    let source = |path: PathBuf| Source {
        path: path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/"),
        text: std::fs::read_to_string(&path).expect("a readable file"),
    };
    paths.into_iter().map(source).collect()
}

/// The name in `mod NAME;` or `pub(crate) mod NAME;`; `None` for another line.
fn declared_module(line: &str) -> Option<&str> {
    let line = line.trim();
    let at = if line.starts_with("mod ") { 0 } else { line.find(" mod ").map(|at| at + 1)? };
    if at > 0 && !line.starts_with("pub") {
        return None;
    }
    line[at + 4..].strip_suffix(';').filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
}

/// Files and directories that only tests are compiled from, as path prefixes.
fn test_only(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let parent = match source.path.strip_suffix("/mod.rs").or(source.path.strip_suffix("/lib.rs")) {
            Some(directory) => directory.to_owned(),
            None => source.path.trim_end_matches(".rs").to_owned(),
        };
        let directory = source.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let mut lines = source.text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if line != "#[cfg(test)]" {
                continue;
            }
            let mut next = lines.next().unwrap_or_default();
            if let Some(file) = next.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
                found.push(format!("{directory}/{file}"));
                next = "";
            }
            if let Some(name) = declared_module(next) {
                found.push(format!("{parent}/{name}.rs"));
                found.push(format!("{parent}/{name}/"));
            }
        }
    }
    found
}

/// The text without comments, and without a test module at the file's end.
fn code(source: &Source) -> String {
    let text = source.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let text = text.split("#[cfg(test)]\npub(super) mod tests {").next().unwrap_or_default();
    let without_comment = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(without_comment).collect::<Vec<_>>().join("\n")
}

/// The sources below a directory, without those that only tests are compiled from.
fn compiled(directory: &str) -> Vec<Source> {
    let all = sources(directory);
    let tests = test_only(&all);
    all.into_iter().filter(|source| !tests.iter().any(|test| source.path.starts_with(test.as_str()))).collect()
}

/// The top modules that a text reaches by `crate::name` or `crate::{a, b}`.
fn reached(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let first_name = |text: &str| text.trim_start().chars().take_while(|c| is_name(*c)).collect::<String>();
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            names.insert(first_name(rest));
            continue;
        };
        let mut depth = 0;
        for part in list.split_inclusive([',', '{', '}']) {
            if depth == 0 {
                names.insert(first_name(part));
            }
            match part.chars().last() {
                Some('{') => depth += 1,
                Some('}') if depth == 0 => break,
                Some('}') => depth -= 1,
                _ => {}
            }
        }
    }
    names.remove("");
    names
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The top module that a path under `src` belongs to; `None` for `lib.rs` and `main.rs`.
fn top_module(path: &str) -> Option<String> {
    let name = path.strip_prefix("src/")?.split('/').next()?.trim_end_matches(".rs");
    (name != "lib" && name != "main").then(|| name.to_owned())
}

fn upward_uses(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let Some(module) = top_module(&source.path) else { continue };
        let Some(own) = layer(&module) else {
            wrong.push(format!("{}: module {module} has no layer in this test", source.path));
            continue;
        };
        for used in reached(&code(source)) {
            // What is not a module is a re-export at the root, or a macro.
            if layer(&used).is_some_and(|used| used < own) {
                wrong.push(format!("{}: {module} uses {used}, which stands above it", source.path));
            }
        }
    }
    wrong
}

#[test]
fn dependencies_point_downwards() {
    let wrong = upward_uses(&compiled("src"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_upward_use_is_found() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let table = [
        ("src/ring/x.rs", "use crate::node::Node;", 1),
        ("src/partition/x.rs", "use crate::{\n    types::{A, B}, compute::Registry,\n    meta,\n};", 1),
        ("src/meta/x.rs", "fn f() { crate::partition::check() }", 1),
        ("src/compute/x.rs", "use crate::partition::SlotView;\n// crate::cli\nuse crate::error::Result;", 0),
        ("src/ring/x.rs", "#[cfg(test)]\nmod tests {\n    use crate::cli::run;\n}", 0),
        ("src/new/x.rs", "", 1),
        ("src/main.rs", "use keystead::cli;", 0),
    ];
    for (path, text, count) in table {
        let wrong = upward_uses(&[source(path, text)]);
        assert_eq!(wrong.len(), count, "{path}: {wrong:?}");
    }
}

/// Whether a text names a crate: as the head of a path, or in `use name;` and `use name as`.
fn names_crate(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = &text[at + name.len()..];
        let is_head = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':' && c != '.' && c != '"');
        let is_use = text[..at].ends_with("use ") && (after.starts_with(';') || after.starts_with(" as "));
        is_head && (after.starts_with("::") || is_use)
    })
}

fn misplaced_names(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let code = code(source);
        for (name, places) in NAMED_ONLY_IN {
            let allowed = places.iter().any(|place| source.path.starts_with(&format!("{place}/")));
            if !allowed && names_crate(&code, name) {
                wrong.push(format!("{} names {name}, which only {} may", source.path, places.join(", ")));
            }
        }
    }
    wrong
}

#[test]
fn each_big_dependency_is_named_in_its_place_only() {
    let wrong = misplaced_names(&compiled("src"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_misplaced_dependency_is_found() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let table = [
        ("src/node/x.rs", "use openraft::Raft;", 1),
        ("src/node/x.rs", "use sled;", 1),
        ("src/node/x.rs", "let x = tonic::Status::ok();", 1),
        ("src/node/x.rs", "mod openraft_like; let x = super::sled::open(); // openraft::x", 0),
        ("src/raft/x.rs", "use openraft::Raft;", 0),
        ("src/storage/log/x.rs", "use sled::Db;", 1),
    ];
    for (path, text, count) in table {
        assert_eq!(misplaced_names(&[source(path, text)]).len(), count, "{path}: {text}");
    }
}

#[test]
fn each_file_says_what_it_is() {
    let mut silent = Vec::new();
    for directory in ["src", "chaos-tests/src", "grid-proto/src", "examples", "tests"] {
        for source in compiled(directory) {
            let first = source.text.lines().next().unwrap_or_default();
            if !first.starts_with("//! ") || first.len() < 12 {
                silent.push(source.path);
            }
        }
    }
    assert!(silent.is_empty(), "these files do not open with `//!` and what they are: {silent:?}");
}

/// Files and directories right below a directory that hold modules of the program: `name.rs` and `name`.
fn modules_in(directory: &str, program: &[Source]) -> BTreeSet<String> {
    let prefix = format!("{directory}/");
    let names = program.iter().filter_map(|source| source.path.strip_prefix(&prefix));
    let first = names.filter_map(|rest| rest.split('/').next().map(|name| name.trim_end_matches(".rs").to_owned()));
    first.filter(|name| name != "mod").collect()
}

/// The code map: for each heading "### `path`" the names in backticks that open its list items.
fn code_map(document: &str) -> Vec<(String, BTreeSet<String>)> {
    let quoted = |text: &str| text.split('`').next().unwrap_or_default().to_owned();
    let mut map: Vec<(String, BTreeSet<String>)> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        if let Some(path) = line.strip_prefix("### `") {
            map.push((quoted(path), BTreeSet::new()));
            inside = true;
        } else if line.starts_with('#') {
            inside = false;
        } else if let (true, Some(name), Some((_, names))) = (inside, line.strip_prefix("- `"), map.last_mut()) {
            names.insert(quoted(name));
        }
    }
    map
}

#[test]
fn the_code_map_names_every_module_and_nothing_else() {
    let document = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the document");
    let map = code_map(&document);
    let mut program = compiled("src");
    program.extend(compiled("chaos-tests/src"));

    let mut expected: BTreeSet<String> =
        modules_in("src", &program).into_iter().map(|name| format!("src/{name}")).collect();
    expected.insert("chaos-tests/src".to_owned());
    let headings: BTreeSet<String> = map.iter().map(|(path, _)| path.trim_end_matches(".rs").to_owned()).collect();
    assert_eq!(headings, expected, "headings of the code map (left) and top modules (right)");
    for (path, names) in &map {
        let modules = modules_in(path, &program);
        let missing: Vec<_> = modules.difference(names).collect();
        let unknown: Vec<_> = names.difference(&modules).collect();
        assert!(missing.is_empty() && unknown.is_empty(), "{path}: not named {missing:?}, not there {unknown:?}");
    }
}

/// Paths in backticks.
fn paths_named(document: &str) -> Vec<String> {
    let tops = ["src/", "chaos-tests/", "grid-proto/", "docs/", "tests/", "examples/", "benches/", ".ci/"];
    let spans = document.split('`').skip(1).step_by(2);
    spans
        .filter(|span| tops.iter().any(|top| span.starts_with(top)) && !span.contains(' '))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_documents_name_only_files_that_are_there() {
    let docs = std::fs::read_dir(root().join("docs")).expect("the documents").flatten();
    let docs = docs.map(|entry| format!("docs/{}", entry.file_name().to_string_lossy()));
    let documents: Vec<String> = docs.chain(["README.md".to_owned(), "CHANGELOG.md".to_owned()]).collect();
    assert!(documents.len() >= 9, "{documents:?}");
    for document in &documents {
        let text = std::fs::read_to_string(root().join(document)).expect("the document");
        let missing: Vec<_> = paths_named(&text).into_iter().filter(|path| !root().join(path).exists()).collect();
        assert!(missing.is_empty(), "{document} names {missing:?}");
    }
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the document");
    let unnamed: Vec<_> = documents.iter().filter(|document| document.starts_with("docs/")).collect();
    let unnamed: Vec<_> = unnamed.into_iter().filter(|document| !readme.contains(&format!("({document})"))).collect();
    assert!(unnamed.is_empty(), "README.md does not name {unnamed:?}");
    let found = paths_named("see `src/nowhere.rs`, `docs`, and `src/lib.rs`");
    assert_eq!(found, ["src/nowhere.rs", "src/lib.rs"]);
}
