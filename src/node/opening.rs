//! Opens what a node lives on: its directory, identity, state backend, log and addresses.

use super::directory::Directory;
use super::identity::{Identity, IdentityFile};
use super::ports::{OpenBackend, Ports};
use super::settings::NodeSettings;
use crate::clock::{ThreadKind, run_on};
use crate::error::{Code, Error, Result};
use crate::membership::{GossipConfig, PeerGossip};
use crate::net::Listener;
use crate::raft::SpoolDir;
use crate::storage::backend::StateBackend;
use crate::storage::disk::{DirLock, Disk, is_full};
use crate::storage::log::{Recovery, SharedLog};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Damaged states that are kept for people to look at.
const MAX_ASIDE: usize = 8;
/// With port 0: how often another port is tried when its UDP twin is taken.
const PORT_ATTEMPTS: usize = 16;

pub(super) async fn prepare_dir(ports: &Ports, data: &Path) -> Result<Box<dyn DirLock>> {
    let (disk, dir) = (ports.disk.clone(), data.to_owned());
    let lock = run_on(&ports.threads, ThreadKind::Backend, move || {
        disk.create_dir_all(&dir)?;
        disk.lock(&dir)
    });
    lock.await?.map_err(|error| unusable(&error).at(data.display().to_string()))
}

/// Why a data directory cannot be used.
fn unusable(error: &io::Error) -> Error {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::WouldBlock => {
            Error::new(Code::DataDirBusy, format!("the data directory is in use by another process{}", who(error)))
        }
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => {
            Error::new(Code::DataDirUnwritable, format!("the data directory cannot be written: {error}"))
        }
        Kind::NotADirectory | Kind::AlreadyExists => {
            Error::new(Code::InvalidConfig, format!("the data directory cannot be made: {error}"))
                .remedy("name a directory with --data")
        }
        _ if is_full(error) => Error::new(Code::DiskFull, format!("the data directory cannot be written: {error}"))
            .remedy("make room, and start the peer again"),
        _ => Error::new(Code::DiskFailed, format!("the data directory cannot be used: {error}"))
            .remedy("look after the disk, or choose another --data"),
    }
}

/// The holder of a lock, if the disk says who it is.
fn who(error: &io::Error) -> String {
    error.get_ref().map_or_else(String::new, |holder| format!(" ({holder})"))
}

pub(super) async fn open_identity(ports: &Ports, data: &Path) -> Result<(Arc<IdentityFile>, Identity)> {
    let file = Arc::new(IdentityFile::new(ports.disk.clone(), data));
    let (opened, random) = (file.clone(), ports.random.clone());
    let identity = run_on(&ports.threads, ThreadKind::Backend, move || opened.begin_life(&*random)).await??;
    Ok((file, identity))
}

/// Opens the state backend. One that is damaged as a whole is put aside, for people to look at, and
/// an empty one is begun: whether the log or other peers have what was in it is found out later.
pub(super) async fn open_backend(ports: &Ports, data: &Path) -> Result<Arc<dyn StateBackend>> {
    let (open, disk, data) = (ports.backend.clone(), ports.disk.clone(), data.to_owned());
    let work = move || {
        let dir = data.join("state");
        let error = match open_or_panic(&open, &dir) {
            Err(error) if error.code == Code::CorruptLog => error,
            opened => return opened,
        };
        let aside = put_aside(&*disk, &data).map_err(|cause| {
            let what = format!("{}; it cannot be put aside either: {cause}", error.what);
            Error { what, ..error.clone() }
        })?;
        tracing::error!(%error, "the state is damaged; it was put aside as {}, and is rebuilt", aside.display());
        open_or_panic(&open, &dir)
    };
    run_on(&ports.threads, ThreadKind::Backend, work).await?
}

/// A database that panics over its own files is a damaged one.
fn open_or_panic(open: &OpenBackend, dir: &Path) -> Result<Arc<dyn StateBackend>> {
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| open(dir)));
    let damaged = |what: String| Error::new(Code::CorruptLog, what).at(dir.display().to_string());
    match opened {
        Err(_) => Err(damaged("the state's database cannot be opened".to_owned())),
        // sled takes a file whose beginning it does not know for one of an old version of its own.
        Ok(Err(error)) if error.code == Code::Internal => Err(damaged(error.what)),
        Ok(opened) => opened,
    }
}

/// Renames the state's directory to the first name that is free.
fn put_aside(disk: &dyn Disk, data: &Path) -> io::Result<PathBuf> {
    let names = disk.list(data)?;
    let name = (1..=MAX_ASIDE).map(|number| format!("state.damaged-{number}")).find(|name| !names.contains(name));
    let name = name.ok_or_else(|| io::Error::other("there are too many damaged states beside it"))?;
    disk.rename(&data.join("state"), &data.join(&name))?;
    disk.sync_dir(data)?;
    Ok(data.join(name))
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
        let listener =
            ports.network.listen(&settings.listen).await.map_err(|error| {
                Error::cannot_listen("TCP", &error).at(format!("option listen, {}", settings.listen))
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
            Err(error) => return Err(error.at(format!("option listen, {}", settings.listen))),
        }
    }
    Err(last)
}
