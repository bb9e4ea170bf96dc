//! Which clients a seed runs besides those that every seed runs: a few of them each time, drawn by dice of
//! their own, so that a run stays short.

use super::shape::Shape;
use super::{Records, cancels, copies, jobs, pipelined, scarce, transfers, walks};
use crate::dice::Dice;
use crate::simulation::Simulation;
use std::cell::RefCell;
use std::rc::Rc;

/// Of a thousand seeds, how many run each.
const SHARE: u32 = 300;

/// Starts the clients that the seed draws.
pub(super) fn start(simulation: &mut Simulation, seed: u64, shape: &Shape, endpoints: &[String], records: &Records) {
    let mut dice = Dice::new(seed, "further");
    let [moves, walked, limits, copied, jobbed, cancelled] = [(); 6].map(|()| dice.per_mille(SHARE));
    let drawn = [moves, walked, limits, copied, jobbed, cancelled];
    crate::event!("grid", "transfers, walks, limits, copies, jobs, cancels: {drawn:?}");
    let given = || (endpoints.to_vec(), records.clone());
    if moves {
        let ledger = Rc::new(RefCell::new(transfers::Ledger::default()));
        for name in ["b0", "b1"] {
            let ((seeds, records), ledger) = (given(), ledger.clone());
            simulation.client(name, move |life| transfers::transfer(life, seed, seeds, ledger, records));
        }
    }
    if walked {
        let content = Rc::new(RefCell::new(walks::Content::default()));
        let ((seeds, records), writes) = (given(), content.clone());
        simulation.client("s0", move |life| walks::write(life, seed, seeds, writes, records));
        let (seeds, records) = given();
        simulation.client("s1", move |life| walks::walk(life, seed, seeds, content, records));
    }
    if limits {
        let ((seeds, records), partitions) = (given(), shape.partitions);
        simulation.client("l0", move |life| scarce::fill(life, seed, seeds, partitions, records));
    }
    if copied {
        let (seeds, records) = given();
        let peers = shape.names().into_iter().zip(seeds).collect();
        simulation.client("k0", move |life| copies::follow(life, seed, peers, records));
    }
    if jobbed {
        let (seeds, records) = given();
        simulation.client("j0", move |life| jobs::work(life, seed, seeds, records));
    }
    if cancelled {
        let (seeds, records) = given();
        simulation.client("u0", move |life| cancels::cancel(life, seed, seeds, records));
    }
    // Drawn by dice of its own: the seeds that it does not run in stay as they were.
    let pipelines = Dice::new(seed, "pipelines").per_mille(SHARE);
    crate::event!("grid", "pipelines: {pipelines}");
    if pipelines {
        for (name, id) in [("o0", 200), ("o1", 201)] {
            let (seeds, records) = given();
            simulation.client(name, move |life| pipelined::pipeline(life, seed, id, seeds, records));
        }
    }
}
