//! Runs fuzz targets on stable Rust. In: a target's name, seeds, and a function of bytes. Out: nothing, or a
//! panic that names the file with the bytes that broke it. For tests alone; each target stands in a file
//! `fuzz.rs` beside the parsers that it is about.
//!
//! A target must not panic, must not take memory out of proportion to its input, must come to an end, and
//! asserts what else has to hold. It answers with a word or an error's text: an input with a text that was
//! not seen before is mutated further, which leads from one refusal to the next.
//!
//! Each run takes, in this order: the files below `tests/fuzz/corpus/<target>`, the seeds, and mutations of
//! both, always the same ones. `tests/fuzz/README.md` has the commands for long runs and for a find.

mod mutate;
mod protobuf;

use crate::clock::Instant;
use mutate::Mutator;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Mutations that a target runs through when nothing else is asked for.
const CASES: u64 = 1500;
/// What a target may take whatever its input: serde makes room for 1 MiB of a list that is announced.
const FLAT_BYTES: u64 = 4 << 20;
/// What a target may ask for in all, as a multiple of what it may hold: a measure of its work that does not
/// depend on the machine.
const WORK: u64 = 64;
/// The longest input that mutations make.
const LONGEST: usize = 64 << 10;
/// Inputs that are mutated, at most.
const POOL: usize = 600;
/// One input may take so many of the watchdog's seconds, which stand still when the process does.
const PATIENCE: u32 = 180;

/// What a run is to do, from the environment.
struct Plan {
    cases: u64,
    seconds: Option<u64>,
    seed: u64,
    /// One input, and nothing else.
    input: Option<PathBuf>,
    /// Where each input is written before it runs, for what ends the process.
    trace: Option<PathBuf>,
    /// Whether inputs that say something new go into the corpus.
    keep: bool,
}

impl Plan {
    fn from_environment() -> Plan {
        let text = |name: &str| std::env::var(format!("KEYSTEAD_FUZZ_{name}")).ok().filter(|text| !text.is_empty());
        let number = |name: &str| text(name).map(|text| text.parse::<u64>().expect("a number"));
        Plan {
            cases: number("CASES").unwrap_or(CASES),
            seconds: number("SECONDS"),
            seed: number("SEED").unwrap_or(0),
            input: text("INPUT").map(PathBuf::from),
            trace: text("TRACE").map(PathBuf::from),
            keep: text("KEEP").is_some(),
        }
    }
}

/// How a target's inputs are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Bytes,
    Protobuf,
}

/// A target.
pub(crate) struct Fuzz {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    words: &'static [&'static str],
    reseal: Option<fn(&mut Vec<u8>)>,
    shape: Shape,
    bytes_per_byte: u64,
    divisor: u64,
}

impl Fuzz {
    /// A target with its seeds: encodings of what the program writes.
    pub(crate) fn new<S: Into<Vec<u8>>>(name: &'static str, seeds: impl IntoIterator<Item = S>) -> Self {
        let seeds = seeds.into_iter().map(Into::into).collect();
        Fuzz { name, seeds, words: &[], reseal: None, shape: Shape::Bytes, bytes_per_byte: 64, divisor: 1 }
    }

