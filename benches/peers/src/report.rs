//! Medians, ratios and the words beside them.

use crate::cli::Options;
use crate::load::Measured;
use crate::target::System;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

/// What one loop gave.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Requests answered per second.
    pub per_second: f64,
    /// Latency quantiles, in milliseconds.
    pub p50_ms: f64,
    /// As above.
    pub p99_ms: f64,
    /// As above.
    pub p999_ms: f64,
    /// Microseconds of CPU per request: all servers, and the load generator.
    pub cpu_us: Option<(f64, f64)>,
}

impl Figures {
    /// From a loop's measurement.
    pub fn of(measured: &Measured, cpu_us: Option<(f64, f64)>) -> Self {
        Figures {
            per_second: measured.per_second,
            p50_ms: measured.ms(0.5),
            p99_ms: measured.ms(0.99),
            p999_ms: measured.ms(0.999),
            cpu_us,
        }
    }
}

/// One system's part of a round.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    /// Closed loop of puts.
    pub puts: Figures,
    /// Closed loop of gets.
    pub gets: Figures,
    /// Open loop of puts.
    pub open_puts: Option<Figures>,
    /// Open loop of gets.
    pub open_gets: Option<Figures>,
}

impl Turn {
    /// A line of progress.
    pub fn line(&self) -> String {
        let mut line = format!("{:.0} puts/s, {:.0} gets/s", self.puts.per_second, self.gets.per_second);
        if let (Some(puts), Some(gets)) = (&self.open_puts, &self.open_gets) {
            line += &format!("; open loop p99 {:.1} ms puts, {:.1} ms gets", puts.p99_ms, gets.p99_ms);
        }
        line
    }
}

/// One of the four loops of a turn.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    of: fn(&Turn) -> Option<&Figures>,
}

const ROWS: [Row; 4] = [
    Row { name: "puts, closed loop", of: |turn| Some(&turn.puts) },
    Row { name: "gets, closed loop", of: |turn| Some(&turn.gets) },
    Row { name: "puts, open loop", of: |turn| turn.open_puts.as_ref() },
    Row { name: "gets, open loop", of: |turn| turn.open_gets.as_ref() },
];

/// Everything that was measured.
pub struct Report {
    options: Options,
    reference: System,
    open: Option<(f64, f64)>,
    turns: BTreeMap<System, Vec<Turn>>,
}

/// Shares of the reference's closed loop in the rounds between which the open loops compare what they
/// are meant to compare: loaded, and not overloaded.
const FAIR_SHARES: std::ops::RangeInclusive<f64> = 0.70..=0.85;

/// The middle of these numbers; 0 of none.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        count if count % 2 == 1 => numbers[count / 2],
        count => (numbers[count / 2 - 1] + numbers[count / 2]) / 2.0,
    }
}

impl Report {
    /// Nothing yet.
    pub fn new(options: &Options, reference: System, open: Option<(f64, f64)>) -> Self {
        Report { options: options.clone(), reference, open, turns: BTreeMap::new() }
    }

    /// Adds a turn; the turns of a system come in the order of the rounds.
    pub fn add(&mut self, system: System, turn: Turn) {
        self.turns.entry(system).or_default().push(turn);
    }

    fn medians(&self, system: System, row: Row) -> Option<Figures> {
        let all: Vec<&Figures> = self.turns.get(&system)?.iter().filter_map(row.of).collect();
        let of = |pick: fn(&Figures) -> f64| median(all.iter().map(|figures| pick(figures)).collect());
        let cpu: Vec<(f64, f64)> = all.iter().filter_map(|figures| figures.cpu_us).collect();
        (!all.is_empty()).then(|| Figures {
            per_second: of(|figures| figures.per_second),
            p50_ms: of(|figures| figures.p50_ms),
            p99_ms: of(|figures| figures.p99_ms),
            p999_ms: of(|figures| figures.p999_ms),
            cpu_us: (!cpu.is_empty()).then(|| {
                (median(cpu.iter().map(|cpu| cpu.0).collect()), median(cpu.iter().map(|cpu| cpu.1).collect()))
            }),
        })
    }

    /// Keystead's figure over another system's, round by round; the median, the least and the most.
    fn ratio(&self, other: System, row: Row, pick: fn(&Figures) -> f64) -> Option<[f64; 3]> {
        let pairs = self.turns.get(&System::Keystead)?.iter().zip(self.turns.get(&other)?);
        let ratios: Vec<f64> =
            pairs.filter_map(|(ours, theirs)| Some(pick((row.of)(ours)?) / pick((row.of)(theirs)?))).collect();
        let least = ratios.iter().copied().min_by(f64::total_cmp)?;
        let most = ratios.iter().copied().max_by(f64::total_cmp)?;
        Some([median(ratios), least, most])
    }

    /// The open loops' rates as shares of the reference's closed loops in the rounds, which is what
    /// they were meant to be 80 % of.
    fn open_shares(&self) -> Option<(f64, f64)> {
        let (puts, gets) = self.open?;
        let closed = |row| self.medians(self.reference, row).map(|figures| figures.per_second);
        Some((puts / closed(ROWS[0])?, gets / closed(ROWS[1])?))
    }

