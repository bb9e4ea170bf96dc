//! Operations on many entries: split by partition, executed at once, merged in order.

use super::ops::unexpected;
use super::{CallOptions, Client, Written};
use crate::error::{Error, Result};
use crate::types::{Op, ReplyBody, Slot, StoredValue, Value, affinity_of, slot_of};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Most entries of one request.
const MOST_ENTRIES: usize = 1024;
/// Bytes of values at which a request is full; all of it becomes one log entry.
const MOST_BYTES: usize = 512 << 10;

/// Positions that go together in one request.
type Group = Vec<usize>;

/// Groups positions by partition and bounds each group. Positions of one slot stay together, in
/// order, whatever their size: a request for one slot is atomic and not for the client to cut.
fn groups(slots: &[Slot], sizes: &[usize], boundaries: &[u16]) -> Vec<Group> {
    // While no partition is known, each slot is taken for one of its own.
    let partition = |slot: Slot| match boundaries {
        [] => usize::from(slot.0),
        known => known.partition_point(|first| *first <= slot.0),
    };
    let mut by_slot: BTreeMap<(usize, Slot), Group> = BTreeMap::new();
    for (at, slot) in slots.iter().enumerate() {
        by_slot.entry((partition(*slot), *slot)).or_default().push(at);
    }
    let mut all: Vec<(usize, usize, Group)> = Vec::new();
    for ((partition, _), group) in by_slot {
        let bytes: usize = group.iter().map(|at| sizes[*at]).sum();
        match all.last_mut() {
            Some((of, so_far, last))
                if *of == partition && last.len() + group.len() <= MOST_ENTRIES && *so_far + bytes <= MOST_BYTES =>
            {
                *so_far += bytes;
                last.extend(group);
            }
            _ => all.push((partition, bytes, group)),
        }
    }
    all.into_iter().map(|(_, _, group)| group).collect()
}

fn slots_of_keys<'a>(keys: impl Iterator<Item = &'a Bytes>) -> Vec<Slot> {
    keys.map(|key| slot_of(affinity_of(key))).collect()
}

impl Client {
    /// The partitions' first slots, ascending, as far as known.
    pub(super) fn boundaries(&self) -> Vec<u16> {
        self.shared.sight.read().map(|sight| sight.boundaries.clone()).unwrap_or_default()
    }

    /// Reads entries, linearizably each; one request per partition, answers in the keys' order.
    ///
    /// # Errors
    /// The first partition's that failed.
    pub async fn get_many<K: AsRef<[u8]>>(&self, map: &str, keys: &[K]) -> Result<Vec<Option<StoredValue>>> {
        let keys: Vec<Bytes> = keys.iter().map(|key| Bytes::copy_from_slice(key.as_ref())).collect();
        let groups = groups(&slots_of_keys(keys.iter()), &vec![0; keys.len()], &self.boundaries());
        let requests = groups.iter().map(|group| {
            let keys = group.iter().map(|at| keys[*at].clone()).collect();
            self.execute(Op::GetMany { map: map.to_owned(), keys }, CallOptions::default())
        });
        let replies = futures::future::join_all(requests).await;
        let mut merged = vec![None; keys.len()];
        for (group, reply) in groups.iter().zip(replies) {
            let reply = reply?;
            let ReplyBody::Entries(entries) = reply.body else { return Err(unexpected(&reply)) };
            if entries.len() != group.len() {
                return Err(Error::internal("a reply with fewer entries than keys"));
            }
            for (at, entry) in group.iter().zip(entries) {
                merged[*at] = entry;
            }
        }
        Ok(merged)
    }

    /// Writes entries; one request per partition (several if there are very many). Atomic only
    /// when all keys share a slot; otherwise some may be written although an error is returned.
    /// The result has one element per entry, in order. Entries live as long as their map says.
    ///
    /// # Errors
    /// The first partition's that failed.
    pub async fn put_many<K: AsRef<[u8]>>(
        &self,
        map: &str,
        entries: impl IntoIterator<Item = (K, Value)>,
    ) -> Result<Vec<Written>> {
        let entries: Vec<(Bytes, Value)> =
            entries.into_iter().map(|(key, value)| (Bytes::copy_from_slice(key.as_ref()), value)).collect();
        let sizes: Vec<usize> = entries.iter().map(|(key, value)| key.len() + value.data.len()).collect();
        let slots = slots_of_keys(entries.iter().map(|(key, _)| key));
        let groups = groups(&slots, &sizes, &self.boundaries());
        let codec = entries.first().map(|(_, value)| value.codec);
        let requests = groups.iter().map(|group| {
            let entries = group.iter().map(|at| entries[*at].clone()).collect();
            self.write(Op::PutMany { map: map.to_owned(), entries }, codec)
        });
        let replies = futures::future::join_all(requests).await;
        let mut merged: Vec<Option<Written>> = vec![None; entries.len()];
        for (group, reply) in groups.iter().zip(replies) {
            let reply = reply?;
            let ReplyBody::Written { revision, .. } = reply.body else { return Err(unexpected(&reply)) };
            for at in group {
                merged[*at] = Some(Written { revision, served: reply.served.clone() });
            }
        }
        Ok(merged.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_position_is_in_one_group_of_one_partition(
            slots in proptest::collection::vec(0u16..16384, 0..200),
            boundaries in proptest::collection::btree_set(1u16..16384, 0..20),
        ) {
            let slots: Vec<Slot> = slots.into_iter().map(Slot).collect();
            let boundaries: Vec<u16> = std::iter::once(0).chain(boundaries).collect();
            let groups = groups(&slots, &vec![1; slots.len()], &boundaries);
            let mut seen: Vec<usize> = groups.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..slots.len()).collect::<Vec<_>>());
            for group in &groups {
                let partitions: std::collections::BTreeSet<usize> = group
                    .iter()
                    .map(|at| boundaries.partition_point(|first| *first <= slots[*at].0))
                    .collect();
                prop_assert_eq!(partitions.len(), 1);
            }
        }
    }

    #[test]
    fn large_groups_are_cut_but_never_within_a_slot() {
        let slots: Vec<Slot> = (0..3000u16).map(|at| Slot(at / 1500)).collect();
        let groups = groups(&slots, &vec![1; 3000], &[0]);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [1500, 1500]);
    }
}
