//! The Rust client: what other processes link, and the command line uses.
//!
//! In: operations on maps, tasks and questions about the grid. Out: answers that name who served
//! them and how. It caches where partitions are led and goes straight to the leader, gathers
//! requests into messages by count and time, and retries through failover without running a write
//! twice: each write keeps its session number until it is answered. Never reads the wall clock,
//! never retries what the error table calls final, and keeps a bounded number of requests
//! outstanding.

mod cluster;
mod compute;
mod config;
mod core;
mod driver;
mod expiry;
#[cfg(test)]
mod fuzz;
mod jobs;
mod keys;
mod lane;
mod many;
mod ops;
mod peers;
mod results;
mod transaction;
mod typed;
mod walks;
mod watch;

#[cfg(test)]
mod tests;

pub use crate::types::{Codec, Json, Msgpack, Plain, Schema};
pub use compute::{OnProgress, Progress, SubmitOptions};
pub use config::ClientConfig;
pub use keys::{MapKey, shown_key};
pub use results::{
    CallOptions, Conditional, Deleted, Number, Page, Removed, Replaced, Size, TaskAnswer, Touched, Transacted, Written,
};
pub use transaction::Transaction;
pub use typed::{Entry, TypedMap, TypedOptions};
pub use watch::{FromKey, TypedChange, TypedEvent, TypedWatch, Watch, WatchBuilder};

use crate::clock::{self, Instant, Random, SystemRandom};
use crate::error::{Code, Error, Result};
use crate::net::{Network, TcpNetwork};
use crate::node::Stamper;
use crate::types::{AckLevel, Op, ReadLevel, Reply, Request, Slot, Target, affinity_of, slot_of};
use core::{Call, Core, GridTime, Peer, Routes, Timing};
use driver::{Driver, Input, Sight};
use peers::{Peers, share};
use std::sync::{Arc, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

struct Shared {
    config: ClientConfig,
    peers: Arc<Peers>,
    sight: Arc<RwLock<Sight>>,
    inputs: mpsc::UnboundedSender<Input>,
    outstanding: Arc<Semaphore>,
    random: Arc<dyn Random>,
    /// The session of what runs on many partitions.
    submissions: Stamper,
    /// Stops the driver when the last clone of the client is dropped.
    _stop: DropGuard,
}

/// A connection to a grid. Clones share it.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// Makes a [`Client`] over ports of one's own, such as the simulator's.
pub struct ClientBuilder {
    network: Arc<dyn Network>,
    random: Arc<dyn Random>,
    config: ClientConfig,
}

impl ClientBuilder {
    /// Replaces TCP.
    #[must_use]
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// Replaces the machine's random numbers.
    #[must_use]
    pub fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = random;
        self
    }

    /// Replaces the default settings.
    #[must_use]
    pub fn config(mut self, config: ClientConfig) -> Self {
        self.config = config;
        self
    }

    /// Connects to the first of these peers that answers.
    ///
    /// # Errors
    /// `InvalidRequest` without endpoints; `PeerUnreachable` when none answers in time.
    pub async fn connect(self, endpoints: Vec<String>) -> Result<Client> {
        if endpoints.is_empty() {
            return Err(Error::new(Code::InvalidRequest, "no endpoint is named"));
        }
        let endpoints: Vec<Peer> = endpoints.into_iter().map(Peer::from).collect();
        let peers = Arc::new(Peers::new(self.network, &self.config));
        let (routes, time) = find_peer(&peers, &endpoints, &self.config).await?;
        let timing = Timing {
            attempt: self.config.attempt_timeout,
            backoff_min: self.config.backoff_min,
            backoff_max: self.config.backoff_max,
        };
        let submissions = Stamper::new(&*self.random);
        let core = Core::new(timing, self.random.clone(), routes, time);
        let (inputs, receiver) = mpsc::unbounded_channel();
        let sight = Arc::new(RwLock::new(Sight::default()));
        let stop = CancellationToken::new();
        let driver = Driver::new(self.config.clone(), core, peers.clone(), sight.clone(), inputs.clone());
        clock::spawn(driver.run(receiver, stop.clone()));
        let outstanding = Arc::new(Semaphore::new(self.config.max_outstanding));
        let shared = Shared {
            config: self.config,
            peers,
            sight,
            inputs,
            outstanding,
            random: self.random,
            submissions,
            _stop: stop.drop_guard(),
        };
        Ok(Client { shared: Arc::new(shared) })
    }
}

