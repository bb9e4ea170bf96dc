//! Answers what other peers ask: Raft's messages, forwarded requests, founding and joining.

use super::facts::Facts;
use super::founding::Founding;
use super::hosting::Hosting;
use super::mapping::Mapper;
use super::router::{Router, serves_no_more};
use super::status::Status;
use super::watching::Watching;
use super::wire::{self, Join, Welcome, kind};
use crate::clock;
use crate::error::{Code, Error, Result};
use crate::meta::{self, FoundingRecord, MemberRow};
use crate::net::peer::{IncomingFrame, PeerHandler, PeerIdentity};
use crate::raft::{answer_questions, network};
use crate::types::{GroupId, Incarnation};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// How long a joining node waits for its place in the meta group.
const JOIN_TIME: Duration = Duration::from_secs(8);

/// Answers other peers.
pub struct PeerCalls {
    /// Founding and joining.
    pub founding: Arc<Founding>,
    /// The node's replicas.
    pub hosting: Arc<Hosting>,
    /// Forwarded requests.
    pub router: Arc<Router>,
    /// The grid's facts.
    pub facts: Arc<Facts>,
    /// Other peers' watches.
    pub watching: Arc<Watching>,
    /// How the node stands.
    pub status: Arc<Status>,
    /// Steps of scatters.
    pub mapper: Arc<Mapper>,
}

#[async_trait::async_trait]
impl PeerHandler for PeerCalls {
    async fn handle(&self, from: &PeerIdentity, frame: IncomingFrame) -> Result<Bytes> {
        self.refuse_removed(from)?;
        let answer = self.answer(from, frame).await;
        // Who asks takes a removal for its own. What another has just told this peer is about this
        // peer: it serves no more.
        answer.map_err(|error| match self.refuse_removed(from) {
            Err(removed) if error.code == Code::MemberRemoved => removed,
            _ => serves_no_more(error),
        })
    }
}

impl PeerCalls {
    async fn answer(&self, from: &PeerIdentity, frame: IncomingFrame) -> Result<Bytes> {
        match frame.kind {
            kind::HELLO => return wire::encode(&self.founding.hello()),
            kind::RECORD => {
                self.founding.acknowledge(FoundingRecord::decode(&frame.payload)?).await?;
                return Ok(Bytes::new());
            }
            kind::JOIN => return wire::encode(&self.take_in(wire::decode(&frame.payload)?).await?),
            _ => {}
        }
        if from.grid.is_none() {
            return Err(Error::new(Code::ForeignGrid, "a peer without a grid may only found or join one"));
        }
        match frame.kind {
            network::kind::CONFIRM => answer_questions(frame.payload, |group, replica| {
                let hosted = self.hosting.get(group).filter(|hosted| hosted.group.replica() == replica)?;
                hosted.group.saved_vote()
            }),
            raft if raft <= network::kind::LAST => {
                let hosted = self.hosting.get(frame.group).ok_or_else(|| {
                    Error::new(Code::NotReady, "this peer holds no replica of the group").at(frame.group.to_string())
                })?;
                let receptions = &self.hosting.parts.receptions;
                network::dispatch(hosted.group.raft(), receptions, frame.group, frame.kind, frame.payload).await
            }
            kind::FORWARD | kind::FORWARD_READ => {
                let reply = self.router.execute_forwarded(frame.group, wire::decode(&frame.payload)?).await?;
                wire::encode(&reply)
            }
            kind::WATCH => wire::encode(&self.watching.pulls().pull(wire::decode(&frame.payload)?).await?),
            kind::STATUS => wire::encode(&self.status.own_report()),
            kind::MAP => wire::encode(&self.mapper.map(wire::decode(&frame.payload)?).await),
            kind::CANCEL => {
                self.hosting.cancelled.insert(wire::decode(&frame.payload)?);
                Ok(Bytes::new())
            }
            other => Err(Error::new(Code::ProtocolMismatch, format!("{other} is no kind of message"))),
        }
    }

    /// A node that was removed is told so, whatever it asks.
    fn refuse_removed(&self, from: &PeerIdentity) -> Result<()> {
        let view = self.facts.directory().view();
        match view.removed.get(&from.node) {
            None => Ok(()),
            Some(removed) => {
                let what = format!("node {} ({}) was removed from the grid", from.node, removed.row.name);
                Err(Error::new(Code::MemberRemoved, what))
            }
        }
    }

    /// Takes a node in: writes its member row, and waits for the id of its meta replica.
    async fn take_in(&self, join: Join) -> Result<Welcome> {
        let directory = self.facts.directory();
        let record = directory.record().ok_or_else(|| Error::new(Code::NotReady, "this peer has no grid yet"))?;
        let hello = join.hello;
        let node = hello.node;
        let row = MemberRow {
            node,
            name: hello.name,
            address: hello.address,
            zone: hello.zone,
            weight: hello.weight,
            incarnation: Incarnation(join.incarnation),
            since: self.router.time().ms(),
            intent: Default::default(),
            tasks: Vec::new(),
            extra: Default::default(),
        };
        self.facts.change(|view| Ok(((), meta::joined(view, &row)?))).await?;
        if let Some(lost) = join.lost {
            self.facts
                .change(|view| {
                    let replacement = meta::replacement(view, GroupId::META, lost)?;
                    Ok(((), replacement.map(|replacement| replacement.changes).unwrap_or_default()))
                })
                .await?;
        }
        let mut view = directory.watch_view();
        let placed = |view: &Arc<meta::MetaView>| {
            let held = view.held_by(node).find(|(group, _)| *group == GroupId::META);
            held.map(|(_, replica)| replica).filter(|replica| Some(*replica) != join.lost)
        };
        let found = clock::timeout(JOIN_TIME, view.wait_for(|view| placed(view).is_some())).await;
        let meta_replica = match found {
            Ok(Ok(view)) => placed(&view),
            _ => None,
        };
        let meta_replica = meta_replica
            .ok_or_else(|| Error::new(Code::NotReady, "the meta group has not given the new member a place in time"))?;
        Ok(Welcome { record, meta_replica })
    }
}
