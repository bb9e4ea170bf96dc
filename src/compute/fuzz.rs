//! Fuzz targets: payloads of tasks, and the values that built-in tasks read, as clients wrote them.

use super::*;
use crate::error::Code;
use crate::fuzzing::Fuzz;
use crate::types::{Schema, TaskPayload, Value, ValueCodec, read_value};
use bytes::Bytes;

fn msgpack(json: &str) -> Vec<u8> {
    let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
    rmp_serde::to_vec_named(&value).expect("encodes")
}

fn decoded<In: serde::de::DeserializeOwned>(codec: ValueCodec, input: &[u8]) -> String {
    let payload = TaskPayload { codec, data: Bytes::copy_from_slice(input) };
    match payload::decode::<In>("task", "{}", &payload) {
        Ok(_) => "understood".to_owned(),
        Err(error) => {
            assert_eq!(error.code, Code::TaskCodec);
            error.what
        }
    }
}

const PAYLOADS: [&str; 5] = [
    r#"{"map": "orders", "k": 10, "field": "total.sum"}"#,
    r#"{"map": "m", "window_s": 60, "bucket_s": 10, "buckets": 6, "at": 5, "amount": -3}"#,
    r#"{"map": "m", "top": 3, "into": "words"}"#,
    r#"{"map": 7, "k": "ten"}"#,
    r#"[null, {"a": [1.5, "x"]}]"#,
];

/// Many fields, none of which the task knows and one of which is wrong.
fn wide() -> String {
    let fields: String = (0..3000).map(|number| format!("\"f{number}\":1,")).collect();
    format!("{{{fields}\"map\":7}}")
}

#[test]
fn payload_json() {
    let seeds = PAYLOADS.map(str::to_owned).into_iter().chain([wide()]);
    let words: &[&str] = &["\"map\":", "\"k\":", "null", "1e999", "{", "[", "`", ", expected ", "\\u0000"];
    Fuzz::new("payload_json", seeds).words(words).bytes_per_byte(1024).run(|input| {
        let codec = ValueCodec::Json;
        [decoded::<top_k::Input>(codec, input), decoded::<rolling_total::Input>(codec, input)].join("; ")
    });
}

#[test]
fn payload_msgpack() {
    Fuzz::new("payload_msgpack", PAYLOADS.map(msgpack)).bytes_per_byte(1024).run(|input| {
        let codec = ValueCodec::Msgpack;
        [decoded::<top_k::Input>(codec, input), decoded::<word_count::Input>(codec, input)].join("; ")
    });
}

/// The first byte says the codec.
#[test]
fn task_value() {
    let with = |codec: ValueCodec, data: &[u8]| [&[codec as u8], data].concat();
    let seeds = [
        with(ValueCodec::Json, PAYLOADS[0].as_bytes()),
        with(ValueCodec::Json, br#"{"total":{"sum":9.5}}"#),
        with(ValueCodec::Msgpack, &msgpack(r#"{"total":{"sum":-9},"words":["one two","two"]}"#)),
        with(ValueCodec::Msgpack, &rmp_serde::to_vec(&(-3i64, 1u64 << 60)).expect("encodes")),
        with(ValueCodec::Utf8, " -2.5e3 ".as_bytes()),
        with(ValueCodec::I64, &7i64.to_le_bytes()),
        with(ValueCodec::Bytes, "one, two".as_bytes()),
    ];
    Fuzz::new("task_value", seeds)
        .words(&["nan", "inf", "1e308", "-", "9223372036854775808"])
        .bytes_per_byte(1024)
        .run(|input| {
            let Some((codec, data)) = input.split_first() else { return String::new() };
            let Some(codec) = ValueCodec::from_number(codec % 5) else { return String::new() };
            let value = Value { codec, schema: 1, data: Bytes::copy_from_slice(data) };
            let number = top_k::number(&value, None).or_else(|| top_k::number(&value, Some("total.sum")));
            assert!(number.is_none_or(|number| number.compare(number).is_eq()), "{number:?}");
            let mut counts = std::collections::BTreeMap::new();
            word_count::count_value(&value, &mut counts);
            let entry = rolling_total::decode_entry(&value);
            let typed = read_value::<Vec<Option<i64>>>(Schema::default(), &value).is_ok();
            format!("{codec} {} {} {} {typed}", number.is_some(), counts.len().min(2), entry.is_some())
        });
}
