//! Which rows a dump returns, and what a line contains.

use crate::support::{aidbox_tables, assert_error, assert_error_with_hint, fails, rows, run};
use fhir_bulk_tests::{Client, Database};

fn patients_table() -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(&mut client, "SET TimeZone = 'UTC'");
    (database, client)
}

fn ids(client: &mut Client, arguments: &str) -> Vec<String> {
    rows(client, &format!("SELECT line::json ->> 'id' FROM (SELECT bulk_dump({arguments}) AS line) AS d ORDER BY 1"))
}

#[test]
fn an_incremental_reader_gets_only_what_was_created_after_since() {
    let (_database, mut client) = patients_table();
    run(
        &mut client,
        "INSERT INTO patient (id, txid, cts, ts, status, resource) VALUES
         ('before', 1, '2020-01-01T00:00:00Z', '2022-01-01T00:00:00Z', 'updated', '{}'),
         ('at', 2, '2021-01-01T00:00:00Z', '2022-01-01T00:00:00Z', 'created', '{}'),
         ('after', 3, '2021-01-01T00:00:00.000001Z', '2021-01-01T00:00:00.000001Z', 'created', '{}'),
         ('after-deleted', 4, '2021-06-01T00:00:00Z', '2021-06-01T00:00:00Z', 'deleted', '{}'),
         ('unknown', 5, NULL, '2022-01-01T00:00:00Z', 'created', '{}'),
         ('always', 6, 'infinity', '2022-01-01T00:00:00Z', 'created', '{}')",
    );
    assert_eq!(ids(&mut client, "'Patient'"), ["after", "always", "at", "before", "unknown"]);
    for since in ["'2021-01-01T00:00:00Z'", "'2021-01-01T03:00:00+03:00'"] {
        assert_eq!(ids(&mut client, &format!("'Patient', {since}")), ["after", "always"]);
    }
    assert_eq!(ids(&mut client, "'Patient', since => '2030-01-01'"), ["always"]);
    assert_eq!(ids(&mut client, "'Patient', since => NULL").len(), 5);
    assert_eq!(ids(&mut client, "'Patient', '-infinity'"), ["after", "always", "at", "before"]);
    let body = client.query("SELECT bulk_dump_chunks('Patient', '2021-01-01T00:00:00Z')", &[]).unwrap();
    let body: Vec<u8> = body[0].get(0);
    assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), 2);
}

#[test]
fn deleted_resources_stay_away_and_updated_and_recreated_ones_come() {
    let (_database, mut client) = patients_table();
    run(
        &mut client,
        "INSERT INTO patient (id, txid, status, resource)
         SELECT status::text, 1, status, '{}' FROM unnest(enum_range(NULL::resource_status)) AS status",
    );
    assert_eq!(ids(&mut client, "'Patient'"), ["created", "recreated", "updated"]);
}

#[test]
fn unknown_and_infinite_times_are_left_out_of_meta() {
    let (_database, mut client) = patients_table();
    run(
        &mut client,
        r#"INSERT INTO patient (id, txid, cts, ts, status, resource) VALUES
            ('1', 1, NULL, NULL, 'created', '{}'),
            ('2', 2, 'infinity', '-infinity', 'created', '{"meta": {"profile": ["p"]}}'),
            ('3', 3, '-infinity', '2021-06-10T08:26:10Z', 'created', '{}'),
            ('4', 4, '2021-06-10T08:26:10Z', 'infinity', 'created', '{"meta": {"extension": [{"url": "u"}]}}')"#,
    );
    assert_eq!(
        rows(&mut client, "SELECT bulk_dump('Patient')"),
        [
            r#"{"id": "1", "meta": {"versionId": 1}, "resourceType": "Patient"}"#,
            r#"{"id": "2", "meta": {"profile": ["p"], "versionId": 2}, "resourceType": "Patient"}"#,
            r#"{"id": "3", "meta": {"versionId": 3, "lastUpdated": "2021-06-10T08:26:10.000000Z"}, "resourceType": "Patient"}"#,
            r#"{"id": "4", "meta": {"createdAt": "2021-06-10T08:26:10.000000Z", "extension": [{"url": "u"}], "versionId": 4}, "resourceType": "Patient"}"#,
        ]
    );
    assert_eq!(
        rows(&mut client, "SELECT bulk_dump('Patient', fhir => true)"),
        [
            r#"{"id":"1","meta":{"versionId":1},"resourceType":"Patient"}"#,
            r#"{"id":"2","meta":{"versionId":2,"profile":["p"]},"resourceType":"Patient"}"#,
            r#"{"id":"3","meta":{"versionId":3,"lastUpdated":"2021-06-10T08:26:10.000000Z"},"resourceType":"Patient"}"#,
            r#"{"id":"4","meta":{"versionId":4,"extension":[{"url":"u"},{"url":"ex:createdAt","valueInstant":"2021-06-10T08:26:10.000000Z"}]},"resourceType":"Patient"}"#,
        ]
    );
}

