//! Watches: following a map's changes through any peer. In: a request. Out: a stream of messages,
//! each with the token behind it.
//!
//! A watch is a cursor, never a queue: it pulls, from the replica here or by long polls from a
//! peer that has one, when its consumer asks for more, and holds one page per source. Who is slow
//! falls behind and finds its history compacted; nobody's memory grows. A token says revisions and
//! no peer, so a watch goes on from another replica after any failure: a replica that is behind
//! the token waits until it is not, and so nothing comes twice and nothing backwards.

mod pulls;
mod stream;

pub use pulls::Pulls;
#[cfg(test)]
pub(super) use pulls::{Pull, Pulled};

use super::directory::Directory;
use super::hosting::Hosting;
use super::router::{Router, unsure_of_map};
use crate::config::Limits;
use crate::error::{Code, Error, Result};
use crate::partition::{FeedLimits, Followed, check_key};
use crate::types::{
    MapDescriptor, PartitionId, Position, WatchKeys, WatchMessage, WatchRequest, WatchStart, affinity_of, slot_of,
};
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use stream::Watcher;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The messages of a watch; it ends behind its first error.
pub type WatchStream = BoxStream<'static, Result<WatchMessage>>;

/// Bounds of a node's watches.
#[derive(Clone, Debug)]
pub struct WatchConfig {
    /// Watches served at once.
    pub max_watches: usize,
    /// Bytes of events at which a message is full.
    pub message_bytes: usize,
    /// A watch hears at least so often how far it has come.
    pub progress: Duration,
    /// Pulls from other peers under way at once; further ones wait.
    pub max_pulls: usize,
    /// History per partition, in bytes.
    pub feed_per_partition: usize,
    /// History of all partitions, in bytes.
    pub feed_per_node: usize,
    /// Bytes that a replicated map may hold.
    pub replicated_map_bytes: usize,
    /// Bytes of RAM that the copies of all replicated maps may take.
    pub replicated_bytes_per_node: usize,
}

impl From<&Limits> for WatchConfig {
    fn from(limits: &Limits) -> Self {
        WatchConfig {
            max_watches: limits.max_watches,
            message_bytes: limits.watch_message_bytes.min(limits.max_message_bytes / 2).max(1),
            progress: Duration::from_millis(u64::from(limits.watch_progress_ms.max(10))),
            max_pulls: limits.max_watch_pulls.max(1),
            feed_per_partition: limits.feed_bytes_per_partition,
            feed_per_node: limits.feed_bytes_per_node,
            replicated_map_bytes: limits.replicated_map_bytes,
            replicated_bytes_per_node: limits.replicated_bytes_per_node,
        }
    }
}

impl WatchConfig {
    /// Bounds of the history; beside a memory limit it takes no more than a sixteenth of that.
    pub fn feed_limits(&self, memory_limit: Option<u64>) -> FeedLimits {
        let most = memory_limit.map_or(usize::MAX, |limit| usize::try_from(limit / 16).unwrap_or(usize::MAX));
        let per_node = self.feed_per_node.min(most);
        FeedLimits { per_partition: self.feed_per_partition.min(per_node), per_node }
    }
}

impl Default for WatchConfig {
    fn default() -> Self {
        WatchConfig::from(&Limits::default())
    }
}

/// A node's watches.
pub struct Watching {
    directory: Arc<Directory>,
    hosting: Arc<Hosting>,
    router: Arc<Router>,
    pulls: Arc<Pulls>,
    config: WatchConfig,
    room: Arc<Semaphore>,
    remote: Arc<Semaphore>,
    /// Ends all watches: they would hold up the peer's end.
    stop: CancellationToken,
}