    /// Texts that mutations insert.
    pub(crate) fn words(mut self, words: &'static [&'static str]) -> Self {
        self.words = words;
        self
    }

    /// Mends the checksums of half of the mutations, so that what stands behind them is read too.
    pub(crate) fn reseal(mut self, reseal: fn(&mut Vec<u8>)) -> Self {
        self.reseal = Some(reseal);
        self
    }

    /// Mutations keep the structure of protobuf messages.
    pub(crate) fn protobuf(mut self) -> Self {
        self.shape = Shape::Protobuf;
        self
    }

    /// Bytes of RAM that the target may take for each byte of its input, if 64 are too few.
    pub(crate) fn bytes_per_byte(mut self, bytes: u64) -> Self {
        self.bytes_per_byte = bytes;
        self
    }

    /// A target that takes long: so many times fewer cases.
    pub(crate) fn slow(mut self, divisor: u64) -> Self {
        self.divisor = divisor;
        self
    }

    /// Runs the target.
    ///
    /// # Panics
    /// At the first input that breaks it, which is then in a file that the message names.
    pub(crate) fn run(self, target: impl Fn(&[u8]) -> String) {
        let plan = Plan::from_environment();
        let watch = Watch::begin(self.name);
        let case = |input: &[u8]| self.case(&plan, &watch, input, &target);
        if let Some(path) = &plan.input {
            case(&std::fs::read(path).expect("KEYSTEAD_FUZZ_INPUT is readable"));
            return;
        }
        let corpus = corpus_of(self.name);
        let mut pool: Vec<Vec<u8>> = corpus.iter().map(|path| std::fs::read(path).expect("readable")).collect();
        pool.extend(self.seeds.iter().cloned());
        let mut seen = BTreeSet::new();
        for input in &pool {
            let new = seen.insert(without_digits(&case(input)));
            if plan.keep && (new || self.seeds.contains(input)) {
                keep(self.name, input);
            }
        }
        let mut mutator = Mutator::new(self.name, plan.seed, self.words);
        let begun = Instant::now();
        let goes_on = |done: u64| match plan.seconds {
            Some(seconds) => begun.elapsed() < Duration::from_secs(seconds),
            None => done < plan.cases / self.divisor,
        };
        let mut done = 0;
        while goes_on(done) {
            let mut input = match self.shape {
                Shape::Protobuf if done % 4 != 0 => mutator.protobuf(&pool),
                _ => mutator.bytes(&pool),
            };
            input.truncate(LONGEST);
            if let Some(reseal) = self.reseal.filter(|_| done % 2 == 0) {
                reseal(&mut input);
            }
            let said = without_digits(&case(&input));
            if seen.len() < POOL && seen.insert(said) {
                if plan.keep && input.len() <= 2048 {
                    keep(self.name, &input);
                }
                pool.push(input);
            }
            done += 1;
        }
        if plan.seconds.is_some() {
            println!("{}: {done} mutations of {} inputs, {} different outcomes", self.name, pool.len(), seen.len());
        }
    }

    /// Runs one input; gives what the target said of it.
    fn case(&self, plan: &Plan, watch: &Watch, input: &[u8], target: &impl Fn(&[u8]) -> String) -> String {
        if let Some(dir) = &plan.trace {
            std::fs::write(dir.join(self.name), input).expect("KEYSTEAD_FUZZ_TRACE is a directory");
        }
        watch.look_at(Some(input));
        let mut said = None;
        let taken = allocation_counter::measure(|| said = Some(catch_unwind(AssertUnwindSafe(|| target(input)))));
        watch.look_at(None);
        let allowed = FLAT_BYTES + self.bytes_per_byte * input.len() as u64;
        match said {
            Some(Ok(said)) if taken.bytes_max > allowed => {
                let what = format!("took {} bytes of RAM for {} ({said})", taken.bytes_max, input.len());
                panic!("{}", report(self.name, input, &what));
            }
            Some(Ok(said)) if taken.bytes_total > WORK * allowed => {
                let what = format!("asked for {} bytes of RAM, one after another ({said})", taken.bytes_total);
                panic!("{}", report(self.name, input, &what));
            }
            Some(Ok(said)) => said,
            Some(Err(cause)) => {
                let text = cause.downcast_ref::<String>().cloned();
                let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                panic!("{}", report(self.name, input, &text.unwrap_or_default()));
            }
            None => unreachable!("the target was called"),
        }
    }
}

/// Ends the process when an input takes too long: nothing else would say which one it was.
struct Watch {
    now: Arc<Mutex<(u64, Option<Vec<u8>>)>>,
    ended: Arc<AtomicBool>,
}

impl Watch {
    fn begin(name: &'static str) -> Watch {
        let watch = Watch { now: Arc::default(), ended: Arc::default() };
        let (now, ended) = (watch.now.clone(), watch.ended.clone());
        let dog = move || {
            let (mut seen, mut ticks) = (0, 0);
            while !ended.load(Relaxed) {
                std::thread::sleep(Duration::from_secs(1));
                let now = now.lock().unwrap_or_else(PoisonError::into_inner);
                ticks = if now.0 == seen && now.1.is_some() { ticks + 1 } else { 0 };
                seen = now.0;
                if let (true, Some(input)) = (ticks > PATIENCE, &now.1) {
                    eprintln!("{}", report(name, input, &format!("took longer than {PATIENCE} s")));
                    std::process::exit(101);
                }
            }
        };
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(dog).expect("a thread");
        watch
    }

