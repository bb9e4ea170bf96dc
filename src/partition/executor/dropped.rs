//! Maps that were dropped: the partition refuses to touch them, and deletes what is left of them
//! piece by piece.
//!
//! A peer may not have heard of the drop, so that the local copy of the grid's facts cannot be what
//! decides: the mark is a row of the partition, and every command after it sees it.

use super::super::entry::{RemovalCause, RowWrite};
use super::super::rows;
use super::run::Run;
use crate::error::{Code, Error, Result};
use crate::types::{Cursor, MapDescriptor, MapId, ReplyBody, SLOTS, Slot};
use std::collections::BTreeSet;

/// The maps that a replica's rows mark as dropped.
///
/// # Errors
/// When a mark cannot be read.
pub(super) fn rebuild(replica: &super::ReplicaState) -> Result<BTreeSet<MapId>> {
    let marks = replica.scan(&rows::dropped_prefix(), None, usize::MAX)?;
    Ok(marks.into_iter().filter_map(|(row, _)| rows::parse_dropped_row(&row)).collect())
}

impl Run {
    /// Whether commands may touch a map.
    ///
    /// # Errors
    /// `NoSuchMap`.
    pub(super) fn check_not_dropped(&self, map: &MapDescriptor) -> Result<()> {
        if self.dropped.contains(&map.id) {
            return Err(Error::new(Code::NoSuchMap, format!("map {:?} has been dropped", map.name)));
        }
        Ok(())
    }

    /// Marks a map as dropped and deletes some of its entries. The answer says whether there may be
    /// more.
    pub(super) fn forget(&mut self, map: MapId, limit: u32) -> (Result<ReplyBody>, Vec<RowWrite>) {
        if map == MapId(0) {
            return (Err(Error::new(Code::InvalidRequest, "the grid's own map cannot be dropped")), Vec::new());
        }
        let (mut entries, mut more) = (Vec::new(), false);
        let limit = limit.max(1) as usize;
        let walked = self.view.walk(map, (Slot(0), None), Slot(SLOTS - 1), b"", &mut |found| {
            more = entries.len() >= limit;
            if !more {
                entries.push(found.row);
            }
            !more
        });
        if let Err(error) = walked {
            return (Err(error), Vec::new());
        }
        let next = if more { Cursor::at_slot(map, 0) } else { None };
        let body = ReplyBody::Cleared { deleted: entries.len() as u64, next };
        self.revision += u64::from(!entries.is_empty());
        let remove = |row| RowWrite::remove(row, self.revision, RemovalCause::Deleted);
        let mut writes: Vec<RowWrite> = entries.into_iter().map(remove).collect();
        if self.dropped.insert(map) {
            writes.push(RowWrite::put(rows::dropped_row(map), rows::encode_number(self.time.0)));
        }
        (Ok(body), writes)
    }
}
