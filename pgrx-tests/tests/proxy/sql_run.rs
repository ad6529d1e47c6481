//! `$sql-run` of SQL on FHIR, and the names that it had before.

use fhir_bulk_tests::proxy::{Request, Response, base64};
use fhir_bulk_tests::wait_for;
use serde_json::{Value, json};

use crate::exports::HOST;
use crate::smart::{Signer, asking, line, service as smart_service, token_of, with};
use crate::support::{PASSWORD, Service, aidbox_rows, outcome, role, stall_patients};

pub const URL: &str = "http://example.org/ViewDefinition/given";

/// A view of the given names of patients.
pub fn view() -> Value {
    json!({"resourceType": "ViewDefinition", "url": URL, "version": "2", "status": "active", "resource": "Patient", "select": [
        {"column": [{"name": "id", "path": "id"}]}, {"forEach": "name", "column": [{"name": "given", "path": "given.first()"}]}]})
}

/// A query of that view with a parameter.
pub fn query(text: &str) -> Value {
    json!({"resourceType": "Library", "status": "active", "type": {"coding": [{"code": "sql-query"}]},
        "content": [{"contentType": "application/sql", "data": base64(text.as_bytes(), true)}],
        "relatedArtifact": [{"type": "depends-on", "label": "given", "resource": URL}],
        "parameter": [{"name": "name", "use": "in", "type": "string"}]})
}

/// Three patients, and the view as `v`.
fn service() -> Service {
    let service = Service::new();
    let mut client = service.connect();
    aidbox_rows(&mut client);
    client.batch_execute("SELECT bulk_create_table('ViewDefinition')").unwrap();
    let mut stored = view();
    stored["id"] = "v".into();
    let load = service.send(Request::post("/fhir/$load", "application/ndjson", stored.to_string()));
    assert_eq!(load.status, 200, "{}", load.text());
    service
}

pub fn post(path: &str, parameters: Value) -> Request {
    let body = json!({"resourceType": "Parameters", "parameter": parameters});
    Request::post(path, "application/fhir+json", body.to_string())
}

pub fn string(name: &str, value: &str) -> Value {
    json!({"name": name, "valueString": value})
}

pub fn resource(name: &str, value: Value) -> Value {
    json!({"name": name, "resource": value})
}

/// Asserts an OperationOutcome's status, the code of its issue, and what it is about.
#[track_caller]
pub fn refused(response: &Response, status: u16, code: &str, expression: Option<&str>) {
    let text = outcome(response, status);
    let issue = &response.json()["issue"][0];
    assert_eq!(issue["code"], code, "{text}");
    assert_eq!(issue["expression"][0].as_str(), expression, "{text}");
}

#[test]
fn a_stored_view_runs_by_its_canonical_in_the_format_that_is_asked_for() {
    let service = service();
    let csv = "id,given\npt-1,Alice\npt-2,Bob\npt-3,Charles\n";
    let ndjson = "{\"id\":\"pt-1\",\"given\":\"Alice\"}\n{\"id\":\"pt-2\",\"given\":\"Bob\"}\n{\"id\":\"pt-3\",\"given\":\"Charles\"}\n";
    let canonical = "subjectCanonical=http%3A%2F%2Fexample.org%2FViewDefinition%2Fgiven";
    for (query, accept, content_type, body) in [
        ("&_format=csv", "application/json", "text/csv", csv),
        ("%7C2&_format=csv&header=false", "*/*", "text/csv", &csv[9..]),
        ("", "*/*", "application/x-ndjson", ndjson),
        ("", "text/csv", "text/csv", csv),
        ("&_limit=1&_format=ndjson", "*/*", "application/x-ndjson", "{\"id\":\"pt-1\",\"given\":\"Alice\"}\n"),
        ("&patient=Patient/pt-2&_format=csv", "*/*", "text/csv", "id,given\npt-2,Bob\n"),
        ("&_since=2030-01-01T00:00:00Z&_format=csv", "*/*", "text/csv", "id,given\n"),
    ] {
        let response =
            service.send(Request::get(&format!("/fhir/$sql-run?{canonical}{query}")).header("Accept", accept));
        assert_eq!(response.status, 200, "{query}: {}", response.text());
        assert_eq!(response.header("content-type"), Some(content_type));
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
        assert_eq!(response.text(), body, "{query}");
    }
    let response = service.send(Request::get(&format!("/fhir/$sql-run?{canonical}&_format=json")));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.json().as_array().unwrap().len(), 3);
    let file = |response: Response| {
        assert_eq!(response.header("content-type"), Some("application/vnd.apache.parquet"));
        assert!(response.body.starts_with(b"PAR1") && response.body.ends_with(b"PAR1"), "{response:?}");
    };
    let accept = "application/vnd.apache.parquet";
    file(service.send(Request::get(&format!("/fhir/$sql-run?{canonical}&_format=parquet"))));
    file(service.send(Request::get(&format!("/fhir/$sql-run?{canonical}")).header("Accept", accept)));
    let of_query = json!([resource("subjectResource", query("SELECT * FROM given")), string("_format", "parquet")]);
    file(service.send(post("/fhir/$sql-run", of_query)));
    let own = format!("{HOST}/fhir/ViewDefinition/v");
    for reference in ["ViewDefinition/v", &own] {
        let response = service.send(Request::get(&format!("/fhir/$sql-run?subjectReference={reference}&_format=csv")));
        assert_eq!(response.text(), csv, "{reference}");
    }
}

