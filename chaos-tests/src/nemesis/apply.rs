//! Carries a plan out, between the simulation's steps.

use super::{Death, Fault, Plan};
use crate::machine::{GateOrder, Machine};
use crate::network::{Cuts, DatagramLoss};
use std::collections::BTreeMap;
use std::time::Duration;
use turmoil::Sim;

/// The longest that a message takes when nothing is wrong.
pub const LATENCY_MAX: Duration = Duration::from_millis(6);

/// Carries a [`Plan`] out.
pub struct Nemesis {
    plan: Plan,
    machines: Vec<Machine>,
    clients: Vec<String>,
    cuts: Cuts,
    loss: DatagramLoss,
    /// How many faults cut a direction.
    cut: BTreeMap<(String, String), u32>,
    begun: usize,
    /// Faults that have begun and not ended, by number in the plan.
    active: Vec<usize>,
    quiet: bool,
}

impl Nemesis {
    /// A nemesis of these nodes; `clients` are hosts that it may cut off, but never kills.
    pub fn new(plan: Plan, machines: Vec<Machine>, clients: Vec<String>, cuts: Cuts, loss: DatagramLoss) -> Self {
        let cut = BTreeMap::new();
        Nemesis { plan, machines, clients, cuts, loss, cut, begun: 0, active: Vec::new(), quiet: false }
    }

