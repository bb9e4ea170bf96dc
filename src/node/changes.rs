//! Starts and stops of replicas: one of a group at a time, of all groups a bounded number. In: who
//! wants to begin. Out: leave to, for as long as it is held. It starts and stops nothing itself.

use crate::error::{Code, Error, Result};
use crate::types::GroupId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit};

/// No settings allow more at a time.
const MOST: usize = 1024;

/// Starts and stops of replicas.
pub(super) struct Changes {
    at_once: usize,
    /// So many entries as there ever were groups here.
    groups: Mutex<BTreeMap<GroupId, Arc<tokio::sync::Mutex<()>>>>,
    places: Semaphore,
}

/// Held while a group is started or stopped.
pub(super) struct Change<'a> {
    _group: OwnedMutexGuard<()>,
    _place: SemaphorePermit<'a>,
}

impl Changes {
    /// At most so many at a time; one at least.
    pub(super) fn new(at_once: usize) -> Self {
        let at_once = at_once.clamp(1, MOST);
        Changes { at_once, groups: Mutex::default(), places: Semaphore::new(at_once) }
    }

    /// How many there may be at a time.
    pub(super) fn at_once(&self) -> usize {
        self.at_once
    }

    /// Waits for the group's other changes, then for a place.
    ///
    /// # Errors
    /// `ShuttingDown` after [`Changes::end`].
    pub(super) async fn begin(&self, group: GroupId) -> Result<Change<'_>> {
        let one = self.groups.lock().unwrap_or_else(PoisonError::into_inner).entry(group).or_default().clone();
        let one = one.lock_owned().await;
        let ended = |_| Error::new(Code::ShuttingDown, "the peer stops");
        Ok(Change { _group: one, _place: self.places.acquire().await.map_err(ended)? })
    }

    /// Waits for those under way, and lets no other begin.
    pub(super) async fn end(&self) {
        // An error says that this was called before: then none is under way.
        let all = self.places.acquire_many(self.at_once as u32).await;
        self.places.close();
        drop(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn as_many_groups_as_there_are_places_change_at_a_time_and_each_once() {
        let changes = Changes::new(2);
        let one = changes.begin(GroupId(1)).now_or_never().expect("free").expect("not ended");
        let mut again = Box::pin(changes.begin(GroupId(1)));
        assert!(again.as_mut().now_or_never().is_none(), "the group changes already");
        let two = changes.begin(GroupId(2)).now_or_never().expect("who waits for a group takes no place");
        assert!(changes.begin(GroupId(3)).now_or_never().is_none(), "there is no third place");
        drop(one);
        let one = again.await.expect("not ended");
        drop(two);
        let three = changes.begin(GroupId(3)).now_or_never().expect("free");
        drop((one, three));
    }

    #[tokio::test]
    async fn the_end_waits_for_what_is_under_way_and_is_final() {
        let changes = Changes::new(2);
        let one = changes.begin(GroupId(1)).await.expect("free");
        let mut end = Box::pin(changes.end());
        assert!(end.as_mut().now_or_never().is_none(), "one is under way");
        drop(one);
        end.await;
        assert_eq!(changes.begin(GroupId(1)).await.err().map(|error| error.code), Some(Code::ShuttingDown));
        changes.end().await;
    }
}
