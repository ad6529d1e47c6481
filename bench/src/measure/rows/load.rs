//! Loads and what users run instead.

use std::fs::File;
use std::io;
use std::time::Instant;

use super::super::bench::{Bench, COLUMNS, Outcome, SETTINGS, readable};
use super::export;
use fhir_bulk_tests::Cluster;
use flate2::Compression;
use flate2::write::GzEncoder;

pub(super) fn copy_prepared(bench: &mut Bench) -> Outcome<f64> {
    bench.empty_table()?;
    let copy = format!("COPY {} ({COLUMNS}) FROM '{}'", bench.table(), bench.prepared.display());
    let start = Instant::now();
    bench.client.batch_execute(&copy)?;
    Ok(start.elapsed().as_secs_f64())
}

/// The schema of [`all_types`] and [`all_types_in_sql`].
const SCHEMA: &str = "loaded";

/// Each type's file into a table that the load makes.
pub(super) fn all_types(bench: &mut Bench) -> Outcome<f64> {
    let files = export::files(bench)?;
    bench.client.batch_execute(&format!(
        "DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}; SET fhir_bulk.data_schema = {SCHEMA}; CHECKPOINT"
    ))?;
    let start = Instant::now();
    for file in files {
        bench.client.execute("SELECT bulk_load($1, NULL, true)", &[&format!("file://{}", file.display())])?;
    }
    let seconds = start.elapsed().as_secs_f64();
    bench.client.batch_execute("RESET fhir_bulk.data_schema")?;
    Ok(seconds)
}

