//! Random operations against a model, then a crash or a flipped bit: the log must hold exactly what
//! the model held, or say which replicas it no longer vouches for.

use super::memory::{Files, MemoryDisk, Point, batches, open_memory, sequence, settled, simulate};
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const GROUPS: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Append { group: u32, count: u64, size: usize },
    Vote { group: u32 },
    Truncate { group: u32, back: u64 },
    Purge { group: u32, forward: u64 },
    Tombstone { group: u32 },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let group = 0..GROUPS;
    let step = prop_oneof![
        8 => (group.clone(), 1u64..6, 0usize..200).prop_map(|(group, count, size)| Step::Append { group, count, size }),
        2 => group.clone().prop_map(|group| Step::Vote { group }),
        2 => (group.clone(), 0u64..8).prop_map(|(group, back)| Step::Truncate { group, back }),
        2 => (group.clone(), 0u64..12).prop_map(|(group, forward)| Step::Purge { group, forward }),
        1 => group.prop_map(|group| Step::Tombstone { group }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Replica {
    entries: BTreeMap<u64, Bytes>,
    purged: Option<(u64, Bytes)>,
    vote: Option<Bytes>,
    committed: Option<Bytes>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    replicas: BTreeMap<(GroupId, u64), Replica>,
    tombstones: BTreeSet<(GroupId, u64)>,
}

/// After a step: what the log holds and what the files are.
#[derive(Clone)]
struct Moment {
    model: Model,
    files: Files,
    /// How many syncs there had been.
    syncs: usize,
}

struct World {
    disk: Arc<MemoryDisk>,
    log: SharedLog,
    model: Model,
    /// Current replica id of each group.
    ids: Vec<u64>,
    stamp: u64,
    history: Vec<Moment>,
    prepare: u32,
}

fn config() -> LogConfig {
    LogConfig { slack_bytes: 6000, move_bytes: 500, cache_bytes: 1000, segment_bytes: 1024, ..small() }
}

/// The same, with so many zeros written ahead.
fn ahead(prepare_bytes: u32) -> LogConfig {
    LogConfig { prepare_bytes, ..config() }
}

impl World {
    async fn new(prepare: u32) -> World {
        let disk = MemoryDisk::of(&Files::new());
        let (log, _) = open_memory(&disk, ahead(prepare));
        let ids = vec![1; GROUPS as usize];
        let mut world = World { disk, log, model: Model::default(), ids, stamp: 0, history: vec![], prepare };
        world.note().await;
        for group in 0..GROUPS {
            world.register(group).await;
        }
        world
    }

    async fn note(&mut self) {
        settled().await;
        let (files, syncs) = (self.disk.files(), self.disk.points().len());
        self.history.push(Moment { model: self.model.clone(), files, syncs });
    }

    fn key(&self, group: u32) -> (GroupId, u64) {
        (GroupId(group), self.ids[group as usize])
    }

    async fn register(&mut self, group: u32) {
        let key = self.key(group);
        self.log.register(key.0, key.1).await.expect("durable");
        self.model.replicas.insert(key, Replica::default());
        self.note().await;
    }

    fn mark(&mut self) -> Bytes {
        self.stamp += 1;
        bytes(format!("mark {}", self.stamp))
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Append { group, count, size } => self.append(group, count, size).await,
            Step::Vote { group } => self.vote(group).await,
            Step::Truncate { group, back } => self.truncate(group, back).await,
            Step::Purge { group, forward } => self.purge(group, forward).await,
            Step::Tombstone { group } => {
                let key = self.key(group);
                self.log.tombstone(key.0, key.1).await.expect("durable");
                self.model.replicas.remove(&key);
                self.model.tombstones.insert(key);
                self.note().await;
                self.ids[group as usize] += 1;
                self.register(group).await;
            }
            Step::Restart => {
                self.log.shutdown().await;
                let (log, recovery) = open_memory(&self.disk, ahead(self.prepare));
                assert_eq!((recovery.damaged_places, recovery.torn_tail_bytes), (0, 0));
                self.log = log;
                self.note().await;
            }
        }
    }

    fn handle(&mut self, group: u32) -> (GroupLog, &mut Replica) {
        let key = self.key(group);
        let log = self.log.group(key.0, key.1).expect("is there");
        (log, self.model.replicas.get_mut(&key).expect("is there"))
    }

    async fn append(&mut self, group: u32, count: u64, size: usize) {
        self.stamp += 1;
        let stamp = self.stamp;
        let (log, replica) = self.handle(group);
        let next = match (replica.entries.last_key_value(), &replica.purged) {
            (Some((last, _)), _) => last + 1,
            (None, Some((purged, _))) => purged + 1,
            (None, None) => 1,
        };
        let new: Vec<_> =
            (next..next + count).map(|index| (index, bytes(format!("{stamp}:{index}:{}", "y".repeat(size))))).collect();
        replica.entries.extend(new.iter().cloned());
        super::append(&log, new).await.expect("durable");
        self.note().await;
    }

    /// A vote, with which a committed mark rides along.
    async fn vote(&mut self, group: u32) {
        let (vote, mark) = (self.mark(), self.mark());
        let (log, replica) = self.handle(group);
        replica.vote = Some(vote.clone());
        replica.committed = Some(mark.clone());
        log.save_committed(mark);
        log.save_vote(vote).await.expect("durable");
        self.note().await;
    }

    async fn truncate(&mut self, group: u32, back: u64) {
        let key = self.key(group);
        let (log, replica) = self.handle(group);
        let Some((&last, _)) = replica.entries.last_key_value() else { return };
        let floor = replica.purged.as_ref().map_or(0, |(index, _)| *index);
        let after = last.saturating_sub(back).max(floor);
        drop(replica.entries.split_off(&(after + 1)));
        log.truncate_after(Some(after)).await.expect("is taken");
        self.durable(key).await;
    }

    async fn purge(&mut self, group: u32, forward: u64) {
        let (key, id) = (self.key(group), self.mark());
        let (log, replica) = self.handle(group);
        let index = replica.purged.as_ref().map_or(0, |(index, _)| *index) + forward;
        if replica.purged.as_ref().is_none_or(|(purged, _)| *purged < index) {
            replica.purged = Some((index, id.clone()));
            replica.entries = replica.entries.split_off(&(index + 1));
        }
        log.purge(index, id).await.expect("is taken");
        self.durable(key).await;
    }

    /// Registering once more writes nothing, but waits for what is before it.
    async fn durable(&mut self, key: (GroupId, u64)) {
        self.log.register(key.0, key.1).await.expect("durable");
        self.note().await;
    }
}

async fn held(log: &SharedLog, key: (GroupId, u64)) -> Replica {
    let one = log.group(key.0, key.1).expect("is sound");
    let entries = all(&one).await.into_iter().collect();
    Replica { entries, purged: one.extent().purged, vote: one.vote(), committed: one.committed() }
}

async fn whole(log: &SharedLog) -> Model {
    let mut model = Model { tombstones: log.tombstones().into_iter().collect(), ..Model::default() };
    for key in log.replicas() {
        model.replicas.insert(key, held(log, key).await);
    }
    model
}

async fn run(steps: &[Step], prepare: u32) -> (Vec<Moment>, Vec<Point>) {
    let mut world = World::new(prepare).await;
    for step in steps {
        world.step(step).await;
    }
    assert_eq!(whole(&world.log).await, world.model);
    (world.history, world.disk.points())
}

#[test]
fn zeros_are_ahead_in_the_last_segment_only() {
    simulate(async {
        let steps: Vec<Step> = (0..40).map(|_| Step::Append { group: 0, count: 2, size: 100 }).collect();
        let (history, _) = run(&steps, 500).await;
        let files = &history.last().expect("moments").files;
        assert!(files.len() > 2, "{}", files.len());
        let behind = |(name, bytes): (&String, &Vec<u8>)| {
            bytes.len() - batches(bytes, sequence(name)).last().expect("batches").end()
        };
        let closed: Vec<usize> = files.iter().rev().skip(1).map(behind).collect();
        assert!(closed.iter().all(|zeros| *zeros == 0), "{closed:?}");
        let ahead = history.iter().filter_map(|moment| moment.files.iter().next_back().map(behind));
        assert!(ahead.max() > Some(300));
    });
}

/// The files after a crash in a sync: up to some byte the file is what was written, and from there on
/// what was synced before, or it ends there, or there are zeros; names and removals may or may not
/// have reached the disk.
fn crash(point: &Point, cut: prop::sample::Index, zeros: usize, names: bool) -> Files {
    let mut files = point.files.clone();
    if let Some(bytes) = files.get_mut(&point.file) {
        let same = bytes.iter().zip(&point.synced).take_while(|(new, old)| new == old).count();
        let left = same + cut.index(bytes.len() - same + 1);
        if left < bytes.len() || left < point.synced.len() {
            bytes.truncate(left);
            match point.synced.get(left..) {
                Some(old) if !old.is_empty() => bytes.extend(old),
                _ => bytes.extend(std::iter::repeat_n(0, zeros)),
            }
        }
    }
    if !names {
        files.extend(point.removed.clone());
        for name in &point.unnamed {
            files.remove(name);
        }
    }
    files
}

/// The last batch of the newest segment.
fn last_batch(files: &Files) -> (String, usize) {
    let (name, bytes) = files.iter().next_back().expect("segments");
    (name.clone(), batches(bytes, sequence(name)).last().expect("batches").offset)
}

/// Flips a bit; returns whether it lies in what was not yet known durable.
fn flip(files: &mut Files, which: prop::sample::Index, place: prop::sample::Index, bit: u8) -> bool {
    let (newest, last) = last_batch(files);
    let names: Vec<String> = files.keys().cloned().collect();
    let name = &names[which.index(names.len())];
    let bytes = files.get_mut(name).expect("is there");
    let at = place.index(bytes.len());
    bytes[at] ^= 1 << bit;
    *name == newest && at >= last
}

/// Damaged files must give, for each replica that is called sound, what the model has.
async fn check_damaged(files: &Files, allowed: &[&Model], torn: bool) -> Result<(), TestCaseError> {
    let disk = MemoryDisk::of(files);
    let (log, recovery) = open_memory(&disk, config());
    if recovery.votes_lost {
        prop_assert!(!torn, "a torn tail cost the votes");
        log.shutdown().await;
        prop_assert_eq!(&disk.files(), files, "files were changed");
        return Ok(());
    }
    let vouched = whole(&log).await;
    let fits = allowed.iter().any(|model| {
        let sound = model.replicas.iter().filter(|(key, _)| !recovery.damaged.contains(key));
        let sound: BTreeMap<_, _> = sound.map(|(key, replica)| (*key, replica.clone())).collect();
        sound == vouched.replicas && model.tombstones.iter().all(|key| !vouched.replicas.contains_key(key))
    });
    prop_assert!(fits, "{:?}: {:?} is none of {:?}", recovery, vouched, allowed);
    // The verdict stands at the next start, and giving the replicas up ends it.
    log.shutdown().await;
    let (log, again) = open_memory(&disk, config());
    prop_assert_eq!(&again.damaged, &recovery.damaged);
    prop_assert_eq!(&whole(&log).await, &vouched);
    for (group, replica) in &recovery.damaged {
        log.tombstone(*group, *replica).await.expect("durable");
    }
    log.shutdown().await;
    let (log, last) = open_memory(&disk, config());
    prop_assert_eq!((last.damaged, last.votes_lost), (vec![], false));
    prop_assert_eq!(whole(&log).await.replicas, vouched.replicas);
    Ok(())
}

proptest! {
    #[test]
    fn a_crash_loses_nothing_that_was_acknowledged(
        steps in steps(),
        at: prop::sample::Index,
        cut: prop::sample::Index,
        zeros in 0usize..100,
        names: bool,
        prepare in prop_oneof![Just(0u32), 1u32..600],
    ) {
        simulate(async {
            let (history, points) = run(&steps, prepare).await;
            let at = at.index(points.len());
            let disk = MemoryDisk::of(&crash(&points[at], cut, zeros, names));
            let after = history.iter().position(|moment| moment.syncs > at).unwrap_or(history.len() - 1);
            let allowed = [&history[after.saturating_sub(1)].model, &history[after].model];
            let (log, recovery) = open_memory(&disk, ahead(prepare));
            prop_assert_eq!((&recovery.damaged, recovery.votes_lost, recovery.damaged_places), (&vec![], false, 0));
            let found = whole(&log).await;
            prop_assert!(allowed.contains(&&found), "{:?}\n is none of {:?}", found, allowed);
            log.shutdown().await;
            let (log, _) = open_memory(&disk, config());
            prop_assert_eq!(whole(&log).await, found, "the next start found something else");
            Ok(())
        })?;
    }

    #[test]
    fn a_flipped_bit_is_found_and_charged(
        steps in steps(),
        at: prop::sample::Index,
        which: prop::sample::Index,
        place: prop::sample::Index,
        bit in 0u8..8,
        prepare in prop_oneof![Just(0u32), 1u32..600],
    ) {
        simulate(async {
            let (history, _) = run(&steps, prepare).await;
            let at = 1 + at.index(history.len() - 1);
            let mut files = history[at].files.clone();
            let torn = flip(&mut files, which, place, bit);
            // A step may have written nothing: the last batch is then an earlier step's.
            let earlier = history[..at].iter().rev().find(|moment| moment.syncs < history[at].syncs);
            let (now, before) = (&history[at].model, &earlier.expect("the first segment is synced").model);
            let allowed: &[&Model] = if torn { &[now, before] } else { &[now] };
            check_damaged(&files, allowed, torn).await
        })?;
    }
}
