//! Precedence, refusals, and the words they come with.

use super::*;
use crate::error::Code;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn none(_: &str) -> Option<String> {
    None
}

#[test]
fn nothing_is_required() {
    let config = NodeConfig::from_options(Options::default()).expect("defaults");
    assert_eq!(config.listen, "127.0.0.1:7401");
    assert_eq!((config.partitions, config.replicas, config.backend), (64, 3, Backend::Sled));
    assert!(config.data.ends_with("keystead/7401"), "{:?}", config.data);
    assert_eq!(config.name, "n7401");
    assert_eq!(config, NodeConfig::default());
}

#[test]
fn the_data_directory_follows_the_listen_port() {
    let options = Options { listen: Some("127.0.0.1:9000".into()), ..Options::default() };
    let config = NodeConfig::from_options(options).expect("good");
    assert!(config.data.ends_with("keystead/9000"));
    assert_eq!(config.name, "n9000");
}

#[test]
fn every_option_can_come_from_the_file_and_from_a_variable() {
    let file = r#"
        name = "a"
        listen = "127.0.0.1:1"
        advertise = "127.0.0.1:2"
        http = "127.0.0.1:3"
        seeds = ["127.0.0.1:4", "127.0.0.1:5"]
        data = "/d"
        partitions = 16
        replicas = 5
        backend = "memory"
        zone = "z"
        weight = 2
        insecure = true
        [limits]
        max_key_bytes = 10
    "#;
    let from_file = Options::from_toml(file, "f").expect("reads");
    let variables = BTreeMap::from([
        ("KEYSTEAD_NAME", "a"),
        ("KEYSTEAD_LISTEN", "127.0.0.1:1"),
        ("KEYSTEAD_ADVERTISE", "127.0.0.1:2"),
        ("KEYSTEAD_HTTP", "127.0.0.1:3"),
        ("KEYSTEAD_SEEDS", "127.0.0.1:4, 127.0.0.1:5"),
        ("KEYSTEAD_DATA", "/d"),
        ("KEYSTEAD_PARTITIONS", "16"),
        ("KEYSTEAD_REPLICAS", "5"),
        ("KEYSTEAD_BACKEND", "memory"),
        ("KEYSTEAD_ZONE", "z"),
        ("KEYSTEAD_WEIGHT", "2"),
        ("KEYSTEAD_INSECURE", "1"),
    ]);
    let from_variables =
        Options::from_variables(&|name| variables.get(name).map(|text| (*text).to_owned())).expect("reads");
    assert_eq!(from_file.limits.as_ref().map(|limits| limits.max_key_bytes), Some(10));
    assert_eq!(Options { limits: None, ..from_file }, from_variables);
    assert_eq!(Options::from_toml("seeds = \"a:1,b:2\"", "f").expect("reads").seeds.map(|seeds| seeds.len()), Some(2));
}

proptest! {
    #[test]
    fn an_option_beats_a_variable_beats_the_file(option: Option<u16>, variable: Option<u16>, file: Option<u16>) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("k.toml");
        let text = file.map_or(String::new(), |n| format!("partitions = {n}"));
        std::fs::write(&path, text).expect("written");
        let look_up = |name: &str| variable.filter(|_| name == "KEYSTEAD_PARTITIONS").map(|n| n.to_string());
        let options = Options { partitions: option.map(u32::from), ..Options::default() };
        let merged = options.gather(Some(path), &look_up).expect("gathers");
        prop_assert_eq!(merged.partitions, option.or(variable).or(file).map(u32::from));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,200}") {
        drop(Options::from_toml(&text, "f"));
        let _ = address::split(&text);
    }
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_one() {
    let error = Options::from_toml("partitons = 3", "k.toml").expect_err("unknown");
    assert_eq!(error.code, Code::InvalidConfig);
    let text = error.to_string();
    assert!(text.contains("partitons") && text.contains("\"partitions\"") && text.contains("k.toml"), "{text}");
    let error = Options::from_toml("[limits]\nmax_keybytes = 3", "k.toml").expect_err("unknown");
    assert!(error.to_string().contains("limits.max_key_bytes"), "{error}");
}

#[test]
fn a_wrong_type_names_the_line() {
    let error = Options::from_toml("name = \"a\"\npartitions = \"many\"", "k.toml").expect_err("wrong type");
    assert!(error.to_string().contains("k.toml line 2"), "{error}");
}

#[test]
fn a_missing_file_is_an_error() {
    let error = Options::default().gather(Some(PathBuf::from("/no/such/file")), &none).expect_err("missing");
    assert_eq!(error.code, Code::InvalidConfig);
    assert_eq!(error.code.exit_status(), 2);
}

