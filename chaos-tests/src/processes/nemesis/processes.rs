//! Faults of processes: killed, standing still, started again and again.

use super::{Until, pick, some};
use crate::dice::Dice;
use crate::processes::fleet::Fleet;
use std::sync::Arc;
use tokio::sync::Mutex;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Kill,
    KillMajority,
    KillAll,
    RestartLoop,
    RollingRestart,
    EndInOrder,
    Stop,
    StopLong,
    StopMajority,
    StopAll,
}

pub(super) const KINDS: &[Kind] = &[
    Kind::Kill,
    Kind::Kill,
    Kind::KillMajority,
    Kind::KillAll,
    Kind::RestartLoop,
    Kind::RollingRestart,
    Kind::EndInOrder,
    Kind::Stop,
    Kind::StopLong,
    Kind::StopLong,
    Kind::StopMajority,
    Kind::StopAll,
];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill -9 of one",
            Kind::KillMajority => "kill -9 of a majority",
            Kind::KillAll => "kill -9 of all",
            Kind::RestartLoop => "kill -9 in a loop",
            Kind::RollingRestart => "kill -9 of each in turn",
            Kind::EndInOrder => "ordered restart",
            Kind::Stop => "SIGSTOP of one",
            Kind::StopLong => "SIGSTOP longer than a lease",
            Kind::StopMajority => "SIGSTOP of a majority",
            Kind::StopAll => "SIGSTOP of all",
        }
    }

    /// How many it concerns.
    fn victims(self, peers: usize) -> usize {
        match self {
            Kind::KillMajority | Kind::StopMajority => peers / 2 + 1,
            Kind::KillAll | Kind::StopAll | Kind::RollingRestart => peers,
            _ => 1,
        }
    }
}

/// Breaks something and mends it again.
pub(super) async fn break_one(
    kind: Kind,
    fleet: &Arc<Mutex<Fleet>>,
    dice: &mut Dice,
    until: Until,
) -> anyhow::Result<()> {
    let names = fleet.lock().await.names();
    let victims = some(&names, kind.victims(names.len()), dice);
    fleet.lock().await.timeline.fault(kind.name(), victims.join(" "));
    match kind {
        Kind::Kill | Kind::KillMajority | Kind::KillAll => {
            kill(fleet, &victims).await;
            until.wait(dice.between(0, if kind == Kind::Kill { 5000 } else { 2500 })).await;
            start(fleet, &victims, dice, until).await
        }
        Kind::RestartLoop => {
            for _ in 0..dice.between(3, 7) {
                kill(fleet, &victims).await;
                until.wait(dice.between(0, 300)).await;
                start(fleet, &victims, dice, until).await?;
                until.wait(dice.between(100, 1500)).await;
            }
            Ok(())
        }
        Kind::RollingRestart => {
            for victim in victims {
                let victim = [victim];
                kill(fleet, &victim).await;
                start(fleet, &victim, dice, until).await?;
                until.wait(dice.between(300, 1800)).await;
            }
            Ok(())
        }
        Kind::EndInOrder => end_in_order(fleet, &pick(&victims, dice), dice, until).await,
        Kind::Stop | Kind::StopLong | Kind::StopMajority | Kind::StopAll => {
            for victim in &victims {
                if let Some(peer) = fleet.lock().await.peer(victim) {
                    peer.stop().await;
                }
            }
            let longest = if kind == Kind::Stop { 700 } else { 6000 };
            until.wait(dice.between(if kind == Kind::StopLong { 1200 } else { 50 }, longest)).await;
            for victim in &victims {
                if let Some(peer) = fleet.lock().await.peer(victim) {
                    peer.go_on().await;
                }
                until.wait(dice.below(300)).await;
            }
            Ok(())
        }
    }
}

/// Kills them at the same moment.
async fn kill(fleet: &Mutex<Fleet>, victims: &[String]) {
    let mut fleet = fleet.lock().await;
    for victim in victims {
        fleet.strike(victim);
    }
    for victim in victims {
        fleet.kill(victim).await;
    }
}

async fn start(fleet: &Mutex<Fleet>, victims: &[String], dice: &mut Dice, until: Until) -> anyhow::Result<()> {
    for victim in victims {
        fleet.lock().await.start(victim).await?;
        until.wait(dice.below(400)).await;
    }
    Ok(())
}

/// Tells a peer to end, gives it some time to do so, and starts it again.
async fn end_in_order(fleet: &Mutex<Fleet>, victim: &str, dice: &mut Dice, until: Until) -> anyhow::Result<()> {
    if let Some(peer) = fleet.lock().await.peer(victim) {
        peer.end_in_order().await;
    }
    for _ in 0..dice.between(5, 60) {
        if fleet.lock().await.peer(victim).is_none_or(|peer| !peer.runs() || peer.ended().is_some()) {
            break;
        }
        until.wait(100).await;
    }
    kill(fleet, &[victim.to_owned()]).await;
    start(fleet, &[victim.to_owned()], dice, until).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_one() {
        let of = |peers| [Kind::Kill, Kind::KillMajority, Kind::KillAll].map(|kind| kind.victims(peers));
        assert_eq!(of(3), [1, 2, 3]);
        assert_eq!(of(4), [1, 3, 4]);
        assert_eq!(of(5), [1, 3, 5]);
    }
}
