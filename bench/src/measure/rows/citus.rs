//! Loads into a table that Citus distributes, on three servers of this machine, and Citus's own COPY.

use std::fs;
use std::time::Instant;

use fhir_bulk_tests::Client;
use fhir_bulk_tests::citus::{self, Nodes};

use super::super::bench::{Bench, COLUMNS, Missing, Outcome, SETTINGS, readable};

pub(super) const DATABASE: &str = "bench";

pub(super) fn nodes(bench: &Bench) -> Outcome<&Nodes> {
    if !citus::is_here() {
        return Err(Missing("Citus is not installed for this PostgreSQL".into()).into());
    }
    Ok(bench.citus.get_or_init(|| {
        let nodes = Nodes::start(&SETTINGS);
        nodes.database(DATABASE);
        nodes
    }))
}

/// A session on the coordinator and an empty distributed table of the measured type.
fn empty_table(bench: &Bench) -> Outcome<Client> {
    let nodes = nodes(bench)?;
    let mut client = nodes.coordinator.connect("postgres", DATABASE);
    client.batch_execute("SET fhir_bulk.distribute_tables = on")?;
    client.execute("SELECT bulk_create_table($1)", &[&bench.resource_type])?;
    client.batch_execute(&format!("TRUNCATE {}", bench.table()))?;
    for node in nodes.all() {
        node.connect("postgres", DATABASE).batch_execute("CHECKPOINT")?;
    }
    // Connections to the shards are open before the clock starts, for ours and for Citus's.
    client.execute(&format!("SELECT count(*) FROM {}", bench.table()), &[])?;
    Ok(client)
}

/// A file that the coordinator can read.
fn copied(bench: &Bench, from: &std::path::Path, name: &str) -> Outcome<std::path::PathBuf> {
    let to = nodes(bench)?.coordinator.shared_folder("bench").join(name);
    if !to.exists() {
        fs::copy(from, &to)?;
        readable(&to)?;
    }
    Ok(to)
}

fn load_by(bench: &mut Bench, path: &str) -> Outcome<f64> {
    let mut client = empty_table(bench)?;
    let url = format!("file://{}", copied(bench, &bench.source, "source.ndjson")?.display());
    client.batch_execute(&format!("SET fhir_bulk.write_path = '{path}'"))?;
    let start = Instant::now();
    client.execute("SELECT bulk_load($1, $2, true)", &[&url, &bench.resource_type])?;
    Ok(start.elapsed().as_secs_f64())
}

pub(super) fn load(bench: &mut Bench) -> Outcome<f64> {
    load_by(bench, "auto")
}

pub(super) fn load_by_stage(bench: &mut Bench) -> Outcome<f64> {
    load_by(bench, "staged")
}

pub(super) fn copy_prepared(bench: &mut Bench) -> Outcome<f64> {
    let mut client = empty_table(bench)?;
    let prepared = copied(bench, &bench.prepared, "prepared.txt")?;
    let copy = format!("COPY {} ({COLUMNS}) FROM '{}'", bench.table(), prepared.display());
    let start = Instant::now();
    client.batch_execute(&copy)?;
    Ok(start.elapsed().as_secs_f64())
}
