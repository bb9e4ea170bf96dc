use super::*;
use crate::compute::Registry;
use crate::compute::execute::{Counters, execute};
use crate::compute::fake_view::{FakeView, answer, call};
use crate::compute::overlay::Overlay;
use crate::partition::TaskOutcome;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

const MAP: &str = "totals";

struct Bench {
    view: FakeView,
    registry: Registry,
    counters: Counters,
}

impl Bench {
    fn new() -> Self {
        let registry = Registry::with_builtins().expect("built-ins");
        Bench { view: FakeView::with_maps(&[MAP]), registry, counters: Counters::default() }
    }

    fn outcome(&self, key: impl AsRef<[u8]>, input: &Input) -> TaskOutcome {
        let call = call(NAME, key, input);
        let outcome = execute(&self.registry, &self.view, &Overlay::default(), &call, 1 << 20, &self.counters);
        self.view.apply(&outcome);
        outcome
    }

    fn total(&self, key: impl AsRef<[u8]>, input: &Input) -> Result<i64, Code> {
        let outcome = self.outcome(key, input);
        match &outcome.answer {
            Ok(_) => Ok(answer::<Output>(&outcome).total),
            Err(error) => {
                assert_eq!(outcome.writes, []);
                Err(error.code)
            }
        }
    }
}

fn event(time_s: i64, amount: i64, bucket_s: i64, buckets: u32) -> Input {
    Input { map: MAP.to_owned(), time_s, amount, bucket_s, buckets }
}

#[test]
fn an_event_writes_one_sub_window_and_reads_all() {
    let bench = Bench::new();
    for hour in 0..24 {
        assert_eq!(bench.total("k", &event(hour * 3600, 1, 3600, 24)), Ok(hour + 1));
    }
    assert_eq!(bench.view.entries(MAP), 24);
    let before = bench.counters.state_reads.load(Ordering::Relaxed);
    let outcome = bench.outcome("k", &event(24 * 3600, 1, 3600, 24));
    assert_eq!(answer::<Output>(&outcome).total, 24, "the first hour has left the window");
    assert_eq!(outcome.writes.len(), 1);
    assert_eq!(bench.counters.state_reads.load(Ordering::Relaxed) - before, 24);
    assert_eq!(bench.view.entries(MAP), 24, "the ring grew");
}

#[test]
fn a_sub_window_has_golden_key_and_value() {
    let table: [(&str, &str); 4] = [
        ("c1", "rt:p2:{c1}:60:7:00003"),
        ("{c1}x", "rt:t5:{c1}x:60:7:00003"),
        ("", "rt:o0:{3560}:60:7:00003"),
        ("a}b", "rt:o3:{20658}a}b:60:7:00003"),
    ];
    for (key, expected) in table {
        let outcome = Bench::new().outcome(key, &event(3 * 60, 300, 60, 7));
        let [write] = &outcome.writes[..] else { panic!("{outcome:?}") };
        assert_eq!(String::from_utf8_lossy(&write.key), expected);
        let value = write.value.as_ref().expect("a value");
        assert_eq!((value.codec, value.schema), (ValueCodec::Msgpack, 1));
        assert_eq!(&value.data[..], b"\x92\x03\xcd\x01\x2c");
    }
}

#[test]
fn a_tag_is_found_for_every_slot() {
    let slots: std::collections::BTreeSet<_> =
        (0..u32::from(SLOTS) * 16).map(|number| slot_of(number.to_string().as_bytes())).collect();
    assert_eq!(slots.len(), usize::from(SLOTS));
}

#[test]
fn an_event_older_than_the_ring_is_too_late() {
    let bench = Bench::new();
    assert_eq!(bench.total("k", &event(1000, 5, 1, 10)), Ok(5));
    assert_eq!(bench.total("k", &event(991, 2, 1, 10)), Ok(2), "late, within the ring: its own window");
    assert_eq!(bench.total("k", &event(990, 1, 1, 10)), Err(Code::TooLate));
    assert_eq!(bench.total("k", &event(1000, 0, 1, 10)), Ok(7));
    assert_eq!(bench.total("k", &event(1001, 0, 1, 10)), Ok(5));
    assert_eq!(bench.total("k", &event(991, 0, 1, 10)), Err(Code::TooLate));
}

#[test]
fn time_before_1970_falls_into_the_bucket_below() {
    let bench = Bench::new();
    assert_eq!(bench.total("k", &event(-1, 1, 10, 2)), Ok(1));
    assert_eq!(bench.total("k", &event(0, 2, 10, 2)), Ok(3));
    assert_eq!(bench.total("k", &event(10, 4, 10, 2)), Ok(6));
}

