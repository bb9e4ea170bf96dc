//! Before a turn: the values that its commands will read are brought into RAM on a thread that may
//! wait, so that the executor's own thread need not. What is not foreseen here is loaded when it
//! is read: right in any case, only slower.

use super::super::cold::Pinned;
use super::super::{operations, rows};
use super::Job;
use super::run::{Ended, Run};
use crate::types::Op;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::VecDeque;

impl Run {
    /// Loads what the commands of a turn will read. Gives the pins that keep it in RAM, and the
    /// commands at the end for which one load has no room.
    pub(super) async fn prefetch(
        &mut self,
        jobs: &mut VecDeque<Job>,
    ) -> std::result::Result<(Option<Pinned>, VecDeque<Job>), Ended> {
        if !self.replica.has_cold() {
            return Ok((None, VecDeque::new()));
        }
        let (cold, commands) = self.cold_rows(jobs);
        let later = jobs.split_off(commands);
        if cold.is_empty() {
            return Ok((None, later));
        }
        let replica = self.replica.clone();
        let mut loading = Box::pin(async move { replica.warm(cold).await });
        let mut failed = false;
        let loaded = loop {
            tokio::select! {
                biased;
                loaded = &mut loading => break loaded,
                Some(verdict) = self.verdicts.next(), if !failed && !self.verdicts.is_empty() => {
                    failed = !self.settle(verdict);
                }
            }
        };
        if failed {
            self.unexecuted.extend(std::mem::take(jobs).into_iter().chain(later));
            return Err(Ended::ProposalFailed);
        }
        let pinned = loaded.unwrap_or_else(|error| {
            // The command that reads the row meets the error again, and answers with it.
            tracing::error!(%error, "a value that is not in RAM cannot be read");
            None
        });
        Ok((pinned, later))
    }

    /// The cold rows that the first so many commands read, as many as one load may have; the first
    /// command's in any case.
    fn cold_rows(&self, jobs: &VecDeque<Job>) -> (Vec<Bytes>, usize) {
        let (mut cold, mut bytes) = (Vec::new(), 0);
        for (number, job) in jobs.iter().enumerate() {
            let rows = match (&job.map, &job.request.op) {
                (Some(map), _) => operations::rows_read(&self.view, map, &job.request),
                (None, Op::Job { id, .. }) => vec![rows::job_row(*id)],
                (None, _) => continue,
            };
            for row in rows {
                if self.view.pending_number(&row).is_none()
                    && let Some(len) = self.replica.cold_len(&row)
                {
                    bytes += len;
                    cold.push(row);
                }
            }
            if bytes > self.replica.memory().load_bytes() {
                return (cold, number + 1);
            }
        }
        (cold, jobs.len())
    }
}
