//! All peers of a run, with what stands between them and where they keep their data.
//!
//! In: orders of the nemesis and of the rounds. Out: processes that live, stand still or are dead, and
//! a log of it all. Names are never given twice; a peer keeps its data and its front over its lives.

use super::peer::{self, Identity, Peer, Program, Reaper};
use super::proxy::{Place, Proxy};
use super::timeline::Timeline;
use crate::checks::Violation;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Peers have places below this; clients stand above.
const PLACES: Place = 190;
/// Peers that found the grid, and that joiners are told to ask.
const FOUNDERS: usize = 3;
/// Attempts to start a peer on a port that nobody else takes in the meantime.
const STARTS: usize = 5;

/// What the peers are configured with: members that are gone are replaced within a round.
const CONFIG: &str = "\
[limits]
move_settle_ms = 500
move_replace_after_ms = 8000
move_abandon_after_ms = 3000
";

/// The peers.
pub struct Fleet {
    /// What stands between them.
    pub proxy: Arc<Proxy>,
    /// What was done to them.
    pub timeline: Timeline,
    peers: BTreeMap<String, Peer>,
    founders: Vec<String>,
    program: Program,
    reaper: Reaper,
    dir: PathBuf,
    named: u32,
    /// Peers that ended though they should not have.
    ended: Vec<Violation>,
}

