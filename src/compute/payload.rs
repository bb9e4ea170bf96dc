//! Payloads of user code: decoding what callers send, and saying in plain words what is wrong
//! with it. What a handler expects is known from serde's errors alone; they are put into the
//! words of people who send JSON, with the field, and with the example that the task gives.

use crate::error::{Code, Error, Result};
use crate::types::{TaskPayload, ValueCodec};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn codec_name(codec: ValueCodec) -> &'static str {
    match codec {
        ValueCodec::Json => "JSON",
        ValueCodec::Msgpack => "MessagePack",
        ValueCodec::Bytes => "bytes",
        ValueCodec::Utf8 => "text",
        ValueCodec::I64 => "a number's",
    }
}

/// Decodes a payload; `task` and `example` (JSON, may be empty) are for the error.
pub(super) fn decode<In: DeserializeOwned>(task: &str, example: &str, payload: &TaskPayload) -> Result<In> {
    let decoded = match payload.codec {
        ValueCodec::Msgpack => crate::types::msgpack::from_slice(&payload.data).map_err(|error| error.to_string()),
        ValueCodec::Json => serde_json::from_slice(&payload.data).map_err(|error| error.to_string()),
        other => {
            let what = format!("a task's payload is JSON or MessagePack, not {}", codec_name(other));
            return Err(refusal(task, example, what));
        }
    };
    decoded.map_err(|error| refusal(task, example, explain::<In>(payload, &error)))
}

fn refusal(task: &str, example: &str, what: String) -> Error {
    let error = Error::new(Code::TaskCodec, what).at(format!("task {task}"));
    if example.is_empty() { error } else { error.remedy(format!("send a payload such as {example}")) }
}

/// What is wrong with a payload that could not be decoded.
fn explain<In: DeserializeOwned>(payload: &TaskPayload, error: &str) -> String {
    let parsed: std::result::Result<serde_json::Value, String> = match payload.codec {
        ValueCodec::Msgpack => crate::types::msgpack::from_slice(&payload.data).map_err(|error| error.to_string()),
        _ => serde_json::from_slice(&payload.data).map_err(|error| error.to_string()),
    };
    let value = match parsed {
        Ok(value) => value,
        Err(error) => {
            return format!("the payload cannot be read as {}{}", codec_name(payload.codec), position(&error));
        }
    };
    match first_wrong_field::<In>(&value) {
        Some((field, error)) => format!("the payload's field \"{field}\" is wrong: {}", plain(&error)),
        None => {
            // The value's own error has no byte position, which would mean nothing to the caller.
            let again = serde_json::from_value::<In>(value).err().map(|error| error.to_string());
            format!("the payload is not what the task takes: {}", plain(again.as_deref().unwrap_or(error)))
        }
    }
}

/// Where JSON ended to be JSON.
fn position(error: &str) -> String {
    error.find(" at line ").map_or_else(String::new, |at| format!(": it is broken{}", &error[at..]))
}

/// Objects of more fields are not searched for the one that is wrong: each is tried on a copy.
const FIELDS_TRIED: usize = 64;

/// The field of an object whose value is the trouble: without it the error is another one.
fn first_wrong_field<In: DeserializeOwned>(value: &serde_json::Value) -> Option<(String, String)> {
    let object = value.as_object().filter(|object| object.len() <= FIELDS_TRIED)?;
    let whole = serde_json::from_value::<In>(value.clone()).err()?.to_string();
    for name in object.keys() {
        let mut without = object.clone();
        without.remove(name);
        let error = serde_json::from_value::<In>(without.into()).err().map(|error| error.to_string());
        let names_it = error.as_ref().is_none_or(|error| error.contains(&format!("`{name}`")));
        if error.as_ref() != Some(&whole) && names_it && whole.starts_with("invalid") {
            return Some((name.clone(), whole));
        }
    }
    None
}

/// Names of types, as serde says them and as people do.
const WORDS: &[(&str, &str)] = &[
    ("i8", "a whole number from -128 to 127"),
    ("i16", "a whole number from -32768 to 32767"),
    ("i32", "a whole number of 32 bits"),
    ("i64", "a whole number of 64 bits"),
    ("i128", "a whole number"),
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number that is not negative"),
    ("usize", "a whole number that is not negative"),
    ("u128", "a whole number that is not negative"),
    ("f32", "a number"),
    ("f64", "a number"),
    ("a string", "text"),
    ("string", "text"),
    ("a character", "one character"),
    ("a boolean", "true or false"),
    ("boolean", "the truth value"),
    ("integer", "the number"),
    ("floating point", "the number"),
    ("unit", "nothing (null)"),
    ("null", "null"),
    ("unit value", "nothing"),
    ("sequence", "a list"),
    ("a sequence", "a list"),
    ("map", "an object"),
    ("a map", "an object"),
    ("an option", "a value or null"),
    ("newtype struct", "a value"),
    ("byte array", "bytes"),
];

