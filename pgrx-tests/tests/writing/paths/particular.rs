//! What only some kinds of tables do to a load: refuse it, keep rows out, or have a say in it.

use super::{kind::Kind, tables};
use crate::support::{
    aidbox_tables, assert_error, assert_error_with_hint, count, fails, load, load_fails, patient, patients, rows, run,
    value,
};
use fhir_bulk_tests::{Client, Database};

const STAGED: &str = "SET fhir_bulk.write_path = 'staged'";

fn with_table(changes: &str) -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(&mut client, changes);
    (database, client)
}

const KEEP_OUT: &str = "CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF NEW.resource ->> ''multipleBirthInteger'' = ''13'' THEN RETURN NULL; END IF; RETURN NEW; END';
    CREATE TRIGGER keep_out BEFORE INSERT OR UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION keep_out()";

#[test]
fn lines_that_a_trigger_keeps_out_are_not_counted_as_stored() {
    let far = Kind::foreign("update-insert: it is a foreign table", tables::foreign_table).make();
    for (database, mut admin) in [with_table(""), with_table(STAGED), (far.database, far.admin)] {
        run(&mut admin, KEEP_OUT);
        let url = database.file("new", patients(1..=20));
        assert_eq!(load(&mut admin, &url, "'Patient'"), r#"{"total": 19}"#);
        assert_eq!(count(&mut admin, "SELECT count(*) FROM patient WHERE id <> 'p-13'"), 19);
        // A new version that is kept out: the line is not counted, the old version stays.
        let versions = patients(1..=4).replace("Family", "Other") + &patient("p-5", 13);
        let url = database.file("versions", versions);
        assert_eq!(load(&mut admin, &url, "'Patient'"), r#"{"total": 4}"#);
        assert_eq!(
            rows(&mut admin, "SELECT id FROM patient WHERE status = 'updated' ORDER BY 1"),
            ["p-1", "p-2", "p-3", "p-4"]
        );
        assert_eq!(value(&mut admin, "SELECT resource ->> 'multipleBirthInteger' FROM patient WHERE id = 'p-5'"), "5");
    }
}

#[test]
fn lines_that_a_trigger_of_a_partition_keeps_out_are_not_counted_as_stored() {
    for settings in ["", STAGED] {
        let (database, mut client) = with_table(tables::RANGE);
        run(&mut client, &(KEEP_OUT.replace("ON patient", "ON low") + ";" + settings));
        let url = database.file("new", patients(1..=20));
        assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 19}"#, "{settings}");
        let url = database.file("versions", patients(14..=15) + &patient("p-16", 13));
        for options in ["{}", r#"{"update": true}"#] {
            let answer = load(&mut client, &url, &format!("'Patient', options => '{options}'"));
            assert_eq!(answer, r#"{"total": 2}"#, "{settings} {options}");
        }
        assert_eq!(value(&mut client, "SELECT count(*), max(status) FROM patient"), "19|updated");
    }
}

#[test]
fn a_row_that_a_policy_forbids_is_an_error_and_nothing_is_loaded() {
    for settings in ["", STAGED] {
        let path = if settings.is_empty() {
            "set: row level security applies to the current role"
        } else {
            "staged: fhir_bulk.write_path asks for it"
        };
        let mut place = Kind::new(path, tables::POLICY).by_role().with(settings).make();
        let forbidden = patient("p-8500", 1).replace("1970-01-01", "1800-01-01");
        let url = place.database.file("bad", patients(1..=8400) + &forbidden + "\n" + &patients(8501..=9000));
        for options in ["{}", r#"{"update": true}"#, r#"{"on_error": "skip"}"#] {
            let arguments = format!("'Patient', options => '{options}'");
            let error = load_fails(&mut place.client, &url, &arguments);
            assert_error(&error, "42501", &["row-level security policy", "patient"]);
            assert_eq!(count(&mut place.admin, "SELECT count(*) FROM patient"), 0);
        }
        // Somebody else's row under the same id is neither replaced nor shown nor kept.
        run(
            &mut place.admin,
            "INSERT INTO patient (id, txid, status, resource, tenant) VALUES ('p-7', 1, 'created', '{\"theirs\": true}', 'theirs')",
        );
        let url = place.database.file("theirs", patients(1..=10));
        for options in ["{}", r#"{"update": true}"#] {
            let arguments = format!("'Patient', options => '{options}'");
            assert_error(&load_fails(&mut place.client, &url, &arguments), "42501", &["patient"]);
            assert_eq!(rows(&mut place.admin, "SELECT resource FROM patient"), [r#"{"theirs": true}"#]);
            assert_eq!(count(&mut place.admin, "SELECT count(*) FROM patient_history"), 0);
        }
        run(&mut place.client, "SET row_security = off");
        assert_error(&load_fails(&mut place.client, &url, "'Patient'"), "42501", &["patient"]);
    }
}

#[test]
fn replacing_needs_the_right_to_update_on_every_path() {
    for settings in ["", "SET fhir_bulk.write_path = 'set'", STAGED] {
        let (database, mut admin) = with_table("");
        load(&mut admin, &database.file("first", patients(1..=3)), "'Patient'");
        let role = database.role("inserter");
        run(
            &mut admin,
            &format!(
                "GRANT pg_read_server_files TO {role}; GRANT EXECUTE ON FUNCTION bulk_load TO {role};
                 GRANT SELECT, INSERT ON patient TO {role}; GRANT USAGE ON SEQUENCE transaction_id_seq TO {role}"
            ),
        );
        let mut client = database.connect_as(&role);
        run(&mut client, settings);
        let url = database.file("second", patients(2..=5));
        assert_error(&load_fails(&mut client, &url, "'Patient'"), "42501", &["patient"]);
        assert_eq!(count(&mut admin, "SELECT count(*) FROM patient WHERE status = 'created'"), 3, "{settings}");
        // And keeping versions needs it on the history.
        run(&mut admin, &format!("GRANT UPDATE ON patient TO {role}"));
        let error = load_fails(&mut client, &url, "'Patient', options => '{\"update\": true}'");
        assert_error(&error, "42501", &["patient_history"]);
        assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 4}"#);
    }
}

#[test]
fn errors_of_triggers_keys_and_domains_are_the_callers_and_nothing_is_loaded() {
    for (change, state) in [
        (
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN IF NEW.id = ''p-8500'' THEN RAISE EXCEPTION ''not this one'' USING ERRCODE = ''22000''; END IF; RETURN NEW; END';
             CREATE TRIGGER refuse BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION refuse()",
            "22000",
        ),
        ("CREATE TABLE tenant (id text PRIMARY KEY); ALTER TABLE patient ADD tenant text DEFAULT 'none' REFERENCES tenant", "23503"),
        ("CREATE DOMAIN short AS text CHECK (length(value) < 3); ALTER TABLE patient ADD word short DEFAULT 'lo' || 'ng'", "23514"),
        ("CREATE DOMAIN must AS text NOT NULL; ALTER TABLE patient ADD word must", "23502"),
        ("ALTER TABLE patient ADD n int GENERATED ALWAYS AS (1 / ((resource ->> 'multipleBirthInteger')::int - 8500)) STORED", "22012"),
    ] {
        for settings in ["", STAGED] {
            let (database, mut client) = with_table(change);
            run(&mut client, settings);
            let url = database.file("patients", patients(1..=9000));
            for options in ["{}", r#"{"on_error": "skip"}"#] {
                let error = load_fails(&mut client, &url, &format!("'Patient', options => '{options}'"));
                assert_error(&error, state, &[]);
                assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0, "{change}");
                assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_load_reject"), 0, "{change}");
            }
        }
    }
}

#[test]
fn a_deferred_foreign_key_is_checked_at_commit() {
    let (database, mut client) = with_table(
        "CREATE TABLE tenant (id text PRIMARY KEY);
         ALTER TABLE patient ADD tenant text DEFAULT 'late' REFERENCES tenant DEFERRABLE INITIALLY DEFERRED",
    );
    let url = database.file("patients", patients(1..=10));
    run(&mut client, "BEGIN");
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 10}"#);
    assert_error(&fails(&mut client, "COMMIT"), "23503", &["patient"]);
    run(&mut client, "BEGIN");
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 10}"#);
    run(&mut client, "INSERT INTO tenant VALUES ('late'); COMMIT");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 10);
}