    fn look_at(&self, input: Option<&[u8]>) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.0 += 1;
        now.1 = input.map(<[u8]>::to_vec);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
    }
}

fn corpus_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

/// The corpus files of a target, in the order of their names.
fn corpus_of(name: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(corpus_dir().join(name)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths
}

fn file_name(input: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(input))
}

fn keep(name: &str, input: &[u8]) {
    let dir = corpus_dir().join(name);
    std::fs::create_dir_all(&dir).expect("the corpus is writable");
    std::fs::write(dir.join(file_name(input)), input).expect("the corpus is writable");
}

/// Saves an input and says how to run it again.
fn report(name: &str, input: &[u8], what: &str) -> String {
    let path = std::env::temp_dir().join(format!("keystead-fuzz-{name}-{}", file_name(input)));
    let saved = std::fs::write(&path, input);
    let path = path.display();
    let shown: String = input.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
    format!(
        "fuzz target {name}: {what}\n  input ({} bytes, {saved:?}): {path}\n  begins: {shown}\n  \
         again: KEYSTEAD_FUZZ_INPUT={path} cargo test -p keystead --lib fuzz::{name}\n  \
         for good: cp {path} tests/fuzz/corpus/{name}/crash-{}",
        input.len(),
        file_name(input)
    )
}

/// What was said, less numbers: two refusals that differ only in them are one.
fn without_digits(said: &str) -> String {
    said.chars().filter(|c| !c.is_ascii_digit()).take(200).collect()
}

/// Puts the checksum right of what is kept as a version byte, a checksum and JSON.
#[allow(clippy::ptr_arg, reason = "what puts checksums right may change the length elsewhere")]
pub(crate) fn reseal_json(bytes: &mut Vec<u8>) {
    if let Some((head, json)) = bytes.split_first_chunk_mut::<5>() {
        head[1..].copy_from_slice(&crc32fast::hash(json).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(target: impl Fn(&[u8]) -> String) -> String {
        let fuzz = Fuzz::new("self_test", ["length 4"]).words(&["panic", "room"]);
        let cause = catch_unwind(AssertUnwindSafe(|| fuzz.run(target))).expect_err("is found");
        cause.downcast_ref::<String>().expect("a message").clone()
    }

    #[test]
    fn a_panic_is_found_and_its_input_saved() {
        let contains = |input: &[u8], word: &[u8]| input.windows(word.len()).any(|window| window == word);
        let message = broken(|input| {
            assert!(!contains(input, b"panic"), "there it is");
            String::new()
        });
        assert!(message.contains("there it is"), "{message}");
        let path = message.split("again: KEYSTEAD_FUZZ_INPUT=").nth(1).expect("a command");
        let path = path.split(' ').next().expect("a path");
        assert!(contains(&std::fs::read(path).expect("saved"), b"panic"));
        std::fs::remove_file(path).expect("removed");
    }

    #[test]
    fn room_out_of_proportion_is_found() {
        let message = broken(|input| {
            let room = if input.windows(4).any(|window| window == b"room") { 8 << 20 } else { 0 };
            format!("{}", Vec::<u8>::with_capacity(room).capacity())
        });
        assert!(message.contains("bytes of RAM"), "{message}");
    }

    #[test]
    fn the_corpus_belongs_to_targets() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut sources = vec![root];
        let mut text = String::new();
        while let Some(path) = sources.pop() {
            if path.is_dir() {
                sources
                    .extend(std::fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
            } else if path.file_name().is_some_and(|name| name == "fuzz.rs") {
                text.push_str(&std::fs::read_to_string(&path).expect("text"));
            }
        }
        let names: BTreeSet<&str> =
            text.split("Fuzz::new(").skip(1).filter_map(|rest| rest.split('"').nth(1)).collect();
        assert!(names.len() > 20, "{names:?}");
        for name in &names {
            assert!(text.contains(&format!("fn {name}()")), "the test of target {name} has another name");
            assert!(!corpus_of(name).is_empty(), "target {name} has no corpus");
        }
        for entry in std::fs::read_dir(corpus_dir()).expect("the corpus") {
            let name = entry.expect("readable").file_name().into_string().expect("text");
            assert!(names.contains(name.as_str()), "no target is called {name}");
        }
    }
}
