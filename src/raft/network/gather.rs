//! Lets news of a commit travel with entries. In: openraft's appends to one follower, in order.
//! Out: the same, but while entries come often, an append without entries waits a while for one
//! that has some and is then left out: the later one carries the newer commit. Nothing with
//! entries is ever held back, and after a lone write nothing is.
//!
//! The commit has been answered at the leader by then; only a follower's applied rows, which local
//! reads see, come as much later.

use crate::clock::{self, Instant};
use crate::raft::types::TypeConfig;
use futures::{Stream, StreamExt, stream};
use openraft::raft::AppendEntriesRequest;
use std::time::Duration;

type Append = AppendEntriesRequest<TypeConfig>;

struct Gathering<S> {
    appends: S,
    ended: bool,
    patience: Duration,
    /// When entries were last sent.
    last: Option<Instant>,
    /// The last two appends with entries came within `patience` of each other.
    often: bool,
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
        if next.entries.is_empty() && self.often {
            let until = Instant::now() + self.patience;
            while next.entries.is_empty()
                && let Ok(Some(later)) = clock::timeout_at(until, self.take()).await
            {
                next = later;
            }
        }
        if !next.entries.is_empty() {
            let now = Instant::now();
            self.often = self.last.is_some_and(|last| now - last < self.patience);
            self.last = Some(now);
        }
        Some((next, self))
    }
}

/// The appends with news of commits gathered for so long.
pub(super) fn gathered<S>(appends: S, patience: Duration) -> impl Stream<Item = Append> + Unpin + Send
where
    S: Stream<Item = Append> + Unpin + Send,
{
    let gathering = Gathering { appends, ended: false, patience, last: None, often: false };
    Box::pin(stream::unfold(gathering, Gathering::next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::rpc_codec::log_id;
    use crate::raft::types::{Entry, EntryPayload, LeaderId, Vote};
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    fn append(commit: u64, entry: Option<u64>) -> Append {
        AppendEntriesRequest {
            vote: Vote { leader_id: LeaderId { term: 1, voted_for: 1 }, committed: true },
            prev_log_id: None,
            leader_commit: Some(log_id(1, commit)),
            entries: entry
                .map(|at| Entry { log_id: log_id(1, at), payload: EntryPayload::Blank })
                .into_iter()
                .collect(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_waits_for_entries_that_come_often_and_entries_wait_for_nothing() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let patience = Duration::from_millis(40);
        let mut gathered = gathered(UnboundedReceiverStream::new(receiver), patience);
        let start = Instant::now();
        let send = |commit, entry| sender.send(append(commit, entry)).expect("listens");
        let told = |next: Option<Append>| {
            let next = next.expect("one");
            (next.leader_commit.map_or(0, |id| id.index), next.entries.len())
        };
        send(1, Some(2));
        send(2, None);
        send(2, Some(3));
        assert_eq!(told(gathered.next().await), (1, 1));
        assert_eq!(told(gathered.next().await), (2, 0), "after a lone write it is told at once");
        assert_eq!(told(gathered.next().await), (2, 1));
        for (commit, entry) in [(3, None), (4, None), (4, Some(5)), (5, None)] {
            send(commit, entry);
        }
        assert_eq!(told(gathered.next().await), (4, 1), "the commits came along");
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!((told(gathered.next().await), start.elapsed()), ((5, 0), patience), "it waits no longer");
        send(6, None);
        drop(sender);
        assert_eq!(told(gathered.next().await), (6, 0), "the last commit is told although nothing follows");
        assert_eq!(start.elapsed(), patience);
        assert!(gathered.next().await.is_none());
    }
}
