//! Operations on all entries of a map in one partition: pages, counts, deletion in bounded pieces.
//! Pure. Entries come by slot and key; a cursor says where the next piece begins.

use super::super::walk::Found;
use super::{Done, Scope};
use crate::error::{Code, Error, Result};
use crate::types::{Cursor, ReplyBody, Slot};
use bytes::Bytes;

/// Bytes of row keys at which a piece of a deletion is full: all of it becomes one log entry.
const CLEAR_BYTES: usize = 256 << 10;

/// What a page may hold.
pub(super) struct Bounds {
    /// Entries.
    pub(super) limit: u32,
    /// Bytes of keys and values; the first entry always fits.
    pub(super) bytes: u32,
}

/// Where a walk begins: checked to be of this very map.
fn start<'a>(scope: &Scope<'_>, from: Option<&'a Cursor>) -> Result<(Slot, Option<&'a Bytes>)> {
    match from {
        None => Ok((Slot(0), None)),
        Some(cursor) if cursor.map == scope.map.id => Ok((cursor.slot, cursor.after.as_ref())),
        Some(_) => {
            let what = "the page token is of another map, or of one that was dropped";
            let error = Error::new(Code::InvalidRequest, what).at(format!("map {:?}", scope.map.name));
            Err(error.remedy("begin the scan anew, without a token"))
        }
    }
}

/// Where the next piece begins: behind the last entry taken if there is more, else behind `until`.
fn next(scope: &Scope<'_>, full: bool, last: Option<(Slot, Bytes)>, until: Slot) -> Option<Cursor> {
    match last {
        Some((slot, key)) if full => Some(Cursor { map: scope.map.id, slot, after: Some(key) }),
        _ => Cursor::at_slot(scope.map.id, until.0.saturating_add(1)),
    }
}

/// The rows of a page, by their lengths alone, and where the next page begins.
pub(super) fn page(
    scope: &Scope<'_>,
    prefix: &[u8],
    from: Option<&Cursor>,
    until: Slot,
    bounds: Bounds,
) -> Result<(Vec<Found>, Option<Cursor>)> {
    let (mut rows, mut bytes, mut full) = (Vec::<Found>::new(), 0, false);
    scope.view.walk(scope.map.id, start(scope, from)?, until, prefix, &mut |found| {
        let size = found.key.len() + found.len;
        full = !rows.is_empty() && (rows.len() >= bounds.limit as usize || bytes + size > bounds.bytes as usize);
        if !full {
            bytes += size;
            rows.push(found);
        }
        !full
    })?;
    let last = rows.last().map(|found| (found.slot, found.key.clone()));
    let next = next(scope, full, last, until);
    Ok((rows, next))
}

pub(super) fn scan(
    scope: &Scope<'_>,
    prefix: &[u8],
    from: Option<&Cursor>,
    until: Slot,
    bounds: Bounds,
) -> Result<Done> {
    let (rows, next) = page(scope, prefix, from, until, bounds)?;
    let mut entries = Vec::with_capacity(rows.len());
    for found in rows {
        if let Some(stored) = scope.view.stored(&found.row)? {
            entries.push((found.key, stored));
        }
    }
    Done::read(ReplyBody::Page { entries, next })
}

pub(super) fn size(scope: &Scope<'_>) -> Result<Done> {
    let size = scope.view.live_size(scope.map.id);
    Done::read(ReplyBody::Size { entries: size.entries, bytes: size.bytes })
}

pub(super) fn clear(scope: &mut Scope<'_>, from: Option<&Cursor>, until: Slot, limit: u32) -> Result<Done> {
    let (mut rows, mut bytes, mut last, mut full) = (Vec::new(), 0, None, false);
    let begin = start(scope, from)?;
    scope.view.walk(scope.map.id, begin, until, b"", &mut |found| {
        full = !rows.is_empty() && (rows.len() >= limit as usize || bytes >= CLEAR_BYTES);
        if !full {
            bytes += found.row.len();
            last = Some((found.slot, found.key));
            rows.push(found.row);
        }
        !full
    })?;
    let body = ReplyBody::Cleared { deleted: rows.len() as u64, next: next(scope, full, last, until) };
    if rows.is_empty() {
        return Done::read(body);
    }
    scope.next_revision();
    Ok(Done { body, writes: rows.into_iter().map(|row| scope.remove(row)).collect() })
}