#[test]
fn a_line_outside_of_a_partitions_bounds_is_an_error() {
    let mut place = Kind::new("set: it is a partition", tables::LEAF).in_schema("leaves").make();
    let url = place.database.file("bad", patients(1..=10) + &patient("q-1", 1));
    assert_error(&load_fails(&mut place.client, &url, "'Patient'"), "23514", &["patient"]);
    assert_eq!(count(&mut place.admin, "SELECT count(*) FROM parent"), 0);
    // And one for which a partitioned table has no partition.
    let (database, mut client) = with_table(tables::RANGE);
    run(&mut client, "DROP TABLE high");
    let url = database.file("bad", patients(1..=10));
    assert_error(&load_fails(&mut client, &url, "'Patient'"), "23514", &["patient"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
}

#[test]
fn views_materialized_views_and_sequences_are_named_and_refused() {
    for (change, what) in [
        ("CREATE VIEW patient AS SELECT * FROM base", "a view"),
        ("CREATE MATERIALIZED VIEW patient AS SELECT * FROM base", "a materialized view"),
    ] {
        let (database, mut client) = with_table(&format!("ALTER TABLE patient RENAME TO base; {change}"));
        let url = database.file("patients", patients(1..=3));
        for arguments in ["'Patient'", ""] {
            let error = load_fails(&mut client, &url, arguments);
            assert_error_with_hint(&error, "42809", &["patient", what]);
        }
        assert_error_with_hint(&fails(&mut client, "SELECT bulk_write_path('Patient')"), "42809", &["patient", what]);
        assert_eq!(count(&mut client, "SELECT count(*) FROM base"), 0);
    }
}

#[test]
fn a_key_that_on_conflict_cannot_use_is_refused_with_what_to_do() {
    for change in [
        "ALTER TABLE patient DROP CONSTRAINT patient_pkey",
        "ALTER TABLE patient DROP CONSTRAINT patient_pkey; ALTER TABLE patient ADD PRIMARY KEY (id) DEFERRABLE",
        "ALTER TABLE patient DROP CONSTRAINT patient_pkey; CREATE UNIQUE INDEX ON patient (id, txid)",
        "ALTER TABLE patient DROP CONSTRAINT patient_pkey; CREATE UNIQUE INDEX ON patient (lower(id))",
    ] {
        let (database, mut client) = with_table(change);
        let url = database.file("patients", patients(1..=3));
        for path in ["auto", "set", "staged"] {
            run(&mut client, &format!("SET fhir_bulk.write_path = {path}"));
            assert_error_with_hint(&load_fails(&mut client, &url, "'Patient'"), "42P10", &["patient", "id"]);
        }
        assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0, "{change}");
    }
}

#[test]
fn a_failure_on_another_server_leaves_all_of_them_as_they_were() {
    let mut place =
        Kind::foreign("update-insert: some of its partitions are foreign tables", tables::foreign_partitions).make();
    load(&mut place.client, &place.database.file("first", patients(1..=100)), "'Patient'");
    let far = crate::servers::third();
    let mut far = far.connect("postgres", place.database.name());
    run(&mut far, "ALTER TABLE far_patient ADD CHECK (resource ->> 'birthDate' <> '1800-01-01')");
    let dated = patients(1..=9000).replace("1970-01-01", "1800-01-01");
    let error = load_fails(&mut place.client, &place.database.file("bad", dated), "'Patient'");
    assert_error(&error, "23514", &["far_patient"]);
    assert_eq!(value(&mut place.admin, "SELECT count(*), bool_and(status = 'created') FROM patient"), "100|t");
    // One that is away.
    run(&mut place.admin, "ALTER SERVER third OPTIONS (SET port '1')");
    let url = place.database.file("good", patients(1..=10));
    assert_error(&load_fails(&mut place.client, &url, "'Patient'"), "08001", &["third"]);
    assert_eq!(count(&mut far, "SELECT count(*) FROM far_patient WHERE status <> 'created'"), 0);
}

#[test]
fn a_foreign_table_that_cannot_be_written_says_so() {
    let (database, mut client) = with_table(
        "DROP TABLE patient; CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
         CREATE FOREIGN TABLE patient (id text, txid bigint, ts timestamptz, resource_type text, status resource_status,
             resource jsonb) SERVER files OPTIONS (filename '/dev/null', format 'csv')",
    );
    let url = database.file("patients", patients(1..=3));
    assert_error(&load_fails(&mut client, &url, "'Patient'"), "0A000", &["patient"]);
}

#[test]
fn a_trigger_that_loads_itself_does_not_disturb_the_load_around_it() {
    let (database, mut client) = with_table("");
    let inner = database.file("inner", patients(1..=2000).replace("\"Patient\"", "\"Inner\""));
    for (number, path) in ["auto", "staged"].into_iter().enumerate() {
        run(
            &mut client,
            &format!(
                "SET fhir_bulk.write_path = {path};
                 CREATE OR REPLACE FUNCTION nested() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN PERFORM bulk_load('{inner}', 'Inner'); RETURN NULL; END $$;
                 DROP TRIGGER IF EXISTS nested ON patient;
                 CREATE TRIGGER nested AFTER INSERT ON patient FOR EACH STATEMENT EXECUTE FUNCTION nested()"
            ),
        );
        let url = database.file("outer", patients(1..=9000));
        assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 9000}"#, "{path}");
        assert_eq!(count(&mut client, "SELECT count(*) FROM \"inner\""), 2000);
        let status = if number == 0 { "created" } else { "updated" };
        assert_eq!(rows(&mut client, "SELECT status, count(*) FROM patient GROUP BY 1"), [format!("{status}|9000")]);
    }
}

