//! Three real replicas of one group, each with its log, its state, Raft and executor on a simulated
//! disk, and one director that decides when their messages arrive, when they stop and when they die.
//!
//! In: a script. Out: what the script found wrong. Nothing of a replica is a model: they are put
//! together as a peer puts its own together, from the same parts, without gossip, gRPC and router,
//! so that a script can stop between any two of a replica's steps.

use super::ask::{self, Asked, PATIENCE};
use super::replica::{Parts, Replica, map};
use super::steps::{Said, stage};
use super::wire::Wire;
use crate::checks::Violation;
use crate::dice::Dice;
use crate::disk::SimDisk;
use crate::ports::SimClock;
use keystead::clock::{Gate, Instant, sleep};
use keystead::partition::executor::{Job, ReplyTo};
use keystead::types::{NodeId, Request};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The replicas, and the nodes that they are on.
pub(super) const ALL: [u64; 3] = [1, 2, 3];

/// What outlives a replica's process.
struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    lives: u32,
    up: Option<Replica>,
}

/// The three.
pub(super) struct Trio {
    pub(super) wire: Arc<Wire>,
    pub(super) dice: Dice,
    seed: u64,
    chunk_bytes: usize,
    machines: BTreeMap<u64, Machine>,
    /// Processes that died: no task of theirs runs any more, and nothing of them says goodbye.
    dead: Vec<Replica>,
}

/// How a replica's machine dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// The process alone.
    Kill,
    /// Of what was not synced some may be left.
    Power,
    /// Nothing that was not synced is left.
    PowerHard,
}

/// Runs a script on three replicas of which the first leads, and which hold nothing.
pub(super) fn direct<F, Fut>(seed: u64, script: F) -> Vec<Violation>
where
    F: FnOnce(Trio) -> Fut + 'static,
    Fut: Future<Output = Said> + 'static,
{
    stage(seed, async move {
        let trio = Trio::found(seed).await.map_err(|what| format!("the group was not founded: {what}"))?;
        script(trio).await
    })
}

impl Trio {
    async fn found(seed: u64) -> Result<Self, String> {
        let mut dice = Dice::new(seed, "trio");
        let chunk_bytes = dice.between(100, 300) as usize;
        let wire = Wire::new(seed);
        let mut trio = Trio { wire, dice, seed, chunk_bytes, machines: BTreeMap::new(), dead: Vec::new() };
        for id in ALL {
            let disk = SimDisk::new(Dice::new(seed, &format!("disk of {id}")));
            trio.machines.insert(id, Machine { disk, clock: SimClock::new(), lives: 0, up: None });
            trio.start(id).await?;
        }
        let members = ALL.map(|id| (id, NodeId(id))).into_iter().collect();
        trio.at(1)?.group.initialize(members).await.map_err(|error| error.to_string())?;
        trio.leads(1).await?;
        Ok(trio)
    }

    /// A replica that runs.
    pub(super) fn at(&self, id: u64) -> Result<&Replica, String> {
        self.machines.get(&id).and_then(|machine| machine.up.as_ref()).ok_or_else(|| format!("replica {id} is down"))
    }

    /// Starts a replica on what its disk holds.
    pub(super) async fn start(&mut self, id: u64) -> Said {
        let machine = self.machines.get_mut(&id).ok_or("no such machine")?;
        machine.lives += 1;
        crate::event!("trio", "{id} starts");
        let parts = Parts {
            id,
            seed: self.seed,
            life: machine.lives,
            disk: machine.disk.clone(),
            clock: machine.clock.clone(),
            wire: self.wire.clone(),
            chunk_bytes: self.chunk_bytes,
        };
        let gate = Gate::new();
        let started = gate.clone().run(parts.start(gate)).await;
        machine.up = Some(started.map_err(|error| format!("replica {id} does not start: {error}"))?);
        Ok(())
    }

    /// Ends a replica without a farewell: nothing of it runs from here on.
    pub(super) fn crash(&mut self, id: u64, death: Death) {
        let Some(machine) = self.machines.get_mut(&id) else { return };
        crate::event!("trio", "{id} dies ({death:?})");
        match death {
            Death::Kill => machine.disk.kill(),
            Death::Power => machine.disk.crash(),
            Death::PowerHard => machine.disk.crash_hard(),
        }
        self.wire.unplug(id);
        if let Some(replica) = machine.up.take() {
            replica.gate.shut(false);
            self.dead.push(replica);
        }
    }

    /// Cuts a replica off from the others.
    pub(super) fn isolate(&self, id: u64) {
        ALL.into_iter().filter(|other| *other != id).for_each(|other| self.wire.cut(id, other));
    }

