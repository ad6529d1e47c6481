//! `$dump-sql`: a query of the caller's as CSV and other formats.

use fhir_bulk_tests::gunzip;
use fhir_bulk_tests::proxy::Request;
use serde_json::{Value, json};

use crate::support::{PASSWORD, Service, outcome, role};

fn service() -> Service {
    let service = Service::new();
    service
        .connect()
        .batch_execute(
            r#"SELECT bulk_create_table('Patient'); INSERT INTO patient (id, txid, status, resource) VALUES
            ('pt-1', 1, 'created', '{"name": [{"family": "Doe", "given": ["John"]}]}'),
            ('pt-2', 2, 'created', '{"name": [{"family": "Smith, \"Mike\""}]}')"#,
        )
        .unwrap();
    service
}

#[test]
fn the_documented_query_comes_as_csv_in_chunks() {
    let service = service();
    let yaml = "query:  select id, resource#>>'{name,0,family}' from patient order by id\nformat: csv # ndjson; sql; elastic-bulk?\n";
    let json = json!({"query": "select id, resource#>>'{name,0,family}' from patient order by id"}).to_string();
    for request in [Request::post("/$dump-sql", "text/yaml", yaml), Request::json("/$dump-sql", &json)] {
        let response = service.send(request);
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("content-type"), Some("application/CSV"));
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
        assert_eq!(response.text(), "pt-1,Doe\npt-2,\"Smith, \"\"Mike\"\"\"\n");
    }
    // As it is printed there, without a table, it has no columns to speak of.
    let printed = "query:  select id, resource#>>'{name,0,family}'\nformat: csv\n";
    let text = outcome(&service.send(Request::post("/$dump-sql", "text/yaml", printed)), 400);
    assert!(text.contains("column \"id\" does not exist") && text.contains("at character 8"), "{text}");
}

#[test]
fn each_format_has_its_content_type_and_options_go_along() {
    let service = service();
    let send = |body: Value| service.send(Request::json("/$dump-sql", &body.to_string()));
    let query = "select id, txid from patient order by id";
    let body = |response: &fhir_bulk_tests::proxy::Response| {
        assert_eq!(response.status, 200, "{}", response.text());
        (response.header("content-type").unwrap().to_owned(), response.text())
    };
    let text = |content_type: &str, body: &str| (content_type.to_owned(), body.to_owned());
    let ndjson = send(json!({"query": query, "format": "ndjson"}));
    assert_eq!(body(&ndjson).0, "application/ndjson");
    let lines: Vec<Value> = ndjson.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [json!({"id": "pt-1", "txid": 1}), json!({"id": "pt-2", "txid": 2})]);
    let array = send(json!({"query": query, "format": "json"}));
    assert_eq!((array.header("content-type"), array.json()), (Some("application/json"), json!(lines)));
    let tsv = send(json!({"query": query, "format": "tsv", "header": true}));
    assert_eq!(body(&tsv), text("text/tab-separated-values", "id\ttxid\npt-1\t1\npt-2\t2\n"));
    let sql = send(json!({"query": query, "format": "sql", "table": "t"}));
    assert_eq!(body(&sql).0, "application/sql");
    assert!(sql.text().starts_with("INSERT INTO"), "{}", sql.text());
    let elastic = send(json!({"query": query, "format": "elastic-bulk", "index": "i"}));
    assert_eq!(body(&elastic).0, "application/x-ndjson");
    assert_eq!(elastic.text().lines().count(), 4);
    let zipped = send(json!({"query": query, "gzip": true}));
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert_eq!(gunzip(&zipped.body), b"pt-1,1\npt-2,2\n");
    for (wrong, what) in [
        (json!({"query": query, "format": "xml"}), "csv"),
        (json!({"query": query, "format": "sql"}), "table"),
        (json!({"query": query, "frobnicate": 1}), "frobnicate"),
        (json!({"query": query, "gzip": "yes"}), "gzip"),
        (json!({"format": "csv"}), "query is missing"),
        (json!({"query": "select 1; select 2"}), ""),
        (json!({"query": "select 1/0"}), "division by zero"),
    ] {
        let told = outcome(&send(wrong.clone()), 400);
        assert!(told.contains(what), "{wrong}: {told}");
    }
}

#[test]
fn a_query_reads_with_the_callers_rights_and_writes_nothing() {
    let service = service();
    let other = role(&service.database, "other");
    let send = |query: &str, role: &str| {
        service.proxy.send(&Request::json("/$dump-sql", &json!({"query": query}).to_string()).basic(role, PASSWORD))
    };
    outcome(&send("select * from patient", &other), 403);
    assert_eq!(send("select current_user", &other).text(), format!("{other}\n"));
    for query in [
        "delete from patient returning id",
        "with gone as (delete from patient returning id) select * from gone",
        "select set_config('role', 'postgres', false)",
        "select lo_create(0)",
        "select nextval('transaction_id_seq')",
    ] {
        let response = send(query, &service.client);
        assert!(matches!(response.status, 400 | 403), "{query}: {} {}", response.status, response.text());
    }
    assert_eq!(send("select count(*) from patient", &service.client).text(), "2\n");
}
