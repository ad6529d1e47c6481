//! A coordinator and two workers.

use crate::support::{run, value};
use fhir_bulk_tests::{Client, Cluster, Database, wait_for};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Each server has all shards' connections of several sessions; moves of shards decode changes.
const SETTINGS: [&str; 9] = [
    "shared_preload_libraries = 'citus'",
    "shared_buffers = 64MB",
    "max_connections = 300",
    "max_prepared_transactions = 300",
    "max_worker_processes = 64",
    "wal_level = logical",
    // The fewest with which each worker has several.
    "citus.shard_count = 6",
    "citus.node_conninfo = 'sslmode=prefer'",
    // The one who waits for a transaction that a crash has left need not wait long.
    "citus.recover_2pc_interval = '1s'",
];

/// Servers that know of each other.
pub struct Nodes {
    pub coordinator: &'static Cluster,
    pub workers: [&'static Cluster; 2],
}

/// Those that most tests share.
pub fn shared() -> &'static Nodes {
    static SHARED: OnceLock<Nodes> = OnceLock::new();
    SHARED.get_or_init(Nodes::start)
}

/// A database of one test on the shared servers, with the table of patients distributed, and a superuser's session.
pub fn with_patients() -> (Database, Client) {
    let database = shared().database();
    let client = distributed(&database, "Patient");
    (database, client)
}

/// Makes the table of a type distributed in all sessions to come. Returns one of them.
pub fn distributed(database: &Database, resource_type: &str) -> Client {
    let setting = format!("ALTER DATABASE {} SET fhir_bulk.distribute_tables = on", database.name());
    run(&mut database.connect(), &setting);
    let mut client = database.connect();
    run(&mut client, &format!("SELECT bulk_create_table('{resource_type}')"));
    client
}

impl Nodes {
    pub fn start() -> Nodes {
        let start = || -> &'static Cluster { Box::leak(Box::new(Cluster::start(&SETTINGS))) };
        Nodes { coordinator: start(), workers: [start(), start()] }
    }

    pub fn all(&self) -> [&'static Cluster; 3] {
        [self.coordinator, self.workers[0], self.workers[1]]
    }

    /// A new database on all of them, with Citus and the extension.
    pub fn database(&self) -> Database {
        // Servers that become known are told all roles, which two sessions at once must not do.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("citus_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        for node in self.all() {
            run(&mut node.connect("postgres", "postgres"), &format!("CREATE DATABASE {name}"));
            run(&mut node.connect("postgres", &name), "CREATE EXTENSION citus");
        }
        let database = self.coordinator.existing(&name);
        let mut client = database.connect();
        let [port, first, second] = self.all().map(Cluster::port);
        run(&mut client, &format!("SELECT citus_set_coordinator_host('127.0.0.1', {port})"));
        for port in [first, second] {
            run(&mut client, &format!("SELECT citus_add_node('127.0.0.1', {port})"));
        }
        run(&mut client, "CREATE EXTENSION fhir_bulk");
        database
    }

    /// A superuser's session on a worker.
    pub fn on_worker(&self, number: usize, database: &Database) -> Client {
        let mut client = self.workers[number].connect("postgres", database.name());
        // Else Citus hides shards.
        run(&mut client, "SET citus.override_table_visibility = off");
        client
    }
}

/// Waits until no transaction is left prepared on any server: what a crash left has been committed or rolled back.
pub fn wait_for_recovery(nodes: &Nodes, database: &Database) {
    let sql = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()";
    let mut sessions = nodes.all().map(|node| node.connect("postgres", database.name()));
    wait_for("no prepared transaction to be left", || sessions.iter_mut().all(|session| value(session, sql) == "0"));
}

/// A database of the coordinator's server without Citus.
pub fn without_citus() -> Database {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    shared().coordinator.database(&format!("without_citus_{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}
