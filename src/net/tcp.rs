//! TCP, as the machine has it.

use super::{BoxIo, Listener, Network};
use std::io;
use tokio::net::{TcpListener, TcpStream};

/// How many files and connections this process may have open, where the system says so.
pub fn open_files_limit() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The machine's network.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpNetwork;

#[async_trait::async_trait]
impl Network for TcpNetwork {
    async fn connect(&self, address: &str) -> io::Result<BoxIo> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(TcpListener::bind(address).await?))
    }
}

#[async_trait::async_trait]
impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<(BoxIo, String)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer.to_string()))
    }

    fn local_addr(&self) -> String {
        TcpListener::local_addr(self).map_or_else(|_| String::new(), |address| address.to_string())
    }
}
