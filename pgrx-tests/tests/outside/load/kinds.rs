//! Tables of every kind: a load has the same effects as INSERT and UPDATE, and no row is lost without an error.

use crate::support::{
    aidbox_tables, assert_error, assert_error_with_hint, count, load, load_fails, patient, patients, rows, run,
};
use fhir_bulk_tests::{Client, Database};

const LAYOUT: &str = "(id text, txid bigint NOT NULL, cts timestamptz, ts timestamptz, resource_type text,
    status resource_status NOT NULL, resource jsonb NOT NULL";

fn with_table(statements: &str) -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(&mut client, "SELECT setval('transaction_id_seq', 100)");
    run(&mut client, statements);
    (database, client)
}

/// Loads 2,500 patients of which 500 come twice, then all again: the same rows as in a plain table.
fn assert_loads_as_a_plain_table(database: &Database, client: &mut Client) {
    let url = database.file("patients", patients(1..=2500).replace("Family", "First") + &patients(1..=500));
    assert_eq!(load(client, &url, "'Patient'"), r#"{"total": 3000}"#);
    let state = "SELECT status, left(resource #>> '{name,0,family}', 5), count(*), count(DISTINCT txid), bool_and(cts IS NOT NULL) FROM patient GROUP BY 1, 2 ORDER BY 1, 2";
    assert_eq!(rows(client, state), ["created|Famil|500|1|t", "created|First|2000|1|t"]);
    assert_eq!(load(client, &url, ""), r#"{"Patient": 3000}"#);
    assert_eq!(rows(client, state), ["updated|Famil|500|1|t", "updated|First|2000|1|t"]);
    run(client, "UPDATE patient SET status = 'deleted' WHERE id = 'p-7'");
    let url = database.file("again", patient("p-7", 8));
    assert_eq!(load(client, &url, "'Patient'"), r#"{"total": 1}"#);
    assert_eq!(
        rows(client, "SELECT status, resource ->> 'multipleBirthInteger' FROM patient WHERE id = 'p-7'"),
        ["recreated|8"]
    );
    assert_eq!(rows(client, "SELECT bulk_dump('Patient')").len(), 2500);
    let url = database.file("bad", patients(1..=3000) + "{broken\n");
    let before = rows(client, "SELECT * FROM patient ORDER BY id");
    assert_error(&load_fails(client, &url, "'Patient'"), "22P02", &["line 3001 "]);
    assert_eq!(rows(client, "SELECT * FROM patient ORDER BY id"), before);
}

#[test]
fn audit_triggers_see_each_insert_and_update() {
    let (database, mut client) = with_table(
        "CREATE TABLE audit (op text, id text);
         CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN INSERT INTO public.audit VALUES (tg_op, NEW.id); RETURN NEW; END $$;
         CREATE TRIGGER audit AFTER INSERT OR UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION audit()",
    );
    assert_loads_as_a_plain_table(&database, &mut client);
    assert_eq!(count(&mut client, "SELECT count(DISTINCT id) FROM audit WHERE op = 'INSERT'"), 2500);
    assert_eq!(count(&mut client, "SELECT count(DISTINCT id) FROM audit WHERE op = 'UPDATE'"), 2500);
}

#[test]
fn a_before_trigger_changes_what_is_stored_and_its_error_ends_the_load() {
    let (database, mut client) = with_table(
        "ALTER TABLE patient ADD COLUMN tenant text;
         CREATE FUNCTION set_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
             IF NEW.resource ->> 'multipleBirthInteger' = '13000' THEN RAISE EXCEPTION 'unlucky'; END IF;
             NEW.tenant := 'by trigger'; RETURN NEW;
           END $$;
         CREATE TRIGGER set_tenant BEFORE INSERT OR UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION set_tenant()",
    );
    assert_loads_as_a_plain_table(&database, &mut client);
    assert_eq!(rows(&mut client, "SELECT DISTINCT tenant FROM patient"), ["by trigger"]);
    let url = database.file("unlucky", patients(12_000..=14_000));
    assert_error(&load_fails(&mut client, &url, "'Patient'"), "P0001", &["unlucky"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 2500);
}

#[test]
fn a_triggers_own_sqlstate_detail_and_hint_reach_the_client() {
    let (database, mut client) = with_table(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'restrict_violation', DETAIL = 'the detail', HINT = 'the hint'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let error = load_fails(&mut client, &database.file("patients", patients(1..=3)), "'Patient'");
    assert_error(&error, "23001", &["refused"]);
    assert_eq!((error.detail(), error.hint()), (Some("the detail"), Some("the hint")));
}

#[test]
fn statement_triggers_and_transition_tables_see_the_rows() {
    let (database, mut client) = with_table(
        "CREATE TABLE seen (n bigint);
         CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN INSERT INTO public.seen SELECT count(*) FROM new_rows; RETURN NULL; END $$;
         CREATE TRIGGER seen AFTER INSERT ON patient REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION seen()",
    );
    assert_loads_as_a_plain_table(&database, &mut client);
    assert_eq!(count(&mut client, "SELECT sum(n) FROM seen"), 2500);
}

#[test]
fn foreign_keys_hold_in_both_directions() {
    let (database, mut client) = with_table(
        "CREATE TABLE tenant (id text PRIMARY KEY); INSERT INTO tenant VALUES ('t');
         ALTER TABLE patient ADD COLUMN tenant text DEFAULT 't' REFERENCES tenant;
         CREATE TABLE pointer (patient text REFERENCES patient)",
    );
    assert_loads_as_a_plain_table(&database, &mut client);
    run(&mut client, "ALTER TABLE patient ALTER COLUMN tenant SET DEFAULT 'absent'");
    let url = database.file("more", patients(9000..=9100));
    assert_error(&load_fails(&mut client, &url, "'Patient'"), "23503", &["patient"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 2500);
}

#[test]
fn generated_columns_are_computed_and_domains_checked() {
    let (database, mut client) = with_table(
        "CREATE DOMAIN short AS text DEFAULT 'ok' CHECK (length(value) < 3);
         ALTER TABLE patient ADD COLUMN family text GENERATED ALWAYS AS (resource #>> '{name,0,family}') STORED, ADD COLUMN s short",
    );
    assert_loads_as_a_plain_table(&database, &mut client);
    assert_eq!(
        rows(&mut client, "SELECT bool_and(family = resource #>> '{name,0,family}'), min(s) FROM patient"),
        ["t|ok"]
    );
    run(&mut client, "ALTER TABLE patient ALTER COLUMN s SET DEFAULT 'too long'");
    let url = database.file("more", patients(9000..=9100));
    assert_error(&load_fails(&mut client, &url, "'Patient'"), "23514", &["short"]);
}

#[test]
fn rows_of_a_partitioned_table_go_to_their_partitions() {
    let (database, mut client) = with_table(&format!(
        "DROP TABLE patient; CREATE TABLE patient {LAYOUT}, PRIMARY KEY (id)) PARTITION BY HASH (id);
         CREATE TABLE patient_0 PARTITION OF patient FOR VALUES WITH (modulus 3, remainder 0);
         CREATE TABLE patient_1 PARTITION OF patient FOR VALUES WITH (modulus 3, remainder 1);
         CREATE TABLE patient_2 PARTITION OF patient FOR VALUES WITH (modulus 3, remainder 2)"
    ));
    assert_loads_as_a_plain_table(&database, &mut client);
    for partition in 0..3 {
        let of_partition = format!(
            "SELECT count(*) FROM patient_{partition} WHERE satisfies_hash_partition('patient'::regclass, 3, {partition}, id)"
        );
        assert_eq!(
            count(&mut client, &of_partition),
            count(&mut client, &format!("SELECT count(*) FROM patient_{partition}"))
        );
        assert!(count(&mut client, &of_partition) > 600);
    }
    // A row that no partition takes.
    run(&mut client, "DROP TABLE patient_2");
    let url = database.file("more", patients(9000..=9100));
    assert_error(&load_fails(&mut client, &url, "'Patient'"), "23514", &["patient"]);
}

#[test]
fn a_partition_under_a_types_name_takes_only_what_its_bounds_allow() {
    let (database, mut client) = with_table(&format!(
        "DROP TABLE patient; CREATE TABLE parent {LAYOUT}, PRIMARY KEY (id)) PARTITION BY LIST (id);
         CREATE TABLE patient PARTITION OF parent FOR VALUES IN ('p-1', 'p-2')"
    ));
    let good = database.file("good", patients(1..=2));
    assert_eq!(load(&mut client, &good, "'Patient'"), r#"{"total": 2}"#);
    let bad = database.file("bad", patients(1..=3));
    assert_error(&load_fails(&mut client, &bad, "'Patient'"), "23514", &["patient"]);
    assert_eq!(rows(&mut client, "SELECT id, status FROM parent ORDER BY 1"), ["p-1|created", "p-2|created"]);
}

#[test]
fn views_are_refused() {
    for change in [
        "ALTER TABLE patient RENAME TO base; CREATE VIEW patient AS SELECT * FROM base",
        "ALTER TABLE patient RENAME TO base; CREATE MATERIALIZED VIEW patient AS SELECT * FROM base",
    ] {
        let (database, mut client) = with_table(change);
        let url = database.file("patients", patients(1..=3));
        for arguments in ["'Patient'", ""] {
            assert_error(&load_fails(&mut client, &url, arguments), "42809", &["patient"]);
        }
    }
}

#[test]
fn rules_are_followed_and_rows_they_swallow_are_not_counted_as_stored() {
    let (database, mut client) = with_table(
        "CREATE TABLE log (id text); CREATE RULE also AS ON INSERT TO patient DO ALSO INSERT INTO log VALUES (NEW.id)",
    );
    let url = database.file("patients", patients(1..=2500));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 2500}"#);
    assert_eq!(
        rows(&mut client, "SELECT (SELECT count(*) FROM patient), (SELECT count(DISTINCT id) FROM log)"),
        ["2500|2500"]
    );
    let (database, mut client) = with_table("CREATE RULE no AS ON INSERT TO patient DO INSTEAD NOTHING");
    let url = database.file("patients", patients(1..=3));
    let answer = client.simple_query(&crate::support::load_sql(&url, "'Patient'"));
    if let Ok(messages) = &answer {
        assert!(!format!("{messages:?}").contains("\"total\": 3"), "three lines were stored nowhere: {messages:?}");
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
}

#[test]
fn rows_of_a_foreign_table_arrive_at_the_far_one() {
    let (database, mut client) = with_table("");
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
             CREATE FOREIGN TABLE patient {LAYOUT}) SERVER far OPTIONS (table_name 'real_patient', batch_size '500');
             CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
             CREATE FOREIGN TABLE practitioner {LAYOUT}) SERVER files OPTIONS (filename '/dev/null', format 'csv')",
            part("host"),
            part("port")
        ),
    );
    assert_loads_as_a_plain_table(&database, &mut client);
    assert_eq!(count(&mut client, "SELECT count(*) FROM real_patient"), 2500);
    // A wrapper that cannot write says so.
    let url = database.file("practitioners", "{\"id\":\"1\"}\n");
    assert_error(&load_fails(&mut client, &url, "'Practitioner'"), "0A000", &["practitioner"]);
}

#[test]
fn one_refused_table_among_good_ones_loads_nothing_at_all() {
    let (database, mut client) = with_table("CREATE VIEW observation AS SELECT * FROM patient");
    let url = database.file("mixed", patients(1..=2500) + "{\"id\":\"1\",\"resourceType\":\"Observation\"}\n");
    assert_error_with_hint(&load_fails(&mut client, &url, ""), "42809", &["observation"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
}

#[test]
fn inheritance_children_load_like_plain_tables() {
    let (database, mut client) =
        with_table("ALTER TABLE patient RENAME TO parent; CREATE TABLE patient (PRIMARY KEY (id)) INHERITS (parent)");
    assert_loads_as_a_plain_table(&database, &mut client);
    assert_eq!(count(&mut client, "SELECT count(*) FROM ONLY parent"), 0);
    assert_eq!(count(&mut client, "SELECT count(*) FROM parent"), 2500);
}

#[test]
fn a_trigger_that_fires_always_fires_in_a_session_that_replays() {
    let (database, mut client) = with_table(
        "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''seen''; END';
         CREATE TRIGGER seen BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION seen();
         ALTER TABLE patient ENABLE ALWAYS TRIGGER seen; SET session_replication_role = replica",
    );
    let url = database.file("patients", patients(1..=3));
    assert_error(&load_fails(&mut client, &url, "'Patient'"), "P0001", &["seen"]);
    run(&mut client, "ALTER TABLE patient ENABLE TRIGGER seen");
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 3}"#);
}

#[test]
fn a_deferrable_key_is_refused_as_on_conflict_would_refuse_it() {
    let (database, mut client) = with_table(
        "ALTER TABLE patient DROP CONSTRAINT patient_pkey; ALTER TABLE patient ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED",
    );
    let url = database.file("patients", patients(1..=3));
    assert_error_with_hint(&load_fails(&mut client, &url, "'Patient'"), "42P10", &["patient", "id"]);
}
