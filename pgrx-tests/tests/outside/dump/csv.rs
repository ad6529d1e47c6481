//! `dump_csv` and `dump_csv_chunks`: a column for each path.

use crate::support::{aidbox_tables, assert_error, assert_error_with_hint, fails, load_sql, rows, run, value};
use fhir_bulk_tests::{Client, Database, gunzip, wait_for};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const DUMP: &str = "SELECT dump_csv('Patient')";

/// Patients with these resources and the ids `p-1` and so on.
fn patients(client: &mut Client, resources: &[&str]) {
    aidbox_tables(client, &["Patient"]);
    for (at, resource) in resources.iter().enumerate() {
        run(
            client,
            &format!(
                "INSERT INTO patient (id, txid, status, resource) VALUES ('p-{}', 1, 'created', $${resource}$$)",
                at + 1
            ),
        );
    }
}

fn body(client: &mut Client, arguments: &str) -> Vec<u8> {
    let chunks = client.query(&format!("SELECT dump_csv_chunks({arguments})"), &[]).unwrap();
    chunks.iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect()
}

#[test]
fn the_table_is_that_of_the_documentation_as_rows_as_a_body_and_gzipped() {
    let database = Database::new();
    let mut client = database.connect();
    let citizen = r#"{"name": [{"given": ["Charles"]}], "citizenship": [{"code": {"text": "ru"}}]}"#;
    let [alice, bob] = ["Alice", "Bob"].map(|name| format!(r#"{{"name": [{{"given": ["{name}"]}}]}}"#));
    patients(&mut client, &[&alice, &bob, citizen]);
    run(&mut client, "INSERT INTO patient (id, txid, status, resource) VALUES ('gone', 1, 'deleted', '{\"x\": 1}')");
    let expected = [
        "citizenship.0.code.text,id,name.0.given.0,resourceType",
        ",p-1,Alice,Patient",
        ",p-2,Bob,Patient",
        "ru,p-3,Charles,Patient",
    ];
    assert_eq!(rows(&mut client, DUMP), expected);
    // The type has its own spelling in the column, else that of FHIR.
    assert_eq!(rows(&mut client, "SELECT dump_csv('PATIENT')"), expected);
    let whole = expected.join("\n") + "\n";
    assert_eq!(body(&mut client, "'Patient'"), whole.as_bytes());
    assert_eq!(gunzip(&body(&mut client, "'Patient', gzip => true")), whole.as_bytes());
    run(&mut client, "DELETE FROM patient");
    assert_eq!(rows(&mut client, DUMP), ["id,resourceType"]);
    assert_eq!(body(&mut client, "'Patient'"), b"id,resourceType\n");
    assert_eq!(gunzip(&body(&mut client, "'Patient', gzip => true")), b"id,resourceType\n");
}

/// The leaves of a line by their paths, as names that FHIR could have spell them.
fn leaves(value: &Value, path: String, found: &mut BTreeMap<String, String>) {
    let inner = |step: &str| if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| leaves(value, inner(name), found)),
        Value::Array(elements) => {
            elements.iter().enumerate().for_each(|(at, value)| leaves(value, inner(&at.to_string()), found));
        }
        Value::Null => {}
        Value::String(text) => {
            found.insert(path, text.clone());
        }
        other => {
            found.insert(path, other.to_string());
        }
    }
}

