//! Gossip behind a port: who seems to be there, at which address, in which incarnation. It
//! suggests; Raft decides. Nothing here moves data or changes a group's members.

mod chitchat;

pub use chitchat::{ChitchatGossip, ChitchatMembership, ChitchatOptions};

use crate::error::Result;
use crate::types::{GridId, Incarnation, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// What gossip tells of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerGossip {
    /// The peer.
    pub node: NodeId,
    /// Which of its lives.
    pub incarnation: Incarnation,
    /// Its name, for people.
    pub name: String,
    /// Where clients and peers reach it.
    pub address: String,
    /// Its zone, if it names one.
    pub zone: Option<String>,
    /// The grid it belongs to; `None` before it has founded or joined one.
    pub grid: Option<GridId>,
    /// The newest placement version it knows.
    pub placement_version: u64,
}

/// The peers that gossip holds for alive, this one included; of two incarnations the higher.
pub type LivePeers = BTreeMap<NodeId, PeerGossip>;

/// What to gossip about oneself, and whom to ask first.
#[derive(Clone, Debug)]
pub struct GossipConfig {
    /// The own entry.
    pub me: PeerGossip,
    /// UDP address to listen on.
    pub listen: String,
    /// UDP address that others reach.
    pub advertise: String,
    /// Addresses to ask first.
    pub seeds: Vec<String>,
}

/// A running gossip.
#[async_trait::async_trait]
pub trait Gossip: Send + Sync + 'static {
    /// The live peers, and every change.
    fn live(&self) -> watch::Receiver<Arc<LivePeers>>;

    /// Replaces the own grid and placement version.
    async fn announce(&self, grid: Option<GridId>, placement_version: u64);

    /// Greets whoever gossips at an address: a peer that the seed list does not lead to.
    async fn seek(&self, address: &str);

    /// Stops and tells the others.
    async fn leave(&self);
}

/// Starts gossips: chitchat in production and, over simulated datagrams, in `chaos-tests`.
#[async_trait::async_trait]
pub trait Membership: Send + Sync + 'static {
    /// Starts to gossip.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    async fn start(&self, config: GossipConfig) -> Result<Arc<dyn Gossip>>;
}
