//! The transport: finds the lane for a call and hands it over.

use super::lane::{LaneSlot, Sign, Target};
use super::server::PeerService;
use super::stats::Stats;
use super::{AddressBook, KindStats, Lane, LongCall, PeerConfig, PeerEvent, PeerHandler, PeerIdentity};
use crate::error::Result;
use crate::net::Network;
use crate::types::{GroupId, NodeId};
use bytes::Bytes;
use grid_proto::keystead::peer::v1::RequestFrame;
use grid_proto::keystead::peer::v1::peer_server::PeerServer;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Events that a slow subscriber may leave unread; it then misses the oldest.
const EVENTS: usize = 256;

/// What lanes and service share.
pub(super) struct Context {
    pub(super) me: Arc<dyn Fn() -> PeerIdentity + Send + Sync>,
    pub(super) network: Arc<dyn Network>,
    pub(super) addresses: Arc<dyn AddressBook>,
    pub(super) config: PeerConfig,
    pub(super) stats: Arc<Stats>,
    pub(super) stop: CancellationToken,
    events: broadcast::Sender<PeerEvent>,
}

impl Context {
    pub(super) fn notify(&self, event: PeerEvent) {
        // Nobody may listen.
        drop(self.events.send(event));
    }
}

#[derive(Default)]
struct Slots {
    nodes: BTreeMap<(NodeId, Lane), Arc<LaneSlot>>,
    addresses: BTreeMap<(Arc<str>, Lane), Arc<LaneSlot>>,
}

/// Calls to other peers; see the module.
pub struct PeerTransport {
    context: Arc<Context>,
    slots: Mutex<Slots>,
}

impl PeerTransport {
    /// A transport without connections. `me` is asked at each call: when the answer changes (a
    /// grid was founded or joined), connections are made anew under the new identity.
    pub fn new(
        me: Arc<dyn Fn() -> PeerIdentity + Send + Sync>,
        network: Arc<dyn Network>,
        addresses: Arc<dyn AddressBook>,
        config: PeerConfig,
    ) -> Arc<Self> {
        let (events, _) = broadcast::channel(EVENTS);
        let stats = Arc::new(Stats::new());
        let context = Context { me, network, addresses, config, stats, stop: CancellationToken::new(), events };
        Arc::new(PeerTransport { context: Arc::new(context), slots: Mutex::default() })
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot_of_node(&self, node: NodeId, lane: Lane) -> Arc<LaneSlot> {
        let new = || LaneSlot::new(self.context.clone(), Target::Node(node));
        self.slots().nodes.entry((node, lane)).or_insert_with(new).clone()
    }

    fn slot_of_address(&self, address: &str, lane: Lane) -> Arc<LaneSlot> {
        let mut slots = self.slots();
        let address: Arc<str> = address.into();
        if slots.addresses.len() >= self.context.config.max_addresses {
            slots.addresses.retain(|key, slot| key.0 == address || !slot.idle());
        }
        let new = || LaneSlot::new(self.context.clone(), Target::Address(address.clone()));
        slots.addresses.entry((address.clone(), lane)).or_insert_with(new).clone()
    }

    /// Calls a node.
    ///
    /// # Errors
    /// See the module; `Overloaded` and `TooLarge` when a limit is met.
    pub async fn call(
        &self,
        to: NodeId,
        lane: Lane,
        group: GroupId,
        kind: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Bytes> {
        let slot = self.slot_of_node(to, lane);
        slot.call(frame(group, kind, payload, deadline), deadline).await.map(|(_, answer)| answer)
    }

    /// Calls a node and waits long, as long as the connection of the call gives signs of life: its
    /// answer cannot come on another one.
    ///
    /// # Errors
    /// As [`PeerTransport::call`]; `OutcomeUnknown` when a sign of life did not come.
    pub async fn call_long(&self, to: NodeId, lane: Lane, group: GroupId, call: LongCall) -> Result<Bytes> {
        let slot = self.slot_of_node(to, lane);
        let (kind, payload) = call.sign;
        let sign = Sign { frame: frame(group, kind, payload, call.every), every: call.every };
        slot.call_long(frame(group, call.kind, call.payload, call.deadline), call.deadline, sign).await
    }

    /// Calls whoever is at an address; for seeds, whose node id is not known yet.
    ///
    /// # Errors
    /// As [`PeerTransport::call`].
    pub async fn call_address(
        &self,
        address: &str,
        lane: Lane,
        group: GroupId,
        kind: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<(PeerIdentity, Bytes)> {
        let slot = self.slot_of_address(address, lane);
        slot.call(frame(group, kind, payload, deadline), deadline).await
    }

    /// The service that answers other peers' calls, to be added to the server's routes.
    pub fn service(&self, handler: Arc<dyn PeerHandler>) -> PeerServer<PeerService> {
        let limit = self.context.config.grpc.max_message_bytes;
        PeerServer::new(PeerService::new(self.context.clone(), handler))
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit)
    }

    /// Ends the pause after failed attempts: gossip says that the node is back.
    pub fn reset(&self, node: NodeId) {
        for slot in self.lanes(node) {
            slot.reset();
        }
    }

    /// Ends all connections to a node and forgets it; calls under way end as `OutcomeUnknown`.
    pub fn disconnect(&self, node: NodeId) {
        for slot in self.lanes(node) {
            slot.disconnect();
        }
        self.slots().nodes.retain(|key, _| key.0 != node);
    }

    fn lanes(&self, node: NodeId) -> Vec<Arc<LaneSlot>> {
        self.slots().nodes.iter().filter(|(key, _)| key.0 == node).map(|(_, slot)| slot.clone()).collect()
    }

    /// What the transport notices from now on.
    pub fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.context.events.subscribe()
    }

    /// What went over the network so far, by kind, ascending.
    pub fn stats(&self) -> Vec<KindStats> {
        self.context.stats.read()
    }

    /// Ends all connections, so that the server's shutdown need not wait for them.
    pub fn shutdown(&self) {
        self.context.stop.cancel();
        let slots = std::mem::take(&mut *self.slots());
        slots.nodes.values().chain(slots.addresses.values()).for_each(|slot| slot.disconnect());
    }
}

fn frame(group: GroupId, kind: u8, payload: Bytes, deadline: Duration) -> RequestFrame {
    let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
    RequestFrame { id: 0, group: group.0, kind: u32::from(kind), deadline_ms, payload }
}
