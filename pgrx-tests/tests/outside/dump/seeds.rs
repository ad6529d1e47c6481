//! The bytes that Aidbox's documentation prints, from rows as Aidbox holds them.

use crate::support::{aidbox_tables, rows, run};
use fhir_bulk_tests::Database;

const AIDBOX_PATIENTS: [&str; 3] = [
    r#"{"id": "pt-1", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 481, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "name": [{"given": ["Alice"]}], "resourceType": "Patient"}"#,
    r#"{"id": "pt-2", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 482, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "name": [{"given": ["Bob"]}], "resourceType": "Patient"}"#,
    r#"{"id": "pt-3", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 483, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "name": [{"given": ["Charles"]}], "citizenship": [{"code": {"text": "ru"}}], "resourceType": "Patient"}"#,
];

const FHIR_PATIENTS: [&str; 3] = [
    r#"{"id":"pt-1","meta":{"versionId":481,"lastUpdated":"2021-06-10T08:26:10.707454Z","extension":[{"url":"ex:createdAt","valueInstant":"2021-06-10T08:26:10.707454Z"}]},"name":[{"given":["Alice"]}],"resourceType":"Patient"}"#,
    r#"{"id":"pt-2","meta":{"versionId":482,"lastUpdated":"2021-06-10T08:26:10.707454Z","extension":[{"url":"ex:createdAt","valueInstant":"2021-06-10T08:26:10.707454Z"}]},"name":[{"given":["Bob"]}],"resourceType":"Patient"}"#,
    r#"{"id":"pt-3","meta":{"versionId":483,"lastUpdated":"2021-06-10T08:26:10.707454Z","extension":[{"url":"ex:createdAt","valueInstant":"2021-06-10T08:26:10.707454Z"}]},"name":[{"given":["Charles"]}],"citizenship":[{"code":{"text":"ru"}}],"resourceType":"Patient"}"#,
];

const AIDBOX_APPOINTMENTS: [&str; 3] = [
    r#"{"id": "ap-1", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 484, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "status": "fulfilled", "participant": [{"actor": {"id": "pt-1", "resourceType": "Patient"}, "status": "accepted"}], "resourceType": "Appointment"}"#,
    r#"{"id": "ap-2", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 485, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "status": "booked", "participant": [{"actor": {"id": "pt-1", "resourceType": "Patient"}, "status": "accepted"}], "resourceType": "Appointment"}"#,
    r#"{"id": "ap-3", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 486, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "status": "fulfilled", "participant": [{"actor": {"id": "pt-2", "resourceType": "Patient"}, "status": "accepted"}], "resourceType": "Appointment"}"#,
];

const MOSCOW_APPOINTMENTS: [&str; 3] = [
    r#"{"id":"ap-1","meta":{"versionId":15,"lastUpdated":"2021-04-02T16:03:31.057462+03:00","extension":[{"url":"ex:createdAt","valueInstant":"2021-04-02T16:03:09.419823+03:00"}]},"start":"2021-02-02T16:02:50.997+03:00","status":"fullfilled","participant":[{"status":"accepted"}],"resourceType":"Appointment"}"#,
    r#"{"id":"ap-2","meta":{"versionId":26,"lastUpdated":"2021-04-02T16:04:24.695862+03:00","extension":[{"url":"ex:createdAt","valueInstant":"2021-04-02T16:03:38.168497+03:00"}]},"start":"2020-02-02T16:02:50.997+03:00","status":"fullfilled","participant":[{"status":"accepted"}],"resourceType":"Appointment"}"#,
    r#"{"id":"ap-3","meta":{"versionId":40,"lastUpdated":"2021-04-02T16:08:41.198887+03:00","extension":[{"url":"ex:createdAt","valueInstant":"2021-04-02T16:03:55.869199+03:00"}]},"start":"2021-04-02T16:02:50.996+03:00","status":"fullfilled","participant":[{"status":"accepted"}],"resourceType":"Appointment"}"#,
];

/// Aidbox's rows of the `$dump` page: patients with txid 481 to 483, appointments with 484 to 486.
fn aidbox_of_the_dump_page() -> Database {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient", "Appointment"]);
    let at = "'2021-06-10T08:26:10.707454Z', '2021-06-10T08:26:10.707454Z'";
    run(
        &mut client,
        &format!(
            r#"INSERT INTO patient (id, txid, cts, ts, status, resource) VALUES
                ('pt-1', 481, {at}, 'created', '{{"name": [{{"given": ["Alice"]}}]}}'),
                ('pt-2', 482, {at}, 'created', '{{"name": [{{"given": ["Bob"]}}]}}'),
                ('pt-3', 483, {at}, 'created',
                 '{{"name": [{{"given": ["Charles"]}}], "citizenship": [{{"code": {{"text": "ru"}}}}]}}');
               INSERT INTO appointment (id, txid, cts, ts, status, resource) VALUES
                ('ap-1', 484, {at}, 'created', '{{"status": "fulfilled", "participant": [{{"actor": {{"id": "pt-1", "resourceType": "Patient"}}, "status": "accepted"}}]}}'),
                ('ap-2', 485, {at}, 'created', '{{"status": "booked", "participant": [{{"actor": {{"id": "pt-1", "resourceType": "Patient"}}, "status": "accepted"}}]}}'),
                ('ap-3', 486, {at}, 'created', '{{"status": "fulfilled", "participant": [{{"actor": {{"id": "pt-2", "resourceType": "Patient"}}, "status": "accepted"}}]}}')"#
        ),
    );
    database
}

