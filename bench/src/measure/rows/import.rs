//! Imports in the background against each other and against a load.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::super::bench::{Bench, Outcome, readable};

/// How often it is asked whether an import is done.
const POLL: Duration = Duration::from_millis(20);

/// The type of the lines that [`of_two_types`] gives another one.
const OTHER_TYPE: &str = "Flag";

/// The seconds from the request to the end of the import.
fn import(bench: &mut Bench, inputs: &[PathBuf], workers: u32, mode: &str) -> Outcome<f64> {
    let resource_type = bench.resource_type.clone();
    let inputs: Vec<_> = inputs.iter().map(|path| (resource_type.as_str(), path)).collect();
    import_of_types(bench, &inputs, workers, mode, true)
}

fn import_of_types(
    bench: &mut Bench,
    inputs: &[(&str, &PathBuf)],
    workers: u32,
    mode: &str,
    fhir: bool,
) -> Outcome<f64> {
    bench.empty_table()?;
    // Those of before must have ended: a worker keeps what it was started with.
    let at_work = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'fhir_bulk job worker'";
    while bench.client.query_one(at_work, &[])?.get::<_, i64>(0) > 0 {
        thread::sleep(POLL);
    }
    let setting = format!("fhir_bulk.import_workers = {workers}");
    bench.client.batch_execute(&format!("ALTER DATABASE bench SET {setting}; SET {setting}; CHECKPOINT"))?;
    let input = |(resource_type, path): &(&str, &PathBuf)| {
        format!(r#"{{"resourceType": "{resource_type}", "url": "file://{}"}}"#, path.display())
    };
    let inputs: Vec<String> = inputs.iter().map(input).collect();
    let request = format!(r#"{{"mode": "{mode}", "inputs": [{}]}}"#, inputs.join(", "));
    let ask = "SELECT bulk_import(($1::text)::jsonb, fhir => $2)";
    let id: String = bench.client.query_one(ask, &[&request, &fhir])?.get(0);
    // The job says when it ended; asking more often would take time from it.
    let status =
        "SELECT status, extract(epoch FROM ended_at - created_at)::double precision FROM bulk_jobs WHERE id = $1";
    loop {
        let row = bench.client.query_one(status, &[&id])?;
        match row.get(0) {
            "finished" => return Ok(row.get(1)),
            "failed" => return Err(format!("the import of {request} failed").into()),
            _ => thread::sleep(POLL),
        }
    }
}

/// The source's lines in two files of the same size, one line here and one there; those of the second of another type,
/// if one is given.
fn halves(bench: &Bench, other_type: Option<&str>) -> Outcome<[PathBuf; 2]> {
    let name = other_type.unwrap_or("half");
    let paths = [1, 2].map(|number| bench.source.with_extension(format!("{name}{number}.ndjson")));
    if !paths[1].exists() {
        let create = |path: &PathBuf| File::create(path).map(BufWriter::new);
        let mut files = [create(&paths[0])?, create(&paths[1])?];
        let own_type = format!("\"{}\"", bench.resource_type);
        for (number, line) in BufReader::new(File::open(&bench.source)?).lines().enumerate() {
            let (line, at) = (line?, number % 2);
            match other_type.filter(|_| at == 1) {
                Some(other) => writeln!(files[at], "{}", line.replacen(&own_type, &format!("\"{other}\""), 1))?,
                None => writeln!(files[at], "{line}")?,
            }
        }
        for (mut file, path) in files.into_iter().zip(&paths) {
            file.flush()?;
            readable(path)?;
        }
    }
    Ok(paths)
}

pub(super) fn one_input(bench: &mut Bench) -> Outcome<f64> {
    let source = [bench.source.clone()];
    import(bench, &source, 2, "bulk")
}

pub(super) fn one_input_by_one(bench: &mut Bench) -> Outcome<f64> {
    let source = [bench.source.clone()];
    import(bench, &source, 1, "bulk")
}

pub(super) fn one_input_in_one_transaction(bench: &mut Bench) -> Outcome<f64> {
    let source = [bench.source.clone()];
    import(bench, &source, 2, "transaction")
}

pub(super) fn two_inputs(bench: &mut Bench) -> Outcome<f64> {
    let halves = halves(bench, None)?;
    import(bench, &halves, 2, "bulk")
}

pub(super) fn two_inputs_by_one(bench: &mut Bench) -> Outcome<f64> {
    let halves = halves(bench, None)?;
    import(bench, &halves, 1, "bulk")
}

pub(super) fn two_types(bench: &mut Bench) -> Outcome<f64> {
    of_two_types(bench, 2)
}

pub(super) fn two_types_by_one(bench: &mut Bench) -> Outcome<f64> {
    of_two_types(bench, 1)
}

/// Without a conversion, which would find less to do in what is not really of the other type.
fn of_two_types(bench: &mut Bench, workers: u32) -> Outcome<f64> {
    let [own, other] = halves(bench, Some(OTHER_TYPE))?;
    bench.client.execute("SELECT bulk_create_table($1)", &[&OTHER_TYPE])?;
    bench.client.batch_execute(&format!("TRUNCATE {OTHER_TYPE}"))?;
    let resource_type = bench.resource_type.clone();
    import_of_types(bench, &[(&resource_type, &own), (OTHER_TYPE, &other)], workers, "bulk", false)
}
