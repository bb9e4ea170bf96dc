//! TCP, as the machine has it.

use super::{BoxIo, Listener, Network};
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

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

/// The same, with outgoing connections that come from one of the machine's addresses: whoever stands
/// between two peers can tell by it who calls.
#[derive(Clone, Copy, Debug)]
pub struct TcpFrom(pub IpAddr);

#[async_trait::async_trait]
impl Network for TcpFrom {
    async fn connect(&self, address: &str) -> io::Result<BoxIo> {
        let mut found = tokio::net::lookup_host(address).await?;
        let target = found.find(|target| target.is_ipv4() == self.0.is_ipv4());
        let target = target.ok_or_else(|| io::Error::other(format!("{address} cannot be reached from {}", self.0)))?;
        let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(self.0, 0))?;
        let stream = socket.connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        TcpNetwork.listen(address).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_comes_from_the_address_that_was_asked_for() {
        let from = TcpFrom(IpAddr::from([127, 0, 0, 9]));
        let mut listener = from.listen("127.0.0.1:0").await.expect("listens");
        let _connection = from.connect(&listener.local_addr()).await.expect("connects");
        let (_accepted, caller) = listener.accept().await.expect("accepts");
        assert!(caller.starts_with("127.0.0.9:"), "{caller}");
        assert!(from.connect("[::1]:9").await.is_err(), "another family cannot be reached");
    }
}
