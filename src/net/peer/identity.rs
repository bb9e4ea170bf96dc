//! Who a peer says it is, and whether one talks to it.

use crate::error::{Code, Error, Result};
use crate::types::{GridId, Incarnation, NodeId};
use bytes::Bytes;
use grid_proto::keystead::peer::v1::Greeting;
use std::sync::Arc;

/// The oldest protocol that this version speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// The newest protocol that this version speaks.
pub const PROTOCOL_MAX: u32 = 1;

/// A peer, as it greets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its grid; `None` before it has founded or joined one.
    pub grid: Option<GridId>,
    /// Which node it is.
    pub node: NodeId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// Its name, for people.
    pub name: Arc<str>,
}

impl PeerIdentity {
    pub(super) fn greeting(&self) -> Greeting {
        Greeting {
            grid: self.grid.map_or_else(Bytes::new, |grid| Bytes::copy_from_slice(&grid.0.to_be_bytes())),
            node: self.node.0,
            incarnation: self.incarnation.0,
            name: self.name.to_string(),
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
        }
    }

    /// Reads a greeting and refuses a peer that must not be talked to.
    pub(super) fn accept(&self, greeting: &Greeting) -> Result<PeerIdentity> {
        let them = format!("peer {} ({})", greeting.name, NodeId(greeting.node));
        if greeting.protocol_min > PROTOCOL_MAX || greeting.protocol_max < PROTOCOL_MIN {
            let range = (greeting.protocol_min, greeting.protocol_max);
            let what = format!("they speak protocols {range:?}, we speak {:?}", (PROTOCOL_MIN, PROTOCOL_MAX));
            return Err(Error::new(Code::ProtocolMismatch, what).at(them));
        }
        let grid = match greeting.grid.len() {
            0 => None,
            _ => match <[u8; 16]>::try_from(greeting.grid.as_ref()) {
                Ok(bytes) => Some(GridId(u128::from_be_bytes(bytes))),
                Err(_) => return Err(Error::new(Code::ProtocolMismatch, "a grid id of the wrong length").at(them)),
            },
        };
        let peer = PeerIdentity {
            grid,
            node: NodeId(greeting.node),
            incarnation: Incarnation(greeting.incarnation),
            name: greeting.name.as_str().into(),
        };
        self.same_grid(&peer)?;
        Ok(peer)
    }

    /// Refuses a peer of another grid; one without a grid is let in, for its handler to judge.
    pub(super) fn same_grid(&self, peer: &PeerIdentity) -> Result<()> {
        match (self.grid, peer.grid) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                let what = format!("grid {theirs} meets grid {ours}");
                Err(Error::new(Code::ForeignGrid, what).at(format!("peer {} ({})", peer.name, peer.node)))
            }
            _ => Ok(()),
        }
    }
}
