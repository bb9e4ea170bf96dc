//! A peer inside this process, and a map of it whose keys and values are Rust types.
//!
//! `cargo run --example typed_map`

use keystead::Grid;
use keystead::client::{Msgpack, TypedOptions};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    item: String,
    pieces: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct LaterOrder {
    item: String,
    pieces: u32,
    #[serde(default)]
    gift: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Alone it is a grid of one; more peers with the same seeds would share the data.
    let grid = Grid::builder().name("n1").listen("127.0.0.1:0").memory().start().await?;
    grid.wait_ready(Duration::from_secs(10)).await?;
    println!("listening on {}", grid.address());

    let orders = grid.map::<i64, Order>("orders").await?;
    orders.put(&42, &Order { item: "mug".to_owned(), pieces: 3 }).await?;
    println!("order 42: {:?}", orders.get(&42).await?);

    // Another put_if_absent finds the entry and changes nothing.
    let written = orders.put_if_absent(&42, &Order { item: "bowl".to_owned(), pieces: 1 }).await?;
    println!("written again: {written}");

    // A later version of the program has a field more. Both share the map: the newer one has a
    // default for the field, the older one's update leaves it as it is.
    let options = TypedOptions { schema: 2, ..TypedOptions::default() };
    let later = grid.map_with::<i64, LaterOrder, Msgpack>("orders", options).await?;
    later.update(&42, |order| order.map(|order| LaterOrder { gift: true, ..order })).await?;
    orders.update(&42, |order| order.map(|order| Order { pieces: order.pieces + 1, ..order })).await?;
    println!("order 42: {:?}", later.get(&42).await?);

    println!("deleted: {}", orders.delete(&42).await?);
    println!("order 42: {:?}", orders.get(&42).await?);
    grid.shutdown().await;
    Ok(())
}