#[test]
fn several_staged_loads_in_one_transaction_keep_apart() {
    let (database, mut client) = with_table(STAGED);
    let both = database.file("both", patients(1..=10) + &patients(1..=5).replace("\"Patient\"", "\"Inner\""));
    run(&mut client, "BEGIN");
    for _ in 0..3 {
        assert_eq!(load(&mut client, &both, ""), r#"{"Inner": 5, "Patient": 10}"#);
    }
    run(&mut client, "SAVEPOINT s");
    let bad = database.file("bad", patients(1..=10) + "{");
    assert_error(&load_fails(&mut client, &bad, "'Patient'"), "22P02", &["line 11"]);
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(load(&mut client, &both, ""), r#"{"Inner": 5, "Patient": 10}"#);
    run(&mut client, "COMMIT");
    assert_eq!(value(&mut client, "SELECT count(*), bool_and(status = 'updated') FROM patient"), "10|t");
    let temporary = "SELECT count(*) FROM pg_class WHERE relname LIKE 'fhir\\_bulk\\_stage%'";
    assert_eq!(count(&mut client, temporary), 0);
}

#[test]
fn the_write_path_is_told_only_to_who_may_ask_and_only_of_tables() {
    let (database, mut client) = with_table("");
    assert_error_with_hint(&fails(&mut client, "SELECT bulk_write_path('Nothing')"), "42P01", &["Nothing"]);
    assert_error(&fails(&mut client, "SELECT bulk_write_path(NULL)"), "22004", &["resource_type"]);
    assert_error_with_hint(&fails(&mut client, "SELECT bulk_write_path('not a type')"), "22023", &["not a type"]);
    assert_error(&fails(&mut client, "SET fhir_bulk.write_path = 'other'"), "22023", &["fhir_bulk.write_path"]);
    let role = database.role("other");
    let mut other = database.connect_as(&role);
    assert_error(&fails(&mut other, "SELECT bulk_write_path('Patient')"), "42501", &["bulk_write_path"]);
}

#[test]
fn columns_that_table_and_history_both_have_go_with_a_replaced_version() {
    let (database, mut client) = with_table(
        "ALTER TABLE patient ADD COLUMN tenant text NOT NULL DEFAULT 'one', ADD COLUMN \"Odd, name\" int DEFAULT 7,
             ADD COLUMN only_here int DEFAULT 1, ADD COLUMN of_two_types int DEFAULT 2,
             ADD COLUMN length int GENERATED ALWAYS AS (length(id)) STORED;
         ALTER TABLE patient_history ADD COLUMN of_two_types text, ADD COLUMN \"Odd, name\" int, ADD COLUMN tenant text,
             ADD COLUMN length int, ADD COLUMN only_there text DEFAULT 'there',
             ADD COLUMN number int GENERATED ALWAYS AS IDENTITY",
    );
    let url = database.file("patients", patients(1..=3));
    load(&mut client, &url, "'Patient'");
    run(&mut client, "UPDATE patient SET tenant = 'two' WHERE id = 'p-2'");
    let url = database.file("versions", patients(1..=3).replace("Family", "Other"));
    load(&mut client, &url, r#"'Patient', options => '{"update": true}'"#);
    assert_eq!(
        rows(
            &mut client,
            "SELECT id, tenant, \"Odd, name\", of_two_types, length, only_there FROM patient_history ORDER BY 1"
        ),
        ["p-1|one|7|∅|3|there", "p-2|two|7|∅|3|there", "p-3|one|7|∅|3|there"]
    );
}

#[test]
fn a_trigger_may_keep_versions_out_of_the_history_and_a_number_that_is_taken_is_still_told() {
    let (database, mut client) = with_table(
        "CREATE FUNCTION not_two() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF NEW.id = ''p-2'' THEN RETURN NULL; END IF; RETURN NEW; END';
         CREATE TRIGGER not_two BEFORE INSERT ON patient_history FOR EACH ROW EXECUTE FUNCTION not_two()",
    );
    let update = r#"'Patient', options => '{"update": true}'"#;
    load(&mut client, &database.file("patients", patients(1..=3)), update);
    let url = database.file("versions", patients(1..=3).replace("Family", "Other"));
    assert_eq!(load(&mut client, &url, update), r#"{"total": 3}"#);
    assert_eq!(rows(&mut client, "SELECT id FROM patient_history ORDER BY 1"), ["p-1", "p-3"]);
    run(
        &mut client,
        "INSERT INTO patient_history (id, txid, ts, status, resource) SELECT id, txid, '2000-01-01', 'created', '{}'
         FROM patient WHERE id = 'p-3'",
    );
    assert_error_with_hint(&load_fails(&mut client, &url, update), "23505", &["of p-3 cannot be kept"]);
}

#[test]
fn a_trigger_may_rely_on_the_key_of_a_table_that_the_same_load_has_made() {
    let (database, mut client) = with_table(
        "CREATE FUNCTION count_in() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF to_regclass('observation') IS NOT NULL THEN
                 EXECUTE 'INSERT INTO observation (id, txid, status, resource) VALUES ($1, 1, ''created'', ''{}'')
                     ON CONFLICT (id) DO UPDATE SET resource = ''{\"again\": true}''' USING NEW.id;
             END IF;
             IF to_regclass('encounter') IS NOT NULL THEN
                 EXECUTE 'INSERT INTO encounter (id, txid, status, resource) VALUES ($1, 1, ''created'', ''{}'')
                     ON CONFLICT (id) DO NOTHING' USING NEW.id;
             END IF; RETURN NEW; END $$;
         CREATE TRIGGER count_in BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION count_in()",
    );
    let line = |name: &str, id: &str| format!("{{\"resourceType\":\"{name}\",\"id\":\"{id}\",\"status\":\"final\"}}\n");
    // One table is made before there is a table with triggers, one after.
    let lines = [
        line("Observation", "p-1"),
        line("Patient", "p-1"),
        line("Encounter", "p-1"),
        line("Observation", "o-2"),
        line("Patient", "p-2"),
    ];
    let url = database.file("mixed", lines.concat());
    let answer = load(&mut client, &url, "");
    assert_eq!(answer, r#"{"Patient": 2, "Encounter": 1, "Observation": 2}"#);
    assert_eq!(
        rows(&mut client, "SELECT id, resource FROM observation ORDER BY 1"),
        [r#"o-2|{"status": "final"}"#, r#"p-1|{"again": true}"#, "p-2|{}"]
    );
    let keys = "SELECT count(*) FROM pg_index WHERE indrelid = 'observation'::regclass AND indisprimary";
    assert_eq!(count(&mut client, keys), 1);
    assert_eq!(count(&mut client, "SELECT count(*) FROM encounter"), 2);
}

#[test]
fn who_makes_a_table_can_number_its_rows_and_reads_them_whatever_their_status_is_made_of() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient');
         INSERT INTO patient (id, txid, status, resource) VALUES ('a', nextval('transaction_id_seq'), 'created', '{}'),
             ('b', nextval('transaction_id_seq'), 'deleted', '{}')",
    );
    run(&mut client, tables::STATUS_OF_DOMAIN);
    assert_eq!(count(&mut client, "SELECT count(*) FROM (SELECT bulk_dump('Patient')) AS dump"), 1);
}
