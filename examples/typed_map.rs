//! A peer inside this process, and a map of it whose keys and values are Rust types.
//!
//! `cargo run --example typed_map`

use keystead::Grid;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    item: String,
    pieces: u32,
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

    println!("deleted: {}", orders.delete(&42).await?);
    println!("order 42: {:?}", orders.get(&42).await?);
    grid.shutdown().await;
    Ok(())
}
