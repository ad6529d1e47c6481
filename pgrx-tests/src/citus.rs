//! Citus: servers that know of each other, a coordinator and two workers.

use crate::{Client, Cluster, Database, bin};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// What each server needs: Citus itself, room for connections to all shards and for two-phase commit, and for moves of shards
/// changes that can be decoded.
const SETTINGS: [&str; 6] = [
    "shared_preload_libraries = 'citus'",
    "max_connections = 300",
    "max_prepared_transactions = 300",
    "max_worker_processes = 64",
    "wal_level = logical",
    "citus.node_conninfo = 'sslmode=prefer'",
];

/// Whether Citus is installed for the server.
pub fn is_here() -> bool {
    let folder = Command::new(bin("pg_config")).arg("--pkglibdir").output().map(|output| output.stdout);
    let folder = folder.ok().and_then(|folder| String::from_utf8(folder).ok());
    folder.is_some_and(|folder| std::path::Path::new(folder.trim()).join("citus.so").exists())
}

/// Servers that know of each other, until this process ends.
pub struct Nodes {
    /// Where clients connect.
    pub coordinator: &'static Cluster,
    /// Where the shards are.
    pub workers: [&'static Cluster; 2],
}

impl Nodes {
    /// Starts them, with these lines in the configuration of each.
    pub fn start(settings: &[&str]) -> Nodes {
        let settings: Vec<_> = SETTINGS.iter().chain(settings).copied().collect();
        let start = || -> &'static Cluster { Box::leak(Box::new(Cluster::start(&settings))) };
        Nodes { coordinator: start(), workers: [start(), start()] }
    }

    /// The coordinator and the workers.
    pub fn all(&self) -> [&'static Cluster; 3] {
        [self.coordinator, self.workers[0], self.workers[1]]
    }

    /// A new database on all of them, with Citus and the extension.
    pub fn database(&self, name: &str) -> Database {
        // Servers that become known are told all roles, which two sessions at once must not do.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let run = |client: &mut Client, sql: &str| client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        for node in self.all() {
            run(&mut node.connect("postgres", "postgres"), &format!("CREATE DATABASE {name}"));
            run(&mut node.connect("postgres", name), "CREATE EXTENSION citus");
        }
        let database = self.coordinator.existing(name);
        let mut client = database.connect();
        let [port, first, second] = self.all().map(Cluster::port);
        run(&mut client, &format!("SELECT citus_set_coordinator_host('127.0.0.1', {port})"));
        for port in [first, second] {
            run(&mut client, &format!("SELECT citus_add_node('127.0.0.1', {port})"));
        }
        run(&mut client, "CREATE EXTENSION fhir_bulk");
        database
    }

    /// A superuser's session on a worker, which shows shards among the tables.
    pub fn on_worker(&self, number: usize, database: &Database) -> Client {
        let mut client = self.workers[number].connect("postgres", database.name());
        client.batch_execute("SET citus.override_table_visibility = off").unwrap();
        client
    }
}
