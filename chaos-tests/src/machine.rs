//! One simulated machine: what survives its crashes, and what a process on it gets to run with.
//!
//! In: a host name and the seed. Out: for every life of the process a [`Life`] with all ports,
//! and orders from the nemesis to its gate. It does not know what runs on it.

use crate::dice::Dice;
use crate::disk::{Mount, SimDisk};
use crate::network::{Cuts, DatagramLoss, SimNetwork, SimTransport};
use crate::ports::{SimClock, SimRandom};
use keystead::clock::Gate;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// What the nemesis tells a machine's gate. It is done by a task of the machine itself, since a
/// clock can be read only where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateOrder {
    /// Stop everything; the monotonic clock too, if so told.
    Shut {
        /// Whether the clock stands still.
        freeze_clock: bool,
    },
    /// Go on.
    Open,
}

struct Parts {
    name: String,
    seed: u64,
    disk: SimDisk,
    clock: Arc<SimClock>,
    cuts: Cuts,
    loss: DatagramLoss,
    lives: AtomicU64,
    orders: Mutex<Option<mpsc::UnboundedSender<GateOrder>>>,
}

/// A machine. Clones are the same one.
#[derive(Clone)]
pub struct Machine {
    parts: Arc<Parts>,
}

/// What one life of a process runs with.
#[derive(Clone)]
pub struct Life {
    /// The machine's name, which is its address's host as well.
    pub name: String,
    /// Counts the process's lives from 1.
    pub number: u64,
    /// The gate that everything runs behind.
    pub gate: Arc<Gate>,
    /// The disk, until the next crash.
    pub disk: Mount,
    /// The wall clock.
    pub clock: Arc<SimClock>,
    /// Random numbers of this life.
    pub random: Arc<SimRandom>,
    /// The network.
    pub network: SimNetwork,
    transport_dice: Dice,
    loss: DatagramLoss,
}

impl Life {
    /// Whether the machine's power went under this process: then its disk's errors are no fault
    /// of its own.
    pub fn lost_power(&self) -> bool {
        self.disk.has_lost_power()
    }

    /// A transport for gossip.
    pub fn transport(&self) -> SimTransport {
        SimTransport::new(&self.name, self.gate.clone(), self.loss.clone(), self.transport_dice.clone())
    }
}

impl Machine {
    /// A machine with an empty disk.
    pub fn new(name: &str, seed: u64, cuts: Cuts, loss: DatagramLoss) -> Self {
        let parts = Parts {
            name: name.to_owned(),
            seed,
            disk: SimDisk::new(Dice::new(seed, &format!("disk of {name}"))),
            clock: SimClock::new(),
            cuts,
            loss,
            lives: AtomicU64::new(0),
            orders: Mutex::new(None),
        };
        Machine { parts: Arc::new(parts) }
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// Its disk.
    pub fn disk(&self) -> &SimDisk {
        &self.parts.disk
    }

    /// Its wall clock.
    pub fn clock(&self) -> &SimClock {
        &self.parts.clock
    }

    /// Tells the gate of the present life; nobody listens while the machine is down.
    pub fn order(&self, order: GateOrder) {
        if let Some(orders) = &*self.parts.orders.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = orders.send(order);
        }
    }

    /// Runs one life of a process behind a new gate: the software of a turmoil host.
    ///
    /// # Errors
    /// None; the result is what turmoil wants.
    pub async fn live<F, Fut>(self, main: F) -> turmoil::Result
    where
        F: FnOnce(Life) -> Fut,
        Fut: Future<Output = ()>,
    {
        let life = self.begin_life();
        let gate = life.gate.clone();
        let mut orders = self.listen();
        let process = gate.clone().run(main(life));
        let mut process = std::pin::pin!(process);
        loop {
            tokio::select! {
                biased;
                Some(order) = orders.recv() => match order {
                    GateOrder::Shut { freeze_clock } => gate.shut(freeze_clock),
                    GateOrder::Open => gate.open(),
                },
                () = &mut process => {
                    crate::event!(self.name(), "the process has ended");
                    return Ok(());
                }
            }
        }
    }

    fn listen(&self) -> mpsc::UnboundedReceiver<GateOrder> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.parts.orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    fn begin_life(&self) -> Life {
        let parts = &self.parts;
        let number = parts.lives.fetch_add(1, Ordering::Relaxed) + 1;
        let gate = Gate::new();
        Life {
            name: parts.name.clone(),
            number,
            disk: parts.disk.mount(),
            clock: parts.clock.clone(),
            random: SimRandom::new(parts.seed, &format!("{} life {number}", parts.name)),
            network: SimNetwork::new(&parts.name, gate.clone(), parts.cuts.clone()),
            transport_dice: Dice::new(parts.seed, &format!("datagrams of {} life {number}", parts.name)),
            loss: parts.loss.clone(),
            gate,
        }
    }
}
