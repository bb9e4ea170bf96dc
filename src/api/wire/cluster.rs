//! Members, partitions, placement and maps, both ways.

use super::values::{bad, key_codec_from_wire, key_codec_to_wire, value_codec_from_wire, value_codec_to_wire};
use crate::error::Result;
use crate::node::{Explanation, MemberInfo, MemberState, PartitionInfo, PlacementTable, ReplicaInfo, ReplicaState};
use crate::types::{Eviction, GridId, MapDescriptor, MapId, MapOptions, MapSpec, NodeId, PartitionId, Slot};
use grid_proto::keystead::v1;

/// A node's id, from the wire.
///
/// # Errors
/// `InvalidRequest` when it is not readable.
pub fn node_id(text: &str) -> Result<NodeId> {
    text.parse().map_err(|_| bad("a node id is not 16 hex digits"))
}

fn small(number: u32) -> Result<u16> {
    u16::try_from(number).map_err(|_| bad(format!("{number} is no slot")))
}

/// A member, for the wire.
pub fn member_to_wire(member: MemberInfo) -> v1::Member {
    let state = match member.state {
        MemberState::Alive => v1::MemberState::Alive,
        MemberState::Unreachable => v1::MemberState::Unreachable,
        MemberState::Joining => v1::MemberState::Joining,
        MemberState::Draining => v1::MemberState::Draining,
        MemberState::Removing => v1::MemberState::Removing,
    };
    v1::Member {
        name: member.name,
        id: member.id.to_string(),
        address: member.address,
        zone: member.zone.unwrap_or_default(),
        state: state.into(),
        leaders: member.leaders,
        replicas: member.replicas,
        trouble: member.trouble.unwrap_or_default(),
        tasks: member.tasks,
    }
}

/// A member, from the wire.
///
/// # Errors
/// `InvalidRequest` when a field is not readable.
pub fn member_from_wire(member: v1::Member) -> Result<MemberInfo> {
    let state = match member.state() {
        v1::MemberState::Alive => MemberState::Alive,
        v1::MemberState::Joining => MemberState::Joining,
        v1::MemberState::Draining => MemberState::Draining,
        v1::MemberState::Removing => MemberState::Removing,
        v1::MemberState::Unreachable | v1::MemberState::Unspecified => MemberState::Unreachable,
    };
    Ok(MemberInfo {
        id: node_id(&member.id)?,
        name: member.name,
        address: member.address,
        zone: Some(member.zone).filter(|zone| !zone.is_empty()),
        state,
        leaders: member.leaders,
        replicas: member.replicas,
        trouble: Some(member.trouble).filter(|trouble| !trouble.is_empty()),
        tasks: member.tasks,
    })
}

/// A partition, for the wire.
pub fn partition_to_wire(partition: PartitionInfo) -> v1::Partition {
    let replica = |replica: ReplicaInfo| v1::Replica {
        replica: replica.replica,
        node: replica.node.to_string(),
        name: replica.name,
        state: match replica.state {
            ReplicaState::Holding => v1::ReplicaState::Unspecified,
            ReplicaState::Coming => v1::ReplicaState::Coming,
            ReplicaState::Leaving => v1::ReplicaState::Leaving,
        }
        .into(),
    };
    v1::Partition {
        id: partition.id.0,
        first_slot: partition.first_slot.into(),
        last_slot: partition.last_slot.into(),
        leader: partition.leader.unwrap_or_default(),
        replicas: partition.replicas.into_iter().map(replica).collect(),
        term: partition.term,
        applied: partition.applied,
        rows: partition.rows,
        under_replicated: partition.under_replicated,
    }
}

/// A partition, from the wire.
///
/// # Errors
/// `InvalidRequest` when a field is not readable.
pub fn partition_from_wire(partition: v1::Partition) -> Result<PartitionInfo> {
    let replica = |replica: v1::Replica| {
        let state = match replica.state() {
            v1::ReplicaState::Unspecified => ReplicaState::Holding,
            v1::ReplicaState::Coming => ReplicaState::Coming,
            v1::ReplicaState::Leaving => ReplicaState::Leaving,
        };
        Ok(ReplicaInfo { replica: replica.replica, node: node_id(&replica.node)?, name: replica.name, state })
    };
    Ok(PartitionInfo {
        id: PartitionId(partition.id),
        first_slot: small(partition.first_slot)?,
        last_slot: small(partition.last_slot)?,
        leader: Some(partition.leader).filter(|leader| !leader.is_empty()),
        replicas: partition.replicas.into_iter().map(replica).collect::<Result<_>>()?,
        term: partition.term,
        applied: partition.applied,
        rows: partition.rows,
        under_replicated: partition.under_replicated,
    })
}

/// An explanation, for the wire.
pub fn explanation_to_wire(explanation: Explanation) -> v1::ExplainReply {
    v1::ExplainReply {
        key: explanation.key,
        affinity: explanation.affinity,
        slot: explanation.slot.0.into(),
        partition: Some(partition_to_wire(explanation.partition)),
        why: explanation.why,
    }
}