#[test]
fn a_query_runs_with_values_that_are_bound() {
    let service = service();
    let library = query("SELECT id FROM given WHERE given = :name");
    let run = |value: &str| {
        let values = json!({"resourceType": "Parameters", "parameter": [string("name", value)]});
        service.send(post(
            "/fhir/$sql-run",
            json!([
                resource("subjectResource", library.clone()),
                resource("parameters", values),
                string("_format", "csv")
            ]),
        ))
    };
    assert_eq!(run("Bob").text(), "id\npt-2\n");
    assert_eq!(run("x' OR 'a' = 'a").text(), "id\n");
    // A dependency may be given, too, and is then that one.
    let mut other = view();
    other["select"][0]["column"][0]["path"] = "'given'".into();
    let response = service.send(post(
        "/fhir/$sql-run",
        json!([resource("subjectResource", query("SELECT id FROM given LIMIT 1")), resource("context", other)]),
    ));
    assert_eq!(response.text(), "{\"id\":\"given\"}\n");
}

#[test]
fn given_resources_and_bundles_are_transformed_instead_of_stored_ones() {
    let service = service();
    let patient = |id: &str| json!({"resourceType": "Patient", "id": id, "name": [{"given": ["Given"]}]});
    let bundle = json!({"resourceType": "Bundle", "type": "collection", "entry": [{"resource": patient("b")}]});
    let response = service.send(post(
        "/fhir/$sql-run?_format=csv",
        json!([resource("subjectResource", view()), resource("resource", patient("a")), resource("resource", bundle)]),
    ));
    assert_eq!(response.text(), "id,given\na,Given\nb,Given\n");
}