    /// Everything passes between all.
    pub(super) fn mend(&self) {
        for (one, other) in [(1, 2), (1, 3), (2, 3)] {
            self.wire.mend(one, other);
        }
    }

    /// Hands a request to a replica's executor.
    pub(super) fn ask(&self, id: u64, request: Request) -> Result<Asked, String> {
        let what = format!("{:?} at {id}", request.op);
        crate::event!("ask", "{what}");
        let (sender, answer) = oneshot::channel();
        let (map, expires) = (Some(map()), Instant::now() + Duration::from_secs(60));
        let job = Job { request, map, hops: 0, expires, flown: false, reply: ReplyTo::Caller(sender) };
        self.at(id)?.executor.submit(job).map_err(|error| format!("{what}: {error}"))?;
        Ok(Asked::new(what, answer))
    }

    /// Waits until a condition holds.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Trio) -> bool) -> Said {
        let start = Instant::now();
        while !holds(self) {
            if start.elapsed() > PATIENCE {
                return Err(format!("the scenario's moment did not come: {what}"));
            }
            sleep(Duration::from_millis(1)).await;
        }
        crate::event!("trio", "{what}");
        Ok(())
    }

    /// Waits until a replica leads, and its executor's run has begun.
    pub(super) async fn leads(&self, id: u64) -> Said {
        let leads = self.at(id)?.executor.leads();
        self.until(&format!("{id} leads"), |_| *leads.borrow()).await
    }

    /// Waits until one of these leads, and its run has begun.
    pub(super) async fn leader_of(&self, ids: &[u64]) -> Result<u64, String> {
        let found = |trio: &Trio| {
            let leads = |id: &u64| trio.at(*id).is_ok_and(|replica| *replica.executor.leads().borrow());
            ids.iter().copied().find(leads)
        };
        self.until(&format!("one of {ids:?} leads"), |trio| found(trio).is_some()).await?;
        found(self).ok_or_else(|| "the new leader is gone".to_owned())
    }

    /// Hands the leadership to a replica.
    pub(super) async fn hand_over(&self, to: u64) -> Said {
        let start = Instant::now();
        while !self.at(to)?.leads() {
            if start.elapsed() > PATIENCE {
                return Err(format!("{to} never leads"));
            }
            let from = ALL.into_iter().find(|id| self.at(*id).is_ok_and(|at| at.leads() && *id != to));
            if let Some(from) = from {
                let _ = self.at(from)?.group.transfer_leadership(to).await;
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.leads(to).await
    }

    /// Makes a checkpoint of a replica, and lets its log forget what that covers.
    pub(super) async fn checkpoint(&self, id: u64) -> Said {
        let replica = self.at(id)?;
        let applied = replica.applied();
        replica.group.checkpoint().await.map_err(|error| error.to_string())?;
        self.until(&format!("{id} has a checkpoint"), |trio| {
            trio.at(id).is_ok_and(|at| at.state.checkpoint_index() >= Some(applied))
        })
        .await?;
        let start = Instant::now();
        // What is on its way to another replica is kept for so long.
        while replica.group.status().purged < applied {
            if start.elapsed() > PATIENCE {
                return Err(format!("{id} never forgets its log"));
            }
            replica.group.purge(applied).await.map_err(|error| error.to_string())?;
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Mends everything, starts whoever is down, and waits until all replicas are equal and a read
    /// is answered; gives what the read says of a key.
    pub(super) async fn converge(&mut self, key: &str) -> Result<Option<i64>, String> {
        self.mend();
        for id in ALL {
            if self.at(id).is_err() {
                self.start(id).await?;
            }
            self.at(id)?.gate.open();
        }
        let start = Instant::now();
        let read = loop {
            let leader = self.leader_of(&ALL).await?;
            match self.ask(leader, ask::get(key))?.number().await {
                Ok(read) => break read,
                Err(what) if start.elapsed() > PATIENCE => return Err(what),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        self.until("all replicas have applied the same", |trio| {
            let applied: Vec<u64> = ALL.iter().filter_map(|id| trio.at(*id).ok().map(Replica::applied)).collect();
            let last = ALL.iter().filter_map(|id| trio.at(*id).ok().map(Replica::last)).max();
            applied.iter().all(|applied| Some(*applied) == last)
        })
        .await?;
        let rows = self.at(1)?.rows()?;
        for id in ALL {
            if self.at(id)?.rows()? != rows {
                return Err(format!("replicas 1 and {id} differ at index {}", self.at(1)?.applied()));
            }
        }
        Ok(read)
    }
}
