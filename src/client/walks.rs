//! Whole maps: scans page by page, sizes, clearing, dropping.

use super::ops::unexpected;
use super::{CallOptions, Client, Page, Size};
use crate::api::wire;
use crate::error::{Code, Error, Result};
use crate::types::{Cursor, MapDescriptor, Op, ReadLevel, ReplyBody, SLOTS, Slot, StoredValue};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use grid_proto::keystead::v1;
use std::collections::VecDeque;

const LAST: Slot = Slot(SLOTS - 1);
/// Partitions that are cleared at once: as many as a grid has by default, so that those that fail do
/// so in the time of one call.
const CLEARS_AT_ONCE: usize = 64;

/// What lies from a cursor on, by partition: where each part begins, and its last slot. One whole where
/// the partitions are not known.
fn ranges(from: &Cursor, boundaries: &[u16]) -> Vec<(Cursor, Slot)> {
    let behind = boundaries.iter().copied().filter(|first| *first > from.slot.0);
    let mut parts = vec![(from.clone(), LAST)];
    for first in behind {
        let Some(begin) = Cursor::at_slot(from.map, first) else { continue };
        if let Some((_, last)) = parts.last_mut() {
            *last = Slot(first - 1);
        }
        parts.push((begin, LAST));
    }
    parts
}

impl Client {
    /// Reads a page of a map's entries whose keys start with `prefix`: at most `limit` (0 is the
    /// peer's default), from where the last page ended. A page may be short, even empty, and not be
    /// the last: `next` says.
    ///
    /// # Errors
    /// As [`Client::execute`]; `InvalidRequest` when the cursor is of another map.
    pub async fn scan_page(
        &self,
        map: &str,
        prefix: impl AsRef<[u8]>,
        from: Option<Cursor>,
        limit: u32,
        read: ReadLevel,
    ) -> Result<Page> {
        let prefix = Bytes::copy_from_slice(prefix.as_ref());
        let op = Op::Scan { map: map.to_owned(), prefix, from, until: LAST, limit, max_bytes: u32::MAX };
        let reply = self.execute(op, CallOptions { read, ..CallOptions::default() }).await?;
        match reply.body {
            ReplyBody::Page { entries, next } => Ok(Page { entries, next, served: reply.served }),
            _ => Err(unexpected(&reply)),
        }
    }

