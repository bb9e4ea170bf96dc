//! Dropping maps: the grid's facts first, then every partition, then what is left of the entries.
//!
//! In: a map's name; notes in the grid's facts. Out: requests to partition leaders, which mark the
//! map as gone and delete its entries in bounded pieces. The peer that leads the meta group drives
//! the deletion; another takes over where it left off, since each piece can be asked for again.

use super::directory::Directory;
use super::facts::Facts;
use super::hosting::Hosting;
use super::router::Router;
use crate::clock::{self, Instant};
use crate::error::{Error, Result};
use crate::meta;
use crate::ring;
use crate::types::{AckLevel, GroupId, MapDescriptor, MapId, Op, PartitionId, ReadLevel, ReplyBody, Request, Slot};
use futures::stream::{self, StreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Entries that one piece deletes.
const PIECE: u32 = 500;
/// Time for one piece.
const PIECE_TIME: Duration = Duration::from_secs(3);
/// Pause between two pieces in a partition: other commands go first.
const PIECE_PAUSE: Duration = Duration::from_millis(5);
/// Partitions that are asked at once.
const AT_ONCE: usize = 8;
/// Pause before what could not be done is tried again, or looked at by a new leader.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a note stays when all entries are gone: until then a drop that is asked for again, its
/// answer having been lost, is answered as it was. Longer than clients ask by themselves.
const NOTE_STAYS: Duration = Duration::from_secs(10);

/// Drops maps.
pub struct Drops {
    /// What the node knows of the grid.
    pub directory: Arc<Directory>,
    /// The node's replicas.
    pub hosting: Arc<Hosting>,
    /// Requests to partitions.
    pub router: Arc<Router>,
    /// The grid's facts.
    pub facts: Arc<Facts>,
}

impl Drops {
    /// Drops a map. When this returns, no partition writes to it any more, but for the number that
    /// is given, which could not be asked yet. Asked for again, it gives the same, while the note stands.
    ///
    /// # Errors
    /// `NoSuchMap`; what the meta group answers.
    pub async fn drop_map(&self, name: &str, id: Option<MapId>) -> Result<(MapDescriptor, u32)> {
        // It may have been made, or dropped and made again, a moment ago through another peer: what is there
        // is only said by rows that are not older than the question.
        self.facts.catch_up().await?;
        let known = meta::to_drop(&self.directory.view(), name, id)?;
        let plan = |view: &meta::MetaView| match view.map(name) {
            Some(map) if map.id == known.id => meta::drop_map(view, name).map(|dropped| ((), dropped.changes)),
            // Dropped meanwhile: by an earlier attempt whose answer was lost, or by somebody else.
            _ => Ok(((), Vec::new())),
        };
        self.facts.change(plan).await?;
        let marked = self.in_all_partitions(|partition| self.piece(known.id, partition)).await;
        let pending = marked.iter().filter(|outcome| outcome.is_err()).count();
        Ok((known, pending as u32))
    }

    /// Deletes what is left of dropped maps, as long as the node lives.
    pub async fn work(&self) {
        let mut view = self.directory.watch_view();
        // Maps whose entries are gone, and since when this node knows that.
        let mut empty: BTreeMap<MapId, Instant> = BTreeMap::new();
        loop {
            let dropped: Vec<MapId> = view.borrow_and_update().dropped.keys().copied().collect();
            let leads = self.hosting.get(GroupId::META).is_some_and(|meta| meta.leadership().is_me);
            empty.retain(|map, _| leads && dropped.contains(map));
            for map in dropped.iter().filter(|_| leads) {
                let since = empty.get(map).copied();
                if since.is_some_and(|since| since.elapsed() >= NOTE_STAYS) {
                    self.forget(*map).await;
                } else if since.is_none() && self.delete(*map).await {
                    empty.insert(*map, Instant::now());
                }
            }
            let pause = if dropped.is_empty() { None } else { Some(RETRY_PAUSE) };
            let changed = match pause {
                None => view.changed().await,
                Some(pause) => clock::timeout(pause, view.changed()).await.unwrap_or(Ok(())),
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Deletes a map's entries everywhere; says whether all are gone.
    async fn delete(&self, map: MapId) -> bool {
        let outcomes = self.in_all_partitions(|partition| self.delete_in(map, partition)).await;
        match outcomes.into_iter().sum::<Result<u64>>() {
            Ok(deleted) => {
                tracing::info!(%map, deleted, "the entries of a dropped map are gone");
                true
            }
            Err(error) => {
                tracing::debug!(%map, %error, "a dropped map is not gone everywhere yet");
                false
            }
        }
    }

    /// Takes the note of a map away.
    async fn forget(&self, map: MapId) {
        let plan = |view: &meta::MetaView| Ok(((), meta::forgotten(view, map).into_iter().collect()));
        if let Err(error) = self.facts.change(plan).await {
            tracing::debug!(%map, %error, "a dropped map's note stays for now");
        }
    }

    async fn delete_in(&self, map: MapId, partition: PartitionId) -> Result<u64> {
        let mut all = 0;
        loop {
            let (deleted, more) = self.piece(map, partition).await?;
            all += deleted;
            if !more {
                return Ok(all);
            }
            clock::sleep(PIECE_PAUSE).await;
        }
    }

    async fn in_all_partitions<T, F>(&self, ask: impl Fn(PartitionId) -> F) -> Vec<Result<T>>
    where
        F: Future<Output = Result<T>>,
    {
        let partitions = self.directory.view().partitions();
        let asked: Vec<F> = (0..partitions).map(|partition| ask(PartitionId(partition))).collect();
        stream::iter(asked).buffered(AT_ONCE).collect().await
    }

    /// One piece in one partition: how many entries went, and whether there are more.
    async fn piece(&self, map: MapId, partition: PartitionId) -> Result<(u64, bool)> {
        let slot = Slot(*ring::slot_range(partition, self.directory.view().partitions()).start());
        let request = Request {
            affinity: None,
            op: Op::Forget { map, slot, limit: PIECE },
            read: ReadLevel::Linearizable,
            ack: AckLevel::MajorityFsync,
            stamp: None,
            deadline_ms: PIECE_TIME.as_millis() as u32,
        };
        let expires = Instant::now() + PIECE_TIME;
        let reply = self.router.execute_in(partition.group(), request, None, 0, expires).await?;
        match reply.body {
            ReplyBody::Cleared { deleted, next } => Ok((deleted, next.is_some())),
            _ => Err(Error::internal("a deletion got an answer of another kind")),
        }
    }
}
