//! The order of things: short turns of the reference that find the open loops' rate, then rounds in
//! which every system is started, loaded in each way and stopped.

use crate::cli::Options;
use crate::load::{self, Kind, Measured, Shape};
use crate::report::{Figures, Report, Turn, median};
use crate::servers::{self, SERVERS, Servers};
use crate::target::{System, Target};
use anyhow::{Context, Result};

/// The open loops run at this share of the reference's closed loop.
const OPEN_SHARE: f64 = 0.8;
/// Turns whose median is the reference's closed loop: one alone is off by a third now and then.
const CALIBRATIONS: u64 = 3;
/// How many fewer gets they have than those of the rounds. The keys are all there: among fewer, etcd's gets
/// are quicker by a fifth.
const CALIBRATION_PART: u64 = 3;

/// Measures everything and prints it.
///
/// # Errors
/// The first thing that fails: a program that is missing, a request that is refused.
pub async fn run(options: &Options) -> Result<()> {
    anyhow::ensure!(!options.systems.is_empty(), "no system is named");
    anyhow::ensure!(options.rounds > 0 && options.keys > 0 && options.gets > 0, "rounds, keys and gets are not 0");
    // Its client has one to each peer: another number would hold for the others alone.
    anyhow::ensure!(
        options.connections == SERVERS || !options.systems.contains(&System::Keystead),
        "--connections {} cannot be had from Keystead, whose client has one to each of {SERVERS} peers; leave the \
         option out, or Keystead with --systems",
        options.connections
    );
    let reference = if options.systems.contains(&System::Etcd) { System::Etcd } else { options.systems[0] };
    let open = if options.open_seconds > 0 { Some(calibrate(reference, options).await?) } else { None };
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

/// The open loops' rates of puts and gets.
async fn calibrate(reference: System, options: &Options) -> Result<(f64, f64)> {
    let short = Options { gets: (options.gets / CALIBRATION_PART).max(1), ..options.clone() };
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for at in 1..=CALIBRATIONS {
        let turn = turn(reference, &short, (u64::MAX >> 20) + at, None).await?;
        eprintln!("calibration {at} of {CALIBRATIONS}: {reference}: {}", turn.line());
        puts.push(turn.puts.per_second);
        gets.push(turn.gets.per_second);
    }
    Ok((median(puts) * OPEN_SHARE, median(gets) * OPEN_SHARE))
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