#[test]
fn the_ends_of_the_number_range_are_met_with_errors_or_right_sums() {
    let bench = Bench::new();
    assert_eq!(bench.total("sum", &event(0, i64::MAX, 1, 5)), Ok(i64::MAX));
    assert_eq!(bench.total("sum", &event(0, 1, 1, 5)), Err(Code::NumberOverflow));
    assert_eq!(bench.total("sum", &event(1, 1, 1, 5)), Err(Code::NumberOverflow));
    assert_eq!(bench.total("sum", &event(2, i64::MIN, 1, 5)), Ok(-1));
    assert_eq!(bench.total("sum", &event(3, 1, 1, 5)), Ok(0), "only the total must fit");
    assert_eq!(bench.total("time", &event(i64::MIN, 1, 1, MAX_BUCKETS)), Ok(1));
    assert_eq!(bench.total("time", &event(i64::MAX, 2, 1, MAX_BUCKETS)), Ok(2));
    assert_eq!(bench.total("time", &event(i64::MIN, 1, 1, MAX_BUCKETS)), Err(Code::TooLate));
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let bench = Bench::new();
    for (bucket_s, buckets) in [(0, 1), (-1, 1), (1, 0), (1, MAX_BUCKETS + 1)] {
        assert_eq!(bench.total("k", &event(0, 1, bucket_s, buckets)), Err(Code::InvalidRequest));
    }
    let nowhere = Input { map: "nowhere".to_owned(), ..event(0, 1, 1, 1) };
    assert_eq!(bench.total("k", &nowhere), Err(Code::NoSuchMap));
}

#[test]
fn a_foreign_value_among_the_sub_windows_is_an_error() {
    let bench = Bench::new();
    bench.view.put(MAP, "rt:p1:{k}:1:5:00002", Value::utf8("not ours"));
    assert_eq!(bench.total("k", &event(0, 1, 1, 5)), Err(Code::CorruptRow));
}

#[test]
fn keys_and_windows_do_not_mix() {
    let bench = Bench::new();
    let keys = ["{u}", "{u}a", "{u}a:1:5:", "{u}a:1:5:00000", "u", "{u", "u}", "u}a", "", "{}", "{}{u}"];
    for (number, key) in keys.iter().enumerate() {
        let amount = 1 << number;
        assert_eq!(bench.total(key, &event(0, amount, 1, 5)), Ok(amount), "key {key:?}");
        assert_eq!(bench.total(key, &event(0, 0, 1, 6)), Ok(0), "key {key:?} with another window");
    }
}

/// What the task promises, without a ring of fixed size: a bucket takes away all with its index.
#[derive(Default)]
struct Model {
    kept: BTreeMap<i64, i64>,
}

impl Model {
    fn event(&mut self, bucket: i64, amount: i64, buckets: i64) -> Result<i64, Code> {
        if self.kept.last_key_value().is_some_and(|(&newest, _)| bucket <= newest - buckets) {
            return Err(Code::TooLate);
        }
        self.kept.retain(|&at, _| at >= bucket || (bucket - at) % buckets != 0);
        *self.kept.entry(bucket).or_default() += amount;
        Ok(self.kept.range(bucket - buckets + 1..=bucket).map(|(_, amount)| amount).sum())
    }
}

proptest! {
    #[test]
    fn disordered_events_equal_the_model(
        events in proptest::collection::vec((0u8..3, -300i64..300, -100i64..100), 1..120),
        bucket_s in 1i64..8, buckets in 1u32..12
    ) {
        let bench = Bench::new();
        let mut models: BTreeMap<u8, Model> = BTreeMap::new();
        for (key, time_s, amount) in events {
            let expected =
                models.entry(key).or_default().event(time_s.div_euclid(bucket_s), amount, i64::from(buckets));
            let found = bench.total(format!("{{same tag}}{key}"), &event(time_s, amount, bucket_s, buckets));
            prop_assert_eq!(found, expected);
        }
        prop_assert!(bench.view.entries(MAP) <= models.len() * buckets as usize);
    }

    /// The reference: every event so far, summed over the window.
    #[test]
    fn ordered_events_equal_the_plain_sum(
        steps in proptest::collection::vec((0i64..40, -100i64..100), 1..120), bucket_s in 1i64..8, buckets in 1u32..12
    ) {
        let bench = Bench::new();
        let (mut time_s, mut seen) = (-50, Vec::new());
        for (step, amount) in steps {
            time_s += step;
            let bucket = time_s.div_euclid(bucket_s);
            seen.push((bucket, amount));
            let inside = |&&(at, _): &&(i64, i64)| bucket - i64::from(buckets) < at && at <= bucket;
            let expected: i64 = seen.iter().filter(inside).map(|(_, amount)| amount).sum();
            prop_assert_eq!(bench.total("k", &event(time_s, amount, bucket_s, buckets)), Ok(expected));
        }
    }

    #[test]
    fn any_key_keeps_its_sub_windows_in_its_own_slot(key: Vec<u8>, tag in "[{}a-c]{0,8}") {
        for key in [key, tag.into_bytes()] {
            let outcome = Bench::new().outcome(&key, &event(7, 1, 1, 5));
            prop_assert_eq!(outcome.writes.len(), 1, "{:?}", outcome);
            prop_assert_eq!(slot_of(affinity_of(&outcome.writes[0].key)), slot_of(affinity_of(&key)));
        }
    }
}
