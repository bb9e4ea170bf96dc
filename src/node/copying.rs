//! Feeds the copies of replicated maps: each by a watch of its own, as any client's, that begins
//! with the entries that are there. In: the grid's maps. Out: copies that follow them, and local
//! reads of them. It never writes.

use super::directory::Directory;
use super::watching::Watching;
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use crate::partition::{CopyPool, MapCopies, MapCopy, Memory};
use crate::types::{MapDescriptor, MapId, StoredValue, WatchRequest, WatchStart, WatchToken};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A watch that failed is begun again after this.
const PAUSE: Duration = Duration::from_millis(200);
/// A copy for which there was no room is tried again after this: each try reads the whole map.
const PAUSE_WHEN_FULL: Duration = Duration::from_secs(10);

/// An entry as the asked peer's copy has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEntry {
    /// The entry; `None`: there is none at that revision.
    pub entry: Option<StoredValue>,
    /// The revision of the map's partition that the copy is of.
    pub revision: u64,
}

/// Feeds a node's copies.
pub struct Copying {
    directory: Arc<Directory>,
    watching: Arc<Watching>,
    max_bytes: usize,
    pool: Arc<CopyPool>,
}

impl Copying {
    /// Copies nothing yet.
    pub fn new(directory: Arc<Directory>, watching: Arc<Watching>, memory: Arc<Memory>) -> Arc<Self> {
        let config = watching.config();
        let (max_bytes, per_node) = (config.replicated_map_bytes, config.replicated_bytes_per_node);
        Arc::new(Copying { directory, watching, max_bytes, pool: CopyPool::new(memory, per_node) })
    }

    /// Bytes of RAM that all copies take.
    pub fn bytes(&self) -> usize {
        self.pool.used()
    }

    fn copies(&self) -> &MapCopies {
        self.directory.copies()
    }

    /// Works until it is dropped.
    pub async fn work(&self) {
        let mut view = self.directory.watch_view();
        let mut feeding: FuturesUnordered<BoxFuture<'_, MapId>> = FuturesUnordered::new();
        let mut fed = BTreeSet::new();
        loop {
            let now = view.borrow_and_update().clone();
            for map in now.maps.values().map(|map| &map.row.descriptor) {
                if map.options.replicated && fed.insert(map.id) {
                    feeding.push(Box::pin(self.feed(map.clone())));
                }
            }
            tokio::select! {
                biased;
                changed = view.changed() => if changed.is_err() { return },
                Some(ended) = feeding.next(), if !feeding.is_empty() => {
                    fed.remove(&ended);
                }
            }
        }
    }

    /// Feeds one copy until its map is dropped.
    async fn feed(&self, map: MapDescriptor) -> MapId {
        let copy = Arc::new(MapCopy::new(map.id, self.max_bytes, self.pool.clone()));
        self.copies().insert(&map.name, copy.clone());
        let mut token = None;
        while self.directory.view().map_by_id(map.id).is_some() {
            let mut pause = PAUSE;
            if let Err(error) = self.follow(&map, &copy, &mut token).await {
                tracing::debug!(map = map.name, %error, "the copy of a replicated map begins again");
                if error.code == Code::ReplicatedFull {
                    tracing::warn!(map = map.name, %error, "there is no room for the copy of a replicated map");
                    token = None;
                    pause = PAUSE_WHEN_FULL;
                }
            }
            clock::sleep(pause).await;
        }
        self.copies().remove(&map.name, map.id);
        map.id
    }

    async fn follow(&self, map: &MapDescriptor, copy: &MapCopy, token: &mut Option<WatchToken>) -> Result<()> {
        if token.is_none() {
            copy.begin();
        }
        let start = token.clone().map_or(WatchStart::Snapshot, WatchStart::Token);
        let request = WatchRequest { map: map.name.clone(), start, resnapshot: true, ..WatchRequest::default() };
        let mut messages = self.watching.watch_inside(request).await?;
        while let Some(message) = messages.next().await {
            let message = message?;
            let behind = message.token.clone();
            copy.take(message)?;
            *token = Some(behind);
        }
        Ok(())
    }

    /// An entry from this peer's copy, once that is of `at_least` this revision.
    ///
    /// # Errors
    /// `NoSuchMap`; `NoLocalCopy` for a map that is not replicated; `DeadlineExceeded` when the copy
    /// is not that far in time; `ReplicatedFull` when there is no room for it.
    pub async fn get(&self, map: &str, key: &[u8], at_least: u64, at_most: Duration) -> Result<LocalEntry> {
        let until = Instant::now() + at_most;
        let copy = loop {
            if let Some(copy) = self.copies().get(map) {
                break copy;
            }
            match self.directory.view().map(map) {
                Some(known) if !known.options.replicated => {
                    let error = Error::new(Code::NoLocalCopy, format!("the map {map:?} is not replicated"));
                    return Err(error);
                }
                None if Instant::now() >= until => {
                    return Err(Error::new(Code::NoSuchMap, format!("there is no map {map:?}")));
                }
                _ if Instant::now() >= until => {
                    return Err(Error::new(Code::NoLocalCopy, format!("there is no copy of {map:?} here yet")));
                }
                _ => clock::sleep(Duration::from_millis(5)).await,
            }
        };
        let mut revision = copy.revision();
        let there = revision.wait_for(|now| now.is_some_and(|now| now >= at_least));
        if clock::timeout_at(until, there).await.is_err() {
            if let Some(trouble) = copy.trouble() {
                return Err(Error::new(Code::ReplicatedFull, trouble).at(format!("map {map:?}")));
            }
            let now = *copy.revision().borrow();
            let what = match now {
                Some(now) => format!("the copy is of revision {now}, not of {at_least} yet"),
                None => "the copy is not whole yet".to_owned(),
            };
            return Err(Error::new(Code::DeadlineExceeded, what).at(format!("map {map:?}")));
        }
        let (entry, revision) = copy.get(key)?;
        Ok(LocalEntry { entry, revision })
    }
}
