//! The tables: medians over the rounds, ratios to the baseline of the same round, and the targets.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use crate::backlog::Backlog;
use crate::floor::Cost;
use crate::machine;
use crate::moments::{Burst, Start, Stream};
use crate::options::Options;
use crate::run::{Case, Measured, count};
use crate::statistics::median;

/// What is required, and what is desired.
struct Goal(f64, f64);

/// Ratios to the baseline at 256 connections: events per second, and CPU time of an event.
const RATIOS: [(Case, Goal, Goal); 4] = [
    (Case::SQLITE, Goal(0.40, 0.50), Goal(3.2, 2.6)),
    (Case::SQLITE_BUS, Goal(0.30, 0.38), Goal(4.6, 3.8)),
    (Case::POSTGRES, Goal(0.36, 0.45), Goal(3.9, 3.2)),
    (Case::POSTGRES_BUS, Goal(0.27, 0.34), Goal(6.0, 5.0)),
];
const CONNECTIONS: usize = 256;

/// The relay keeps up if everything is in the stream this long after the last acknowledgement.
const KEPT_UP_MS: f64 = 500.0;

#[derive(Debug, Serialize)]
struct Closed {
    case: &'static str,
    connections: usize,
    /// The baseline's rate in the same round.
    baseline: Option<f64>,
    measured: Measured,
}

#[derive(Debug, Serialize)]
struct Moment<T> {
    case: &'static str,
    measured: T,
}

/// All results.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    head: String,
    closed: Vec<Closed>,
    open: Vec<Moment<Measured>>,
    burst: Vec<Moment<Burst>>,
    stream: Vec<Moment<Stream>>,
    start: Vec<Moment<Start>>,
    backlog: Vec<Moment<Backlog>>,
    /// The floor's parts: the loops that insert, and the bare publisher.
    inserts: Vec<Moment<Cost>>,
    publishes: Vec<Cost>,
}

/// What an event costs at least on either database, with the bus or without.
struct Floor {
    /// CPU time in microseconds, without the load generator.
    cpu: f64,
    /// Events per second, if no part waits for another and the load generator takes its share.
    rate: f64,
}

/// The median of `of` over the results of `case`; `None` if it was not measured.
fn over<T>(moments: &[Moment<T>], case: Case, of: impl Fn(&T) -> f64) -> Option<f64> {
    let mut values: Vec<f64> =
        moments.iter().filter(|moment| moment.case == case.name()).map(|moment| of(&moment.measured)).collect();
    (!values.is_empty()).then(|| median(&mut values))
}

impl Findings {
    pub fn new(options: &Options) -> Self {
        let head = format!(
            "{}; everything on the same cores; medians of {} rounds of {} s; rounds with more than {} % of the processors \
             taken by the host are dropped",
            machine::describe(),
            options.rounds,
            options.seconds,
            options.steal
        );
        Self { head, ..Self::default() }
    }

    pub fn closed(&mut self, case: Case, connections: usize, measured: Measured, baseline: Option<f64>) {
        self.closed.push(Closed { case: case.name(), connections, baseline, measured });
    }

    pub fn open(&mut self, case: Case, measured: Measured) {
        self.open.push(Moment { case: case.name(), measured });
    }

    pub fn burst(&mut self, case: Case, measured: Burst) {
        self.burst.push(Moment { case: case.name(), measured });
    }

    pub fn stream(&mut self, case: Case, measured: Stream) {
        self.stream.push(Moment { case: case.name(), measured });
    }

    pub fn start(&mut self, case: Case, measured: Start) {
        self.start.push(Moment { case: case.name(), measured });
    }

    pub fn backlog(&mut self, case: Case, measured: Backlog) {
        self.backlog.push(Moment { case: case.name(), measured });
    }

    pub fn insert(&mut self, case: Case, measured: Cost) {
        self.inserts.push(Moment { case: case.name(), measured });
    }

    pub fn publish(&mut self, measured: Cost) {
        self.publishes.push(measured);
    }

    /// The CPU time of an event in each of Convoke's cases, in units of the baseline's.
    pub fn costs(&self) -> BTreeMap<String, f64> {
        let of = |(case, ..): &(Case, Goal, Goal)| Some((case.name().to_owned(), self.cost(*case)?));
        RATIOS.iter().filter_map(of).collect()
    }

