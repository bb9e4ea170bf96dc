//! Opens what a node lives on: its directory, identity, state backend, log and addresses.

use super::directory::Directory;
use super::identity::{Identity, IdentityFile};
use super::ports::Ports;
use super::settings::NodeSettings;
use crate::clock::{ThreadKind, run_on};
use crate::error::{Code, Error, Result};
use crate::membership::{GossipConfig, PeerGossip};
use crate::net::Listener;
use crate::raft::SpoolDir;
use crate::storage::backend::StateBackend;
use crate::storage::disk::DirLock;
use crate::storage::log::{Recovery, SharedLog};
use std::path::Path;
use std::sync::Arc;

/// With port 0: how often another port is tried when its UDP twin is taken.
const PORT_ATTEMPTS: usize = 16;

pub(super) async fn prepare_dir(ports: &Ports, data: &Path) -> Result<Box<dyn DirLock>> {
    let (disk, dir) = (ports.disk.clone(), data.to_owned());
    let lock = run_on(&ports.threads, ThreadKind::Backend, move || {
        disk.create_dir_all(&dir)?;
        disk.lock(&dir)
    });
    lock.await?.map_err(|error| {
        let busy = error.kind() == std::io::ErrorKind::WouldBlock;
        let (code, what) = match busy {
            true => (Code::DataDirBusy, "the data directory is in use by another process".to_owned()),
            false => (Code::DiskFailed, format!("the data directory cannot be used: {error}")),
        };
        Error::new(code, what).at(data.display().to_string())
    })
}

pub(super) async fn open_identity(ports: &Ports, data: &Path) -> Result<(Arc<IdentityFile>, Identity)> {
    let file = Arc::new(IdentityFile::new(ports.disk.clone(), data));
    let (opened, random) = (file.clone(), ports.random.clone());
    let identity = run_on(&ports.threads, ThreadKind::Backend, move || opened.begin_life(&*random)).await??;
    Ok((file, identity))
}

pub(super) async fn open_backend(ports: &Ports, data: &Path) -> Result<Arc<dyn StateBackend>> {
    let (open, dir) = (ports.backend.clone(), data.join("state"));
    run_on(&ports.threads, ThreadKind::Backend, move || open(&dir)).await?
}

pub(super) async fn open_spool(ports: &Ports, data: &Path) -> Result<SpoolDir> {
    let (disk, dir) = (ports.disk.clone(), data.join("incoming"));
    run_on(&ports.threads, ThreadKind::Backend, move || SpoolDir::open(disk, &dir)).await?
}

pub(super) async fn open_log(
    ports: &Ports,
    settings: &NodeSettings,
    identity: &Identity,
) -> Result<(SharedLog, Recovery)> {
    let (disk, threads, dir) = (ports.disk.clone(), ports.threads.clone(), settings.data.join("log"));
    let config = settings.log.clone();
    let open = {
        let (threads, dir) = (threads.clone(), dir.clone());
        move || SharedLog::open(disk, threads, &dir, config)
    };
    let (log, recovery) = run_on(&threads, ThreadKind::Backend, open).await??;
    if identity.log_created && recovery.fresh {
        let what = "the data directory has an identity, and no readable log: its votes are lost";
        let remedy = "start with an empty data directory: the peer joins as a new node";
        return Err(Error::new(Code::CorruptLog, what).at(dir.display().to_string()).remedy(remedy));
    }
    if recovery.votes_lost {
        let what = "the log is damaged where votes may have been: none of its replicas may vote again";
        let remedy = "start with an empty data directory: the peer joins as a new node";
        return Err(Error::new(Code::CorruptLog, what).at(dir.display().to_string()).remedy(remedy));
    }
    if recovery.torn_tail_bytes > 0 {
        tracing::info!(bytes = recovery.torn_tail_bytes, "a torn write at the log's end was cut off");
    }
    Ok((log, recovery))
}

/// Listens on TCP, and gossips on UDP on the same number.
pub(super) async fn listen(
    settings: &NodeSettings,
    ports: &Ports,
    directory: &Arc<Directory>,
) -> Result<(Box<dyn Listener>, String)> {
    let mut last = Error::internal("no attempt was made to listen");
    for _ in 0..PORT_ATTEMPTS {
        let listener = ports.network.listen(&settings.listen).await.map_err(|error| {
            Error::new(Code::InvalidConfig, format!("cannot listen: {error}"))
                .at(settings.listen.clone())
                .remedy("choose another --listen address, or stop the process that uses it")
        })?;
        let bound = listener.local_addr();
        let address = settings.advertise.clone().unwrap_or_else(|| bound.clone());
        let identity = directory.identity();
        let me = PeerGossip {
            node: identity.node,
            incarnation: identity.incarnation,
            name: settings.name.clone(),
            address: address.clone(),
            zone: settings.zone.clone(),
            grid: identity.record.filter(|_| identity.founded).map(|record| record.grid),
            placement_version: 0,
        };
        let seeds = settings.seeds.iter().filter(|seed| **seed != address).cloned().collect();
        let config = GossipConfig { me, listen: bound, advertise: address.clone(), seeds };
        match ports.membership.start(config).await {
            Ok(gossip) => {
                directory.set_gossip(gossip);
                return Ok((listener, address));
            }
            Err(error) if settings.listen.ends_with(":0") => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}
