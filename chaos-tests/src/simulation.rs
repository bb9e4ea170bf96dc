//! A run: turmoil's simulation, the machines in it and the nemesis that plagues them.
//!
//! In: a seed, what runs on the machines, what the clients do. Out: whether all clients finished
//! in time. It is the only place that steps the simulation.

use crate::dice::Dice;
use crate::machine::{Life, Machine};
use crate::nemesis::{Blind, Insight, LATENCY_MAX, Nemesis, Plan};
use crate::network::{Cuts, DatagramLoss};
use crate::ports::EPOCH;
use crate::{tally, trace};
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};
use turmoil::Sim;

/// How much time passes per step.
const TICK: Duration = Duration::from_millis(1);

/// Segments in flight per stream, and connections that wait to be accepted, before turmoil
/// objects.
const STREAM_CAPACITY: usize = 4096;

/// A simulation under construction, then running.
pub struct Simulation {
    seed: u64,
    sim: Sim<'static>,
    machines: Vec<Machine>,
    clients: Vec<String>,
    cuts: Cuts,
    loss: DatagramLoss,
}

impl Simulation {
    /// A simulation that may take so long, in simulated time.
    pub fn new(seed: u64, at_most: Duration) -> Self {
        let sim = turmoil::Builder::new()
            .epoch(UNIX_EPOCH + EPOCH)
            .rng_seed(Dice::new(seed, "network").next_u64())
            .simulation_duration(at_most)
            .tick_duration(TICK)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(LATENCY_MAX)
            .tcp_capacity(STREAM_CAPACITY)
            .udp_capacity(STREAM_CAPACITY)
            .enable_random_order()
            .build();
        Simulation {
            seed,
            sim,
            machines: Vec::new(),
            clients: Vec::new(),
            cuts: Cuts::default(),
            loss: DatagramLoss::default(),
        }
    }

    /// The address that a host of this name has or will have.
    pub fn address(&self, name: &str) -> std::net::IpAddr {
        self.sim.lookup(name)
    }

    /// Adds a machine; `process` runs on it anew after every start.
    pub fn machine<F, Fut>(&mut self, name: &str, process: F) -> Machine
    where
        F: Fn(Life) -> Fut + Clone + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let machine = Machine::new(name, self.seed, self.cuts.clone(), self.loss.clone());
        let on = machine.clone();
        self.sim.host(name, move || on.clone().live(process.clone()));
        self.machines.push(machine.clone());
        machine
    }

    /// Adds a host that never crashes; the run is over when all clients are.
    pub fn client<F, Fut>(&mut self, name: &str, work: F)
    where
        F: FnOnce(Life) -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.clients.push(name.to_owned());
        self.spectator(name, work);
    }

    /// The same, but no fault of the network ever cuts it off.
    pub fn spectator<F, Fut>(&mut self, name: &str, work: F)
    where
        F: FnOnce(Life) -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let machine = Machine::new(name, self.seed, self.cuts.clone(), self.loss.clone());
        self.sim.client(name, machine.live(work));
    }

    /// Runs until all clients have finished, under the plan's faults.
    ///
    /// # Errors
    /// When the time is over first, or a host's own code panicked.
    pub fn run(self, plan: Plan) -> Result<Duration, String> {
        self.run_with(plan, Rc::new(Blind))
    }

    /// The same with a nemesis that knows what it strikes.
    ///
    /// # Errors
    /// As [`Simulation::run`].
    pub fn run_with(mut self, plan: Plan, insight: Rc<dyn Insight>) -> Result<Duration, String> {
        let mut nemesis = Nemesis::new(plan, self.machines, self.clients, (self.cuts, self.loss), insight);
        let ended = loop {
            trace::set_now(self.sim.elapsed());
            let finished = self.sim.step().map_err(|error| error.to_string());
            trace::set_now(self.sim.elapsed());
            match finished {
                Err(what) => break Err(what),
                Ok(true) => break Ok(self.sim.elapsed()),
                Ok(false) => nemesis.step(&mut self.sim),
            }
        };
        tally::simulated(self.sim.elapsed());
        ended
    }
}