#[test]
fn what_a_resource_repeats_of_its_row_comes_once_and_from_the_row() {
    let (_database, mut client) = patients_table();
    run(
        &mut client,
        r#"INSERT INTO patient (id, txid, cts, ts, status, resource) VALUES ('column', 7,
            '2021-01-01T00:00:00Z', '2021-01-02T00:00:00Z', 'created',
            '{"id": "stored", "resourceType": "Stored", "a": 1, "name": [], "zzzzzzzzzzzzzzz": {"id": "inner", "resourceType": "X", "meta": {"versionId": "9"}},
              "meta": {"tag": [{"code": "t"}], "versionId": "stored", "createdAt": "stored", "lastUpdated": "stored", "source": "s",
                       "extension": [{"url": "ex:createdAt", "valueInstant": "1999-01-01T00:00:00Z"}, {"url": "other"}]}}')"#,
    );
    assert_eq!(
        rows(&mut client, "SELECT bulk_dump('Patient', fhir => true)"),
        [
            r#"{"a":1,"id":"column","meta":{"versionId":7,"lastUpdated":"2021-01-02T00:00:00.000000Z","tag":[{"code":"t"}],"source":"s","extension":[{"url":"other"},{"url":"ex:createdAt","valueInstant":"2021-01-01T00:00:00.000000Z"}]},"name":[],"resourceType":"Patient","zzzzzzzzzzzzzzz":{"id":"inner","meta":{"versionId":"9"},"resourceType":"X"}}"#
        ]
    );
    let aidbox = rows(&mut client, "SELECT bulk_dump('Patient')").remove(0);
    // The row's members in jsonb's places: PostgreSQL's own text of the whole says where.
    let expected = rows(
        &mut client,
        r#"SELECT resource || '{"id": "column", "resourceType": "Patient"}' || jsonb_build_object('meta',
             resource -> 'meta' || '{"versionId": 7, "createdAt": "2021-01-01T00:00:00.000000Z", "lastUpdated": "2021-01-02T00:00:00.000000Z"}')
           FROM patient"#,
    )
    .remove(0);
    assert_eq!(aidbox, expected);
}

#[test]
fn aidbox_form_is_postgresqls_own_jsonb_text_of_the_whole_resource() {
    let (_database, mut client) = patients_table();
    run(
        &mut client,
        r#"INSERT INTO patient (id, txid, cts, ts, status, resource)
           SELECT 'id "quoted" \ Ünï ' || row_number() OVER (), 1, '2021-01-01T00:00:00Z', '2021-01-02T00:00:00Z', 'created', resource
           FROM unnest(ARRAY['{}', '{"": ""}', '{"a": {}}', '{"a": [], "b": [[], [[]], {}]}', '{"id": 1, "i": 2, "ide": 3, "ic": 4}',
             '{"n": [0, -1, 1.10, 0.0, 1e-7, 1e25, 12345678901234567890123456789.123456789]}',
             '{"s": "\b\f\n\r\t\"\\/ \u0001 \u001f \u007f \u2028 é 😀"}', '{"métà": 1, "meta": {"meta": {"meta": null}}}',
             '{"resourceTyp": 1, "resourceTypf": 2, "resourceTypes": 3, "metb": 1, "mets": 1, "mes": 1}', '{"t": [true, false, null]}']::jsonb[]) AS resource"#,
    );
    let dumped = rows(&mut client, "SELECT bulk_dump('Patient')");
    let expected = rows(
        &mut client,
        r#"SELECT resource || jsonb_build_object('id', id, 'resourceType', 'Patient', 'meta', coalesce(resource -> 'meta', '{}')
             || '{"versionId": 1, "createdAt": "2021-01-01T00:00:00.000000Z", "lastUpdated": "2021-01-02T00:00:00.000000Z"}')
           FROM patient"#,
    );
    assert_eq!(dumped, expected);
    // And FHIR form is the same JSON.
    let dumped =
        rows(&mut client, "SELECT line::jsonb - 'meta' FROM (SELECT bulk_dump('Patient', fhir => true) AS line) AS d");
    let expected = rows(
        &mut client,
        "SELECT resource - 'meta' || jsonb_build_object('id', id, 'resourceType', 'Patient') FROM patient",
    );
    assert_eq!(dumped, expected);
}

