//! The checked configuration.

use super::address::{is_loopback, port_of};
use super::{Limits, Options};
use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::str::FromStr;

/// Where a partition's rows are kept besides RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// RAM only, with checkpoints in snapshot files.
    Memory,
    /// RAM in front of sled.
    #[default]
    Sled,
    /// RAM in front of fjall, for states much larger than RAM; only in builds with the feature
    /// `fjall`.
    Fjall,
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "memory" => Ok(Backend::Memory),
            "sled" => Ok(Backend::Sled),
            "fjall" => Ok(Backend::Fjall),
            _ => Err(invalid("backend", format!("\"{text}\" is neither sled, memory nor fjall"))),
        }
    }
}

/// What a node is started with.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// The node's name, for people. Default `n` and the listen port.
    pub name: String,
    /// Where clients and peers are listened for: TCP, and UDP on the same number for gossip.
    /// Default 127.0.0.1:7401.
    pub listen: String,
    /// Where others reach the node. `None`: as listened on, with the port that was given for 0.
    pub advertise: Option<String>,
    /// Where `/healthz`, `/readyz` and `/metrics` are served. `None`: nowhere.
    pub http: Option<String>,
    /// Addresses to find the grid by; the first up to three are its founders. Empty: a grid of one.
    pub seeds: Vec<String>,
    /// The data directory. Default: the platform's data directory + `keystead/<listen port>`.
    pub data: PathBuf,
    /// Partitions of the grid, fixed at its birth. Default 64.
    pub partitions: u32,
    /// Replicas per partition. Default 3.
    pub replicas: u32,
    /// Where rows are kept besides RAM. Default sled.
    pub backend: Backend,
    /// Bytes of RAM that the state of this node's partitions may take; `None`: no limit. With sled,
    /// values beyond it are served from disk; keys always stay in RAM.
    pub memory_limit: Option<u64>,
    /// The zone (rack, room, region) that the node stands in.
    pub zone: Option<String>,
    /// The node's share of partitions, relative to the others'. Default 1.
    pub weight: u32,
    /// Allows an address that is open to the network although nothing is encrypted.
    pub insecure: bool,
    /// Bounds.
    pub limits: Limits,
}

/// More partitions than this cost more than they spread.
const MAX_PARTITIONS: u32 = 4096;
/// With less than this the indexes alone would fill the limit.
const MIN_MEMORY: u64 = 16 << 20;
/// Raft groups of more voters than this are slower, not safer.
const MAX_REPLICAS: u32 = 9;
/// Each unit of weight is so many points on the ring: more would cost more than it says.
const MAX_WEIGHT: u32 = 100;

fn invalid(option: &str, what: impl Into<String>) -> Error {
    Error::new(Code::InvalidConfig, what).at(format!("option {option}"))
}

impl Default for NodeConfig {
    /// All defaults, for use as a library; the data directory is `keystead/7401` below the working
    /// directory if the platform names none.
    fn default() -> Self {
        let listen = "127.0.0.1:7401".to_owned();
        NodeConfig {
            name: "n7401".to_owned(),
            data: default_data_dir(7401).unwrap_or_else(|| PathBuf::from("keystead/7401")),
            listen,
            advertise: None,
            http: None,
            seeds: Vec::new(),
            partitions: 64,
            replicas: 3,
            backend: Backend::default(),
            memory_limit: None,
            zone: None,
            weight: 1,
            insecure: false,
            limits: Limits::default(),
        }
    }
}

