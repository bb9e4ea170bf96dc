//! Slot ranges: partition `p` of `n` holds the slots from `p * 16384 / n` up to the next one's first.

use crate::types::{PartitionId, SLOTS, Slot};
use std::ops::RangeInclusive;

fn first_slot(partition: u64, partitions: u64) -> u64 {
    partition * u64::from(SLOTS) / partitions
}

/// The slots of a partition: contiguous, and no two partitions' sizes differ by more than one.
/// Meant for `partition < partitions <= SLOTS`; beyond that the range is empty or clamped.
pub fn slot_range(partition: PartitionId, partitions: u32) -> RangeInclusive<u16> {
    let partitions = u64::from(partitions.max(1));
    let partition = u64::from(partition.0);
    let slots = u64::from(SLOTS);
    let first = first_slot(partition, partitions).min(slots);
    let after = first_slot(partition + 1, partitions).min(slots);
    if first == after {
        // An empty range that needs no slot number below zero.
        return RangeInclusive::new(1, 0);
    }
    RangeInclusive::new(first as u16, (after - 1) as u16)
}

/// The partition that holds a slot.
pub fn partition_of(slot: Slot, partitions: u32) -> PartitionId {
    let partitions = u64::from(partitions.max(1));
    let slots = u64::from(SLOTS);
    let slot = u64::from(slot.0).min(slots - 1);
    // The last p with p * slots / partitions <= slot.
    PartitionId((((slot + 1) * partitions - 1) / slots) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_cover_every_slot_once_and_evenly(partitions in 1u32..=16384) {
            let mut next = 0u32;
            let mut sizes = (u32::MAX, 0);
            for partition in 0..partitions {
                let range = slot_range(PartitionId(partition), partitions);
                prop_assert_eq!(u32::from(*range.start()), next);
                let size = u32::from(*range.end()) + 1 - next;
                next += size;
                sizes = (sizes.0.min(size), sizes.1.max(size));
            }
            prop_assert_eq!(next, u32::from(SLOTS));
            prop_assert!(sizes.1 - sizes.0 <= 1);
        }

        #[test]
        fn a_slot_lies_in_its_partition(partitions in 1u32..=16384, slot in 0..SLOTS) {
            let partition = partition_of(Slot(slot), partitions);
            prop_assert!(partition.0 < partitions);
            prop_assert!(slot_range(partition, partitions).contains(&slot));
        }
    }

    #[test]
    fn known_ranges() {
        assert_eq!(slot_range(PartitionId(0), 1), 0..=16383);
        assert_eq!(slot_range(PartitionId(63), 64), 16128..=16383);
        assert_eq!(slot_range(PartitionId(1), 3), 5461..=10921);
        assert_eq!(partition_of(Slot(16383), 64), PartitionId(63));
        assert!(slot_range(PartitionId(64), 64).is_empty());
    }
}