#[test]
fn errors_have_the_codes_and_expressions_of_the_operation() {
    let service = service();
    let get = |query: &str| service.send(Request::get(&format!("/fhir/$sql-run?{query}")));
    let run = |parameters: Value| service.send(post("/fhir/$sql-run", parameters));
    let with = |part: Value| run(json!([resource("subjectResource", view()), part]));
    let of_query = |text: &str, part: Option<Value>| {
        let mut parts = vec![resource("subjectResource", query(text))];
        parts.extend(part);
        run(parts.into())
    };
    let reference = |name: &str, value: &str| json!({"name": name, "valueReference": {"reference": value}});
    refused(&get(""), 400, "required", Some("subject"));
    refused(&run(json!([])), 400, "required", Some("subject"));
    let twice = run(json!([resource("subjectResource", view()), string("subjectCanonical", URL)]));
    refused(&twice, 400, "invalid", Some("subject"));
    for name in ["subjectResource", "parameters", "context", "resource"] {
        refused(&get(&format!("{name}=x")), 400, "invalid", Some(name));
    }
    let values = |part: Value| resource("parameters", json!({"resourceType": "Parameters", "parameter": [part]}));
    refused(&with(values(string("a", "b"))), 400, "invalid", Some("parameters"));
    let undeclared = of_query("SELECT 1 AS one FROM given", Some(values(string("other", "x"))));
    refused(&undeclared, 400, "invalid", Some("parameters"));
    let wrong_type = of_query("SELECT 1 AS one FROM given", Some(values(json!({"name": "name", "valueInteger": 1}))));
    refused(&wrong_type, 400, "invalid", Some("parameters"));
    let patient = resource("resource", json!({"resourceType": "Patient", "id": "x"}));
    refused(&of_query("SELECT 1 AS one FROM given", Some(patient)), 400, "invalid", Some("resource"));
    for context in
        [json!({"resourceType": "ViewDefinition"}), json!({"resourceType": "ViewDefinition", "url": "http://x"})]
    {
        refused(&of_query("SELECT 1 AS one", Some(resource("context", context))), 400, "invalid", Some("context"));
    }
    refused(&with(reference("patient", "Patient/nobody")), 400, "not-found", Some("patient"));
    refused(&with(reference("group", "Group/nobody")), 400, "not-found", Some("group"));
    refused(&with(string("source", "x")), 400, "not-supported", Some("source"));
    refused(&with(string("unheard", "x")), 400, "not-supported", Some("unheard"));
    for format in ["fhir", "xml"] {
        refused(&with(string("_format", format)), 400, "not-supported", Some("_format"));
    }
    refused(&with(string("_since", "yesterday")), 400, "invalid", Some("_since"));
    refused(&with(json!({"name": "_limit", "valueInteger": -1})), 400, "invalid", Some("_limit"));
    refused(&get("subjectCanonical=http://example.org/none"), 404, "not-found", Some("subject"));
    refused(&get("subjectReference=ViewDefinition/none"), 404, "not-found", Some("subject"));
    let device = json!({"resourceType": "ViewDefinition", "resource": "Device", "select": [{"column": [{"name": "id", "path": "id"}]}]});
    refused(&run(json!([resource("subjectResource", device)])), 404, "not-found", Some("subject"));
    let accept =
        post("/fhir/$sql-run", json!([resource("subjectResource", view())])).header("Accept", "application/fhir+json");
    refused(&service.send(accept), 406, "not-supported", None);
    refused(
        &run(json!([resource("subjectResource", json!({"resourceType": "Patient"}))])),
        422,
        "invalid",
        Some("subject"),
    );
    let mut bad = view();
    bad["select"][0]["column"][0]["path"] = "id.(".into();
    refused(&run(json!([resource("subjectResource", bad)])), 422, "invalid", Some("subject"));
    for text in ["SELECT nothing FROM given", "SELEC 1", "SELECT :other", "SELECT 1/0 FROM given", "SELECT 1; SELECT 2"]
    {
        refused(&of_query(text, None), 422, "invalid", Some("subject"));
    }
    // The place in the query, as its author wrote it.
    assert!(outcome(&of_query("SELECT nothing FROM given", None), 422).contains("at character 8"));
    refused(&of_query("SELECT set_config('role', 'postgres', false) AS x", None), 403, "forbidden", None);
    assert_eq!(service.send(Request::post("/fhir/$sql-run", "text/plain", "x")).status, 415);
}

#[test]
fn the_older_names_run_views() {
    let service = service();
    let csv = "id,given\npt-1,Alice\npt-2,Bob\npt-3,Charles\n";
    for request in [
        Request::get("/fhir/$viewdefinition-run?viewReference=ViewDefinition/v&_format=csv"),
        Request::get("/fhir/ViewDefinition/$run?viewReference=ViewDefinition/v&_format=csv"),
        Request::get("/fhir/ViewDefinition/v/$run?_format=text/csv"),
        post("/fhir/ViewDefinition/v/$run", json!([{"name": "_format", "valueCode": "csv"}])),
        post("/fhir/$viewdefinition-run", json!([resource("viewResource", view()), string("_format", "csv")])),
        post("/fhir/ViewDefinition/$run", json!([resource("viewResource", view()), string("_format", "csv")])),
    ] {
        let response = service.send(request);
        assert_eq!((response.status, response.text().as_str()), (200, csv));
    }
    refused(&service.send(Request::get("/fhir/ViewDefinition/none/$run")), 404, "not-found", Some("viewReference"));
    refused(&service.send(Request::get("/fhir/$viewdefinition-run")), 400, "required", Some("viewReference"));
    let subject = Request::get("/fhir/$viewdefinition-run?subjectReference=ViewDefinition/v");
    refused(&service.send(subject), 400, "not-supported", Some("subjectReference"));
    let twice = post("/fhir/ViewDefinition/v/$run", json!([resource("viewResource", view())]));
    refused(&service.send(twice), 400, "invalid", Some("viewResource"));
    // A view itself is read as any resource is.
    assert_eq!(service.send(Request::get("/fhir/ViewDefinition/v")).json()["url"], URL);
}

