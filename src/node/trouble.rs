//! Why a group cannot answer, as far as this node can tell: too few of its peers can be reached, or
//! the disk here is full and nobody else has it.
//!
//! In: the replicas held here, and what is known of the others. Out: an error that names who is
//! missing. Never asks anybody, so that it can be said at once.

use super::directory::Directory;
use super::hosting::Hosting;
use crate::error::{Code, Error};
use crate::net::peer::AddressBook;
use crate::storage::log::LogHealth;
use crate::types::{GroupId, NodeId};

/// How messages name a group.
pub(super) fn place(group: GroupId) -> String {
    group.partition().map_or_else(|| "the meta group".to_owned(), |partition| format!("partition {partition}"))
}

/// What keeps a group from answering; `None` if nothing is known to.
pub(super) fn of_group(hosting: &Hosting, directory: &Directory, group: GroupId) -> Option<Error> {
    let hosted = hosting.get(group);
    let voters: Vec<NodeId> = match &hosted {
        Some(hosted) => hosted.group.status().voters.into_values().collect(),
        None => directory.view().replicas(group).iter().map(|(_, node)| *node).collect(),
    };
    let away: Vec<NodeId> = voters.iter().copied().filter(|node| !directory.is_alive(*node)).collect();
    if !voters.is_empty() && voters.len() - away.len() <= voters.len() / 2 {
        let named: Vec<String> = away.iter().map(|node| name_and_address(directory, *node)).collect();
        let (gone, all) = (away.len(), voters.len());
        let what = format!("{gone} of {all} peers of {} cannot be reached: {}", place(group), named.join(", "));
        return Some(Error::new(Code::NoMajority, what));
    }
    let stopped = hosted.is_some_and(|hosted| hosted.group.has_stopped());
    let full = *hosting.parts.log.health().borrow() == LogHealth::DiskFull;
    let what = "this peer's disk is full: nothing was written";
    (stopped && full).then(|| Error::new(Code::DiskFull, what).at(place(group)))
}

fn name_and_address(directory: &Directory, node: NodeId) -> String {
    let name = directory.name_of(node);
    directory.address_of(node).map_or_else(|| name.clone(), |address| format!("{name} at {address}"))
}
