//! Which links are cut: several faults may cut the same one, and the last to end mends it.

use super::plan::Fault;
use crate::network::Cuts;
use std::collections::BTreeMap;
use turmoil::Sim;

/// From a host to a host.
type Direction = (String, String);

/// The links between hosts.
pub(super) struct Links {
    nodes: Vec<String>,
    clients: Vec<String>,
    cuts: Cuts,
    /// How many faults cut a direction.
    cut: BTreeMap<Direction, u32>,
    /// How many faults hold its streams.
    held: BTreeMap<Direction, u32>,
}

/// Counts one fault more or less; says whether that changed anything.
fn count(counts: &mut BTreeMap<Direction, u32>, direction: &Direction, more: bool) -> bool {
    let count = counts.entry(direction.clone()).or_default();
    let before = *count;
    *count = if more { before + 1 } else { before.saturating_sub(1) };
    let after = *count;
    if after == 0 {
        counts.remove(direction);
    }
    (before == 0) != (after == 0)
}

impl Links {
    pub(super) fn new(nodes: Vec<String>, clients: Vec<String>, cuts: Cuts) -> Self {
        Links { nodes, clients, cuts, cut: BTreeMap::new(), held: BTreeMap::new() }
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &String> {
        self.nodes.iter().chain(&self.clients)
    }

    pub(super) fn is_cut(&self, from: &str, to: &str) -> bool {
        self.cut.contains_key(&(from.to_owned(), to.to_owned()))
    }

    /// Cuts what a fault cuts, or mends it.
    pub(super) fn set(&mut self, sim: &Sim<'_>, fault: &Fault, cut: bool) {
        for (from, to) in self.directions(fault) {
            if count(&mut self.cut, &(from.clone(), to.clone()), cut) {
                self.cuts.set(sim.lookup(from.as_str()), sim.lookup(to.as_str()), cut);
                match cut {
                    true => sim.partition_oneway(from.as_str(), to.as_str()),
                    false => sim.repair_oneway(from.as_str(), to.as_str()),
                }
            }
        }
    }

    /// Holds the streams between a node and the others, or lets them go on.
    pub(super) fn hold(&mut self, sim: &Sim<'_>, node: &str, hold: bool) {
        let others: Vec<String> = self.nodes.iter().filter(|other| *other != node).cloned().collect();
        for (from, to) in others.into_iter().flat_map(|other| both(node.to_owned(), other)) {
            if count(&mut self.held, &(from.clone(), to.clone()), hold) {
                self.cuts.hold(sim.lookup(from.as_str()), sim.lookup(to.as_str()), hold);
            }
        }
    }

    fn directions(&self, fault: &Fault) -> Vec<Direction> {
        let name = |node: &usize| self.nodes[*node].clone();
        let apart = |side: &[usize], clients: bool| -> Vec<Direction> {
            let outside = (0..self.nodes.len()).filter(|node| !side.contains(node)).map(|node| name(&node));
            let clients = self.clients.iter().filter(|_| clients).cloned();
            let outside: Vec<String> = outside.chain(clients).collect();
            let pairs = side.iter().flat_map(|a| outside.iter().map(move |b| (name(a), b.clone())));
            pairs.flat_map(|(a, b)| both(a, b)).collect()
        };
        match fault {
            Fault::OneWay(from, to) => vec![(name(from), name(to))],
            Fault::Flap(a, b) => both(name(a), name(b)).into(),
            Fault::Partition { side, clients } => apart(side, *clients),
            Fault::Clog(node) => apart(&[*node], false),
            Fault::Rest(node) => apart(&[*node], true),
            _ => Vec::new(),
        }
    }
}

fn both(a: String, b: String) -> [Direction; 2] {
    [(a.clone(), b.clone()), (b, a)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_fault_to_end_mends_a_link() {
        let mut counts = BTreeMap::new();
        let direction = ("a".to_owned(), "b".to_owned());
        let changed = [true, true, false, false].map(|more| count(&mut counts, &direction, more));
        assert_eq!(changed, [true, false, false, true]);
        assert!(counts.is_empty());
    }

    #[test]
    fn faults_cut_what_they_name() {
        let names = ["n1", "n2", "n3"].map(str::to_owned).to_vec();
        let links = Links::new(names, vec!["c0".to_owned()], Cuts::default());
        let count = |fault: Fault| links.directions(&fault).len();
        assert_eq!(count(Fault::OneWay(0, 1)), 1);
        assert_eq!(count(Fault::Flap(0, 1)), 2);
        assert_eq!(count(Fault::Clog(2)), 4);
        assert_eq!(count(Fault::Rest(2)), 6);
        assert_eq!(count(Fault::Partition { side: vec![0, 1], clients: true }), 8);
        assert_eq!(count(Fault::Delay(std::time::Duration::ZERO)), 0);
    }
}
