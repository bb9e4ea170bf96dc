//! Carries a plan out, between the simulation's steps.

use super::links::Links;
use super::{Death, Fault, Insight, Plan, Spot};
use crate::machine::{GateOrder, Machine};
use crate::network::{Cuts, DatagramLoss};
use crate::tally;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use turmoil::Sim;

/// The longest that a message takes when nothing is wrong.
pub const LATENCY_MAX: Duration = Duration::from_millis(6);
/// A log that was not written to for so long is sealed: after 100 ms, and a write.
const SEALED: Duration = Duration::from_millis(150);

/// Carries a [`Plan`] out.
pub struct Nemesis {
    plan: Plan,
    machines: Vec<Machine>,
    insight: Rc<dyn Insight>,
    links: Links,
    loss: DatagramLoss,
    begun: usize,
    /// Faults that have begun and not ended, by number in the plan.
    active: Vec<usize>,
    /// Faults that keep their node down until they end.
    keep_down: BTreeSet<usize>,
    /// Whose streams a fault holds.
    cut_leaders: BTreeMap<usize, String>,
    quiet: bool,
}

impl Nemesis {
    /// A nemesis of these nodes; `clients` are hosts that it may cut off, but never kills.
    pub fn new(
        plan: Plan,
        machines: Vec<Machine>,
        clients: Vec<String>,
        (cuts, loss): (Cuts, DatagramLoss),
        insight: Rc<dyn Insight>,
    ) -> Self {
        let nodes = machines.iter().map(|machine| machine.name().to_owned()).collect();
        Nemesis {
            plan,
            machines,
            insight,
            links: Links::new(nodes, clients, cuts),
            loss,
            begun: 0,
            active: Vec::new(),
            keep_down: BTreeSet::new(),
            cut_leaders: BTreeMap::new(),
            quiet: false,
        }
    }

