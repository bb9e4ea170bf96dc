//! What this node knows of the grid: its own identity, gossip's live peers, and the local copy of
//! the meta group's facts. Others ask here for addresses and maps.

use super::identity::Identity;
use crate::error::{Code, Error};
use crate::membership::{Gossip, LivePeers};
use crate::meta::{FoundingRecord, MemberRow, MetaView};
use crate::net::peer::{AddressBook, PeerIdentity};
use crate::partition::{MapCopies, MapCopy, MapDirectory};
use crate::types::{KeyCodec, MapDescriptor, MapId, MapOptions, NodeId, Op, Request, ValueCodec};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use tokio::sync::watch;

/// The name of the meta group's built-in map; no user map can have it.
pub const META_MAP: &str = "$meta";

/// The meta group's built-in map.
pub fn meta_map() -> MapDescriptor {
    MapDescriptor {
        id: MapId(0),
        name: META_MAP.to_owned(),
        key_codec: KeyCodec::Utf8,
        value_codec: ValueCodec::Bytes,
        schema: 0,
        options: MapOptions::default(),
    }
}

/// What a node knows of the grid.
pub struct Directory {
    name: Arc<str>,
    identity: RwLock<Identity>,
    gossip: OnceLock<Arc<dyn Gossip>>,
    view: watch::Sender<Arc<MetaView>>,
    copies: MapCopies,
    /// The index up to which `view` reflects the meta group's log.
    reflected: watch::Sender<u64>,
    /// Why this node gives up its leaderships, while it does.
    trouble: RwLock<Option<String>>,
}

impl Directory {
    /// Knows only who the node is.
    pub fn new(name: &str, identity: Identity) -> Arc<Self> {
        let view = watch::Sender::new(Arc::default());
        Arc::new(Directory {
            name: name.into(),
            identity: RwLock::new(identity),
            gossip: OnceLock::new(),
            view,
            copies: MapCopies::default(),
            reflected: watch::Sender::new(0),
            trouble: RwLock::default(),
        })
    }

