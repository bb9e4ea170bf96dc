//! Starts the replicas that the placement gives this node, several side by side, and gives up those
//! that it names no more. In: the grid's facts, as they change. Out: running replicas, and new ids
//! for damaged ones. It never decides where a replica belongs.

use super::grid_node::Node;
use crate::clock;
use crate::error::Code;
use crate::meta::MetaView;
use crate::types::{GroupId, ReplicaId};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;

/// A start under way; given up with whoever waits for it.
struct Start(clock::JoinHandle<()>);

impl Drop for Start {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Start {
    async fn wait(mut self, group: GroupId, replica: ReplicaId) {
        if let Err(error) = (&mut self.0).await {
            tracing::error!(%group, replica, %error, "a replica's start ended without a result");
        }
    }
}

impl Node {
    /// Starts the replicas that the placement gives this node, as it changes.
    pub(super) async fn start_replicas(self: Arc<Self>) {
        let mut view = self.directory.watch_view();
        loop {
            let now = view.borrow_and_update().clone();
            self.start_missing(&now).await;
            let formed = self.form_for_others(&now).await;
            let retired = self.retire_replicas(&now).await && self.remove_leftovers().await;
            // What could not be started or given up is tried again before long.
            let wanted = now.held_by(self.id()).all(|(group, _)| self.hosting.get(group).is_some());
            let pause = if wanted && retired && formed { Duration::from_secs(3600) } else { Duration::from_secs(1) };
            if let Ok(Err(_)) = clock::timeout(pause, view.changed()).await {
                return;
            }
        }
    }

    /// Starts what does not run yet. Each start is a task of its own, so that they share the
    /// processors; how many there are at a time is bounded, and they begin in the groups' order.
    async fn start_missing(self: &Arc<Self>, now: &Arc<MetaView>) {
        let missing: Vec<_> =
            now.held_by(self.id()).filter(|(group, replica)| self.is_missing(*group, *replica)).collect();
        let start = |(group, replica)| {
            let (node, now) = (self.clone(), now.clone());
            let start = clock::spawn(async move { node.start_one(&now, group, replica).await });
            Start(start).wait(group, replica)
        };
        let at_once = self.hosting.changes_at_once();
        let mut starting = futures::stream::iter(missing).map(start).buffer_unordered(at_once);
        while starting.next().await.is_some() {}
    }

    /// Forms the partitions held here whose first replica has not: its peer may have lost its disk, and nobody
    /// else would ever do it. A group may be initialized at several places with the same members (openraft,
    /// on forming a cluster). Whether all are formed.
    async fn form_for_others(&self, now: &MetaView) -> bool {
        let mut all = true;
        for (group, replica) in now.held_by(self.id()).filter(|(group, _)| *group != GroupId::META) {
            // Only the first placement of all: a replica that was replaced forms nothing.
            let Some(placed) = now.placement_of(group).filter(|row| !row.formed && row.version == 1) else { continue };
            all = false;
            let waits = placed.replicas.first().is_some_and(|(_, node)| self.directory.is_alive(*node));
            let Some(hosted) = self.hosting.get(group).filter(|hosted| !waits && hosted.group.replica() == replica)
            else {
                continue;
            };
            if let Err(error) = hosted.group.initialize(placed.replicas.iter().copied().collect()).await {
                tracing::error!(%group, %error, "a partition could not be formed in the place of another peer");
            }
        }
        all
    }

    fn is_missing(&self, group: GroupId, replica: ReplicaId) -> bool {
        let running = self.hosting.get(group).map(|hosted| hosted.group.replica());
        running != Some(replica) && !self.recovery.damaged.contains(&(group, replica))
    }

    async fn start_one(&self, now: &MetaView, group: GroupId, replica: ReplicaId) {
        match self.hosting.ensure(group, replica).await {
            Ok(hosted) => {
                let placed = now.placement_of(group);
                let first = placed.and_then(|row| row.replicas.first()).map(|(id, _)| *id);
                // Only the first placement of all: a replica that was replaced forms nothing.
                let is_first = placed.is_some_and(|row| !row.formed && row.version == 1);
                if group != GroupId::META && first == Some(replica) && is_first {
                    let members = now.replicas(group).iter().copied().collect();
                    if let Err(error) = hosted.group.initialize(members).await {
                        tracing::error!(%group, %error, "a partition could not be formed");
                    }
                }
            }
            Err(error) if matches!(error.code, Code::CorruptLog | Code::CorruptRow) => {
                tracing::warn!(%group, replica, %error, "a replica is damaged; it is replaced under a new id");
                self.replace(group, replica, &error).await;
            }
            Err(error) if error.code == Code::ShuttingDown => tracing::debug!(%group, replica, %error, "not started"),
            Err(error) => tracing::error!(%group, replica, %error, "a replica could not be started"),
        }
    }

    /// Removes what is left of replicas that were given up. Whether all is gone.
    async fn remove_leftovers(&self) -> bool {
        let removed = self.hosting.remove_leftovers().await;
        if let Err(error) = &removed {
            tracing::warn!(%error, "what is left of replicas that were given up could not be removed");
        }
        removed.is_ok()
    }

    /// Gives up the replicas that the placement names no more: their groups have gone on without
    /// them. Whether all are gone.
    async fn retire_replicas(&self, now: &MetaView) -> bool {
        let mut done = true;
        for (group, replica) in self.log.replicas() {
            if group == GroupId::META || !now.is_given_up(group, replica) {
                continue;
            }
            match self.hosting.retire(group, replica).await {
                Ok(()) => tracing::info!(%group, replica, "a replica has moved away; its data here is removed"),
                Err(error) => {
                    tracing::warn!(%group, replica, %error, "a replica that has moved away could not be removed");
                    done = false;
                }
            }
        }
        done
    }
}
