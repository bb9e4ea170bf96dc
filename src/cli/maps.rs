//! `create-map`.

use super::args::CreateMapArgs;
use super::output;
use crate::client::Client;
use crate::error::Result;
use crate::types::{MapDescriptor, MapOptions, MapSpec, whole_ms};
use serde_json::json;
use std::io::Write;

/// A map as JSON.
pub(super) fn map_json(map: &MapDescriptor) -> serde_json::Value {
    json!({
        "id": map.id.0,
        "name": map.name,
        "keys": map.key_codec.name(),
        "values": map.value_codec.name(),
        "schema": map.schema,
        "ttl_ms": map.options.ttl_ms,
        "max_entries": map.options.max_entries,
        "max_bytes": map.options.max_bytes,
        "eviction": map.options.eviction.name(),
        "replicated": map.options.replicated,
    })
}

fn spec(args: &CreateMapArgs) -> Result<MapSpec> {
    let options = MapOptions {
        ttl_ms: args.ttl.map_or(0, whole_ms),
        max_entries: args.max_entries.unwrap_or(0),
        max_bytes: args.max_bytes.unwrap_or(0),
        eviction: args.eviction,
        replicated: args.replicated,
    };
    options.check()?;
    Ok(MapSpec::new(&args.map, args.keys, args.values).schema(args.schema).options(options))
}

pub(super) async fn create(client: &Client, args: &CreateMapArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let map = client.create_map_as(&spec(args)?).await?;
    if args.connection.json {
        return output::json(out, &map_json(&map));
    }
    output::line(out, &format!("map {} is there, number {}", map.name, map.id.0))
}
