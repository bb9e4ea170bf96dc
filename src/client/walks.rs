//! Whole maps: scans page by page, sizes, clearing, dropping.

use super::ops::unexpected;
use super::{CallOptions, Client, Page, Size};
use crate::api::wire;
use crate::error::{Error, Result};
use crate::types::{Cursor, MapDescriptor, Op, ReadLevel, ReplyBody, SLOTS, Slot, StoredValue};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use grid_proto::keystead::v1;
use std::collections::VecDeque;

const LAST: Slot = Slot(SLOTS - 1);

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

    /// Deletes all entries of a map, a bounded piece at a time; says how many. What is written
    /// meanwhile may stay. After an error it can be called again: what is gone stays gone.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn clear(&self, map: &str) -> Result<u64> {
        let (mut all, mut from) = (0, None);
        loop {
            let op = Op::Clear { map: map.to_owned(), from, until: LAST, limit: 0 };
            let reply = self.execute(op, CallOptions::default()).await?;
            let ReplyBody::Cleared { deleted, next } = reply.body else { return Err(unexpected(&reply)) };
            all += deleted;
            if next.is_none() {
                return Ok(all);
            }
            from = next;
        }
    }

    /// Drops a map: nothing is written to it any more, its entries are deleted in the background,
    /// and a later map of the same name is another one. Gives what it was, and the number of
    /// partitions that have not confirmed it yet.
    ///
    /// # Errors
    /// `NoSuchMap`; what else the grid answers.
    pub async fn drop_map(&self, name: &str) -> Result<(MapDescriptor, u32)> {
        let request = v1::DropMapRequest { name: name.to_owned() };
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