impl Fleet {
    /// No peers yet, to keep their data below a directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(seed: u64, dir: PathBuf, path: PathBuf, before: Vec<String>, partitions: u32) -> anyhow::Result<Fleet> {
        let config = dir.join("keystead.toml");
        std::fs::write(&config, CONFIG)?;
        Ok(Fleet {
            proxy: Arc::new(Proxy::new(seed)),
            timeline: Timeline::new(&dir.join("timeline.txt"))?,
            peers: BTreeMap::new(),
            founders: Vec::new(),
            program: Program { path, before, config, partitions },
            reaper: Reaper::start()?,
            dir,
            named: 0,
            ended: Vec::new(),
        })
    }

    /// Ends every process.
    pub async fn end(mut self) {
        for peer in self.peers.values_mut() {
            peer.kill().await;
        }
        self.reaper.end().await;
    }

    /// Starts the first peers, which found the grid.
    ///
    /// # Errors
    /// What the system says.
    pub async fn found(&mut self, count: u32) -> anyhow::Result<()> {
        let mut names = Vec::new();
        for _ in 0..count {
            names.push(self.open().await?);
        }
        self.founders = self.peers.values().take(FOUNDERS).map(|peer| peer.identity.front.to_string()).collect();
        for name in names {
            self.start(&name).await?;
        }
        Ok(())
    }

    /// A new peer joins; its name.
    ///
    /// # Errors
    /// What the system says.
    pub async fn add(&mut self) -> anyhow::Result<String> {
        let name = self.open().await?;
        self.start(&name).await?;
        Ok(name)
    }

    /// Makes a place for a new peer.
    async fn open(&mut self) -> anyhow::Result<String> {
        self.named += 1;
        // The order of names is that of their numbers.
        let name = format!("n{:02}", self.named);
        let taken = |place: &Place| self.peers.values().any(|peer| peer.identity.place == *place);
        let Some(place) = (1..PLACES).find(|place| !taken(place)) else { bail!("there are too many peers") };
        let front = self.proxy.open(place).await.context("a front")?;
        let (data, log) = (self.dir.join(&name), self.dir.join(format!("{name}.log")));
        let identity = Identity { name: name.clone(), place, front, seeds: Vec::new(), data, log };
        self.peers.insert(name.clone(), Peer::new(identity));
        Ok(name)
    }

    /// Starts a peer that does not run.
    ///
    /// # Errors
    /// What the system says.
    pub async fn start(&mut self, name: &str) -> anyhow::Result<()> {
        self.start_armed(name, None).await
    }

    /// Starts a peer that does not run, with these failpoints armed.
    ///
    /// # Errors
    /// What the system says.
    pub async fn start_armed(&mut self, name: &str, failpoints: Option<&str>) -> anyhow::Result<()> {
        // The first three found a grid: a joiner must never be one of them. After those anybody who runs
        // will do, since the founders may have gone.
        let others = self.peers.values().filter(|peer| peer.identity.name != name);
        let others: Vec<String> = others.map(|peer| peer.identity.front.to_string()).collect();
        let mut seeds = self.founders.clone();
        seeds.extend(others.into_iter().filter(|other| !self.founders.contains(other)));
        let Some(peer) = self.peers.get_mut(name).filter(|peer| !peer.runs()) else { return Ok(()) };
        peer.identity.seeds = seeds;
        let place = peer.identity.place;
        let mut last = None;
        for _ in 0..STARTS {
            let http = self.proxy.free_port(place).await?;
            let listen = self.proxy.free_port(place).await?;
            self.proxy.direct(place, listen);
            match peer.start(&self.program, listen, http, &self.reaper, failpoints) {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no attempt was made")))
    }

    /// Ends a peer for good, and its data with it.
    pub async fn forget(&mut self, name: &str) {
        if let Some(mut peer) = self.peers.remove(name) {
            peer.kill().await;
            self.ended.extend(alarms_of(&mut peer));
            // What is left of it is in nobody's way.
            let _ = std::fs::remove_dir_all(&peer.identity.data);
        }
    }

    /// A peer.
    pub fn peer(&mut self, name: &str) -> Option<&mut Peer> {
        self.peers.get_mut(name)
    }

    /// All peers.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// The names of all peers that are not leaving.
    pub fn names(&self) -> Vec<String> {
        self.peers.values().filter(|peer| !peer.leaving).map(|peer| peer.identity.name.clone()).collect()
    }

    /// The places of all peers.
    pub fn places(&self) -> Vec<Place> {
        self.peers.values().map(|peer| peer.identity.place).collect()
    }

    /// Where clients reach the peers.
    pub fn endpoints(&self) -> Vec<String> {
        self.peers.values().map(|peer| peer.identity.front.to_string()).collect()
    }

    /// Everything is mended: links, stopped processes, dead ones.
    ///
    /// # Errors
    /// What the system says.
    pub async fn heal(&mut self) -> anyhow::Result<()> {
        self.proxy.links().mend();
        let names: Vec<String> = self.peers.keys().cloned().collect();
        for name in names {
            if let Some(peer) = self.peers.get_mut(&name) {
                peer.go_on().await;
            }
            self.start(&name).await?;
        }
        Ok(())
    }

    /// Kills a peer without warning, and does not wait for its end; whether it ran.
    pub fn strike(&mut self, name: &str) -> bool {
        self.ended_by_itself(name);
        self.peers.get_mut(name).is_some_and(Peer::strike)
    }

    /// Kills a peer without warning; whether it ran.
    pub async fn kill(&mut self, name: &str) -> bool {
        let ran = self.strike(name);
        if let Some(peer) = self.peers.get_mut(name) {
            peer.kill().await;
        }
        ran
    }

    /// Stops a peer where it is; whether it ran.
    pub async fn stop(&mut self, name: &str) -> bool {
        self.ended_by_itself(name);
        let Some(peer) = self.peers.get_mut(name) else { return false };
        peer.stop().await;
        peer.stopped
    }

    /// Tells a peer to end in order; whether it ran.
    pub async fn end_in_order(&mut self, name: &str) -> bool {
        self.ended_by_itself(name);
        let Some(peer) = self.peers.get_mut(name) else { return false };
        peer.end_in_order().await;
        peer.is_ending()
    }

    /// A peer dies, loses its disk, and comes back under its name and address.
    ///
    /// # Errors
    /// What the system says.
    pub async fn come_back_empty(&mut self, name: &str) -> anyhow::Result<()> {
        self.kill(name).await;
        let Some(peer) = self.peers.get(name) else { bail!("there is no {name}") };
        std::fs::remove_dir_all(&peer.identity.data).context("a peer's data cannot be removed")?;
        self.start(name).await
    }

    /// Looks for peers that ended though nobody killed them or told them to go, and starts them again.
    ///
    /// # Errors
    /// What the system says.
    pub async fn look(&mut self) -> anyhow::Result<()> {
        let names: Vec<String> = self.peers.keys().cloned().collect();
        for name in names {
            if self.ended_by_itself(&name) {
                self.start(&name).await?;
            }
        }
        Ok(())
    }

    /// Whether a peer that should live has ended. The end of its log says why; that somebody else took
    /// the port in the meantime is nobody's fault.
    fn ended_by_itself(&mut self, name: &str) -> bool {
        let Some(peer) = self.peers.get_mut(name) else { return false };
        let Some(status) = peer.ended() else { return false };
        let what = format!("{name} ended by itself, {status}: {}", peer::last_words(&peer.identity.log));
        self.timeline.note(&what);
        if peer.leaving || peer.is_ending() {
            return false;
        }
        if !what.contains("KS1009") {
            self.ended.push(Violation { check: "peers live", what });
        }
        true
    }

    /// What [`Fleet::look`] has found.
    pub fn ended(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.ended)
    }

    /// What peers said that no peer may ever say.
    pub fn alarms(&mut self) -> Vec<Violation> {
        self.peers.values_mut().flat_map(alarms_of).collect()
    }
}

fn alarms_of(peer: &mut Peer) -> Vec<Violation> {
    let lines = peer.alarms();
    let violation = |line| Violation { check: "no panics", what: format!("{} said: {line}", peer.identity.name) };
    lines.into_iter().map(violation).collect()
}
