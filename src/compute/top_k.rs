//! `top-k`: the entries of a map with the largest numbers. A scatter.
//!
//! The number is the value itself, or a field of it: an i64, a decimal in utf8, or a number in
//! JSON or MessagePack. Each partition, and each peer, passes on its own k largest, so what travels
//! does not grow with the map.

use super::TaskError;
use super::context::Handled;
use super::scatter::{PartitionScan, ResultMap, Scatter};
use crate::error::{Code, Error};
use crate::types::{Value, ValueCodec};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// The registered name.
pub const NAME: &str = "top-k";

/// Most entries that may be asked for.
pub const MAX_K: u32 = 10_000;

/// A payload, for those whose own is wrong.
pub(super) const EXAMPLE: &str = r#"{"map": "orders", "k": 10, "field": "total"}"#;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The map.
    pub map: String,
    /// How many entries.
    pub k: u32,
    /// The field of the value that holds the number, with dots between names; without it the
    /// value is the number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// A number, compared exactly whatever its kind.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    /// A whole one.
    Int(i64),
    /// Any other; never NaN.
    Float(f64),
}

impl Number {
    /// The exact order of numbers; the same for any mix of kinds.
    pub fn compare(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => a.cmp(&b),
            (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b).unwrap_or_else(|| a.total_cmp(&b)),
            (Number::Int(a), Number::Float(b)) => against(a, b),
            (Number::Float(a), Number::Int(b)) => against(b, a).reverse(),
        }
    }
}

/// A whole number against another, without rounding.
fn against(int: i64, float: f64) -> Ordering {
    const END: f64 = 9_223_372_036_854_775_808.0;
    if float >= END {
        return Ordering::Less;
    }
    if float < -END {
        return Ordering::Greater;
    }
    let rest = float.fract();
    int.cmp(&(float.trunc() as i64)).then(0.0.partial_cmp(&rest).unwrap_or(Ordering::Equal))
}

/// An entry of the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ranked {
    /// Its key, as text.
    pub key: String,
    /// Its number.
    pub value: Number,
}

/// What partitions pass on, and the answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Output {
    /// The largest first; equal numbers in the keys' order.
    pub top: Vec<Ranked>,
    /// Entries that hold no number there.
    pub skipped: u64,
}

/// The scatter.
#[derive(Clone, Copy, Debug, Default)]
pub struct TopK;

impl Scatter for TopK {
    type Input = Input;
    type Part = Output;
    type Output = Output;

    fn map(&self, partition: &mut PartitionScan<'_>, input: &Input) -> Handled<Output> {
        if input.k == 0 || input.k > MAX_K {
            let what = format!("the payload's field \"k\" is {}, and must be 1 to {MAX_K}", input.k);
            return Err(TaskError::Grid(Error::new(Code::InvalidRequest, what)));
        }
        let mut part = Output::default();
        let bound = input.k as usize * 2 + 64;
        partition.each(&input.map, |key, value| {
            match number(value, input.field.as_deref()) {
                Some(value) => part.top.push(Ranked { key: String::from_utf8_lossy(key).into_owned(), value }),
                None => part.skipped += 1,
            }
            if part.top.len() >= bound {
                cut(&mut part.top, input.k);
            }
            Ok(())
        })?;
        cut(&mut part.top, input.k);
        Ok(part)
    }

    fn combine(&self, input: &Input, into: &mut Output, other: Output) {
        into.top.extend(other.top);
        into.skipped += other.skipped;
        cut(&mut into.top, input.k);
    }

    fn reduce(&self, _input: &Input, all: Option<Output>, _into: &mut Vec<ResultMap>) -> Handled<Output> {
        Ok(all.unwrap_or_default())
    }
}

/// Keeps the k largest, in order.
fn cut(ranked: &mut Vec<Ranked>, k: u32) {
    ranked.sort_by(|a, b| b.value.compare(a.value).then_with(|| a.key.cmp(&b.key)));
    ranked.truncate(k as usize);
}