/// A serde message in plain words.
pub(super) fn plain(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    let parts = |prefix: &str| message.strip_prefix(prefix).and_then(|rest| rest.rsplit_once(", expected "));
    if let Some((found, expected)) = parts("invalid type: ").or_else(|| parts("invalid value: ")) {
        return format!("it is {}, and must be {}", found_words(found), expected_words(expected));
    }
    if let Some((length, expected)) = parts("invalid length ") {
        return format!("it has {length} parts, and must be {}", expected_words(expected));
    }
    if let Some(field) = message.strip_prefix("missing field ") {
        return format!("the field {} is missing", field.replace('`', "\""));
    }
    let quoted = message.replace('`', "\"");
    let unknown = |kind: &str, noun: &str| {
        let (found, known) = quoted.strip_prefix(kind)?.split_once(", ")?;
        let known = known.strip_prefix("expected ").map(|known| known.strip_prefix("one of ").unwrap_or(known));
        // Where there are no fields, serde says that.
        let known = known.map_or_else(String::new, |known| format!("; known: {known}"));
        Some(format!("{noun}{found} is not known{known}"))
    };
    unknown("unknown variant ", "").or_else(|| unknown("unknown field ", "the field ")).unwrap_or(quoted)
}

fn expected_words(expected: &str) -> String {
    let known = WORDS.iter().find(|(name, _)| *name == expected).map(|(_, words)| (*words).to_owned());
    if let Some(words) = known {
        return words;
    }
    match expected.split_whitespace().next() {
        Some("struct" | "map" | "internally" | "adjacently") => "an object".to_owned(),
        Some("tuple" | "array") => "a list".to_owned(),
        Some("enum") => "one of the known names".to_owned(),
        _ => expected.replace('`', "\""),
    }
}

fn found_words(found: &str) -> String {
    // `string "x"`, `integer `7``, `null`, `sequence`.
    let (kind, value) = match found.find(['"', '`']) {
        Some(at) => (found[..at].trim(), found[at..].replace('`', "")),
        None => (found, String::new()),
    };
    let words = WORDS.iter().find(|(name, _)| *name == kind).map_or(kind, |(_, words)| words);
    if value.is_empty() { words.to_owned() } else { format!("{words} {value}") }
}

/// Encodes an answer with the codec that its payload came in.
pub(super) fn encode<Out: Serialize>(codec: ValueCodec, output: &Out) -> Result<TaskPayload> {
    let name = codec_name(codec);
    let bad = |error: String| Error::new(Code::TaskCodec, format!("the task's answer cannot be {name}: {error}"));
    let data = match codec {
        ValueCodec::Json => serde_json::to_vec(output).map_err(|error| bad(error.to_string()))?,
        ValueCodec::Msgpack => rmp_serde::to_vec_named(output).map_err(|error| bad(error.to_string()))?,
        _ => return Err(bad("it is JSON or MessagePack".to_owned())),
    };
    Ok(TaskPayload { codec, data: data.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    #[serde(deny_unknown_fields)]
    struct Input {
        map: String,
        top: u32,
        #[serde(default)]
        kind: Kind,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        #[default]
        Words,
        Lines,
    }

    fn error(json: &str) -> Error {
        let payload = TaskPayload { codec: ValueCodec::Json, data: json.to_owned().into() };
        decode::<Input>("count", r#"{"map": "m", "top": 3}"#, &payload).expect_err("refused")
    }

    #[test]
    fn a_wrong_payload_is_explained_in_plain_words() {
        for (json, says) in [
            (
                r#"{"map": "m", "top": "three"}"#,
                "field \"top\" is wrong: it is text \"three\", and must be a whole number from 0",
            ),
            (r#"{"map": 7, "top": 3}"#, "field \"map\" is wrong: it is the number 7, and must be text"),
            (r#"{"top": 3}"#, "the field \"map\" is missing"),
            (r#"{"map": "m", "top": -3}"#, "field \"top\" is wrong: it is the number -3"),
            (
                r#"{"map": "m", "top": 3, "more": 1}"#,
                "the field \"more\" is not known; known: \"map\", \"top\", \"kind\"",
            ),
            (r#"{"map": "m", "top": 3, "kind": "bytes"}"#, "\"bytes\" is not known; known: \"words\" or \"lines\""),
            ("[1, 2", "cannot be read as JSON: it is broken at line 1 column 5"),
            ("7", "it is the number 7, and must be an object"),
            ("null", "it is null, and must be an object"),
        ] {
            let error = error(json);
            assert_eq!((error.code, error.place.as_str()), (Code::TaskCodec, "task count"));
            assert!(error.what.contains(says), "{json}: {error}");
            assert!(error.remedy.contains(r#"{"map": "m", "top": 3}"#), "{error}");
            for inner in ["struct", "serde", "u32", "Input", "expected", "variant", "`"] {
                assert!(!error.what.contains(inner), "{json} leaks {inner:?}: {error}");
            }
        }
    }

    #[test]
    fn message_pack_is_explained_alike() {
        let data = rmp_serde::to_vec_named(&serde_json::json!({"map": "m", "top": "x"})).expect("encodes").into();
        let payload = TaskPayload { codec: ValueCodec::Msgpack, data };
        let error = decode::<Input>("count", "", &payload).expect_err("refused");
        assert!(error.what.contains("field \"top\" is wrong: it is text \"x\""), "{error}");
        let broken = TaskPayload { codec: ValueCodec::Msgpack, data: vec![0xC1].into() };
        let error = decode::<Input>("count", "", &broken).expect_err("refused");
        assert!(error.what.contains("cannot be read as MessagePack"), "{error}");
    }
}
