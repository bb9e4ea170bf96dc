//! Counts the words of a map, as a scatter: each partition counts its own entries on the peer that
//! leads it, each peer adds its partitions' counts, and the asked peer ranks the words.
//!
//! `cargo run --example word_count`

use keystead::Grid;
use keystead::compute::word_count;
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let grid = Grid::builder().name("n1").listen("127.0.0.1:0").memory().start().await?;
    grid.wait_ready(Duration::from_secs(10)).await?;
    let lines = grid.map::<i64, String>("lines").await?;
    let poem = "the rain falls on the roof, the roof sends the rain to the street";
    for (number, line) in poem.split(", ").enumerate() {
        lines.put(&(number as i64), &line.to_owned()).await?;
    }

    // The counts of all words also go to a map.
    let input = word_count::Input { map: "lines".to_owned(), top: 3, into: Some("counts".to_owned()) };
    let output: word_count::Output = grid.scatter(word_count::NAME, &input).await?;
    println!("{} words, {} different", output.words, output.distinct);
    for (word, count) in &output.top {
        println!("{word}: {count}");
    }
    let client = grid.client().await?;
    let street = client.get("counts", "street").await?;
    println!("street is counted: {}", street.is_some());
    grid.shutdown().await;
    Ok(())
}
