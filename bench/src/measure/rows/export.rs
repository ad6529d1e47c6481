//! Exports of all types to files, and COPY of each.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::super::bench::{Bench, Outcome, readable};
use fhir_bulk_sample::{ResourceType, Sample};

/// Where the tables of all types are.
const SCHEMA: &str = "all_types";

/// Loads all types once; their tables' names.
pub(super) fn tables(bench: &mut Bench) -> Outcome<Vec<String>> {
    bench.client.batch_execute(&format!("SET fhir_bulk.data_schema = {SCHEMA}"))?;
    if bench.client.query_one("SELECT to_regnamespace($1::text) IS NULL", &[&SCHEMA])?.get(0) {
        bench.client.batch_execute(&format!("CREATE SCHEMA {SCHEMA}"))?;
        for file in files(bench)? {
            bench.client.execute("SELECT bulk_load($1, NULL, true)", &[&format!("file://{}", file.display())])?;
        }
        bench.client.batch_execute("VACUUM ANALYZE")?;
    }
    let rows = bench.client.query("SELECT lower(bulk_resource_types())", &[])?;
    Ok(rows.iter().map(|row| format!("{SCHEMA}.\"{}\"", row.get::<_, String>(0))).collect())
}

/// The NDJSON of all types, which the server can read.
pub(super) fn files(bench: &Bench) -> Outcome<Vec<PathBuf>> {
    let folder = bench.cluster.shared_folder("all");
    let mut files = Vec::new();
    if let Some(data) = &bench.data {
        for entry in fs::read_dir(data)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // One file of all types beside those of each would be the same again.
            if name.contains(".ndjson") && name.starts_with(|first: char| first.is_ascii_uppercase()) {
                let copy = folder.join(name);
                fs::copy(path, &copy)?;
                readable(&copy)?;
                files.push(copy);
            }
        }
        return Ok(files);
    }
    let sample = Sample::new(1, bench.resources.unsigned_abs() * 2);
    for resource_type in ResourceType::ALL {
        let path = folder.join(format!("{}.ndjson", resource_type.name()));
        let mut file = BufWriter::new(File::create(&path)?);
        sample.write(resource_type, &mut file)?;
        file.flush()?;
        readable(&path)?;
        files.push(path);
    }
    Ok(files)
}

fn export(bench: &mut Bench, workers: u32, request: &str) -> Outcome<f64> {
    let location = format!("file://{}", bench.cluster.shared_folder("exports").display());
    let settings =
        format!("SET fhir_bulk.export_location = '{location}'; SET fhir_bulk.export_workers = {workers}; CHECKPOINT");
    bench.client.batch_execute(&settings)?;
    let seconds = bench.with_cpu(|bench| until_complete(bench, request))?;
    bench.client.batch_execute("RESET fhir_bulk.data_schema")?;
    Ok(seconds)
}

fn until_complete(bench: &mut Bench, request: &str) -> Outcome<f64> {
    let start = Instant::now();
    let id: String = bench.client.query_one("SELECT bulk_export($1::text::jsonb)", &[&request])?.get(0);
    let status = "SELECT s ->> 'status', s ->> 'error' FROM bulk_export_status($1) s";
    loop {
        let row = bench.client.query_one(status, &[&id])?;
        match row.get(0) {
            "completed" => return Ok(start.elapsed().as_secs_f64()),
            "failed" => return Err(row.get::<_, &str>(1).into()),
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
}

pub(super) fn one_worker(bench: &mut Bench) -> Outcome<f64> {
    tables(bench)?;
    export(bench, 1, "{}")
}

pub(super) fn two_workers(bench: &mut Bench) -> Outcome<f64> {
    tables(bench)?;
    export(bench, 2, "{}")
}

/// One patient in a hundred, and what belongs to them.
pub(super) fn group(bench: &mut Bench) -> Outcome<f64> {
    tables(bench)?;
    bench.client.batch_execute(
        "SELECT bulk_create_table('Group');
         INSERT INTO all_types.\"group\" (id, txid, status, resource) SELECT 'bench', 1, 'created',
             jsonb_build_object('member', jsonb_agg(jsonb_build_object('entity', jsonb_build_object('resourceType', 'Patient', 'id', id))))
             FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM all_types.patient) p WHERE n % 100 = 1
         ON CONFLICT (id) DO NOTHING",
    )?;
    export(bench, 2, r#"{"level": "group", "group": "bench"}"#)
}

/// Each patient's resources one after the other.
pub(super) fn by_patient(bench: &mut Bench) -> Outcome<f64> {
    tables(bench)?;
    export(bench, 2, r#"{"organizeOutputBy": "Patient"}"#)
}

/// What a user runs for each type.
pub(super) fn copy_to_files(bench: &mut Bench) -> Outcome<f64> {
    let tables = tables(bench)?;
    let folder = bench.cluster.shared_folder("copies");
    bench.client.batch_execute("RESET fhir_bulk.data_schema; CHECKPOINT")?;
    let start = Instant::now();
    for (number, table) in tables.iter().enumerate() {
        let file = folder.join(format!("{number}.ndjson"));
        bench.client.batch_execute(&format!("COPY (SELECT resource FROM {table}) TO '{}'", file.display()))?;
    }
    Ok(start.elapsed().as_secs_f64())
}
