//! One watch: which node to pull each partition from, and what comes of it. It works only while
//! its consumer asks for the next message.

use super::pulls::{Pull, Pulled};
use super::{WatchStream, Watching};
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use crate::net::peer::Lane;
use crate::node::wire::{self, kind};
use crate::partition::Followed;
use crate::types::{
    GroupId, MapDescriptor, NodeId, PartitionId, Position, WatchEvent, WatchKind, WatchMessage, WatchToken,
};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// When no replica could answer, they are asked again after this.
const PAUSE: Duration = Duration::from_millis(50);
/// A pull from another peer may take so much longer than the wait that it asks for.
const SLACK: Duration = Duration::from_secs(1);
/// How long a pull waits at its source while others wait for their turn.
const CROWDED: Duration = Duration::from_millis(50);

/// One partition of a watch.
struct Part {
    position: Position,
    /// In a pull or a pause.
    busy: bool,
    /// Nodes that could not go on from the position.
    tried: BTreeSet<NodeId>,
    /// One of them had it no more: the lowest floor of these.
    compacted: Option<u64>,
}

/// A pull's answer, or the end of a pause.
struct Answer {
    source: Option<NodeId>,
    asked: Vec<PartitionId>,
    reply: Result<Vec<(PartitionId, Pulled)>>,
}

/// What an answer was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Taken {
    /// Nothing: its source could not go on.
    Nothing,
    /// A source said that there is nothing new.
    Heard,
    /// A position has moved.
    Moved,
}

/// A watch under way.
pub(super) struct Watcher {
    watching: Arc<Watching>,
    map: MapDescriptor,
    followed: Followed,
    resnapshot: bool,
    parts: BTreeMap<PartitionId, Part>,
    pulls: FuturesUnordered<BoxFuture<'static, Answer>>,
    asking: BTreeSet<NodeId>,
    /// Events that have come and belong to the next message.
    events: Vec<WatchEvent>,
    /// Where the next pull begins among the partitions, so that all have their turn.
    turn: usize,
    told: Option<Instant>,
    /// A place among the watches of clients.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Watcher {
    pub(super) fn new(
        watching: Arc<Watching>,
        map: MapDescriptor,
        followed: Followed,
        positions: BTreeMap<PartitionId, Position>,
        resnapshot: bool,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let part = |position| Part { position, busy: false, tried: BTreeSet::new(), compacted: None };
        Watcher {
            watching,
            map,
            followed,
            resnapshot,
            parts: positions.into_iter().map(|(partition, position)| (partition, part(position))).collect(),
            pulls: FuturesUnordered::new(),
            asking: BTreeSet::new(),
            events: Vec::new(),
            turn: 0,
            told: None,
            _permit: permit,
        }
    }