/// The same rows, which are in other tables already.
pub(super) fn all_types_in_sql(bench: &mut Bench) -> Outcome<f64> {
    let tables = export::tables(bench)?;
    bench.client.batch_execute(&format!(
        "RESET fhir_bulk.data_schema; DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}; CHECKPOINT"
    ))?;
    let start = Instant::now();
    for (number, table) in tables.iter().enumerate() {
        bench.client.batch_execute(&format!(
            "CREATE TABLE {SCHEMA}.t{number} AS TABLE {table}; ALTER TABLE {SCHEMA}.t{number} ADD PRIMARY KEY (id)"
        ))?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// What a user writes who has NDJSON and psql.
pub(super) fn load_staged(bench: &mut Bench) -> Outcome<f64> {
    bench.empty_table()?;
    bench.client.batch_execute("DROP TABLE IF EXISTS staged; CREATE UNLOGGED TABLE staged (line jsonb)")?;
    let statements = format!(
        r"COPY staged FROM '{}' WITH (FORMAT csv, QUOTE e'\x01', DELIMITER e'\x02');
        INSERT INTO {} ({COLUMNS})
        SELECT line ->> 'id', nextval('transaction_id_seq'), now(), now(), line ->> 'resourceType', 'created',
               line - 'id' - 'resourceType'
        FROM staged
        ON CONFLICT (id) DO UPDATE SET txid = excluded.txid, ts = excluded.ts, status = 'updated',
               resource = excluded.resource;",
        bench.source.display(),
        bench.table()
    );
    let start = Instant::now();
    bench.client.batch_execute(&statements)?;
    Ok(start.elapsed().as_secs_f64())
}

/// The same lines without a conversion.
pub(super) fn load_unconverted(bench: &mut Bench) -> Outcome<f64> {
    bench.empty_table()?;
    bench.load_from(&bench.file_url(), false)
}

/// By a process that has just started, as the worker of an import has: the first touch of each page of the shared
/// buffers costs it.
pub(super) fn load_in_new_session(bench: &mut Bench) -> Outcome<f64> {
    bench.empty_table()?;
    let start = Instant::now();
    let mut client = bench.cluster.connect("postgres", "bench");
    client.execute("SELECT bulk_load($1, $2, true)", &[&bench.file_url(), &bench.resource_type])?;
    Ok(start.elapsed().as_secs_f64())
}

/// Over http on loopback.
pub(super) fn load_http(bench: &mut Bench) -> Outcome<f64> {
    bench.empty_table()?;
    bench.load_from(&bench.http_url()?, true)
}

/// Of a file as `gzip -6` packs it: the thread that unpacks it also reads its lines.
pub(super) fn load_gzip(bench: &mut Bench) -> Outcome<f64> {
    let path = bench.source.with_extension("ndjson.gz");
    if !path.exists() {
        let mut packed = GzEncoder::new(File::create(&path)?, Compression::new(6));
        io::copy(&mut File::open(&bench.source)?, &mut packed)?;
        packed.finish()?;
        readable(&path)?;
    }
    bench.empty_table()?;
    bench.load_from(&format!("file://{}", path.display()), true)
}

/// Into a table that the load makes.
pub(super) fn load_new(bench: &mut Bench) -> Outcome<f64> {
    bench.client.batch_execute(&format!("DROP TABLE IF EXISTS {0}, {0}_history; CHECKPOINT", table_name(bench)))?;
    bench.load_from(&bench.file_url(), true)
}

/// The same on a server with `wal_level = logical`.
pub(super) fn load_new_decoded(bench: &mut Bench) -> Outcome<f64> {
    let cluster = bench.decoded.get_or_init(|| Cluster::start(&[&SETTINGS[..], &["wal_level = logical"]].concat()));
    let mut client = cluster.connect("postgres", "postgres");
    client.batch_execute(&format!(
        "CREATE EXTENSION IF NOT EXISTS fhir_bulk; DROP TABLE IF EXISTS {0}, {0}_history; CHECKPOINT",
        table_name(bench)
    ))?;
    // Its source lies with the other server, which runs as the same user.
    let start = Instant::now();
    client.execute("SELECT bulk_load($1, $2, true)", &[&bench.file_url(), &bench.resource_type])?;
    Ok(start.elapsed().as_secs_f64())
}

fn table_name(bench: &Bench) -> String {
    bench.resource_type.to_lowercase()
}

/// A table that has every id of the source, and nothing left over from before.
fn full_table(bench: &mut Bench) -> Outcome<()> {
    bench.load()?;
    // VACUUM must stand alone.
    bench.client.batch_execute(&format!("VACUUM ANALYZE {}", bench.table()))?;
    bench.client.batch_execute("CHECKPOINT")?;
    Ok(())
}

pub(super) fn load_again(bench: &mut Bench) -> Outcome<f64> {
    full_table(bench)?;
    bench.load_from(&bench.file_url(), true)
}

/// From a table of rows that are ready.
pub(super) fn upsert_prepared(bench: &mut Bench) -> Outcome<f64> {
    full_table(bench)?;
    let table = bench.table();
    bench.client.batch_execute(&format!(
        "DROP TABLE IF EXISTS prepared; CREATE UNLOGGED TABLE prepared AS SELECT {COLUMNS} FROM {table}; CHECKPOINT"
    ))?;
    let statement = format!(
        "INSERT INTO {table} ({COLUMNS}) SELECT {COLUMNS} FROM prepared ON CONFLICT (id) DO UPDATE SET \
         txid = excluded.txid, ts = excluded.ts, status = 'updated', resource = excluded.resource"
    );
    let start = Instant::now();
    bench.client.batch_execute(&statement)?;
    Ok(start.elapsed().as_secs_f64())
}

fn load_by(bench: &mut Bench, path: &str) -> Outcome<f64> {
    bench.empty_table()?;
    bench.client.batch_execute(&format!("SET fhir_bulk.write_path = '{path}'"))?;
    let seconds = bench.load_from(&bench.file_url(), true)?;
    bench.client.batch_execute("RESET fhir_bulk.write_path")?;
    Ok(seconds)
}

pub(super) fn load_by_set(bench: &mut Bench) -> Outcome<f64> {
    load_by(bench, "set")
}

pub(super) fn load_by_stage(bench: &mut Bench) -> Outcome<f64> {
    load_by(bench, "staged")
}

/// An empty foreign table of the measured type in schema `far`, whose rows live in another database.
fn empty_far_table(bench: &mut Bench) -> Outcome<String> {
    let (table, server) = (bench.table(), bench.cluster.dsn("postgres", "far"));
    let there = bench.client.query_opt("SELECT FROM pg_database WHERE datname = 'far'", &[])?.is_some();
    if !there {
        bench.client.batch_execute("CREATE DATABASE far")?;
        bench.cluster.connect("postgres", "far").batch_execute(&format!(
            "CREATE TYPE resource_status AS ENUM ('created', 'updated', 'deleted', 'recreated'); \
             CREATE TABLE {table} (id text PRIMARY KEY, txid bigint NOT NULL, cts timestamptz, ts timestamptz, \
             resource_type text, status resource_status NOT NULL, resource jsonb NOT NULL)"
        ))?;
        let options = server.split(' ').filter_map(|option| option.split_once('='));
        let option = |name: &str| options.clone().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
        bench.client.batch_execute(&format!(
            "CREATE EXTENSION postgres_fdw; CREATE SCHEMA far; \
             CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw \
             OPTIONS (host '{}', port '{}', dbname 'far', batch_size '1000'); \
             CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'postgres'); \
             CREATE SEQUENCE far.transaction_id_seq; \
             CREATE FOREIGN TABLE far.{table} (id text, txid bigint, cts timestamptz, ts timestamptz, \
             resource_type text, status resource_status, resource jsonb) SERVER far OPTIONS (schema_name 'public')",
            option("host"),
            option("port")
        ))?;
    }
    bench.cluster.connect("postgres", "far").batch_execute(&format!("TRUNCATE {table}"))?;
    bench.client.batch_execute("CHECKPOINT")?;
    Ok(format!("far.{table}"))
}

pub(super) fn load_far(bench: &mut Bench) -> Outcome<f64> {
    empty_far_table(bench)?;
    bench.client.batch_execute("SET fhir_bulk.data_schema = 'far'")?;
    let seconds = bench.load_from(&bench.file_url(), true)?;
    bench.client.batch_execute("RESET fhir_bulk.data_schema")?;
    Ok(seconds)
}

pub(super) fn load_far_staged(bench: &mut Bench) -> Outcome<f64> {
    let table = empty_far_table(bench)?;
    bench.client.batch_execute("DROP TABLE IF EXISTS staged; CREATE UNLOGGED TABLE staged (line jsonb)")?;
    let statements = format!(
        r"COPY staged FROM '{}' WITH (FORMAT csv, QUOTE e'\x01', DELIMITER e'\x02');
        INSERT INTO {table} ({COLUMNS})
        SELECT line ->> 'id', 1, now(), now(), line ->> 'resourceType', 'created', line - 'id' - 'resourceType'
        FROM staged WHERE line ->> 'id' NOT IN (SELECT id FROM {table});",
        bench.source.display()
    );
    let start = Instant::now();
    bench.client.batch_execute(&statements)?;
    Ok(start.elapsed().as_secs_f64())
}