    /// The node's identity now.
    pub fn identity(&self) -> Identity {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the identity; it must be on disk already.
    pub fn set_identity(&self, identity: Identity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// The own node.
    pub fn me(&self) -> NodeId {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).node
    }

    /// How the node greets others. It has a grid once the founding is sure.
    pub fn greeting(&self) -> PeerIdentity {
        let identity = self.identity.read().unwrap_or_else(PoisonError::into_inner);
        PeerIdentity {
            grid: identity.record.as_ref().filter(|_| identity.founded).map(|record| record.grid),
            node: identity.node,
            incarnation: identity.incarnation,
            name: self.name.clone(),
        }
    }

    /// The grid's founding record, once the founding is sure.
    pub fn record(&self) -> Option<FoundingRecord> {
        let identity = self.identity.read().unwrap_or_else(PoisonError::into_inner);
        identity.record.clone().filter(|_| identity.founded)
    }

    /// Why this node gives up its leaderships; `None` while it is fit to lead.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes whether this node is fit to lead; says whether that is news.
    pub fn set_trouble(&self, trouble: Option<String>) -> bool {
        let mut known = self.trouble.write().unwrap_or_else(PoisonError::into_inner);
        // An offset that changes a little is no news.
        let news = known.is_some() != trouble.is_some();
        *known = trouble;
        news
    }

    /// Gossip, once it runs.
    pub fn set_gossip(&self, gossip: Arc<dyn Gossip>) {
        // Set once, at start; a second one would be a bug and is ignored.
        let _ = self.gossip.set(gossip);
    }

    /// Gossip, if it runs.
    pub fn gossip(&self) -> Option<&Arc<dyn Gossip>> {
        self.gossip.get()
    }

    /// The peers that gossip holds for alive.
    pub fn live(&self) -> Arc<LivePeers> {
        self.gossip.get().map_or_else(Arc::default, |gossip| gossip.live().borrow().clone())
    }

    /// Whether gossip holds a node for alive; this node always is.
    pub fn is_alive(&self, node: NodeId) -> bool {
        node == self.me() || self.live().contains_key(&node)
    }

    /// The grid's facts, as far as they have come here.
    pub fn view(&self) -> Arc<MetaView> {
        self.view.borrow().clone()
    }

    /// The grid's facts, and every change.
    pub fn watch_view(&self) -> watch::Receiver<Arc<MetaView>> {
        self.view.subscribe()
    }

    /// Takes in newer facts.
    pub fn set_view(&self, view: MetaView) {
        self.view.send_replace(Arc::new(view));
    }

    /// The copies of replicated maps.
    pub fn copies(&self) -> &MapCopies {
        &self.copies
    }

    /// The log index up to which the facts here reflect the meta group, and every change of it.
    pub fn reflected(&self) -> watch::Receiver<u64> {
        self.reflected.subscribe()
    }

    /// Notes that the facts here reflect the meta group's log up to an index.
    pub fn set_reflected(&self, index: u64) {
        self.reflected.send_if_modified(|at| std::mem::replace(at, index.max(*at)) < index);
    }

    /// Says of a task that this peer does not carry, and others do, why it does not run: leadership
    /// is handed to a peer that carries it as soon as one is there.
    pub fn not_carried(&self, error: Error, request: &Request) -> Error {
        let (Op::Task { name, .. } | Op::PartitionTask { name, .. }) = &request.op else { return error };
        self.lacking(error, name, "leads the partition and ")
    }

    /// Says of anything registered by name that this peer lacks, and others carry, who does; `role`
    /// is what makes this peer matter, if anything. Other errors, and names that no member carries,
    /// stay as they are.
    pub fn lacking(&self, error: Error, name: &str, role: &str) -> Error {
        let view = self.view();
        let carries = |row: &&MemberRow| row.tasks.iter().any(|task| task.name == name);
        let carriers: Vec<&MemberRow> = view.members.values().map(|member| &member.row).filter(carries).collect();
        if error.code != Code::NoSuchTask || carriers.is_empty() {
            return error;
        }
        let standing = |row: &MemberRow| {
            let alive = if self.is_alive(row.node) { "alive" } else { "away" };
            let lacks = if view.may_lead(row, |node| self.counts(node)) {
                ""
            } else {
                ", lacks another task that the grid needs"
            };
            format!("{} ({alive}{lacks})", row.name)
        };
        let carriers: Vec<String> = carriers.into_iter().map(standing).collect();
        let what = format!("peer {} {role}does not carry task {name:?}; carried by {}", self.name, carriers.join(", "));
        Error::new(Code::TaskNotCarried, what)
    }

    /// Whether what a node carries counts when it is asked who may lead: it is there.
    pub fn counts(&self, node: NodeId) -> bool {
        node == self.me() || self.is_alive(node)
    }

    /// A node's name, for people; its id if it is unknown.
    pub fn name_of(&self, node: NodeId) -> String {
        let live = self.live();
        let known = live.get(&node).map(|peer| peer.name.clone());
        known.or_else(|| self.view().member(node).map(|row| row.name.clone())).unwrap_or_else(|| node.to_string())
    }
}

impl AddressBook for Directory {
    fn address_of(&self, node: NodeId) -> Option<String> {
        if let Some(peer) = self.live().get(&node) {
            return Some(peer.address.clone());
        }
        if let Some(address) = self.view.borrow().address(node) {
            return Some(address.to_owned());
        }
        let identity = self.identity.read().unwrap_or_else(PoisonError::into_inner);
        let founders = identity.record.iter().flat_map(|record| &record.founders);
        founders.into_iter().find(|founder| founder.node == node).map(|founder| founder.address.clone())
    }
}

impl MapDirectory for Directory {
    fn map(&self, name: &str) -> Option<MapDescriptor> {
        if name == META_MAP { Some(meta_map()) } else { self.view.borrow().map(name).cloned() }
    }

    fn copy(&self, name: &str) -> Option<Arc<MapCopy>> {
        self.copies.get(name)
    }

    fn partitions(&self) -> u32 {
        self.view.borrow().grid.as_ref().map_or(1, |grid| grid.row.partitions)
    }
}
