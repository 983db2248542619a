//! What goes wrong, and when: drawn from the seed alone.

use std::{collections::BTreeMap, fmt, time::Duration};

use rand::{Rng, RngExt, seq::SliceRandom};

use super::parts::Backend;

/// What can be hit. Services and their connections are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Service(usize),
    Database,
    Bus,
    Simulator,
    /// Between the simulator and the services.
    Front,
    DatabaseLink(usize),
    BusLink(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `SIGKILL`.
    Kill,
    /// An orderly end; PostgreSQL's immediate one, which is none.
    Shutdown,
    /// `SIGSTOP`.
    Freeze,
    /// Connections are reset and refused.
    Cut,
    /// Nothing passes, no connection ends; what was held back arrives in the end …
    Silence,
    /// … or never, as behind a firewall that forgot its connections.
    Forget,
    Slow(Duration),
}

/// A moment of a storm.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Since the storm began.
    pub at: Duration,
    pub target: Target,
    pub fault: Fault,
    /// Whether the fault begins; else it is mended.
    pub begins: bool,
}

/// A few faults on different targets, each with its end, in the order of time.
pub fn storm(dice: &mut impl Rng, backend: Backend) -> Vec<Step> {
    let mut targets = targets(backend);
    // It has no promises to keep, and without it nothing else is tried.
    if dice.random_bool(0.8) {
        targets.retain(|target| *target != Target::Simulator);
    }
    targets.shuffle(dice);
    let count = [1, 1, 2, 2, 3, 4][dice.random_range(0..6)];
    let mut steps = Vec::new();
    for target in targets.into_iter().take(count) {
        let fault = fault(dice, target);
        let begin = Duration::from_millis(dice.random_range(0..1_500));
        // Now and then longer than the relay's lease, the simulator's patience and most timeouts.
        let longest = if dice.random_bool(0.15) { 9_000 } else { 2_000 };
        let end = begin + Duration::from_millis(dice.random_range(20..longest));
        for (at, begins) in [(begin, true), (end, false)] {
            steps.push(Step { at, target, fault, begins });
        }
    }
    steps.sort_by_key(|step| step.at);
    steps
}

fn targets(backend: Backend) -> Vec<Target> {
    use Target::{Bus, BusLink, Database, DatabaseLink, Front, Service, Simulator};
    match backend {
        Backend::Sqlite => vec![Service(0), Bus, Front, BusLink(0), Simulator],
        Backend::Postgres => vec![
            Service(0),
            Service(1),
            Database,
            Bus,
            Front,
            DatabaseLink(0),
            DatabaseLink(1),
            BusLink(0),
            BusLink(1),
            Simulator,
        ],
    }
}

fn fault(dice: &mut impl Rng, target: Target) -> Fault {
    use Fault::{Cut, Forget, Freeze, Kill, Shutdown, Silence, Slow};
    match target {
        Target::Service(_) | Target::Database | Target::Bus => [Kill, Kill, Shutdown, Freeze][dice.random_range(0..4)],
        Target::Simulator => Kill,
        Target::Front | Target::DatabaseLink(_) | Target::BusLink(_) => {
            let by = Duration::from_millis(dice.random_range(2..120));
            [Cut, Silence, Forget, Slow(by)][dice.random_range(0..4)]
        }
    }
}

/// How often each thing went wrong.
#[derive(Debug, Default)]
pub struct Counts(BTreeMap<String, u32>);

impl Counts {
    pub fn note(&mut self, step: &Step) {
        if step.begins {
            *self.0.entry(format!("{} {}", step.target, step.fault)).or_default() += 1;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self.0.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        write!(f, "{} faults ({})", self.0.values().sum::<u32>(), kinds.join(", "))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service(_) => "service",
            Self::Database => "database",
            Self::Bus => "bus",
            Self::Simulator => "simulator",
            Self::Front => "network to the service",
            Self::DatabaseLink(_) => "network to the database",
            Self::BusLink(_) => "network to the bus",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "killed",
            Self::Shutdown => "shut down",
            Self::Freeze => "frozen",
            Self::Cut => "cut",
            Self::Silence => "silent",
            Self::Forget => "silent for good",
            Self::Slow(_) => "slow",
        })
    }
}
