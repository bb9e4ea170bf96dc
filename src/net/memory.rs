//! A network in memory for tests: streams by address, and faults on request.

use super::{BoxIo, Listener, Network};
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

#[derive(Default)]
struct Shared {
    listeners: Mutex<BTreeMap<String, mpsc::UnboundedSender<BoxIo>>>,
    swallowing: AtomicBool,
    attempts: AtomicUsize,
}

/// Addresses are any `host:port`; port 0 gives a free one.
#[derive(Clone, Default)]
pub(crate) struct MemoryNetwork(Arc<Shared>);

impl MemoryNetwork {
    /// While set, written bytes vanish and attempts hang. A stream that lost bytes never works again.
    pub(crate) fn swallow(&self, on: bool) {
        self.0.swallowing.store(on, SeqCst);
    }

    pub(crate) fn attempts(&self) -> usize {
        self.0.attempts.load(SeqCst)
    }
}

#[async_trait::async_trait]
impl Network for MemoryNetwork {
    async fn connect(&self, address: &str) -> io::Result<BoxIo> {
        self.0.attempts.fetch_add(1, SeqCst);
        if self.0.swallowing.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let wrap = |io| Box::new(FaultyIo { io, shared: self.0.clone(), lost: false });
        let listeners = self.0.listeners.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let listener = listeners.get(address).ok_or(io::ErrorKind::ConnectionRefused)?;
        listener.send(wrap(theirs)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(wrap(ours))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let (sender, queue) = mpsc::unbounded_channel();
        let mut listeners = self.0.listeners.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let address = match address.strip_suffix(":0") {
            Some(host) => format!("{host}:{}", listeners.len() + 1),
            None => address.to_owned(),
        };
        listeners.insert(address.clone(), sender);
        Ok(Box::new(MemoryListener { address, queue }))
    }
}

struct MemoryListener {
    address: String,
    queue: mpsc::UnboundedReceiver<BoxIo>,
}

#[async_trait::async_trait]
impl Listener for MemoryListener {
    async fn accept(&mut self) -> io::Result<(BoxIo, String)> {
        match self.queue.recv().await {
            Some(io) => Ok((io, "memory".to_owned())),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> String {
        self.address.clone()
    }
}

struct FaultyIo {
    io: DuplexStream,
    shared: Arc<Shared>,
    lost: bool,
}

impl AsyncRead for FaultyIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for FaultyIo {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.lost |= self.shared.swallowing.load(SeqCst);
        if self.lost {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lost {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
