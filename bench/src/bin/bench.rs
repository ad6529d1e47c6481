//! Measures loads and dumps against COPY and SQL on a server of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use fhir_bulk_bench::measure::{self, Options};

const USAGE: &str = "\
usage: bench [--size small|medium] [--data DIR] [--resources N] [--runs N] [--only TEXT] [--memory-mb N]
             [--scale N] [--out DIR]
       bench --draw PAGE --out DIR
  --size SIZE      small: a sample of 5000 and 3 runs, under a minute, to see that all works; medium: the defaults
  --data DIR       measure the largest <Type>.ndjson[.gz] of this folder instead of a sample
  --resources N    how many Observations the sample has (default 100000)
  --runs N         how often each operation and its baseline take turns (default 5)
  --only TEXT      only the rows whose name or baseline has TEXT in it, and no memory rows
  --memory-mb N    how much NDJSON the memory rows move (default 1024)
  --scale N        also the cost of a resource among N small ones, against 100000 (try 10000000)
  --out DIR        where report.md, .json and two .svg go (default bench/results)
  --draw PAGE      measure nothing: draw the first measurement that a page shows, as NAME-light.svg and NAME-dark.svg";

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("bench: {reason}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let done = match &options.draw {
        Some(page) => measure::draw(page, &options.out),
        None => measure::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The cause says what "db error" is.
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("bench: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        data: None,
        resources: 100_000,
        runs: 5,
        only: String::new(),
        memory_bytes: 1 << 30,
        scale: None,
        draw: None,
        out: PathBuf::from("bench/results"),
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
        match argument.as_str() {
            "--size" => match value()?.as_str() {
                "small" => options = Options { resources: 5000, runs: 3, memory_bytes: 32 << 20, ..options },
                "medium" => {}
                other => return Err(format!("unknown size {other:?}")),
            },
            "--data" => options.data = Some(value()?.into()),
            "--resources" => options.resources = number(value()?)?.max(1),
            "--runs" => options.runs = number(value()?)?.max(1) as usize,
            "--only" => options.only = value()?,
            "--memory-mb" => options.memory_bytes = number(value()?)? << 20,
            "--scale" => options.scale = Some(number(value()?)?.max(1000)),
            "--draw" => options.draw = Some(value()?.into()),
            "--out" => options.out = value()?.into(),
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    Ok(options)
}
