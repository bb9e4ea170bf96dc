//! A peer of one's own: what `keystead start` does, with a job task beside it.
//!
//! `cargo run --example own_peer -- NAME LISTEN SEED,SEED,SEED DIRECTORY [PARTITIONS]`, on every peer
//! alike; then, with the endpoint of one of them:
//! `keystead job start rebuild --key k1 --payload '{"from":"orders","to":"labels"}' --wait`

use keystead::Grid;
use keystead::clock;
use keystead::compute::{Cursor, JobContext, TaskError};
use keystead::types::Value;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What the job is given.
#[derive(Deserialize)]
struct Rebuild {
    /// The map that is read.
    from: String,
    /// The map that is written: utf8 keys and values.
    to: String,
    /// How long it rests after each entry, as work would take.
    #[serde(default)]
    pause_ms: u64,
}

/// What the job answers.
#[derive(Serialize)]
struct Rebuilt {
    entries: u64,
    attempt: u32,
}

/// Writes a label for each entry of its key's partition. What it writes follows from what it reads and
/// from nothing else, so that it may be begun again on another peer.
async fn rebuild(job: JobContext, input: Rebuild) -> Result<Rebuilt, TaskError> {
    let (mut cursor, mut entries) = (Cursor::default(), Vec::new());
    while !cursor.ended() {
        entries.extend(job.page(&input.from, &mut cursor, 100).await?);
    }
    let all = entries.len();
    for (number, (key, value)) in entries.into_iter().enumerate() {
        job.put_value(&input.to, &key, Value::utf8(format!("{} bytes", value.data.len()))).await?;
        job.progress((number + 1) as f64 / all as f64, format!("{} of {all}", number + 1));
        tokio::select! {
            biased;
            // Somebody has cancelled it, or the peer leads the partition no more.
            () = job.ending() => job.check()?,
            () = clock::sleep(Duration::from_millis(input.pause_ms)) => {}
        }
    }
    Ok(Rebuilt { entries: all as u64, attempt: job.attempt() })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, listen, seeds, directory, partitions) = match &arguments[..] {
        [name, listen, seeds, directory] => (name, listen, seeds, directory, 64),
        [name, listen, seeds, directory, partitions] => (name, listen, seeds, directory, partitions.parse()?),
        _ => return Err("give NAME LISTEN SEEDS DIRECTORY, and PARTITIONS if they are not to be 64".into()),
    };
    let grid = Grid::builder()
        .name(name)
        .listen(listen)
        .seeds(seeds.split(','))
        .data(directory)
        .partitions(partitions)
        .job("rebuild", rebuild)
        .start()
        .await?;
    println!("{name} listens on {}", grid.address());
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {}
        ended = grid.ended() => return Err(format!("{name} has ended: {ended:?}").into()),
    }
    grid.shutdown().await;
    Ok(())
}
