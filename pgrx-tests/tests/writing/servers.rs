//! Servers beside the shared one, started when the first test asks for them.

use fhir_bulk_tests::{Client, Cluster, Database};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// One whose changes can be decoded.
pub fn decoded() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| Cluster::start(&["wal_level = logical", "max_connections = 100"]))
}

/// The first of two that hold other servers' tables.
pub fn second() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| Cluster::start(&[]))
}

/// The other one.
pub fn third() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| Cluster::start(&[]))
}

/// A database of one test on such a server.
pub fn database_on(server: &'static Cluster) -> Database {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    server.database(&format!("other_{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// An empty database without the extension; its name is taken from that of the test's own.
pub fn plain_database(server: &Cluster, name: &str) -> Client {
    server.connect("postgres", "postgres").batch_execute(&format!("CREATE DATABASE \"{name}\"")).unwrap();
    server.connect("postgres", name)
}
