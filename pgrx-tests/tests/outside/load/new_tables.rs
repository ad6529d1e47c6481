//! Tables that a load creates.

use crate::support::{
    assert_error, assert_error_with_hint, count, fails, load, load_fails, patient, patients, relations, rows, run,
    value,
};
use fhir_bulk_tests::Database;

const COLUMNS: &str = "SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attnum > 0 AND attrelid = ";

#[test]
fn the_first_load_makes_the_tables_as_aidbox_lays_them_out() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("patients", patients(1..=3));
    load(&mut client, &url, "'Patient'");
    assert_eq!(
        relations(&mut client),
        [
            "public|patient|r",
            "public|patient_history|r",
            "public|patient_history_pkey|i",
            "public|patient_pkey|i",
            "public|transaction_id_seq|S"
        ]
    );
    for table in ["patient", "patient_history"] {
        assert_eq!(
            rows(&mut client, &format!("{COLUMNS} '{table}'::regclass ORDER BY attnum")),
            [
                "id|text|t|∅",
                "txid|bigint|t|∅",
                "cts|timestamp with time zone|f|CURRENT_TIMESTAMP",
                "ts|timestamp with time zone|f|CURRENT_TIMESTAMP",
                "resource_type|text|f|'Patient'::text",
                "status|resource_status|t|∅",
                "resource|jsonb|t|∅"
            ],
            "{table}"
        );
        let compression = format!(
            "SELECT attcompression = CASE WHEN 'lz4' = ANY (enumvals) THEN 'l' ELSE '' END FROM pg_attribute, pg_settings
             WHERE attrelid = '{table}'::regclass AND attname = 'resource' AND name = 'default_toast_compression'"
        );
        assert_eq!(value(&mut client, &compression), "t", "lz4, where the server has it");
    }
    assert_eq!(
        rows(
            &mut client,
            "SELECT conrelid::regclass, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'p' AND conrelid::regclass::text LIKE 'patient%' ORDER BY 1"
        ),
        ["patient|PRIMARY KEY (id)", "patient_history|PRIMARY KEY (id, txid)"]
    );
    assert_eq!(value(&mut client, "SELECT enum_range(NULL::resource_status)"), "{created,updated,deleted,recreated}");
}

/// Lines whose ids repeat, near and far, each with a number of its own.
fn repeating() -> String {
    (0..9000).map(|n| patient(&format!("p-{}", n % 2500), n) + "\n").collect::<String>() + &patient("once", 9000)
}

#[test]
fn of_a_first_load_that_repeats_ids_the_last_lines_stay_and_the_key_holds() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SET fhir_bulk.identifier_index = on; BEGIN; SAVEPOINT s");
    let url = database.file("repeating", repeating());
    for options in ["", "'Patient', options => '{\"update\": true}'"] {
        assert!(load(&mut client, &url, options).contains("9001"));
        assert_eq!(
            value(
                &mut client,
                "SELECT count(*), count(DISTINCT id), min((resource ->> 'multipleBirthInteger')::int),
                 bool_and(status = 'created' AND cts = now() AND ts = now()), (SELECT count(*) FROM patient_history) FROM patient"
            ),
            "2501|2501|6500|t|0"
        );
        assert_eq!(rows(&mut client, "SELECT * FROM verify_heapam('patient')"), [""; 0]);
        assert_eq!(value(&mut client, "SELECT bt_index_check('patient_pkey', true)"), "");
        assert_eq!(
            value(&mut client, "SELECT count(*) FROM pg_index WHERE indrelid = 'patient'::regclass AND indisvalid"),
            "2",
            "the key and the index on identifiers"
        );
        run(&mut client, "ROLLBACK TO s");
        assert_eq!(value(&mut client, "SELECT to_regclass('patient') IS NULL"), "t");
    }
    load(&mut client, &url, "");
    run(&mut client, "COMMIT");
    assert_eq!(load(&mut client, &database.file("one", patient("p-7", 1)), "'Patient'"), r#"{"total": 1}"#);
    run(&mut client, "SET enable_seqscan = off");
    assert_eq!(value(&mut client, "SELECT status FROM patient WHERE id = 'p-7'"), "updated");
}

