//! Changes of the members in the middle of everything else: one a round. In: a kind. Out: what was begun,
//! and is to be finished when all is mended.

use super::{Until, pick};
use crate::dice::Dice;
use crate::processes::converge::lacking;
use crate::processes::fleet::Fleet;
use keystead::client::Client;
use keystead::error::Code;
use keystead::types::NodeId;
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
    /// A peer dies with its disk, and comes back empty under its own name and address.
    ComeBackEmpty,
    /// One joins and one is removed.
    Exchange,
    Nothing,
}

pub(super) const KINDS: &[Kind] = &[
    Kind::Join,
    Kind::Remove,
    Kind::LoseDisk,
    Kind::Exchange,
    Kind::ComeBackEmpty,
    Kind::Join,
    Kind::Remove,
    Kind::Nothing,
];

/// What was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// A member that is to go.
    pub removed: Option<String>,
    /// Whom a peer that came back empty was before: the member with this id is to go.
    pub before: Option<NodeId>,
}

/// Changes the members once, some time before the end.
pub(super) async fn change(
    kind: Kind,
    fleet: &Arc<Mutex<Fleet>>,
    mut dice: Dice,
    client: &Client,
    until: Until,
) -> anyhow::Result<Change> {
    // Who comes back empty needs all others to be there: nothing else has begun yet.
    if kind != Kind::ComeBackEmpty {
        until.wait(dice.between(0, 9000)).await;
    }
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
        Kind::ComeBackEmpty => change.before = come_back_empty(fleet, client, &victim, &mut dice, until).await?,
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

/// Lets a peer die and come back without its data, if every copy is where it should be and all others are
/// there: the only one that loses anything. Gives whom it was before, whose removal is asked for.
async fn come_back_empty(
    fleet: &Mutex<Fleet>,
    client: &Client,
    victim: &str,
    dice: &mut Dice,
    until: Until,
) -> anyhow::Result<Option<NodeId>> {
    const KIND: &str = "a peer comes back empty";
    let lacks = lacking(fleet, client).await;
    let members = client.members().await.unwrap_or_default();
    let before = members.iter().find(|member| member.name == victim).map(|member| member.id);
    {
        let mut fleet = fleet.lock().await;
        let (None, Some(_)) = (&lacks, before) else {
            fleet.timeline.came_of(KIND, false, format_args!("{victim}: {lacks:?}"));
            return Ok(None);
        };
        fleet.come_back_empty(victim).await?;
        fleet.timeline.fault(KIND, victim);
    }
    until.wait(dice.between(0, 4000)).await;
    if let Some(id) = before {
        let told = client.remove_member(&id.to_string()).await.map_err(|error| error.code);
        fleet.lock().await.timeline.note(format_args!("removal of {id}, which was {victim}: {told:?}"));
    }
    Ok(before)
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
