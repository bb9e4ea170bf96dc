//! A disk in RAM whose files can be copied, cut and damaged, and a world to run the log in.

use super::*;
use crate::clock::{ThreadKind, Threads};
use crate::storage::disk::{DirLock, DiskFile, OpenMode};
use crate::storage::log::format::{self, BatchHeader, SEGMENT_HEADER};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Mutex;

/// Threads as in the simulator.
pub(super) struct Inline;

impl Threads for Inline {
    fn run(&self, _: ThreadKind, job: Box<dyn FnOnce() + Send>) {
        job();
    }

    fn inline(&self) -> bool {
        true
    }
}

/// Names and bytes of all files.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// The disk at the moment of a sync: what a crash in it may leave.
#[derive(Clone)]
pub(super) struct Point {
    /// All files as written, synced or not.
    pub(super) files: Files,
    /// The file that is being synced, and what it was when it was synced last.
    pub(super) file: String,
    pub(super) synced: Vec<u8>,
    /// Files whose removal is not durable.
    pub(super) removed: Files,
    /// Files whose name is not durable.
    pub(super) unnamed: Vec<String>,
}

#[derive(Default)]
struct State {
    files: Files,
    synced: Files,
    removed: Files,
    unnamed: Vec<String>,
    points: Vec<Point>,
}

/// A flat directory in RAM. A file that was removed cannot be read any more.
#[derive(Default)]
pub(super) struct MemoryDisk(Arc<Mutex<State>>);

struct MemoryFile {
    name: String,
    state: Arc<Mutex<State>>,
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl MemoryDisk {
    pub(super) fn of(files: &Files) -> Arc<Self> {
        let state = State { files: files.clone(), ..State::default() };
        Arc::new(MemoryDisk(Arc::new(Mutex::new(state))))
    }

    pub(super) fn files(&self) -> Files {
        self.0.lock().expect("lock").files.clone()
    }

    /// Every sync so far.
    pub(super) fn points(&self) -> Vec<Point> {
        self.0.lock().expect("lock").points.clone()
    }
}

impl MemoryFile {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock().expect("lock");
        act(state.files.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?)
    }
}

impl DiskFile for MemoryFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|file| {
            let from = file.get(offset as usize..offset as usize + buffer.len());
            buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|file| {
            let end = offset as usize + bytes.len();
            if file.len() < end {
                file.resize(end, 0);
            }
            file[offset as usize..end].copy_from_slice(bytes);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock().expect("lock");
        let point = Point {
            files: state.files.clone(),
            file: self.name.clone(),
            synced: state.synced.get(&self.name).cloned().unwrap_or_default(),
            removed: state.removed.clone(),
            unnamed: state.unnamed.clone(),
        };
        state.points.push(point);
        let bytes = state.files.get(&self.name).cloned().unwrap_or_default();
        state.synced.insert(self.name.clone(), bytes);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|file| Ok(file.len() as u64))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(|file| {
            file.resize(length as usize, 0);
            Ok(())
        })
    }
}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(self.0.lock().expect("lock").files.keys().cloned().collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let (name, mut state) = (name(path), self.0.lock().expect("lock"));
        let there = state.files.contains_key(&name);
        match mode {
            OpenMode::CreateNew if there => return Err(io::ErrorKind::AlreadyExists.into()),
            OpenMode::Read | OpenMode::ReadWrite if !there => return Err(io::ErrorKind::NotFound.into()),
            OpenMode::Truncate if there => state.files.entry(name.clone()).or_default().clear(),
            _ if !there => {
                state.files.insert(name.clone(), Vec::new());
                state.unnamed.push(name.clone());
            }
            _ => {}
        }
        Ok(Box::new(MemoryFile { name, state: self.0.clone() }))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (name, mut state) = (name(path), self.0.lock().expect("lock"));
        let bytes = state.files.remove(&name).ok_or(io::ErrorKind::NotFound)?;
        state.removed.insert(name, bytes);
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut state = self.0.lock().expect("lock");
        state.removed.clear();
        state.unnamed.clear();
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn DirLock>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Runs a future as the simulator would.
pub(super) fn simulate<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}

/// Opens the log on files in RAM.
pub(super) fn open_memory(disk: &Arc<MemoryDisk>, config: LogConfig) -> (SharedLog, Recovery) {
    SharedLog::open(disk.clone(), Arc::new(Inline), &PathBuf::from("log"), config).expect("opens")
}

/// Lets the log do whatever it has to do.
pub(super) async fn settled() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// The batches of a segment.
pub(super) fn batches(bytes: &[u8], sequence: u64) -> Vec<BatchHeader> {
    let mut at = SEGMENT_HEADER;
    let mut found = Vec::new();
    while let Some(batch) = format::batch_at(bytes, sequence, at) {
        at = batch.end();
        found.push(batch);
    }
    found
}

pub(super) fn sequence(name: &str) -> u64 {
    crate::storage::log::segment::segment_sequence(name).expect("a segment")
}
