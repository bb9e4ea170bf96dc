//! `task`.

use super::args::TaskArgs;
use super::output;
use crate::client::Client;
use crate::error::{Code, Error, Result};
use crate::types::{TaskPayload, Value, ValueCodec};
use bytes::Bytes;
use serde_json::json;
use std::io::Write;

pub(super) async fn task(client: &Client, args: &TaskArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    serde_json::from_str::<serde_json::Value>(&args.payload).map_err(|error| {
        Error::new(Code::InvalidConfig, format!("the payload is not JSON: {error}")).at("--payload")
    })?;
    let payload = TaskPayload { codec: ValueCodec::Json, data: Bytes::copy_from_slice(args.payload.as_bytes()) };
    let answer = client.task(&args.name, &args.key, payload).await?;
    let value = Value { codec: answer.payload.codec, schema: 0, data: answer.payload.data };
    let shown = output::value_json(&value);
    if args.connection.json {
        let fields = json!({ "task": args.name, "key": args.key, "answer": shown });
        return output::json(out, &output::with(fields, output::served(&answer.served, true)));
    }
    output::json(out, &shown)
}
