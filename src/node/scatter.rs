//! Scatters, at the peer that was asked: partitions go to their leaders in small lots, what comes
//! back is combined, reduced and answered. What a lost peer had not given is asked of the next
//! leader; a final refusal, or a partition that cannot be had in time, fails the whole or is named
//! in a partial answer, as the caller wants it.

use super::broadcast::{Ranged, partitions};
use super::compute_service::{MapCall, MapReply, Scatter, ScatterAnswer, ScatterEvent};
use super::grid_node::Node;
use super::router::CARRY_WAIT;
use super::wire::{self, kind};
use crate::clock::{self, Instant, ThreadKind, run_on};
use crate::compute::{Reduced, ResultMap};
use crate::error::{Code, Error, Result, Retry};
use crate::net::peer::Lane;
use crate::types::{AckLevel, GroupId, NodeId, Op, PartitionId, ReadLevel, Request, Value};
use bytes::Bytes;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Partitions that one peer is asked for at once: the grain of progress, and of what is lost with
/// a peer.
const LOT: usize = 4;

/// Events that may wait for a slow reader.
const WAITING: usize = 64;

/// Pause before partitions that could not be had are asked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a map that a leader does not know is waited for there.
const MAP_WAIT: Duration = Duration::from_millis(500);

/// What of the time is kept for combining, reducing and answering.
const ANSWER: Duration = Duration::from_millis(500);

/// Bytes of parts that are held at the asked peer.
const MAX_PARTS: usize = 64 << 20;

/// Entries of a result that are written at once, and bytes at which such a lot is full.
const WRITE_LOT: (usize, usize) = (256, 128 << 10);

/// Starts a scatter; what comes of it comes through the receiver.
pub(super) fn start(node: Arc<Node>, mut request: Scatter) -> Result<mpsc::Receiver<ScatterEvent>> {
    let partitions = partitions(&node)?;
    let (sender, receiver) = mpsc::channel(WAITING);
    if request.id == 0 {
        request.id = node.hosting.parts.ports.random.next_u64();
    }
    clock::spawn(async move {
        let cancelled = node.hosting.cancelled.clone();
        let id = request.id;
        tokio::select! {
            biased;
            // Nobody waits any more: the steps that run are told to end.
            () = sender.closed() => drop(node.canceller.cancel(id).await.told),
            () = cancelled.cancelled(id) => {
                let error = Error::new(Code::TaskCancelled, "the scatter was cancelled").at(place(&request));
                drop(sender.send(ScatterEvent::End(Err(error))).await);
            }
            outcome = run(&node, &request, partitions, &sender) => {
                let outcome = outcome.map_err(|error| node.router.for_clients(error));
                drop(sender.send(ScatterEvent::End(outcome)).await);
            }
        }
    });
    Ok(receiver)
}

fn place(request: &Scatter) -> String {
    format!("scatter {}", request.name)
}

/// What has come so far.
struct Gathered {
    of: u32,
    done: u32,
    parts: Vec<Bytes>,
    bytes: usize,
    /// Refused for good.
    failed: BTreeMap<PartitionId, Error>,
    /// Until then a leader may not have heard of a map yet.
    maps_known_by: Instant,
    /// Until when leadership may go from a peer that does not carry the scatter to one that does.
    carried_by: BTreeMap<PartitionId, Instant>,
    /// How long that may take.
    carry_wait: Duration,
    /// To be asked again, with the last trouble.
    again: BTreeMap<PartitionId, Error>,
}

