//! `/jobs`, `/rejects`, `/types` and `/caller`: what a caller has here, as the page at `/ui` and other clients ask for it.

use fhir_bulk_tests::proxy::{Request, Response, base64};
use fhir_bulk_tests::wait_for;
use serde_json::{Value, json};

use crate::auth::hs256;
use crate::support::{PASSWORD, Service, exporting, file, outcome, role, target};

/// What a path answers, which must be 200.
#[track_caller]
fn get(service: &Service, path: &str) -> Value {
    answered(&unhurried(service, path))
}

/// An answer to a request that is sent again while it comes too often.
fn unhurried(service: &Service, path: &str) -> Response {
    let mut response = None;
    wait_for("an answer", || response.insert(service.send(Request::get(path))).status != 429);
    response.unwrap()
}

#[track_caller]
fn answered(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// The values of a member of each row.
fn all(rows: &Value, name: &str) -> Vec<Value> {
    rows.as_array().unwrap().iter().map(|row| row[name].clone()).collect()
}

/// The path to which a list links.
fn next(list: &Value) -> Option<String> {
    let link = list["link"].as_array()?.first()?;
    assert_eq!(link["relation"], "next", "{list}");
    Some(link["url"].as_str().unwrap().strip_prefix("http://fhir.example.org").unwrap().to_owned())
}

/// Waits until a job has ended; what `/jobs/{id}` has of it.
#[track_caller]
fn ended(service: &Service, id: &str) -> Value {
    let mut job = Value::Null;
    wait_for("the job to end", || {
        job = get(service, &format!("/jobs/{id}"));
        !["waiting", "active"].contains(&job["status"].as_str().unwrap())
    });
    job
}

#[test]
fn jobs_of_all_kinds_are_listed_the_newest_first_in_pages_and_by_kind_and_state() {
    let service = exporting();
    let add = "SELECT bulk_import(jsonb_build_object('id', 'i' || n, 'inputs', jsonb_build_array(jsonb_build_object('url', 'file:///none'))))
        FROM generate_series(1, 7) n";
    service.connect().batch_execute(add).unwrap();
    let started = service.send(Request::get("/fhir/$export?_type=Patient").header("Prefer", "respond-async"));
    assert_eq!(started.status, 202, "{}", started.text());
    let export = started.header("content-location").unwrap().rsplit('/').next().unwrap().to_owned();
    let expected: Vec<Value> =
        std::iter::once(export.as_str()).chain(["i7", "i6", "i5", "i4", "i3", "i2", "i1"]).map(Value::from).collect();
    for limit in [1, 3, 7, 8, 100] {
        let (mut seen, mut path) = (Vec::new(), Some(format!("/jobs?limit={limit}")));
        while let Some(from) = path {
            let list = get(&service, &from);
            let ids = all(&list["jobs"], "id");
            assert!((1..=limit).contains(&ids.len()), "{list}");
            seen.extend(ids);
            path = next(&list);
        }
        assert_eq!(seen, expected, "{limit}");
    }
    assert_eq!(all(&get(&service, "/jobs?kind=export")["jobs"], "id"), [json!(export)]);
    assert_eq!(all(&get(&service, "/jobs?kind=submission")["jobs"], "id"), [json!(null); 0]);
    for id in &expected {
        ended(&service, id.as_str().unwrap());
    }
    let failed = get(&service, "/jobs?status=failed&limit=4");
    assert_eq!(all(&failed["jobs"], "id"), ["i7", "i6", "i5", "i4"].map(Value::from));
    assert_eq!(all(&failed["jobs"], "inputsFailed"), [1, 1, 1, 1].map(Value::from));
    let rest = get(&service, &next(&failed).unwrap());
    assert_eq!(all(&rest["jobs"], "id"), ["i3", "i2", "i1"].map(Value::from));
    assert_eq!(get(&service, "/jobs?status=active,waiting"), json!({"jobs": []}));
    let finished = get(&service, "/jobs?status=active,finished");
    assert_eq!(all(&finished["jobs"], "id"), [json!(export)]);
    let job = &finished["jobs"][0];
    assert_eq!(
        (&job["kind"], &job["inputsTotal"], job["progress"].as_f64()),
        (&json!("export"), &json!(1), Some(1.0)),
        "{job}"
    );
    for wrong in ["limit=0", "limit=101", "status=done", "kind=load", "after=x", "other=1", "kind="] {
        outcome(&service.send(Request::get(&format!("/jobs?{wrong}"))), 400);
    }
    // A place that no page has given, although it has the form of one.
    let made = base64(b"2026-99-99T00:00:00 0", false);
    outcome(&service.send(Request::get(&format!("/jobs?after={made}"))), 400);
    // A role sees its own, whoever it watches.
    let other = role(&service.database, "other");
    let grant = format!("GRANT pg_monitor TO {other}");
    service.database.connect().batch_execute(&grant).unwrap();
    let theirs = service.proxy.send(&Request::get("/jobs").basic(&other, PASSWORD));
    assert_eq!(answered(&theirs), json!({"jobs": []}));
    outcome(&service.proxy.send(&Request::get("/jobs/i1").basic(&other, PASSWORD)), 404);
    outcome(&service.proxy.send(&Request::get("/jobs")), 401);
}

#[test]
fn a_job_has_its_report_and_an_import_its_inputs_in_pages() {
    let service = exporting();
    let patient = |name: &str| service.database.file(name, "{\"resourceType\":\"Patient\",\"id\":\"n-1\"}\n");
    let mut inputs: Vec<Value> = (1..=5).map(|n| json!({"url": patient(&format!("P{n}.ndjson"))})).collect();
    inputs.insert(2, json!({"url": service.database.file("Broken.ndjson", "{"), "resourceType": "Patient"}));
    let body = json!({"id": "a.b~c", "inputs": inputs}).to_string();
    let started = service.send(Request::json("/fhir/$import", &body));
    assert_eq!(started.status, 200, "{}", started.text());
    let job = ended(&service, "a.b~c");
    assert_eq!((&job["kind"], &job["id"], &job["status"]), (&json!("import"), &json!("a.b~c"), &json!("finished")));
    assert_eq!(
        (&job["inputsTotal"], &job["inputsFailed"], &job["resources"]),
        (&json!(6), &json!(1), &json!(5)),
        "{job}"
    );
    assert_eq!((&job["report"]["type"], &job["report"]["inputs"]), (&json!("fhir"), &json!(null)));
    assert_eq!(all(&job["inputs"], "number"), (1..=6).map(Value::from).collect::<Vec<_>>());
    let broken = &job["inputs"][2];
    assert!(broken["error"].as_str().unwrap().contains("line 1"), "{broken}");
    assert_eq!((&broken["status"], &broken["total"]), (&json!("failed"), &json!(0)), "{broken}");
    let (mut seen, mut path) = (Vec::new(), Some("/jobs/a.b~c?limit=4&kind=import".to_owned()));
    while let Some(from) = path {
        let page = get(&service, &from);
        seen.extend(all(&page["inputs"], "number"));
        path = next(&page);
    }
    assert_eq!(seen, (1..=6).map(Value::from).collect::<Vec<_>>());
    let failed = get(&service, "/jobs/a.b~c?status=failed&limit=1");
    assert_eq!((all(&failed["inputs"], "number"), next(&failed)), (vec![json!(3)], None));
    outcome(&unhurried(&service, "/jobs/a.b~c?kind=export"), 404);
    outcome(&unhurried(&service, "/jobs/a.b~c?after=x"), 400);
    // An export has its manifest.
    let started = service.send(Request::get("/fhir/$export?_type=Patient").header("Prefer", "respond-async"));
    let id = started.header("content-location").unwrap().rsplit('/').next().unwrap().to_owned();
    let export = ended(&service, &id);
    assert_eq!(export["inputs"], json!(null));
    let output = &export["report"]["output"][0];
    assert_eq!((&output["type"], &output["count"]), (&json!("Patient"), &json!(4)), "{export}");
    let url = output["url"].as_str().unwrap().strip_prefix("http://fhir.example.org").unwrap();
    assert_eq!(service.proxy.send(&Request::get(url)).status, 200);
}

/// Tokens of one role, each with its own subject: the jobs of one are none of the other's.
#[test]
fn tokens_of_several_subjects_have_jobs_of_their_own_and_the_role_has_all() {
    let secret = "0123456789abcdef0123456789abcdef";
    let service = Service::with(|database| {
        let authenticator = role(database, "authenticator");
        let client = format!("{}_client", database.name());
        database.connect().batch_execute(&format!("GRANT {client} TO {authenticator}")).unwrap();
        let own = target(database, &format!("user={authenticator} password='{PASSWORD}'"));
        ["--jwt-secret-file", &file(database, "secret", secret), "--database", &own].map(str::to_owned).to_vec()
    });
    let token = |subject: &str| hs256(&json!({"role": service.client, "sub": subject}), secret);
    let as_subject = |subject: &str, request: Request| {
        let bearer = format!("Bearer {}", token(subject));
        answered(&service.proxy.send(&request.header("Authorization", &bearer)))
    };
    for (subject, count) in [("ann", 1), ("bob", 2)] {
        let inputs: Vec<Value> = (0..count).map(|n| json!({"url": format!("file:///none/{subject}/{n}")})).collect();
        as_subject(subject, Request::json("/$import", &json!({"id": "same", "inputs": inputs}).to_string()));
    }
    for (subject, count) in [("ann", 1), ("bob", 2)] {
        let list = as_subject(subject, Request::get("/jobs"));
        assert_eq!(all(&list["jobs"], "subject"), [json!(subject)], "{list}");
        let job = as_subject(subject, Request::get("/jobs/same"));
        assert_eq!(job["inputs"].as_array().unwrap().len(), count, "{job}");
        assert!(all(&job["inputs"], "url").iter().all(|url| url.as_str().unwrap().contains(subject)), "{job}");
        assert_eq!(as_subject(subject, Request::get("/caller"))["subject"], json!(subject));
    }
    assert_eq!(as_subject("eve", Request::get("/jobs")), json!({"jobs": []}));
    // The role itself has the jobs of all, and of one id the last one, with its own inputs only.
    assert_eq!(all(&get(&service, "/jobs")["jobs"], "subject"), ["bob", "ann"].map(Value::from));
    let last = get(&service, "/jobs/same");
    assert_eq!((&last["subject"], last["inputs"].as_array().unwrap().len()), (&json!("bob"), 2), "{last}");
}

#[test]
fn lines_that_a_load_passed_over_are_shown_to_who_loaded_them_whatever_is_in_them() {
    let service = Service::new();
    let lines: [&[u8]; 4] =
        [b"{\"id\": \"\x1b[31mred\"", b"{\"id\": \"\xff\xfe\"}", "\u{202e}{<script>".as_bytes(), b"{\"id\": \"p-1\"}"];
    let load = || {
        let request = Request::post("/Patient/$load?on_error=skip", "application/ndjson", lines.join(&b'\n'));
        assert_eq!(answered(&service.send(request)), json!({"total": 1, "errors": 3}));
    };
    load();
    let rejects = get(&service, "/rejects");
    assert_eq!(next(&rejects), None);
    assert_eq!(all(&rejects["rejects"], "line"), [1, 2, 3].map(Value::from));
    let shown = &rejects["rejects"];
    assert_eq!(shown[0]["content"], "{\"id\": \"\u{1b}[31mred\"");
    assert_eq!((&shown[1]["content"], &shown[1]["contentBase64"]), (&json!(null), &json!(base64(lines[1], true))));
    assert_eq!(shown[2]["content"], "\u{202e}{<script>");
    assert!(all(shown, "error").iter().all(|error| !error.as_str().unwrap().is_empty()), "{shown}");
    assert!(all(shown, "sqlstate").iter().all(|state| state.as_str().unwrap().starts_with("22")), "{shown}");
    // All of a load are of one time, and a page may end among them.
    load();
    let (mut seen, mut path) = (Vec::new(), Some("/rejects?limit=2".to_owned()));
    while let Some(from) = path {
        let page = get(&service, &from);
        seen.extend(all(&page["rejects"], "line"));
        path = next(&page);
    }
    assert_eq!(seen, [1, 2, 3, 1, 2, 3].map(Value::from));
    let source = shown[0]["source"].as_str().unwrap().replace(' ', "%20");
    assert_eq!(get(&service, &format!("/rejects?source={source}"))["rejects"].as_array().unwrap().len(), 6);
    assert_eq!(get(&service, "/rejects?source=other"), json!({"rejects": []}));
    let other = role(&service.database, "other");
    let theirs = service.proxy.send(&Request::get("/rejects").basic(&other, PASSWORD));
    assert_eq!(answered(&theirs), json!({"rejects": []}));
}

#[test]
fn types_have_estimates_at_once_and_a_count_on_demand_and_a_caller_is_told_who_it_is() {
    let service = exporting();
    service.database.connect().batch_execute("ANALYZE").unwrap();
    let types = get(&service, "/types");
    let named = |types: &Value| all(&types["types"], "type");
    assert_eq!(named(&types), ["Appointment", "Patient"].map(Value::from));
    assert_eq!(all(&types["types"], "resources"), [3, 3].map(Value::from));
    assert!(all(&types["types"], "bytes").iter().all(|bytes| bytes.as_i64().unwrap() > 0), "{types}");
    let deleted = "UPDATE patient SET status = 'deleted' WHERE id = 'pt-1'";
    service.connect().batch_execute(deleted).unwrap();
    let count = get(&service, "/types/patient");
    assert_eq!((&count["type"], &count["resources"], &count["exact"]), (&json!("Patient"), &json!(2), &json!(true)));
    outcome(&service.send(Request::get("/types/Nothing")), 404);
    // Whoever may read patients is told of patients.
    let tenant = |path: &str| service.proxy.send(&Request::get(path).header("x-api-key", "clk_live_abc123"));
    assert_eq!(named(&answered(&tenant("/types"))), [json!("Patient")]);
    outcome(&tenant("/types/Appointment"), 403);
    let caller = answered(&tenant("/caller"));
    assert_eq!(caller["role"], format!("{}_tenant", service.database.name()));
    assert_eq!((&caller["extension"], &caller["fhirVersion"]), (&json!("0.2.0"), &json!("4.0.1")), "{caller}");
    assert!(caller["proxy"].is_string() && caller["postgresql"].is_string(), "{caller}");
}