impl NodeConfig {
    /// Fills what the options leave open, and checks the whole.
    ///
    /// # Errors
    /// `InvalidConfig` with the option named; `PublicAddress` for an address that is open to the
    /// network without `insecure`.
    pub fn from_options(options: Options) -> Result<Self> {
        let default = NodeConfig::default();
        let listen = options.listen.unwrap_or(default.listen);
        let port = port_of("listen", &listen)?;
        let data = match options.data {
            Some(data) => data,
            None => default_data_dir(port)
                .ok_or_else(|| invalid("data", "the platform names no data directory; name one"))?,
        };
        let config = NodeConfig {
            name: options.name.unwrap_or_else(|| format!("n{port}")),
            listen,
            advertise: options.advertise,
            http: options.http,
            seeds: options.seeds.unwrap_or_default(),
            data,
            partitions: options.partitions.unwrap_or(default.partitions),
            replicas: options.replicas.unwrap_or(default.replicas),
            backend: options.backend.unwrap_or_default(),
            memory_limit: options.memory_limit.as_deref().map(memory_limit).transpose()?,
            zone: options.zone,
            weight: options.weight.unwrap_or(default.weight),
            insecure: options.insecure.unwrap_or(false),
            limits: options.limits.unwrap_or_default(),
        };
        config.check()?;
        Ok(config)
    }

    /// Checks every option.
    ///
    /// # Errors
    /// As [`NodeConfig::from_options`].
    pub fn check(&self) -> Result<()> {
        self.check_addresses()?;
        self.limits.check()?;
        let name_is_good = |text: &str| {
            (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
        };
        if !name_is_good(&self.name) {
            return Err(invalid("name", "a name has 1 to 128 letters, digits, '-', '_', '.' or ':'"));
        }
        if self.zone.as_deref().is_some_and(|zone| !name_is_good(zone)) {
            return Err(invalid("zone", "a zone has 1 to 128 letters, digits, '-', '_', '.' or ':'"));
        }
        if self.backend == Backend::Fjall && !cfg!(feature = "fjall") {
            return Err(invalid("backend", "this program was built without fjall; build it with --features fjall"));
        }
        if self.memory_limit.is_some_and(|limit| limit < MIN_MEMORY) {
            return Err(invalid("memory_limit", format!("a peer needs at least {} MiB", MIN_MEMORY >> 20)));
        }
        if !(1..=MAX_PARTITIONS).contains(&self.partitions) {
            return Err(invalid("partitions", format!("{} is not within 1 to {MAX_PARTITIONS}", self.partitions)));
        }
        if !(1..=MAX_REPLICAS).contains(&self.replicas) {
            return Err(invalid("replicas", format!("{} is not within 1 to {MAX_REPLICAS}", self.replicas)));
        }
        if !(1..=MAX_WEIGHT).contains(&self.weight) {
            return Err(invalid("weight", format!("{} is not within 1 to {MAX_WEIGHT}", self.weight)));
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<()> {
        let listen_port = port_of("listen", &self.listen)?;
        if let Some(advertise) = &self.advertise
            && port_of("advertise", advertise)? == 0
        {
            return Err(invalid("advertise", "port 0 cannot be reached"));
        }
        for seed in &self.seeds {
            if port_of("seeds", seed)? == 0 {
                return Err(invalid("seeds", "port 0 cannot be reached"));
            }
        }
        if listen_port == 0 && !self.seeds.is_empty() {
            return Err(invalid("listen", "port 0 serves only a grid of one: the others could not find the node"));
        }
        if let Some(http) = &self.http {
            port_of("http", http)?;
        }
        let open = [("listen", Some(&self.listen)), ("http", self.http.as_ref())];
        for (option, address) in open {
            let Some(address) = address else { continue };
            if !is_loopback(address) && !self.insecure {
                let what = format!("{address} is open to the network, and nothing is encrypted or authenticated");
                return Err(Error::new(Code::PublicAddress, what).at(format!("option {option}")));
            }
        }
        Ok(())
    }
}

fn memory_limit(text: &str) -> Result<u64> {
    super::parse_size(text).map_err(|what| invalid("memory_limit", what))
}

fn default_data_dir(port: u16) -> Option<PathBuf> {
    let base = directories::BaseDirs::new()?;
    Some(base.data_dir().join("keystead").join(port.to_string()))
}