/// Parallel workers help to build a key of many rows.
#[test]
fn of_a_first_load_of_many_rows_that_repeat_ids_the_last_lines_stay_as_well() {
    let database = Database::new();
    let mut client = database.connect();
    let lines: String = (0..250_000).map(|n| format!("{{\"id\":\"m-{}\",\"n\":{n}}}\n", n % 240_000)).collect();
    let url = database.file("many", lines);
    assert_eq!(load(&mut client, &url, "'Sample'"), r#"{"total": 250000}"#);
    assert_eq!(
        value(&mut client, "SELECT count(*), count(DISTINCT id), min((resource ->> 'n')::int) FROM sample"),
        "240000|240000|10000"
    );
    assert_eq!(value(&mut client, "SELECT bt_index_check('sample_pkey', true)"), "");
    assert_eq!(value(&mut client, "SELECT reloptions IS NULL FROM pg_class WHERE oid = 'sample'::regclass"), "t");
}

/// `Sample`, `sample` and `SAMPLE` are three types and one table.
#[test]
fn of_types_that_share_a_table_the_last_line_of_an_id_wins_as_well() {
    let database = Database::new();
    let mut client = database.connect();
    let line = |name: &str, n: usize| format!("{{\"resourceType\":\"{name}\",\"id\":\"{}\",\"n\":{n}}}\n", n % 10);
    let lines: String = (0..45).map(|n| line(["Sample", "sample", "SAMPLE"][n % 3], n)).collect();
    let url = database.file("spelled", lines);
    for _ in 0..2 {
        assert_eq!(load(&mut client, &url, ""), r#"{"SAMPLE": 15, "Sample": 15, "sample": 15}"#);
        assert_eq!(
            rows(
                &mut client,
                "SELECT resource_type, array_agg((resource ->> 'n')::int ORDER BY id) FROM sample GROUP BY resource_type ORDER BY resource_type COLLATE \"C\""
            ),
            ["SAMPLE|{41,44,35,38}", "Sample|{42,36,39}", "sample|{40,43,37}"]
        );
    }
}

#[test]
fn who_is_told_of_new_tables_is_told_of_their_keys() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE told (name text, keys bigint);
         CREATE FUNCTION tell() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO told SELECT object_identity, (SELECT count(*) FROM pg_constraint WHERE conrelid = objid AND contype = 'p')
            FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE'; END $$;
         CREATE EVENT TRIGGER tell ON ddl_command_end EXECUTE FUNCTION tell()",
    );
    load(&mut client, &database.file("repeating", repeating()), "'Patient'");
    assert_eq!(rows(&mut client, "SELECT * FROM told ORDER BY 1"), ["public.patient|1", "public.patient_history|1"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 2501);
}

#[test]
fn an_event_trigger_may_make_of_a_new_table_what_it_likes() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE FUNCTION guard() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            IF to_regclass('patient') IS NOT NULL THEN
                ALTER TABLE patient ADD COLUMN IF NOT EXISTS length int GENERATED ALWAYS AS (length(resource::text)) STORED;
            END IF; END $$;
         CREATE EVENT TRIGGER guard ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION guard()",
    );
    load(&mut client, &database.file("repeating", repeating()), "'Patient'");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient WHERE length = length(resource::text)"), 2501);
}

