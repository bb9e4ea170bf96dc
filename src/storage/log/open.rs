//! Opening the log: read what is there, cut what is torn, and start the log thread.

use super::config::LogConfig;
use super::core::{LogCore, segment_start};
use super::driver;
use super::format::{self, BatchWriter, Position};
use super::group::{GroupCell, GroupState, Slot};
use super::image::Image;
use super::queue::Queue;
use super::rebuild::{Rebuild, Rebuilt};
use super::recovery::{self, Found};
use super::segment::{Segments, WriteError, disk_error, segment_name};
use super::shared::{Roster, Shared};
use super::{LogHealth, Recovery, ReplicaKey};
use crate::clock::Threads;
use crate::error::{Code, Error, Result};
use crate::planted::{Bug, planted};
use crate::storage::disk::{Disk, OpenMode};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Opens the log in a directory and starts it.
pub(super) fn open(
    disk: Arc<dyn Disk>,
    threads: Arc<dyn Threads>,
    dir: &Path,
    config: LogConfig,
) -> Result<(Arc<Shared>, Recovery)> {
    config.check()?;
    let trouble = |error: io::Error| disk_error("the log could not be opened", dir, &error);
    disk.create_dir_all(dir).map_err(trouble)?;
    let mut found = recovery::recover(&*disk, dir)?;
    if planted(Bug::OldReplicaId) {
        found.rebuild.replicas.retain(|_, rebuilt| !rebuilt.damaged());
    }
    // Where nothing was ever acknowledged there is nothing to lose.
    let fresh = found.segments.is_empty() && found.damaged_places == 0;
    let recovery = report(&found, fresh, !fresh && found.rebuild.votes_lost());
    let queue = Queue::new(config.queue_bytes, config.queue_requests, threads.inline());
    if recovery.votes_lost {
        return Ok((refusing(queue, threads), recovery));
    }
    if let Some(sequence) = found.torn_segment {
        disk.remove(&dir.join(segment_name(sequence))).map_err(trouble)?;
        disk.sync_dir(dir).map_err(trouble)?;
    }
    rewrite_headers(&*disk, dir, &found).map_err(trouble)?;
    let images = found.rebuild.replicas.iter().map(|(key, rebuilt)| (*key, rebuilt.image())).collect();
    let segments = match fresh {
        true => create(disk, dir, &config)?,
        false => {
            let lengths = std::mem::take(&mut found.segments);
            Segments::open(disk, dir, lengths, found.known_durable, config.ahead()).map_err(trouble)?
        }
    };
    let shared = Arc::new(Shared::new(queue, segments.files(), threads.clone(), roster(&found.rebuild)));
    let mut core = LogCore::new(config, shared.clone(), segments, images, found.rebuild.tombstones);
    core.sealed = found.sealed;
    settle(&mut core, found.damaged_places > 0 || !recovery.damaged.is_empty())?;
    driver::start(core, &*threads);
    Ok((shared, recovery))
}

/// Makes durable what was found. After damage a new segment is begun, whose checkpoint says who is
/// damaged, so that the damage is judged once and not again at each start.
fn settle(core: &mut LogCore, damaged: bool) -> Result<()> {
    if damaged {
        core.roll().map_err(|error| core.troubled(error))?;
    }
    core.seal();
    match &*core.shared.health.borrow() {
        LogHealth::Failed(error) => Err(error.clone()),
        _ => Ok(()),
    }
}

fn create(disk: Arc<dyn Disk>, dir: &Path, config: &LogConfig) -> Result<Segments> {
    let start = segment_start(&mut BatchWriter::default(), 1, Position::default(), &BTreeMap::new(), &<_>::default());
    let created = Segments::create(disk, dir, 1, &start, config.ahead());
    created.map_err(|error| match error {
        WriteError::Full(error) | WriteError::Failed(error) => disk_error("the log could not be begun", dir, &error),
    })
}

/// A log that takes nothing and leaves the files as they are.
fn refusing(queue: Queue, threads: Arc<dyn Threads>) -> Arc<Shared> {
    let shared = Shared::new(queue, Arc::default(), threads, Roster::default());
    let error = Error::new(Code::CorruptLog, "the log is damaged, and votes may be lost")
        .remedy("start the peer with an empty data directory: it joins again under a new identity");
    shared.health.send_replace(LogHealth::Failed(error));
    shared.stopped.send_replace(true);
    shared.queue.close();
    Arc::new(shared)
}

fn rewrite_headers(disk: &dyn Disk, dir: &Path, found: &Found) -> io::Result<()> {
    for sequence in &found.headers_lost {
        let file = disk.open(&dir.join(segment_name(*sequence)), OpenMode::ReadWrite)?;
        file.write_all_at(&format::segment_header(*sequence), 0)?;
        file.sync_data()?;
    }
    Ok(())
}

fn report(found: &Found, fresh: bool, votes_lost: bool) -> Recovery {
    let (damaged, sound): (Vec<_>, Vec<_>) = found.rebuild.replicas.iter().partition(|(_, rebuilt)| rebuilt.damaged());
    let keys = |replicas: Vec<(&ReplicaKey, &Rebuilt)>| replicas.into_iter().map(|(key, _)| *key).collect();
    Recovery {
        fresh,
        replicas: keys(sound),
        tombstoned: found.rebuild.tombstones.iter().copied().collect(),
        damaged: keys(damaged),
        votes_lost,
        torn_tail_bytes: found.torn_tail_bytes,
        damaged_places: found.damaged_places,
    }
}

fn roster(rebuild: &Rebuild) -> Roster {
    let mut roster = Roster { tombstones: rebuild.tombstones.clone(), ..Roster::default() };
    for (key, rebuilt) in &rebuild.replicas {
        if rebuilt.damaged() {
            roster.damaged.insert(*key);
        } else {
            roster.cells.insert(*key, Arc::new(GroupCell::new(*key, state(rebuilt))));
        }
    }
    roster
}

/// The index of a replica that is sound; all entries are on disk.
fn state(rebuilt: &Rebuilt) -> GroupState {
    let Image { vote, committed, purged, .. } = rebuilt.image();
    let after_purge = purged.as_ref().map_or(0, |(index, _)| index.saturating_add(1));
    GroupState {
        first: rebuilt.entries.first_key_value().map_or(after_purge, |(index, _)| *index),
        slots: rebuilt.entries.values().map(|place| Slot { bytes: None, place: *place, epoch: 0 }).collect(),
        purged,
        vote,
        committed,
        ..GroupState::default()
    }
}
