//! `task`: runs a task beside its key and prints its answer.

use super::args::TaskArgs;
use super::output;
use crate::client::Client;
use crate::compute::rolling_total;
use crate::error::{Code, Error, Result};
use crate::types::{KeyCodec, TaskPayload, Value, ValueCodec};
use bytes::Bytes;
use serde_json::json;
use std::io::Write;

pub(super) async fn task(client: &Client, args: &TaskArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let payload = payload(&args.payload)?;
    let run = || client.task_with_id(&args.name, &args.key, payload.clone(), args.id);
    let mut answer = run().await;
    let missing = answer.as_ref().is_err_and(|error| error.code == Code::NoSuchMap);
    if let Some(map) = map_of_rolling_total(args).filter(|_| missing) {
        // As the first put creates its map, the first event creates that of its sub-windows.
        client.create_map(&map, KeyCodec::Utf8, ValueCodec::Msgpack, 1).await?;
        // The leader has heard of it when it answers a read of it.
        client.get(&map, &args.key).await?;
        answer = run().await;
    }
    let answer = answer?;
    let shown = shown(answer.payload);
    if args.connection.json {
        let fields = json!({ "task": args.name, "key": args.key, "answer": shown });
        return output::json(out, &output::with(fields, output::served(&answer.served, true)));
    }
    output::json(out, &shown)
}

/// A payload that was given as JSON.
pub(super) fn payload(json: &str) -> Result<TaskPayload> {
    serde_json::from_str::<serde_json::Value>(json).map_err(|error| {
        Error::new(Code::InvalidConfig, format!("the payload is not JSON: {error}")).at("--payload")
    })?;
    Ok(TaskPayload { codec: ValueCodec::Json, data: Bytes::copy_from_slice(json.as_bytes()) })
}

/// An answer as JSON.
pub(super) fn shown(answer: TaskPayload) -> serde_json::Value {
    output::value_json(&Value { codec: answer.codec, schema: 0, data: answer.data })
}

/// The map that an event of `rolling-total` names; `None` for other tasks.
fn map_of_rolling_total(args: &TaskArgs) -> Option<String> {
    let event: rolling_total::Input = serde_json::from_str(&args.payload).ok()?;
    (args.name == rolling_total::NAME).then_some(event.map)
}
