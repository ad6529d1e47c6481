//! `$sql-export` of SQL on FHIR, and the name that it had before.

use fhir_bulk_tests::proxy::{Request, Response};
use fhir_bulk_tests::wait_for;
use serde_json::{Value, json};

use crate::exports::{HOST, download, path};
use crate::smart::{BASE, Signer, asking, line, service as smart_service, token_of, with};
use crate::sql_run::{URL, post, query, refused, resource, string, view};
use crate::support::{PASSWORD, Service, exporting, outcome, role, stall_patients};

/// Patients, the view of their names as `v`, and a place for exports.
fn service() -> Service {
    let service = exporting();
    service.connect().batch_execute("SELECT bulk_create_table('ViewDefinition')").unwrap();
    let mut stored = view();
    (stored["id"], stored["name"]) = ("v".into(), "given_names".into());
    let load = service.send(Request::post("/fhir/$load", "application/ndjson", stored.to_string()));
    assert_eq!(load.status, 200, "{}", load.text());
    service
}

fn subject(parts: Value) -> Value {
    json!({"name": "subject", "part": parts})
}

/// A subject that is a resource.
fn given(name: &str, given: Value) -> Value {
    subject(json!([string("name", name), resource("subjectResource", given)]))
}

fn export(parameters: Value) -> Request {
    post("/fhir/$sql-export", parameters).header("Prefer", "respond-async")
}

/// The value of a parameter.
fn of<'a>(parameters: &'a Value, name: &str) -> &'a Value {
    let found = parameters["parameter"].as_array().unwrap().iter().find(|parameter| parameter["name"] == name);
    let members = found.and_then(Value::as_object).into_iter().flatten();
    members.filter(|(member, _)| member.starts_with("value")).map(|(_, value)| value).next().unwrap_or(&Value::Null)
}

/// The files of each output by its name.
fn outputs(result: &Value) -> Vec<(String, Vec<Value>)> {
    let parameters = result["parameter"].as_array().unwrap().iter();
    let outputs = parameters.filter(|parameter| parameter["name"] == "output");
    let of = |output: &Value| {
        let parts = output["part"].as_array().unwrap();
        assert_eq!(parts.iter().filter(|part| part["name"] == "name").count(), 1, "{output}");
        let name =
            parts.iter().find(|part| part["name"] == "name").unwrap()["valueString"].as_str().unwrap().to_owned();
        let locations = parts.iter().filter(|part| part["name"] == "location").map(|part| part["valueUri"].clone());
        (name, locations.collect())
    };
    outputs.map(of).collect()
}

/// The address of the status of an export that was started.
#[track_caller]
fn started(response: &Response) -> String {
    assert_eq!(response.status, 202, "{}", response.text());
    path(response.header("content-location").unwrap()).to_owned()
}

/// Polls a status until the export has ended. Returns the result.
fn ended(service: &Service, status: &str) -> Response {
    let mut result = None;
    wait_for("the export to end", || {
        let poll = service.send(Request::get(status));
        match poll.status {
            303 => {
                assert_eq!(poll.text(), "");
                result = Some(path(poll.header("location").unwrap()).to_owned());
            }
            202 => {
                assert!(poll.header("x-progress").is_some() && poll.header("retry-after").is_some(), "{poll:?}");
                assert_eq!(of(&poll.json(), "status"), "in-progress");
            }
            status => assert_eq!(status, 429, "{}", poll.text()),
        }
        result.is_some()
    });
    service.send(Request::get(&result.unwrap()))
}

/// The only file of an output.
#[track_caller]
fn body(service: &Service, result: &Value, name: &str) -> String {
    let outputs = outputs(result);
    let (_, locations) = outputs.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{result}"));
    assert_eq!(locations.len(), 1);
    download(service, &locations[0]).text()
}