    /// All entries of a map whose keys start with `prefix`, by partition, slot and key, fetched page
    /// by page. Each page is linearizable; the whole is not one snapshot. Goes on through failovers;
    /// ends with the first error.
    pub fn scan(&self, map: &str, prefix: impl AsRef<[u8]>) -> BoxStream<'static, Result<(Bytes, StoredValue)>> {
        struct Walk {
            client: Client,
            map: String,
            prefix: Bytes,
            page: VecDeque<(Bytes, StoredValue)>,
            /// `None` behind the last page.
            next: Option<Option<Cursor>>,
        }
        let prefix = Bytes::copy_from_slice(prefix.as_ref());
        let walk = Walk { client: self.clone(), map: map.to_owned(), prefix, page: VecDeque::new(), next: Some(None) };
        stream::try_unfold(walk, |mut walk| async move {
            loop {
                if let Some(entry) = walk.page.pop_front() {
                    return Ok(Some((entry, walk)));
                }
                let Some(from) = walk.next.take() else { return Ok(None) };
                let page = walk.client.scan_page(&walk.map, &walk.prefix, from, 0, ReadLevel::Linearizable).await?;
                walk.page = page.entries.into();
                walk.next = page.next.map(Some);
            }
        })
        .boxed()
    }

    /// Counts a map's entries: exact in each partition, at a moment of its own.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn size(&self, map: &str) -> Result<Size> {
        let reply = self.execute(Op::Size { map: map.to_owned(), slot: None }, CallOptions::default()).await?;
        match reply.body {
            ReplyBody::Size { entries, bytes } => Ok(Size { entries, bytes }),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Deletes all entries of a map, a bounded piece at a time, in several partitions side by side; says
    /// how many. What is written meanwhile may stay. A partition that fails does not keep others from
    /// being emptied; its error is given then. After that it can be called again: what is gone stays gone.
    ///
    /// # Errors
    /// As [`Client::execute`]; the first partition's that failed.
    pub async fn clear(&self, map: &str) -> Result<u64> {
        let known = self.maps().await?.into_iter().find(|known| known.name == map);
        match known.and_then(|known| Cursor::at_slot(known.id, 0)) {
            None => self.clear_from(map, None).await,
            Some(begin) => match self.clear_from(map, Some(begin)).await {
                // It was of a map that is no more: another has its name, unheard of where the maps were asked for.
                Err(error) if error.code == Code::InvalidRequest => self.clear_from(map, None).await,
                outcome => outcome,
            },
        }
    }

    /// Empties what lies behind a cursor. Without one the grid's first answer says which map it is.
    async fn clear_from(&self, map: &str, begin: Option<Cursor>) -> Result<u64> {
        let (first, next) = match begin {
            Some(begin) => (0, Some(begin)),
            None => self.clear_piece(map, None).await?,
        };
        let parts = next.map_or_else(Vec::new, |next| ranges(&next, &self.boundaries()));
        let parts: Vec<_> = parts.into_iter().map(|(from, last)| self.clear_range(map, from, last)).collect();
        let ended: Vec<(u64, Result<()>)> = stream::iter(parts).buffered(CLEARS_AT_ONCE).collect().await;
        let all = first + ended.iter().map(|(deleted, _)| deleted).sum::<u64>();
        match ended.into_iter().find_map(|(_, outcome)| outcome.err()) {
            None => Ok(all),
            Some(mut error) => {
                error.what = format!("{}; {all} entries were deleted, others stay", error.what);
                Err(error)
            }
        }
    }

    /// Empties a range of slots; says how far it came, too, when it fails.
    async fn clear_range(&self, map: &str, from: Cursor, last: Slot) -> (u64, Result<()>) {
        let (mut all, mut next) = (0, Some(from));
        while let Some(from) = next.take().filter(|from| from.slot <= last) {
            match self.clear_piece(map, Some(from)).await {
                Ok((deleted, rest)) => (all, next) = (all + deleted, rest),
                Err(error) => return (all, Err(error)),
            }
        }
        (all, Ok(()))
    }

    /// Deletes a bounded number of entries in one partition; how many, and where to go on.
    async fn clear_piece(&self, map: &str, from: Option<Cursor>) -> Result<(u64, Option<Cursor>)> {
        let op = Op::Clear { map: map.to_owned(), from, until: LAST, limit: 0 };
        let reply = self.execute(op, CallOptions::default()).await?;
        match reply.body {
            ReplyBody::Cleared { deleted, next } => Ok((deleted, next)),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Drops a map: nothing is written to it any more, its entries are deleted in the background,
    /// and a later map of the same name is another one. Gives what it was, and the number of
    /// partitions that have not confirmed it yet.
    ///
    /// # Errors
    /// `NoSuchMap`; what else the grid answers.
    pub async fn drop_map(&self, name: &str) -> Result<(MapDescriptor, u32)> {
        // By its id from here on: an attempt that comes late must not drop a map that was made anew.
        let fresh = self.ask(|mut client| async move { client.maps(v1::MapsRequest { fresh: true }).await }).await?;
        let known = fresh.maps.into_iter().find(|map| map.name == name);
        let missing = || Error::new(Code::NoSuchMap, format!("there is no map {name:?}"));
        let request = v1::DropMapRequest { name: name.to_owned(), id: Some(known.ok_or_else(missing)?.id) };
        let reply = self
            .ask(|mut client| {
                let request = request.clone();
                async move { client.drop_map(request).await }
            })
            .await?;
        let map = reply.map.ok_or_else(|| Error::internal("a reply without the map"))?;
        Ok((wire::map_from_wire(map)?, reply.pending_partitions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::MapId;

    #[test]
    fn the_rest_of_a_map_is_cut_at_partitions_and_nothing_is_left_out() {
        let whole = |boundaries: &[u16], from: Cursor| -> Vec<(u16, Option<Bytes>, u16)> {
            let parts = ranges(&from, boundaries).into_iter();
            parts.map(|(from, last)| (from.slot.0, from.after, last.0)).collect()
        };
        let key = Some(Bytes::from_static(b"k"));
        let inside = Cursor { map: MapId(7), slot: Slot(120), after: key.clone() };
        let bounds = [0, 100, 200, 300];
        assert_eq!(whole(&bounds, inside.clone()), [(120, key.clone(), 199), (200, None, 299), (300, None, 16_383)]);
        let begin = |slot| Cursor::at_slot(MapId(7), slot).expect("a slot");
        assert_eq!(whole(&bounds, begin(200)), [(200, None, 299), (300, None, 16_383)]);
        assert_eq!(whole(&bounds, begin(300)), [(300, None, 16_383)]);
        assert_eq!(whole(&[], inside), [(120, key, 16_383)]);
    }
}
