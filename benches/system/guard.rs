//! Whether an event costs more than it did: the CPU time of an event, in units of the baseline's of the same run, beside what
//! was recorded on the same kind of machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::machine;

/// What may be more than recorded.
const MARGIN: f64 = 0.10;

/// For each kind of machine, the cost of each case.
type Recorded = BTreeMap<String, BTreeMap<String, f64>>;

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/recorded.json")
}

fn recorded() -> Recorded {
    let text = fs::read_to_string(file()).expect("benches/recorded.json");
    serde_json::from_str(&text).expect("benches/recorded.json holds costs by machine")
}

/// Replaces what was recorded for this kind of machine.
pub fn record(costs: &BTreeMap<String, f64>) {
    let mut recorded = recorded();
    let costs = costs.iter().map(|(case, cost)| (case.clone(), (cost * 100.0).round() / 100.0)).collect();
    recorded.insert(machine::kind(), costs);
    let text = serde_json::to_string_pretty(&recorded).expect("JSON");
    fs::write(file(), text + "\n").expect("benches/recorded.json can be written");
    println!("recorded for {}: {}", machine::kind(), file().display());
}

/// Prints the comparison; whether nothing costs more than the margin.
pub fn compare(costs: &BTreeMap<String, f64>) -> bool {
    let kind = machine::kind();
    let all = recorded();
    let Some(recorded) = all.get(&kind) else {
        eprintln!("nothing is recorded for {kind}: run it with --record on the version to compare with");
        return false;
    };
    println!("\n| CPU an event to L1's, on {kind} | recorded | now | must | |\n|---|--:|--:|--:|---|");
    let mut sound = !costs.is_empty();
    for (case, cost) in costs {
        let Some(before) = recorded.get(case) else { continue };
        let most = before * (1.0 + MARGIN);
        let good = *cost <= most;
        let mark = if good { "PASS" } else { "FAIL" };
        println!("| {case} | {before:.2} | {cost:.2} | ≤ {most:.2} | {mark} |");
        sound &= good;
    }
    sound
}
