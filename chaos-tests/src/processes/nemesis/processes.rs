//! Faults of processes: killed, standing still, started again and again, without room on their disks.
//! In: a kind. Out: the fault, undone again, and whether it struck all whom it was meant for.

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
    FullDisk,
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

/// Those of a program that has failpoints.
pub(super) const BY_FAILPOINTS: &[Kind] = &[Kind::FullDisk];

/// What a peer says when its log has no room.
const FULL: &str = "the log's disk full=true";

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
            Kind::FullDisk => "full disk",
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
    let told = victims.join(" ");
    fleet.lock().await.timeline.note(format_args!("{} begins: {told}", kind.name()));
    let struck = match kind {
        Kind::Kill | Kind::KillMajority | Kind::KillAll => {
            let struck = kill(fleet, &victims).await;
            until.wait(dice.between(0, if kind == Kind::Kill { 5000 } else { 2500 })).await;
            start(fleet, &victims, dice, until).await?;
            struck
        }
        Kind::RestartLoop => {
            let mut struck = 0;
            for _ in 0..dice.between(3, 7) {
                struck += u64::from(kill(fleet, &victims).await);
                until.wait(dice.between(0, 300)).await;
                start(fleet, &victims, dice, until).await?;
                until.wait(dice.between(100, 1500)).await;
            }
            struck > 1
        }
        Kind::RollingRestart => {
            let mut struck = true;
            for victim in victims {
                let victim = [victim];
                struck &= kill(fleet, &victim).await;
                start(fleet, &victim, dice, until).await?;
                until.wait(dice.between(300, 1800)).await;
            }
            struck
        }
        Kind::EndInOrder => end_in_order(fleet, &pick(&victims, dice), dice, until).await?,
        Kind::FullDisk => fill(fleet, &pick(&victims, dice), dice, until).await?,
        Kind::Stop | Kind::StopLong | Kind::StopMajority | Kind::StopAll => {
            let longest = if kind == Kind::Stop { 700 } else { 6000 };
            let lasts = dice.between(if kind == Kind::StopLong { 1200 } else { 50 }, longest);
            stop(fleet, &victims, lasts, dice, until).await
        }
    };
    fleet.lock().await.timeline.came_of(kind.name(), struck, format_args!("over, {told}"));
    Ok(())
}

/// Kills them at the same moment; whether all of them ran.
async fn kill(fleet: &Mutex<Fleet>, victims: &[String]) -> bool {
    let mut fleet = fleet.lock().await;
    let struck = victims.iter().filter(|victim| fleet.strike(victim)).count();
    for victim in victims {
        fleet.kill(victim).await;
    }
    struck == victims.len()
}

async fn start(fleet: &Mutex<Fleet>, victims: &[String], dice: &mut Dice, until: Until) -> anyhow::Result<()> {
    for victim in victims {
        fleet.lock().await.start(victim).await?;
        until.wait(dice.below(400)).await;
    }
    Ok(())
}

/// Stops them for so many milliseconds; whether all of them ran.
async fn stop(fleet: &Mutex<Fleet>, victims: &[String], lasts: u64, dice: &mut Dice, until: Until) -> bool {
    let mut stopped = 0;
    for victim in victims {
        stopped += usize::from(fleet.lock().await.stop(victim).await);
    }
    until.wait(lasts).await;
    for victim in victims {
        if let Some(peer) = fleet.lock().await.peer(victim) {
            peer.go_on().await;
        }
        until.wait(dice.below(300)).await;
    }
    stopped == victims.len()
}

/// A peer's disk has no room for some time: from its start on, or after so many steps. Failpoints are armed
/// at a start only, so it is started for it and started again. Whether it came to want room.
async fn fill(fleet: &Mutex<Fleet>, victim: &str, dice: &mut Dice, until: Until) -> anyhow::Result<bool> {
    let passes = dice.pick(&["", "20*off->", "300*off->"]);
    let armed = format!("log-room={passes}return(full);state-room=return(full)");
    let victims = [victim.to_owned()];
    kill(fleet, &victims).await;
    let said = {
        let mut fleet = fleet.lock().await;
        let said = fleet.peer(victim).map_or(0, |peer| peer.said());
        fleet.start_armed(victim, Some(&armed)).await?;
        said
    };
    until.wait(dice.between(2000, 7000)).await;
    let struck = fleet.lock().await.peer(victim).is_some_and(|peer| peer.has_said(FULL, said));
    kill(fleet, &victims).await;
    start(fleet, &victims, dice, until).await?;
    Ok(struck)
}

/// Tells a peer to end, gives it some time to do so, and starts it again; whether it was told.
async fn end_in_order(fleet: &Mutex<Fleet>, victim: &str, dice: &mut Dice, until: Until) -> anyhow::Result<bool> {
    let struck = fleet.lock().await.end_in_order(victim).await;
    for _ in 0..dice.between(5, 60) {
        if fleet.lock().await.peer(victim).is_none_or(|peer| !peer.runs() || peer.ended().is_some()) {
            break;
        }
        until.wait(100).await;
    }
    kill(fleet, &[victim.to_owned()]).await;
    start(fleet, &[victim.to_owned()], dice, until).await?;
    Ok(struck)
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
