//! Tests of the whole log through its handles: over a real directory, over a disk that fails on
//! demand, and against damage.

mod damage;
mod faults;
mod formats;
mod fuzz;
mod memory;
mod model;
mod whole;

use super::{GroupLog, LogConfig, Recovery, SharedLog};
use crate::clock::SystemThreads;
use crate::storage::disk::{Disk, StdDisk};
use crate::types::GroupId;
use bytes::Bytes;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Small segments, no cache, and no seal by itself.
pub(super) fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 2048,
        cache_bytes: 0,
        prepare_bytes: 0,
        seal_after: Duration::from_secs(3600),
        ..LogConfig::default()
    }
}

pub(super) fn open_on(disk: Arc<dyn Disk>, dir: &Path, config: LogConfig) -> (SharedLog, Recovery) {
    SharedLog::open(disk, Arc::new(SystemThreads), dir, config).expect("opens")
}

pub(super) fn open(dir: &Path, config: LogConfig) -> (SharedLog, Recovery) {
    open_on(Arc::new(StdDisk), dir, config)
}

pub(super) fn bytes(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

/// Entries whose bytes say which they are.
pub(super) fn entries(indexes: std::ops::Range<u64>, tag: &str) -> Vec<(u64, Bytes)> {
    indexes.map(|index| (index, bytes(format!("{tag}-{index}-{}", "x".repeat(index as usize % 50))))).collect()
}

/// Begins an append; the receiver tells its result.
pub(super) async fn begin(log: &GroupLog, entries: Vec<(u64, Bytes)>) -> oneshot::Receiver<io::Result<()>> {
    let (sender, receiver) = oneshot::channel();
    log.append(entries, move |result| drop(sender.send(result))).await.expect("is taken");
    receiver
}

/// Appends and waits until it is durable.
pub(super) async fn append(log: &GroupLog, entries: Vec<(u64, Bytes)>) -> io::Result<()> {
    begin(log, entries).await.await.expect("is answered")
}

pub(super) async fn all(log: &GroupLog) -> Vec<(u64, Bytes)> {
    log.read(0..u64::MAX, usize::MAX).await.expect("reads")
}

pub(super) async fn group(log: &SharedLog, group: u32) -> GroupLog {
    log.register(GroupId(group), 1).await.expect("registers")
}