pub(super) fn number(value: &Value, field: Option<&str>) -> Option<Number> {
    let document: serde_json::Value = match value.codec {
        ValueCodec::I64 => {
            let bytes = <[u8; 8]>::try_from(&value.data[..]).ok()?;
            return field.is_none().then(|| Number::Int(i64::from_le_bytes(bytes)));
        }
        ValueCodec::Utf8 => {
            let text = std::str::from_utf8(&value.data).ok()?.trim();
            return if field.is_none() { parse(text) } else { None };
        }
        ValueCodec::Json => serde_json::from_slice(&value.data).ok()?,
        ValueCodec::Msgpack => crate::types::msgpack::from_slice(&value.data).ok()?,
        ValueCodec::Bytes => return None,
    };
    let mut names = field.into_iter().flat_map(|field| field.split('.'));
    let found = names.try_fold(&document, |value, name| value.get(name))?;
    match found {
        serde_json::Value::Number(number) => number
            .as_i64()
            .map(Number::Int)
            .or_else(|| number.as_f64().filter(|float| !float.is_nan()).map(Number::Float)),
        _ => None,
    }
}

fn parse(text: &str) -> Option<Number> {
    let float = || text.parse::<f64>().ok().filter(|float| float.is_finite()).map(Number::Float);
    text.parse().ok().map(Number::Int).or_else(float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &'static str) -> Value {
        Value { codec: ValueCodec::Json, schema: 0, data: bytes::Bytes::from_static(text.as_bytes()) }
    }

    #[test]
    fn numbers_are_found_in_every_codec_and_below_fields() {
        let shown = |value: &Value, field| number(value, field).map(|number| format!("{number:?}"));
        assert_eq!(shown(&Value::i64(-3), None).as_deref(), Some("Int(-3)"));
        assert_eq!(shown(&Value::utf8(" 2.5 "), None).as_deref(), Some("Float(2.5)"));
        assert_eq!(shown(&json("7"), None).as_deref(), Some("Int(7)"));
        assert_eq!(shown(&json(r#"{"a":{"b":9.5}}"#), Some("a.b")).as_deref(), Some("Float(9.5)"));
        for (value, field) in [
            (Value::utf8("x"), None),
            (Value::utf8("inf"), None),
            (Value::i64(1), Some("a")),
            (json(r#"{"a":"1"}"#), Some("a")),
            (json("3"), Some("a")),
        ] {
            assert!(number(&value, field).is_none(), "{value:?}");
        }
    }

    #[test]
    fn whole_numbers_are_not_rounded() {
        let big = 9_007_199_254_740_993; // 2^53 + 1, which no float is
        assert_eq!(Number::Int(big).compare(Number::Float(9_007_199_254_740_992.0)), Ordering::Greater);
        assert_eq!(Number::Int(-2).compare(Number::Float(-2.5)), Ordering::Greater);
        assert_eq!(Number::Float(2.5).compare(Number::Int(2)), Ordering::Greater);
        assert_eq!(Number::Int(i64::MAX).compare(Number::Float(1e300)), Ordering::Less);
    }

    fn any_number() -> impl Strategy<Value = Number> {
        prop_oneof![
            any::<i64>().prop_map(Number::Int),
            (-20i64..20).prop_map(Number::Int),
            (-40i32..40).prop_map(|halves| Number::Float(f64::from(halves) / 2.0 + 0.25)),
            any::<f64>().prop_filter("a number", |float| !float.is_nan()).prop_map(Number::Float),
        ]
    }

    proptest! {
        #[test]
        fn the_order_is_one(a in any_number(), b in any_number(), c in any_number()) {
            prop_assert_eq!(a.compare(b), b.compare(a).reverse());
            if a.compare(b) != Ordering::Greater && b.compare(c) != Ordering::Greater {
                prop_assert_ne!(a.compare(c), Ordering::Greater);
            }
        }

        #[test]
        fn parts_combine_to_the_same_in_any_grouping(numbers in proptest::collection::vec(-9i64..9, 0..60), k in 1u32..9, at in 0usize..60) {
            let input = Input { map: "m".into(), k, field: None };
            let ranked = |(n, value): (usize, &i64)| Ranked { key: format!("{n:02}"), value: Number::Int(*value) };
            let mut all: Vec<Ranked> = numbers.iter().enumerate().map(ranked).collect();
            let mut left = all.clone();
            let mut right = left.split_off(at.min(left.len()));
            cut(&mut left, k);
            cut(&mut right, k);
            let mut part = Output { top: left, skipped: 1 };
            TopK.combine(&input, &mut part, Output { top: right, skipped: 2 });
            cut(&mut all, k);
            let keys = |ranked: &[Ranked]| ranked.iter().map(|ranked| ranked.key.clone()).collect::<Vec<_>>();
            prop_assert_eq!(keys(&part.top), keys(&all));
            prop_assert_eq!(part.skipped, 3);
        }
    }
}
