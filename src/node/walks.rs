//! Operations that go from partition to partition: pages of a scan, deletion of a whole map,
//! sums. Each piece is an ordinary request to one partition's leader; the cursor in its answer says
//! where the next begins.
//!
//! In: a request for many slots. Out: one answer, whole or with the place to go on from. Never holds
//! more than a page for each partition that it asks ahead.

use super::router::Router;
use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::ring;
use crate::types::{Cursor, GroupId, MapDescriptor, Op, Reply, ReplyBody, Request, Served, Slot, StoredValue};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::time::Duration;

/// Partitions that a scan of a nearly empty map asks ahead, at most.
const MAX_AHEAD: usize = 8;
/// Partitions that are asked for their sizes at once.
const SIZES_AT_ONCE: usize = 16;
/// Partitions that one request without a stamp clears at once.
const CLEARS_AT_ONCE: usize = 16;
/// A deletion stops so long before its time is over, to say how far it came.
const CLEAR_MARGIN: Duration = Duration::from_millis(500);

/// A page under way.
#[derive(Default)]
struct Page {
    entries: Vec<(Bytes, StoredValue)>,
    bytes: usize,
    served: Option<Served>,
}

impl Page {
    /// Takes a partition's part; gives it back as too much if the page would overflow.
    fn take(
        &mut self,
        reply: Reply,
        limit: usize,
        max_bytes: usize,
    ) -> Result<std::result::Result<Option<Cursor>, ()>> {
        let ReplyBody::Page { entries, next } = reply.body else { return Err(unexpected()) };
        let bytes: usize = entries.iter().map(|(key, stored)| key.len() + stored.value.data.len()).sum();
        let fits = self.entries.len() + entries.len() <= limit && self.bytes + bytes <= max_bytes;
        if !self.entries.is_empty() && !fits {
            return Ok(Err(()));
        }
        self.bytes += bytes;
        self.entries.extend(entries);
        self.served = Some(reply.served);
        Ok(Ok(next))
    }
}

/// A deletion under way.
struct Clearing<'a> {
    request: &'a Request,
    map: &'a MapDescriptor,
    until: Slot,
    hops: u32,
    expires: Instant,
}

/// How far the deletion of a partition's entries came.
#[derive(Default)]
struct Cleared {
    deleted: u64,
    served: Option<Served>,
    /// Where to go on; `None`: nothing is left.
    rest: Option<Cursor>,
    error: Option<Error>,
}

fn unexpected() -> Error {
    Error::internal("a part of a walk got an answer of another kind")
}

impl Router {
    /// The group of a slot's partition, and the partition's last slot.
    fn group_at(&self, slot: Slot) -> Result<(GroupId, Slot)> {
        let view = self.directory().view();
        let partition = view.partition_of(slot).ok_or_else(super::router::not_ready)?;
        Ok((partition.group(), Slot(*ring::slot_range(partition, view.partitions()).end())))
    }

    /// One page, from as many partitions as it takes to fill it. When a later partition cannot be
    /// asked, the page ends before it.
    pub(super) async fn scan(
        &self,
        request: Request,
        map: MapDescriptor,
        hops: u32,
        expires: Instant,
    ) -> Result<Reply> {
        let Op::Scan { from, until, limit, max_bytes, .. } = &request.op else { return Err(unexpected()) };
        let (limit, max_bytes) = ((*limit).max(1) as usize, *max_bytes as usize);
        let mut cursor = from.clone().or(Cursor::at_slot(map.id, 0));
        let mut page = Page::default();
        let mut ahead = 1;
        'page: while let Some(at) = cursor.clone().filter(|at| at.slot <= *until) {
            if page.entries.len() >= limit || page.bytes >= max_bytes {
                break;
            }
            let mut parts = Vec::with_capacity(ahead);
            let mut next = Some(at);
            while parts.len() < ahead
                && let Some(at) = next.take().filter(|at| at.slot <= *until)
            {
                let (group, last) = self.group_at(at.slot)?;
                next = Cursor::at_slot(map.id, last.0.saturating_add(1));
                let left = (limit - page.entries.len(), max_bytes - page.bytes);
                let part = scan_part(&request, at, last.min(*until), left);
                parts.push(self.execute_in(group, part, Some(map.clone()), hops, expires));
            }
            let asked = parts.len();
            let mut answers = stream::iter(parts).buffered(MAX_AHEAD);
            let mut taken = 0;
            while let Some(answer) = answers.next().await {
                let reply = match answer {
                    Ok(reply) => reply,
                    Err(error) if page.served.is_none() => return Err(error),
                    Err(_) => break 'page,
                };
                let Ok(next) = page.take(reply, limit, max_bytes)? else { break 'page };
                let ended = next.as_ref().is_none_or(|next| next.after.is_none());
                cursor = next;
                taken += 1;
                if !ended {
                    // The partition has more: the page is full there.
                    break 'page;
                }
            }
            // A map with few entries to a partition is gathered from several at once.
            let sparse = taken == asked && page.entries.len() * 4 < limit;
            ahead = if sparse { (ahead * 2).min(MAX_AHEAD) } else { 1 };
        }
        let served = page.served.ok_or_else(unexpected)?;
        Ok(Reply { body: ReplyBody::Page { entries: page.entries, next: cursor }, served })
    }

