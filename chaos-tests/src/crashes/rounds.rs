//! The rounds of the suite: one peer at each point, then all at some, then full disks. In: which points.
//! Out: the table. After each round the clients rest and everything is looked at, the peers' logs and each
//! of their deaths included.

use super::control::Ask;
use super::full;
use super::grid::{GUEST, Grid};
use super::load::Load;
use super::patience::Patience;
use super::points::{How, PLAN, Planned};
use super::process::Death;
use super::provoke;
use super::table::{Row, Table};
use crate::alarms::alarms;
use anyhow::bail;
use keystead::clock::Instant;
use std::path::PathBuf;
use std::time::Duration;

/// After the first death at a point at which all are armed: so long the others may come to it, too.
const OTHERS: Duration = Duration::from_millis(1500);
/// Acknowledged writes before a round's fault, so that it meets a grid at work.
const WARM: u64 = 30;
/// How long these may take.
const SLOW: Duration = Duration::from_secs(30);

/// Which rounds are run, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Points; all without any.
    pub points: Vec<String>,
    /// This crate's program: the peers are processes of it.
    pub program: PathBuf,
    /// Where the peers keep their data and logs.
    pub dir: PathBuf,
}

impl Options {
    fn wants(&self, point: &str) -> bool {
        self.points.is_empty() || self.points.iter().any(|wanted| wanted == point)
    }
}

/// Runs the rounds; tells each as it ends.
///
/// # Errors
/// When the grid cannot be started; a point that is not there.
pub async fn run(options: &Options, mut told: impl FnMut(&Row)) -> anyhow::Result<Table> {
    let known = |point: &String| PLAN.iter().any(|planned| planned.point == point) || full::NAMES.contains(&&**point);
    if let Some(unknown) = options.points.iter().find(|point| !known(point)) {
        bail!("there is no failpoint {unknown:?}");
    }
    let mut grid = Grid::start(&options.program, &options.dir).await?;
    let mut load = Load::start(&grid.client);
    let mut table = Table::default();
    let mut add = |table: &mut Table, row: Row| {
        told(&row);
        table.rows.push(row);
    };
    for planned in PLAN.iter().filter(|planned| options.wants(planned.point)) {
        let row = round(&mut grid, &mut load, planned, false).await;
        add(&mut table, row);
    }
    for planned in PLAN.iter().filter(|planned| planned.all && options.wants(planned.point)) {
        let row = round(&mut grid, &mut load, planned, true).await;
        add(&mut table, row);
    }
    for name in full::NAMES.iter().filter(|name| options.wants(name)) {
        let row = full_round(&mut grid, &mut load, name).await;
        add(&mut table, row);
    }
    Ok(table)
}

/// What a row begins with.
struct Before {
    acknowledged: u64,
    restarts: u32,
}

impl Before {
    fn of(grid: &Grid, load: &Load) -> Before {
        let restarts = grid.peers.iter().map(|peer| peer.restarts).sum();
        Before { acknowledged: load.acknowledged(), restarts }
    }

    fn into_row(self, grid: &Grid, load: &Load, row: Row) -> Row {
        let restarts: u32 = grid.peers.iter().map(|peer| peer.restarts).sum();
        Row { restarts: restarts - self.restarts, operations: load.acknowledged() - self.acknowledged, ..row }
    }
}

/// One round: to the point, death, a new start, and a look at everything.
async fn round(grid: &mut Grid, load: &mut Load, planned: &Planned, all: bool) -> Row {
    let before = Before::of(grid, load);
    let armed = if all { "all".to_owned() } else { grid.peers[planned.peer].name.clone() };
    let mut row = Row { point: planned.point.to_owned(), armed, ..Row::default() };
    load.more(WARM, SLOW).await;
    let begun = Instant::now();
    let done = match all {
        true => everywhere(grid, load, planned).await,
        false => provoke::to_the_point(grid, load, planned).await,
    };
    row.findings.extend(done.err().map(|error| format!("{error:#}")));
    row.seconds[0] = begun.elapsed().as_secs_f64();
    look(grid, load, (&[planned.point], &[]), &mut row).await;
    before.into_row(grid, load, row)
}