#[test]
fn views_and_queries_are_exported_together_and_their_files_are_in_the_result() {
    let service = service();
    let reference =
        json!({"name": "subjectReference", "valueReference": {"reference": format!("{HOST}/fhir/ViewDefinition/v")}});
    let values =
        |name: &str| resource("parameters", json!({"resourceType": "Parameters", "parameter": [string("name", name)]}));
    let kick_off = service.send(export(json!([
        string("clientTrackingId", "nightly"),
        subject(json!([json!({"name": "subjectCanonical", "valueCanonical": format!("{URL}|2")})])),
        subject(json!([string("name", "by reference"), reference])),
        subject(json!([string("name", "bob"), resource("subjectResource", query("SELECT id FROM given WHERE given = :name")), values("Bob")])),
        subject(json!([string("name", "none"), resource("subjectResource", query("SELECT id FROM given WHERE given = :name")), values("x' OR true --")])),
        {"name": "_format", "valueCode": "csv"}
    ])));
    let status = started(&kick_off);
    assert_eq!(kick_off.header("content-type"), Some("application/fhir+json"));
    let accepted = kick_off.json();
    assert_eq!((of(&accepted, "status"), of(&accepted, "clientTrackingId")), (&json!("accepted"), &json!("nightly")));
    assert_eq!(path(of(&accepted, "location").as_str().unwrap()), status);
    let id = of(&accepted, "exportId").as_str().unwrap().to_owned();

    let response = ended(&service, &status);
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/fhir+json")));
    assert!(response.header("expires").is_some_and(|date| date.ends_with(" GMT")), "{response:?}");
    let result = response.json();
    for (name, value) in
        [("exportId", id.as_str()), ("clientTrackingId", "nightly"), ("status", "completed"), ("_format", "csv")]
    {
        assert_eq!(of(&result, name), value, "{result}");
    }
    assert!(of(&result, "exportStartTime").as_str() <= of(&result, "exportEndTime").as_str(), "{result}");
    assert!(of(&result, "exportDuration").is_u64(), "{result}");
    let all = "id,given\npt-1,Alice\npt-2,Bob\npt-3,Charles\n";
    for (name, rows) in [("given_names", all), ("by reference", all), ("bob", "id\npt-2\n"), ("none", "id\n")] {
        assert_eq!(body(&service, &result, name), rows);
    }
    let locations: Vec<Value> = outputs(&result).into_iter().flat_map(|(_, locations)| locations).collect();
    assert_eq!(locations.len(), 4);
    assert_eq!(download(&service, &locations[0]).header("content-type"), Some("text/csv"));
    // Each status is of its own kind of export.
    outcome(&service.send(Request::get(&format!("/fhir/$export-status/{id}"))), 404);
    let of_resources = service.send(Request::get("/fhir/$export?_type=Patient").header("Prefer", "respond-async"));
    let other = started(&of_resources).replace("$export-status", "$sql-export-status");
    outcome(&service.send(Request::get(&other)), 404);
    outcome(&service.send(Request::get(&other.replace("status", "result"))), 404);

    assert_eq!(service.send(Request::new("DELETE", &status)).status, 202);
    for gone in [status.clone(), status.replace("status", "result")] {
        outcome(&service.send(Request::get(&gone)), 404);
    }
    outcome(&service.send(Request::new("DELETE", &status)), 404);
    wait_for("the files to be gone", || download(&service, &locations[0]).status == 404);
}