async fn run(
    node: &Node,
    request: &Scatter,
    partitions: Vec<Ranged>,
    events: &mpsc::Sender<ScatterEvent>,
) -> Result<ScatterAnswer> {
    let time = Duration::from_millis(request.deadline_ms.into());
    // Whoever waits is to have the answer, or the reason, in time.
    let expires = Instant::now() + time.saturating_sub(ANSWER.min(time / 5));
    let lacking = |error| node.directory.lacking(error, &request.name, "");
    node.registry.check_scatter(&request.name).map_err(lacking)?;
    let mut gathered = Gathered {
        of: partitions.len() as u32,
        done: 0,
        parts: Vec::new(),
        bytes: 0,
        failed: BTreeMap::new(),
        again: BTreeMap::new(),
        maps_known_by: Instant::now() + MAP_WAIT,
        carried_by: BTreeMap::new(),
        carry_wait: CARRY_WAIT.min(time / 2),
    };
    let mut wanted: Vec<PartitionId> = partitions.into_iter().map(|(partition, _)| partition).collect();
    while !wanted.is_empty() && Instant::now() < expires {
        let late = || Error::new(Code::DeadlineExceeded, "its leader did not answer in time");
        gathered.again.extend(wanted.iter().map(|partition| (*partition, late())));
        let round = round(node, request, wanted, expires, events, &mut gathered);
        match clock::timeout_at(expires, round).await {
            Ok(outcome) => outcome?,
            Err(clock::Elapsed) => break,
        }
        wanted = gathered.again.keys().copied().collect();
        if !wanted.is_empty() {
            clock::sleep(PAUSE).await;
        }
    }
    gathered.failed.append(&mut gathered.again);
    if !request.partial
        && let Some((partition, first)) = gathered.failed.first_key_value()
    {
        return Err(failure(request, *partition, first, &gathered));
    }
    finish(node, request, gathered, expires).await
}

/// Why the whole failed: its only reason if there is one, which then keeps its code.
fn failure(request: &Scatter, partition: PartitionId, first: &Error, gathered: &Gathered) -> Error {
    let whole = first.code.retry() == Retry::Never || first.code == Code::TaskNotCarried;
    if whole && gathered.failed.values().all(|error| error.code == first.code) {
        return first.clone();
    }
    let what = format!(
        "{} of {} partitions gave nothing; first partition {partition}: {first}",
        gathered.failed.len(),
        gathered.of
    );
    Error::new(Code::PartitionsFailed, what).at(place(request))
}

/// Asks the leaders of some partitions once.
async fn round(
    node: &Node,
    request: &Scatter,
    wanted: Vec<PartitionId>,
    expires: Instant,
    events: &mpsc::Sender<ScatterEvent>,
    gathered: &mut Gathered,
) -> Result<()> {
    let mut by_leader: BTreeMap<NodeId, Vec<PartitionId>> = BTreeMap::new();
    for partition in wanted {
        match node.router.leader_or_replica(partition.group()) {
            Some(leader) => by_leader.entry(leader).or_default().push(partition),
            None => {
                drop(gathered.again.insert(partition, Error::new(Code::NoLeader, "no leader is known at the moment")))
            }
        }
    }
    let lots = by_leader.into_iter().map(|(leader, partitions)| {
        let lots: Vec<Vec<PartitionId>> = partitions.chunks(LOT).map(<[PartitionId]>::to_vec).collect();
        let ask = move |lot: Vec<PartitionId>| async move { ask(node, request, leader, lot, expires).await };
        Box::pin(futures::stream::iter(lots).then(ask))
    });
    let mut replies = futures::stream::select_all(lots);
    while let Some(reply) = replies.next().await {
        take(node, request, reply, events, gathered).await?;
    }
    Ok(())
}

/// Asks one peer, this one included, for a lot.
async fn ask(node: &Node, request: &Scatter, leader: NodeId, lot: Vec<PartitionId>, expires: Instant) -> MapReply {
    let left = expires.saturating_duration_since(Instant::now());
    let call = MapCall {
        name: request.name.clone(),
        payload: request.payload.clone(),
        partitions: lot.clone(),
        id: request.id,
        deadline_ms: left.as_millis() as u32,
    };
    if leader == node.id() {
        return node.mapper.map(call).await;
    }
    let asked = async {
        let transport = &node.hosting.parts.transport;
        let answer =
            transport.call(leader, Lane::Request, GroupId::META, kind::MAP, wire::encode(&call)?, left).await?;
        wire::decode::<MapReply>(&answer)
    };
    asked.await.unwrap_or_else(|error| MapReply {
        failed: lot.into_iter().map(|partition| (partition, error.clone())).collect(),
        ..MapReply::default()
    })
}

