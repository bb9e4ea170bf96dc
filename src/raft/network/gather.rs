//! Lets news of a commit travel with entries. In: openraft's appends to one follower, in order.
//! Out: the same, but an append without entries waits a moment for one that has some and is then
//! left out: the later one carries the newer commit. Nothing with entries is ever held back.
//!
//! The commit has been answered at the leader by then; only a follower's applied rows, which local
//! reads see, come as much later.

use crate::clock;
use crate::raft::types::TypeConfig;
use futures::{Stream, StreamExt, stream};
use openraft::raft::AppendEntriesRequest;
use std::time::Duration;

type Append = AppendEntriesRequest<TypeConfig>;

struct Gathering<S> {
    appends: S,
    ended: bool,
    patience: Duration,
}

impl<S: Stream<Item = Append> + Unpin> Gathering<S> {
    async fn take(&mut self) -> Option<Append> {
        if self.ended {
            return None;
        }
        let taken = self.appends.next().await;
        self.ended = taken.is_none();
        taken
    }

    async fn next(mut self) -> Option<(Append, Self)> {
        let mut next = self.take().await?;
        if next.entries.is_empty() && !self.patience.is_zero() {
            let until = clock::Instant::now() + self.patience;
            while next.entries.is_empty()
                && let Ok(Some(later)) = clock::timeout_at(until, self.take()).await
            {
                next = later;
            }
        }
        Some((next, self))
    }
}

/// The appends with news of commits gathered for so long.
pub(super) fn gathered<S>(appends: S, patience: Duration) -> impl Stream<Item = Append> + Unpin + Send
where
    S: Stream<Item = Append> + Unpin + Send,
{
    Box::pin(stream::unfold(Gathering { appends, ended: false, patience }, Gathering::next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::rpc_codec::log_id;
    use crate::raft::types::{Entry, EntryPayload, LeaderId, Vote};
    use crate::clock::Instant;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    fn append(commit: u64, entry: Option<u64>) -> Append {
        AppendEntriesRequest {
            vote: Vote { leader_id: LeaderId { term: 1, voted_for: 1 }, committed: true },
            prev_log_id: None,
            leader_commit: Some(log_id(1, commit)),
            entries: entry.map(|at| Entry { log_id: log_id(1, at), payload: EntryPayload::Blank }).into_iter().collect(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_waits_for_entries_but_entries_wait_for_nothing() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let patience = Duration::from_millis(5);
        let mut gathered = gathered(UnboundedReceiverStream::new(receiver), patience);
        let start = Instant::now();
        for one in [append(1, Some(2)), append(2, None), append(3, None), append(3, Some(4))] {
            sender.send(one).expect("listens");
        }
        let first = gathered.next().await.expect("one");
        assert_eq!((first.leader_commit, first.entries.len()), (Some(log_id(1, 1)), 1));
        let second = gathered.next().await.expect("two");
        assert_eq!((second.leader_commit, second.entries.len()), (Some(log_id(1, 3)), 1), "the commits came along");
        assert_eq!(start.elapsed(), Duration::ZERO);

        sender.send(append(4, None)).expect("listens");
        let third = gathered.next().await.expect("three");
        assert_eq!((third.leader_commit, start.elapsed()), (Some(log_id(1, 4)), patience), "it waits no longer");

        sender.send(append(5, None)).expect("listens");
        drop(sender);
        assert!(gathered.next().await.is_some(), "the last commit is told although nothing follows");
        assert_eq!(start.elapsed(), patience);
        assert!(gathered.next().await.is_none());
    }
}
