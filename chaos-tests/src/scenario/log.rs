//! The shared log alone on a machine that loses power at any moment: whatever was acknowledged
//! is there after the next start, and nothing else than what was written.

mod model;
mod rot;

use crate::checks::Violation;
use crate::dice::Dice;
use crate::machine::Life;
use crate::nemesis::{Kind, Kinds, Plan, Profile};
use crate::ports::SimThreads;
use crate::simulation::Simulation;
use bytes::Bytes;
use keystead::clock::{sleep, spawn};
use keystead::storage::log::{GroupLog, LogConfig, LogHealth, Recovery, SharedLog};
use keystead::types::GroupId;
use model::Model;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const GROUPS: u32 = 3;
const QUIET_FROM: Duration = Duration::from_secs(6);
const AT_MOST: Duration = Duration::from_secs(8);

#[derive(Default)]
struct Shared {
    groups: [Model; GROUPS as usize],
    violations: Vec<Violation>,
    starts: u32,
    /// How many replicas of each group were given up: their ids are one more.
    given_up: [u64; GROUPS as usize],
}

type Truth = Arc<Mutex<Shared>>;

fn lock(truth: &Truth) -> MutexGuard<'_, Shared> {
    truth.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the scenario.
pub fn log(seed: u64) -> Vec<Violation> {
    run(seed, false)
}

/// The same on a disk on which acknowledged entries rot.
pub fn rotten_log(seed: u64) -> Vec<Violation> {
    run(seed, true)
}

fn run(seed: u64, rotten: bool) -> Vec<Violation> {
    let mut simulation = Simulation::new(seed, AT_MOST);
    let truth = Truth::default();
    let on = truth.clone();
    simulation.machine("n1", move |life| run_node(life, seed, rotten, on.clone()));
    simulation.client("waiter", move |_| sleep(QUIET_FROM + Duration::from_secs(1)));
    let profile = Profile {
        nodes: 1,
        calm_until: Duration::from_millis(20),
        quiet_from: QUIET_FROM,
        pause_max: Duration::from_millis(250),
        fault_max: Duration::from_millis(120),
        kinds: Kinds::plain().without(&[Kind::LongPause]),
    };
    let plan = Plan::draw(&mut Dice::new(seed, "nemesis"), &profile);
    let ended = simulation.run(plan);
    let mut truth = lock(&truth);
    let mut violations = std::mem::take(&mut truth.violations);
    violations.extend(ended.err().map(violation));
    let acknowledged: u64 = truth.groups.iter().map(Model::acknowledged).sum();
    crate::event!("log", "{acknowledged} appends acknowledged over {} starts", truth.starts);
    if (acknowledged < 20 && !rotten) || truth.starts < 2 {
        violations.push(Violation { check: "scenario", what: "nothing was tested".to_owned() });
    }
    violations
}

fn violation(what: String) -> Violation {
    Violation { check: "log", what }
}

fn config(seed: u64) -> LogConfig {
    let mut dice = Dice::new(seed, "log settings");
    // In smaller ones each segment's checkpoint would take most of the room.
    let segment_bytes = dice.between(12, 32) << 10;
    LogConfig {
        segment_bytes,
        cache_bytes: 1 << 10,
        seal_after: Duration::from_millis(dice.between(5, 60)),
        slack_bytes: segment_bytes * dice.between(4, 8),
        move_bytes: 4 << 10,
        ..LogConfig::default()
    }
}

async fn run_node(life: Life, seed: u64, rotten: bool, truth: Truth) {
    if rotten && life.number > 1 {
        let mut dice = Dice::new(seed, &format!("rot before life {}", life.number));
        // The power may go meanwhile.
        let flipped = rot::flip(&life.disk, Path::new("/log"), &mut dice);
        crate::event!(&life.name, "rot in an entry of group {:?}", flipped.ok().flatten().map(|body| body.group));
    }
    let opened = SharedLog::open(Arc::new(life.disk.clone()), Arc::new(SimThreads), Path::new("/log"), config(seed));
    let (log, recovery) = match opened {
        Ok(opened) => opened,
        // The power may go while the log opens.
        Err(error) => return crate::event!(&life.name, "the log does not open: {error}"),
    };
    lock(&truth).starts += 1;
    check_recovery(&recovery, rotten, &truth);
    let mut failed = log.health();
    for group in 0..GROUPS {
        let replica = lock(&truth).given_up[group as usize] + 1;
        let replica = match rotten && recovery.damaged.contains(&(GroupId(group), replica)) {
            true => match give_up(&log, group, replica, &truth).await {
                Ok(next) => next,
                Err(_) => return,
            },
            false => replica,
        };
        let Ok(handle) = log.register(GroupId(group), replica).await else { return };
        if let Err(what) = adopt(&handle, &mut Dice::new(seed, "read"), group, &truth).await {
            lock(&truth).violations.push(violation(format!("group {group}: {what}")));
        }
        let dice = Dice::new(seed, &format!("group {group} life {}", life.number));
        spawn(write(handle, group, dice, truth.clone()));
    }
    // A log that has failed ends the process.
    let _ = failed.wait_for(|health| matches!(health, LogHealth::Failed(_))).await;
}