#[test]
fn bulk_create_table_makes_the_same_and_is_safe_to_call_twice() {
    let database = Database::new();
    let mut client = database.connect();
    for name in ["Patient", "Group", "Individual", "patient", &format!("A{}", "b".repeat(54))] {
        let made = value(&mut client, &format!("SELECT bulk_create_table('{name}')"));
        assert_eq!(made.trim_matches('"'), name.to_lowercase());
        assert_eq!(
            value(
                &mut client,
                &format!("SELECT bulk_create_table('{name}') = '\"{}\"'::regclass", name.to_lowercase())
            ),
            "t"
        );
        assert_eq!(
            value(&mut client, &format!("SELECT to_regclass('\"{}_history\"') IS NOT NULL", name.to_lowercase())),
            "t"
        );
    }
    assert_eq!(value(&mut client, "SELECT pg_typeof(bulk_create_table('Patient'))"), "regclass");
    for name in ["no such;type", "", "1a", "a_b", &"A".repeat(56)] {
        assert_error_with_hint(&fails(&mut client, &format!("SELECT bulk_create_table('{name}')")), "22023", &[]);
    }
    assert_error(&fails(&mut client, "SELECT bulk_create_table(NULL)"), "22004", &["resource_type"]);
}

#[test]
fn reserved_words_and_long_names_load_and_come_back() {
    let database = Database::new();
    let mut client = database.connect();
    let long = format!("L{}", "x".repeat(54));
    for name in ["Group", "User", "Table", "Select", "Individual", &long] {
        let url = database.file("lines", format!("{{\"resourceType\":\"{name}\",\"id\":\"1\"}}\n"));
        assert_eq!(load(&mut client, &url, ""), format!("{{\"{name}\": 1}}"));
        assert_eq!(load(&mut client, &url, &format!("'{name}'")), r#"{"total": 1}"#);
        assert_eq!(rows(&mut client, &format!("SELECT bulk_dump('{name}')::json ->> 'resourceType'")), [name]);
    }
}

#[test]
fn dropping_the_extension_leaves_all_data_alone() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("patients", patients(1..=3));
    run(&mut client, "DROP EXTENSION fhir_bulk; CREATE EXTENSION fhir_bulk");
    load(&mut client, &url, "'Patient'");
    run(&mut client, "SELECT bulk_create_table('Group')");
    let members = "SELECT pg_describe_object(classid, objid, 0) FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
        AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'fhir_bulk')";
    let taken = "patient|group|resource_status|transaction_id_seq";
    assert_eq!(rows(&mut client, &format!("SELECT * FROM ({members}) AS m(name) WHERE name ~ '{taken}'")), [""; 0]);
    run(&mut client, "DROP EXTENSION fhir_bulk");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 3);
    assert_eq!(
        value(
            &mut client,
            "SELECT to_regclass('\"group\"') IS NOT NULL AND to_regclass('transaction_id_seq') IS NOT NULL"
        ),
        "t"
    );
    run(&mut client, "CREATE EXTENSION fhir_bulk");
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 3}"#);
    assert_eq!(rows(&mut client, "SELECT DISTINCT status FROM patient"), ["updated"]);
}

