//! Brings an armed peer to its point. In: the plan of a point. Out: the peer's death, or that it did not
//! come to it in time. It does what an operator or a bad day would: drains, kills, waits.

use super::control::Ask;
use super::grid::{GUEST, Grid};
use super::load::Load;
use super::patience::Patience;
use super::points::{How, Planned};
use keystead::clock;
use std::time::Duration;

/// How often a peer is brought near its point.
const TRIES: u32 = 12;
/// Between two looks whether it has died.
const LOOK: Duration = Duration::from_millis(10);
/// How long one attempt is given before the next.
const TRY: Duration = Duration::from_secs(4);
/// Writes during which a peer's log falls behind by more than is kept for it.
const GONE_ON: u64 = 2500;
/// How long a peer is alone: less than the time after which it may not write any more.
const ALONE: Duration = Duration::from_millis(200);
/// How long writes are answered slowly at most.
const SLOW: Duration = Duration::from_secs(30);

/// What a failpoint is to do: to end the process, after having been passed so often.
pub(super) fn crash(skip: u32) -> String {
    if skip == 0 { "return(crash)".to_owned() } else { format!("{skip}*off->return(crash)") }
}

/// Brings a peer to its point, if it comes to it; its deaths are noted as they happen.
pub(super) async fn to_the_point(grid: &mut Grid, load: &mut Load, planned: &Planned) -> anyhow::Result<()> {
    let actions = crash(planned.skip);
    match planned.how {
        How::Alone => {
            for _ in 0..TRIES {
                grid.until_leads(planned.peer).await;
                leave(grid, load, planned).await?;
                grid.start_peer(planned.peer, Some((planned.point, &actions)))?;
                if ends(grid, &[planned.peer]).await {
                    return Ok(());
                }
                grid.start_all().await?;
            }
            return Ok(());
        }
        How::Start | How::Absence => {
            leave(grid, load, planned).await?;
            grid.start_peer(planned.peer, Some((planned.point, &actions)))?;
        }
        how => {
            if how == How::Moves && planned.peer != GUEST {
                // Leaders take newcomers in and send them what they lack.
                grid.until_leads(planned.peer).await;
            }
            drop(grid.peers[planned.peer].ask(&Ask::Arm(planned.point.to_owned(), actions)).await?);
        }
    }
    wait(grid, load, planned, &[planned.peer]).await;
    Ok(())
}

/// The founder that is killed again and again so that others are elected.
pub(super) fn victim(planned: &Planned) -> usize {
    (0..GUEST).find(|at| *at != planned.peer).unwrap_or_default()
}

/// Ends the peer in the way that lets it come to its point when it starts again.
async fn leave(grid: &mut Grid, load: &mut Load, planned: &Planned) -> anyhow::Result<()> {
    let others = || (0..=GUEST).filter(|at| *at != planned.peer);
    match planned.how {
        How::Absence => {
            grid.peers[planned.peer].kill().await;
            load.more(GONE_ON, SLOW).await;
        }
        How::Alone => {
            // What this one still writes while the others are dead, nobody else has. A peer that is only
            // stopped would find it in its connections when it goes on.
            for at in others() {
                grid.peers[at].kill().await;
            }
            clock::sleep(ALONE).await;
            grid.peers[planned.peer].kill().await;
            for at in others() {
                grid.start_peer(at, None)?;
            }
            // Not so long that their logs would be purged: then a snapshot would come instead.
            load.more(100, SLOW).await;
        }
        _ => grid.peers[planned.peer].kill().await,
    }
    Ok(())
}

/// Does what brings peers to the point until one of these has ended.
pub(super) async fn wait(grid: &mut Grid, load: &mut Load, planned: &Planned, watched: &[usize]) -> bool {
    for _ in 0..TRIES {
        stir(grid, load, planned).await;
        if ends(grid, watched).await {
            return true;
        }
    }
    false
}

/// Whether one of these ends within the time of an attempt.
async fn ends(grid: &mut Grid, watched: &[usize]) -> bool {
    let mut patience = Patience::of(TRY, LOOK);
    while patience.next().await {
        if watched.iter().any(|at| grid.peers[*at].has_ended()) {
            return true;
        }
    }
    false
}

/// One attempt. What does not succeed is tried again: peers are dying.
async fn stir(grid: &mut Grid, load: &mut Load, planned: &Planned) {
    match planned.how {
        How::Writes | How::Absence | How::Start | How::Alone => {}
        How::Pauses => {
            load.pause().await;
            clock::sleep(Duration::from_millis(300)).await;
            load.go_on();
        }
        How::Elections => {
            let other = victim(planned);
            grid.peers[other].kill().await;
            clock::sleep(Duration::from_millis(300)).await;
            drop(grid.start_peer(other, None));
        }
        How::Moves => {
            let drained = !grid.guest_drained;
            drop(clock::timeout(TRY, grid.drain_guest(drained)).await);
        }
    }
}