/// Asks the endpoints by turns for time and placement until one answers.
async fn find_peer(peers: &Peers, endpoints: &[Peer], config: &ClientConfig) -> Result<(Routes, GridTime)> {
    let give_up = Instant::now() + config.connect_deadline;
    loop {
        let mut last = Error::internal("no endpoint was asked");
        for (peer, further) in endpoints.iter().zip((0..endpoints.len()).rev()) {
            let asked = async {
                let time = peers.time(peer, share(give_up, further)).await?;
                Ok((time, peers.placement(peer, share(give_up, further)).await?))
            };
            match asked.await {
                Ok((time, table)) => {
                    let time = GridTime::new(time, Instant::now());
                    return Ok((Routes::new(endpoints.to_vec(), table), time));
                }
                Err(error) => last = error,
            }
        }
        if Instant::now() >= give_up || last.code.retry() == crate::error::Retry::Never {
            let list: Vec<&str> = endpoints.iter().map(|peer| &**peer).collect();
            return Err(Error::new(Code::PeerUnreachable, format!("no peer answers: {}", last.what))
                .at(list.join(","))
                .remedy("start a peer with `keystead start`, or name another with --endpoint"));
        }
        clock::sleep(config.backoff_max).await;
    }
}

impl Client {
    /// Connects over TCP to the first of these peers that answers.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn connect(endpoints: Vec<String>, config: ClientConfig) -> Result<Client> {
        Client::builder().config(config).connect(endpoints).await
    }

    /// A builder: TCP, the machine's random numbers and default settings until replaced.
    pub fn builder() -> ClientBuilder {
        ClientBuilder { network: Arc::new(TcpNetwork), random: Arc::new(SystemRandom), config: ClientConfig::default() }
    }

    /// A place among the outstanding requests.
    async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit> {
        // Without waiting where possible: calls that begin one after the other then stay in order.
        if let Ok(permit) = self.shared.outstanding.clone().try_acquire_owned() {
            return Ok(permit);
        }
        match clock::timeout_at(deadline, self.shared.outstanding.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::new(Code::DeadlineExceeded, "too many requests are outstanding")),
        }
    }

    /// Executes one operation: one entry, a task, or entries of one partition. Writes to a slot
    /// take effect in the order in which their calls began.
    ///
    /// # Errors
    /// What the grid answers; `DeadlineExceeded` when the time is over and nothing was written,
    /// `OutcomeUnknown` when a write was sent and its answer never came.
    pub async fn execute(&self, op: Op, options: CallOptions) -> Result<Reply> {
        let deadline = Instant::now() + options.deadline.unwrap_or(self.shared.config.deadline);
        let slots = slots_of(&op, &options)?;
        let bytes = driver::size_of_op(&op);
        if bytes > self.shared.config.max_request_bytes {
            let what = format!("the request has {bytes} bytes; the limit is {}", self.shared.config.max_request_bytes);
            return Err(Error::new(Code::TooLarge, what));
        }
        let permit = self.permit(deadline).await?;
        let (slot, others) = slots;
        let request = Request {
            affinity: options.affinity,
            op,
            read: if options.read == ReadLevel::default() { self.shared.config.read } else { options.read },
            ack: if options.ack == AckLevel::default() { self.shared.config.ack } else { options.ack },
            stamp: None,
            deadline_ms: 0,
        };
        let (waiter, answer) = oneshot::channel();
        let call = Call { request, slot, others, deadline };
        let gone = || Error::new(Code::ShuttingDown, "the client has stopped");
        self.shared.inputs.send(Input::Call { call, waiter, permit }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// The first slot that an operation touches, and the others, ascending.
fn slots_of(op: &Op, options: &CallOptions) -> Result<(Slot, Vec<Slot>)> {
    let missing = || Error::new(Code::InvalidRequest, "the request names no key");
    let slot = |key: &bytes::Bytes| slot_of(affinity_of(key));
    match op.target() {
        Target::Key(_) => {}
        Target::Slot(slot) => return Ok((slot, Vec::new())),
        Target::Grid => return Ok((Slot(0), Vec::new())),
        Target::Nowhere => return Err(missing()),
    }
    if let Some(affinity) = &options.affinity {
        op.routing_key().ok_or_else(missing)?;
        return Ok((slot_of(affinity), Vec::new()));
    }
    let first = slot(op.routing_key().ok_or_else(missing)?);
    let others = match op {
        Op::PutMany { entries, .. } => {
            let all: std::collections::BTreeSet<Slot> = entries.iter().map(|(key, _)| slot(key)).collect();
            all.into_iter().filter(|other| *other != first).collect()
        }
        _ => Vec::new(),
    };
    Ok((first, others))
}
