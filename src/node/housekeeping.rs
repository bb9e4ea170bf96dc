//! What a node does from time to time: checkpoints and purges of its groups, spreading leaders,
//! watching the disk and the threads of user code.

use super::clock_watch::ClockWatch;
use super::directory::Directory;
use super::hosting::{Hosted, Hosting};
use super::leading::Leading;
use crate::clock::{self, Instant};
use crate::error::Code;
use crate::storage::log::LogHealth;
use crate::types::{GroupId, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Timing and bounds of housekeeping.
#[derive(Clone, Debug)]
pub struct HousekeepingConfig {
    /// Between two rounds.
    pub period: Duration,
    /// A group is checkpointed when so many log bytes were applied since the last time...
    pub checkpoint_bytes: u64,
    /// ... or its share of these, if that is more: what a start may have to replay over all groups.
    /// A peer with few groups would write each row much more often than it has to.
    pub replay_bytes: u64,
    /// Entries that stay in the log behind a checkpoint, for replicas that lag a little.
    pub keep_entries: u64,
    /// The log is kept for a lagging replica up to so many entries; beyond it gets a snapshot.
    pub max_lag_entries: u64,
    /// A leader hands over to the preferred one when it has led for so long.
    pub settle: Duration,
}

impl Default for HousekeepingConfig {
    fn default() -> Self {
        HousekeepingConfig {
            period: Duration::from_millis(500),
            checkpoint_bytes: 16 << 20,
            replay_bytes: 256 << 20,
            keep_entries: 1_000,
            max_lag_entries: 100_000,
            settle: Duration::from_secs(3),
        }
    }
}

/// Keeps the node's house.
pub struct Housekeeper {
    /// What the node knows of the grid.
    pub directory: Arc<Directory>,
    /// The node's replicas.
    pub hosting: Arc<Hosting>,
    /// Compares the clock with the others'.
    pub clock: Arc<ClockWatch>,
    /// Timing and bounds.
    pub config: HousekeepingConfig,
}

impl Housekeeper {
    /// Works until it is dropped, or until the log has failed for good; gives the reason.
    pub async fn work(&self) -> String {
        let mut tick = clock::interval(self.config.period);
        let mut health = self.hosting.parts.log.health();
        let mut led_since: BTreeMap<GroupId, Instant> = BTreeMap::new();
        loop {
            let now = health.borrow_and_update().clone();
            let unfit = match now {
                LogHealth::Failed(error) => return error.to_string(),
                LogHealth::DiskFull => {
                    let dir = self.hosting.parts.data.display();
                    Some(format!(
                        "{}: the disk of {dir} is full; make room: the peer goes on by itself",
                        Code::DiskFull
                    ))
                }
                LogHealth::Ok if self.clock.is_unfit() => {
                    let seconds = self.clock.offset_ms() as f64 / 1e3;
                    let code = Code::ClockAhead;
                    Some(format!("{code}: the clock is {seconds:+.1} s off the members' median; set it"))
                }
                LogHealth::Ok if self.hosting.parts.tasks.stuck_threads() >= MAX_STUCK => {
                    Some("too many threads are stuck in user code; restart the peer".to_owned())
                }
                LogHealth::Ok => None,
            };
            if self.directory.set_trouble(unfit.clone()) {
                match &unfit {
                    Some(why) => tracing::warn!("this peer gives up its leaderships: {why}"),
                    None => tracing::info!("this peer may lead again"),
                }
            }
            let pinning = self.hosting.parts.log.pinning();
            let mut fit: BTreeMap<NodeId, bool> = BTreeMap::new();
            let all = self.hosting.all();
            let due = self.config.checkpoint_bytes.max(self.config.replay_bytes / all.len().max(1) as u64);
            for (group, hosted) in all {
                if unfit.is_none() && hosted.group.has_stopped() {
                    tracing::warn!(%group, "a replica had stopped; it is started again");
                    if let Err(error) = self.hosting.restart(group).await {
                        tracing::error!(%group, %error, "a replica could not be started again");
                    }
                    continue;
                }
                let pinned = pinning.contains(&(group, hosted.group.replica()));
                self.checkpoint(group, &hosted, due, pinned).await;
                if !hosted.leadership().is_me {
                    led_since.remove(&group);
                    continue;
                }
                let since = *led_since.entry(group).or_insert_with(Instant::now);
                if let Some(why) = &unfit {
                    tracing::debug!(%group, why, "giving up a leadership");
                    self.hand_over(&hosted).await;
                } else if hosted.executor.is_unreadable() {
                    tracing::warn!(%group, "giving up a leadership: the replica's state cannot be read");
                    self.hand_over(&hosted).await;
                } else if since.elapsed() >= self.config.settle
                    || Leading::of(&self.directory, &hosted).is_out_of_place()
                {
                    self.prefer(group, &hosted, &mut fit).await;
                }
            }
            tokio::select! {
                biased;
                () = tick.tick() => {}
                changed = health.changed() => if changed.is_err() { return "the log has ended".to_owned() },
            }
        }
    }

    /// Checkpoints a group whose log has grown by what is `due`, and lets the log forget what is not
    /// needed.
    async fn checkpoint(&self, group: GroupId, hosted: &Hosted, due: u64, pinned: bool) {
        let (_, _, log_bytes) = hosted.state.size();
        let status = hosted.group.status();
        let behind = status.applied > hosted.state.checkpoint_index().unwrap_or(0);
        if log_bytes >= due || (pinned && behind) {
            let _ = hosted.group.checkpoint().await;
        }
        let Some(checkpoint) = hosted.state.checkpoint_index() else { return };
        let keep = if pinned { 0 } else { self.config.keep_entries };
        let mut upto = checkpoint.saturating_sub(keep);
        // For replicas that lag, and for those that are receiving a snapshot, the log is kept.
        let matched = status.matched.values().map(|at| at.unwrap_or(0));
        let lagging = matched.filter(|at| at + self.config.max_lag_entries > status.last_log);
        upto = upto.min(lagging.min().unwrap_or(upto));
        if let Some(held) = hosted.state.held_from() {
            upto = upto.min(held);
        }
        if upto > status.purged && (upto - status.purged >= keep.max(1) / 2 || pinned) {
            tracing::debug!(%group, upto, "the log forgets");
            let _ = hosted.group.purge(upto).await;
        }
    }

    /// Hands leadership to a replica that should rather have it, if one is fit. `fit` holds what
    /// other nodes have said of themselves in this round.
    async fn prefer(&self, group: GroupId, hosted: &Hosted, fit: &mut BTreeMap<NodeId, bool>) {
        let Some((better, node)) = Leading::of(&self.directory, hosted).better() else { return };
        // One with a full disk or a wrong clock would give it back at once.
        let says = match fit.get(&node) {
            Some(known) => *known,
            None => self.clock.says_fit(node).await,
        };
        fit.insert(node, says);
        if says {
            tracing::debug!(%group, %better, "handing over to a replica that should rather lead");
            let _ = hosted.group.transfer_leadership(better).await;
        }
    }

    /// Hands leadership to the best living voter; none if there is no other.
    pub async fn hand_over(&self, hosted: &Hosted) -> bool {
        match Leading::of(&self.directory, hosted).successor() {
            Some(id) => hosted.group.transfer_leadership(id).await.is_ok(),
            None => false,
        }
    }

    /// Hands over all leaderships, and waits until they are gone or the time is over.
    pub async fn hand_over_all(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        loop {
            let led: Vec<_> = self.hosting.all().into_iter().filter(|(_, hosted)| hosted.leadership().is_me).collect();
            let mut asked = false;
            for (_, hosted) in &led {
                // While its members change a group takes no other leader, but soon will.
                asked |= self.hand_over(hosted).await || !hosted.group.status().settled;
            }
            if !asked || Instant::now() >= until {
                return;
            }
            clock::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Stuck threads at which a peer gives up its leaderships.
const MAX_STUCK: usize = 8;
