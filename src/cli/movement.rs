//! `remove`, `drain`, `rebalance status`.

use super::args::{DrainArgs, RemoveArgs};
use super::grid::state_name;
use super::output;
use crate::client::Client;
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use crate::node::{MemberInfo, MemberState, PartitionInfo, ReplicaState};
use crate::types::NodeId;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// A line for people; nothing where no person looks on.
fn show_progress(replicas: u32) {
    let mut errors = std::io::stderr();
    if errors.is_terminal() {
        let end = if replicas == 0 { "\n" } else { "" };
        drop(write!(errors, "\r{replicas:>5} replicas to move{end}"));
        drop(errors.flush());
    }
}

/// What is seen of the grid at one look.
struct Sight {
    members: Vec<MemberInfo>,
    partitions: Vec<PartitionInfo>,
}

impl Sight {
    async fn of(client: &Client) -> Result<Sight> {
        // The members first: who goes among them goes in the later look, too.
        Ok(Sight { members: client.members().await?, partitions: client.partitions().await? })
    }

    fn member(&self, node: NodeId) -> Option<&MemberInfo> {
        self.members.iter().find(|member| member.id == node)
    }

    /// Whether what a leaving member holds cannot move: it would leave fewer replicas than there are.
    /// A removal goes without a replacement, as long as anybody is left at all.
    fn is_stuck(&self, node: NodeId) -> bool {
        let leaves = |member: &&MemberInfo| matches!(member.state, MemberState::Draining | MemberState::Removing);
        let Some(member) = self.member(node).filter(leaves) else { return false };
        let others = self.members.iter().filter(|other| !leaves(other)).count();
        let wanted = |held: &PartitionInfo| if member.state == MemberState::Removing { 1 } else { held.replicas.len() };
        let mut held = self.partitions.iter().filter(|partition| partition.replicas.iter().any(|at| at.node == node));
        !self.partitions.iter().any(moves) && held.any(|partition| others < wanted(partition))
    }
}

/// Waits until the member is as wanted; says how much it still holds when the time is over, and why
/// where nobody can take it. A look that fails is no end: the grid moves on without being looked at.
async fn wait(
    name: &str,
    node: NodeId,
    within: Duration,
    look: impl AsyncFn() -> Result<Sight>,
    done: impl Fn(Option<&MemberInfo>) -> bool,
) -> Result<()> {
    let give_up = Instant::now() + within;
    let mut shown = None;
    let mut last = None;
    let mut moving = true;
    loop {
        match look().await {
            Ok(sight) => {
                let member = sight.member(node);
                if done(member) {
                    return Ok(());
                }
                let held = member.map_or(0, |member| member.replicas);
                if sight.is_stuck(node) {
                    return Err(nobody_left(name, node, held, member.map(|member| member.state)));
                }
                moving = sight.partitions.iter().any(moves);
                if shown != Some(held) {
                    shown = Some(held);
                    show_progress(held);
                }
            }
            Err(error) => last = Some(error),
        }
        if Instant::now() >= give_up {
            return Err(match (shown, last) {
                (None, Some(error)) => error,
                (held, _) => still_held(node, held.unwrap_or(0), moving),
            });
        }
        clock::sleep(LOOK).await;
    }
}

fn still_held(node: NodeId, held: u32, moving: bool) -> Error {
    let (how, remedy) = match moving {
        true => ("the grid goes on moving them", "`keystead rebalance status` shows how far it is"),
        false => {
            ("nothing moves at the moment", "`keystead members` shows whether a peer is away that could take them")
        }
    };
    let what = format!("the member still holds {held} replicas; {how}");
    Error::new(Code::DeadlineExceeded, what).at(node.to_string()).remedy(remedy)
}

fn nobody_left(name: &str, node: NodeId, held: u32, state: Option<MemberState>) -> Error {
    let what = format!("no peer is left to take the {held} replicas of the member, so they stay where they are");
    let remedy = match state {
        Some(MemberState::Removing) => "start another peer: the removal then goes on".to_owned(),
        _ => format!("start another peer: the drain then goes on; or take it back with `keystead drain {name} --undo`"),
    };
    Error::new(Code::NotReady, what).at(node.to_string()).remedy(remedy)
}

