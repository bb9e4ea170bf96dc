//! Translation between the generated protobuf types and the grid's own, both ways.
//!
//! In: messages of `keystead.v1` (untrusted: every field is checked against the limits) or the
//! grid's requests, replies and errors. Out: the other. Pure; never panics on any message.

mod cluster;
mod compute;
mod errors;
mod options;
mod replies;
mod requests;
mod values;

pub use cluster::{
    explanation_from_wire, explanation_to_wire, map_from_wire, map_spec_from_wire, map_spec_to_wire, map_to_wire,
    member_from_wire, member_to_wire, node_id, partition_from_wire, partition_to_wire, placement_from_wire,
    placement_to_wire,
};
pub use compute::{broadcast_from_wire, broadcast_to_wire, partition_answer_from_wire, partition_answer_to_wire};
pub use errors::{CODE_METADATA, error_from_status, error_from_wire, error_to_wire, status};
pub use replies::{Kind, kv_reply_from_wire, kv_reply_to_wire, task_reply_from_wire, task_reply_to_wire};
pub(crate) use replies::{
    delete_reply, get_many_reply, get_reply, increment_reply, put_many_reply, put_reply, submit_reply,
};
pub use requests::{kv_request_from_wire, kv_request_to_wire, task_request_from_wire, task_request_to_wire};
pub use values::{
    ack_level_name, check_key, check_name, key_codec_from_wire, key_codec_to_wire, value_codec_from_wire,
    value_codec_to_wire,
};

#[cfg(test)]
mod tests;
