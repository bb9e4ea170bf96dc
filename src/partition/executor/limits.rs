//! What a run does about maps with limits: it counts what is in them, refuses what does not fit,
//! or makes room for it in the same batch. Every deletion is a row of the batch, so that followers
//! need to know of neither limits nor use.

use super::super::entry::{RemovalCause, RowWrite};
use super::super::eviction::{Share, USES, Uses};
use super::super::indexes::MapSize;
use super::super::rows;
use super::count;
use super::run::Run;
use crate::error::{Code, Error, Result};
use crate::types::{Eviction, MapDescriptor, MapId, Op, Request};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Entries that one command's write pushes out at most.
const MAX_VICTIMS: usize = 4_096;

/// What a run knows of a map with limits, from the first write to it on.
pub(super) struct Limited {
    map: MapDescriptor,
    share: Share,
    /// What is in it, with everything that was proposed: this run alone changes it.
    size: MapSize,
    uses: Uses,
}

/// The maps with limits that a run has met.
pub(super) type Limits = BTreeMap<MapId, Limited>;

impl Run {
    /// Begins to count a map that has limits; false for one that has none.
    fn limited(&mut self, map: &MapDescriptor) -> bool {
        let known = || Share::of(&map.options, self.maps.partitions());
        let Some(share) = self.limits.get(&map.id).map(|limited| limited.share).or_else(known) else { return false };
        self.limits.entry(map.id).or_insert_with(|| Limited {
            map: map.clone(),
            share,
            size: self.view.map_size(map.id),
            uses: Uses::default(),
        });
        true
    }

    /// Counts a row's change before it is made.
    pub(super) fn account(&mut self, write: &RowWrite) {
        if self.limits.is_empty() {
            return;
        }
        let Some(limited) = rows::map_of(&write.row).and_then(|map| self.limits.get_mut(&map)) else { return };
        let before = self.view.row_len(&write.row);
        limited.size = limited.size.with(write.row.len(), before, write.value().map(Bytes::len));
        if limited.map.options.eviction == Eviction::None {
            return;
        }
        match write.value() {
            Some(_) => limited.uses.used(&write.row, self.view.now_ms(), &*self.random),
            None => limited.uses.gone(&write.row),
        }
    }

    /// Notes that a command read entries of a map that evicts.
    pub(super) fn note_reads(&mut self, limited: &[MapDescriptor], request: &Request) {
        let evicting = limited.iter().find(|map| map.options.eviction != Eviction::None);
        let Some(map) = evicting.filter(|map| self.limited(map)) else { return };
        let keys = match &request.op {
            Op::Get { key, .. } => std::slice::from_ref(key),
            Op::GetMany { keys, .. } => &keys[..],
            _ => return,
        };
        let Some(limited) = self.limits.get_mut(&map.id) else { return };
        for key in keys {
            let row = rows::map_row(super::super::slot_in(request, key), map.id, key);
            if self.view.row_len(&row).is_some() {
                limited.uses.used(&row, self.view.now_ms(), &*self.random);
            }
        }
    }

    /// Finds out what has to go so that a command's writes fit into their maps; if `no_growth`, so
    /// that those become no larger than they are.
    ///
    /// # Errors
    /// `MapFull` when they do not fit, or nothing may go.
    pub(super) fn make_room(
        &mut self,
        limited: &[MapDescriptor],
        writes: &[RowWrite],
        no_growth: bool,
    ) -> Result<Vec<Bytes>> {
        let mut victims = Vec::new();
        for map in limited {
            if self.limited(map) {
                self.make_room_in(map, writes, no_growth, &mut victims).inspect_err(|_| count(&self.stats.map_full))?;
            }
        }
        Ok(victims)
    }

    fn make_room_in(
        &mut self,
        map: &MapDescriptor,
        writes: &[RowWrite],
        no_growth: bool,
        victims: &mut Vec<Bytes>,
    ) -> Result<()> {
        // A row that is written twice counts as it is in the end.
        let last: BTreeMap<&Bytes, Option<usize>> = writes
            .iter()
            .filter(|write| rows::map_of(&write.row) == Some(map.id))
            .map(|write| (&write.row, write.value().map(Bytes::len)))
            .collect();
        let Some(limited) = self.limits.get(&map.id) else { return Ok(()) };
        let (before, mut share) = (limited.size, limited.share);
        if no_growth {
            share = Share { entries: share.entries.min(before.entries), bytes: share.bytes.min(before.bytes) };
        }
        let mut after = before;
        for (row, len) in &last {
            after = after.with(row.len(), self.view.row_len(row), *len);
        }
        let grows = after.entries > before.entries || after.bytes > before.bytes;
        if !share.is_exceeded_by(after) || !grows {
            return Ok(());
        }
        let spared: BTreeSet<Bytes> = last.keys().map(|row| (*row).clone()).collect();
        while share.is_exceeded_by(after) {
            let victim = if victims.len() < MAX_VICTIMS { self.victim(map, &spared, victims) } else { None };
            let Some(victim) = victim else { return Err(full(map, share, before)) };
            after = after.with(victim.len(), self.view.row_len(&victim), None);
            victims.push(victim);
        }
        Ok(())
    }

    /// Draws one entry of a map that is to go.
    fn victim(&mut self, map: &MapDescriptor, spared: &BTreeSet<Bytes>, chosen: &[Bytes]) -> Option<Bytes> {
        let eviction = map.options.eviction;
        if eviction == Eviction::None {
            return None;
        }
        let now_ms = self.view.now_ms();
        let limited = self.limits.get_mut(&map.id)?;
        if let Some(row) = limited.uses.victim(eviction, now_ms, spared, &*self.random) {
            return Some(row);
        }
        // Entries that nobody has used since this run began.
        let chosen: BTreeSet<&Bytes> = chosen.iter().collect();
        for row in self.replica.some_rows(map.id, self.random.next_u64(), USES) {
            let is_there = self.view.row_len(&row).is_some() && !chosen.contains(&row);
            if is_there && !limited.uses.found(&row, &*self.random) {
                break;
            }
        }
        limited.uses.victim(eviction, now_ms, spared, &*self.random)
    }

    /// Deletes what makes room.
    pub(super) fn evict(&mut self, turn: &mut super::turn::Turn, victims: Vec<Bytes>) {
        for row in victims {
            self.revision += 1;
            count(&self.stats.evicted);
            self.put(turn, RowWrite::remove(row, self.revision, RemovalCause::Evicted));
        }
    }
}

/// Whether every row that is written belongs to a map that evicts.
pub(super) fn all_evict(limited: &[MapDescriptor], writes: &[RowWrite]) -> bool {
    let evicts = |id| limited.iter().any(|map| map.id == id && map.options.eviction != Eviction::None);
    writes.iter().all(|write| rows::map_of(&write.row).is_some_and(evicts))
}

fn full(map: &MapDescriptor, share: Share, present: MapSize) -> Error {
    let limit = |name: &str, limit: u64, share: u64, present: u64| {
        (limit != 0).then(|| format!("{present} of at most {share} {name} (the map's limit is {limit})"))
    };
    let options = &map.options;
    let limits = [
        limit("entries", options.max_entries, share.entries, present.entries),
        limit("bytes", options.max_bytes, share.bytes, present.bytes),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    let what = format!("the write does not fit: this partition's share of the map holds {}", limits.join(" and "));
    Error::new(Code::MapFull, what).at(format!("map {:?}", map.name))
}