#[test]
fn tables_enum_and_sequence_are_made_in_data_schema_and_belong_to_the_caller() {
    let database = Database::new();
    let mut client = database.connect();
    let role = database.role("owner");
    run(
        &mut client,
        &format!(
            "CREATE SCHEMA \"my \"\"data\"; GRANT ALL ON SCHEMA \"my \"\"data\" TO {role}; GRANT pg_read_server_files TO {role};
             GRANT EXECUTE ON FUNCTION bulk_load, bulk_create_table TO {role}"
        ),
    );
    let url = database.file("patients", patients(1..=3));
    let mut owner = database.connect_as(&role);
    run(&mut owner, "SET fhir_bulk.data_schema = 'my \"data'");
    assert_eq!(load(&mut owner, &url, "'Patient'"), r#"{"total": 3}"#);
    assert_eq!(load(&mut owner, &url, "'Patient'"), r#"{"total": 3}"#);
    assert_eq!(
        rows(
            &mut client,
            "SELECT relname, relkind, pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = '\"my \"\"data\"'::regnamespace AND relkind <> 'i' ORDER BY 1"
        ),
        [format!("patient|r|{role}"), format!("patient_history|r|{role}"), format!("transaction_id_seq|S|{role}")]
    );
    assert_eq!(
        value(
            &mut client,
            "SELECT typnamespace::regnamespace, pg_get_userbyid(typowner) FROM pg_type WHERE typname = 'resource_status'"
        ),
        format!("\"my \"\"data\"|{role}")
    );
    assert_eq!(
        count(
            &mut client,
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname ~ 'patient|transaction_id'"
        ),
        0
    );
    assert_eq!(rows(&mut owner, "SELECT bulk_dump('Patient')").len(), 3);
    run(&mut owner, "SET fhir_bulk.data_schema = 'absent'");
    assert_error_with_hint(&load_fails(&mut owner, &url, "'Patient'"), "3F000", &["absent"]);
}

#[test]
fn a_file_of_mistyped_types_cannot_fill_the_schema_with_tables() {
    let database = Database::new();
    let mut client = database.connect();
    let lines = |count: usize| {
        (0..count).map(|n| format!("{{\"id\":\"1\",\"resourceType\":\"Type{n}\"}}\n")).collect::<String>()
    };
    let hundred = database.file("100", lines(100));
    let more = database.file("101", lines(101));
    let before = relations(&mut client);
    let error = load_fails(&mut client, &more, "");
    assert_error_with_hint(&error, "54000", &["100", "Type100"]);
    assert!(error.detail().is_some_and(|detail| detail.contains("line 101") && detail.contains(&more)), "{error:?}");
    assert!(error.hint().unwrap().contains("fhir_bulk.max_new_tables"));
    assert_eq!(relations(&mut client), before);
    load(&mut client, &hundred, "");
    assert_eq!(count(&mut client, "SELECT count(*) FROM pg_class WHERE relname ~ '^type[0-9]+$'"), 100);
    // Those that are there do not count.
    load(&mut client, &more, "");
    run(&mut client, "SET fhir_bulk.max_new_tables = 0");
    load(&mut client, &more, "");
    let other = database.file("other", "{\"id\":\"1\",\"resourceType\":\"Other\"}\n");
    assert_error(&load_fails(&mut client, &other, ""), "54000", &["Other"]);
    // A type that the caller names is meant.
    assert_eq!(load(&mut client, &other, "'Other'"), r#"{"total": 1}"#);
}

#[test]
fn an_untyped_line_whose_type_is_no_name_is_refused_with_its_line() {
    let database = Database::new();
    let mut client = database.connect();
    let before = relations(&mut client);
    for name in ["", "no such;type", "patient_history", "1a", "Ünï", &"A".repeat(56)] {
        let url = database.file(
            "bad",
            format!("{{\"id\":\"1\",\"resourceType\":\"Good\"}}\n{{\"id\":\"1\",\"resourceType\":\"{name}\"}}\n"),
        );
        let error = load_fails(&mut client, &url, "");
        assert_error_with_hint(&error, "22023", &[]);
        let place = format!("{} {}", error.message(), error.detail().unwrap_or_default());
        assert!(place.contains("line 2") && place.contains(&url), "{error:?}");
    }
    assert_eq!(relations(&mut client), before);
}

#[test]
fn bulk_create_table_completes_what_is_there_and_refuses_what_is_no_resource_table() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'); DROP TABLE patient_history; SELECT bulk_create_table('patient');
         CREATE TABLE victim (i int); CREATE SEQUENCE number",
    );
    let update = "'Patient', options => '{\"update\": true}'";
    let url = database.file("one", patient("p", 1));
    load(&mut client, &url, update);
    load(&mut client, &url, update);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient_history"), 1);
    let error = fails(&mut client, "SELECT bulk_create_table('Victim')");
    assert_error_with_hint(&error, "42703", &["victim"]);
    let error = fails(&mut client, "SELECT bulk_create_table('Number')");
    assert!(["42703", "42809"].contains(&error.code().code()), "{error:?}");
    assert_eq!(value(&mut client, "SELECT to_regclass('victim_history') IS NULL"), "t");
}
