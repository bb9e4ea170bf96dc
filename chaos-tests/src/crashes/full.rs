//! Disks that are full, by failpoints that return the error. In: the name of a round. Out: what a peer did
//! that it should not: it must give up its leaderships and say why, go on answering reads, let the others
//! go on with writes, and come back by itself when there is room.

use super::control::Ask;
use super::grid::{GUEST, Grid};
use super::load::{COUNTERS, ENTRIES, Load};
use super::patience::Patience;
use anyhow::Context;
use keystead::client::{Client, ClientConfig};
use keystead::clock;
use keystead::error::Code;
use keystead::node::MemberInfo;
use keystead::types::ReadLevel;
use std::time::Duration;

/// The failpoints behind the rounds.
pub(super) const POINTS: &[&str] = &["log-room", "state-room"];

/// A peer without room for its log; the same one, started so; all peers; states without room.
pub(super) const NAMES: &[&str] = &["log-full", "log-full-at-start", "log-full-everywhere", "state-full"];

/// What a peer says when it has come to a disk without room.
pub(super) fn signs(name: &str) -> &'static [&'static str] {
    match name {
        "state-full" => &["no checkpoint could be made"],
        _ => &["the log's disk full=true"],
    }
}

/// The peer whose disk is full where it is one.
const PEER: usize = 1;
const FULL: &str = "return(full)";
/// How long a peer may take to give up its leaderships, and to come back.
const AT_MOST: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);

/// Which peers a round arms.
pub(super) fn armed(name: &str) -> &'static str {
    if matches!(name, "log-full" | "log-full-at-start") { "n2" } else { "all" }
}

/// One round.
pub(super) async fn round(grid: &mut Grid, load: &mut Load, name: &str) -> anyhow::Result<Vec<String>> {
    match name {
        "log-full" => one(grid, load, false).await,
        "log-full-at-start" => one(grid, load, true).await,
        "log-full-everywhere" => everywhere(grid, load).await,
        _ => states(grid, load).await,
    }
}

async fn set(grid: &mut Grid, peers: &[usize], point: &str, full: bool) -> anyhow::Result<()> {
    for at in peers {
        let ask = if full { Ask::Arm(point.to_owned(), FULL.to_owned()) } else { Ask::Disarm(point.to_owned()) };
        grid.peers[*at].ask(&ask).await?;
    }
    Ok(())
}

