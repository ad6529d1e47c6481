//! `compare EXPECTED ACTUAL`: compares two files or two folders of NDJSON. Exit code 0 if they have the same resources, 1 if
//! not (with the first differences on standard output), 2 if they cannot be read.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use fhir_bulk_sample::compare::{Difference, compare, texts_of};

const USAGE: &str = "usage: compare EXPECTED ACTUAL   (each a file or a folder of .ndjson and .ndjson.gz)";

/// How many differences are shown.
const SHOWN: usize = 10;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [expected, actual] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(expected.as_ref(), actual.as_ref()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(expected: &Path, actual: &Path) -> io::Result<bool> {
    let comparison = compare(expected, actual)?;
    if comparison.differences.is_empty() {
        println!("equal: {} resources", comparison.expected);
        return Ok(true);
    }
    println!(
        "{} differences between {} expected and {} actual resources:",
        comparison.differences.len(),
        comparison.expected,
        comparison.actual
    );
    let shown = &comparison.differences[..comparison.differences.len().min(SHOWN)];
    let keys: Vec<_> = shown.iter().map(|d| d.0.as_str()).collect();
    let [before, after] = [texts_of(expected, &keys)?, texts_of(actual, &keys)?];
    for (key, difference) in shown {
        match difference {
            Difference::Missing => println!("- missing     {key}"),
            Difference::Unexpected => println!("- unexpected  {key}"),
            Difference::Changed => show_change(key, &before, &after),
        }
    }
    if comparison.differences.len() > SHOWN {
        println!("- and {} more", comparison.differences.len() - SHOWN);
    }
    Ok(false)
}

/// Prints the two texts around their first difference.
fn show_change(key: &str, before: &HashMap<String, String>, after: &HashMap<String, String>) {
    println!("- changed     {key}");
    let (Some(before), Some(after)) = (before.get(key), after.get(key)) else { return };
    let same = before.chars().zip(after.chars()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| text.chars().skip(same.saturating_sub(40)).take(100).collect::<String>();
    println!("    expected  …{}…", around(before));
    println!("    actual    …{}…", around(after));
}
