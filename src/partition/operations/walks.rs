//! Operations on all entries of a map in one partition: pages, counts, deletion in bounded pieces.
//! Pure. Entries come by slot and key; a cursor says where the next piece begins.

use super::{Done, Scope};
use crate::error::{Code, Error, Result};
use crate::types::{Cursor, ReplyBody, Slot, StoredValue};
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

pub(super) fn scan(
    scope: &Scope<'_>,
    prefix: &[u8],
    from: Option<&Cursor>,
    until: Slot,
    bounds: Bounds,
) -> Result<Done> {
    let (mut entries, mut bytes, mut last, mut full) = (Vec::new(), 0, None, false);
    scope.view.walk(scope.map.id, start(scope, from)?, until, prefix, &mut |slot, key, row| {
        let stored = StoredValue::decode(&row)?;
        let size = key.len() + stored.value.data.len();
        full = !entries.is_empty() && (entries.len() >= bounds.limit as usize || bytes + size > bounds.bytes as usize);
        if !full {
            bytes += size;
            last = Some((slot, key.clone()));
            entries.push((key, stored));
        }
        Ok(!full)
    })?;
    Done::read(ReplyBody::Page { entries, next: next(scope, full, last, until) })
}

pub(super) fn size(scope: &Scope<'_>) -> Result<Done> {
    let (mut entries, mut bytes) = (0, 0);
    scope.view.walk(scope.map.id, (Slot(0), None), Slot(u16::MAX), b"", &mut |_, key, row| {
        entries += 1;
        bytes += (key.len() + StoredValue::decode(&row)?.value.data.len()) as u64;
        Ok(true)
    })?;
    Done::read(ReplyBody::Size { entries, bytes })
}

pub(super) fn clear(scope: &mut Scope<'_>, from: Option<&Cursor>, until: Slot, limit: u32) -> Result<Done> {
    let (mut rows, mut bytes, mut last, mut full) = (Vec::new(), 0, None, false);
    let map = scope.map.id;
    scope.view.walk(map, start(scope, from)?, until, b"", &mut |slot, key, _| {
        full = !rows.is_empty() && (rows.len() >= limit as usize || bytes >= CLEAR_BYTES);
        if !full {
            bytes += key.len();
            last = Some((slot, key.clone()));
            rows.push(super::rows::map_row(slot, map, &key));
        }
        Ok(!full)
    })?;
    let body = ReplyBody::Cleared { deleted: rows.len() as u64, next: next(scope, full, last, until) };
    if rows.is_empty() {
        return Done::read(body);
    }
    scope.next_revision();
    Ok(Done { body, writes: rows.into_iter().map(|row| scope.remove(row)).collect() })
}