    /// Does what is due now. Called after every step of the simulation.
    pub fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        let buried = self.bury(sim);
        self.attend(sim, &buried);
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
            self.active.push(number);
            self.begin(sim, number);
        }
        if now >= self.plan.quiet_from {
            self.mend(sim);
        }
    }

    fn due(&self, now: Duration) -> Vec<usize> {
        self.active.iter().copied().filter(|active| self.plan.faults[*active].until <= now).collect()
    }

    /// Crashes the machines whose power went in the middle of a change, and names them.
    fn bury(&mut self, sim: &mut Sim<'_>) -> Vec<usize> {
        let dark: Vec<usize> =
            (0..self.machines.len()).filter(|node| self.machines[*node].disk().has_lost_power()).collect();
        dark.iter().for_each(|node| self.kill(sim, *node, Death::Power));
        dark
    }

    /// What an operator does: a peer that refuses its damaged disk gets an empty one, and one that has
    /// ended because its disk failed is started again. Who lost power has refused nothing.
    fn attend(&mut self, sim: &mut Sim<'_>, buried: &[usize]) {
        for node in 0..self.machines.len() {
            let machine = self.machines[node].clone();
            let (damaged, failed) = (machine.disk().is_damaged(), machine.disk().has_failed());
            if !(damaged || failed) || sim.is_host_running(machine.name()) || self.is_kept_down(node) {
                continue;
            }
            if damaged && !buried.contains(&node) {
                crate::event!(machine.name(), "its damaged disk is replaced");
                tally::fault("disk: damaged, then replaced");
                self.insight.lost_disk(machine.name(), true);
                machine.disk().replace();
            }
            self.start_if_down(sim, node);
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>, number: usize) {
        let fault = self.plan.faults[number].fault.clone();
        crate::event!("nemesis", "begin {fault:?}");
        if !self.strike(sim, number, &fault) {
            return crate::event!("nemesis", "{fault:?} is spared");
        }
        tally::fault(fault.name());
    }

    /// Begins a fault; false where it may not strike.
    fn strike(&mut self, sim: &mut Sim<'_>, number: usize, fault: &Fault) -> bool {
        match *fault {
            Fault::Crash(node, death) => self.kill(sim, node, death),
            Fault::CrashAll(death) => (0..self.machines.len()).for_each(|node| self.kill(sim, node, death)),
            Fault::Partition { .. } | Fault::OneWay(..) | Fault::Flap(..) | Fault::Clog(_) | Fault::Rest(_) => {
                self.links.set(sim, fault, true);
            }
            Fault::LeaderCut(of) => {
                let Some(leader) = self.insight.leader(of) else { return false };
                crate::event!("nemesis", "{leader} leads");
                self.links.hold(sim, &leader, true);
                self.cut_leaders.insert(number, leader);
            }
            Fault::Delay(most) => self.delay(sim, most),
            Fault::Loss(per_mille) => self.loss.set(per_mille),
            Fault::Pause(node, freeze) | Fault::LongPause(node, freeze) => {
                self.machines[node].order(GateOrder::Shut { freeze_clock: freeze });
            }
            Fault::Jump(node, ms) => self.machines[node].clock().set_skew_ms(ms),
            Fault::Drift(node, per_second) => self.machines[node].clock().set_drift(per_second),
            Fault::DiskFull(node, spare) => {
                let disk = self.machines[node].disk();
                disk.set_capacity(Some(disk.used() + spare));
            }
            Fault::SlowDisk(node, lag) => self.machines[node].disk().set_lag(lag),
            Fault::WriteError(node, after) => self.machines[node].disk().fail_write_after(after),
            Fault::SyncError(node, after) => self.machines[node].disk().fail_sync_after(after),
            Fault::Rot(node, spot) => return self.lose_disk(sim, number, node, Some(spot)),
            Fault::DiskLost(node) => return self.lose_disk(sim, number, node, None),
        }
        true
    }

    fn end(&mut self, sim: &mut Sim<'_>, number: usize) {
        let fault = self.plan.faults[number].fault.clone();
        crate::event!("nemesis", "end {fault:?}");
        self.keep_down.remove(&number);
        match fault {
            Fault::Crash(node, death) => self.revive(sim, node, death),
            Fault::CrashAll(death) => (0..self.machines.len()).for_each(|node| self.revive(sim, node, death)),
            Fault::Partition { .. } | Fault::OneWay(..) | Fault::Flap(..) | Fault::Clog(_) | Fault::Rest(_) => {
                self.links.set(sim, &fault, false);
            }
            Fault::LeaderCut(_) => {
                if let Some(leader) = self.cut_leaders.remove(&number) {
                    self.links.hold(sim, &leader, false);
                }
            }
            Fault::Delay(_) => self.delay(sim, LATENCY_MAX),
            Fault::Loss(_) => self.loss.set(0),
            Fault::Pause(node, _) | Fault::LongPause(node, _) => self.machines[node].order(GateOrder::Open),
            Fault::Jump(node, _) => self.machines[node].clock().set_skew_ms(0),
            Fault::Drift(node, _) => self.machines[node].clock().set_drift(0),
            Fault::DiskFull(node, _) => {
                self.machines[node].disk().set_capacity(None);
                self.start_if_down(sim, node);
            }
            Fault::SlowDisk(node, _) => self.machines[node].disk().set_lag(Duration::ZERO),
            Fault::WriteError(node, _) | Fault::SyncError(node, _) => {
                self.machines[node].disk().clear_errors();
                self.start_if_down(sim, node);
            }
            Fault::Rot(node, _) | Fault::DiskLost(node) => self.start_if_down(sim, node),
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

    /// Power loss that damages the disk, or takes it; false where no promise would survive that.
    fn lose_disk(&mut self, sim: &mut Sim<'_>, number: usize, node: usize, spot: Option<Spot>) -> bool {
        let machine = self.machines[node].clone();
        if !self.insight.may_lose_disk(machine.name()) {
            return false;
        }
        if matches!(spot, Some(Spot::LogEnd(_) | Spot::Log(_))) && !self.has_rested(sim.elapsed(), node) {
            return false;
        }
        self.kill(sim, node, Death::Power);
        match spot {
            Some(spot) => {
                let Some((path, offset)) = spot.strike(machine.disk()) else { return false };
                crate::event!(machine.name(), "a bit of {} flips at {offset}", path.display());
            }
            None => machine.disk().replace(),
        }
        self.insight.lost_disk(machine.name(), spot.is_none());
        self.keep_down.insert(number);
        true
    }

    /// Whether the node ran undisturbed for so long that the end of its log is sealed: else damage to it
    /// passes for a torn write, and no promise says otherwise. What another fault had held up may have reached
    /// it all the same.
    fn has_rested(&self, now: Duration, node: usize) -> bool {
        let lately = |planned: &&super::Planned| planned.from < now && planned.until + super::RESTS > now;
        let undisturbed = !self.plan.faults.iter().filter(lately).any(|planned| planned.fault.disturbs(node));
        undisturbed && self.machines[node].disk().last_write() + SEALED < crate::trace::now()
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
        let others: Vec<&String> = self.links.hosts().filter(|other| *other != name).collect();
        others.iter().for_each(|other| sim.partition(name, other.as_str()));
        sim.crash(name);
        for other in others {
            sim.repair(name, other.as_str());
            for (from, to) in [(name, other.as_str()), (other.as_str(), name)] {
                if self.links.is_cut(from, to) {
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

    /// Whether a fault keeps a node down that has not ended: its end then starts it.
    fn is_kept_down(&self, node: usize) -> bool {
        self.active.iter().any(|number| match self.plan.faults[*number].fault {
            Fault::Crash(other, death) => other == node && !matches!(death, Death::PowerAtChange(_)),
            Fault::CrashAll(death) => !matches!(death, Death::PowerAtChange(_)),
            Fault::Rot(other, _) | Fault::DiskLost(other) => other == node && self.keep_down.contains(number),
            Fault::WriteError(other, _) | Fault::SyncError(other, _) => {
                other == node && self.machines[node].disk().has_failed()
            }
            _ => false,
        })
    }

    fn start_if_down(&mut self, sim: &mut Sim<'_>, node: usize) {
        let name = self.machines[node].name().to_owned();
        if !self.is_kept_down(node) && !sim.is_host_running(name.as_str()) {
            crate::event!(&name, "starts");
            // It may have ended by itself: what its process held is gone either way.
            self.machines[node].disk().kill();
            sim.bounce(name.as_str());
        }
    }

    fn delay(&self, sim: &Sim<'_>, most: Duration) {
        let hosts: Vec<&String> = self.links.hosts().collect();
        for (at, host) in hosts.iter().enumerate() {
            for other in &hosts[at + 1..] {
                sim.set_link_max_message_latency(host.as_str(), other.as_str(), most);
            }
        }
    }
}
