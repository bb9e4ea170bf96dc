//! Fuzz targets: keys and rows of the grid's facts, and the founding record.

use super::*;
use crate::error::Code;
use crate::fuzzing::{Fuzz, reseal_json};
use crate::types::GroupId;

const ROWS: [&str; 9] = [
    r#"grid={"grid":"fffffffffffffffffffffffffffffffe","founders":[{"node":"0000000000000001","address":"a:1"}],"partitions":64,"replicas":3,"created_ms":9,"active_version":1}"#,
    r#"member/00000000000000ab={"node":"00000000000000ab","name":"n1","address":"a:1","zone":"z","weight":1,"incarnation":4,"since":9,"tasks":[{"name":"t","version":1,"fingerprint":7}]}"#,
    r#"placement/00007={"group":8,"version":2,"replicas":[],"learners":[[10,"0000000000000003"]],"leaving":[3],"lead":10,"switching":true,"formed":true}"#,
    r#"placement/meta={"group":0,"version":2,"replicas":[[3,"0000000000000001"]],"formed":true,"new":{"a":[1,null]}}"#,
    r#"map/a/b={"id":3,"name":"a/b","key_codec":"utf8","value_codec":"msgpack","schema":1}"#,
    r#"dropped/0000000007={"name":"m"}"#,
    r#"removed/00000000000000ab={"node":"00000000000000ab","name":"n1"}"#,
    r#"replica-ids={"next":18446744073709551615}"#,
    r#"map-ids={"next":4294967295}"#,
];

/// A row as one input: the key, `=`, and what the row's bytes are behind the version.
fn sealed(text: &str) -> Vec<u8> {
    let (key, json) = text.split_once('=').expect("a row");
    [key.as_bytes(), b"=\x01", json.as_bytes()].concat()
}

#[test]
fn meta_row() {
    let words: &[&str] = &["\"", "null", "{}", "[]", "-1", "1e9", "placement/", "member/", "\\u0000", "4294967295"];
    Fuzz::new("meta_row", ROWS.map(sealed)).words(words).run(|input| {
        let at = input.iter().position(|byte| *byte == b'=').unwrap_or(input.len());
        let key = String::from_utf8_lossy(&input[..at]);
        if let Some(parsed) = MetaKey::parse(&key) {
            assert_eq!(parsed.to_string(), key, "one spelling");
        }
        let mut view = MetaView::default();
        match view.set(&key, 3, input.get(at + 1..)) {
            Ok(()) => {
                for group in view.placement.keys() {
                    view.replicas(*group);
                    view.placement_of(*group).map(PlacementRow::target);
                    view.is_given_up(*group, u64::MAX);
                }
                view.partitions();
                formed(&view, GroupId::META).ok();
                view.set(&key, 4, None).expect("a deletion is always understood");
                format!("{:?}", MetaKey::parse(&key).map(|key| std::mem::discriminant(&key)))
            }
            Err(error) => {
                assert_eq!(error.code, Code::CorruptRow);
                assert_eq!(view, MetaView::default(), "the view is as before");
                error.what
            }
        }
    });
}

fn record() -> FoundingRecord {
    let json = concat!(
        r#"{"grid":"00000000000000000000000000000007","founders":["#,
        r#"{"node":"0000000000000001","name":"n1","address":"h1:7000","weight":1},"#,
        r#"{"node":"0000000000000002","name":"n2","address":"h2:7000","zone":"z","weight":1}],"#,
        r#""founder_list":["h1:7000","h2:7000"],"partitions":64,"replicas":3,"created_ms":9}"#
    );
    serde_json::from_str(json).expect("a record")
}

#[test]
fn founding_record() {
    let seed = record().encode().expect("encodes");
    Fuzz::new("founding_record", [seed]).reseal(reseal_json).run(|input| match FoundingRecord::decode(input) {
        Ok(record) => {
            let again = record.encode().expect("encodes");
            assert_eq!(FoundingRecord::decode(&again).as_ref(), Ok(&record));
            let seeds = record.founder_list.clone();
            format!("a record, {}", record.check_settings(&seeds, record.partitions, 3).is_ok())
        }
        Err(error) => {
            assert!(matches!(error.code, Code::CorruptRow | Code::UnknownFormat), "{error}");
            error.what
        }
    });
}

#[test]
fn founding_record_flipped_bits() {
    let whole = record().encode().expect("encodes");
    // The input says which bits are flipped, or where the end is cut off.
    Fuzz::new("founding_record_flipped_bits", [[0u8, 40, 1], [1, 0, 0]]).run(|input| {
        let Some((&[high, low, mask], _)) = input.split_first_chunk() else { return String::new() };
        let at = usize::from(u16::from_be_bytes([high, low])) % whole.len();
        let mut bad = whole.to_vec();
        bad[at] ^= mask;
        let bad = if mask == 0 { &bad[..at] } else { &bad[..] };
        let error = FoundingRecord::decode(bad).expect_err("noticed");
        // Only the version is not covered by the checksum.
        let expected = if at == 0 && mask != 0 { Code::UnknownFormat } else { Code::CorruptRow };
        assert_eq!(error.code, expected, "{error}");
        error.what
    });
}
