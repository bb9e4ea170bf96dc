//! Fuzz targets: values' rows, page tokens, watch tokens, keys and their tags, ids as text.

use super::*;
use crate::error::Code;
use crate::fuzzing::Fuzz;
use bytes::Bytes;

fn ids() -> [&'static str; 5] {
    ["00000000000000ab", "ffffffffffffffff", "0123456789abcdef0123456789abcdef", "0", "+1"]
}

#[test]
fn stored_value() {
    let lasting = StoredValue::new(7, Value::utf8("text"));
    let passing = StoredValue { expires_ms: 1_700_000_000_000, ..StoredValue::new(u64::MAX, Value::i64(-1)) };
    Fuzz::new("stored_value", [lasting.encode(), passing.encode()]).run(|input| {
        let row = Bytes::copy_from_slice(input);
        match StoredValue::decode(&row) {
            Ok(value) => {
                assert_eq!(StoredValue::expiry_of(&row), value.expires_ms);
                // A row of version 2 that never expires says the same as one of version 1.
                let again = value.encode();
                assert!(again == row || value.expires_ms == 0, "another encoding");
                assert_eq!(StoredValue::decode(&again).as_ref(), Ok(&value));
                format!("{} {}", value.value.codec, value.expires_ms == 0)
            }
            Err(error) => {
                assert_eq!(error.code, Code::CorruptRow);
                StoredValue::expiry_of(&row);
                error.what
            }
        }
    });
}

#[test]
fn page_token() {
    let cursor =
        |slot, after: Option<&'static str>| Cursor { map: MapId(9), slot: Slot(slot), after: after.map(Bytes::from) };
    let seeds = [cursor(0, None), cursor(SLOTS - 1, Some("k")), cursor(77, Some("{a}longer"))];
    Fuzz::new("page_token", seeds.map(|seed| seed.to_token())).run(|input| {
        let token = Bytes::copy_from_slice(input);
        match Cursor::from_token(&token) {
            Ok(cursor) => {
                assert_eq!(cursor.to_token(), token, "one spelling");
                assert!(cursor.slot.0 < SLOTS);
                format!("a cursor, {}", cursor.after.is_some())
            }
            Err(error) => {
                assert_eq!(error.code, Code::InvalidRequest);
                error.what
            }
        }
    });
}

fn watch_tokens() -> [WatchToken; 3] {
    let scan = Position::Scan { revision: 300, after: Bytes::from_static(b"row") };
    let all = [Position::Now, Position::Begin, scan, Position::Live { revision: u64::MAX }];
    let several = (0..).map(PartitionId).zip(all).collect();
    let far = [(PartitionId(u32::MAX), Position::Live { revision: 1 })].into();
    [
        WatchToken::default(),
        WatchToken { map: MapId(3), positions: several },
        WatchToken { map: MapId(u32::MAX), positions: far },
    ]
}

#[test]
fn watch_token() {
    Fuzz::new("watch_token", watch_tokens().map(|token| token.encode())).run(|input| {
        match WatchToken::decode(&Bytes::copy_from_slice(input)) {
            Ok(token) => {
                let again = token.encode();
                assert!(again.len() <= input.len(), "the shortest spelling");
                assert_eq!(WatchToken::decode(&again).as_ref(), Ok(&token));
                assert_eq!(WatchToken::from_text(&token.to_text()).as_ref(), Ok(&token));
                format!("{} positions, live {}", token.positions.len().min(3), token.is_live())
            }
            Err(error) => {
                assert_eq!(error.code, Code::InvalidToken);
                error.what
            }
        }
    });
}

#[test]
fn watch_token_text() {
    let texts = watch_tokens().map(|token| token.to_text());
    Fuzz::new("watch_token_text", texts).run(|input| match WatchToken::from_text(&String::from_utf8_lossy(input)) {
        Ok(token) => format!("a token, live {}", token.is_live()),
        Err(error) => {
            assert_eq!(error.code, Code::InvalidToken);
            error.what
        }
    });
}

/// Redis Cluster's `keyHashSlot`, as its specification writes it in C.
fn reference_slot(key: &[u8]) -> u16 {
    let mut start = 0;
    while start < key.len() && key[start] != b'{' {
        start += 1;
    }
    let mut tagged = key;
    if start < key.len() {
        let mut end = start + 1;
        while end < key.len() && key[end] != b'}' {
            end += 1;
        }
        if end < key.len() && end != start + 1 {
            tagged = &key[start + 1..end];
        }
    }
    let mut crc = 0u16;
    for byte in tagged {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
    }
    crc % 16384
}

#[test]
fn hash_tag() {
    let keys = ["foo", "{user1000}.following", "foo{}{bar}", "foo{{bar}}zap", "foo{bar}{zap}", "}{", "{a", ""];
    Fuzz::new("hash_tag", keys).words(&["{", "}", "{}", "}{", "{{", "}}"]).run(|input| {
        let affinity = affinity_of(input);
        let slot = slot_of(affinity);
        assert_eq!(slot.0, reference_slot(input));
        assert!(affinity == input || !affinity.is_empty() && !affinity.contains(&b'}'));
        format!("tagged {}", affinity.len() < input.len())
    });
}

#[test]
fn id_text() {
    Fuzz::new("id_text", ids()).words(&["+", "-", "_", "0x", "g"]).run(|input| {
        let text = String::from_utf8_lossy(input);
        let (node, grid, job) = (text.parse::<NodeId>(), text.parse::<GridId>(), text.parse::<JobId>());
        for (number, wide) in [(node.as_ref().ok().map(|id| id.0), false), (job.as_ref().ok().map(|id| id.0), true)] {
            if let Some(number) = number {
                assert_eq!(u64::from_str_radix(&text, 16), Ok(number), "{wide}");
            }
        }
        if let Ok(node) = node {
            assert_eq!(node.to_string().parse(), Ok(node));
        }
        if let Ok(grid) = grid {
            assert_eq!(grid.to_string().parse(), Ok(grid));
        }
        if let Ok(job) = job {
            assert_eq!(job.to_string().parse(), Ok(job));
            job.slot();
        }
        format!("{} {} {}", node.is_ok(), grid.is_ok(), job.is_ok())
    });
}
