//! How a node gets a grid: it carries one on its disk, joins one, or takes part in founding one
//! (DESIGN section 5). The first address of the seed list writes the founding record; the other
//! founders persist and acknowledge exactly one; only when all have is there a grid.

use super::directory::Directory;
use super::identity::{Identity, IdentityFile};
use super::wire::{self, Hello, Join, Welcome, kind};
use crate::clock::{self, Random, ThreadKind, Threads, WallClock, run_on};
use crate::error::{Code, Error, Result};
use crate::meta::{Founder, FoundingRecord, founder_list};
use crate::net::peer::{Lane, PeerTransport};
use crate::types::{GridId, GroupId, NodeId, ReplicaId};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one question to a seed may take.
const ASK: Duration = Duration::from_millis(1500);
/// How long it may take to be taken in.
const JOIN_TIME: Duration = Duration::from_secs(10);
/// Between two rounds of questions.
const ROUND: Duration = Duration::from_millis(200);
/// Between two questions whether this node still belongs to the grid.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// How often a waiting node says what it waits for, in rounds.
const REPORT_EVERY: u32 = 25;

/// What a node was started with, as far as founding goes.
#[derive(Clone, Debug)]
pub struct FoundingSettings {
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub address: String,
    /// Its zone.
    pub zone: Option<String>,
    /// Its weight.
    pub weight: u32,
    /// The seed list.
    pub seeds: Vec<String>,
    /// Partitions of the grid, if it is founded.
    pub partitions: u32,
    /// Replicas per partition, if it is founded.
    pub replicas: usize,
}

/// Takes part in founding.
pub struct Founding {
    /// What the node was started with.
    pub settings: FoundingSettings,
    /// The node.
    pub directory: Arc<Directory>,
    /// Its identity on disk.
    pub file: Arc<IdentityFile>,
    /// Connections to others.
    pub transport: Arc<PeerTransport>,
    /// Threads for the disk.
    pub threads: Arc<dyn Threads>,
    /// Mints the grid's id.
    pub random: Arc<dyn Random>,
    /// Dates the record.
    pub clock: Arc<dyn WallClock>,
    /// What was reported last: the same trouble is said once, however often it is met.
    pub reported: Mutex<String>,
    /// One change of the identity at a time.
    pub changing: tokio::sync::Mutex<()>,
}

impl Founding {
    /// What this node answers to who asks.
    pub fn hello(&self) -> Hello {
        let settings = &self.settings;
        Hello {
            node: self.directory.me(),
            name: settings.name.clone(),
            address: settings.address.clone(),
            zone: settings.zone.clone(),
            weight: settings.weight,
            grid: self.directory.record(),
        }
    }