    /// Deletes a map's entries. A stamped request is one piece in one partition, so that a retry
    /// finds its answer. One without a stamp empties several partitions side by side, until all is done
    /// or its time is nearly over; the answer's cursor then names the first place that was not reached,
    /// and what was deleted behind it is counted.
    pub(super) async fn clear(
        &self,
        request: Request,
        map: MapDescriptor,
        hops: u32,
        expires: Instant,
    ) -> Result<Reply> {
        let Op::Clear { from, until, .. } = &request.op else { return Err(unexpected()) };
        let first = from.clone().or(Cursor::at_slot(map.id, 0)).ok_or_else(unexpected)?;
        let walk = Clearing { request: &request, map: &map, until: *until, hops, expires };
        if request.stamp.is_some() {
            return self.clear_piece(&walk, first).await;
        }
        let mut begins = Vec::new();
        let mut next = Some(first);
        while let Some(at) = next.take().filter(|at| at.slot <= *until) {
            let (_, last) = self.group_at(at.slot)?;
            next = Cursor::at_slot(map.id, last.0.saturating_add(1));
            begins.push((at, last.min(*until)));
        }
        let parts = begins.into_iter().enumerate().map(|(number, (at, last))| {
            // However short the time is, something is done.
            self.clear_partition(&walk, at, last, number == 0)
        });
        let parts: Vec<_> = parts.collect();
        let mut ended = stream::iter(parts).buffered(CLEARS_AT_ONCE);
        let (mut deleted, mut rest, mut served) = (0, None, None);
        let mut first = true;
        while let Some(part) = ended.next().await {
            // Who asks again begins where this failed, and is told if it fails there at once.
            if let (true, None, Some(error)) = (first, &part.served, part.error) {
                return Err(error);
            }
            first = false;
            deleted += part.deleted;
            rest = rest.or(part.rest);
            served = part.served.or(served);
        }
        let served = served.ok_or_else(unexpected)?;
        Ok(Reply { body: ReplyBody::Cleared { deleted, next: rest }, served })
    }

    /// Deletes what a partition holds of a map, piece by piece, while there is time.
    async fn clear_partition(&self, walk: &Clearing<'_>, at: Cursor, last: Slot, at_least_one: bool) -> Cleared {
        let mut part = Cleared { rest: Some(at), ..Cleared::default() };
        while let Some(at) = part.rest.clone().filter(|at| at.slot <= last) {
            let late = walk.expires.saturating_duration_since(Instant::now()) < CLEAR_MARGIN;
            if late && (part.served.is_some() || !at_least_one) {
                return part;
            }
            match self.clear_piece(walk, at).await {
                Ok(Reply { body: ReplyBody::Cleared { deleted, next }, served }) => {
                    part.deleted += deleted;
                    (part.rest, part.served) = (next, Some(served));
                }
                Ok(_) => {
                    part.error = Some(unexpected());
                    return part;
                }
                Err(error) => {
                    part.error = Some(error);
                    return part;
                }
            }
        }
        // What lies behind is another's.
        part.rest = None;
        part
    }

    /// Deletes a bounded number of entries in the partition of a cursor.
    async fn clear_piece(&self, walk: &Clearing<'_>, at: Cursor) -> Result<Reply> {
        let Op::Clear { limit, .. } = &walk.request.op else { return Err(unexpected()) };
        let (group, last) = self.group_at(at.slot)?;
        let map = walk.map.name.clone();
        let op = Op::Clear { map, from: Some(at), until: last.min(walk.until), limit: *limit };
        let part = Request { op, ..walk.request.clone() };
        self.execute_in(group, part, Some(walk.map.clone()), walk.hops, walk.expires).await
    }

    /// The sum of all partitions' counts, each of its own moment.
    pub(super) async fn size(
        &self,
        request: Request,
        map: MapDescriptor,
        hops: u32,
        expires: Instant,
    ) -> Result<Reply> {
        let mut groups = Vec::new();
        let mut slot = Some(Slot(0));
        while let Some(first) = slot {
            let (group, last) = self.group_at(first)?;
            groups.push((group, first));
            slot = Cursor::at_slot(map.id, last.0.saturating_add(1)).map(|next| next.slot);
        }
        let parts = groups.into_iter().map(|(group, first)| {
            let op = Op::Size { map: map.name.clone(), slot: Some(first) };
            self.execute_in(group, Request { op, ..request.clone() }, Some(map.clone()), hops, expires)
        });
        let parts: Vec<_> = parts.collect();
        let replies: Vec<Reply> = stream::iter(parts).buffered(SIZES_AT_ONCE).try_collect().await?;
        let (mut entries, mut bytes, mut served) = (0, 0, None);
        for reply in replies {
            let ReplyBody::Size { entries: some, bytes: more } = reply.body else { return Err(unexpected()) };
            entries += some;
            bytes += more;
            served = Some(reply.served);
        }
        let served = served.ok_or_else(unexpected)?;
        Ok(Reply { body: ReplyBody::Size { entries, bytes }, served })
    }
}

fn scan_part(request: &Request, at: Cursor, last: Slot, left: (usize, usize)) -> Request {
    let mut part = request.clone();
    if let Op::Scan { from, until, limit, max_bytes, .. } = &mut part.op {
        (*from, *until) = (Some(at), last);
        // Not more than was asked for, so that both fit.
        (*limit, *max_bytes) = (left.0 as u32, left.1 as u32);
    }
    part
}
