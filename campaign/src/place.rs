//! A server of a part's own, and what must hold on it at any time.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fhir_bulk_tests::proxy::{Proxy, Request};
use fhir_bulk_tests::support::{count, rows, run};
use fhir_bulk_tests::{Client, Cluster, Database, wait_for};

/// Of role `client`.
pub const PASSWORD: &str = "correct horse: battery";

/// A server with one database, which has resource tables and may read sources of this machine.
pub struct Place {
    pub database: Database,
}

impl Place {
    /// Starts it.
    pub fn new(settings: &[&str]) -> Place {
        Place::after("", settings)
    }

    /// As [`Place::new`], by a shell that first runs commands.
    pub fn after(before: &str, settings: &[&str]) -> Place {
        let mut all = vec!["max_worker_processes = 32"];
        all.extend(settings);
        // For as long as the process lives; a part stops its server when it ends.
        let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start_after(before, &all)));
        let database = cluster.database("campaign");
        let exports = format!("file://{}", database.path("exports").display());
        run(
            &mut database.connect(),
            &format!(
                "ALTER DATABASE campaign SET fhir_bulk.allowed_sources = '127.0.0.1';
                 ALTER DATABASE campaign SET fhir_bulk.export_location = '{exports}';
                 ALTER DATABASE campaign SET fhir_bulk.max_exports_per_role = 0;
                 ALTER DATABASE campaign SET session_preload_libraries = 'fhir_bulk';
                 SELECT bulk_create_table('Patient')"
            ),
        );
        Place { database }
    }

    /// A proxy, and in the server role `client` for it, which may do everything with the data.
    pub fn proxy(&self) -> Proxy {
        let cluster = self.database.cluster();
        run(
            &mut self.connect(),
            &format!(
                "DO $$ BEGIN CREATE ROLE client LOGIN PASSWORD '{PASSWORD}'; EXCEPTION WHEN duplicate_object THEN END $$;
                 GRANT ALL ON ALL TABLES IN SCHEMA public TO client; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO client;
                 GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO client"
            ),
        );
        // The proxy takes no password that the server does not ask for.
        let rules = "local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(cluster.data().join("pg_hba.conf"), rules).expect("a file of ours");
        rows(&mut self.connect(), "SELECT pg_reload_conf()");
        Proxy::start(&[
            "--database",
            &format!("host=127.0.0.1 port={} dbname={}", cluster.port(), self.database.name()),
        ])
    }

    /// A request with the credentials of `client`.
    pub fn signed(request: Request) -> Request {
        request.basic("client", PASSWORD)
    }

    /// A superuser's session.
    pub fn connect(&self) -> Client {
        self.database.connect()
    }

    /// A superuser's session, as soon as the server takes one; it is started if it does not run.
    pub fn when_up(&self) -> Client {
        let cluster = self.database.cluster();
        if !cluster.is_running() {
            cluster.start_server();
        }
        let mut client = None;
        wait_for("the server to be back", || {
            client = fhir_bulk_tests::connect(&cluster.dsn("postgres", self.database.name())).ok();
            client.is_some()
        });
        client.expect("it is there")
    }

    /// How many files there are where exports go.
    pub fn exported(&self) -> usize {
        let mut find = fhir_bulk_tests::as_server_user(Path::new("/usr/bin/find"));
        let output = find.arg(self.database.path("exports")).args(["-type", "f"]).output().expect("find");
        output.stdout.iter().filter(|byte| **byte == b'\n').count()
    }

    /// What is wrong with pages and indexes of tables, by amcheck.
    pub fn unsound(&self, client: &mut Client, tables: &[&str]) -> Vec<String> {
        let mut wrong = Vec::new();
        for table in tables {
            let heap = format!("SELECT '{table}', msg FROM verify_heapam('{table}') WHERE msg IS NOT NULL LIMIT 5");
            wrong.extend(rows(client, &heap));
            let trees = format!(
                "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                 JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'btree' AND i.indrelid = '{table}'::regclass"
            );
            for tree in rows(client, &trees) {
                if let Err(error) = client.simple_query(&format!("SELECT bt_index_check('{tree}', true)")) {
                    wrong.push(format!("{tree}: {error:?}"));
                }
            }
        }
        wrong
    }

    /// What sessions that are gone or idle have left, and keep: locks, temporary files.
    pub fn left_over(&self, client: &mut Client) -> Vec<String> {
        let start = Instant::now();
        loop {
            let left = Place::left_now(client);
            // A session that ends right now is no longer shown as one before it has let go of its last lock.
            if left.is_empty() || start.elapsed() > Duration::from_secs(5) {
                return left;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn left_now(client: &mut Client) -> Vec<String> {
        rows(
            client,
            "SELECT 'lock of a process that is gone', pid, locktype, mode FROM pg_locks l WHERE pid IS NOT NULL AND NOT EXISTS
                 (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid)
                 AND NOT EXISTS (SELECT FROM pg_prepared_xacts)
             UNION ALL SELECT 'lock of an idle session', l.pid, locktype, l.mode FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                 WHERE a.state = 'idle' AND a.backend_type = 'client backend' AND a.query_start < a.state_change
                 AND l.locktype <> 'virtualxid' AND a.state_change < clock_timestamp() - interval '1 second'
             UNION ALL SELECT 'temporary file', NULL, name, NULL FROM pg_ls_tmpdir()
                 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid::text = substring(name FROM '^pgsql_tmp([0-9]+)'))",
        )
    }

    /// How many sessions and job workers there are besides the caller's.
    pub fn others(&self, client: &mut Client) -> i64 {
        count(
            client,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                 AND backend_type IN ('client backend', 'fhir_bulk job worker')",
        )
    }

    /// Stops the server.
    pub fn end(&self) {
        self.database.cluster().stop_server("immediate");
    }
}

/// The SQLSTATE and the message of an error, or what the driver says of it.
pub fn text_of(error: &postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| format!("{}: {}", error.code().code(), error.message()))
}