#[test]
fn the_format_is_ndjson_unless_another_one_is_asked_for_and_what_narrows_views_narrows_all() {
    let service = service();
    let run = |more: Value| {
        let library = query("SELECT id FROM given ORDER BY 1");
        let mut parts = vec![given("v", view()), given("q", library)];
        parts.extend(more.as_array().unwrap().iter().cloned());
        let response = ended(&service, &started(&service.send(export(parts.into()))));
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    };
    let patient = json!({"name": "patient", "valueReference": {"reference": "Patient/pt-2"}});
    let result = run(json!([patient]));
    assert_eq!(body(&service, &result, "v"), "{\"id\":\"pt-2\",\"given\":\"Bob\"}\n");
    assert_eq!(body(&service, &result, "q"), "{\"id\":\"pt-2\"}\n");
    assert_eq!(of(&result, "_format"), "ndjson");
    let file = &outputs(&result)[0].1[0];
    assert_eq!(download(&service, file).header("content-type"), Some("application/x-ndjson"));
    let result = run(
        json!([{"name": "_format", "valueCode": "json"}, {"name": "_since", "valueInstant": "2030-01-01T00:00:00Z"}]),
    );
    assert_eq!((body(&service, &result, "v"), body(&service, &result, "q")), ("[]\n".to_owned(), "[]\n".to_owned()));
    let result = run(json!([{"name": "_format", "valueCode": "csv"}, {"name": "header", "valueBoolean": false}]));
    assert_eq!(body(&service, &result, "q"), "pt-1\npt-2\npt-3\n");
    let result = run(json!([{"name": "_format", "valueCode": "parquet"}]));
    let file = download(&service, &outputs(&result)[0].1[0]);
    assert_eq!(file.header("content-type"), Some("application/vnd.apache.parquet"));
    assert!(file.body.starts_with(b"PAR1") && file.body.ends_with(b"PAR1"));
    // A dependency may be given, too, once for all.
    let mut other = view();
    other["select"][0]["column"][0]["path"] = "'x'".into();
    let result = run(json!([resource("context", other)]));
    assert_eq!(body(&service, &result, "q"), "{\"id\":\"x\"}\n{\"id\":\"x\"}\n{\"id\":\"x\"}\n");
}

