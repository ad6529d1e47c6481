//! Only addresses that a superuser allows may be read, in any spelling.

use crate::support::{assert_error, assert_error_with_hint, fails, load, load_fails, load_sql, patients, run, value};
use fhir_bulk_tests::http::{Server, ok};
use fhir_bulk_tests::{Cluster, Database};
use std::io::Write as _;
use std::sync::OnceLock;

const TOTAL: &str = r#"{"total": 3}"#;

fn patient_server(address: &str) -> Server {
    Server::at(address, |_, stream| {
        let _ = stream.write_all(&ok(patients(1..=3)));
    })
}

#[test]
fn without_a_list_neither_http_nor_private_addresses_are_read() {
    let database = Database::new();
    let mut client = database.connect();
    let server = patient_server("127.0.0.1:0");
    let port = server.port();
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("https://localhost:{port}/"),
        format!("https://localhost.:{port}/"),
        format!("https://[::1]:{port}/"),
        "https://0.0.0.0/".into(),
        "https://10.0.0.1/".into(),
        "https://192.168.0.1/".into(),
        "https://169.254.169.254/latest/meta-data/".into(),
        "https://[fe80::1]/".into(),
        "https://[fd00::1]/".into(),
        "https://[64:ff9b::7f00:1]/".into(),
        "http://93.184.215.14/".into(),
    ] {
        let error = load_fails(&mut client, &url, "'Patient'");
        assert_error_with_hint(&error, "42501", &["permission denied", &url]);
        assert!(error.hint().unwrap().contains("fhir_bulk.allowed_sources"), "{error:?}");
    }
    assert_eq!(value(&mut client, "SHOW fhir_bulk.allowed_sources"), "");
    assert!(server.seen().is_empty());
}

#[test]
fn no_spelling_of_an_address_passes_the_list_by() {
    let database = Database::new();
    let mut client = database.connect();
    let (first, second) = (patient_server("127.0.0.1:0"), patient_server("127.0.0.2:0"));
    let port = second.port();
    let spellings = [
        "127.0.0.2",
        "127.2",
        "127.0.2",
        "2130706434",
        "0x7f000002",
        "0x7f.0.0.2",
        "0177.0.0.2",
        "017700000002",
        "127.0.0.2.",
        "%31%32%37.0.0.2",
        "127。0。0。2",
        "[::ffff:127.0.0.2]",
        "[::ffff:7f00:2]",
        "[0:0:0:0:0:ffff:7f00:0002]",
        "[::127.0.0.2]",
    ];
    for list in [
        "".to_owned(),
        "127.0.0.1".into(),
        "127.0.0.1/32".into(),
        "http://127.0.0.1".into(),
        first.url("/"),
        "*.0.0.2".into(),
        "*.example.org".into(),
        "localhost".into(),
        "http://localhost".into(),
        "127.0.0.0/31".into(),
        format!("https://127.0.0.2:{port}"),
        format!("http://127.0.0.2:{port}/only/this/"),
        "http://127.0.0.2".into(),
        "fd00::/8".into(),
    ] {
        run(&mut client, &format!("SET fhir_bulk.allowed_sources = '{list}'"));
        for host in spellings {
            let url = format!("http://{host}:{port}/");
            let error = load_fails(&mut client, &url, "'Patient'");
            assert!(matches!(error.code().code(), "42501" | "22023"), "{list}: {url}: {error:?}");
        }
    }
    assert!(second.seen().is_empty());
    // The same spellings of the one that is allowed are that address.
    for list in [second.url("/"), "127.0.0.2".into(), "127.0.0.2/31".into(), "127.0.0.0/8".into(), "0.0.0.0/0".into()] {
        run(&mut client, &format!("SET fhir_bulk.allowed_sources = 'https://example.org, {list}'"));
        for host in ["127.0.0.2", "2130706434", "0x7f.2"] {
            let answer = load(&mut client, &format!("http://{host}:{port}/"), "'Patient'");
            assert_eq!(answer, TOTAL, "{list} {host}");
        }
    }
}

#[test]
fn a_name_that_resolves_to_a_private_address_needs_its_exact_rule_or_a_network() {
    let database = Database::new();
    let mut client = database.connect();
    let server = patient_server("127.0.0.1:0");
    let port = server.port();
    let url = format!("http://localhost:{port}/data");
    for list in ["", "*.localhost", "http://*.localhost", "example.org", "localhos", "10.0.0.0/8"] {
        run(&mut client, &format!("SET fhir_bulk.allowed_sources = '{list}'"));
        assert_error(&load_fails(&mut client, &url, "'Patient'"), "42501", &["localhost"]);
    }
    assert!(server.seen().is_empty());
    for list in
        ["localhost", &format!("http://LOCALHOST:{port}"), &format!("http://localhost:{port}/da"), "127.0.0.0/8"]
    {
        run(&mut client, &format!("SET fhir_bulk.allowed_sources = '{list}'"));
        assert_eq!(load(&mut client, &url, "'Patient'"), TOTAL, "{list}");
        assert_eq!(load(&mut client, &url.replace("localhost", "LocalHost."), "'Patient'"), TOTAL, "{list}");
    }
    assert!(server.seen().iter().all(|request| request.path == "/data"));
}

