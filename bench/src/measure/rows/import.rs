//! Imports in the background against each other and against a load.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::super::bench::{Bench, Outcome, readable, write_copy};
use super::export::files as all_files;

/// How often it is asked whether an import is done.
const POLL: Duration = Duration::from_millis(20);

/// Where [`all_types`] imports to.
const SCHEMA: &str = "imported";

/// The indexes of [`with_indexes`].
const INDEXES: [&str; 3] = ["(resource)", "(resource jsonb_path_ops)", "((resource -> 'code') jsonb_path_ops)"];

/// The size of [`large`].
const LARGE: usize = 1 << 30;

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
    let input = |(resource_type, path): &(&str, &PathBuf)| {
        format!(r#"{{"resourceType": "{resource_type}", "url": "file://{}"}}"#, path.display())
    };
    let inputs: Vec<String> = inputs.iter().map(input).collect();
    timed(bench, &format!(r#"{{"mode": "{mode}", "inputs": [{}]}}"#, inputs.join(", ")), workers, fhir)
}

/// The seconds of an import, as the job has them.
fn timed(bench: &mut Bench, request: &str, workers: u32, fhir: bool) -> Outcome<f64> {
    // Those of before must have ended: a worker keeps what it was started with.
    let at_work = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'fhir_bulk job worker'";
    while bench.client.query_one(at_work, &[])?.get::<_, i64>(0) > 0 {
        thread::sleep(POLL);
    }
    let setting = format!("fhir_bulk.import_workers = {workers}");
    bench.client.batch_execute(&format!("ALTER DATABASE bench SET {setting}; SET {setting}; CHECKPOINT"))?;
    bench.with_cpu(|bench| until_finished(bench, request, fhir))
}

fn until_finished(bench: &mut Bench, request: &str, fhir: bool) -> Outcome<f64> {
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

pub(super) fn large_input(bench: &mut Bench) -> Outcome<f64> {
    let source = [large(bench)?];
    import(bench, &source, 2, "bulk")
}

pub(super) fn large_input_by_one(bench: &mut Bench) -> Outcome<f64> {
    let source = [large(bench)?];
    import(bench, &source, 1, "bulk")
}

/// The source's lines again and again, with other ids, until they are 1 GB.
fn large(bench: &Bench) -> Outcome<PathBuf> {
    let path = bench.source.with_extension("large.ndjson");
    if !path.exists() {
        let lines = fs::read(&bench.source)?;
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        for copy in 0..LARGE.div_ceil(lines.len()) {
            for line in lines.split_inclusive(|byte| *byte == b'\n') {
                write_copy(line, copy, &mut file)?;
            }
        }
        file.flush()?;
        readable(&path)?;
    }
    Ok(path)
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

/// A folder with all types into a new schema.
pub(super) fn all_types(bench: &mut Bench) -> Outcome<f64> {
    in_schema(bench, |bench| {
        bench.client.batch_execute(&format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}"))?;
        import_folder(bench, "{}")
    })
}

/// The same once more, when all of it is there.
pub(super) fn all_types_again(bench: &mut Bench) -> Outcome<f64> {
    let has_them = "SELECT to_regnamespace($1::text) IS NOT NULL";
    if !bench.client.query_one(has_them, &[&SCHEMA])?.get::<_, bool>(0) {
        all_types(bench)?;
    }
    in_schema(bench, |bench| import_folder(bench, r#"{"skipUnchanged": true}"#))
}

fn in_schema(bench: &mut Bench, work: impl FnOnce(&mut Bench) -> Outcome<f64>) -> Outcome<f64> {
    bench.client.batch_execute(&format!("SET fhir_bulk.data_schema = {SCHEMA}"))?;
    let seconds = work(bench);
    bench.client.batch_execute("RESET fhir_bulk.data_schema")?;
    seconds
}

fn import_folder(bench: &mut Bench, more: &str) -> Outcome<f64> {
    let files = all_files(bench)?;
    let folder = files.first().and_then(|file| file.parent()).ok_or("there are no files")?;
    let mut request: serde_json::Value = serde_json::from_str(more)?;
    request["inputs"] = serde_json::json!([{"url": format!("file://{}/", folder.display())}]);
    timed(bench, &request.to_string(), 2, true)
}

pub(super) fn with_indexes_disabled(bench: &mut Bench) -> Outcome<f64> {
    with_indexes(bench, true)
}

pub(super) fn with_indexes_kept(bench: &mut Bench) -> Outcome<f64> {
    with_indexes(bench, false)
}

/// Into a table with GIN indexes, which are gone after it.
fn with_indexes(bench: &mut Bench, disable: bool) -> Outcome<f64> {
    bench.empty_table()?;
    let table = bench.table();
    for (number, index) in INDEXES.iter().enumerate() {
        bench.client.batch_execute(&format!("CREATE INDEX bench_gin_{number} ON {table} USING gin {index}"))?;
    }
    let (resource_type, url) = (&bench.resource_type, bench.file_url());
    let inputs = serde_json::json!([{"resourceType": resource_type, "url": url}]);
    let request = serde_json::json!({"disableIndexes": disable, "inputs": inputs}).to_string();
    let seconds = timed(bench, &request, 2, true);
    for number in 0..INDEXES.len() {
        bench.client.batch_execute(&format!("DROP INDEX IF EXISTS bench_gin_{number}"))?;
    }
    seconds
}
