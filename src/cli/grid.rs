//! `members`, `partitions`, `explain`.

use super::args::ExplainArgs;
use super::output;
use crate::client::Client;
use crate::error::Result;
use crate::node::{MemberState, PartitionInfo, ReplicaInfo, ReplicaState};
use serde_json::json;
use std::io::Write;

pub(super) fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Alive => "alive",
        MemberState::Unreachable => "unreachable",
        MemberState::Joining => "joining",
        MemberState::Draining => "draining",
        MemberState::Removing => "removing",
    }
}

/// Names of tasks that a table shows of one member; `--json` gives all.
const FEW: usize = 2;

fn few(tasks: &[String]) -> String {
    let shown = tasks.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join(",");
    match tasks.len() {
        0 => "-".to_owned(),
        some if some > FEW => format!("{shown} +{}", some - FEW),
        _ => shown,
    }
}

pub(super) async fn members(client: &Client, as_json: bool, out: &mut (dyn Write + Send)) -> Result<()> {
    let members = client.members().await?;
    if as_json {
        let one = |member: &crate::node::MemberInfo| {
            json!({
                "name": member.name,
                "id": member.id.to_string(),
                "address": member.address,
                "zone": member.zone,
                "state": state_name(member.state),
                "leaders": member.leaders,
                "replicas": member.replicas,
                "trouble": member.trouble,
                "tasks": member.tasks,
            })
        };
        return output::json(out, &members.iter().map(one).collect());
    }
    let rows: Vec<Vec<String>> = members
        .into_iter()
        .map(|member| {
            vec![
                member.name,
                member.id.to_string(),
                member.address,
                member.zone.unwrap_or_else(|| "-".to_owned()),
                state_name(member.state).to_owned(),
                member.leaders.to_string(),
                member.replicas.to_string(),
                few(&member.tasks),
                member.trouble.unwrap_or_default(),
            ]
        })
        .collect();
    let head = ["NAME", "ID", "ADDRESS", "ZONE", "STATE", "LEADERS", "REPLICAS", "TASKS", "NOTE"];
    output::table(out, &head, &["LEADERS", "REPLICAS"], &rows)
}

fn partition_json(partition: &PartitionInfo) -> serde_json::Value {
    let replicas: Vec<_> = partition
        .replicas
        .iter()
        .map(|replica| {
            json!({
                "replica": replica.replica,
                "node": replica.node.to_string(),
                "name": replica.name,
                "state": replica.state,
            })
        })
        .collect();
    json!({
        "id": partition.id.0,
        "first_slot": partition.first_slot,
        "last_slot": partition.last_slot,
        "leader": partition.leader,
        "replicas": replicas,
        "term": partition.term,
        "applied": partition.applied,
        "rows": partition.rows,
        "under_replicated": partition.under_replicated,
    })
}

fn replica_names(partition: &PartitionInfo) -> String {
    let marked = |replica: &ReplicaInfo| match replica.state {
        ReplicaState::Holding => replica.name.clone(),
        ReplicaState::Coming => format!("+{}", replica.name),
        ReplicaState::Leaving => format!("-{}", replica.name),
    };
    let names: Vec<String> = partition.replicas.iter().map(marked).collect();
    names.join(",")
}

fn note(partition: &PartitionInfo) -> String {
    let moves = partition.replicas.iter().any(|replica| replica.state != ReplicaState::Holding);
    match (moves, partition.under_replicated) {
        (false, 0) => String::new(),
        (true, 0) => "moving".to_owned(),
        (false, missing) => format!("{missing} missing"),
        (true, missing) => format!("moving, {missing} missing"),
    }
}

fn leader_name(partition: &PartitionInfo) -> &str {
    partition.leader.as_deref().unwrap_or("-")
}

pub(super) async fn partitions(client: &Client, as_json: bool, out: &mut (dyn Write + Send)) -> Result<()> {
    let partitions = client.partitions().await?;
    if as_json {
        return output::json(out, &partitions.iter().map(partition_json).collect());
    }
    let row = |partition: &PartitionInfo| {
        vec![
            partition.id.to_string(),
            format!("{}-{}", partition.first_slot, partition.last_slot),
            leader_name(partition).to_owned(),
            replica_names(partition),
            partition.term.to_string(),
            partition.applied.to_string(),
            partition.rows.to_string(),
            note(partition),
        ]
    };
    let rows: Vec<Vec<String>> = partitions.iter().map(row).collect();
    let head = ["ID", "SLOTS", "LEADER", "REPLICAS", "TERM", "APPLIED", "ROWS", "NOTE"];
    output::table(out, &head, &["ID", "TERM", "APPLIED", "ROWS"], &rows)
}

pub(super) async fn explain(client: &Client, args: &ExplainArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let explanation = client.explain(&args.key, args.affinity.bytes()).await?;
    let partition = &explanation.partition;
    if args.connection.json {
        let fields = json!({
            "key": explanation.key,
            "affinity": explanation.affinity,
            "slot": explanation.slot.0,
            "partition": partition_json(partition),
            "why": explanation.why,
        });
        return output::json(out, &fields);
    }
    let facts = [
        ("key", explanation.key.clone()),
        ("affinity", explanation.affinity.clone()),
        ("slot", explanation.slot.to_string()),
        ("partition", format!("{} (slots {}-{})", partition.id, partition.first_slot, partition.last_slot)),
        ("leader", leader_name(partition).to_owned()),
        ("replicas", replica_names(partition)),
        ("term", partition.term.to_string()),
    ];
    for (name, fact) in facts {
        output::line(out, &format!("{name:<10} {fact}"))?;
    }
    for (at, sentence) in explanation.why.iter().enumerate() {
        let name = if at == 0 { "why" } else { "" };
        output::line(out, &format!("{name:<10} {sentence}"))?;
    }
    Ok(())
}
