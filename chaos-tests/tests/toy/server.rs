//! The toy's server: a map of numbers in a log on disk.

use crate::Bug;
use chaos_tests::machine::Life;
use keystead::clock::{spawn, timeout};
use keystead::net::{BoxIo, Network};
use keystead::storage::disk::{Disk, DiskFile, OpenMode};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

pub(crate) const PORT: u16 = 7000;

pub(crate) const READ: u8 = 0;
pub(crate) const PUT: u8 = 1;
pub(crate) const ADD: u8 = 2;
/// From the primary to the backup: this is what the request left.
const COPY: u8 = 3;

/// A request or, with the same form, an answer: kind, key, number, id.
pub(crate) type Frame = (u8, u8, i64, u64);

pub(crate) const FRAME: usize = 18;

pub(crate) fn encode((kind, key, number, id): Frame) -> [u8; FRAME] {
    let mut bytes = [0; FRAME];
    (bytes[0], bytes[1]) = (kind, key);
    bytes[2..10].copy_from_slice(&number.to_le_bytes());
    bytes[10..].copy_from_slice(&id.to_le_bytes());
    bytes
}

pub(crate) fn decode(bytes: &[u8; FRAME]) -> Frame {
    let word = |from: usize| <[u8; 8]>::try_from(&bytes[from..from + 8]).unwrap_or_default();
    (bytes[0], bytes[1], i64::from_le_bytes(word(2)), u64::from_le_bytes(word(10)))
}

struct Store {
    file: Box<dyn DiskFile>,
    end: u64,
    values: BTreeMap<u8, i64>,
    /// What each executed request was answered.
    executed: BTreeMap<u64, i64>,
    bug: Bug,
}

impl Store {
    fn open(life: &Life, bug: Bug) -> io::Result<Store> {
        let path = Path::new("/log");
        if life.disk.open(path, OpenMode::Read).is_err() {
            life.disk.open(path, OpenMode::CreateNew)?;
            life.disk.sync_dir(Path::new("/"))?;
        }
        let file = life.disk.open(path, OpenMode::ReadWrite)?;
        let mut store = Store { file, end: 0, values: BTreeMap::new(), executed: BTreeMap::new(), bug };
        store.recover()?;
        Ok(store)
    }

    /// Reads records until one that is torn: a whole one begins with 1 and ends with 0xFF.
    fn recover(&mut self) -> io::Result<()> {
        let mut record = [0; FRAME + 1];
        while self.file.len()? >= self.end + record.len() as u64 {
            self.file.read_exact_at(&mut record, self.end)?;
            let (kind, key, value, id) = decode(record.first_chunk().expect("long enough"));
            if kind != 1 || record[FRAME] != 0xFF {
                break;
            }
            self.remember(key, value, id);
            self.end += record.len() as u64;
        }
        self.file.set_len(self.end)
    }

    fn remember(&mut self, key: u8, value: i64, id: u64) {
        self.values.insert(key, value);
        if self.bug != Bug::ForgetsRequests {
            self.executed.insert(id, value);
        }
    }

    fn value(&self, key: u8) -> i64 {
        self.values.get(&key).copied().unwrap_or(0)
    }

    fn write(&mut self, key: u8, value: i64, id: u64) -> io::Result<()> {
        let mut record = encode((1, key, value, id)).to_vec();
        record.push(0xFF);
        self.file.write_all_at(&record, self.end)?;
        if self.bug != Bug::AnswersBeforeSync {
            self.file.sync_data()?;
        }
        self.end += record.len() as u64;
        self.remember(key, value, id);
        Ok(())
    }
}

/// One life of a server. It ends when the disk fails.
pub(crate) async fn serve(life: Life, bug: Bug) {
    let Ok(store) = Store::open(&life, bug) else { return };
    let store = Arc::new(Mutex::new(store));
    let Ok(mut listener) = life.network.listen(&format!("0.0.0.0:{PORT}")).await else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let (life, store) = (life.clone(), store.clone());
        spawn(async move {
            let _ = answer_all(stream, &life, &store).await;
        });
    }
}

async fn answer_all(mut stream: BoxIo, life: &Life, store: &Mutex<Store>) -> io::Result<()> {
    let mut bytes = [0; FRAME];
    loop {
        stream.read_exact(&mut bytes).await?;
        let answer = execute(decode(&bytes), life, store).await?;
        stream.write_all(&encode(answer)).await?;
    }
}

async fn execute((kind, key, number, id): Frame, life: &Life, store: &Mutex<Store>) -> io::Result<Frame> {
    let mut store = store.lock().await;
    let value = match kind {
        PUT | COPY => number,
        ADD => store.value(key) + number,
        _ => return Ok((READ, key, store.value(key), id)),
    };
    if let Some(answered) = store.executed.get(&id) {
        return Ok((kind, key, *answered, id));
    }
    store.write(key, value, id)?;
    if kind == COPY {
        return Ok((kind, key, value, id));
    }
    let copy = copy(life.clone(), (COPY, key, value, id));
    if store.bug == Bug::ReadsFromBackup {
        spawn(copy);
    } else {
        copy.await?;
    }
    Ok((kind, key, value, id))
}

async fn copy(life: Life, frame: Frame) -> io::Result<()> {
    let send = async {
        let mut stream = life.network.connect(&format!("backup:{PORT}")).await?;
        stream.write_all(&encode(frame)).await?;
        stream.read_exact(&mut [0; FRAME]).await.map(drop)
    };
    timeout(Duration::from_millis(300), send).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
