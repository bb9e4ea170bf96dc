//! Fuzz targets: values of typed maps, and values that are rewritten with fields that the program
//! does not know.

use super::super::msgpack;
use super::super::tree::Tree;
use super::*;
use crate::fuzzing::Fuzz;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A value as an older program knows it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    total: i64,
    #[serde(default)]
    lines: Vec<Line>,
    note: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    article: String,
    count: u8,
}

const SEEDS: [&str; 6] = [
    r#"{"total": 3, "lines": [{"article": "a", "count": 2}], "note": null}"#,
    r#"{"total": -1, "note": "n", "paid": {"at": 5, "by": ["x", 1.5, null]}, "lines": [], "more": true}"#,
    r#"{"note": "", "total": 9223372036854775807, "lines": [{"article": "b", "count": 255, "colour": "red"}]}"#,
    "[[[[1]]]]",
    "\"text\"",
    "-0.0",
];

fn rewritten<C: Codec<Order>>(input: &[u8]) -> String {
    let before = Bytes::copy_from_slice(input);
    let value = match C::decode(&before) {
        Ok(value) => value,
        Err(why) => return why,
    };
    let changed = Order { total: value.total.wrapping_add(1), ..value };
    match C::rewrite(&changed, &before) {
        Ok(after) => {
            assert_eq!(C::decode(&after).expect("is read again").total, changed.total);
            "rewritten".to_owned()
        }
        Err(why) => why,
    }
}

#[test]
fn typed_json() {
    let words: &[&str] = &["\"total\":", "\"more\":", "1e999", "\\ud800", "null", "[", "{", "-", "\u{0}"];
    Fuzz::new("typed_json", SEEDS).words(words).bytes_per_byte(1024).run(|input| {
        let tree: Result<Tree, _> = serde_json::from_slice(input);
        let data = Bytes::copy_from_slice(input);
        let plain = [<Plain as Codec<i64>>::decode(&data).is_ok(), <Plain as Codec<String>>::decode(&data).is_ok()];
        format!("{} {plain:?} {}", tree.is_ok(), rewritten::<Json>(input))
    });
}

#[test]
fn typed_msgpack() {
    let seeds = SEEDS.map(|json| {
        let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
        rmp_serde::to_vec_named(&value).expect("encodes")
    });
    Fuzz::new("typed_msgpack", seeds).bytes_per_byte(1024).run(|input| {
        let tree: Result<Tree, _> = msgpack::from_slice(input);
        if let Ok(tree) = &tree {
            let again = rmp_serde::to_vec_named(tree).expect("encodes");
            let back: Tree = msgpack::from_slice(&again).expect("decodes");
            assert_eq!(rmp_serde::to_vec_named(&back).expect("encodes"), again);
        }
        format!("{} {}", tree.is_ok(), rewritten::<Msgpack>(input))
    });
}
