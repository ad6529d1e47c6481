//! Tries to break the extension and its proxy on servers of its own, for as long as it is told to.

mod parts;
mod patients;
mod place;
mod preload;
mod report;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use parts::PARTS;
use run::{Part, Run};

const USAGE: &str = "\
usage: campaign [--minutes N] [--most N] [--seed N] [PART...]
       campaign --publish PAGE
  --minutes N      for all parts together (default 10); each part tries at least once
  --most N         a part ends when it has tried so often, too
  --seed N         random numbers begin with it; each part says its seed, which repeats what it tried
  PART             only these parts (default all)
  --publish PAGE   try nothing: write what was tried, in target/campaign/rows.jsonl, into a page
parts:";

struct Options {
    minutes: f64,
    most: u64,
    seed: u64,
    parts: Vec<&'static Part>,
    publish: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("campaign: {reason}\n{USAGE}");
            for part in PARTS {
                eprintln!("  {:<12} {}", part.name, part.what);
            }
            return ExitCode::from(2);
        }
    };
    let done = match &options.publish {
        Some(page) => report::publish(page).map(|()| 0),
        None => try_all(&options),
    };
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(found) => {
            eprintln!("campaign: {found} found");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("campaign: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How much all parts have found.
fn try_all(options: &Options) -> std::io::Result<usize> {
    let time = Duration::from_secs_f64(options.minutes * 60.0 / options.parts.len() as f64);
    let mut found = 0;
    for part in &options.parts {
        println!("{}: {} (seed {}, {} s)", part.name, part.what, options.seed, time.as_secs());
        let ended = Run::of(part, options.seed, time, options.most);
        println!(
            "{}: {} {}, {} found, {} s",
            part.name,
            ended.tried,
            part.unit,
            ended.found.len(),
            ended.time.as_secs()
        );
        for note in &ended.notes {
            println!("  {note}");
        }
        report::add(part, options.seed, &ended)?;
        found += ended.found.len();
    }
    Ok(found)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        minutes: 10.0,
        most: u64::MAX,
        // Short enough to be typed again.
        seed: UNIX_EPOCH.elapsed().map_or(1, |time| time.as_micros() as u64 % 1_000_000_007),
        parts: Vec::new(),
        publish: None,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--minutes" => options.minutes = number(&value()?)?,
            "--most" => options.most = number(&value()?)?,
            "--seed" => options.seed = number(&value()?)?,
            "--publish" => options.publish = Some(value()?.into()),
            name => match PARTS.iter().find(|part| part.name == name) {
                Some(part) => options.parts.push(part),
                None => return Err(format!("there is no part {name:?}")),
            },
        }
    }
    if options.parts.is_empty() {
        options.parts = PARTS.iter().collect();
    }
    Ok(options)
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}
