//! `GET /{Type}/$dump`, as Aidbox's pages show it.

use crate::support::{Service, aidbox_rows, outcome, value};
use fhir_bulk_tests::gunzip;
use fhir_bulk_tests::proxy::Request;
use std::process::Command;

const AIDBOX_PATIENTS: &str = concat!(
    r#"{"id": "pt-1", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 481, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "name": [{"given": ["Alice"]}], "resourceType": "Patient"}"#,
    "\n",
    r#"{"id": "pt-2", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 482, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "name": [{"given": ["Bob"]}], "resourceType": "Patient"}"#,
    "\n",
    r#"{"id": "pt-3", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 483, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "name": [{"given": ["Charles"]}], "citizenship": [{"code": {"text": "ru"}}], "resourceType": "Patient"}"#,
    "\n",
);

const FHIR_PATIENTS: &str = concat!(
    r#"{"id":"pt-1","meta":{"versionId":481,"lastUpdated":"2021-06-10T08:26:10.707454Z","extension":[{"url":"ex:createdAt","valueInstant":"2021-06-10T08:26:10.707454Z"}]},"name":[{"given":["Alice"]}],"resourceType":"Patient"}"#,
    "\n",
    r#"{"id":"pt-2","meta":{"versionId":482,"lastUpdated":"2021-06-10T08:26:10.707454Z","extension":[{"url":"ex:createdAt","valueInstant":"2021-06-10T08:26:10.707454Z"}]},"name":[{"given":["Bob"]}],"resourceType":"Patient"}"#,
    "\n",
    r#"{"id":"pt-3","meta":{"versionId":483,"lastUpdated":"2021-06-10T08:26:10.707454Z","extension":[{"url":"ex:createdAt","valueInstant":"2021-06-10T08:26:10.707454Z"}]},"name":[{"given":["Charles"]}],"citizenship":[{"code":{"text":"ru"}}],"resourceType":"Patient"}"#,
    "\n",
);

const AIDBOX_APPOINTMENTS: &str = concat!(
    r#"{"id": "ap-1", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 484, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "status": "fulfilled", "participant": [{"actor": {"id": "pt-1", "resourceType": "Patient"}, "status": "accepted"}], "resourceType": "Appointment"}"#,
    "\n",
    r#"{"id": "ap-2", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 485, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "status": "booked", "participant": [{"actor": {"id": "pt-1", "resourceType": "Patient"}, "status": "accepted"}], "resourceType": "Appointment"}"#,
    "\n",
    r#"{"id": "ap-3", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 486, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "status": "fulfilled", "participant": [{"actor": {"id": "pt-2", "resourceType": "Patient"}, "status": "accepted"}], "resourceType": "Appointment"}"#,
    "\n",
);

fn service() -> Service {
    let service = Service::new();
    aidbox_rows(&mut service.connect());
    service
}

#[test]
fn a_client_of_aidboxs_dump_gets_the_same_headers_and_bytes() {
    let service = service();
    for (path, body) in [
        ("/Patient/$dump", AIDBOX_PATIENTS),
        ("/Patient/$dump?fhir=true", FHIR_PATIENTS),
        ("/Patient/$dump?fhir=false&gzip=false", AIDBOX_PATIENTS),
        ("/Appointment/$dump", AIDBOX_APPOINTMENTS),
        // Some clients escape the dollar sign.
        ("/Appointment/%24dump", AIDBOX_APPOINTMENTS),
    ] {
        let response = service.send(Request::get(path));
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("content-type"), Some("application/ndjson"));
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
        assert_eq!(response.header("content-length"), None);
        assert_eq!(response.header("content-encoding"), None);
        assert!(response.is_whole);
        assert_eq!(response.text(), body, "{path}");
    }
}

