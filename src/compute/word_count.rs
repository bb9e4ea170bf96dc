//! `word-count`: how often each word stands in the values of a map. A scatter.
//!
//! A word is a longest run of letters and digits, in lower case. Text is counted as it is; of
//! JSON and MessagePack the texts that they hold, without the names of fields; numbers and bytes
//! that are no text hold no words.

use super::context::Handled;
use super::scatter::{PartitionScan, ResultMap, Scatter};
use crate::types::{KeyCodec, Value, ValueCodec};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The registered name.
pub const NAME: &str = "word-count";

/// A payload, for those whose own is wrong.
pub(super) const EXAMPLE: &str = r#"{"map": "articles", "top": 20}"#;

/// What to count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The map whose values are counted.
    pub map: String,
    /// How many words the answer names, the most frequent first.
    #[serde(default = "default_top")]
    pub top: u32,
    /// A map that takes the counts of all words: utf8 keys, i64 values; created if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
}

fn default_top() -> u32 {
    20
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Words in all.
    pub words: u64,
    /// Different words.
    pub distinct: u64,
    /// The most frequent words with their counts; equal counts in the words' order.
    pub top: Vec<(String, u64)>,
}

/// The scatter.
#[derive(Clone, Copy, Debug, Default)]
pub struct WordCount;

impl Scatter for WordCount {
    type Input = Input;
    type Part = BTreeMap<String, u64>;
    type Output = Output;

    fn map(&self, partition: &mut PartitionScan<'_>, input: &Input) -> Handled<Self::Part> {
        let mut counts = BTreeMap::new();
        partition.each(&input.map, |_, value| {
            count_value(value, &mut counts);
            Ok(())
        })?;
        Ok(counts)
    }

    fn combine(&self, _input: &Input, into: &mut Self::Part, other: Self::Part) {
        for (word, count) in other {
            *into.entry(word).or_default() += count;
        }
    }

    fn reduce(&self, input: &Input, all: Option<Self::Part>, into: &mut Vec<ResultMap>) -> Handled<Output> {
        let all = all.unwrap_or_default();
        let (words, distinct) = (all.values().sum(), all.len() as u64);
        if let Some(map) = &input.into {
            let entry = |(word, count): (&String, &u64)| {
                (Bytes::from(word.clone()), Value::i64(i64::try_from(*count).unwrap_or(i64::MAX)))
            };
            into.push(ResultMap {
                map: map.clone(),
                key_codec: KeyCodec::Utf8,
                value_codec: ValueCodec::I64,
                entries: all.iter().map(entry).collect(),
            });
        }
        let mut top: Vec<(String, u64)> = all.into_iter().collect();
        // Stable: words of equal counts stay in their own order.
        top.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        top.truncate(input.top as usize);
        Ok(Output { words, distinct, top })
    }
}

pub(super) fn count_value(value: &Value, counts: &mut BTreeMap<String, u64>) {
    match value.codec {
        ValueCodec::Utf8 | ValueCodec::Bytes => {
            if let Ok(text) = std::str::from_utf8(&value.data) {
                count_text(text, counts);
            }
        }
        ValueCodec::Json => {
            if let Ok(value) = serde_json::from_slice(&value.data) {
                count_json(&value, counts);
            }
        }
        ValueCodec::Msgpack => {
            if let Ok(value) = crate::types::msgpack::from_slice(&value.data) {
                count_json(&value, counts);
            }
        }
        ValueCodec::I64 => {}
    }
}

fn count_json(value: &serde_json::Value, counts: &mut BTreeMap<String, u64>) {
    match value {
        serde_json::Value::String(text) => count_text(text, counts),
        serde_json::Value::Array(values) => values.iter().for_each(|value| count_json(value, counts)),
        serde_json::Value::Object(fields) => fields.values().for_each(|value| count_json(value, counts)),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

fn count_text(text: &str, counts: &mut BTreeMap<String, u64>) {
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(value: &Value) -> Vec<(String, u64)> {
        let mut counts = BTreeMap::new();
        count_value(value, &mut counts);
        counts.into_iter().collect()
    }

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        let found = counted(&Value::utf8("The tea, the TEA; and Öl-42!"));
        let expected = [("42", 1), ("and", 1), ("tea", 2), ("the", 2), ("öl", 1)];
        assert_eq!(found, expected.map(|(word, count)| (word.to_owned(), count)));
        let json =
            Value { codec: ValueCodec::Json, schema: 0, data: Bytes::from_static(br#"{"name":["a b",7,{"x":"b"}]}"#) };
        assert_eq!(counted(&json), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        let packed = rmp_serde::to_vec_named(&serde_json::json!({"name": "a b b"})).expect("encodes");
        let packed = Value { codec: ValueCodec::Msgpack, schema: 0, data: packed.into() };
        assert_eq!(counted(&packed), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(counted(&Value::i64(7)), []);
        let no_text = Value { codec: ValueCodec::Bytes, schema: 0, data: Bytes::from_static(b"\xff\xfe") };
        assert_eq!(counted(&no_text), []);
    }

    #[test]
    fn the_top_is_by_count_then_by_word() {
        let all: BTreeMap<String, u64> = [("b", 2), ("a", 2), ("c", 3)].map(|(word, n)| (word.to_owned(), n)).into();
        let input = Input { map: "m".into(), top: 2, into: Some("counts".into()) };
        let mut writes = Vec::new();
        let output = WordCount.reduce(&input, Some(all), &mut writes).expect("reduces");
        assert_eq!((output.words, output.distinct), (7, 3));
        assert_eq!(output.top, [("c".to_owned(), 3), ("a".to_owned(), 2)]);
        assert_eq!(writes[0].entries.len(), 3);
        assert_eq!(WordCount.reduce(&input, None, &mut writes).expect("reduces"), Output::default());
    }
}
