//! A task that runs beside its key: it reads and writes the entries of the key's slot, and what
//! it writes is committed together with its answer.
//!
//! `cargo run --example affinity_task`

use keystead::Grid;
use keystead::compute::{TaskContext, TaskError};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const BALANCES: &str = "balances";

#[derive(Serialize, Deserialize)]
struct Transfer {
    from: String,
    to: String,
    pence: i64,
}

/// Moves money between two accounts of one customer. Both names carry the customer's {tag}, so
/// both accounts lie in the task's slot.
fn transfer(context: &mut TaskContext<'_>, transfer: Transfer) -> Result<i64, TaskError> {
    let from: i64 = context.get(BALANCES, transfer.from.as_bytes())?.unwrap_or(0);
    let to: i64 = context.get(BALANCES, transfer.to.as_bytes())?.unwrap_or(0);
    if from < transfer.pence {
        // An error undoes whatever the task has written.
        return Err(TaskError::new("too-little", format!("{} holds only {from}", transfer.from)));
    }
    context.put(BALANCES, transfer.from.as_bytes(), &(from - transfer.pence))?;
    context.put(BALANCES, transfer.to.as_bytes(), &(to + transfer.pence))?;
    Ok(from - transfer.pence)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let grid = Grid::builder().name("n1").listen("127.0.0.1:0").memory().task("transfer", transfer).start().await?;
    grid.wait_ready(Duration::from_secs(10)).await?;
    let balances = grid.map::<str, i64>(BALANCES).await?;
    balances.put("{anna}:current", &1000).await?;
    balances.put("{anna}:savings", &0).await?;

    let request = Transfer { from: "{anna}:current".to_owned(), to: "{anna}:savings".to_owned(), pence: 300 };
    let left: i64 = grid.submit("transfer", "{anna}", &request).await?;
    println!("left: {left}, saved: {:?}", balances.get("{anna}:savings").await?);

    let too_much = Transfer { pence: 5000, ..request };
    match grid.submit::<_, i64>("transfer", "{anna}", &too_much).await {
        Ok(left) => println!("left: {left}"),
        Err(error) => println!("refused: {error}"),
    }
    println!("saved: {:?}", balances.get("{anna}:savings").await?);
    grid.shutdown().await;
    Ok(())
}