/// An explanation, from the wire.
///
/// # Errors
/// `InvalidRequest` when a field is missing or not readable.
pub fn explanation_from_wire(reply: v1::ExplainReply) -> Result<Explanation> {
    let partition = reply.partition.ok_or_else(|| bad("an explanation names no partition"))?;
    Ok(Explanation {
        key: reply.key,
        affinity: reply.affinity,
        slot: Slot(small(reply.slot)?),
        partition: partition_from_wire(partition)?,
        why: reply.why,
    })
}

/// A placement, for the wire.
pub fn placement_to_wire(table: PlacementTable) -> v1::PlacementReply {
    let range = |(first_slot, leader, term): (u16, String, u64)| v1::LeaderRange {
        first_slot: first_slot.into(),
        leader,
        term,
    };
    v1::PlacementReply {
        grid: table.grid.to_string(),
        version: table.version,
        partitions: table.partitions.into_iter().map(range).collect(),
    }
}

/// A placement, from the wire.
///
/// # Errors
/// `InvalidRequest` when a field is not readable.
pub fn placement_from_wire(reply: v1::PlacementReply) -> Result<PlacementTable> {
    let grid: GridId = reply.grid.parse().map_err(|_| bad("a grid id is not 32 hex digits"))?;
    let range = |range: v1::LeaderRange| Ok((small(range.first_slot)?, range.leader, range.term));
    let mut partitions: Vec<_> = reply.partitions.into_iter().map(range).collect::<Result<_>>()?;
    partitions.sort_by_key(|(first_slot, ..)| *first_slot);
    Ok(PlacementTable { grid, version: reply.version, partitions })
}

/// A map's descriptor, for the wire.
pub fn map_to_wire(map: MapDescriptor) -> v1::MapDescriptor {
    v1::MapDescriptor {
        id: map.id.0,
        name: map.name,
        key_codec: key_codec_to_wire(map.key_codec),
        value_codec: value_codec_to_wire(map.value_codec),
        schema: map.schema,
        options: Some(options_to_wire(&map.options)).filter(|_| !map.options.is_default()),
    }
}

/// A map's descriptor, from the wire.
///
/// # Errors
/// `InvalidRequest` when a codec is unknown.
pub fn map_from_wire(map: v1::MapDescriptor) -> Result<MapDescriptor> {
    Ok(MapDescriptor {
        id: MapId(map.id),
        name: map.name,
        key_codec: key_codec_from_wire(map.key_codec)?,
        value_codec: value_codec_from_wire(map.value_codec)?,
        schema: map.schema,
        options: map.options.map_or_else(|| Ok(MapOptions::default()), options_from_wire)?,
    })
}

fn options_to_wire(options: &MapOptions) -> v1::MapOptions {
    let eviction = match options.eviction {
        Eviction::None => v1::Eviction::Unspecified,
        Eviction::Lru => v1::Eviction::Lru,
        Eviction::Lfu => v1::Eviction::Lfu,
    };
    v1::MapOptions {
        ttl_ms: options.ttl_ms,
        max_entries: options.max_entries,
        max_bytes: options.max_bytes,
        eviction: eviction.into(),
        replicated: options.replicated,
    }
}

fn options_from_wire(options: v1::MapOptions) -> Result<MapOptions> {
    let eviction = match v1::Eviction::try_from(options.eviction) {
        Ok(v1::Eviction::Unspecified) => Eviction::None,
        Ok(v1::Eviction::Lru) => Eviction::Lru,
        Ok(v1::Eviction::Lfu) => Eviction::Lfu,
        Err(_) => return Err(bad(format!("there is no eviction {}", options.eviction))),
    };
    Ok(MapOptions {
        ttl_ms: options.ttl_ms,
        max_entries: options.max_entries,
        max_bytes: options.max_bytes,
        eviction,
        replicated: options.replicated,
    })
}

/// A map that is asked for, for the wire.
pub fn map_spec_to_wire(spec: &MapSpec) -> v1::CreateMapRequest {
    v1::CreateMapRequest {
        name: spec.name.clone(),
        key_codec: key_codec_to_wire(spec.key_codec),
        value_codec: value_codec_to_wire(spec.value_codec),
        schema: spec.schema,
        options: spec.options.as_ref().map(options_to_wire),
    }
}

/// A map that is asked for, from the wire.
///
/// # Errors
/// `InvalidRequest` when a codec is missing or something is unknown.
pub fn map_spec_from_wire(request: v1::CreateMapRequest) -> Result<MapSpec> {
    Ok(MapSpec {
        key_codec: key_codec_from_wire(request.key_codec)?,
        value_codec: value_codec_from_wire(request.value_codec)?,
        name: request.name,
        schema: request.schema,
        options: request.options.map(options_from_wire).transpose()?,
    })
}
