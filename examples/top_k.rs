//! Finds a map's largest entries with the built-in scatter `top-k`, and writes a scatter of one's
//! own: an average, which no part can give alone.
//!
//! `cargo run --example top_k`

use keystead::Grid;
use keystead::compute::{PartitionScan, ResultMap, Scatter, TaskError, top_k};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Serialize, Deserialize)]
struct Order {
    customer: String,
    total: u64,
}

/// The mean of a map's totals.
struct Mean;

impl Scatter for Mean {
    type Input = String;
    /// Sum and count.
    type Part = (u64, u64);
    type Output = f64;

    fn map(&self, partition: &mut PartitionScan<'_>, map: &String) -> Result<(u64, u64), TaskError> {
        let (mut sum, mut count) = (0, 0);
        partition.each(map, |_, value| {
            let order: Order =
                rmp_serde::from_slice(&value.data).map_err(|error| TaskError::new("no-order", error.to_string()))?;
            sum += order.total;
            count += 1;
            Ok(())
        })?;
        Ok((sum, count))
    }

    fn combine(&self, _map: &String, into: &mut (u64, u64), other: (u64, u64)) {
        into.0 += other.0;
        into.1 += other.1;
    }

    fn reduce(&self, _map: &String, all: Option<(u64, u64)>, _into: &mut Vec<ResultMap>) -> Result<f64, TaskError> {
        let (sum, count) = all.unwrap_or_default();
        Ok(sum as f64 / count.max(1) as f64)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let builder = Grid::builder().name("n1").listen("127.0.0.1:0").memory();
    let grid = builder.scatter("mean", Mean).example("mean", "\"orders\"").start().await?;
    grid.wait_ready(Duration::from_secs(10)).await?;
    let orders = grid.map::<i64, Order>("orders").await?;
    for number in 1..=20i64 {
        let order = Order { customer: format!("c{}", number % 7), total: (number as u64 * 37) % 100 };
        orders.put(&number, &order).await?;
    }

    let input = top_k::Input { map: "orders".to_owned(), k: 3, field: Some("total".to_owned()) };
    let output: top_k::Output = grid.scatter(top_k::NAME, &input).await?;
    let totals: Vec<String> = output.top.iter().map(|ranked| format!("{:?}", ranked.value)).collect();
    println!("largest totals: {}", totals.join(", "));
    let mean: f64 = grid.scatter("mean", &"orders").await?;
    println!("mean: {mean}");
    if let Err(error) = grid.scatter::<_, f64>("mean", &7).await {
        println!("refused: {error}");
    }
    grid.shutdown().await;
    Ok(())
}