/// Removes a member for good.
pub(super) async fn remove(client: &Client, args: &RemoveArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let node = client.remove_member(&args.member).await?;
    if !args.no_wait {
        let within = Duration::from_secs(args.within.into());
        wait(&args.member, node, within, async || Sight::of(client).await, |member| member.is_none()).await?;
    }
    let state = if args.no_wait { "removing" } else { "removed" };
    report(out, args.connection.json, &args.member, node, state)
}

/// Empties a member, or lets it hold its share again.
pub(super) async fn drain(client: &Client, args: &DrainArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let node = client.drain_member(&args.member, args.undo).await?;
    if !args.no_wait && !args.undo {
        let is_empty = |member: Option<&MemberInfo>| member.is_none_or(|m| m.replicas == 0 && m.leaders == 0);
        let within = Duration::from_secs(args.within.into());
        wait(&args.member, node, within, async || Sight::of(client).await, is_empty).await?;
    }
    let state = match (args.undo, args.no_wait) {
        (true, _) => "active",
        (false, true) => "draining",
        (false, false) => "drained",
    };
    report(out, args.connection.json, &args.member, node, state)
}

fn report(out: &mut (dyn Write + Send), as_json: bool, member: &str, node: NodeId, state: &str) -> Result<()> {
    if as_json {
        return output::json(out, &json!({ "member": member, "id": node.to_string(), "state": state }));
    }
    output::line(out, &format!("{member} ({node}) {state}"))
}

fn names(partition: &PartitionInfo, state: ReplicaState) -> Vec<String> {
    let those = partition.replicas.iter().filter(|replica| replica.state == state);
    those.map(|replica| replica.name.clone()).collect()
}

/// Whether a replica of the partition comes or goes.
fn moves(partition: &PartitionInfo) -> bool {
    partition.replicas.iter().any(|replica| replica.state != ReplicaState::Holding)
}

/// The moves under way, the members that are to be empty, and how much is missing.
pub(super) async fn status(client: &Client, as_json: bool, out: &mut (dyn Write + Send)) -> Result<()> {
    let partitions = client.partitions().await?;
    let members = client.members().await?;
    let moving: Vec<&PartitionInfo> = partitions.iter().filter(|partition| moves(partition)).collect();
    let goes = |member: &&MemberInfo| matches!(member.state, MemberState::Draining | MemberState::Removing);
    let going: Vec<&MemberInfo> = members.iter().filter(goes).collect();
    let missing: u32 = partitions.iter().map(|partition| partition.under_replicated).sum();
    if as_json {
        let one = |p: &&PartitionInfo| {
            json!({
                "partition": p.id.0,
                "coming": names(p, ReplicaState::Coming),
                "leaving": names(p, ReplicaState::Leaving),
            })
        };
        let member = |m: &&MemberInfo| json!({ "name": m.name, "state": state_name(m.state), "replicas": m.replicas, "leaders": m.leaders });
        let fields = json!({
            "moves": moving.iter().map(one).collect::<Vec<_>>(),
            "members": going.iter().map(member).collect::<Vec<_>>(),
            "missing": missing,
        });
        return output::json(out, &fields);
    }
    let row = |p: &&PartitionInfo| {
        vec![p.id.to_string(), names(p, ReplicaState::Coming).join(","), names(p, ReplicaState::Leaving).join(",")]
    };
    if !moving.is_empty() {
        let rows: Vec<Vec<String>> = moving.iter().map(row).collect();
        output::table(out, &["PARTITION", "COMING", "LEAVING"], &["PARTITION"], &rows)?;
    }
    for member in &going {
        let held = format!("{} replicas, {} leaderships", member.replicas, member.leaders);
        output::line(out, &format!("{} is {}: {held}", member.name, state_name(member.state)))?;
    }
    let mut sentence = format!("{} of {} partitions move", moving.len(), partitions.len());
    if missing > 0 {
        sentence.push_str(&format!("; {missing} replicas are missing or away"));
    }
    output::line(out, &sentence)
}

#[cfg(test)]
#[path = "movement_tests.rs"]
mod tests;
