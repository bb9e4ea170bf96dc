//! Why a group cannot answer, as far as this node can tell: too few of its peers can be reached, or
//! the disk here is full and nobody else has it.
//!
//! In: the replicas held here, and what is known of the others. Out: an error that names who is
//! missing. Never asks anybody, so that it can be said at once.

use super::directory::Directory;
use super::hosting::Hosting;
use crate::error::{Code, Error};
use crate::net::peer::AddressBook;
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
    of_log(hosting, group).filter(|_| stopped)
}

/// Why nothing can be written here at the moment; `None` if it can.
pub(super) fn of_log(hosting: &Hosting, group: GroupId) -> Option<Error> {
    let what = "this peer's disk is full: nothing was written";
    hosting.parts.log.is_full().then(|| Error::new(Code::DiskFull, what).at(place(group)))
}

/// Whether no living peer but this one has a replica of the group.
pub(super) fn is_alone(directory: &Directory, group: GroupId) -> bool {
    let view = directory.view();
    let me = directory.me();
    !view.replicas(group).iter().any(|(_, node)| *node != me && directory.is_alive(*node))
}

fn name_and_address(directory: &Directory, node: NodeId) -> String {
    let name = directory.name_of(node);
    directory.address_of(node).map_or_else(|| name.clone(), |address| format!("{name} at {address}"))
}