/// Waits until a member is as wanted; gives what it was like at last where it never is.
async fn until(grid: &Grid, name: &str, wanted: impl Fn(&MemberInfo) -> bool) -> Result<(), String> {
    let (mut patience, mut last) = (Patience::of(AT_MOST, LOOK), String::new());
    while patience.next().await {
        match grid.client.members().await {
            Ok(members) => match members.into_iter().find(|member| member.name == name) {
                Some(member) if wanted(&member) => return Ok(()),
                member => last = format!("{member:?}"),
            },
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

fn says_why(member: &MemberInfo) -> bool {
    member.trouble.as_ref().is_some_and(|why| why.contains(&Code::DiskFull.to_string()))
}

/// The log of one peer has no room, from some moment on or from its start on.
async fn one(grid: &mut Grid, load: &mut Load, at_start: bool) -> anyhow::Result<Vec<String>> {
    let name = grid.peers[PEER].name.clone();
    let mut found = Vec::new();
    if at_start {
        grid.peers[PEER].kill().await;
        grid.start_peer(PEER, Some(("log-room", FULL)))?;
    } else {
        set(grid, &[PEER], "log-room", true).await?;
    }
    if let Err(last) = until(grid, &name, |member| says_why(member) && member.leaders == 0).await {
        found.push(format!("{name} does not give up its leaderships and say why: {last}"));
    }
    if !load.more(200, AT_MOST).await {
        found.push(format!("the others do not go on with writes: {:?}", load.errors()));
    }
    if !at_start {
        found.extend(reads_at(grid).await);
    }
    if grid.peers[PEER].has_ended() {
        found.push(format!("{name} has ended: {}", grid.peers[PEER].last_words()));
        return Ok(found);
    }
    set(grid, &[PEER], "log-room", false).await?;
    if let Err(last) = until(grid, &name, |member| member.trouble.is_none()).await {
        found.push(format!("{name} does not come back by itself: {last}"));
    }
    Ok(found)
}

/// Local reads of the peer whose log has no room.
async fn reads_at(grid: &Grid) -> Vec<String> {
    let peer = &grid.peers[PEER];
    let config = ClientConfig { read: ReadLevel::Local, ..ClientConfig::default() };
    let client = match Client::connect(vec![peer.listen.clone()], config).await {
        Ok(client) => client,
        Err(error) => return vec![format!("{} takes no client: {error}", peer.name)],
    };
    let mut found = Vec::new();
    for worker in 0..6 {
        if let Err(error) = client.get(ENTRIES, format!("w{worker}-1")).await {
            found.push(format!("{} does not answer a read: {error}", peer.name));
        }
    }
    found
}

/// No peer has room for its log: writes are refused with the reason, and all goes on when there is room.
async fn everywhere(grid: &mut Grid, load: &mut Load) -> anyhow::Result<Vec<String>> {
    let all: Vec<usize> = (0..grid.peers.len()).collect();
    let mut found = Vec::new();
    set(grid, &all, "log-room", true).await?;
    let config = ClientConfig { deadline: Duration::from_secs(3), ..ClientConfig::default() };
    let endpoints = grid.peers.iter().map(|peer| peer.listen.clone()).collect();
    let client = Client::connect(endpoints, config).await.context("no peer takes a client")?;
    // The first ones may be on their way already.
    let mut said = Vec::new();
    for _ in 0..5 {
        said.push(
            client.increment(COUNTERS, "full", 1).await.map_or_else(|error| error.to_string(), |_| "written".into()),
        );
        clock::sleep(LOOK).await;
    }
    if !said.last().is_some_and(|said| said.contains("disk is full")) {
        found.push(format!("a write is not refused for want of room: {said:?}"));
    }
    for at in all.iter().copied() {
        if grid.peers[at].has_ended() {
            found.push(format!("{} has ended: {}", grid.peers[at].name, grid.peers[at].last_words()));
        }
    }
    set(grid, &all, "log-room", false).await?;
    if !load.more(200, AT_MOST).await {
        found.push(format!("writes do not go on when there is room: {:?}", load.errors()));
    }
    Ok(found)
}

/// No peer has room for checkpoints: nothing else changes, and they are made when there is room.
async fn states(grid: &mut Grid, load: &mut Load) -> anyhow::Result<Vec<String>> {
    // The guest may hold nothing that would be checkpointed.
    let all: Vec<usize> = (0..GUEST).collect();
    let mut found = Vec::new();
    set(grid, &all, "state-room", true).await?;
    // Those under way may still end.
    clock::sleep(Duration::from_millis(300)).await;
    let mut before = Vec::new();
    for at in all.iter().copied() {
        before.push(grid.purged(at).await?);
    }
    if !load.more(1500, 2 * AT_MOST).await {
        found.push(format!("writes do not go on without checkpoints: {:?}", load.errors()));
    }
    for at in all.iter().copied() {
        if grid.peers[at].has_ended() {
            found.push(format!("{} has ended: {}", grid.peers[at].name, grid.peers[at].last_words()));
            return Ok(found);
        }
        if !grid.peers[at].has_said("no checkpoint could be made") {
            found.push(format!("{} has not come to a checkpoint, or does not tell", grid.peers[at].name));
        }
    }
    set(grid, &all, "state-room", false).await?;
    for (at, before) in before.into_iter().enumerate() {
        let mut patience = Patience::of(AT_MOST, LOOK);
        while grid.purged(at).await? <= before && patience.next().await {}
        if grid.purged(at).await? <= before {
            found.push(format!("{} makes no checkpoints any more", grid.peers[at].name));
        }
    }
    Ok(found)
}
