//! Describes an embedded peer and starts it.

use super::Grid;
use crate::api;
use crate::clock;
use crate::compute::{
    JobContext, PartitionContext, Registry, RunnerConfig, Scatter, TaskContext, TaskError, ThreadPoolRunner,
};
use crate::config::{Backend, NodeConfig};
use crate::error::{Code, Error, Result};
use crate::meta::TaskMark;
use crate::net::open_files_limit;
use crate::node::{Node, NodeSettings, Ports};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

type Adjust = Box<dyn FnOnce(&mut NodeSettings) + Send>;

/// Describes an embedded peer.
pub struct GridBuilder {
    config: NodeConfig,
    registry: Result<Registry>,
    /// What distinguishes the tasks of this program: versions given, and types seen.
    marks: BTreeMap<String, TaskMark>,
    ports: Option<Ports>,
    temporary: bool,
    adjust: Option<Adjust>,
}

impl Default for GridBuilder {
    fn default() -> Self {
        GridBuilder {
            config: NodeConfig::default(),
            registry: Registry::with_builtins(),
            marks: BTreeMap::new(),
            ports: None,
            temporary: false,
            adjust: None,
        }
    }
}

impl GridBuilder {
    /// Takes a whole configuration.
    #[must_use]
    pub fn config(mut self, config: NodeConfig) -> Self {
        self.config = config;
        self
    }

