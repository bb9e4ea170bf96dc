//! A node's life: it gets a grid, sets everything else going, replaces what is damaged, and keeps its
//! own member row true.

use super::drops::Drops;
use super::grid_node::Node;
use super::reconcile::Reconciler;
use crate::clock;
use crate::error::{Code, Error, Result};
use crate::meta::{self, MemberRow};
use crate::types::{GroupId, ReplicaId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often members that gossip has not found are looked for, and how many at once.
const SEEK_EVERY: Duration = Duration::from_secs(1);
const SEEK_AT_ONCE: usize = 8;

impl Node {
    /// A grid first; then everything else until the end.
    pub(super) async fn live(self: Arc<Self>) {
        if let Err(error) = self.enter_grid().await {
            return self.fail(error);
        }
        let (facts, reconciler) = (self.facts.clone(), self.reconciler());
        let (housekeeper, hosting, starter) = (self.housekeeper.clone(), self.clone(), self.clone());
        let (member, seeds) = (self.clone(), self.founding.clone());
        let housekeeping = self.clone();
        let copying = self.copying.clone();
        let (removal, seeker) = (self.clone(), self.clone());
        self.keep(clock::spawn(async move { removal.watch_removal().await }));
        self.keep(clock::spawn(async move { facts.follow().await }));
        self.keep(clock::spawn(async move { copying.work().await }));
        self.keep(clock::spawn(async move { hosting.start_replicas().await }));
        self.keep(clock::spawn(async move { reconciler.work().await }));
        self.keep(clock::spawn(async move { member.report_in().await }));
        self.keep(clock::spawn(async move { seeker.seek_members().await }));
        self.keep(clock::spawn(async move { starter.replace_damaged().await }));
        self.keep(clock::spawn(async move {
            let why = housekeeper.work().await;
            housekeeping.fail(Error::new(Code::DiskFailed, why));
        }));
        let watch = self.clock_watch.clone();
        self.keep(clock::spawn(async move { watch.work().await }));
        let drops = self.drops();
        self.keep(clock::spawn(async move { drops.work().await }));
        let status = self.status.clone();
        self.keep(clock::spawn(async move { status.follow_leaders().await }));
        let checked = self.clone();
        self.keep(clock::spawn(async move {
            let error = seeds.check_standing().await;
            checked.fail(error);
        }));
    }

    /// Drops maps, and deletes what is left of them.
    pub(super) fn drops(&self) -> Drops {
        Drops {
            directory: self.directory.clone(),
            hosting: self.hosting.clone(),
            router: self.router.clone(),
            facts: self.facts.clone(),
        }
    }

    fn reconciler(&self) -> Reconciler {
        Reconciler {
            directory: self.directory.clone(),
            hosting: self.hosting.clone(),
            facts: self.facts.clone(),
            movement: self.movement.clone(),
            changing: Default::default(),
            marked: Default::default(),
        }
    }

    /// Gets a grid and starts the meta group's replica.
    async fn enter_grid(&self) -> Result<()> {
        let record = self.founding.find_grid().await?;
        if let Some(gossip) = self.directory.gossip() {
            gossip.announce(Some(record.grid), 0).await;
        }
        let identity = self.directory.identity();
        let place = record.founders.iter().position(|founder| founder.node == identity.node);
        // The founders' replicas of the meta group are numbered in the record's order.
        let founding_replica = place.map(|place| place as u64 + 1);
        let Some(mut replica) = identity.meta_replica.or(founding_replica) else {
            return Err(Error::internal("a member that neither founded nor joined"));
        };
        let key = (GroupId::META, replica);
        let gone = self.recovery.damaged.contains(&key) || self.recovery.tombstoned.contains(&key);
        let started = match gone {
            true => Err(Error::new(Code::CorruptLog, "the log of the meta group's replica is damaged")),
            false => self.hosting.ensure(GroupId::META, replica).await,
        };
        let meta = match started {
            Err(error) if record.founders.len() == 1 && self.settings.seeds.is_empty() => {
                return Err(self.only_copy("the meta group", replica, &error));
            }
            Err(error) if matches!(error.code, Code::CorruptLog | Code::CorruptRow) => {
                tracing::warn!(replica, %error, "this peer's replica of the meta group is replaced under a new id");
                self.hosting.give_up(GroupId::META, replica).await?;
                self.founding.replace_meta_replica(replica).await?;
                let new = self.directory.identity().meta_replica;
                replica = new.ok_or_else(|| Error::internal("a replacement without an id"))?;
                self.hosting.ensure(GroupId::META, replica).await?
            }
            started => started?,
        };
        // Not under an id that has just taken the place of the founding one.
        if place == Some(0) && founding_replica == Some(replica) {
            let founders = record.founders.iter().map(|founder| founder.node);
            meta.group.initialize((1..).zip(founders).collect()).await?;
        }
        Ok(())
    }

    /// Keeps the own member row true: name, address, zone, weight, incarnation.
    async fn report_in(&self) {
        let settings = &self.founding.settings;
        let mut view = self.directory.watch_view();
        if view.wait_for(|view| view.grid.is_some()).await.is_err() {
            return;
        }
        let row = MemberRow {
            node: self.id(),
            name: settings.name.clone(),
            address: settings.address.clone(),
            zone: settings.zone.clone(),
            weight: settings.weight,
            incarnation: self.directory.identity().incarnation,
            since: self.router.time().ms(),
            intent: Default::default(),
            tasks: self.settings.tasks.clone(),
            extra: Default::default(),
        };
        while let Err(error) = self.facts.change(|view| Ok(((), meta::member_change(view, &row)?))).await {
            if error.code == Code::MemberRemoved {
                return self.fail(error);
            }
            tracing::debug!(%error, "the own member row could not be written; trying again");
            clock::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Looks for members that gossip has not found where the grid's facts say that they are: the
    /// peers that the seed list names may all have gone.
    async fn seek_members(&self) {
        for turn in 0.. {
            clock::sleep(SEEK_EVERY).await;
            let Some(gossip) = self.directory.gossip() else { continue };
            let view = self.directory.view();
            let unheard = view.members.values().filter(|member| !self.directory.is_alive(member.row.node));
            let mut members: Vec<&str> = unheard.map(|member| &*member.row.address).collect();
            let first = turn * SEEK_AT_ONCE % members.len().max(1);
            members.rotate_left(first);
            for address in members.into_iter().take(SEEK_AT_ONCE) {
                gossip.seek(address).await;
            }
        }
    }

    /// Waits until this node is told that it was removed.
    async fn watch_removal(&self) {
        let mut view = self.directory.watch_view();
        if view.wait_for(|view| view.removed.contains_key(&self.id())).await.is_ok() {
            let what = "this peer was removed from the grid; what it held is elsewhere";
            self.fail(Error::new(Code::MemberRemoved, what).at(&*self.settings.name));
        }
    }

    /// Replicas whose log is damaged give up their ids; others are issued in their place.
    async fn replace_damaged(&self) {
        let mut view = self.directory.watch_view();
        if view.wait_for(|view| view.grid.is_some()).await.is_err() {
            return;
        }
        // Ids that were given up in an earlier life may still wait for their replacement.
        let given_up = self.log.tombstones();
        let waiting: Vec<_> = self.directory.view().held_by(self.id()).filter(|key| given_up.contains(key)).collect();
        let lost: BTreeSet<_> = self.recovery.damaged.iter().copied().chain(waiting).collect();
        for (group, replica) in lost.into_iter().filter(|(group, _)| *group != GroupId::META) {
            tracing::warn!(%group, replica, "a replica's log is damaged; it is replaced under a new id");
            let error = Error::new(Code::CorruptLog, "the replica's log is damaged");
            self.replace(group, replica, &error).await;
        }
    }

    /// Damage to what nobody else has is not repaired by giving it up: the peer stops, and every
    /// file stays as it is.
    fn only_copy(&self, of: &str, replica: ReplicaId, error: &Error) -> Error {
        // A full disk or a newer format is no damage, and has a remedy of its own.
        if !matches!(error.code, Code::CorruptLog | Code::CorruptRow) {
            return error.clone();
        }
        let place = if error.place.is_empty() { String::new() } else { format!(" ({})", error.place) };
        let what = format!("{}{place}, and this peer has the only copy of {of} (replica {replica})", error.what);
        let remedy = "restore the data directory from a backup, or start with an empty one: what it held is then lost";
        Error::new(Code::CorruptLog, what).at(self.settings.data.display().to_string()).remedy(remedy)
    }

    /// Gives a lost replica's id up, and has another issued in its place; tries until it is so.
    pub(super) async fn replace(&self, group: GroupId, replica: ReplicaId, why: &Error) {
        if self.directory.view().replicas(group).iter().all(|(held, _)| *held == replica) {
            let of =
                group.partition().map_or("the meta group".to_owned(), |partition| format!("partition {partition}"));
            return self.fail(self.only_copy(&of, replica, why));
        }
        loop {
            let given_up = self.hosting.give_up(group, replica).await;
            let replaced = self.facts.change(|view| {
                let replacement = meta::replacement(view, group, replica)?;
                Ok(((), replacement.map(|replacement| replacement.changes).unwrap_or_default()))
            });
            match given_up.and(replaced.await) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%group, %error, "a damaged replica could not be replaced yet");
                    clock::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}