#[test]
fn what_is_wrong_is_refused_at_the_kick_off_by_the_table_of_the_operation() {
    let service = service();
    let run = |parameters: Value| service.send(export(parameters));
    let with = |part: Value| run(json!([given("v", view()), part]));
    let alone = |text: &str| {
        let mut library = query(text);
        library.as_object_mut().unwrap().remove("relatedArtifact");
        library
    };
    let reference = |name: &str, value: &str| json!({"name": name, "valueReference": {"reference": value}});
    let canonical = |url: &str| subject(json!([{"name": "subjectCanonical", "valueCanonical": url}]));
    refused(&service.send(post("/fhir/$sql-export", json!([given("v", view())]))), 400, "required", None);
    refused(&service.send(Request::get("/fhir/$sql-export")), 400, "required", None);
    assert_eq!(service.send(Request::new("DELETE", "/fhir/$sql-export")).status, 405);
    refused(&run(json!([])), 400, "required", Some("subject"));
    refused(&run(json!([subject(json!([string("name", "x")]))])), 400, "required", Some("subject"));
    let twice = subject(json!([resource("subjectResource", view()), string("subjectCanonical", URL)]));
    refused(&run(json!([twice])), 400, "invalid", Some("subject"));
    refused(&run(json!([given("a", view()), given("a", view())])), 400, "invalid", Some("subject"));
    let of_view = subject(json!([
        resource("subjectResource", view()),
        resource("parameters", json!({"resourceType": "Parameters"}))
    ]));
    refused(&run(json!([of_view])), 400, "invalid", Some("parameters"));
    let values = |part: Value| resource("parameters", json!({"resourceType": "Parameters", "parameter": [part]}));
    for wrong in [string("other", "x"), json!({"name": "name", "valueInteger": 1})] {
        let subject =
            subject(json!([resource("subjectResource", query("SELECT :name AS n FROM given")), values(wrong)]));
        refused(&run(json!([subject])), 400, "invalid", Some("parameters"));
    }
    for context in
        [json!({"resourceType": "ViewDefinition"}), json!({"resourceType": "ViewDefinition", "url": "http://x"})]
    {
        refused(&with(resource("context", context)), 400, "invalid", Some("context"));
    }
    refused(&with(reference("patient", "Patient/nobody")), 400, "not-found", Some("patient"));
    refused(&with(reference("group", "Group/nobody")), 400, "not-found", Some("group"));
    refused(
        &run(json!([given("q", alone("SELECT 1 AS one")), reference("patient", "Patient/pt-1")])),
        400,
        "invalid",
        Some("patient"),
    );
    for name in ["source", "unheard", "resource", "view", "_type", "allowedTypes"] {
        refused(&with(string(name, "x")), 400, "not-supported", Some(name));
    }
    refused(&with(string("_format", "xml")), 400, "not-supported", Some("_format"));
    refused(&with(string("_format", "fhir")), 400, "invalid", Some("_format"));
    refused(&with(json!({"name": "_limit", "valueInteger": 1})), 400, "invalid", Some("_limit"));
    refused(&with(string("_since", "yesterday")), 400, "invalid", Some("_since"));
    refused(&with(string("header", "maybe")), 400, "invalid", Some("header"));
    refused(&with(json!({"name": "clientTrackingId", "valueInteger": 1})), 400, "invalid", Some("clientTrackingId"));
    refused(&run(json!([given("v", view()), canonical("http://example.org/none")])), 404, "not-found", Some("subject"));
    refused(
        &run(json!([subject(json!([reference("subjectReference", "ViewDefinition/none")]))])),
        404,
        "not-found",
        Some("subject"),
    );
    let mut unknown = query("SELECT 1");
    unknown["relatedArtifact"][0]["resource"] = "http://example.org/none".into();
    assert_eq!(run(json!([given("q", unknown)])).status, 404);
    let device = json!({"resourceType": "ViewDefinition", "resource": "Device", "select": [{"column": [{"name": "id", "path": "id"}]}]});
    refused(&run(json!([given("d", device)])), 404, "not-found", Some("subject"));
    refused(&run(json!([given("x", json!({"resourceType": "Patient"}))])), 422, "invalid", Some("subject"));
    let mut bad = view();
    bad["select"][0]["column"][0]["path"] = "id.(".into();
    refused(&run(json!([given("v", bad)])), 422, "invalid", Some("subject"));
    for text in ["SELECT nothing FROM given", "SELEC 1", "SELECT :other", "SELECT 1; SELECT 2", "SELECT 1 AS a, 2 AS a"]
    {
        refused(&run(json!([given("v", view()), given("q", query(text))])), 422, "invalid", Some("subject"));
    }
    let response = run(json!([given("v", view()), given("q", query("SELECT nothing FROM given"))]));
    let told = outcome(&response, 422);
    assert!(told.starts_with("subject 2: ") && told.contains("at character 8"), "{told}");
    refused(
        &run(json!([given("q", query("SELECT set_config('role', 'postgres', false) AS x"))])),
        403,
        "forbidden",
        None,
    );
    assert_eq!(
        service.send(Request::post("/fhir/$sql-export", "text/plain", "x").header("Prefer", "respond-async")).status,
        415
    );
    refused(
        &service.send(export(json!([given("v", view())])).header("Accept", "text/csv")),
        406,
        "not-supported",
        None,
    );
    let count = "SELECT count(*) FROM fhir_bulk_internal.bulk_job";
    assert_eq!(service.database.connect().query_one(count, &[]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn a_job_that_fails_says_so_in_its_result_and_one_that_runs_has_none() {
    let service = service();
    let library = query("SELECT 1 / (length(id) - 4) AS x FROM given");
    let status = started(&service.send(export(json!([given("v", view()), given("q", library)]))));
    for _ in 0..2 {
        let result = ended(&service, &status);
        refused(&result, 500, "exception", None);
        assert_eq!(outcome(&result, 500), "subject 2: division by zero");
    }
    stall_patients(&mut service.database.connect());
    let mut admin = service.database.connect();
    let status = started(&service.send(export(json!([given("v", view())]))));
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'fhir_bulk job worker' AND wait_event = 'PgSleep'
        AND datname = current_database()";
    let mut count = || admin.query_one(running, &[]).unwrap().get::<_, i64>(0);
    wait_for("the export to run", || count() == 1);
    let poll = service.send(Request::get(&status));
    assert_eq!((poll.status, poll.header("x-progress")), (202, Some("0 rows")), "{poll:?}");
    outcome(&service.send(Request::get(&status.replace("status", "result"))), 404);
    // Whose export it is decides who sees it.
    let other = role(&service.database, "other");
    for address in [status.clone(), status.replace("status", "result")] {
        outcome(&service.proxy.send(&Request::get(&address).basic(&other, PASSWORD)), 404);
    }
    assert_eq!(service.send(Request::new("DELETE", &status)).status, 202);
    wait_for("the export to be cancelled", || count() == 0);
    outcome(&service.send(Request::get(&status)), 404);
}

#[test]
fn the_older_name_exports_views() {
    let service = service();
    let post =
        |parts: Value| service.send(post("/fhir/$viewdefinition-export", parts).header("Prefer", "respond-async"));
    let stored = json!({"name": "view", "part": [{"name": "viewReference", "valueReference": {"reference": "ViewDefinition/v"}}]});
    let given = json!({"name": "view", "part": [string("name", "mine"), resource("viewResource", view())]});
    let status = started(&post(json!([stored, given, {"name": "_format", "valueCode": "csv"}])));
    let result = ended(&service, &status).json();
    let rows = "id,given\npt-1,Alice\npt-2,Bob\npt-3,Charles\n";
    assert_eq!(
        (body(&service, &result, "given_names"), body(&service, &result, "mine")),
        (rows.to_owned(), rows.to_owned())
    );
    assert_eq!(path(of(&result, "cancelUrl").as_str().unwrap()), status);
    refused(&post(json!([])), 400, "required", Some("view"));
    refused(&post(json!([super::sql_export::given("x", view())])), 400, "not-supported", Some("subject"));
    let absent = json!({"name": "view", "part": [{"name": "viewReference", "valueReference": {"reference": "ViewDefinition/x"}}]});
    refused(&post(json!([absent])), 404, "not-found", Some("view"));
}

#[test]
fn who_may_not_export_or_has_too_many_exports_or_no_place_for_them_is_told() {
    let service = service();
    let mut admin = service.database.connect();
    let other = role(&service.database, "other");
    admin.batch_execute(&format!("GRANT SELECT ON patient TO {other}")).unwrap();
    let request = || export(json!([given("v", view())]));
    outcome(&service.proxy.send(&request().basic(&other, PASSWORD)), 403);
    admin
        .batch_execute(&format!(
            "GRANT EXECUTE ON FUNCTION bulk_export(jsonb) TO {other}; ALTER DATABASE {} SET fhir_bulk.max_exports_per_role = 1",
            service.database.name()
        ))
        .unwrap();
    stall_patients(&mut admin);
    let proxy = service.proxy_again();
    let send = |request: Request| proxy.send(&request.basic(&other, PASSWORD));
    assert_eq!(send(request()).status, 202);
    refused(&send(request()), 429, "throttled", None);
    let unset = format!("ALTER DATABASE {} RESET fhir_bulk.export_location", service.database.name());
    admin.batch_execute(&unset).unwrap();
    let proxy = service.proxy_again();
    refused(&proxy.send(&service.signed(request())), 501, "not-supported", None);
}

#[test]
fn tokens_with_scopes_export_views_of_their_types_and_no_queries() {
    let signer = Signer::elliptic();
    let service = smart_service(|reader| line("nightly", &signer.jwks("k"), reader, "system/*.rs"), &[]);
    let (reader, location) = (format!("{}_reader", service.database.name()), service.database.path("exports"));
    service
        .database
        .connect()
        .batch_execute(&format!(
            "ALTER DATABASE {} SET fhir_bulk.export_location = 'file://{}';
             GRANT EXECUTE ON FUNCTION bulk_export(jsonb), bulk_export_cancel(text) TO {reader}",
            service.database.name(),
            location.display()
        ))
        .unwrap();
    let proxy = service.proxy_again();
    let token = |scopes: &str| token_of(&proxy.send(&asking(&signer.assertion("nightly", "k"), scopes)));
    let run = |token: &str, parameters: Value| proxy.send(&with(token, export(parameters)));
    for scopes in ["system/Patient.rs", "system/*.rs"] {
        let token = token(scopes);
        let response = run(&token, json!([given("v", view())]));
        assert_eq!(response.status, 202, "{scopes}: {}", response.text());
        let status = response.header("content-location").unwrap().strip_prefix(BASE).unwrap().to_owned();
        wait_for("the export to end", || proxy.send(&with(&token, Request::get(&status))).status == 303);
        let mut plain = query("SELECT 1 AS one");
        plain.as_object_mut().unwrap().remove("relatedArtifact");
        outcome(&run(&token, json!([given("q", plain)])), 403);
    }
    for scopes in ["system/Appointment.rs", "system/Patient.r"] {
        outcome(&run(&token(scopes), json!([given("v", view())])), 403);
    }
}