#[test]
fn a_reader_of_csv_finds_what_the_lines_of_a_dump_have() {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Observation"]);
    run(
        &mut client,
        r#"INSERT INTO observation (id, txid, status, resource)
           SELECT 'o-' || n, n, 'created', jsonb_strip_nulls(jsonb_build_object(
               'status', CASE n % 3 WHEN 0 THEN '' WHEN 1 THEN E'a "b",\r\nc' ELSE 'final' END,
               'value', CASE n % 4 WHEN 0 THEN jsonb_build_object('Quantity', jsonb_build_object('value', n * 0.10, 'unit', 'größer'))
                                   WHEN 1 THEN jsonb_build_object('boolean', n % 8 = 1) END,
               'meta', CASE WHEN n % 5 = 0 THEN '{"profile": ["http://example.org/p", "q"]}'::jsonb END,
               'component', (SELECT jsonb_agg(jsonb_build_object('n', c, 'code', 'c' || c)) FROM generate_series(1, n % 13) c)))
           FROM generate_series(1, 500) n"#,
    );
    let of_columns = ["meta.createdAt", "meta.versionId", "meta.lastUpdated"];
    let expected: Vec<BTreeMap<String, String>> = rows(&mut client, "SELECT bulk_dump('Observation')")
        .iter()
        .map(|line| {
            let mut found = BTreeMap::new();
            leaves(&serde_json::from_str(line).unwrap(), String::new(), &mut found);
            of_columns.iter().for_each(|name| assert!(found.remove(*name).is_some()));
            found
        })
        .collect();
    let columns: BTreeSet<&String> = expected.iter().flat_map(BTreeMap::keys).collect();
    for chunk_bytes in [1024, 65_536] {
        let bytes = body(&mut client, &format!("'Observation', chunk_bytes => {chunk_bytes}"));
        let mut reader = csv::Reader::from_reader(&bytes[..]);
        let header: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        assert!(header.iter().eq(columns.iter().copied()), "{header:?}");
        let read: Vec<BTreeMap<String, String>> = reader
            .records()
            .map(|record| {
                let record = record.unwrap();
                let cells = header.iter().zip(&record).map(|(name, cell)| (name.clone(), cell.to_owned()));
                cells.filter(|(_, cell)| !cell.is_empty()).collect()
            })
            .collect();
        let filled = |row: &BTreeMap<String, String>| -> BTreeMap<String, String> {
            row.iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name.clone(), text.clone())).collect()
        };
        assert_eq!(read, expected.iter().map(filled).collect::<Vec<_>>());
    }
    // An empty string is not an empty cell.
    let lines = rows(&mut client, "SELECT dump_csv('Observation', '{\"filter\": \"_id=o-3\"}')");
    assert_eq!(
        lines[0],
        "component.0.code,component.0.n,component.1.code,component.1.n,component.2.code,component.2.n,id,resourceType,status"
    );
    assert_eq!(lines[1], "c1,1,c2,2,c3,3,o-3,Observation,\"\"");
}

