//! A server that asks for passwords, databases on it, and a proxy in front of each.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use fhir_bulk_tests::proxy::{Proxy, Request, Response};
use fhir_bulk_tests::{Client, Cluster, Database};
use ring::digest;
use serde_json::Value;

/// The password of every role of these tests.
pub const PASSWORD: &str = "correct horse: battery";

/// The server that these tests share.
fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(server_with_passwords)
}

/// Roles named `…trusting…` connect without a password; all others need theirs.
fn server_with_passwords() -> Cluster {
    let cluster = Cluster::start(&["max_connections = 100", "TimeZone = 'UTC'"]);
    let mut client = cluster.connect("postgres", "postgres");
    client.batch_execute("CREATE ROLE trusting NOLOGIN").unwrap();
    let rules = "local all all trust\nhost all +trusting 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(cluster.data().join("pg_hba.conf"), rules).unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    cluster
}

/// A database, a role `client` that owns its schema and may load, and a proxy.
pub struct Service {
    pub database: Database,
    pub proxy: Proxy,
    /// A role of all rights on the data.
    pub client: String,
    /// Of its proxy.
    pub flags: Vec<String>,
}

impl Service {
    /// With no flags but those that it needs.
    pub fn new() -> Service {
        Service::with(|_| Vec::new())
    }

    /// With flags, which may depend on the database and its roles.
    pub fn with(flags: impl FnOnce(&Database) -> Vec<String>) -> Service {
        Service::on(server(), flags)
    }

    /// The same on a server of its own, which a test may stop and start.
    pub fn alone(flags: impl FnOnce(&Database) -> Vec<String>) -> Service {
        Service::on(Box::leak(Box::new(server_with_passwords())), flags)
    }

    fn on(server: &'static Cluster, flags: impl FnOnce(&Database) -> Vec<String>) -> Service {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let database = server.database(&format!("proxy_{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let client = role(&database, "client");
        database
            .connect()
            .batch_execute(&format!(
                "ALTER SCHEMA public OWNER TO {client}; GRANT pg_read_server_files TO {client};
                 GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {client}"
            ))
            .unwrap();
        let flags = flags(&database);
        let has_database = flags.iter().any(|flag| flag == "--database");
        let target = target(&database, "");
        let mut all = if has_database { Vec::new() } else { vec!["--database".to_owned(), target] };
        all.extend(flags);
        let proxy = Proxy::start(&all.iter().map(String::as_str).collect::<Vec<_>>());
        Service { proxy, database, client, flags: all }
    }

    /// Sends a request as `client`.
    pub fn send(&self, request: Request) -> Response {
        self.proxy.send(&self.signed(request))
    }

    /// A request with the credentials of `client`.
    pub fn signed(&self, request: Request) -> Request {
        request.basic(&self.client, PASSWORD)
    }

    /// Another proxy with the same flags, whose sessions are all new.
    pub fn proxy_again(&self) -> Proxy {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        Proxy::start(&flags)
    }

    /// A session of `client`'s, beside the proxy.
    pub fn connect(&self) -> Client {
        self.database.connect_as(&self.client)
    }
}

/// How a proxy reaches a database over TCP; `more` may name a user.
pub fn target(database: &Database, more: &str) -> String {
    format!("host=127.0.0.1 port={} dbname={} {more}", database.cluster().port(), database.name())
}

/// A role with the password of these tests.
pub fn role(database: &Database, name: &str) -> String {
    let role = database.role(name);
    database.connect().batch_execute(&format!("ALTER ROLE {role} PASSWORD '{PASSWORD}'")).unwrap();
    role
}

/// Three patients and three appointments, as the pages about `$dump` print them.
pub fn aidbox_rows(client: &mut Client) {
    client
        .batch_execute(
            r#"SELECT bulk_create_table('Patient'), bulk_create_table('Appointment');
            INSERT INTO patient (id, txid, cts, ts, status, resource)
            SELECT id, txid, '2021-06-10T08:26:10.707454Z', '2021-06-10T08:26:10.707454Z', 'created', resource::jsonb
            FROM (VALUES ('pt-1', 481, '{"name": [{"given": ["Alice"]}]}'),
                ('pt-2', 482, '{"name": [{"given": ["Bob"]}]}'),
                ('pt-3', 483, '{"name": [{"given": ["Charles"]}], "citizenship": [{"code": {"text": "ru"}}]}'))
                AS row (id, txid, resource);
            INSERT INTO appointment (id, txid, cts, ts, status, resource)
            SELECT id, txid, '2021-06-10T08:26:10.707454Z', '2021-06-10T08:26:10.707454Z', 'created',
                jsonb_build_object('status', state, 'participant', jsonb_build_array(jsonb_build_object(
                    'actor', jsonb_build_object('id', patient, 'resourceType', 'Patient'), 'status', 'accepted')))
            FROM (VALUES ('ap-1', 484, 'fulfilled', 'pt-1'), ('ap-2', 485, 'booked', 'pt-1'),
                ('ap-3', 486, 'fulfilled', 'pt-2')) AS row (id, txid, state, patient)"#,
        )
        .unwrap();
}

