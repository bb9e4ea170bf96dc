//! Redis over plain TCP: requests of one connection are pipelined, and whatever waits when the
//! socket is free is written in one piece. Answers come in the order of the requests.

use super::resp::{self, Answer};
use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use keystead::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// Requests of one connection that may wait to be written.
const QUEUE: usize = 4_096;
/// Bytes read at once.
const READ: usize = 64 << 10;

struct Sent {
    command: BytesMut,
    answer: oneshot::Sender<Answer>,
}

/// Connections to one server.
#[derive(Clone)]
pub struct Redis {
    connections: Arc<Vec<mpsc::Sender<Sent>>>,
    next: Arc<AtomicUsize>,
}

impl Redis {
    /// Opens connections.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub async fn connect(address: &str, connections: usize) -> Result<Self> {
        let mut opened = Vec::new();
        for _ in 0..connections.max(1) {
            let stream = TcpStream::connect(address).await.with_context(|| format!("Redis at {address}"))?;
            stream.set_nodelay(true)?;
            let (read, write) = stream.into_split();
            let (requests, waiting) = mpsc::channel(QUEUE);
            let (asked, answers) = mpsc::channel(QUEUE);
            clock::spawn(write_requests(write, waiting, asked));
            clock::spawn(read_answers(read, answers));
            opened.push(requests);
        }
        Ok(Redis { connections: Arc::new(opened), next: Arc::default() })
    }

    async fn ask(&self, words: &[&[u8]]) -> Result<Option<Bytes>> {
        let mut command = BytesMut::with_capacity(32 + words.iter().map(|word| word.len() + 16).sum::<usize>());
        resp::put_command(&mut command, words);
        let (answer, answered) = oneshot::channel();
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        self.connections[at].send(Sent { command, answer }).await.ok().context("the connection has ended")?;
        match answered.await.context("the connection has ended")? {
            Answer::Done => Ok(None),
            Answer::Value(value) => Ok(value),
            Answer::Failed(what) => anyhow::bail!("Redis says: {what}"),
        }
    }

    pub(super) async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
        self.ask(&[b"SET", key.as_bytes(), &value]).await.map(drop)
    }

    pub(super) async fn get(&self, key: String) -> Result<Option<usize>> {
        Ok(self.ask(&[b"GET", key.as_bytes()]).await?.map(|value| value.len()))
    }

    /// How many replicas are connected to the server and up to date.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn replicas(&self) -> Result<usize> {
        let info = self.ask(&[b"INFO", b"replication"]).await?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&info).matches("state=online").count())
    }
}

async fn write_requests(
    mut socket: OwnedWriteHalf,
    mut waiting: mpsc::Receiver<Sent>,
    asked: mpsc::Sender<oneshot::Sender<Answer>>,
) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, QUEUE).await > 0 {
        let mut bytes = BytesMut::new();
        for Sent { command, answer } in batch.drain(..) {
            bytes.extend_from_slice(&command);
            if asked.send(answer).await.is_err() {
                return;
            }
        }
        if socket.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read_answers(mut socket: OwnedReadHalf, mut asked: mpsc::Receiver<oneshot::Sender<Answer>>) {
    let mut input = BytesMut::with_capacity(READ);
    loop {
        match resp::take_answer(&mut input) {
            Ok(Some(answer)) => {
                let Some(waiter) = asked.recv().await else { return };
                // Nobody may be waiting any more; then there is nobody to tell.
                let _ = waiter.send(answer);
                continue;
            }
            Ok(None) => {}
            Err(_) => return,
        }
        input.reserve(READ);
        if !matches!(socket.read_buf(&mut input).await, Ok(read) if read > 0) {
            return;
        }
    }
}