    /// Logs why founding does not get on, once per reason.
    fn report(&self, error: &Error) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if *reported != error.what {
            tracing::error!(%error, "the founders' settings differ: no grid is founded");
            reported.clone_from(&error.what);
        }
    }

    async fn save(&self, identity: Identity) -> Result<()> {
        let (file, copy) = (self.file.clone(), identity.clone());
        run_on(&self.threads, ThreadKind::Backend, move || file.save(&copy)).await??;
        self.directory.set_identity(identity);
        Ok(())
    }

    /// Persists a founding record and acknowledges it; refuses any but one.
    ///
    /// # Errors
    /// `FoundingMismatch` when it differs from the own settings or from a record acknowledged before.
    pub async fn acknowledge(&self, record: FoundingRecord) -> Result<()> {
        let _one = self.changing.lock().await;
        let mut identity = self.directory.identity();
        match &identity.record {
            Some(own) if *own == record => return Ok(()),
            Some(own) => {
                let what = format!("this peer has acknowledged the founding of grid {}", own.grid);
                let remedy = "if no grid exists yet, start all founders with empty data directories";
                return Err(Error::new(Code::FoundingMismatch, what).at(&*self.settings.name).remedy(remedy));
            }
            None => {}
        }
        let settings = &self.settings;
        if let Err(error) = record.check_settings(&settings.seeds, settings.partitions, settings.replicas) {
            let error = error.at(format!("peer {} at {}", settings.name, settings.address));
            self.report(&error);
            return Err(error);
        }
        if !record.founders.iter().any(|founder| founder.node == identity.node) {
            let what = "the founding record names another node at this address";
            return Err(Error::new(Code::FoundingMismatch, what).at(&*settings.address));
        }
        identity.record = Some(record);
        self.save(identity).await
    }

    /// Notes that all founders have acknowledged the record that this node carries.
    ///
    /// # Errors
    /// The disk's.
    pub async fn founded(&self) -> Result<()> {
        let _one = self.changing.lock().await;
        let mut identity = self.directory.identity();
        if identity.founded || identity.record.is_none() {
            return Ok(());
        }
        identity.founded = true;
        self.save(identity).await
    }

    /// Waits until the node has a grid: on disk, founded, or joined.
    ///
    /// # Errors
    /// `FoundingMismatch` and `ForeignGrid`, which waiting does not mend; the disk's.
    pub async fn find_grid(&self) -> Result<FoundingRecord> {
        let mut round = 0;
        loop {
            if let Some(record) = self.directory.record() {
                return Ok(record);
            }
            let waits_for = self.try_once().await?;
            if self.directory.record().is_none() {
                if round % REPORT_EVERY == REPORT_EVERY - 1 {
                    tracing::info!(name = %self.settings.name, "no grid yet: {waits_for}");
                }
                round += 1;
                clock::sleep(ROUND).await;
            }
        }
    }

    /// One round of questions; says what the node waits for.
    async fn try_once(&self) -> Result<String> {
        let seeds = &self.settings.seeds;
        let own = &self.settings.address;
        if seeds.is_empty() {
            return self.found(vec![self.hello()]).await;
        }
        let (mut answers, mut refused) = (Vec::new(), None);
        for seed in seeds {
            let hello = if seed == own { Ok(self.hello()) } else { self.ask(seed).await };
            match &hello {
                Ok(Hello { node, grid: Some(record), .. }) if *node != self.directory.me() => {
                    let said = self.enter(seed, record.clone()).await?;
                    if self.directory.record().is_some() {
                        return Ok(said);
                    }
                    // Another seed may be able to: this one may be cut off from the meta group.
                    refused = refused.or(Some(said));
                }
                Err(error) if is_final(error) => return Err(error.clone()),
                _ => {}
            }
            answers.push((seed, hello));
        }
        if let Some(said) = refused {
            return Ok(said);
        }
        let founders = founder_list(seeds);
        // A seed may name this node by another address than it gives out itself.
        let first_is_me = matches!(answers.first(), Some((_, Ok(hello))) if hello.node == self.directory.me());
        if !first_is_me {
            return Ok("the first seed founds the grid when all founders are there".to_owned());
        }
        let mut hellos = Vec::new();
        for (seed, answer) in answers.into_iter().take(founders.len()) {
            match answer {
                Ok(hello) => hellos.push(hello),
                Err(error) => return Ok(format!("founder {seed} does not answer ({})", error.what)),
            }
        }
        let nodes: BTreeSet<NodeId> = hellos.iter().map(|hello| hello.node).collect();
        if nodes.len() < hellos.len() {
            let what = format!("two of the first seeds are the same peer: {}", founders.join(", "));
            return Err(Error::new(Code::FoundingMismatch, what).remedy("name each peer once in --seeds"));
        }
        self.found(hellos).await
    }

    /// Asks the others whether this node belongs to their grid: all seeds at first, then one peer
    /// after the other. Gives the error that waiting does not mend. Only at the start is a foreign
    /// grid one: later a stranger may have come to an address where a member was, and only the own
    /// grid says who belongs to it.
    pub async fn check_standing(&self) -> Error {
        for seed in self.settings.seeds.clone() {
            if let Err(error) = self.ask(&seed).await
                && is_final(&error)
            {
                return error;
            }
        }
        let mut strangers = BTreeSet::new();
        for turn in 0.. {
            clock::sleep(CHECK_EVERY).await;
            let mut addresses: BTreeSet<String> = self.settings.seeds.iter().cloned().collect();
            addresses.extend(self.directory.live().values().map(|peer| peer.address.clone()));
            addresses.extend(self.directory.view().members.values().map(|member| member.row.address.clone()));
            addresses.remove(&self.settings.address);
            let Some(address) = addresses.iter().nth(turn % addresses.len().max(1)) else { continue };
            match self.ask(address).await {
                Err(error) if error.code == Code::MemberRemoved => return error,
                Err(error) if error.code == Code::ForeignGrid && strangers.insert(address.clone()) => {
                    tracing::warn!(%error, address, "a peer of another grid is where one of this grid was expected");
                }
                _ => {}
            }
        }
        Error::internal("the peer's standing is checked no more")
    }

    async fn ask(&self, seed: &str) -> Result<Hello> {
        let call = self.transport.call_address(seed, Lane::Control, GroupId::META, kind::HELLO, Bytes::new(), ASK);
        wire::decode(&call.await?.1)
    }

    /// A seed has a grid. If this node carries its record, the founding has succeeded; else it joins.
    async fn enter(&self, seed: &str, record: FoundingRecord) -> Result<String> {
        let identity = self.directory.identity();
        match &identity.record {
            Some(own) if own.grid == record.grid => {
                self.founded().await?;
                return Ok("the grid is founded".to_owned());
            }
            Some(own) => {
                let what = format!("this data directory belongs to grid {}, the seed to {}", own.grid, record.grid);
                return Err(Error::new(Code::ForeignGrid, what).at(seed));
            }
            None => {}
        }
        let welcome = match self.ask_in(seed, None).await {
            Ok(welcome) => welcome,
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => return Ok(format!("{seed} could not take this peer in ({})", error.what)),
        };
        self.settle_in(welcome).await?;
        Ok("joined".to_owned())
    }

    async fn ask_in(&self, address: &str, lost: Option<ReplicaId>) -> Result<Welcome> {
        let join = Join { hello: self.hello(), incarnation: self.directory.identity().incarnation.0, lost };
        let payload = wire::encode(&join)?;
        let call = self.transport.call_address(address, Lane::Control, GroupId::META, kind::JOIN, payload, JOIN_TIME);
        wire::decode(&call.await?.1)
    }

    async fn settle_in(&self, welcome: Welcome) -> Result<()> {
        let _one = self.changing.lock().await;
        let mut identity = self.directory.identity();
        identity.record = Some(welcome.record);
        identity.meta_replica = Some(welcome.meta_replica);
        identity.founded = true;
        self.save(identity).await
    }

    /// Gets a new id for this node's replica of the meta group, whose log is lost, from any peer
    /// that answers; waits until one does.
    ///
    /// # Errors
    /// The disk's.
    pub async fn replace_meta_replica(&self, lost: ReplicaId) -> Result<()> {
        loop {
            let mut addresses: Vec<String> = self.directory.live().values().map(|peer| peer.address.clone()).collect();
            addresses.extend(
                self.directory.identity().record.iter().flat_map(|record| {
                    record.founders.iter().map(|founder| founder.address.clone()).collect::<Vec<_>>()
                }),
            );
            for address in addresses.iter().filter(|address| **address != self.settings.address) {
                match self.ask_in(address, Some(lost)).await {
                    Ok(welcome) => return self.settle_in(welcome).await,
                    Err(error) => tracing::debug!(%error, address, "no new id for the meta replica yet"),
                }
            }
            clock::sleep(ROUND).await;
        }
    }

    /// The first founder's part: the record, to be acknowledged by all.
    async fn found(&self, founders: Vec<Hello>) -> Result<String> {
        let identity = self.directory.identity();
        let record = match identity.record {
            Some(record) => record,
            None => self.new_record(&founders),
        };
        self.acknowledge(record.clone()).await?;
        let payload = record.encode()?;
        for founder in &founders {
            if founder.node == self.directory.me() {
                continue;
            }
            let call = self.transport.call_address(
                &founder.address,
                Lane::Control,
                GroupId::META,
                kind::RECORD,
                payload.clone(),
                ASK,
            );
            match call.await {
                Ok(_) => {}
                Err(error) if error.code == Code::FoundingMismatch => {
                    self.report(&error);
                    return Ok(format!("founder {} refuses: {}", founder.address, error.what));
                }
                Err(error) => {
                    return Ok(format!("founder {} does not acknowledge ({})", founder.address, error.what));
                }
            }
        }
        self.founded().await?;
        Ok("the grid is founded".to_owned())
    }

    fn new_record(&self, founders: &[Hello]) -> FoundingRecord {
        let settings = &self.settings;
        let founder = |hello: &Hello| Founder {
            node: hello.node,
            name: hello.name.clone(),
            address: hello.address.clone(),
            zone: hello.zone.clone(),
            weight: hello.weight,
        };
        FoundingRecord {
            grid: GridId((u128::from(self.random.next_u64()) << 64) | u128::from(self.random.next_u64())),
            founders: founders.iter().map(founder).collect(),
            founder_list: founder_list(&settings.seeds).to_vec(),
            partitions: settings.partitions,
            replicas: settings.replicas,
            created_ms: self.clock.unix_ms(),
        }
    }
}

/// Waiting does not mend these.
fn is_final(error: &Error) -> bool {
    matches!(error.code, Code::ForeignGrid | Code::MemberRemoved)
}

#[cfg(test)]
#[path = "founding_tests.rs"]
mod tests;