/// Writes a file that only the proxy needs; its path.
pub fn file(database: &Database, name: &str, content: &str) -> String {
    let path = database.path(name);
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// The only value of a query.
pub fn value(client: &mut Client, query: &str) -> String {
    client.query_one(&format!("SELECT ({query})::text"), &[]).unwrap().get(0)
}

/// Asserts that an answer is an OperationOutcome of a status, and gives its text.
#[track_caller]
pub fn outcome(response: &Response, status: u16) -> String {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/fhir+json"), "{response:?}");
    let body = response.json();
    assert_eq!(body["resourceType"], "OperationOutcome", "{body}");
    assert_eq!(body["issue"][0]["severity"], "error", "{body}");
    assert!(matches!(&body["issue"][0]["code"], Value::String(code) if !code.is_empty()), "{body}");
    body["issue"][0]["diagnostics"].as_str().unwrap().to_owned()
}

/// How many kilobytes a process has that are its own.
pub fn anonymous_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Patients and appointments, a place for exports, a user who serves their files, and `clk_live_abc123`, a key of a role
/// that may read patients.
pub fn exporting() -> Service {
    exporting_with(&[])
}

/// The same with more flags.
pub fn exporting_with(flags: &[&str]) -> Service {
    let service = Service::with(|database| {
        let (authenticator, tenant) = (role(database, "authenticator"), role(database, "tenant"));
        database
            .connect()
            .batch_execute(&format!(
                "ALTER DATABASE {} SET fhir_bulk.export_location = 'file://{}';
                 GRANT EXECUTE ON FUNCTION bulk_export_file(text) TO {authenticator};
                 GRANT {tenant} TO {authenticator};
                 GRANT EXECUTE ON FUNCTION bulk_export(jsonb), bulk_export_cancel(text) TO {tenant}",
                database.name(),
                database.path("exports").display()
            ))
            .unwrap();
        let keys = file(database, "keys.yaml", &key_line("clk_live_abc123", &tenant));
        let own = target(database, &format!("user={authenticator} password='{PASSWORD}'"));
        let reader = role(database, "reader");
        database.connect().batch_execute(&format!("GRANT {reader} TO {authenticator}")).unwrap();
        let own = ["--api-keys-file", &keys, "--database", &own, "--metadata-role", &reader];
        own.iter().chain(flags).map(|flag| (*flag).to_owned()).collect()
    });
    let mut client = service.connect();
    aidbox_rows(&mut client);
    client
        .batch_execute(&format!("GRANT SELECT ON patient TO {0}_tenant, {0}_reader", service.database.name()))
        .unwrap();
    service
}

/// The line of an API key that stands for a role.
pub fn key_line(key: &str, role: &str) -> String {
    let digest = digest::digest(&digest::SHA256, key.as_bytes());
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("- {{sha256: {digest}, role: {role}}}\n")
}

/// Flags of TLS, with a certificate for 127.0.0.1 that is made anew.
pub fn certificate(database: &Database, name: &str) -> Vec<String> {
    let (cert, key) = (database.path("cert.pem"), database.path("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    vec!["--tls-cert".into(), cert.display().to_string(), "--tls-key".into(), key.display().to_string()]
}

/// Has whoever reads patients sleep at the first one.
pub fn stall_patients(client: &mut Client) {
    let policy = "ALTER TABLE patient ENABLE ROW LEVEL SECURITY; ALTER TABLE patient FORCE ROW LEVEL SECURITY;
                  CREATE POLICY stall ON patient USING (pg_sleep(600) IS NOT NULL)";
    client.batch_execute(policy).unwrap();
}

/// Another proxy in front of a database.
pub fn proxy_of(database: &Database) -> Proxy {
    Proxy::start(&["--database", &target(database, "")])
}