#[test]
fn a_public_address_needs_insecure() {
    for address in ["0.0.0.0:7401", "192.168.1.5:7401", "[::]:7401", "example.org:7401"] {
        let open = |insecure| Options { listen: Some(address.into()), insecure, ..Options::default() };
        let error = NodeConfig::from_options(open(None)).expect_err("public");
        assert_eq!(error.code, Code::PublicAddress, "{address}");
        NodeConfig::from_options(open(Some(true))).expect("insecure is allowed when asked for");
        let http = Options { http: Some(address.into()), ..Options::default() };
        assert_eq!(NodeConfig::from_options(http).expect_err("public").code, Code::PublicAddress);
    }
    for address in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:7401", "localhost:7401"] {
        let options = Options { listen: Some(address.into()), ..Options::default() };
        NodeConfig::from_options(options).expect(address);
    }
}

#[test]
fn an_address_says_what_is_wrong_with_it() {
    for (address, says) in [
        ("7401", "names no port"),
        ("127.0.0.1:", "not a number from 0 to 65535"),
        ("127.0.0.1:+1", "not a number from 0 to 65535"),
        ("127.0.0.1:65536", "not a number from 0 to 65535"),
        (":7401", "names no host"),
        ("::1:7401", "in brackets"),
        ("http://127.0.0.1:7401", "a scheme"),
        ("a b:1", "no host name"),
    ] {
        let error = port_of("listen", address).expect_err(address);
        assert_eq!(error.code, Code::InvalidConfig);
        let text = error.to_string();
        assert!(text.contains(says) && text.contains("option listen") && text.contains("write HOST:PORT"), "{text}");
    }
    assert_eq!(port_of("listen", "[::1]:7401").expect("good"), 7401);
    assert_eq!(port_of("listen", "fe80::1%eth0:1").err().map(|error| error.code), Some(Code::InvalidConfig));
}

#[test]
fn limits_that_cannot_work_are_refused_by_name() {
    Limits::default().check().expect("the defaults");
    for (text, name) in [
        ("max_key_bytes = 70000", "max_key_bytes"),
        ("max_connections = 0", "max_connections"),
        ("default_deadline_ms = 70000", "default_deadline_ms"),
        ("max_message_bytes = 3", "max_message_bytes"),
    ] {
        let options = Options::from_toml(&format!("[limits]\n{text}"), "k.toml").expect("reads");
        let error = NodeConfig::from_options(options).expect_err("refused");
        assert_eq!(error.code, Code::InvalidConfig);
        assert!(error.to_string().contains(&format!("limits.{name}")), "{error}");
    }
    let error = Options::from_toml("[limits]\nmax_key_bytes = -1", "k.toml").expect_err("negative");
    assert!(error.to_string().contains("k.toml line 2"), "{error}");
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let bad = [
        Options { listen: Some("7401".into()), ..Options::default() },
        Options { listen: Some("::1".into()), ..Options::default() },
        Options { seeds: Some(vec!["127.0.0.1:0".into()]), ..Options::default() },
        Options { listen: Some("127.0.0.1:0".into()), seeds: Some(vec!["127.0.0.1:1".into()]), ..Options::default() },
        Options { partitions: Some(0), ..Options::default() },
        Options { replicas: Some(0), ..Options::default() },
        Options { weight: Some(101), ..Options::default() },
        Options { weight: Some(0), ..Options::default() },
        Options { name: Some("a b".into()), ..Options::default() },
        Options { zone: Some(String::new()), ..Options::default() },
    ];
    for options in bad {
        let error = NodeConfig::from_options(options.clone()).expect_err("refused");
        assert_eq!(error.code, Code::InvalidConfig, "{options:?}");
    }
}

#[test]
fn the_document_of_limits_names_each_with_its_text() {
    let (source, document) = (include_str!("limits.rs"), include_str!("../../docs/LIMITS.md"));
    let fields = source.split_once("pub struct Limits {").and_then(|(_, rest)| rest.split_once("\n}\n")).expect("it").0;
    let (mut text, mut rows) = (Vec::new(), Vec::new());
    for line in fields.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            text.push(words.trim());
        } else if let Some((name, _)) = line.strip_prefix("pub ").and_then(|line| line.split_once(':')) {
            rows.push(format!("| `{name}` | {} |", std::mem::take(&mut text).join(" ")));
        }
    }
    assert!(rows.len() > 20, "{rows:?}");
    let there: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(there, rows);
}