    fn cost(&self, case: Case) -> Option<f64> {
        let cpu = |case| self.of_closed(case, CONNECTIONS, |line| Some(line.measured.cpu.whole()));
        Some(cpu(case)? / cpu(Case::Baseline)?)
    }

    fn floor(&self, case: Case) -> Option<Floor> {
        let Case::Service { database, bus } = case else { return None };
        let alone = Case::Service { database, bus: false };
        let insert = |of: fn(&Cost) -> f64| over(&self.inserts, alone, of);
        let publish = |of: fn(&Cost) -> f64| median(&mut self.publishes.iter().map(of).collect::<Vec<_>>());
        let l1 = |of: &dyn Fn(&Closed) -> f64| self.of_closed(Case::Baseline, CONNECTIONS, |line| Some(of(line)));
        let mut cpu = l1(&|line| line.measured.cpu.whole())? + insert(Cost::cpu)?;
        let mut slowest = insert(|cost| cost.rate)?.min(l1(&|line| line.measured.rate)?);
        if bus {
            cpu += publish(Cost::cpu);
            slowest = slowest.min(publish(|cost| cost.rate));
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let all = count(processors as u64) * 1e6 / (cpu + l1(&|line| line.measured.cpu.load)?);
        Some(Floor { cpu, rate: slowest.min(all) })
    }

    /// The median of `of` over the rounds of a closed loop.
    fn of_closed(&self, case: Case, connections: usize, of: impl Fn(&Closed) -> Option<f64>) -> Option<f64> {
        let lines = self.closed.iter().filter(|line| line.case == case.name() && line.connections == connections);
        let mut values: Vec<f64> = lines.filter_map(of).collect();
        (!values.is_empty()).then(|| median(&mut values))
    }

    fn ratio(&self, case: Case, connections: usize) -> Option<f64> {
        self.of_closed(case, connections, |line| Some(line.measured.rate / line.baseline?))
    }

    /// Prints the tables, and writes every measurement to `target/bench.json`.
    pub fn print(&self) {
        let mut text = format!("\n{}\n", self.head);
        self.throughput(&mut text);
        self.floors(&mut text);
        self.moments(&mut text);
        self.targets(&mut text);
        self.conditions(&mut text);
        println!("{text}");
        let file = crate::servers::disk().parent().expect("within the target folder").join("bench.json");
        std::fs::write(&file, format!("{:#}\n", json!(self))).expect("the target folder can be written");
        println!("every measurement: {}", file.display());
    }

    fn throughput(&self, text: &mut String) {
        let mut lines: Vec<(usize, &str)> = Vec::new();
        for line in &self.closed {
            if !lines.contains(&(line.connections, line.case)) {
                lines.push((line.connections, line.case));
            }
        }
        if lines.is_empty() {
            return;
        }
        text.push_str(
            "\n| closed loop | connections | events/s | ratio to L1 | p50 ms | p99 ms | p99.9 ms | CPU s per 1000 events: service + database + NATS | \
             MB at most | in the stream after ms |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for (connections, case) in lines {
            let of = |of: &dyn Fn(&Measured) -> f64| {
                let lines = self.closed.iter().filter(|line| line.case == case && line.connections == connections);
                median(&mut lines.map(|line| of(&line.measured)).collect::<Vec<_>>())
            };
            let lines = self.closed.iter().filter(|line| line.case == case && line.connections == connections);
            let ratio =
                median(&mut lines.filter_map(|line| Some(line.measured.rate / line.baseline?)).collect::<Vec<_>>());
            let ratio = if ratio.is_nan() { String::new() } else { format!("{ratio:.2}") };
            let drained = of(&|it| it.drained_ms.unwrap_or(f64::NAN));
            let drained = if drained.is_nan() { String::new() } else { format!("{drained:.0}") };
            let _ = writeln!(
                text,
                "| {case} | {connections} | {:.0} | {ratio} | {:.1} | {:.1} | {:.1} | {:.3} + {:.3} + {:.3} | {:.0} | {drained} |",
                of(&|it| it.rate),
                of(&|it| it.p50_ms),
                of(&|it| it.p99_ms),
                of(&|it| it.p999_ms),
                of(&|it| it.cpu.service) / 1e3,
                of(&|it| it.cpu.database) / 1e3,
                of(&|it| it.cpu.bus) / 1e3,
                of(&|it| it.peak_mb),
            );
        }
    }

    fn floors(&self, text: &mut String) {
        if self.inserts.is_empty() {
            return;
        }
        text.push_str(
            "\n| floor: L1, one loop that inserts and syncs, with JetStream a bare publisher | CPU µs an event | events/s | \
             Convoke's events/s to it | Convoke's CPU to it |\n|---|--:|--:|--:|--:|\n",
        );
        for (case, ..) in RATIOS {
            let Some(floor) = self.floor(case) else { continue };
            let ratio = |of: &dyn Fn(&Closed) -> f64, floor: f64| {
                let ours = self.of_closed(case, CONNECTIONS, |line| Some(of(line)));
                ours.map_or_else(String::new, |ours| format!("{:.2}", ours / floor))
            };
            let _ = writeln!(
                text,
                "| {} | {:.1} | {:.0} | {} | {} |",
                case.name(),
                floor.cpu,
                floor.rate,
                ratio(&|line| line.measured.rate, floor.rate),
                ratio(&|line| line.measured.cpu.whole(), floor.cpu),
            );
        }
    }

    fn moments(&self, text: &mut String) {
        text.push_str("\n| moment | what | |\n|---|---|--:|\n");
        for case in [Case::Baseline, Case::SQLITE_BUS, Case::POSTGRES_BUS] {
            let name = case.name();
            let mut line = |what: &str, value: Option<f64>, unit: &str| {
                if let Some(value) = value {
                    let digits = if value < 10.0 { 2 } else { 0 };
                    let _ = writeln!(text, "| {name} | {what} | {value:.digits$} {unit} |");
                }
            };
            line("2,000 events/s, p50", over(&self.open, case, |it| it.p50_ms), "ms");
            line("2,000 events/s, p99", over(&self.open, case, |it| it.p99_ms), "ms");
            line("2,000 events/s, p99.9", over(&self.open, case, |it| it.p999_ms), "ms");
            line("2,000 events at once: all acknowledged", over(&self.burst, case, |it| it.acknowledged_ms), "ms");
            line("2,000 events at once: all in the stream", over(&self.burst, case, |it| it.in_stream_ms), "ms");
            line(
                "received to read from the stream, 1,000 events/s, p50",
                over(&self.stream, case, |it| it.p50_ms),
                "ms",
            );
            line(
                "received to read from the stream, 1,000 events/s, p99",
                over(&self.stream, case, |it| it.p99_ms),
                "ms",
            );
            line("from the start of the process to ready", over(&self.start, case, |it| it.ready_ms), "ms");
            line("resident, idle", over(&self.start, case, |it| it.idle_mb), "MB");
            let backlog = |of: fn(&Backlog) -> f64| over(&self.backlog, case, of);
            line("bare JetStream publisher", backlog(|it| it.bare), "messages/s");
            line("backlog alone", backlog(|it| it.drained), "messages/s");
            line("backlog, 2,000 events/s coming in", backlog(|it| it.drained_with_ingest), "messages/s");
            line("… of which acknowledged in time", backlog(|it| it.ingest), "");
            line("… p99", backlog(|it| it.ingest_p99_ms), "ms");
            line("full load, while a backlog is published", backlog(|it| it.full_during), "events/s");
            line("full load, after it", backlog(|it| it.full_without), "events/s");
        }
    }

    fn targets(&self, text: &mut String) {
        text.push_str("\n| target | must | measured | |\n|---|--:|--:|---|\n");
        let mut row = |what: &str, must: &str, measured: Option<f64>, good: &dyn Fn(f64) -> bool| {
            if let Some(measured) = measured {
                let mark = match must {
                    "" => "",
                    _ if good(measured) => "PASS",
                    _ => "MISS",
                };
                let _ = writeln!(text, "| {what} | {must} | {measured:.2} | {mark} |");
            }
        };
        for (case, Goal(must, aim), Goal(most, better)) in RATIOS {
            row(
                &format!("{}, events/s to L1's at {CONNECTIONS} connections", case.name()),
                &format!("≥ {must:.2} (aim {aim:.2})"),
                self.ratio(case, CONNECTIONS),
                &|it| it >= must,
            );
            row("… CPU an event to L1's", &format!("≤ {most:.1} (aim {better:.1})"), self.cost(case), &|it| {
                it <= most
            });
            let drained = self.of_closed(case, CONNECTIONS, |line| line.measured.drained_ms);
            row(
                "… and the relay keeps up: ms from the last answer",
                &format!("≤ {KEPT_UP_MS:.0}"),
                drained,
                &|it| it <= KEPT_UP_MS,
            );
        }
        let pair = |peer, of: &dyn Fn(&Closed) -> f64| {
            let whole = self.of_closed(Case::POSTGRES_BUS, CONNECTIONS, |line| Some(of(line)))?;
            Some(whole / self.of_closed(peer, CONNECTIONS, |line| Some(of(line)))?)
        };
        let (rate, cpu) = (|line: &Closed| line.measured.rate, |line: &Closed| line.measured.cpu.whole());
        row(
            "whole path on PostgreSQL, events/s to the naive handler's",
            "≥ 6 (aim 10)",
            pair(Case::Naive, &rate),
            &|it| it >= 6.0,
        );
        row("… CPU an event to the naive handler's", "≤ 0.15 (aim 0.1)", pair(Case::Naive, &cpu), &|it| it <= 0.15);
        row("… events/s to the batched handler's", "", pair(Case::Batched, &rate), &|_| true);
        row("… CPU an event to the batched handler's", "", pair(Case::Batched, &cpu), &|_| true);
        let l1 = over(&self.open, Case::Baseline, |it| it.p99_ms);
        for case in [Case::SQLITE_BUS, Case::POSTGRES_BUS] {
            let name = case.name();
            let p99 = over(&self.open, case, |it| it.p99_ms).zip(l1).map(|(ours, l1)| ours / l1);
            row(&format!("{name}: p99 at 2,000 events/s to L1's"), "≤ 3", p99, &|it| it <= 3.0);
            let burst = over(&self.burst, case, |it| it.acknowledged_ms);
            row(&format!("{name}: burst acknowledged, ms"), "< 500", burst, &|it| it < 500.0);
            let behind = over(&self.burst, case, |it| it.in_stream_ms - it.acknowledged_ms);
            row(&format!("{name}: burst in the stream, ms later"), "≤ 500", behind, &|it| it <= 500.0);
            let stream = over(&self.stream, case, |it| it.p99_ms);
            row(&format!("{name}: received to read from the stream, p99 ms"), "≤ 25", stream, &|it| it <= 25.0);
            let drained = over(&self.backlog, case, |it| it.drained_with_ingest / it.bare);
            row(&format!("{name}: backlog to a bare publisher's rate"), "≥ 0.5 (aim 0.6)", drained, &|it| it >= 0.5);
            let ingest = over(&self.backlog, case, |it| it.ingest);
            row(&format!("{name}: ingest kept meanwhile"), "≥ 0.8", ingest, &|it| it >= 0.8);
            let limit = if case == Case::SQLITE_BUS { 128.0 } else { 64.0 };
            let peak = self.of_closed(case, CONNECTIONS, |line| Some(line.measured.peak_mb));
            row(&format!("{name}: resident at most, MB"), &format!("≤ {limit:.0}"), peak, &|it| it <= limit);
            let idle = over(&self.start, case, |it| it.idle_mb);
            row(&format!("{name}: resident idle, MB"), "≤ 24", idle, &|it| it <= 24.0);
            let ready = over(&self.start, case, |it| it.ready_ms);
            row(&format!("{name}: ready on an existing database, ms"), "< 150", ready, &|it| it < 150.0);
        }
    }

    /// Prints what disturbed the measurements, so that a reader can judge them.
    fn conditions(&self, text: &mut String) {
        let all =
            || self.closed.iter().map(|line| &line.measured).chain(self.open.iter().map(|moment| &moment.measured));
        let most = |of: fn(&Measured) -> f64| all().map(of).fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "\nAt most {:.0} % of the processors were taken by the host, {:.0} % by other processes.",
            most(|it| it.stolen),
            most(|it| it.foreign)
        );
    }
}