#[test]
fn a_row_without_a_type_bears_the_canonical_name_of_what_was_asked_for() {
    let (_database, mut client) = patients_table();
    run(
        &mut client,
        "INSERT INTO patient (id, txid, cts, ts, resource_type, status, resource) VALUES
         ('1', 1, NULL, NULL, NULL, 'created', '{}'), ('2', 1, NULL, NULL, 'Custom', 'created', '{}')",
    );
    for name in ["Patient", "patient", "PATIENT", "pAtIeNt"] {
        assert_eq!(
            rows(&mut client, &format!("SELECT bulk_dump('{name}', fhir => true)")),
            [
                r#"{"id":"1","meta":{"versionId":1},"resourceType":"Patient"}"#,
                r#"{"id":"2","meta":{"versionId":1},"resourceType":"Custom"}"#
            ]
        );
    }
}

#[test]
fn types_that_are_sql_keywords_or_ones_own_can_be_dumped() {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Group", "Individual", "User", "Order"]);
    for (table, name) in [("group", "Group"), ("individual", "Individual"), ("user", "User"), ("order", "Order")] {
        run(&mut client, &format!("INSERT INTO \"{table}\" VALUES ('x', 1, NULL, NULL, NULL, 'created', '{{}}')"));
        assert_eq!(
            rows(&mut client, &format!("SELECT bulk_dump('{name}', fhir => true)")),
            [format!(r#"{{"id":"x","meta":{{"versionId":1}},"resourceType":"{name}"}}"#)]
        );
    }
}

#[test]
fn a_mistyped_type_is_an_error_that_names_it_and_never_an_empty_success() {
    let (_database, mut client) = patients_table();
    let long = "A".repeat(200);
    for name in
        ["Patent", "no such;type", "", "1Patient", "patient_history", "public.patient", &long, "Ünï", "Patient "]
    {
        for function in ["bulk_dump", "bulk_dump_chunks"] {
            let shown: String = name.chars().take(60).collect();
            assert_error_with_hint(&fails(&mut client, &format!("SELECT {function}('{name}')")), "42P01", &[&shown]);
        }
    }
    for function in ["bulk_dump", "bulk_dump_chunks"] {
        assert_error(&fails(&mut client, &format!("SELECT {function}(NULL)")), "22004", &["resource_type"]);
        assert_error(&fails(&mut client, &format!("SELECT {function}('Patient', fhir => NULL)")), "22004", &["fhir"]);
    }
}

#[test]
fn fhir_clients_can_have_version_ids_as_strings_and_their_own_created_at_url() {
    let (_database, mut client) = patients_table();
    run(
        &mut client,
        "INSERT INTO patient (id, txid, cts, ts, status, resource)
         VALUES ('1', 9223372036854775807, '2021-01-01T00:00:00Z', NULL, 'created', '{}')",
    );
    run(&mut client, r#"SET fhir_bulk.version_id = 'string'; SET fhir_bulk.created_at_url = 'https://x.org/"é"'"#);
    assert_eq!(
        rows(&mut client, "SELECT bulk_dump('Patient', fhir => true)"),
        [
            r#"{"id":"1","meta":{"versionId":"9223372036854775807","extension":[{"url":"https://x.org/\"é\"","valueInstant":"2021-01-01T00:00:00.000000Z"}]},"resourceType":"Patient"}"#
        ]
    );
    assert_eq!(
        rows(&mut client, "SELECT bulk_dump('Patient')"),
        [
            r#"{"id": "1", "meta": {"createdAt": "2021-01-01T00:00:00.000000Z", "versionId": "9223372036854775807"}, "resourceType": "Patient"}"#
        ]
    );
    run(&mut client, "SET fhir_bulk.version_id = 'number'");
    assert!(
        rows(&mut client, "SELECT bulk_dump('Patient')")[0].contains(r#""versionId": 9223372036854775807,"#)
            || rows(&mut client, "SELECT bulk_dump('Patient')")[0].contains(r#""versionId": 9223372036854775807}"#)
    );
    assert_error(&fails(&mut client, "SET fhir_bulk.version_id = 'other'"), "22023", &["fhir_bulk.version_id"]);
}

#[test]
fn a_row_that_holds_no_object_is_an_error_that_names_the_row() {
    let (_database, mut client) = patients_table();
    for stored in ["[]", "[{}]", "\"text\"", "1", "null", "true"] {
        run(
            &mut client,
            &format!(
                "TRUNCATE patient; INSERT INTO patient VALUES ('odd', 1, NULL, NULL, NULL, 'created', '{stored}')"
            ),
        );
        for function in ["bulk_dump", "bulk_dump_chunks"] {
            let error = fails(&mut client, &format!("SELECT {function}('Patient')"));
            assert_error_with_hint(&error, "22023", &["Patient", "odd"]);
        }
    }
}
