//! User code on partitions, as the grid in memory has it.

use super::testing::FakePeer;
use crate::error::{Code, Error, Result};
use crate::node::{Broadcast, CancelReport, ComputeService, PartitionAnswer};
use crate::types::PartitionId;
use tokio::sync::mpsc;

/// Partitions of the world.
const PARTITIONS: u32 = 2;

#[async_trait::async_trait]
impl ComputeService for FakePeer {
    /// Partition 0 answers what it was given, partition 1 fails; "wait" never answers.
    async fn broadcast(&self, request: Broadcast) -> Result<mpsc::Receiver<PartitionAnswer>> {
        let (sender, receiver) = mpsc::channel(8);
        self.broadcasts.lock().expect("lock").push(request.clone());
        crate::clock::spawn(async move {
            for id in 0..PARTITIONS {
                let outcome = match id {
                    0 => Ok(request.payload.clone()),
                    _ => Err(Error::new(Code::TaskFailed, "no: not here")),
                };
                let answer =
                    PartitionAnswer { partition: PartitionId(id), done: id + 1, of: PARTITIONS, outcome, served: None };
                drop(sender.send(answer).await);
            }
        });
        Ok(receiver)
    }

    async fn cancel(&self, id: u64) -> CancelReport {
        self.cancelled.lock().expect("lock").push(id);
        CancelReport { told: 2, unreachable: 1 }
    }
}