/// Takes in a peer's reply. An error ends the scatter.
async fn take(
    node: &Node,
    request: &Scatter,
    reply: MapReply,
    events: &mpsc::Sender<ScatterEvent>,
    gathered: &mut Gathered,
) -> Result<()> {
    for partition in &reply.done {
        gathered.again.remove(partition);
    }
    for (partition, error) in reply.failed {
        let group = partition.group();
        node.router.forget_leader(group);
        if let Some(leader) = error.leader.as_deref().and_then(|leader| leader.parse().ok()) {
            node.router.note_leader(group, leader);
        }
        let unheard = error.code == Code::NoSuchMap && Instant::now() < gathered.maps_known_by;
        let uncarried = error.code == Code::TaskNotCarried && {
            let now = Instant::now();
            now >= *gathered.carried_by.entry(partition).or_insert(now + gathered.carry_wait)
        };
        if !uncarried && (error.code.retry() != Retry::Never || unheard) {
            gathered.again.insert(partition, error);
            continue;
        }
        if error.code == Code::MemberRemoved {
            // Said of this peer: whatever it asks, it gets nothing. Another can do it all.
            return Err(error);
        }
        gathered.again.remove(&partition);
        gathered.failed.insert(partition, error.clone());
        if !request.partial {
            return Err(failure(request, partition, &error, gathered));
        }
    }
    let Some(part) = reply.part else { return Ok(()) };
    gathered.done += reply.done.len() as u32;
    let shown = request.parts.then(|| part.clone());
    if !request.parts {
        gathered.bytes += part.len();
        gathered.parts.push(part);
    }
    if gathered.bytes > MAX_PARTS {
        let what = format!("the peers' results have over {MAX_PARTS} bytes together");
        return Err(Error::new(Code::TooLarge, what).at(place(request)));
    }
    let progress = ScatterEvent::Progress { done: gathered.done, of: gathered.of, part: shown };
    // The reader may have gone, which is noticed where the scatter was started.
    drop(events.send(progress).await);
    Ok(())
}

/// Reduces what came, writes what is to be written, and makes the answer.
async fn finish(node: &Node, request: &Scatter, gathered: Gathered, expires: Instant) -> Result<ScatterAnswer> {
    let failed: Vec<(PartitionId, Error)> = gathered.failed.into_iter().collect();
    if request.parts {
        return Ok(ScatterAnswer { answer: None, failed });
    }
    let all = match gathered.parts.is_empty() {
        true => None,
        false => {
            let combined = node.mapper.combine(request.name.clone(), request.payload.clone(), gathered.parts);
            Some(combined.await?)
        }
    };
    let (registry, name, payload) = (node.registry.clone(), request.name.clone(), request.payload.clone());
    let reduce = move || registry.scatter_reduce(&name, &payload, all);
    let Reduced { answer, writes } = run_on(&node.hosting.parts.ports.threads, ThreadKind::Task, reduce).await??;
    for result in writes {
        write(node, result, expires).await?;
    }
    Ok(ScatterAnswer { answer: Some(answer), failed })
}

/// Writes a result's entries, in lots. Each is absolute: writing them again does no harm.
async fn write(node: &Node, result: ResultMap, expires: Instant) -> Result<()> {
    node.map_for_result(&result).await?;
    let mut lot: Vec<(Bytes, Value)> = Vec::new();
    let mut bytes = 0;
    let mut entries = result.entries.into_iter().peekable();
    while let Some((key, value)) = entries.next() {
        bytes += key.len() + value.data.len();
        lot.push((key, value));
        if entries.peek().is_some() && lot.len() < WRITE_LOT.0 && bytes < WRITE_LOT.1 {
            continue;
        }
        bytes = 0;
        let left = expires.saturating_duration_since(Instant::now());
        let request = Request {
            affinity: None,
            op: Op::PutMany { map: result.map.clone(), entries: std::mem::take(&mut lot) },
            read: ReadLevel::default(),
            ack: AckLevel::default(),
            stamp: None,
            deadline_ms: left.as_millis() as u32,
        };
        node.router.execute(request, 0).await?;
    }
    Ok(())
}