#[test]
fn the_documented_curl_lines_work_with_only_the_base_url_replaced() {
    let service = service();
    let credentials = format!("{}:{}", service.client, crate::support::PASSWORD);
    let shell = |line: &str| {
        let line = line.replace("bulk-client:secret", &format!("'{credentials}'"));
        let output =
            Command::new("bash").args(["-c", &line]).env("AIDBOX_BASE_URL", service.proxy.url()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(shell(r"curl -u bulk-client:secret $AIDBOX_BASE_URL/Patient/\$dump"), AIDBOX_PATIENTS);
    assert_eq!(shell(r"curl -u bulk-client:secret $AIDBOX_BASE_URL/Appointment/\$dump"), AIDBOX_APPOINTMENTS);
    assert_eq!(shell(r"curl -u bulk-client:secret $AIDBOX_BASE_URL/Patient/\$dump?fhir=true"), FHIR_PATIENTS);
    let piped = r"curl -u bulk-client:secret -H 'content-type:application/json' $AIDBOX_BASE_URL/Patient/\$dump | gzip | gunzip";
    assert_eq!(shell(piped), AIDBOX_PATIENTS);
    let compressed = r"curl -s --compressed -u bulk-client:secret $AIDBOX_BASE_URL/Patient/\$dump?gzip=true";
    assert_eq!(shell(compressed), AIDBOX_PATIENTS);
}

#[test]
fn a_gzipped_dump_says_so_and_is_one_gzip_stream() {
    let service = service();
    let response = service.send(Request::get("/Patient/$dump?gzip=true&fhir=true"));
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-encoding"), Some("gzip"));
    assert_eq!(response.header("content-type"), Some("application/ndjson"));
    assert_eq!(response.header("transfer-encoding"), Some("chunked"));
    assert_eq!(gunzip(&response.body), FHIR_PATIENTS.as_bytes());
    // An empty type is an empty stream, not an empty body that no gunzip takes.
    service.connect().batch_execute("DELETE FROM patient").unwrap();
    assert_eq!(gunzip(&service.send(Request::get("/Patient/$dump?gzip=true")).body), b"");
}

#[test]
fn an_empty_type_is_an_empty_body_and_an_unknown_one_is_not_found() {
    let service = service();
    service.connect().batch_execute("DELETE FROM patient").unwrap();
    let response = service.send(Request::get("/Patient/$dump"));
    assert_eq!((response.status, response.text().as_str(), response.is_whole), (200, "", true));
    assert_eq!(response.chunks, [0]);
    for path in ["/Practitioner/$dump", "/Pa%22tient/$dump", "/patient_history/$dump"] {
        let text = outcome(&service.send(Request::get(path)), 404);
        assert!(text.contains("there is no table for resource type"), "{text}");
    }
}

#[test]
fn since_takes_dates_and_instants_with_a_plus_that_was_not_escaped() {
    let service = service();
    let mut client = service.connect();
    for (id, created) in
        [("pt-1", "2021-04-01T23:59:59Z"), ("pt-2", "2021-04-02T00:00:01Z"), ("pt-3", "2021-04-02T13:00:01Z")]
    {
        client.execute("UPDATE patient SET cts = $1::text::timestamptz WHERE id = $2", &[&created, &id]).unwrap();
    }
    let ids = |since: &str| -> Vec<String> {
        let response = service.send(Request::get(&format!("/Patient/$dump?_since={since}&fhir=true")));
        assert_eq!(response.status, 200, "{since}: {}", response.text());
        response.text().lines().map(|line| line[7..11].to_owned()).collect()
    };
    assert_eq!(ids("2021-04-02"), ["pt-2", "pt-3"]);
    assert_eq!(ids("2021-04-02T13:00:00Z"), ["pt-3"]);
    assert_eq!(ids("2021-04-02T16:00:00.000+03:00"), ["pt-3"]);
    assert_eq!(ids("2021-04-02T16:00:00%2B03:00"), ["pt-3"]);
    assert_eq!(ids("2021-04-02T16:00:02%2003:00"), Vec::<String>::new());
    // A day begins at midnight where the role is.
    let role = &service.client;
    service.database.connect().batch_execute(&format!("ALTER ROLE {role} SET TimeZone = 'Europe/Moscow'")).unwrap();
    let elsewhere = Service { proxy: crate::support::proxy_of(&service.database), ..service };
    let response = elsewhere.send(Request::get("/Patient/$dump?_since=2021-04-02&fhir=true"));
    assert_eq!(response.text().lines().count(), 3);
    assert!(response.text().contains("2021-04-02T02:59:59.000000+03:00"), "{}", response.text());
}

#[test]
fn parameters_that_would_be_misread_are_refused() {
    let service = service();
    for query in [
        "_since=yesterday",
        "_since=",
        "_since=2021-02-30",
        "_since=2021-13-01",
        "_since=2021-04-02T25:00:00Z",
        "_since=1%27;DROP%20TABLE%20patient--",
        "fhir=yes",
        "fhir",
        "fhir=TRUE",
        "gzip=1",
        "since=2021-01-01",
        "fhir=true&fhir=false",
    ] {
        let text = outcome(&service.send(Request::get(&format!("/Patient/$dump?{query}"))), 400);
        assert!(!text.is_empty());
    }
    assert_eq!(value(&mut service.connect(), "SELECT count(*) FROM patient"), "3");
}

#[test]
fn a_role_dumps_what_its_grants_and_policies_let_it_see() {
    let service = service();
    let reader = crate::support::role(&service.database, "reader");
    let dump = |path: &str| service.proxy.send(&Request::get(path).basic(&reader, crate::support::PASSWORD));
    let text = outcome(&dump("/Patient/$dump"), 403);
    assert!(text.contains("permission denied"), "{text}");
    service
        .connect()
        .batch_execute(&format!(
            "GRANT SELECT ON patient TO {reader}; ALTER TABLE patient ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON patient TO {reader} USING (id = 'pt-2')"
        ))
        .unwrap();
    assert_eq!(dump("/Patient/$dump").text(), AIDBOX_PATIENTS.lines().nth(1).unwrap().to_owned() + "\n");
    outcome(&dump("/Appointment/$dump"), 403);
}

#[test]
fn a_client_of_aidboxs_dump_csv_gets_the_table_of_the_documentation() {
    let service = service();
    let table = "citizenship.0.code.text,id,name.0.given.0,resourceType\n,pt-1,Alice,Patient\n,pt-2,Bob,Patient\nru,pt-3,Charles,Patient\n";
    for path in ["/Patient/$dump-csv", "/Patient/%24dump-csv?gzip=false"] {
        let response = service.send(Request::get(path));
        assert_eq!((response.status, response.text().as_str()), (200, table), "{path}");
        assert_eq!(response.header("content-type"), Some("text/csv"));
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
        assert!(response.is_whole);
    }
    let response = service.send(Request::get("/Patient/$dump-csv?gzip=true"));
    assert_eq!(response.header("content-encoding"), Some("gzip"));
    assert_eq!(gunzip(&response.body), table.as_bytes());
    let one = service.send(Request::get("/Patient/$dump-csv?_filter=_id%3Dpt-3&_since=2020-01-01T00:00:00+01:00"));
    assert_eq!(one.text(), "citizenship.0.code.text,id,name.0.given.0,resourceType\nru,pt-3,Charles,Patient\n");
    let none = service.send(Request::get("/Patient/$dump-csv?_since=2999-01-01"));
    assert_eq!((none.status, none.text().as_str()), (200, "id,resourceType\n"));
    for (path, status) in [
        ("/Practitioner/$dump-csv", 404),
        ("/fhir/Patient/$dump-csv", 404),
        ("/Patient/$dump-csv?fhir=true", 400),
        ("/Patient/$dump-csv?_since=2021-02-30", 400),
        ("/Patient/$dump-csv?_filter=colour%3Dred", 400),
        ("/Patient/$dump-csv?_filter=", 400),
    ] {
        outcome(&service.send(Request::get(path)), status);
    }
    outcome(&service.send(Request::get("/Patient/$dump-csv").header("Accept", "application/json")), 406);
    outcome(&service.send(Request::new("POST", "/Patient/$dump-csv")), 405);
    let reader = crate::support::role(&service.database, "reader");
    let response = service.proxy.send(&Request::get("/Patient/$dump-csv").basic(&reader, crate::support::PASSWORD));
    outcome(&response, 403);
}
