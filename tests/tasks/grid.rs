//! Three peers in this process, with user code of all kinds.

use crate::common::{PATIENCE, addresses, free_ports};
use keystead::Grid;
use keystead::client::Client;
use keystead::clock;
use keystead::compute::{Cursor, JobContext, PartitionContext, TaskContext, TaskError};
use keystead::types::{KeyCodec, TaskPayload, Value, ValueCodec};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

pub const PARTITIONS: u32 = 8;

/// Holds handlers until the test opens it, and counts those that came.
#[derive(Clone, Default)]
pub struct Latch(Arc<(Mutex<(bool, u32)>, Condvar)>);

impl Latch {
    pub fn wait(&self) {
        let mut state = self.0.0.lock().expect("not poisoned");
        state.1 += 1;
        while !state.0 {
            state = self.0.1.wait(state).expect("not poisoned");
        }
    }

    pub fn open(&self) {
        self.0.0.lock().expect("not poisoned").0 = true;
        self.0.1.notify_all();
    }

    pub fn came(&self) -> u32 {
        self.0.0.lock().expect("not poisoned").1
    }
}

pub fn json(text: &str) -> TaskPayload {
    TaskPayload { codec: ValueCodec::Json, data: text.to_owned().into() }
}

/// Puts a mark beside each entry of the map, and counts its runs in the partition.
pub fn mark(context: &mut PartitionContext<'_, '_>, mark: String) -> Result<u64, TaskError> {
    let mut cursor = Cursor::default();
    let mut seen = 0;
    while !cursor.ended() {
        for (key, _) in context.page("m", &mut cursor, 3)? {
            let count = context.get::<u64>("marks", &key)?.unwrap_or(0);
            context.put("marks", &key, &(count + 1))?;
            seen += 1;
        }
    }
    if mark == "fail" && context.slots().0.0 == 0 {
        return Err(TaskError::new("not-here", "the first partition does not want to"));
    }
    Ok(seen)
}

/// Writes what the map does not take, which only the partition finds out.
fn spoil(context: &mut TaskContext<'_>, _: u64) -> Result<(), TaskError> {
    let key = context.key().to_vec();
    Ok(context.put_value("m", &key, Value::utf8("not a number"))?)
}

/// Notes beside the key whether the key named has an entry.
fn look(context: &mut TaskContext<'_>, at: String) -> Result<bool, TaskError> {
    let (key, found) = (context.key().to_vec(), context.get_value("m", at.as_bytes())?.is_some());
    context.put_value("m", &key, Value::i64(i64::from(found)))?;
    Ok(found)
}

/// Copies the partition's entries of "m" to "copies", adding 1; says how far it is.
async fn copy(job: JobContext, pause_ms: u64) -> Result<u64, TaskError> {
    let (mut cursor, mut copied) = (Cursor::default(), 0);
    while !cursor.ended() {
        for (key, value) in job.page("m", &mut cursor, 2).await? {
            let number = <[u8; 8]>::try_from(&value.data[..]).map(i64::from_le_bytes).unwrap_or_default();
            job.put_value("copies", &key, Value::i64(number + 1)).await?;
            copied += 1;
        }
        job.progress(0.5, format!("{copied} copied"));
        clock::sleep(Duration::from_millis(pause_ms)).await;
    }
    Ok(copied)
}

/// Waits until it is to end, or longer.
async fn hang(job: JobContext, how: String) -> Result<(), TaskError> {
    job.progress(0.25, "hanging");
    match how.as_str() {
        "kindly" => {
            job.ending().await;
            Ok(job.check()?)
        }
        "panic" => panic!("it says ouch"),
        _ => std::future::pending().await,
    }
}

pub async fn start(seeds: &[String], at: usize, dir: &Path, latch: &Latch) -> Grid {
    let latch = latch.clone();
    let hold = move |context: &mut TaskContext<'_>, value: i64| {
        let key = context.key().to_vec();
        context.put_value("m", &key, Value::i64(value))?;
        latch.wait();
        Ok(())
    };
    Grid::builder()
        .name(&format!("n{}", at + 1))
        .listen(&seeds[at])
        .seeds(seeds.iter().cloned())
        .data(dir.join(format!("n{}", at + 1)))
        .partitions(PARTITIONS)
        .partition_task("mark", mark)
        .task("hold", hold)
        .task("spoil", spoil)
        .task("look", look)
        .job("copy", copy)
        .job("hang", hang)
        .start()
        .await
        .expect("starts")
}

pub async fn start_three(dir: &Path, latch: &Latch) -> (Vec<String>, Vec<Grid>) {
    let seeds = addresses(&free_ports(3));
    let mut peers = Vec::new();
    for at in 0..3 {
        peers.push(start(&seeds, at, dir, latch).await);
    }
    for peer in &peers {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    (seeds, peers)
}

pub async fn fill(client: &Client, count: u64) {
    client.create_map("m", KeyCodec::Utf8, ValueCodec::I64, 0).await.expect("creates");
    client.create_map("marks", KeyCodec::Utf8, ValueCodec::Msgpack, 0).await.expect("creates");
    for i in 0..count {
        client.put("m", format!("k{i}"), Value::i64(i as i64)).await.expect("puts");
    }
}

pub async fn marks(client: &Client, count: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for i in 0..count {
        let entry = client.get("marks", format!("k{i}")).await.expect("gets");
        found.push(entry.map_or(0, |entry| rmp_serde::from_slice(&entry.value.data).expect("a count")));
    }
    found
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = clock::Instant::now() + PATIENCE;
    while !holds() {
        assert!(clock::Instant::now() < give_up, "never: {what}");
        clock::sleep(Duration::from_millis(10)).await;
    }
}
