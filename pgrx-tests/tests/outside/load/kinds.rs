//! Tables that rows may not be put into directly are refused; nothing is lost in silence.

use crate::support::{aidbox_tables, assert_error, assert_error_with_hint, count, load, load_fails, patients, run};
use fhir_bulk_tests::{Client, Database};

const LAYOUT: &str = "(id text, txid bigint NOT NULL, cts timestamptz, ts timestamptz, resource_type text,
    status resource_status NOT NULL, resource jsonb NOT NULL";

fn refused(statements: &str) -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(&mut client, statements);
    let url = database.file("patients", patients(1..=3));
    for arguments in ["'Patient'", ""] {
        let error = load_fails(&mut client, &url, arguments);
        assert_error_with_hint(&error, "0A000", &["patient"]);
    }
    (database, client)
}

#[test]
fn triggers_of_any_kind_are_not_passed_by() {
    for kind in [
        "BEFORE INSERT ON patient FOR EACH ROW",
        "AFTER INSERT ON patient FOR EACH ROW",
        "AFTER INSERT ON patient FOR EACH STATEMENT",
        "AFTER UPDATE ON patient FOR EACH ROW",
    ] {
        let (_database, mut client) = refused(&format!(
            "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER seen {kind} EXECUTE FUNCTION seen()"
        ));
        assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0, "{kind}");
    }
}

#[test]
fn foreign_keys_are_not_passed_by() {
    let (_database, mut client) = refused(
        "CREATE TABLE tenant (id text PRIMARY KEY); ALTER TABLE patient ADD COLUMN tenant text DEFAULT 'none' REFERENCES tenant",
    );
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
}

#[test]
fn a_deferrable_key_that_on_conflict_could_not_use_is_refused() {
    let (_database, mut client) = refused(
        "ALTER TABLE patient DROP CONSTRAINT patient_pkey; ALTER TABLE patient ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED",
    );
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
}

#[test]
fn generated_columns_domains_and_rules_are_not_passed_by() {
    for change in [
        "ALTER TABLE patient ADD COLUMN family text GENERATED ALWAYS AS (resource #>> '{name,0,family}') STORED",
        "CREATE DOMAIN short AS text CHECK (length(value) < 3); ALTER TABLE patient ADD COLUMN s short",
        "CREATE RULE also AS ON INSERT TO patient DO ALSO NOTIFY patients",
        "CREATE RULE no AS ON INSERT TO patient DO INSTEAD NOTHING",
    ] {
        let (_database, mut client) = refused(change);
        assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0, "{change}");
    }
}

#[test]
fn partitioned_tables_and_their_partitions_are_refused() {
    let (_database, mut client) = refused(&format!(
        "DROP TABLE patient; CREATE TABLE patient {LAYOUT}, PRIMARY KEY (id)) PARTITION BY HASH (id);
         CREATE TABLE patient_0 PARTITION OF patient FOR VALUES WITH (modulus 1, remainder 0)"
    ));
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
    // The partition itself, under a type's name: rows could go where its bounds do not allow them.
    let (_database, mut client) = refused(&format!(
        "DROP TABLE patient; CREATE TABLE parent {LAYOUT}, PRIMARY KEY (id)) PARTITION BY LIST (id);
         CREATE TABLE patient PARTITION OF parent FOR VALUES IN ('only-this')"
    ));
    assert_eq!(count(&mut client, "SELECT count(*) FROM parent"), 0);
}

#[test]
fn views_and_materialized_views_are_refused() {
    for view in ["VIEW", "MATERIALIZED VIEW"] {
        let (_database, mut client) =
            refused(&format!("ALTER TABLE patient RENAME TO base; CREATE {view} patient AS SELECT * FROM base"));
        assert_eq!(count(&mut client, "SELECT count(*) FROM base"), 0);
    }
}

#[test]
fn a_foreign_table_is_refused_and_the_far_table_stays_empty() {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    let name = database.name();
    let dsn = database.cluster().dsn("postgres", name);
    let part = |key: &str| dsn.split(' ').find_map(|p| p.strip_prefix(&format!("{key}="))).unwrap().to_owned();
    run(
        &mut client,
        &format!(
            "CREATE EXTENSION postgres_fdw; CREATE EXTENSION file_fdw;
             CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', port '{}', dbname '{name}');
             CREATE USER MAPPING FOR postgres SERVER far OPTIONS (user 'postgres');
             ALTER TABLE patient RENAME TO real_patient;
             CREATE FOREIGN TABLE patient {LAYOUT}) SERVER far OPTIONS (table_name 'real_patient');
             CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
             CREATE FOREIGN TABLE practitioner {LAYOUT}) SERVER files OPTIONS (filename '/dev/null', format 'csv')",
            part("host"),
            part("port")
        ),
    );
    let url = database.file("patients", patients(1..=3));
    assert_error_with_hint(&load_fails(&mut client, &url, "'Patient'"), "0A000", &["patient"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM real_patient"), 0);
    let url = database.file("practitioners", "{\"id\":\"1\"}\n");
    assert_error_with_hint(&load_fails(&mut client, &url, "'Practitioner'"), "0A000", &["practitioner"]);
    // Reading through it works.
    run(&mut client, "INSERT INTO real_patient (id, txid, status, resource) VALUES ('far', 1, 'created', '{}')");
    assert_eq!(crate::support::rows(&mut client, "SELECT bulk_dump('Patient')::json ->> 'id'"), ["far"]);
}

#[test]
fn one_refused_table_among_good_ones_loads_nothing_at_all() {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient", "Observation"]);
    run(&mut client, "CREATE RULE no AS ON INSERT TO observation DO INSTEAD NOTHING");
    let url = database.file("mixed", patients(1..=2500) + "{\"id\":\"1\",\"resourceType\":\"Observation\"}\n");
    let error = load_fails(&mut client, &url, "");
    assert_error(&error, "0A000", &["observation"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
}

#[test]
fn inheritance_children_load_like_plain_tables() {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Resource"]);
    run(&mut client, "CREATE TABLE patient (PRIMARY KEY (id)) INHERITS (resource)");
    let url = database.file("patients", patients(1..=3));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 3}"#);
    assert_eq!(count(&mut client, "SELECT count(*) FROM ONLY patient"), 3);
    assert_eq!(count(&mut client, "SELECT count(*) FROM resource"), 3);
}

#[test]
fn a_disabled_trigger_or_one_for_replicas_only_does_not_let_rows_slip_past_later_rules() {
    // Whether it is refused or loaded: never loaded without what an INSERT would do.
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(
        &mut client,
        "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''seen''; END';
         CREATE TRIGGER seen BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION seen();
         ALTER TABLE patient ENABLE ALWAYS TRIGGER seen; SET session_replication_role = replica",
    );
    let url = database.file("patients", patients(1..=3));
    let error = load_fails(&mut client, &url, "'Patient'");
    assert_error(&error, "0A000", &["patient"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
}
