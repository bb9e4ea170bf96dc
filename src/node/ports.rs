//! Everything that a node needs from outside, in one place: the machine's in production, the
//! simulator's in `chaos-tests`.

use crate::clock::{Random, SystemClock, SystemRandom, SystemThreads, Threads, WallClock};
use crate::config::Backend;
use crate::error::Result;
use crate::membership::{ChitchatMembership, Membership};
use crate::net::{Network, TcpNetwork};
use crate::storage::backend::{MemoryBackend, ReopeningBackend, SledBackend, SledConfig, StateBackend};
use crate::storage::disk::{Disk, StdDisk};
use std::path::Path;
use std::sync::Arc;

/// Opens a node's state backend in a directory below its data directory. Blocks.
pub type OpenBackend = Arc<dyn Fn(&Path) -> Result<Arc<dyn StateBackend>> + Send + Sync>;

/// The ports of a node.
#[derive(Clone)]
pub struct Ports {
    /// The wall clock.
    pub clock: Arc<dyn WallClock>,
    /// Random numbers.
    pub random: Arc<dyn Random>,
    /// Threads for blocking work.
    pub threads: Arc<dyn Threads>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The network.
    pub network: Arc<dyn Network>,
    /// Gossip.
    pub membership: Arc<dyn Membership>,
    /// The state backend.
    pub backend: OpenBackend,
}

impl Ports {
    /// The machine's own, with a state backend whose caches fit beside the memory limit.
    pub fn with_backend(backend: Backend, memory_limit: Option<u64>) -> Self {
        match backend {
            Backend::Memory => {
                let disk: Arc<dyn Disk> = Arc::new(StdDisk);
                let on = disk.clone();
                Ports::system(disk, Arc::new(move |dir| Ok(Arc::new(MemoryBackend::open(on.clone(), dir)?))))
            }
            #[cfg(feature = "fjall")]
            Backend::Fjall => {
                let config = crate::storage::backend::FjallConfig::within(memory_limit);
                let open = move |dir: &Path| crate::storage::backend::FjallBackend::open(dir, config);
                Ports::system(Arc::new(StdDisk), Arc::new(move |dir| Ok(Arc::new(open(dir)?))))
            }
            // Without the feature fjall the configuration's check has refused it.
            _ => {
                let config = SledConfig::within(memory_limit);
                let open = move |dir: &Path| -> Result<Arc<dyn StateBackend>> {
                    let dir = dir.to_owned();
                    let open = move || Ok(Box::new(SledBackend::open(&dir, config)?) as Box<dyn StateBackend>);
                    Ok(Arc::new(ReopeningBackend::open(open)?))
                };
                Ports::system(Arc::new(StdDisk), Arc::new(open))
            }
        }
    }

    fn system(disk: Arc<dyn Disk>, backend: OpenBackend) -> Self {
        Ports {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            threads: Arc::new(SystemThreads),
            disk,
            network: Arc::new(TcpNetwork),
            membership: Arc::new(ChitchatMembership::default()),
            backend,
        }
    }
}
