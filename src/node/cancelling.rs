//! Cancelling tasks: every peer is told the id, since any may be running the task, or be asked to
//! in a moment. Executors look ids up before they run a task and before they commit what it did.

use super::compute_service::CancelReport;
use super::directory::Directory;
use super::wire::{self, kind};
use crate::clock;
use crate::net::peer::{Lane, PeerTransport};
use crate::partition::Cancelled;
use crate::types::{GroupId, NodeId};
use std::sync::Arc;
use std::time::Duration;

/// Time to tell one peer.
const TELL: Duration = Duration::from_secs(1);

/// Cancels tasks.
pub struct Canceller {
    pub(super) directory: Arc<Directory>,
    pub(super) transport: Arc<PeerTransport>,
    pub(super) cancelled: Arc<Cancelled>,
}

impl Canceller {
    /// Notes a cancellation here and tells all other peers.
    pub async fn cancel(&self, id: u64) -> CancelReport {
        self.cancelled.insert(id);
        let (me, view) = (self.directory.me(), self.directory.view());
        let others: Vec<NodeId> = view.members.keys().copied().filter(|node| *node != me).collect();
        let Ok(payload) = wire::encode(&id) else { return CancelReport::default() };
        let tell = others
            .into_iter()
            .map(|node| self.transport.call(node, Lane::Request, GroupId::META, kind::CANCEL, payload.clone(), TELL));
        let told = futures::future::join_all(tell).await;
        let reached = told.iter().filter(|answer| answer.is_ok()).count() as u32;
        CancelReport { told: reached + 1, unreachable: told.len() as u32 - reached }
    }
}

/// Cancels a task when it is dropped, unless it was disarmed.
pub(super) struct CancelOnDrop {
    canceller: Arc<Canceller>,
    id: u64,
}

impl CancelOnDrop {
    pub(super) fn new(canceller: Arc<Canceller>, id: u64) -> Self {
        CancelOnDrop { canceller, id }
    }

    /// The task has been answered.
    pub(super) fn disarm(mut self) {
        self.id = 0;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        // Without a runtime the process is ending.
        if self.id != 0 && tokio::runtime::Handle::try_current().is_ok() {
            let (canceller, id) = (self.canceller.clone(), self.id);
            drop(clock::spawn(async move { canceller.cancel(id).await }));
        }
    }
}
