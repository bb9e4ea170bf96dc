//! Translation between the generated protobuf types and the grid's own, both ways.
//!
//! In: messages of `keystead.v1` (untrusted: every field is checked against the limits) or the
//! grid's requests, replies and errors. Out: the other. Pure; never panics on any message.

mod cluster;
mod compute;
mod errors;
#[cfg(test)]
mod fuzz;
mod jobs;
mod options;
mod replies;
mod requests;
mod values;
mod walks;
mod watch;

pub use cluster::{
    explanation_from_wire, explanation_to_wire, map_from_wire, map_spec_from_wire, map_spec_to_wire, map_to_wire,
    member_from_wire, member_to_wire, node_id, partition_from_wire, partition_to_wire, placement_from_wire,
    placement_to_wire,
};
pub use compute::{
    broadcast_from_wire, broadcast_to_wire, partition_answer_from_wire, partition_answer_to_wire,
    scatter_event_from_wire, scatter_event_to_wire, scatter_from_wire, scatter_to_wire,
};
pub use errors::{CODE_METADATA, error_from_status, error_from_wire, error_to_wire, status};
pub use jobs::{job_from_wire, job_to_wire, start_job_from_wire, start_job_to_wire};
pub use replies::{Kind, kv_reply_from_wire, kv_reply_to_wire, task_reply_from_wire, task_reply_to_wire};
pub(crate) use replies::{
    delete_reply, get_many_reply, get_reply, increment_reply, put_many_reply, put_reply, submit_reply, touch_reply,
};
pub use requests::{kv_request_from_wire, kv_request_to_wire, task_request_from_wire, task_request_to_wire};
pub use values::{
    ack_level_name, check_key, check_name, key_codec_from_wire, key_codec_to_wire, value_codec_from_wire,
    value_codec_to_wire,
};
pub(crate) use walks::{clear_reply, scan_reply, size_reply, transact_reply};
pub use watch::{
    local_entry_from_wire, local_entry_to_wire, watch_message_from_wire, watch_message_to_wire,
    watch_request_from_wire, watch_request_to_wire,
};

#[cfg(test)]
mod tests;