/// A damaged replica's id is given up, and another begins with nothing.
async fn give_up(log: &SharedLog, group: u32, replica: u64, truth: &Truth) -> keystead::error::Result<u64> {
    {
        // Whether the tombstone becomes durable or not: the id is not used again.
        let mut truth = lock(truth);
        truth.groups[group as usize] = Model::default();
        truth.given_up[group as usize] = replica;
    }
    log.tombstone(GroupId(group), replica).await.map(|()| replica + 1)
}

fn check_recovery(recovery: &Recovery, rotten: bool, truth: &Truth) {
    let given_up = !recovery.damaged.is_empty() || !recovery.tombstoned.is_empty();
    if recovery.votes_lost || given_up && !rotten {
        lock(truth).violations.push(violation(format!("no byte was damaged, but recovery says {recovery:?}")));
    }
}

/// Compares what is there with what must be, and takes it for durable from now on, as Raft does.
async fn adopt(handle: &GroupLog, dice: &mut Dice, group: u32, truth: &Truth) -> Result<(), String> {
    let extent = handle.extent();
    let most = dice.between(1, 2000) as usize;
    let mut found = Vec::new();
    let mut next = extent.entries.start;
    while next < extent.entries.end {
        let read = handle.read(next..extent.entries.end, most).await.map_err(|error| error.to_string())?;
        next = read.last().ok_or("an entry that is there cannot be read")?.0 + 1;
        found.extend(read);
    }
    let purged = extent.purged.map(|(index, _)| index);
    lock(truth).groups[group as usize].adopt(purged, found, handle.vote())
}

async fn write(handle: GroupLog, group: u32, mut dice: Dice, truth: Truth) {
    loop {
        sleep(Duration::from_millis(dice.below(12))).await;
        let done = match dice.below(20) {
            0..14 => append(&handle, group, &mut dice, &truth).await,
            14..16 => vote(&handle, group, &truth).await,
            16..18 => truncate(&handle, group, &mut dice, &truth).await,
            _ => purge(&handle, group, &mut dice, &truth).await,
        };
        if !done {
            return;
        }
    }
}

async fn append(handle: &GroupLog, group: u32, dice: &mut Dice, truth: &Truth) -> bool {
    let entries: Vec<(u64, Bytes)> = {
        let from = lock(truth).groups[group as usize].next();
        let mut entry = |index| {
            let mut bytes = vec![0; dice.between(0, 400) as usize];
            dice.fill(&mut bytes);
            (index, Bytes::from(bytes))
        };
        (from..from + 1 + u64::from(group)).map(&mut entry).collect()
    };
    let attempt = lock(truth).groups[group as usize].appending(&entries);
    let truth = truth.clone();
    let on_durable = move |result: std::io::Result<()>| {
        if result.is_ok() {
            lock(&truth).groups[group as usize].appended(attempt);
        }
    };
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let wait = dice.per_mille(500);
    let done = handle
        .append(entries, move |result| {
            on_durable(result);
            let _ = sender.send(());
        })
        .await;
    if wait {
        let _ = receiver.await;
    }
    done.is_ok()
}

async fn vote(handle: &GroupLog, group: u32, truth: &Truth) -> bool {
    let number = lock(truth).groups[group as usize].voting();
    let saved = handle.save_vote(Bytes::copy_from_slice(&number.to_be_bytes())).await.is_ok();
    if saved {
        lock(truth).groups[group as usize].voted(number);
    }
    saved
}

async fn truncate(handle: &GroupLog, group: u32, dice: &mut Dice, truth: &Truth) -> bool {
    let after = lock(truth).groups[group as usize].truncating(dice);
    match after {
        Some(after) => handle.truncate_after(Some(after)).await.is_ok(),
        None => true,
    }
}

async fn purge(handle: &GroupLog, group: u32, dice: &mut Dice, truth: &Truth) -> bool {
    let index = lock(truth).groups[group as usize].purging(dice);
    match index {
        Some(index) => handle.purge(index, Bytes::copy_from_slice(&index.to_be_bytes())).await.is_ok(),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Mount, SimDisk};
    use tokio::sync::oneshot;

    fn open(mount: Mount) -> SharedLog {
        let config = LogConfig::default();
        SharedLog::open(Arc::new(mount), Arc::new(SimThreads), Path::new("/log"), config).expect("opens").0
    }

    /// Appends an entry; whether it is durable.
    async fn append_one(group: &GroupLog, index: u64) -> bool {
        let (sender, receiver) = oneshot::channel();
        let done = move |result: std::io::Result<()>| {
            let _ = sender.send(result.is_ok());
        };
        group.append(vec![(index, Bytes::from_static(b"entry"))], done).await.is_ok() && receiver.await == Ok(true)
    }

    #[tokio::test]
    async fn what_a_log_starts_with_is_durable_though_a_sync_failed_before() {
        let disk = SimDisk::new(Dice::new(1, "disk"));
        let log = open(disk.mount());
        let group = log.register(GroupId(1), 1).await.expect("registers");
        assert!(append_one(&group, 1).await);
        disk.fail_sync_after(1);
        assert!(!append_one(&group, 2).await, "its sync fails");
        disk.kill();
        let found = |log: &SharedLog| log.group(GroupId(1), 1).ok().map(|group| group.extent().entries);
        let started = found(&open(disk.mount()));
        disk.crash_hard();
        assert_eq!(found(&open(disk.mount())), started, "it answered for all of that");
    }
}