/// Arms all peers; when one has died, those that live on are killed a little later.
async fn everywhere(grid: &mut Grid, load: &mut Load, planned: &Planned) -> anyhow::Result<()> {
    for peer in &mut grid.peers {
        peer.ask(&Ask::Arm(planned.point.to_owned(), provoke::crash(planned.skip))).await?;
    }
    // The one that is killed to bring elections about is armed in its first life only, and nobody waits
    // for its death; if it comes to the point before it is killed, that counts.
    let killed = (planned.how == How::Elections).then(|| provoke::victim(planned));
    let watched: Vec<usize> = (0..grid.peers.len()).filter(|at| Some(*at) != killed).collect();
    let first = provoke::wait(grid, load, planned, &watched).await;
    let mut patience = Patience::of(OTHERS, Duration::from_millis(10));
    while first && (0..GUEST).any(|at| !grid.peers[at].has_ended()) && patience.next().await {}
    for peer in &mut grid.peers {
        peer.kill().await;
    }
    Ok(())
}

/// Failpoints of a round, and what a peer says that has come to one and lives on.
type Points<'a> = (&'a [&'a str], &'a [&'a str]);

/// Starts whoever is dead, lets the clients come to rest, and looks at everything.
async fn look(grid: &mut Grid, load: &mut Load, points: Points<'_>, row: &mut Row) {
    let begun = Instant::now();
    // A peer that is started again is not armed any more.
    for peer in &mut grid.peers {
        for point in points.0 {
            if !peer.has_ended() {
                drop(peer.ask(&Ask::Disarm((*point).to_owned())).await);
            }
        }
    }
    if let Err(error) = grid.start_all().await {
        row.findings.push(format!("not started again: {error:#}"));
    }
    if !load.more(WARM, SLOW).await {
        row.findings.push(format!("writes do not get on any more: {:?}", load.errors()));
    }
    row.seconds[1] = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    load.pause().await;
    row.findings.extend(grid.come_to_rest().await);
    row.findings.extend(load.check().await);
    load.go_on();
    row.seconds[2] = begun.elapsed().as_secs_f64();
    for peer in &mut grid.peers {
        let (deaths, said) = peer.end_round();
        judge_peer(&peer.name, &deaths, &said, points, row);
    }
    if !row.reached {
        row.findings.push("nobody came to the point".to_owned());
    }
}

/// What a round's deaths of a peer and its log say: deaths at the points are what was planned, others are
/// findings, and so is what no peer may say.
fn judge_peer(name: &str, deaths: &[Death], said: &str, (points, signs): Points<'_>, row: &mut Row) {
    for death in deaths {
        match &death.point {
            Some(point) if points.contains(&point.as_str()) => row.died += 1,
            _ => row.findings.push(format!("{name} died elsewhere, {}", death.how)),
        }
    }
    row.reached |= row.died > 0 || signs.iter().any(|sign| said.contains(sign));
    row.findings.extend(alarms(said).into_iter().map(|line| format!("{name} said: {line}")));
}

/// A round with a full disk.
async fn full_round(grid: &mut Grid, load: &mut Load, name: &str) -> Row {
    let before = Before::of(grid, load);
    let mut row = Row { point: name.to_owned(), armed: full::armed(name).to_owned(), ..Row::default() };
    load.more(WARM, SLOW).await;
    let begun = Instant::now();
    match full::round(grid, load, name).await {
        Ok(found) => row.findings.extend(found),
        Err(error) => row.findings.push(format!("{error:#}")),
    }
    row.seconds[0] = begun.elapsed().as_secs_f64();
    look(grid, load, (full::POINTS, full::signs(name)), &mut row).await;
    before.into_row(grid, load, row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_at_the_point_are_planned_and_everything_else_is_a_finding() {
        let death = |point: Option<&str>| Death { point: point.map(str::to_owned), how: "signal: 6".to_owned() };
        let judge = |deaths: &[Death], said: &str| {
            let mut row = Row::default();
            judge_peer("n1", deaths, said, (&["roll-before-create"], &["no room"]), &mut row);
            (row.reached, row.died, row.findings.len())
        };
        let here = "failpoint roll-before-create: the process ends here\n";
        let planned = death(Some("roll-before-create"));
        assert_eq!(judge(&[planned.clone(), planned.clone()], &here.repeat(2)), (true, 2, 0));
        assert_eq!(judge(&[], ""), (false, 0, 0));
        assert_eq!(judge(&[death(None)], ""), (false, 0, 1), "a death elsewhere");
        assert_eq!(judge(&[planned, death(Some("apply-before"))], here), (true, 1, 1), "at another point");
        assert_eq!(judge(&[], "thread 'a' panicked at src/x.rs:1\n"), (false, 0, 1), "a panic");
        assert_eq!(judge(&[], "WARN KS9001: it cannot be\n"), (false, 0, 1), "a bug");
        assert_eq!(judge(&[], "WARN disk: no room\n"), (true, 0, 0), "reached, and lived on");
    }
}