    /// The peer's name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.config.name = name.to_owned();
        self
    }

    /// Where to listen; port 0 picks a free one for a grid of one.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        self.config.listen = address.to_owned();
        self
    }

    /// Addresses to find the grid by; the first up to three found it.
    #[must_use]
    pub fn seeds<S: Into<String>>(mut self, seeds: impl IntoIterator<Item = S>) -> Self {
        self.config.seeds = seeds.into_iter().map(Into::into).collect();
        self
    }

    /// The data directory.
    #[must_use]
    pub fn data(mut self, dir: impl Into<PathBuf>) -> Self {
        self.config.data = dir.into();
        self
    }

    /// Partitions of a new grid.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.config.partitions = partitions;
        self
    }

    /// Replicas per partition of a new grid.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.config.replicas = replicas;
        self
    }

    /// Keeps state in RAM with checkpoints in snapshot files, in a temporary directory that goes
    /// with the peer: for tests and caches.
    #[must_use]
    pub fn memory(mut self) -> Self {
        self.config.backend = Backend::Memory;
        self.temporary = true;
        self
    }

    /// Registers a task: a function beside its key, typed by serde.
    #[must_use]
    pub fn task<In, Out, F>(mut self, name: &str, handler: F) -> Self
    where
        In: DeserializeOwned,
        Out: Serialize,
        F: Fn(&mut TaskContext<'_>, In) -> std::result::Result<Out, TaskError> + Send + Sync + 'static,
        In: 'static,
        Out: 'static,
    {
        let types = [type_name::<In>(), type_name::<Out>(), type_name::<F>()].join(" ");
        self.mark(name).fingerprint = xxh3_64(types.as_bytes());
        self.register(|registry| registry.register(name, handler))
    }

    /// Registers a partition task: a broadcast runs it once on each partition.
    #[must_use]
    pub fn partition_task<In, Out, F>(self, name: &str, handler: F) -> Self
    where
        In: DeserializeOwned + 'static,
        Out: Serialize + 'static,
        F: Fn(&mut PartitionContext<'_, '_>, In) -> std::result::Result<Out, TaskError> + Send + Sync + 'static,
    {
        self.register(|registry| registry.register_partition(name, handler))
    }

    /// Registers a job task: it runs beside a partition's leader, may take long, and is begun
    /// again where its peer is lost.
    #[must_use]
    pub fn job<In, Out, F, R>(self, name: &str, handler: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Fn(JobContext, In) -> R + Send + Sync + 'static,
        R: Future<Output = std::result::Result<Out, TaskError>> + Send + 'static,
    {
        self.register(|registry| registry.register_job(name, handler))
    }

    /// Registers a scatter: a step on every partition, combined on each peer, and reduced.
    #[must_use]
    pub fn scatter(self, name: &str, scatter: impl Scatter) -> Self {
        self.register(|registry| registry.register_scatter(name, scatter))
    }

    /// Gives a task an example of its payload, in JSON: callers whose payload is wrong are shown it.
    #[must_use]
    pub fn example(self, name: &str, json: &str) -> Self {
        self.register(|registry| {
            registry.example(name, json);
            Ok(())
        })
    }

    fn register(mut self, register: impl FnOnce(&mut Registry) -> Result<()>) -> Self {
        if let Ok(registry) = &mut self.registry
            && let Err(error) = register(registry)
        {
            self.registry = Err(error);
        }
        self
    }

    /// Says which version of a task this program has; 1 without. Once a peer carries a later one,
    /// partitions are led by peers that have it.
    #[must_use]
    pub fn task_version(mut self, name: &str, version: u32) -> Self {
        self.mark(name).version = version;
        self
    }

    fn mark(&mut self, name: &str) -> &mut TaskMark {
        let new = || TaskMark { name: name.to_owned(), version: 1, fingerprint: 0 };
        self.marks.entry(name.to_owned()).or_insert_with(new)
    }

    /// Uses other ports than the machine's: the simulator's.
    #[must_use]
    pub fn ports(mut self, ports: Ports) -> Self {
        self.ports = Some(ports);
        self
    }

    /// Adjusts timing and bounds of the parts before the start.
    #[must_use]
    pub fn adjust(mut self, adjust: impl FnOnce(&mut NodeSettings) + Send + 'static) -> Self {
        self.adjust = Some(Box::new(adjust));
        self
    }

    /// RAM for the state, in bytes; see [`NodeConfig::memory_limit`].
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.config.memory_limit = Some(bytes);
        self
    }

    /// Starts the peer. It serves when this returns; whether its grid does, `wait_ready` tells.
    ///
    /// # Errors
    /// A configuration that cannot be used, an address that is taken, a data directory in use.
    pub async fn start(mut self) -> Result<Grid> {
        let registry = Arc::new(self.registry?);
        let directory = match self.temporary {
            true => Some(tempfile::tempdir().map_err(|error| {
                Error::new(Code::DiskFailed, format!("no temporary directory could be made: {error}"))
            })?),
            false => None,
        };
        if let Some(directory) = &directory {
            self.config.data = directory.path().to_owned();
        }
        self.config.check()?;
        let ports = self.ports.unwrap_or_else(|| Ports::with_backend(self.config.backend, self.config.memory_limit));
        let mut settings = NodeSettings::from(&self.config);
        // Log and database need files too: clients must not take them all.
        if let Some(files) = open_files_limit() {
            let connections = &mut settings.peer.grpc.max_connections;
            *connections = (*connections).min(files / 2);
        }
        // Every peer carries the built-in ones.
        let builtins = Registry::with_builtins()?.names();
        for name in registry.names().into_iter().filter(|name| !builtins.contains(name)) {
            let plain = TaskMark { name: name.clone(), version: 1, fingerprint: 0 };
            settings.tasks.push(self.marks.remove(&name).unwrap_or(plain));
        }
        if let Some(adjust) = self.adjust {
            adjust(&mut settings);
        }
        let tasks = Arc::new(ThreadPoolRunner::new(registry.clone(), ports.threads.clone(), RunnerConfig::default()));
        let limits = self.config.limits.clone();
        let node = Node::start(settings, ports.clone(), tasks, registry, |node| api::routes(node, &limits)).await?;
        let stop_http = CancellationToken::new();
        let http = match &self.config.http {
            Some(address) => match serve_http(&ports, address, node.clone(), stop_http.clone()).await {
                Ok(address) => Some(address),
                Err(error) => {
                    node.shutdown().await;
                    return Err(error);
                }
            },
            None => None,
        };
        Ok(Grid { node, ports, http, stop_http, own_client: OnceCell::new(), _directory: directory })
    }
}

async fn serve_http(ports: &Ports, address: &str, node: Arc<Node>, stop: CancellationToken) -> Result<String> {
    let listener = ports
        .network
        .listen(address)
        .await
        .map_err(|error| Error::cannot_listen("TCP", &error).at(format!("option http, {address}")))?;
    let bound = listener.local_addr();
    clock::spawn(async move {
        if let Err(error) = api::http::serve(listener, node, stop.cancelled_owned()).await {
            tracing::error!(%error, "the HTTP endpoints have stopped");
        }
    });
    Ok(bound)
}
