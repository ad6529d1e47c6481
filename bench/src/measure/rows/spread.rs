//! Imports and exports by the nodes of Citus, in CPU seconds: of 1 GB in eight inputs, on a coordinator and two workers, beside
//! the same on one server.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use fhir_bulk_tests::Client;
use flate2::bufread::MultiGzDecoder;

use super::super::bench::{Bench, Outcome, readable, write_copy};
use super::super::cpu;
use super::citus::{DATABASE, nodes};
use super::export::files;

/// How often it is asked whether a job is done.
const POLL: Duration = Duration::from_millis(500);
/// What a server still does after a job: it writes, and tidies up.
const REST: Duration = Duration::from_secs(2);
/// Exports after each import, of which the median counts: where the system has to find memory for the files, that alone may take
/// as long as the export.
const EXPORTS: usize = 3;
const INPUTS: usize = 8;
const BYTES: usize = 1 << 30;
thread_local! {
    /// CPU seconds of the coordinator and of all nodes, in the last import or export on them.
    static LAST: Cell<[f64; 2]> = const { Cell::new([0.0; 2]) };
}

/// All types in eight inputs of the same size: the lines of the data again and again, with other ids.
fn inputs(bench: &Bench) -> Outcome<Vec<PathBuf>> {
    let folder = nodes(bench)?.coordinator.shared_folder("spread");
    let paths: Vec<_> = (0..INPUTS).map(|number| folder.join(format!("{number}.ndjson"))).collect();
    if paths[INPUTS - 1].exists() {
        return Ok(paths);
    }
    let mut lines = Vec::new();
    for file in files(bench)? {
        let packed = BufReader::new(File::open(&file)?);
        if file.extension().is_some_and(|extension| extension == "gz") {
            MultiGzDecoder::new(packed).read_to_end(&mut lines)?;
        } else {
            BufReader::new(packed).read_to_end(&mut lines)?;
        }
    }
    let mut written = 0;
    let mut paths_left = paths.iter();
    let mut file: Option<BufWriter<File>> = None;
    for copy in 0..BYTES.div_ceil(lines.len()) {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if file.is_none() || written >= BYTES / INPUTS {
                if let Some(mut full) = file.take() {
                    full.flush()?;
                }
                let Some(path) = paths_left.next() else { break };
                file = Some(BufWriter::with_capacity(1 << 20, File::create(path)?));
                readable(path)?;
                written = 0;
            }
            let Some(file) = &mut file else { break };
            write_copy(line, copy, file)?;
            written += line.len();
        }
    }
    Ok(paths)
}

/// The types of the data.
fn types(bench: &Bench) -> Outcome<Vec<String>> {
    let name = |file: PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.split('.').next().map(str::to_owned)
    };
    Ok(files(bench)?.into_iter().filter_map(name).collect())
}

/// A session on one server or on the coordinator, whose tables are empty.
fn empty(bench: &Bench, on_nodes: bool) -> Outcome<Client> {
    if !on_nodes {
        tidy(bench, false)?;
        let mut client = bench.cluster.connect("postgres", "postgres");
        client.batch_execute(&format!("CREATE DATABASE {DATABASE}_spread"))?;
        let mut client = bench.cluster.connect("postgres", &format!("{DATABASE}_spread"));
        client.batch_execute("CREATE EXTENSION fhir_bulk; CHECKPOINT")?;
        return Ok(client);
    }
    let nodes = nodes(bench)?;
    let mut client = nodes.coordinator.connect("postgres", DATABASE);
    client.batch_execute(&format!("ALTER DATABASE {DATABASE} SET fhir_bulk.distribute_tables = on"))?;
    let mut client = nodes.coordinator.connect("postgres", DATABASE);
    for name in types(bench)? {
        client.execute("SELECT bulk_create_table($1)", &[&name])?;
    }
    tidy(bench, true)?;
    for node in nodes.all() {
        node.connect("postgres", DATABASE).batch_execute("CHECKPOINT")?;
    }
    client.batch_execute("SET fhir_bulk.use_nodes = files")?;
    Ok(client)
}

/// Deletes what an import has stored. At once, and not before the next one: file systems take their time to make new files
/// soon after many were deleted.
fn tidy(bench: &Bench, on_nodes: bool) -> Outcome<()> {
    if !on_nodes {
        let mut client = bench.cluster.connect("postgres", "postgres");
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {DATABASE}_spread WITH (FORCE)"))?;
        return Ok(());
    }
    let nodes = nodes(bench)?;
    let mut client = nodes.coordinator.connect("postgres", DATABASE);
    for name in types(bench)? {
        let table = format!("\"{}\"", name.to_lowercase());
        if client.query_one(&format!("SELECT EXISTS (SELECT 1 FROM {table})"), &[])?.get(0) {
            client.batch_execute(&format!("TRUNCATE {table}"))?;
        }
    }
    // It deletes the files.
    for node in nodes.all() {
        node.connect("postgres", DATABASE).batch_execute("CHECKPOINT")?;
    }
    Ok(())
}

