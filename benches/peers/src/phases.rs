//! The order of things: a calibration that finds the open loops' rate, then rounds in which every
//! system is started, loaded in each way and stopped.

use crate::cli::Options;
use crate::load::{self, Kind, Measured, Shape};
use crate::report::{Figures, Report, Turn};
use crate::servers::{self, Servers};
use crate::target::{System, Target};
use anyhow::{Context, Result};

/// The open loops run at this share of the reference's closed loop.
const OPEN_SHARE: f64 = 0.8;

/// Measures everything and prints it.
///
/// # Errors
/// The first thing that fails: a program that is missing, a request that is refused.
pub async fn run(options: &Options) -> Result<()> {
    anyhow::ensure!(!options.systems.is_empty(), "no system is named");
    anyhow::ensure!(options.rounds > 0 && options.keys > 0 && options.gets > 0, "rounds, keys and gets are not 0");
    let reference = if options.systems.contains(&System::Etcd) { System::Etcd } else { options.systems[0] };
    let mut open = None;
    if options.open_seconds > 0 {
        eprintln!("calibrating: {reference}");
        let turn = turn(reference, options, u64::MAX >> 20, None).await?;
        open = Some((turn.puts.per_second * OPEN_SHARE, turn.gets.per_second * OPEN_SHARE));
    }
    let mut report = Report::new(options, reference, open);
    for round in 1..=options.rounds {
        for system in &options.systems {
            let turn = turn(*system, options, round as u64, open).await?;
            eprintln!("round {round} of {}: {system}: {}", options.rounds, turn.line());
            report.add(*system, turn);
        }
    }
    report.print();
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report.json())?;
        std::fs::write(path, text + "\n").with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// One system from its start to its end.
async fn turn(system: System, options: &Options, salt: u64, open: Option<(f64, f64)>) -> Result<Turn> {
    let servers = Servers::start(system, options)?;
    let target = servers.connect(options).await?;
    let shape = Shape { keys: options.keys, value_size: options.value_size, salt };
    let put = closed(&servers, &target, shape, Kind::Puts, options.keys, options);
    let puts = put.await.with_context(|| format!("{system}: puts"))?;
    let get = closed(&servers, &target, shape, Kind::Gets, options.gets, options);
    let gets = get.await.with_context(|| format!("{system}: gets"))?;
    let mut turn = Turn { puts, gets, open_puts: None, open_gets: None };
    if let Some((put_rate, get_rate)) = open {
        let seconds = options.open_seconds;
        let measured = load::open(&target, shape, Kind::Puts, put_rate, seconds).await;
        turn.open_puts = Some(Figures::of(&measured.with_context(|| format!("{system}: open puts"))?, None));
        let measured = load::open(&target, shape, Kind::Gets, get_rate, seconds).await;
        turn.open_gets = Some(Figures::of(&measured.with_context(|| format!("{system}: open gets"))?, None));
    }
    Ok(turn)
}

async fn closed(
    servers: &Servers,
    target: &Target,
    shape: Shape,
    kind: Kind,
    count: u64,
    options: &Options,
) -> Result<Figures> {
    let cpu = || Some((servers.cpu_seconds()?, servers::own_cpu_seconds()?));
    let before = cpu();
    let measured: Measured = load::closed(target, shape, kind, count, options.in_flight).await?;
    let used = before.zip(cpu()).map(|(before, after)| {
        let us = |seconds: f64| seconds * 1e6 / count as f64;
        (us(after.0 - before.0), us(after.1 - before.1))
    });
    Ok(Figures::of(&measured, used))
}
