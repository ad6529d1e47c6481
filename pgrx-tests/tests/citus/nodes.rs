//! Servers and databases of Citus for the tests.

use crate::support::{run, value};
use fhir_bulk_tests::citus::Nodes;
use fhir_bulk_tests::{Client, Database, wait_for};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const SETTINGS: [&str; 3] = [
    "shared_buffers = 64MB",
    // The fewest with which each worker has several.
    "citus.shard_count = 6",
    // The one who waits for a transaction that a crash has left need not wait long.
    "citus.recover_2pc_interval = '1s'",
];

/// New servers.
pub fn start() -> Nodes {
    Nodes::start(&SETTINGS)
}

/// Those that most tests share.
pub fn shared() -> &'static Nodes {
    static SHARED: OnceLock<Nodes> = OnceLock::new();
    SHARED.get_or_init(start)
}

/// A database of one test.
pub fn database_on(nodes: &Nodes) -> Database {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    nodes.database(&format!("citus_{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// The same on the shared servers.
pub fn database() -> Database {
    database_on(shared())
}

/// A database on the shared servers with the table of patients distributed, and a superuser's session.
pub fn with_patients() -> (Database, Client) {
    let database = database();
    let client = distributed(&database, "Patient");
    (database, client)
}

/// Makes new tables distributed in all sessions to come, and the table of a type. Returns one of these sessions.
pub fn distributed(database: &Database, resource_type: &str) -> Client {
    let setting = format!("ALTER DATABASE {} SET fhir_bulk.distribute_tables = on", database.name());
    run(&mut database.connect(), &setting);
    let mut client = database.connect();
    run(&mut client, &format!("SELECT bulk_create_table('{resource_type}')"));
    client
}

/// A database of the coordinator's server without Citus.
pub fn without_citus() -> Database {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    shared().coordinator.database(&format!("without_citus_{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// Waits until no transaction is left prepared on any server: what a crash left has been committed or rolled back.
pub fn wait_for_recovery(nodes: &Nodes, database: &Database) {
    let sql = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()";
    let mut sessions = nodes.all().map(|node| node.connect("postgres", database.name()));
    wait_for("no prepared transaction to be left", || sessions.iter_mut().all(|session| value(session, sql) == "0"));
}