    /// What is to be said of the open loops, and what is doubtful about them.
    fn about_open_loops(&self) -> Vec<String> {
        let (Some((puts, gets)), Some(shares)) = (self.open, self.open_shares()) else { return Vec::new() };
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let mut said = vec![format!(
            "open loops: {puts:.0} puts/s, then {gets:.0} gets/s: {} and {} of the median of {reference}'s closed loops \
             above, meant to be 80 % and taken from short turns before the rounds; latency counts from the time at \
             which a request should have begun",
            percent(shares.0),
            percent(shares.1),
            reference = self.reference,
        )];
        for (what, share) in [("puts", shares.0), ("gets", shares.1)] {
            if !FAIR_SHARES.contains(&share) {
                let share = percent(share);
                said.push(format!(
                    "WARNING: the open loop of {what} is outside 70 to 85 % ({share}): measure it again"
                ));
            }
        }
        said
    }

    /// Prints the tables.
    pub fn print(&self) {
        let Options { keys, value_size, in_flight, connections, rounds, partitions, .. } = &self.options;
        println!(
            "\n{keys} keys, values of {value_size} bytes, {in_flight} in flight in the closed loops, \
             {connections} connections to each system (Keystead's client: one to each peer); Keystead with \
             {partitions} partitions; medians of {rounds} rounds\n"
        );
        println!("| load | system | requests/s | p50 ms | p99 ms | p99.9 ms | CPU us/request, servers + client |");
        println!("|---|---|---|---|---|---|---|");
        for row in ROWS {
            for system in &self.options.systems {
                let Some(figures) = self.medians(*system, row) else { continue };
                let cpu = figures.cpu_us.map_or("".to_owned(), |(servers, own)| format!("{servers:.0} + {own:.0}"));
                let Figures { per_second, p50_ms, p99_ms, p999_ms, .. } = figures;
                println!(
                    "| {} | {system} | {per_second:.0} | {p50_ms:.1} | {p99_ms:.1} | {p999_ms:.1} | {cpu} |",
                    row.name
                );
            }
        }
        println!("\nKeystead over another system, median of the rounds' ratios (least..most):\n");
        println!("| load | other | requests/s | p99 |");
        println!("|---|---|---|---|");
        let show = |ratio: Option<[f64; 3]>| {
            ratio.map_or("".to_owned(), |[median, least, most]| format!("{median:.2} ({least:.2}..{most:.2})"))
        };
        for row in ROWS {
            for other in self.options.systems.iter().filter(|system| **system != System::Keystead) {
                let rate = show(self.ratio(*other, row, |figures| figures.per_second));
                let p99 = show(self.ratio(*other, row, |figures| figures.p99_ms));
                if !p99.is_empty() {
                    println!("| {} | {other} | {rate} | {p99} |", row.name);
                }
            }
        }
        println!();
        for system in &self.options.systems {
            println!("{system}: {}", system.promise());
        }
        for line in self.about_open_loops() {
            println!("{line}");
        }
    }

    /// Everything, for programs.
    pub fn json(&self) -> serde_json::Value {
        let named = |row: Row| {
            let medians: BTreeMap<String, _> = self
                .options
                .systems
                .iter()
                .filter_map(|system| Some((system.to_string(), self.medians(*system, row)?)))
                .collect();
            let ratios: BTreeMap<String, _> = self
                .options
                .systems
                .iter()
                .filter(|system| **system != System::Keystead)
                .map(|other| {
                    let rate = self.ratio(*other, row, |figures| figures.per_second);
                    let p99 = self.ratio(*other, row, |figures| figures.p99_ms);
                    (other.to_string(), json!({ "per_second": rate, "p99": p99 }))
                })
                .collect();
            (row.name.to_owned(), json!({ "medians": medians, "keystead_over": ratios }))
        };
        let rounds: BTreeMap<String, _> =
            self.turns.iter().map(|(system, turns)| (system.to_string(), turns.clone())).collect();
        let promises: BTreeMap<String, _> =
            self.options.systems.iter().map(|system| (system.to_string(), system.promise())).collect();
        json!({
            "keys": self.options.keys,
            "gets": self.options.gets,
            "value_size": self.options.value_size,
            "in_flight": self.options.in_flight,
            "connections": self.options.connections,
            "partitions": self.options.partitions,
            "open_rates": self.open,
            "open_shares": self.open_shares(),
            "promises": promises,
            "loads": ROWS.into_iter().map(named).collect::<BTreeMap<_, _>>(),
            "rounds": rounds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }

    fn figures(per_second: f64) -> Figures {
        Figures { per_second, p50_ms: 1.0, p99_ms: 2.0, p999_ms: 3.0, cpu_us: None }
    }

    #[test]
    fn open_loops_are_named_as_shares_of_the_rounds_and_doubted_outside_the_range() {
        let options = <Options as clap::Parser>::parse_from(["bench-peers"]);
        let mut report = Report::new(&options, System::Etcd, Some((800.0, 900.0)));
        assert!(report.about_open_loops().is_empty(), "nothing is measured yet");
        for puts in [900.0, 1000.0, 5000.0] {
            let turn = Turn { puts: figures(puts), gets: figures(1200.0), open_puts: None, open_gets: None };
            report.add(System::Etcd, turn);
        }
        let said = report.about_open_loops();
        assert!(said.len() == 1 && said[0].contains("80 % and 75 % of the median of etcd's"), "{said:?}");
        let mut slower = Report::new(&options, System::Etcd, Some((690.0, 900.0)));
        let turn = Turn { puts: figures(1000.0), gets: figures(1000.0), open_puts: None, open_gets: None };
        slower.add(System::Etcd, turn);
        let said = slower.about_open_loops();
        assert!(said.len() == 3 && said[1].contains("puts") && said[1].contains("69 %"), "{said:?}");
        assert!(said[2].contains("gets") && said[2].contains("90 %"), "{said:?}");
    }
}
