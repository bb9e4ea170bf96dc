//! Connections between processes. [`Network`] is the port: TCP in production, simulated in
//! `chaos-tests`. What the bytes mean is decided above.

pub mod grpc;
#[cfg(test)]
pub(crate) mod memory;
pub mod peer;
mod tcp;

pub use tcp::{TcpFrom, TcpNetwork, open_files_limit};

use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection's two byte streams.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connection.
pub type BoxIo = Box<dyn Io>;

/// Accepts connections.
#[async_trait::async_trait]
pub trait Listener: Send + 'static {
    /// The next connection, with the caller's address.
    ///
    /// # Errors
    /// What the network says; the listener stays usable.
    async fn accept(&mut self) -> io::Result<(BoxIo, String)>;

    /// The address that is listened on, with the port that was given for port 0.
    fn local_addr(&self) -> String;
}

/// Makes and accepts connections.
#[async_trait::async_trait]
pub trait Network: Send + Sync + 'static {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// What the network says.
    async fn connect(&self, address: &str) -> io::Result<BoxIo>;

    /// Listens on `host:port`; port 0 picks a free one.
    ///
    /// # Errors
    /// What the network says.
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>>;
}
