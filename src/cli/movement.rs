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

/// Waits until the member is as wanted; says how much it still holds when the time is over.
async fn wait(client: &Client, node: NodeId, seconds: u64, done: impl Fn(Option<&MemberInfo>) -> bool) -> Result<()> {
    let give_up = Instant::now() + Duration::from_secs(seconds);
    let mut shown = None;
    loop {
        let members = client.members().await?;
        let member = members.iter().find(|member| member.id == node);
        if done(member) {
            return Ok(());
        }
        let held = member.map(|member| member.replicas);
        if shown != held {
            shown = held;
            show_progress(held.unwrap_or(0));
        }
        if Instant::now() >= give_up {
            let held = member.map_or(0, |member| member.replicas);
            let what = format!("the member still holds {held} replicas; the grid goes on moving them");
            return Err(Error::new(Code::DeadlineExceeded, what)
                .at(node.to_string())
                .remedy("`keystead rebalance status` shows how far it is"));
        }
        clock::sleep(LOOK).await;
    }
}

/// Removes a member for good.
pub(super) async fn remove(client: &Client, args: &RemoveArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let node = client.remove_member(&args.member).await?;
    if !args.no_wait {
        wait(client, node, args.within, |member| member.is_none()).await?;
    }
    let state = if args.no_wait { "removing" } else { "removed" };
    report(out, args.connection.json, &args.member, node, state)
}

/// Empties a member, or lets it hold its share again.
pub(super) async fn drain(client: &Client, args: &DrainArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let node = client.drain_member(&args.member, args.undo).await?;
    if !args.no_wait && !args.undo {
        let is_empty = |member: Option<&MemberInfo>| member.is_none_or(|m| m.replicas == 0 && m.leaders == 0);
        wait(client, node, args.within, is_empty).await?;
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

/// The moves under way, the members that are to be empty, and how much is missing.
pub(super) async fn status(client: &Client, as_json: bool, out: &mut (dyn Write + Send)) -> Result<()> {
    let partitions = client.partitions().await?;
    let members = client.members().await?;
    let moves = |partition: &&PartitionInfo| partition.replicas.iter().any(|r| r.state != ReplicaState::Holding);
    let moving: Vec<&PartitionInfo> = partitions.iter().filter(moves).collect();
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
