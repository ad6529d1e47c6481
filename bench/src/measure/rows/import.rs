//! Imports in the background against each other and against a load.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::super::{Bench, Outcome, readable};

/// How often it is asked whether an import is done.
const POLL: Duration = Duration::from_millis(20);

/// The seconds from the request to the end of the import.
fn import(bench: &mut Bench, inputs: &[PathBuf], workers: u32, mode: &str) -> Outcome<f64> {
    bench.empty_table()?;
    // Those of before must have ended: a worker keeps what it was started with.
    let at_work = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'fhir_bulk job worker'";
    while bench.client.query_one(at_work, &[])?.get::<_, i64>(0) > 0 {
        thread::sleep(POLL);
    }
    let setting = format!("fhir_bulk.import_workers = {workers}");
    bench.client.batch_execute(&format!("ALTER DATABASE bench SET {setting}; SET {setting}; CHECKPOINT"))?;
    let input = |path: &PathBuf| {
        format!(r#"{{"resourceType": "{}", "url": "file://{}"}}"#, bench.resource_type, path.display())
    };
    let inputs: Vec<String> = inputs.iter().map(input).collect();
    let request = format!(r#"{{"mode": "{mode}", "inputs": [{}]}}"#, inputs.join(", "));
    let id: String = bench.client.query_one("SELECT bulk_import(($1::text)::jsonb, fhir => true)", &[&request])?.get(0);
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

/// The source's lines in two files of the same size, one line here and one there.
fn halves(bench: &Bench) -> Outcome<[PathBuf; 2]> {
    let paths = [1, 2].map(|number| bench.source.with_extension(format!("{number}.ndjson")));
    if !paths[1].exists() {
        let create = |path: &PathBuf| File::create(path).map(BufWriter::new);
        let mut files = [create(&paths[0])?, create(&paths[1])?];
        for (number, line) in BufReader::new(File::open(&bench.source)?).lines().enumerate() {
            writeln!(files[number % 2], "{}", line?)?;
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
    let halves = halves(bench)?;
    import(bench, &halves, 2, "bulk")
}

pub(super) fn two_inputs_by_one(bench: &mut Bench) -> Outcome<f64> {
    let halves = halves(bench)?;
    import(bench, &halves, 1, "bulk")
}
