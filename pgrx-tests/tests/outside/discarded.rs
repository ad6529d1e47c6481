//! Whatever PostgreSQL caches may be dropped whenever it looks at a lock. A server with assertions can do that each time
//! (`debug_discard_caches`); elsewhere these tests run without it.

use crate::support::{count, load_sql, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database, wait_for};

/// A database whose later sessions and workers drop caches, if the server can.
fn database() -> Database {
    let database = Database::new();
    let mut client = database.connect();
    let exports = format!("file://{}", database.path("exports").display());
    run(
        &mut client,
        &format!(
            "ALTER DATABASE {0} SET fhir_bulk.export_location = '{exports}';
             ALTER DATABASE {0} SET session_preload_libraries = 'fhir_bulk'",
            database.name()
        ),
    );
    let _ = client.simple_query(&format!("ALTER DATABASE {} SET debug_discard_caches = 1", database.name()));
    database
}

/// The status of a job at its end.
fn ended(client: &mut Client, kind: &str, id: &str) -> serde_json::Value {
    // Its worker needs a minute or more; who waits for it leaves it the processor.
    run(client, "SET debug_discard_caches = 0");
    let mut status = serde_json::Value::Null;
    wait_for("the job to end", || {
        let text = value(client, &format!("SELECT bulk_{kind}_status('{id}')::text"));
        status = serde_json::from_str(&text).unwrap();
        !matches!(status["status"].as_str(), Some("active" | "pending" | "processing"))
    });
    run(client, "RESET debug_discard_caches");
    status
}

#[test]
fn loads_and_copies_write_what_they_would_with_caches() {
    let database = database();
    let mut client = database.connect();
    let (new, known) = (database.file("new", patients(1..=3)), database.file("known", patients(2..=4)));
    run(&mut client, &load_sql(&new, "'Patient'"));
    run(&mut client, &load_sql(&known, "'Patient', options => '{\"update\": true}'"));
    run(&mut client, "CREATE INDEX ON patient ((resource ->> 'birthDate'))");
    run(&mut client, &format!("COPY patient FROM '{}' (FORMAT fhir)", database.path("new").display()));
    assert_eq!(
        rows(
            &mut client,
            "SELECT id, status, (SELECT count(*) FROM patient_history h WHERE h.id = p.id) FROM patient p ORDER BY 1"
        ),
        ["p-1|updated|0", "p-2|updated|1", "p-3|updated|1", "p-4|created|0"]
    );
}

#[test]
fn dumps_and_views_return_what_they_would_with_caches() {
    let database = database();
    let mut client = database.connect();
    run(&mut client, &load_sql(&database.file("new", patients(1..=3)), "'Patient'"));
    let view = r#"{"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"}]}]}"#;
    for (sql, lines) in [
        ("bulk_dump('Patient', fhir => true)".to_owned(), 3),
        ("bulk_dump('Patient', filter => 'family=Family')".to_owned(), 3),
        ("dump_sql('SELECT id, resource FROM patient', 'ndjson')".to_owned(), 3),
        ("dump_csv('Patient')".to_owned(), 4),
        (format!("dump_view('{view}')"), 3),
    ] {
        assert_eq!(count(&mut client, &format!("SELECT count(*) FROM {sql}")), lines, "{sql}");
    }
}

#[test]
fn jobs_end_as_they_would_with_caches() {
    let database = database();
    let mut client = database.connect();
    let url = database.file("Patient.ndjson", patients(1..=3));
    let id = value(
        &mut client,
        &format!(r#"SELECT bulk_import('{{"inputs": [{{"url": "{url}", "resourceType": "Patient"}}]}}')"#),
    );
    let status = ended(&mut client, "import", &id);
    assert_eq!(status["inputs"][0]["total"], 3, "{status}");
    let id = value(&mut client, r#"SELECT bulk_export('{"_type": ["Patient"]}')"#);
    let status = ended(&mut client, "export", &id);
    assert_eq!(status["output"][0]["count"], 3, "{status}");
}