#[test]
fn ports_and_prefixes_of_a_rule_hold_for_dots_too() {
    let database = Database::new();
    let mut client = database.connect();
    let (server, other) = (patient_server("127.0.0.1:0"), patient_server("127.0.0.1:0"));
    run(&mut client, &format!("SET fhir_bulk.allowed_sources = '{}'", server.url("/data/")));
    for path in ["/data/x", "/data/", "/other/../data/x", "/data/a/../x", "/data/..x"] {
        assert_eq!(load(&mut client, &server.url(path), "'Patient'"), TOTAL, "{path}");
    }
    let before = server.seen().len();
    for path in [
        "/",
        "/data",
        "/datas/x",
        "/DATA/x",
        "/data/../x",
        "/data/..",
        "/data/%2e%2e/x",
        "/data/.%2E/x",
        "/data/a/../../x",
        "/data\\..\\x",
        "/data/..\\x",
        "//data/x",
        "/data/..%2fx",
        "/data/..%2Fx",
        "/data/a%2f..%2f..%2fx",
        "/data/..%5cx",
    ] {
        let error = load_fails(&mut client, &server.url(path), "'Patient'");
        assert_error(&error, "42501", &["permission denied"]);
    }
    assert_error(&load_fails(&mut client, &other.url("/data/x"), "'Patient'"), "42501", &[]);
    assert_eq!((server.seen().len(), other.seen().len()), (before, 0));
}

#[test]
fn the_list_is_a_superusers_and_a_bad_one_allows_nothing() {
    let database = Database::new();
    let mut admin = database.connect();
    let server = patient_server("127.0.0.1:0");
    let role = database.role("loader");
    run(&mut admin, &format!("GRANT EXECUTE ON FUNCTION bulk_load TO {role}; GRANT CREATE ON SCHEMA public TO {role}"));
    let statements = [
        "SET fhir_bulk.allowed_sources = '127.0.0.1'".to_owned(),
        "SELECT set_config('fhir_bulk.allowed_sources', '127.0.0.1', false)".into(),
        format!("ALTER ROLE {role} SET fhir_bulk.allowed_sources = '127.0.0.1'"),
        format!(
            "CREATE OR REPLACE FUNCTION load() RETURNS jsonb LANGUAGE sql SET fhir_bulk.allowed_sources = '127.0.0.1'
             AS $$ SELECT bulk_load('{}', 'Patient') $$",
            server.url("/")
        ),
    ];
    // PostgreSQL takes any value before the library is loaded; then it is not one.
    for statement in &statements {
        let mut client = database.connect_as(&role);
        let _ = client.batch_execute(statement);
        for load in [load_sql(&server.url("/"), "'Patient'"), "SELECT load()".into()] {
            for mut client in [database.connect_as(&role), database.connect_as(&role)] {
                let _ = client.batch_execute(statement);
                let error = client.simple_query(&load).unwrap_err();
                let state = error.code().unwrap().code();
                assert!(matches!(state, "42501" | "42883"), "{statement}: {error:?}");
            }
        }
        let _ = client.batch_execute("DROP FUNCTION IF EXISTS load()");
    }
    assert!(server.seen().is_empty());
    let mut client = database.connect_as(&role);
    assert_error(&load_fails(&mut client, &server.url("/"), "'Patient'"), "42501", &["permission denied"]);
    for statement in &statements {
        assert_error(&fails(&mut client, statement), "42501", &["fhir_bulk.allowed_sources"]);
    }
    assert_eq!(value(&mut client, "SHOW fhir_bulk.allowed_sources"), "");
    run(&mut admin, &format!("ALTER ROLE {role} RESET ALL"));
    // What a superuser set for all is enough; no right to read the server's files is needed.
    run(&mut admin, &format!("ALTER DATABASE {} SET fhir_bulk.allowed_sources = '127.0.0.1'", database.name()));
    assert_eq!(load(&mut database.connect_as(&role), &server.url("/"), "'Patient'"), TOTAL);
    let seen = server.seen().len();
    for bad in ["127.0.0.1, ftp://h", "127.0.0.1:80", "127.0.0.1, http://", "127.0.0.1/33", "127.0.0.1, a b"] {
        run(&mut admin, &format!("SET fhir_bulk.allowed_sources = '{bad}'"));
        let error = load_fails(&mut admin, &server.url("/"), "'Patient'");
        assert_error(&error, "22023", &["fhir_bulk.allowed_sources"]);
    }
    assert_eq!(server.seen().len(), seen);
}

#[test]
fn a_proxy_in_the_servers_environment_is_not_used() {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let proxy = patient_server("127.0.0.1:0");
    let variables: String = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        .iter()
        .map(|name| format!("export {name}={}\n", proxy.url("/")))
        .collect();
    let cluster = CLUSTER.get_or_init(|| Cluster::start_after(&variables, &[]));
    let database = cluster.database("proxied");
    let mut client = database.connect();
    let server = Server::answering(ok(patients(1..=5)));
    run(&mut client, "SET fhir_bulk.allowed_sources = '127.0.0.1'");
    assert_eq!(load(&mut client, &server.url("/data"), "'Patient'"), r#"{"total": 5}"#);
    assert_eq!(server.seen()[0].path, "/data");
    load_fails(&mut client, "http://no-such-host.invalid/data", "'Patient'");
    assert!(proxy.seen().is_empty());
}
