//! What breaks processes, links and the set of members, three lanes beside each other.
//!
//! In: a seed, a round, a time. Out: faults, one after the other in each lane, each begun and undone
//! again, and noted in the timeline. Kinds are drawn as cards from a shuffled deck, so that even a short
//! run sees many of them; what a kind does to whom, and for how long, is drawn too.

mod links;
mod members;
mod processes;

pub use members::{Change, finish_removal};

use super::fleet::Fleet;
use crate::dice::Dice;
use keystead::client::Client;
use keystead::clock::{Instant, sleep};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Kinds in random order; each comes once before any comes again.
struct Deck<T> {
    kinds: Vec<T>,
    left: Vec<T>,
    dice: Dice,
}

impl<T: Copy> Deck<T> {
    fn new(kinds: &[T], seed: u64, label: &str) -> Self {
        Deck { kinds: kinds.to_vec(), left: Vec::new(), dice: Dice::new(seed, label) }
    }

    fn draw(&mut self) -> T {
        if self.left.is_empty() {
            self.left = self.kinds.clone();
        }
        let at = self.dice.index(self.left.len());
        self.left.swap_remove(at)
    }
}

/// The decks of a run.
pub struct Nemesis {
    seed: u64,
    processes: Deck<processes::Kind>,
    links: Deck<links::Kind>,
    members: Deck<members::Kind>,
}

/// When a round's faults end.
#[derive(Clone, Copy)]
struct Until(Instant);

impl Until {
    fn is_over(self) -> bool {
        Instant::now() >= self.0
    }

    /// Waits, but not beyond the end.
    async fn wait(self, milliseconds: u64) {
        let left = self.0 - Instant::now();
        sleep(left.min(Duration::from_millis(milliseconds))).await;
    }
}

impl Nemesis {
    /// Full decks; with netem, the kernel's own faults are among them, and with failpoints those of the
    /// program.
    pub fn new(seed: u64, netem: bool, failpoints: bool) -> Nemesis {
        let failpoints = if failpoints { processes::BY_FAILPOINTS } else { &[] };
        let netem = if netem { &[links::Kind::Netem][..] } else { &[] };
        Nemesis {
            seed,
            processes: Deck::new(&[processes::KINDS, failpoints].concat(), seed, "deck of processes"),
            links: Deck::new(&[links::KINDS, netem].concat(), seed, "deck of links"),
            members: Deck::new(members::KINDS, seed, "deck of members"),
        }
    }

    /// Breaks things for so long. What membership changes were begun is to be finished afterwards.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub async fn rage(
        &mut self,
        round: u32,
        fleet: &Arc<Mutex<Fleet>>,
        client: &Client,
        lasts: Duration,
    ) -> anyhow::Result<Change> {
        let until = Until(Instant::now() + lasts);
        let dice = |lane: &str| Dice::new(self.seed, &format!("round {round} {lane}"));
        let (mut of_processes, mut of_links, of_members) = (dice("processes"), dice("links"), dice("members"));
        let on_processes = async {
            until.wait(of_processes.between(0, 1500)).await;
            while !until.is_over() {
                processes::break_one(self.processes.draw(), fleet, &mut of_processes, until).await?;
                until.wait(of_processes.between(200, 2500)).await;
            }
            anyhow::Ok(())
        };
        let on_links = async {
            until.wait(of_links.between(0, 1500)).await;
            while !until.is_over() {
                links::break_some(self.links.draw(), fleet, &mut of_links, until).await;
                until.wait(of_links.between(200, 2500)).await;
            }
        };
        let on_members = members::change(self.members.draw(), fleet, of_members, client, until);
        let (processes, (), members) = tokio::join!(on_processes, on_links, on_members);
        processes?;
        members
    }
}

/// One of the peers that are not leaving; at least three are there.
fn pick(names: &[String], dice: &mut Dice) -> String {
    names.get(dice.index(names.len())).cloned().unwrap_or_default()
}

/// Some of these, in random order.
fn some<T: Clone>(of: &[T], count: usize, dice: &mut Dice) -> Vec<T> {
    let mut left = of.to_vec();
    let mut some = Vec::new();
    while some.len() < count && !left.is_empty() {
        some.push(left.swap_remove(dice.index(left.len())));
    }
    some
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_comes_once_before_any_comes_again() {
        let mut deck = Deck::new(&[1, 2, 3, 4, 5], 3, "x");
        for _ in 0..4 {
            let mut drawn: Vec<i32> = (0..5).map(|_| deck.draw()).collect();
            drawn.sort_unstable();
            assert_eq!(drawn, [1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn some_are_different() {
        let mut dice = Dice::new(1, "x");
        let mut drawn = some(&[1, 2, 3, 4], 3, &mut dice);
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 3);
        assert_eq!(some(&[1], 3, &mut dice), [1]);
    }
}
