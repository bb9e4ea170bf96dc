//! Changes of the members in the middle of everything else: one a round.

use super::{Until, pick};
use crate::dice::Dice;
use crate::processes::fleet::Fleet;
use keystead::client::Client;
use keystead::error::Code;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Fewer members would hold fewer than three copies.
const FEWEST: usize = 3;
/// More processes would only take each other's time.
const MOST: usize = 5;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Join,
    Remove,
    /// A peer dies with its disk, and another takes its place.
    LoseDisk,
    /// One joins and one is removed.
    Exchange,
    Nothing,
}

pub(super) const KINDS: &[Kind] =
    &[Kind::Join, Kind::Remove, Kind::LoseDisk, Kind::Exchange, Kind::Join, Kind::Remove, Kind::Nothing];

/// What was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// A member that is to go.
    pub removed: Option<String>,
}

/// Changes the members once, some time before the end.
pub(super) async fn change(
    kind: Kind,
    fleet: &Arc<Mutex<Fleet>>,
    mut dice: Dice,
    client: &Client,
    until: Until,
) -> anyhow::Result<Change> {
    until.wait(dice.between(0, 9000)).await;
    let names = fleet.lock().await.names();
    let victim = pick(&names, &mut dice);
    let kind = match kind {
        Kind::Remove if names.len() <= FEWEST => Kind::Join,
        Kind::Join if names.len() >= MOST => Kind::Remove,
        kind => kind,
    };
    let mut change = Change::default();
    match kind {
        Kind::Nothing => {}
        Kind::Join => join(fleet).await?,
        Kind::Remove => change.removed = Some(remove(fleet, client, victim).await),
        Kind::Exchange => {
            join(fleet).await?;
            until.wait(dice.between(0, 2000)).await;
            change.removed = Some(remove(fleet, client, victim).await);
        }
        Kind::LoseDisk => {
            {
                let mut fleet = fleet.lock().await;
                fleet.timeline.fault("disk lost", &victim);
                // Nobody starts it again from here on.
                fleet.forget(&victim).await;
            }
            join(fleet).await?;
            until.wait(dice.between(0, 2000)).await;
            change.removed = Some(remove(fleet, client, victim).await);
        }
    }
    Ok(change)
}

async fn join(fleet: &Mutex<Fleet>) -> anyhow::Result<()> {
    let mut fleet = fleet.lock().await;
    let name = fleet.add().await?;
    fleet.timeline.fault("join", name);
    Ok(())
}

/// Asks for the removal; whatever the answer, it is asked for again once all is mended.
async fn remove(fleet: &Mutex<Fleet>, client: &Client, name: String) -> String {
    {
        let mut fleet = fleet.lock().await;
        fleet.timeline.fault("removal", &name);
        if let Some(peer) = fleet.peer(&name) {
            peer.leaving = true;
        }
    }
    let answer = client.remove_member(&name).await;
    fleet.lock().await.timeline.note(format_args!("removal of {name}: {:?}", answer.map_err(|error| error.code)));
    name
}

/// Asks for a removal until the member has gone, or is going.
///
/// # Errors
/// What stands against it.
pub async fn finish_removal(client: &Client, name: &str) -> Option<String> {
    match client.remove_member(name).await {
        Ok(_) => None,
        Err(error) if error.code == Code::NoSuchMember => None,
        Err(error) => Some(format!("{name} cannot be removed: {error}")),
    }
}
