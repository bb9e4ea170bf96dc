//! Streams.

use super::Cuts;
use crate::ports::{gated, poll_gate};
use crate::trace;
use keystead::clock::Gate;
use keystead::net::{BoxIo, Listener, Network};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// A node's network. Hosts are reached by their simulated name or address.
#[derive(Clone)]
pub struct SimNetwork {
    host: Arc<str>,
    gate: Arc<Gate>,
    cuts: Cuts,
}

impl SimNetwork {
    /// The network of one host, behind its gate.
    pub fn new(host: &str, gate: Arc<Gate>, cuts: Cuts) -> Self {
        SimNetwork { host: host.into(), gate, cuts }
    }

    fn wrap(&self, stream: TcpStream) -> BoxIo {
        let here = turmoil::lookup(&*self.host);
        let there = stream.peer_addr().map_or(here, |address| address.ip());
        let network = self.clone();
        Box::new(SimStream { stream, network, here, there })
    }

    fn is_cut_from(&self, address: &str) -> bool {
        let Some((target, _)) = address.rsplit_once(':') else { return false };
        self.cuts.between(turmoil::lookup(&*self.host), turmoil::lookup(target))
    }

    fn is_held_from(&self, address: &str) -> bool {
        let Some((target, _)) = address.rsplit_once(':') else { return false };
        self.cuts.holds(turmoil::lookup(&*self.host), turmoil::lookup(target))
    }
}

/// The port of an address; turmoil's hosts listen on all their addresses.
pub(super) fn any_address(address: &str) -> io::Result<SocketAddr> {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let port: u16 = port.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("no port in {address}")))?;
    Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
}

#[async_trait::async_trait]
impl Network for SimNetwork {
    async fn connect(&self, address: &str) -> io::Result<BoxIo> {
        if self.is_held_from(address) {
            return std::future::pending().await;
        }
        match gated(&self.gate, TcpStream::connect(address)).await {
            Ok(stream) => {
                trace::detail(&self.host, "connected", 0);
                Ok(self.wrap(stream))
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && self.is_cut_from(address) => {
                std::future::pending().await
            }
            Err(error) => Err(error),
        }
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let listener = TcpListener::bind(any_address(address)?).await?;
        Ok(Box::new(SimListener { listener, network: self.clone() }))
    }
}

struct SimListener {
    listener: TcpListener,
    network: SimNetwork,
}

#[async_trait::async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(BoxIo, String)> {
        let (stream, peer) = gated(&self.network.gate, self.listener.accept()).await?;
        trace::detail(&self.network.host, "accepted", u64::from(peer.port()));
        Ok((self.network.wrap(stream), peer.to_string()))
    }

    fn local_addr(&self) -> String {
        let port = self.listener.local_addr().map_or(0, |address| address.port());
        format!("{}:{port}", turmoil::lookup(&*self.network.host))
    }
}

struct SimStream {
    stream: TcpStream,
    network: SimNetwork,
    here: IpAddr,
    there: IpAddr,
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(poll_gate(&self.network.gate, context));
        ready!(self.network.cuts.poll_free(self.there, self.here, context));
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(poll_gate(&self.network.gate, context));
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        trace::detail(&self.network.host, "sent", written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(poll_gate(&self.network.gate, context));
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(poll_gate(&self.network.gate, context));
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