    /// Does what is due now. Called after every step of the simulation.
    pub fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        self.bury(sim);
        if self.quiet {
            return;
        }
        for ended in self.due(now) {
            self.active.retain(|active| *active != ended);
            self.end(sim, ended);
        }
        while self.plan.faults.get(self.begun).is_some_and(|planned| planned.from <= now) {
            let number = self.begun;
            self.begun += 1;
            self.begin(sim, number);
            self.active.push(number);
        }
        if now >= self.plan.quiet_from {
            self.mend(sim);
        }
    }

    fn due(&self, now: Duration) -> Vec<usize> {
        self.active.iter().copied().filter(|active| self.plan.faults[*active].until <= now).collect()
    }

    /// Crashes the machines whose power went in the middle of a change.
    fn bury(&mut self, sim: &mut Sim<'_>) {
        for node in 0..self.machines.len() {
            if self.machines[node].disk().has_lost_power() {
                self.kill(sim, node, Death::Power);
            }
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>, number: usize) {
        let fault = self.plan.faults[number].fault.clone();
        crate::event!("nemesis", "begin {fault:?}");
        match fault {
            Fault::Crash(node, death) => self.kill(sim, node, death),
            Fault::CrashAll(death) => (0..self.machines.len()).for_each(|node| self.kill(sim, node, death)),
            Fault::Partition { .. } | Fault::OneWay(..) => self.set_cuts(sim, &fault, true),
            Fault::Delay(most) => self.delay(sim, most),
            Fault::Loss(per_mille) => self.loss.set(per_mille),
            Fault::Pause(node, freeze) => self.machines[node].order(GateOrder::Shut { freeze_clock: freeze }),
            Fault::Skew(node, ms) => self.machines[node].clock().set_skew_ms(ms),
        }
    }

    fn end(&mut self, sim: &mut Sim<'_>, number: usize) {
        let fault = self.plan.faults[number].fault.clone();
        crate::event!("nemesis", "end {fault:?}");
        match fault {
            Fault::Crash(node, death) => self.revive(sim, node, death),
            Fault::CrashAll(death) => (0..self.machines.len()).for_each(|node| self.revive(sim, node, death)),
            Fault::Partition { .. } | Fault::OneWay(..) => self.set_cuts(sim, &fault, false),
            Fault::Delay(_) => self.delay(sim, LATENCY_MAX),
            Fault::Loss(_) => self.loss.set(0),
            Fault::Pause(node, _) => self.machines[node].order(GateOrder::Open),
            Fault::Skew(node, _) => self.machines[node].clock().set_skew_ms(0),
        }
    }

    /// Ends all faults, whatever their plan says, and starts every node that is down.
    fn mend(&mut self, sim: &mut Sim<'_>) {
        self.quiet = true;
        for number in std::mem::take(&mut self.active) {
            self.end(sim, number);
        }
        for node in 0..self.machines.len() {
            self.machines[node].disk().clear_faults();
            self.machines[node].order(GateOrder::Open);
            self.start_if_down(sim, node);
        }
        crate::event!("nemesis", "everything is mended");
    }

    fn kill(&mut self, sim: &mut Sim<'_>, node: usize, death: Death) {
        let machine = self.machines[node].clone();
        let running = sim.is_host_running(machine.name());
        match death {
            Death::PowerAtChange(changes) if running => return machine.disk().power_off_after(changes),
            Death::PowerAtChange(_) => return,
            Death::Kill => machine.disk().kill(),
            Death::Power => machine.disk().crash(),
            Death::PowerHard => machine.disk().crash_hard(),
        }
        if !running {
            return;
        }
        crate::event!(machine.name(), "dies ({death:?})");
        if death == Death::Kill {
            sim.crash(machine.name());
        } else {
            self.crash_silently(sim, machine.name());
        }
    }

    /// A machine without power says no farewell: its connections are left open at the others.
    fn crash_silently(&self, sim: &mut Sim<'_>, name: &str) {
        let others: Vec<String> = self.hosts().filter(|other| other != name).collect();
        others.iter().for_each(|other| sim.partition(name, other.as_str()));
        sim.crash(name);
        for other in &others {
            sim.repair(name, other.as_str());
            for (from, to) in [(name, other.as_str()), (other.as_str(), name)] {
                if self.cut.contains_key(&(from.to_owned(), to.to_owned())) {
                    sim.partition_oneway(from, to);
                }
            }
        }
    }

    fn revive(&mut self, sim: &mut Sim<'_>, node: usize, death: Death) {
        if matches!(death, Death::PowerAtChange(_)) && sim.is_host_running(self.machines[node].name()) {
            // It never changed its disk that often.
            self.kill(sim, node, Death::Power);
        }
        self.start_if_down(sim, node);
    }

    fn start_if_down(&mut self, sim: &mut Sim<'_>, node: usize) {
        let name = self.machines[node].name().to_owned();
        // Another fault may hold it down for longer; the later end then starts it.
        let still_down = self.active.iter().any(|number| match self.plan.faults[*number].fault {
            Fault::Crash(other, death) => other == node && !matches!(death, Death::PowerAtChange(_)),
            Fault::CrashAll(death) => !matches!(death, Death::PowerAtChange(_)),
            _ => false,
        });
        if !still_down && !sim.is_host_running(name.as_str()) {
            crate::event!(&name, "starts");
            sim.bounce(name.as_str());
        }
    }

    fn hosts(&self) -> impl Iterator<Item = String> + '_ {
        self.machines.iter().map(|machine| machine.name().to_owned()).chain(self.clients.iter().cloned())
    }

    fn delay(&self, sim: &Sim<'_>, most: Duration) {
        let hosts: Vec<String> = self.hosts().collect();
        for (at, host) in hosts.iter().enumerate() {
            for other in &hosts[at + 1..] {
                sim.set_link_max_message_latency(host.as_str(), other.as_str(), most);
            }
        }
    }

    fn set_cuts(&mut self, sim: &Sim<'_>, fault: &Fault, cut: bool) {
        let name = |node: &usize| self.machines[*node].name().to_owned();
        let directions: Vec<(String, String)> = match fault {
            Fault::OneWay(from, to) => vec![(name(from), name(to))],
            Fault::Partition { side, clients } => {
                let inside: Vec<String> = side.iter().map(name).collect();
                let outside = (0..self.machines.len()).filter(|node| !side.contains(node)).map(|node| name(&node));
                let clients = self.clients.iter().filter(|_| *clients).cloned();
                let outside: Vec<String> = outside.chain(clients).collect();
                let pairs = inside.iter().flat_map(|a| outside.iter().map(move |b| (a.clone(), b.clone())));
                pairs.flat_map(|(a, b)| [(a.clone(), b.clone()), (b, a)]).collect()
            }
            _ => Vec::new(),
        };
        directions.into_iter().for_each(|(from, to)| self.set_cut(sim, from, to, cut));
    }

    fn set_cut(&mut self, sim: &Sim<'_>, from: String, to: String, cut: bool) {
        let count = self.cut.entry((from.clone(), to.clone())).or_default();
        let before = *count;
        *count = if cut { before + 1 } else { before.saturating_sub(1) };
        let after = *count;
        if after == 0 {
            self.cut.remove(&(from.clone(), to.clone()));
        }
        if (before == 0) != (after == 0) {
            self.cuts.set(sim.lookup(from.as_str()), sim.lookup(to.as_str()), cut);
            match cut {
                true => sim.partition_oneway(from.as_str(), to.as_str()),
                false => sim.repair_oneway(from.as_str(), to.as_str()),
            }
        }
    }
}
