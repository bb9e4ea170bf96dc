//! Fuzz targets: what people type: keys, values and payloads, checks of transactions; and
//! how values are shown.

use super::*;
use crate::fuzzing::Fuzz;
use crate::types::{KeyCodec, MapDescriptor, MapId, Value, ValueCodec};

fn map(key_codec: KeyCodec, value_codec: ValueCodec) -> MapDescriptor {
    MapDescriptor { id: MapId(1), name: "m".to_owned(), key_codec, value_codec, schema: 2, options: Default::default() }
}

#[test]
fn typed_entry() {
    let seeds = ["7", "-9223372036854775808", "text", r#"{"a": [1, null, "x"], "b": 1.5}"#, "käse", ""];
    let words: &[&str] = &["\"", "{", "[", "null", "1e999", "\\u0000", "+", "-"];
    Fuzz::new("typed_entry", seeds).words(words).bytes_per_byte(1024).run(|input| {
        let text = String::from_utf8_lossy(input);
        let keys = [KeyCodec::Bytes, KeyCodec::Utf8, KeyCodec::I64].map(|codec| {
            let key = entries::key_bytes(&text, Some(&map(codec, ValueCodec::Bytes)));
            key.map_err(|error| assert_eq!(error.code, Code::WrongCodec)).is_ok()
        });
        let codecs = [ValueCodec::Bytes, ValueCodec::Utf8, ValueCodec::Json, ValueCodec::Msgpack, ValueCodec::I64];
        let values = codecs.map(|codec| match entries::value_of(&text, Some(&map(KeyCodec::Utf8, codec))) {
            Ok(value) => {
                output::raw(&value);
                output::value_json(&value).to_string();
                true
            }
            Err(error) => {
                assert_eq!(error.code, Code::WrongCodec);
                false
            }
        });
        let payload = task::payload(&text).map_err(|error| assert_eq!(error.code, Code::InvalidConfig));
        format!("{keys:?} {values:?} {}", payload.is_ok())
    });
}

/// The first byte says the codec of what a peer holds.
#[test]
fn shown_value() {
    let with = |codec: ValueCodec, data: &[u8]| [&[codec as u8], data].concat();
    let seeds = [
        with(ValueCodec::Msgpack, b"\x82\xa1a\x01\xa1b\x92\xc0\xcb\x7f\xf8\0\0\0\0\0\0"),
        with(ValueCodec::Json, br#"{"a": [1, "x"]}"#),
        with(ValueCodec::I64, &[255; 8]),
        with(ValueCodec::Utf8, "käse".as_bytes()),
    ];
    Fuzz::new("shown_value", seeds).bytes_per_byte(1024).run(|input| {
        let Some((codec, data)) = input.split_first() else { return String::new() };
        let Some(codec) = ValueCodec::from_number(codec % 5) else { return String::new() };
        let value = Value { codec, schema: 0, data: data.to_vec().into() };
        output::raw(&value);
        let shown = output::value_json(&value);
        format!("{codec} {}", shown.is_object() || shown.is_array())
    });
}

#[test]
fn typed_pair() {
    Fuzz::new("typed_pair", ["k=3", "{7}:a=b=absent", "=", "k"]).words(&["=", "absent", "-1", "+"]).run(|input| {
        let text = String::from_utf8_lossy(input);
        let check = walk_args::check(&text);
        let pair = walk_args::pair(&text);
        assert!(pair.as_ref().is_ok_and(|(key, value)| format!("{key}={value}") == text) || !text.contains('='));
        check.map_or_else(|_| "none".to_owned(), |(_, revision)| format!("{}", revision.is_some()))
    });
}
