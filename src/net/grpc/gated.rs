//! A connection behind its node's gate: while the gate is shut, no byte is read or written.
//! Outside the simulator there is no gate, and nothing is added but one check.

use crate::clock::Gate;
use crate::net::BoxIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that holds reads and writes while the gate of the task that made it is shut.
pub struct GatedIo {
    gate: Option<Arc<Gate>>,
    io: BoxIo,
}

impl GatedIo {
    /// Puts a connection behind the gate of the running task.
    pub fn new(io: BoxIo) -> Self {
        GatedIo { gate: Gate::current(), io }
    }

    fn poll_gate(&self, context: &mut Context<'_>) -> Poll<()> {
        self.gate.as_ref().map_or(Poll::Ready(()), |gate| gate.poll_open(context))
    }
}

impl AsyncRead for GatedIo {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_gate(context));
        Pin::new(&mut this.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for GatedIo {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_gate(context));
        Pin::new(&mut this.io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_gate(context));
        Pin::new(&mut this.io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_gate(context));
        Pin::new(&mut this.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_gate(context));
        Pin::new(&mut this.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