#[test]
fn a_client_of_aidboxs_dump_gets_the_same_bytes_in_both_forms() {
    let database = aidbox_of_the_dump_page();
    let mut client = database.connect();
    run(&mut client, "SET TimeZone = 'UTC'");
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Patient')"), AIDBOX_PATIENTS);
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Patient', fhir => true)"), FHIR_PATIENTS);
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Appointment')"), AIDBOX_APPOINTMENTS);
}

#[test]
fn appointments_in_fhir_form_are_compact_with_fhirs_meta_and_references() {
    let database = aidbox_of_the_dump_page();
    let mut client = database.connect();
    run(&mut client, "SET TimeZone = 'UTC'");
    let dumped = rows(&mut client, "SELECT bulk_dump('Appointment', fhir => true)");
    let expected = [("ap-1", 484, "fulfilled", "pt-1"), ("ap-2", 485, "booked", "pt-1"), ("ap-3", 486, "fulfilled", "pt-2")]
        .map(|(id, version, status, patient)| {
            let at = "2021-06-10T08:26:10.707454Z";
            format!(
                r#"{{"id":"{id}","meta":{{"versionId":{version},"lastUpdated":"{at}","extension":[{{"url":"ex:createdAt","valueInstant":"{at}"}}]}},"status":"{status}","participant":[{{"actor":{{"reference":"Patient/{patient}"}},"status":"accepted"}}],"resourceType":"Appointment"}}"#
            )
        });
    assert_eq!(dumped, expected);
}

#[test]
fn psql_with_the_documented_copy_prints_the_ndjson_byte_for_byte() {
    let database = aidbox_of_the_dump_page();
    let copy = |query: &str| {
        let sql = format!(
            r"SET TimeZone = 'UTC'; COPY ({query}) TO STDOUT WITH (FORMAT csv, QUOTE e'\x01', DELIMITER e'\x02')"
        );
        String::from_utf8(database.psql(&sql)).unwrap()
    };
    assert_eq!(copy("SELECT bulk_dump('Patient')"), AIDBOX_PATIENTS.join("\n") + "\n");
    assert_eq!(copy("SELECT bulk_dump('Patient', NULL, true)"), FHIR_PATIENTS.join("\n") + "\n");
    assert_eq!(copy("SELECT bulk_dump('Appointment')"), AIDBOX_APPOINTMENTS.join("\n") + "\n");
}

#[test]
fn a_server_in_moscow_writes_its_own_offset_as_the_bulk_page_shows() {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Appointment"]);
    run(
        &mut client,
        r#"INSERT INTO appointment (id, txid, cts, ts, status, resource) VALUES
            ('ap-1', 15, '2021-04-02T13:03:09.419823Z', '2021-04-02T13:03:31.057462Z', 'updated',
             '{"start": "2021-02-02T16:02:50.997+03:00", "status": "fullfilled", "participant": [{"status": "accepted"}]}'),
            ('ap-2', 26, '2021-04-02T13:03:38.168497Z', '2021-04-02T13:04:24.695862Z', 'updated',
             '{"start": "2020-02-02T16:02:50.997+03:00", "status": "fullfilled", "participant": [{"status": "accepted"}]}'),
            ('ap-3', 40, '2021-04-02T13:03:55.869199Z', '2021-04-02T13:08:41.198887Z', 'updated',
             '{"start": "2021-04-02T16:02:50.996+03:00", "status": "fullfilled", "participant": [{"status": "accepted"}]}')"#,
    );
    run(&mut client, "SET TimeZone = 'Europe/Moscow'");
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Appointment', fhir => true)"), MOSCOW_APPOINTMENTS);
    let body: Vec<u8> = client
        .query("SELECT bulk_dump_chunks('Appointment', fhir => true, chunk_bytes => 1024)", &[])
        .unwrap()
        .iter()
        .flat_map(|row| row.get::<_, Vec<u8>>(0))
        .collect();
    assert_eq!(String::from_utf8(body).unwrap(), MOSCOW_APPOINTMENTS.join("\n") + "\n");
}