#[test]
fn rows_are_those_of_the_role_and_a_reader_who_leaves_ends_the_query() {
    let service = service();
    let other = role(&service.database, "other");
    let request = || post("/fhir/$sql-run", json!([resource("subjectResource", view()), string("_format", "csv")]));
    outcome(&service.proxy.send(&request().basic(&other, PASSWORD)), 403);
    service
        .connect()
        .batch_execute(&format!(
            "GRANT SELECT ON patient TO {other}; ALTER TABLE patient ENABLE ROW LEVEL SECURITY;
             CREATE POLICY p ON patient USING (id = 'pt-3')"
        ))
        .unwrap();
    assert_eq!(service.proxy.send(&request().basic(&other, PASSWORD)).text(), "id,given\npt-3,Charles\n");
    let mut client = service.database.connect();
    client.batch_execute("DROP POLICY p ON patient").unwrap();
    stall_patients(&mut client);
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%bulk_sql_run%' AND wait_event = 'PgSleep'";
    let mut count = || client.query_one(running, &[]).unwrap().get::<_, i64>(0);
    let exchange = service.proxy.open(&request().basic(&other, PASSWORD));
    wait_for("the query to run", || count() == 1);
    drop(exchange);
    wait_for("the query to be cancelled", || count() == 0);
}

#[test]
fn tokens_with_scopes_run_views_of_their_types_and_no_queries() {
    let signer = Signer::elliptic();
    let service = smart_service(|reader| line("nightly", &signer.jwks("k"), reader, "system/*.rs"), &[]);
    let reader = format!("{}_reader", service.database.name());
    service.connect().batch_execute(&format!("GRANT SELECT ON appointment TO {reader}")).unwrap();
    let token = |scopes: &str| token_of(&service.proxy.send(&asking(&signer.assertion("nightly", "k"), scopes)));
    let run =
        |scopes: &str, parameters: Value| service.proxy.send(&with(&token(scopes), post("/fhir/$sql-run", parameters)));
    let of_view = || json!([resource("subjectResource", view()), string("_format", "csv")]);
    for scopes in ["system/Patient.rs", "system/*.rs"] {
        let response = run(scopes, of_view());
        assert_eq!((response.status, response.text().lines().count()), (200, 4), "{scopes}: {}", response.text());
        let mut plain = query("SELECT 1 AS one");
        plain.as_object_mut().unwrap().remove("relatedArtifact");
        outcome(&run(scopes, json!([resource("subjectResource", plain)])), 403);
    }
    for scopes in ["system/Appointment.rs", "system/Patient.r"] {
        outcome(&run(scopes, of_view()), 403);
    }
    let of_patient = json!([
        resource(
            "subjectResource",
            json!({"resourceType": "ViewDefinition", "resource": "Appointment",
        "select": [{"column": [{"name": "id", "path": "id"}]}]})
        ),
        string("patient", "Patient/pt-1")
    ]);
    outcome(&run("system/Appointment.rs", of_patient.clone()), 403);
    assert_eq!(run("system/Appointment.rs system/Patient.r", of_patient).text().lines().count(), 2);
}

#[test]
fn the_operations_are_in_the_capability_statement() {
    let service = service();
    let metadata = service.send(Request::get("/fhir/metadata")).json();
    let operations = metadata["rest"][0]["operation"].as_array().unwrap();
    for name in ["sql-run", "viewdefinition-run", "sql-export", "viewdefinition-export"] {
        let found = operations.iter().find(|operation| operation["name"] == name);
        assert!(found.is_some_and(|found| found["definition"].is_string()), "{operations:?}");
    }
}
