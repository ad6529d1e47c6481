//! What runs tried and found: one line of JSON for each, and the page that shows them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::run::{Ended, Part};

/// Where rows are collected; scripts/fuzz.sh writes its own there, too.
pub const ROWS: &str = "target/campaign/rows.jsonl";
const START: &str = "<!-- rows: written by `make campaign` -->\n";
/// The part of scripts/fuzz.sh, and what its rows say of the address sanitizer.
const FUZZ: &str = "fuzz";
const SANITIZED: &str = "(address sanitizer)";
const END: &str = "<!-- end of rows -->\n";

/// Adds the row of a part.
///
/// # Errors
/// Those of the file system.
pub fn add(part: &Part, seed: u64, ended: &Ended) -> io::Result<()> {
    let row = json!({
        "part": part.name, "what": part.what, "command": format!("make campaign ARGS=\"{} --seed {seed}\"", part.name),
        "seed": seed, "seconds": ended.time.as_secs(), "tried": ended.tried, "unit": part.unit,
        "found": ended.found.len(), "note": ended.notes.join("; "),
    });
    fs::create_dir_all(Path::new(ROWS).parent().expect("it has one"))?;
    let mut file = OpenOptions::new().create(true).append(true).open(ROWS)?;
    writeln!(file, "{row}")
}

/// Puts rows into a page: for each part and thing that was tried the run that tried most, or one that found something. What
/// the fuzzer has tried adds up over its runs, for each begins with what the ones before have found.
///
/// # Errors
/// Those of the file system, and a page or a line that is not as it must be.
pub fn publish(page: &Path) -> io::Result<()> {
    let text = fs::read_to_string(page)?;
    let (before, rest) = text.split_once(START).ok_or_else(|| broken(format!("{} has no rows", page.display())))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| broken(format!("{}: the rows do not end", page.display())))?;
    let mut best: BTreeMap<(usize, String, String), Value> = BTreeMap::new();
    for line in fs::read_to_string(ROWS)?.lines() {
        let row: Value = serde_json::from_str(line)?;
        let (part, what) = (text_of(&row, "part"), text_of(&row, "what"));
        let key = (crate::parts::PARTS.iter().position(|one| one.name == part).unwrap_or(usize::MAX), part, what);
        let row = match best.get(&key) {
            Some(other) if key.1 == FUZZ => sum(other, &row),
            Some(other) if weight(other) >= weight(&row) => continue,
            _ => row,
        };
        best.insert(key, row);
    }
    let mut table =
        "| what is tried, and must hold | tried | time | found | again by |\n|---|---:|---:|---:|---|\n".to_owned();
    for row in best.values() {
        let runs = row["runs"].as_u64().map(|runs| format!("in {runs} runs"));
        let notes: Vec<String> =
            [text_of(row, "note")].into_iter().chain(runs).filter(|note| !note.is_empty()).collect();
        let note = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
        let _ = writeln!(
            table,
            "| **{}**: {}{note} | {} {} | {} | {} | `{}` |",
            text_of(row, "part"),
            text_of(row, "what"),
            grouped(row["tried"].as_u64().unwrap_or(0)),
            text_of(row, "unit"),
            duration(row["seconds"].as_u64().unwrap_or(0)),
            row["found"],
            with_seed(row),
        );
    }
    let fuzzed = |sanitized: bool| {
        let of = |row: &&Value| row["part"] == FUZZ && text_of(row, "what").contains(SANITIZED) == sanitized;
        let rows: Vec<&Value> = best.values().filter(of).filter(|row| row["unit"] == "executions").collect();
        let total = |name: &str| rows.iter().filter_map(|row| row[name].as_u64()).sum::<u64>();
        (rows.len(), total("tried"), total("seconds"), total("found"))
    };
    for (how, (targets, tried, seconds, found)) in [("", fuzzed(false)), (" with the address sanitizer", fuzzed(true))]
    {
        if targets == 0 {
            continue;
        }
        let _ = writeln!(
            table,
            "| **fuzz**: these {targets} targets{how} together | {} executions | {} | {found} | |",
            grouped(tried),
            duration(seconds)
        );
    }
    fs::write(page, format!("{before}{START}{table}{END}{after}"))
}

fn weight(row: &Value) -> (Option<u64>, Option<u64>) {
    (row["found"].as_u64(), row["tried"].as_u64())
}

/// Two runs as one row, which has the command of the longer one.
fn sum(one: &Value, other: &Value) -> Value {
    let (mut row, less) = if weight(one) < weight(other) { (other.clone(), one) } else { (one.clone(), other) };
    for name in ["tried", "seconds", "found"] {
        row[name] = (row[name].as_u64().unwrap_or(0) + less[name].as_u64().unwrap_or(0)).into();
    }
    row["runs"] = (one["runs"].as_u64().unwrap_or(1) + other["runs"].as_u64().unwrap_or(1)).into();
    row
}

/// The command that tries the same again.
fn with_seed(row: &Value) -> String {
    let command = text_of(row, "command");
    if command.contains("--seed") { command } else { format!("{command} --seed {}", row["seed"]) }
}

fn text_of(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().replace('|', "\\|").replace('\n', " ")
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds} s"),
        _ => format!("{} min", (seconds + 30) / 60),
    }
}

fn broken(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