    pub(super) fn into_stream(self) -> WatchStream {
        let next = |watcher: Option<Watcher>| async {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(message) => Some((Ok(message), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        };
        Box::pin(futures::stream::unfold(Some(self), next))
    }

    async fn next(&mut self) -> Result<WatchMessage> {
        loop {
            if self.watching.directory.view().map_by_id(self.map.id).is_none() {
                return Err(Error::new(Code::NoSuchMap, format!("the map {:?} was dropped", self.map.name)));
            }
            self.begin_pulls()?;
            if !self.events.is_empty() && !self.is_starting() {
                return Ok(self.message());
            }
            let answer = tokio::select! {
                biased;
                () = self.watching.stop.cancelled() => {
                    return Err(Error::new(Code::ShuttingDown, "this peer is shutting down"));
                }
                answer = self.pulls.next() => answer,
            };
            let answer = answer.ok_or_else(|| Error::internal("a watch without partitions"))?;
            let taken = self.take_in(answer);
            let is_due = self.told.is_none_or(|told| told.elapsed() >= self.watching.config.progress);
            if !self.is_starting()
                && (taken == Taken::Moved || !self.events.is_empty() || (taken == Taken::Heard && is_due))
            {
                return Ok(self.message());
            }
        }
    }

    /// Whether a partition has not said yet where it begins: no token could name it.
    fn is_starting(&self) -> bool {
        self.parts.values().any(|part| part.position == Position::Now)
    }

    fn message(&mut self) -> WatchMessage {
        self.told = Some(Instant::now());
        let positions = self.parts.iter().map(|(partition, part)| (*partition, part.position.clone())).collect();
        let token = WatchToken { map: self.map.id, positions };
        WatchMessage { events: std::mem::take(&mut self.events), live: token.is_live(), token }
    }

    /// Asks for all partitions that nobody has been asked for: one pull per node, one at a time.
    fn begin_pulls(&mut self) -> Result<()> {
        let starting = self.is_starting();
        let idle = |part: &Part| !part.busy && (!starting || part.position == Position::Now);
        let mut idle: Vec<PartitionId> =
            self.parts.iter().filter(|(_, part)| idle(part)).map(|(partition, _)| *partition).collect();
        if idle.is_empty() {
            return Ok(());
        }
        let turn = self.turn % idle.len();
        idle.rotate_left(turn);
        self.turn = self.turn.wrapping_add(1);
        let mut by_source: BTreeMap<Option<NodeId>, Vec<PartitionId>> = BTreeMap::new();
        for partition in idle {
            let source = match self.source(partition) {
                None => self.without_source(partition)?,
                some => some,
            };
            if source.is_none_or(|source| !self.asking.contains(&source)) {
                by_source.entry(source).or_default().push(partition);
            }
        }
        for (source, partitions) in by_source {
            for partition in &partitions {
                if let Some(part) = self.parts.get_mut(partition) {
                    part.busy = true;
                }
            }
            match source {
                Some(node) => {
                    self.asking.insert(node);
                    self.pulls.push(self.pull(node, partitions));
                }
                None => self.pulls.push(Box::pin(async move {
                    clock::sleep(PAUSE).await;
                    Answer { source: None, asked: partitions, reply: Ok(Vec::new()) }
                })),
            }
        }
        Ok(())
    }

    /// The node to pull a partition from: this one, else the leader's, else any that is alive.
    fn source(&self, partition: PartitionId) -> Option<NodeId> {
        let part = self.parts.get(&partition)?;
        let watching = &self.watching;
        let (group, me) = (partition.group(), watching.directory.me());
        let hosted = watching.hosting.get(group).filter(|hosted| hosted.state.may_serve());
        // A replica that hears of no leader may be cut off from what is new.
        let in_touch = hosted.as_ref().filter(|hosted| hosted.leadership().leader.is_some()).map(|_| me);
        let here = hosted.map(|_| me);
        let leader = watching.router.leader_of(group).filter(|node| *node != me);
        let view = watching.directory.view();
        let others = view.replicas(group).iter().map(|(_, node)| *node).filter(|node| *node != me);
        let mut all = in_touch.into_iter().chain(leader).chain(others).chain(here);
        all.find(|node| !part.tried.contains(node) && watching.directory.is_alive(*node))
    }

    /// All replicas were asked. If the history is gone, the partition begins anew or the watch
    /// ends; else they are asked again after a pause.
    fn without_source(&mut self, partition: PartitionId) -> Result<Option<NodeId>> {
        let Some(part) = self.parts.get_mut(&partition) else { return Ok(None) };
        part.tried.clear();
        let Some(floor) = part.compacted.take() else { return Ok(None) };
        if !self.resnapshot {
            let what = format!("partition {partition} keeps no changes up to revision {floor} any more");
            return Err(Error::new(Code::Compacted, what).at(format!("map {:?}", self.map.name)));
        }
        // It begins at the newest revision, and not before what is known already.
        let revision = match part.position {
            Position::Live { revision } | Position::Scan { revision, .. } => revision.max(floor),
            Position::Now | Position::Begin => floor,
        };
        part.position = Position::Scan { revision, after: Bytes::new() };
        let reset = WatchKind::Reset;
        self.events.push(WatchEvent { partition, key: Bytes::new(), revision: floor, time_ms: 0, kind: reset });
        Ok(None)
    }

    fn pull(&self, node: NodeId, asked: Vec<PartitionId>) -> BoxFuture<'static, Answer> {
        let watching = self.watching.clone();
        let positions = asked.iter().filter_map(|partition| Some((*partition, self.parts.get(partition)?)));
        let mut pull = Pull {
            map: self.map.id,
            keys: self.followed.keys.clone(),
            slot: self.followed.slot,
            positions: positions.map(|(partition, part)| (partition, part.position.clone())).collect(),
            max_bytes: u32::try_from(watching.config.message_bytes).unwrap_or(u32::MAX),
            wait_ms: watching.config.progress.as_millis() as u32,
        };
        Box::pin(async move {
            let source = Some(node);
            if node == watching.directory.me() {
                return Answer { source, asked, reply: watching.pulls.pull(pull).await };
            }
            let Ok(_turn) = watching.remote.acquire().await else {
                let stopped = Error::new(Code::ShuttingDown, "this peer is shutting down");
                return Answer { source, asked, reply: Err(stopped) };
            };
            if watching.remote.available_permits() == 0 {
                pull.wait_ms = pull.wait_ms.min(CROWDED.as_millis() as u32);
            }
            let reply = ask(&watching, node, &pull).await;
            Answer { source, asked, reply }
        })
    }

    /// Takes in an answer.
    fn take_in(&mut self, answer: Answer) -> Taken {
        if let Some(source) = answer.source {
            self.asking.remove(&source);
        }
        for partition in &answer.asked {
            if let Some(part) = self.parts.get_mut(partition) {
                part.busy = false;
            }
        }
        let Some(source) = answer.source else { return Taken::Nothing };
        let pulled = match answer.reply {
            Ok(pulled) => pulled,
            Err(error) => {
                tracing::debug!(%source, %error, "a watch asks another peer");
                for partition in &answer.asked {
                    if let Some(part) = self.parts.get_mut(partition) {
                        part.tried.insert(source);
                    }
                }
                return Taken::Nothing;
            }
        };
        let mut taken = Taken::Nothing;
        for (partition, pulled) in pulled {
            let Some(part) = self.parts.get_mut(&partition) else { continue };
            match pulled {
                Pulled::On(events, position) => {
                    taken = taken.max(if position == part.position { Taken::Heard } else { Taken::Moved });
                    part.position = position;
                    part.tried.clear();
                    part.compacted = None;
                    self.events.extend(events);
                }
                Pulled::Compacted(floor) => {
                    part.tried.insert(source);
                    part.compacted = Some(part.compacted.map_or(floor, |other| other.min(floor)));
                }
                Pulled::Unable => {
                    part.tried.insert(source);
                }
            }
        }
        taken
    }
}

async fn ask(watching: &Watching, node: NodeId, pull: &Pull) -> Result<Vec<(PartitionId, Pulled)>> {
    let time = Duration::from_millis(u64::from(pull.wait_ms)) + SLACK;
    let transport = &watching.hosting.parts.transport;
    let answer = transport.call(node, Lane::Watch, GroupId::META, kind::WATCH, wire::encode(pull)?, time).await?;
    wire::decode(&answer)
}