/// Runs a job, and returns the CPU seconds of all its servers.
fn measured(bench: &Bench, on_nodes: bool, client: &mut Client, ask: &str) -> Outcome<f64> {
    let pid = "SELECT pg_backend_pid()";
    let mut sessions = Vec::new();
    if on_nodes {
        for node in nodes(bench)?.all() {
            sessions.push(node.connect("postgres", DATABASE));
        }
    }
    let mut backends = Vec::new();
    if !on_nodes {
        backends.push(client.query_one(pid, &[])?.get::<_, i32>(0));
    }
    for session in &mut sessions {
        backends.push(session.query_one(pid, &[])?.get::<_, i32>(0));
    }
    let used = || -> Outcome<Vec<f64>> {
        backends.iter().map(|backend| cpu::of_server(*backend).ok_or_else(|| "a server is gone".into())).collect()
    };
    let before = used()?;
    let id: String = client.query_one(ask, &[])?.get(0);
    loop {
        let row = client.query_one("SELECT status FROM bulk_jobs WHERE id = $1", &[&id])?;
        match row.get(0) {
            "finished" => break,
            "failed" | "cancelled" => return Err(format!("the job of {ask} failed").into()),
            _ => thread::sleep(POLL),
        }
    }
    thread::sleep(REST);
    let after = used()?;
    let each: Vec<f64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    let sum = each.iter().sum();
    if on_nodes {
        LAST.set([each[0], sum]);
    }
    Ok(sum)
}

fn import(bench: &Bench, on_nodes: bool) -> Outcome<f64> {
    let inputs =
        inputs(bench)?.iter().map(|path| format!(r#"{{"url": "file://{}"}}"#, path.display())).collect::<Vec<_>>();
    let mut client = empty(bench, on_nodes)?;
    let ask = format!(r#"SELECT bulk_import('{{"inputs": [{}]}}', fhir => true)"#, inputs.join(", "));
    measured(bench, on_nodes, &mut client, &ask)
}

fn export(bench: &Bench, on_nodes: bool) -> Outcome<f64> {
    import(bench, on_nodes)?;
    let (cluster, database) = match on_nodes {
        true => (nodes(bench)?.coordinator, DATABASE.to_owned()),
        false => (&bench.cluster, format!("{DATABASE}_spread")),
    };
    let folder = cluster.shared_folder("spread_exports");
    let location = format!("file://{}", folder.display());
    let mut client = cluster.connect("postgres", &database);
    client.batch_execute(&format!("ALTER DATABASE {database} SET fhir_bulk.export_location = '{location}'"))?;
    let mut client = cluster.connect("postgres", &database);
    if on_nodes {
        client.batch_execute("SET fhir_bulk.use_nodes = files")?;
    }
    // What the import has left over to write is not the export's.
    client.batch_execute("CHECKPOINT")?;
    if on_nodes {
        for node in nodes(bench)?.workers {
            node.connect("postgres", DATABASE).batch_execute("CHECKPOINT")?;
        }
    }
    let is_left = || {
        fs::read_dir(&folder).is_ok_and(|mut owners| {
            owners.any(|owner| {
                owner.is_ok_and(|owner| fs::read_dir(owner.path()).is_ok_and(|mut jobs| jobs.next().is_some()))
            })
        })
    };
    let mut exports = Vec::new();
    for _ in 0..EXPORTS {
        let seconds = measured(bench, on_nodes, &mut client, "SELECT bulk_export('{}')")?;
        exports.push((seconds, LAST.get()));
        client.batch_execute(
            "SELECT bulk_export_cancel(id) FROM bulk_jobs WHERE kind = 'export' AND status = 'finished'",
        )?;
        while is_left() {
            thread::sleep(POLL);
        }
    }
    drop(client);
    tidy(bench, on_nodes)?;
    exports.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let (seconds, last) = exports[EXPORTS / 2];
    LAST.set(last);
    Ok(seconds)
}

pub(super) fn import_on_nodes(bench: &mut Bench) -> Outcome<f64> {
    let seconds = import(bench, true)?;
    tidy(bench, true)?;
    Ok(seconds)
}

pub(super) fn import_on_one(bench: &mut Bench) -> Outcome<f64> {
    let seconds = import(bench, false)?;
    tidy(bench, false)?;
    Ok(seconds)
}

pub(super) fn export_on_nodes(bench: &mut Bench) -> Outcome<f64> {
    export(bench, true)
}

pub(super) fn export_on_one(bench: &mut Bench) -> Outcome<f64> {
    export(bench, false)
}

/// Of the coordinator in an import.
pub(super) fn import_of_coordinator(bench: &mut Bench) -> Outcome<f64> {
    import_on_nodes(bench)?;
    Ok(LAST.get()[0])
}

/// Of the coordinator in an export.
pub(super) fn export_of_coordinator(bench: &mut Bench) -> Outcome<f64> {
    export(bench, true)?;
    Ok(LAST.get()[0])
}

/// Of all nodes in the same import or export.
pub(super) fn of_all(_bench: &mut Bench) -> Outcome<f64> {
    Ok(LAST.get()[1])
}