impl Watching {
    /// No watches yet.
    pub fn new(hosting: Arc<Hosting>, router: Arc<Router>, config: WatchConfig, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Watching {
            directory: hosting.parts.directory.clone(),
            pulls: Arc::new(Pulls::new(hosting.clone())),
            hosting,
            router,
            room: Arc::new(Semaphore::new(config.max_watches)),
            remote: Arc::new(Semaphore::new(config.max_pulls)),
            config,
            stop,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &WatchConfig {
        &self.config
    }

    /// Answers other peers' pulls.
    pub fn pulls(&self) -> &Arc<Pulls> {
        &self.pulls
    }

    /// How many watches are served.
    pub fn active(&self) -> usize {
        self.config.max_watches.saturating_sub(self.room.available_permits())
    }

    /// Begins a watch.
    ///
    /// # Errors
    /// `NoSuchMap`, `WrongCodec`, `InvalidToken`, `TooManyWatches`, `NotReady`.
    pub async fn watch(self: &Arc<Self>, request: WatchRequest) -> Result<WatchStream> {
        let permit = self.room.clone().try_acquire_owned().map_err(|_| {
            Error::new(Code::TooManyWatches, format!("{} watches are served here already", self.config.max_watches))
        })?;
        self.begin(request, Some(permit)).await
    }

    /// Begins a watch of this peer's own, which takes no client's place.
    ///
    /// # Errors
    /// As [`Watching::watch`].
    pub async fn watch_inside(self: &Arc<Self>, request: WatchRequest) -> Result<WatchStream> {
        self.begin(request, None).await
    }

    async fn begin(
        self: &Arc<Self>,
        request: WatchRequest,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<WatchStream> {
        let map = self.map(&request.map).await?;
        if let WatchKeys::Key(key) = &request.keys {
            check_key(&map, key)?;
        }
        let (followed, partitions) = self.followed(&request, &map)?;
        let positions = positions(&request, &map, &partitions)?;
        let watcher = Watcher::new(self.clone(), map, followed, positions, request.resnapshot, permit);
        Ok(watcher.into_stream())
    }

    async fn map(&self, name: &str) -> Result<MapDescriptor> {
        let known = || self.directory.view().map(name).cloned();
        if let Some(map) = known() {
            return Ok(map);
        }
        // It may have been made a moment ago, through another peer.
        self.router.catch_up().await.map_err(|error| unsure_of_map(name, &error))?;
        known().ok_or_else(|| Error::new(Code::NoSuchMap, format!("there is no map {name:?}")))
    }

    /// What is followed, and the partitions in which it lies.
    fn followed(&self, request: &WatchRequest, map: &MapDescriptor) -> Result<(Followed, Vec<PartitionId>)> {
        let not_ready = || Error::new(Code::NotReady, "this peer does not know its grid's partitions yet");
        let view = self.directory.view();
        let affinity = map.affinity().or_else(|| request.affinity.clone());
        let slot = match (&affinity, &request.keys) {
            (Some(affinity), _) => Some(slot_of(affinity)),
            (None, WatchKeys::Key(key)) => Some(slot_of(affinity_of(key))),
            (None, WatchKeys::All | WatchKeys::Prefix(_)) => None,
        };
        let partitions = match slot {
            Some(slot) => vec![view.partition_of(slot).ok_or_else(not_ready)?],
            None if view.partitions() == 0 => return Err(not_ready()),
            None => (0..view.partitions()).map(PartitionId).collect(),
        };
        Ok((Followed { map: map.id, keys: request.keys.clone(), slot }, partitions))
    }
}

/// Where each partition begins.
fn positions(
    request: &WatchRequest,
    map: &MapDescriptor,
    partitions: &[PartitionId],
) -> Result<BTreeMap<PartitionId, Position>> {
    let all = |position: Position| Ok(partitions.iter().map(|partition| (*partition, position.clone())).collect());
    let token = match &request.start {
        WatchStart::Now => return all(Position::Now),
        WatchStart::Snapshot => return all(Position::Begin),
        WatchStart::Token(token) => token,
    };
    let bad = |what: String| Err(Error::new(Code::InvalidToken, what).at(format!("map {:?}", map.name)));
    if token.map != map.id {
        return bad("the token is of another map, or of one that was dropped".to_owned());
    }
    let mut positions = BTreeMap::new();
    for partition in partitions {
        match token.positions.get(partition) {
            Some(position) => positions.insert(*partition, position.clone()),
            None => return bad(format!("the token is of a watch of other keys: it lacks partition {partition}")),
        };
    }
    Ok(positions)
}
