//! A client without Keystead's own: the code generated from the `.proto` files, over plain gRPC,
//! as a program in any language would do it.
//!
//! `cargo run --example grpc_client`

use grid_proto::keystead::v1;
use keystead::Grid;
use std::time::Duration;
use v1::cluster_client::ClusterClient;
use v1::kv_client::KvClient;
use v1::tasks_client::TasksClient;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Some peer to talk to; any would do, it passes on what it does not lead.
    let grid = Grid::builder().name("n1").listen("127.0.0.1:0").memory().start().await?;
    grid.wait_ready(Duration::from_secs(10)).await?;
    let endpoint = format!("http://{}", grid.address());

    let mut cluster = ClusterClient::connect(endpoint.clone()).await?;
    for member in cluster.members(v1::MembersRequest {}).await?.into_inner().members {
        println!("member {} at {}", member.name, member.address);
    }
    for (name, value_codec) in [("orders", v1::ValueCodec::Utf8), ("totals", v1::ValueCodec::Msgpack)] {
        let map = v1::CreateMapRequest {
            name: name.to_owned(),
            key_codec: v1::KeyCodec::Utf8.into(),
            value_codec: value_codec.into(),
            schema: 0,
            options: None,
        };
        cluster.create_map(map).await?;
    }

    let mut kv = KvClient::connect(endpoint.clone()).await?;
    let value = v1::Value { codec: v1::ValueCodec::Utf8.into(), schema: 0, data: "open".into() };
    let put = v1::PutRequest { map: "orders".to_owned(), key: "42".into(), value: Some(value), ..Default::default() };
    let reply = kv.put(put).await?.into_inner();
    println!("written at revision {}", reply.revision);
    let get = v1::GetRequest { map: "orders".to_owned(), key: "42".into(), ..Default::default() };
    if let Some(value) = kv.get(get).await?.into_inner().entry.and_then(|entry| entry.value) {
        println!("order 42 is {}", String::from_utf8_lossy(&value.data));
    }

    let mut tasks = TasksClient::connect(endpoint).await?;
    let event = r#"{"map": "totals", "time_s": 1700000000, "amount": 250, "bucket_s": 3600, "buckets": 168}"#;
    let payload = v1::Payload { codec: v1::ValueCodec::Json.into(), data: event.into() };
    let submit = v1::SubmitRequest {
        name: "rolling-total".to_owned(),
        key: "customer-7".into(),
        payload: Some(payload),
        ..Default::default()
    };
    if let Some(answer) = tasks.submit(submit).await?.into_inner().answer {
        println!("customer 7: {}", String::from_utf8_lossy(&answer.data));
    }

    // An error has a stable code, and says how to mend it.
    let missing = v1::GetRequest { map: "no-such-map".to_owned(), key: "1".into(), ..Default::default() };
    if let Err(status) = kv.get(missing).await {
        println!("refused: {}", status.message());
    }
    grid.shutdown().await;
    Ok(())
}