#[test]
fn options_narrow_the_rows_and_with_them_the_columns() {
    let database = Database::new();
    let mut client = database.connect();
    patients(&mut client, &[r#"{"gender": "male", "a": 1}"#, r#"{"gender": "female", "b": 2}"#]);
    run(&mut client, "UPDATE patient SET cts = '2020-01-01' WHERE id = 'p-1'");
    let since = r#"SELECT dump_csv('Patient', '{"since": "2020-01-02T00:00:00Z"}')"#;
    assert_eq!(rows(&mut client, since), ["b,gender,id,resourceType", "2,female,p-2,Patient"]);
    let filter = r#"SELECT dump_csv('Patient', '{"filter": "gender=male", "since": "2019-01-01"}')"#;
    assert_eq!(rows(&mut client, filter), ["a,gender,id,resourceType", "1,male,p-1,Patient"]);
    for (arguments, state, pieces) in [
        ("'Absent'", "42P01", &["Absent"][..]),
        ("'No type'", "42P01", &["No type"]),
        ("'Patient', '{\"header\": true}'", "22023", &["header"]),
        ("'Patient', '[]'", "22023", &["options"]),
        ("'Patient', '{\"since\": 1}'", "22023", &["option since"]),
        ("'Patient', '{\"since\": \"yesteryear\"}'", "22023", &["option since"]),
        ("'Patient', '{\"filter\": true}'", "22023", &["option filter"]),
        ("'Patient', '{\"filter\": \"colour=red\"}'", "0A000", &["colour"]),
    ] {
        for function in ["dump_csv", "dump_csv_chunks"] {
            let arguments =
                if function == "dump_csv" { arguments.to_owned() } else { arguments.replace(", '", ", options => '") };
            let error = fails(&mut client, &format!("SELECT {function}({arguments})"));
            assert_error(&error, state, pieces);
            if arguments.contains("header") {
                assert!(error.hint().unwrap().contains("since, filter"), "{error:?}");
            }
        }
    }
    for null in ["dump_csv(NULL)", "dump_csv('Patient', NULL)", "dump_csv_chunks('Patient', NULL)"] {
        assert_error(&fails(&mut client, &format!("SELECT {null}")), "22004", &["must not be NULL"]);
    }
    let error = fails(&mut client, "SELECT dump_csv_chunks('Patient', chunk_bytes => 1)");
    assert_error_with_hint(&error, "22023", &["chunk_bytes"]);
    run(&mut client, "ALTER TABLE patient DROP cts");
    assert_error_with_hint(&fails(&mut client, since), "42703", &["cts"]);
}

#[test]
fn rows_that_have_no_place_in_a_table_are_named() {
    let database = Database::new();
    let mut client = database.connect();
    patients(&mut client, &["{}", "[1]"]);
    assert_error_with_hint(&fails(&mut client, DUMP), "22023", &["\"p-2\" is not a JSON object"]);
    run(
        &mut client,
        "UPDATE patient SET resource = (SELECT jsonb_object_agg('k' || n, n) FROM generate_series(1, 99998) n) WHERE id = 'p-2'",
    );
    assert_eq!(value(&mut client, "SELECT count(*) FROM (SELECT dump_csv('Patient')) d"), "3");
    run(&mut client, "INSERT INTO patient (id, txid, status, resource) VALUES ('p-3', 1, 'created', '{\"more\": 1}')");
    let error = fails(&mut client, DUMP);
    assert_error_with_hint(&error, "54000", &["Patient", "more than 100000 columns"]);
    assert!(error.detail().unwrap().contains("\"p-3\""), "{error:?}");
    run(
        &mut client,
        "DELETE FROM patient WHERE id <> 'p-1'; INSERT INTO patient (id, txid, status, resource)
         SELECT 'q-' || n, 1, 'created', jsonb_build_object(n || repeat('k', 1000000), 1) FROM generate_series(1, 100) n",
    );
    assert_error_with_hint(&fails(&mut client, DUMP), "54000", &["names of the columns", "64 MB"]);
    run(&mut client, "TRUNCATE patient");
    let huge = "INSERT INTO patient (id, txid, status, resource) VALUES
        ('huge', 1, 'created', jsonb_build_object('text', repeat('QUJD', 10 << 20), 'n', 1))";
    run(&mut client, huge);
    let lengths = "SELECT length(line) FROM (SELECT dump_csv('Patient') AS line) d";
    assert_eq!(rows(&mut client, lengths), ["22", &(10 * (4 << 20) + ",1,huge,Patient".len()).to_string()]);
}

/// Lets the session that dumps wait in the middle of its first reading, changes the table, and lets it go on.
#[test]
fn both_readings_see_the_same_moment_whatever_others_commit_between_them() {
    let database = Database::new();
    let mut admin = database.connect();
    patients(&mut admin, &["{\"a\": 1}", "{\"a\": 2}", "{\"a\": 3}"]);
    let role = database.role("reader");
    run(
        &mut admin,
        &format!(
            "GRANT SELECT ON patient TO {role}; ALTER TABLE patient ENABLE ROW LEVEL SECURITY;
             CREATE FUNCTION pass(id text) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN
                 IF id = 'p-2' THEN PERFORM pg_advisory_lock_shared(1); PERFORM pg_advisory_unlock_shared(1); END IF;
                 RETURN id <> 'p-3';
             END $$;
             CREATE POLICY only_some ON patient USING (pass(id))"
        ),
    );
    let expected = ["a,id,resourceType", "1,p-1,Patient", "2,p-2,Patient"];
    for dump in [DUMP, "SELECT convert_from(dump_csv_chunks('Patient'), 'UTF8')"] {
        run(&mut admin, "BEGIN; SELECT pg_advisory_lock(1)");
        let mut reader = database.connect_as(&role);
        let pid = value(&mut reader, "SELECT pg_backend_pid()");
        let reading = std::thread::spawn(move || rows(&mut reader, dump));
        let mut other = database.connect();
        wait_for("the dump to be in the middle of its first reading", || {
            value(&mut other, &format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)")) == "t"
        });
        run(
            &mut other,
            "INSERT INTO patient (id, txid, status, resource) VALUES ('p-0', 1, 'created', '{\"new\": 1}'), ('p-9', 1, 'created', '{\"b\": 1}');
             UPDATE patient SET resource = '{\"c\": 1}' WHERE id = 'p-1'; DELETE FROM patient WHERE id = 'p-2'",
        );
        run(&mut admin, "SELECT pg_advisory_unlock(1); COMMIT");
        let lines = reading.join().unwrap();
        let lines: Vec<&str> = lines.iter().flat_map(|line| line.lines()).collect();
        assert_eq!(lines, expected);
        run(
            &mut admin,
            "TRUNCATE patient; INSERT INTO patient (id, txid, status, resource) SELECT 'p-' || n, 1, 'created', jsonb_build_object('a', n)
             FROM generate_series(1, 3) n",
        );
    }
}

#[test]
fn what_gives_other_rows_the_second_time_is_an_error_and_not_a_wrong_table() {
    let database = Database::new();
    let mut client = database.connect();
    patients(&mut client, &["{}"]);
    run(
        &mut client,
        "ALTER TABLE patient RENAME TO stored; CREATE SEQUENCE s;
         CREATE VIEW patient AS SELECT id, txid, cts, ts, resource_type, status,
             jsonb_build_object('name', jsonb_build_object('n' || nextval('s'), 1)) AS resource FROM stored",
    );
    let error = fails(&mut client, DUMP);
    assert_error_with_hint(&error, "40001", &["Patient \"p-1\" has changed"]);
    assert!(error.detail().unwrap().contains("member name"), "{error:?}");
}

/// Parts of a plan that keep rows, and parts that do not, all begin anew.
#[test]
fn a_view_of_any_shape_can_be_read_twice() {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(
        &mut client,
        "INSERT INTO patient (id, txid, status, resource)
         SELECT 'p-' || n, n, 'created', jsonb_build_object('n', n, 'k' || n % 7, n) FROM generate_series(1, 2000) n;
         ALTER TABLE patient RENAME TO stored; ANALYZE stored; SET work_mem = '64kB'",
    );
    let columns = "id, txid, cts, ts, resource_type, status, resource";
    for view in [
        format!("SELECT {columns} FROM stored ORDER BY resource ->> 'n' DESC"),
        format!("SELECT DISTINCT {columns} FROM stored"),
        format!("WITH w AS MATERIALIZED (SELECT * FROM stored) SELECT {columns} FROM w UNION ALL SELECT {columns} FROM w"),
        format!("SELECT {columns} FROM stored JOIN (SELECT id AS other FROM stored OFFSET 0) o ON other = id"),
        "SELECT id, rank() OVER (ORDER BY id) AS txid, cts, ts, resource_type, status, resource FROM stored".to_owned(),
        format!("SELECT {columns} FROM stored WHERE txid = ANY (SELECT max(txid) FROM stored GROUP BY txid % 100) LIMIT 50"),
        format!("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT {columns} FROM r JOIN stored ON txid = n"),
        "SELECT 'g-' || n AS id, n AS txid, now() AS cts, now() AS ts, 'Patient' AS resource_type, 'created' AS status,
             jsonb_build_object('n', n) AS resource FROM generate_series(1, 300) n"
            .to_owned(),
        "SELECT v.* FROM (VALUES ('a', 1, now(), now(), 'Patient', 'created', '{\"v\": 1}'::jsonb)) v (id, txid, cts, ts, resource_type, status, resource)".to_owned(),
    ] {
        run(&mut client, &format!("CREATE VIEW patient AS {view}"));
        let count = value(&mut client, "SELECT count(*) FROM patient");
        let table = rows(&mut client, DUMP);
        assert_eq!(table.len().to_string(), (count.parse::<usize>().unwrap() + 1).to_string(), "{view}");
        let columns = value(&mut client, "SELECT count(DISTINCT k) + 2 FROM patient, jsonb_object_keys(resource) k");
        assert_eq!((table[0].matches(',').count() + 1).to_string(), columns, "{view}");
        run(&mut client, "DROP VIEW patient");
    }
}

#[test]
fn cursors_and_limits_end_a_table_early_or_late_and_leave_nothing_open() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, &load_sql(&database.file("patients", crate::support::patients(1..=3000)), "'Patient'"));
    let all = rows(&mut client, DUMP);
    assert_eq!(all.len(), 3001);
    run(&mut client, &format!("BEGIN; DECLARE held CURSOR WITH HOLD FOR {DUMP}"));
    let mut found = rows(&mut client, "FETCH 3 FROM held");
    run(&mut client, "SAVEPOINT s; DELETE FROM patient; ROLLBACK TO s; COMMIT");
    found.extend(rows(&mut client, "FETCH ALL FROM held"));
    assert!(found == all);
    run(&mut client, "CLOSE held");
    let twice =
        "SELECT t, line FROM unnest(ARRAY['Patient', 'Patient']) AS t, LATERAL (SELECT dump_csv(t) AS line) AS d";
    assert_eq!(rows(&mut client, twice).len(), 6002);
    assert_eq!(rows(&mut client, "SELECT dump_csv('Patient') LIMIT 1"), all[..1]);
    let feeding = "INSERT INTO patient (id, txid, status, resource) SELECT 'c-' || n, 1, 'created', '{\"x\": 1}'
        FROM (SELECT dump_csv('Patient'), generate_series(1, 3001) n) AS d";
    run(&mut client, feeding);
    assert_eq!(rows(&mut client, DUMP).len(), 6002);
    assert!(!database.cluster().log().contains("leak"), "a leaked snapshot or buffer");
}
