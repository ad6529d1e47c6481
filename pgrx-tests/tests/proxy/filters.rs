//! Search queries over HTTP: `_filter` of `$dump`, `_typeFilter` of `$export`.

use fhir_bulk_tests::gunzip;
use fhir_bulk_tests::proxy::{Request, Response};
use serde_json::{Value, json};

use crate::exports::{download, finished, ids, kick_off, path};
use crate::support::{Service, exporting, outcome, value};

/// Patients and appointments, and observations of which each filter here finds some.
fn observing() -> Service {
    let service = exporting();
    let observation = |id: &str, more: Value| {
        let mut resource = json!({"resourceType": "Observation", "id": id, "status": "final"});
        resource.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        resource.to_string() + "\n"
    };
    let category = |code: &str| json!([{"coding": [{"system": "http://example.org/category", "code": code}]}]);
    let code = |code: &str| json!({"coding": [{"system": "http://loinc.org", "code": code}]});
    let lines = [
        observation(
            "o-1",
            json!({"category": category("laboratory"), "code": code("8302-2"), "effectiveDateTime": "2024-01-01T00:30:00+01:00"}),
        ),
        observation(
            "o-2",
            json!({"category": category("vital-signs"), "code": code("85354-9"), "effectiveDateTime": "2024-06-01"}),
        ),
        observation(
            "o-3",
            json!({"status": "preliminary", "category": category("other"), "code": code("a,b"), "effectiveDateTime": "2025"}),
        ),
        observation("o-4", json!({"code": code("c"), "valueString": "Two words and more"})),
    ];
    let loaded = service.send(Request::post("/fhir/Observation/$load", "application/ndjson", lines.concat()));
    assert_eq!(loaded.status, 200, "{}", loaded.text());
    service
}

fn lines(body: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids_in(body: &[u8]) -> Vec<String> {
    let mut ids: Vec<String> = lines(body).iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// Asserts that a request is refused because of a parameter; why.
#[track_caller]
fn refused(response: &Response, parameter: &str, code: &str) -> String {
    let text = outcome(response, 400);
    let issue = &response.json()["issue"][0];
    assert_eq!((&issue["expression"], &issue["code"]), (&json!([parameter]), &json!(code)), "{text}");
    text
}

fn post(service: &Service, prefer: &str, parameters: &Value) -> Response {
    let body = json!({"resourceType": "Parameters", "parameter": parameters}).to_string();
    service.send(Request::post("/fhir/$export", "application/fhir+json", body).header("Prefer", prefer))
}

fn manifest(service: &Service, started: &Response) -> Value {
    assert_eq!(started.status, 202, "{}", started.text());
    let done = finished(service, path(started.header("content-location").unwrap()));
    assert_eq!(done.status, 200, "{}", done.text());
    done.json()
}

#[test]
fn a_dump_has_what_its_filter_lets_through_however_the_client_encodes_it() {
    let service = observing();
    for (filter, expected) in [
        ("code=8302-2", &["o-1"][..]),
        ("code=http://loinc.org%7C8302-2", &["o-1"]),
        ("code%3D85354-9%26status%3Dfinal", &["o-2"]),
        ("status=final%26date=ge2024-01-01", &["o-2"]),
        // Commas between values, one within a value.
        ("category=laboratory,vital-signs", &["o-1", "o-2"]),
        ("category%3Dlaboratory%2Cvital-signs", &["o-1", "o-2"]),
        ("category%3Dlaboratory%252Cvital-signs", &["o-1", "o-2"]),
        ("code%3Da%5C%2Cb", &["o-3"]),
        ("code=a%255C%252Cb", &["o-3"]),
        ("code:not=8302-2", &["o-2", "o-3", "o-4"]),
        // An offset written by hand, and as forms encode it.
        ("date=ge2024-01-01T00:00:00+01:00", &["o-1", "o-2", "o-3"]),
        ("date%3Dge2024-01-01T00%3A00%3A00%2B01%3A00", &["o-1", "o-2", "o-3"]),
        ("date=ge2024-01-01T00:00:00%252B01:00", &["o-1", "o-2", "o-3"]),
        ("date=ge2024-01-01T00:00:00Z", &["o-2", "o-3"]),
        // Spaces, as forms, browsers and careful people encode them.
        ("value-string%3Dtwo+words", &["o-4"]),
        ("value-string%3Dtwo%20words", &["o-4"]),
        ("value-string=two%2520words", &["o-4"]),
        ("status=amended", &[]),
    ] {
        let dump = |more: &str| service.send(Request::get(&format!("/Observation/$dump?_filter={filter}{more}")));
        let response = dump("");
        assert_eq!((response.status, response.is_whole), (200, true), "{filter}: {}", response.text());
        assert_eq!(ids_in(&response.body), expected, "{filter}");
        assert_eq!(ids_in(&gunzip(&dump("&gzip=true&fhir=true").body)), expected, "{filter}");
        assert_eq!(ids_in(&dump("&_since=2000-01-01").body), expected, "{filter}");
        assert_eq!(dump("&_since=2100-01-01").body, b"", "{filter}");
    }
    let fhir = service.send(Request::get("/Observation/$dump?fhir=true&_filter=code=8302-2"));
    assert_eq!(lines(&fhir.body)[0]["effectiveDateTime"], "2024-01-01T00:30:00+01:00");
}

#[test]
fn a_dump_with_a_filter_that_is_not_understood_is_refused_by_the_name_of_its_parameter() {
    let service = observing();
    let dump = |query: &str| service.send(Request::get(&format!("/Observation/$dump?{query}")));
    for (filter, parameter, code) in [
        ("frobnicate=1", "frobnicate", "not-supported"),
        ("status=final%26frobnicate=1", "frobnicate", "not-supported"),
        ("frob%22nicate=1", "frob\"nicate", "not-supported"),
        ("subject.name=x", "subject.name", "not-supported"),
        ("subject:Patient.name=x", "subject:Patient.name", "not-supported"),
        ("_sort=date", "_sort", "not-supported"),
        ("code:in=x", "code:in", "not-supported"),
        ("date=ap2024", "date", "not-supported"),
        ("date=yesterday", "date", "invalid"),
        ("date=2024-02-30", "date", "invalid"),
        ("value-quantity=x", "value-quantity", "invalid"),
        ("code:missing=perhaps", "code:missing", "invalid"),
        ("status", "status", "invalid"),
        ("code=%25zz", "code", "invalid"),
        ("code=%25ff", "code", "invalid"),
        ("code=%2500", "code", "invalid"),
    ] {
        let text = refused(&dump(&format!("_filter={filter}")), parameter, code);
        assert!(text.contains(parameter), "{text}");
    }
    let values = vec!["x"; 10_000].join(",");
    refused(&dump(&format!("_filter=code={values}")), "code", "invalid");
    for wrong in ["_filter=", "_filter", "_filter=code=x%ff"] {
        refused(&dump(wrong), "_filter", "invalid");
    }
    refused(&dump("_filter=code=1&_filter=code=2"), "_filter", "invalid");
    let text = refused(&dump("_filter=code=1&date=2"), "date", "invalid");
    assert!(text.contains("%26"), "{text}");
    // What does not fit into a URL is refused before it is read.
    let long = dump(&format!("_filter=code={}", "x".repeat(1 << 20)));
    assert!(matches!(long.status, 414 | 431), "{long:?}");
    let most = "x".repeat((64 << 10) - 100);
    assert_eq!(dump(&format!("_filter=code={most}")).status, 200);
}

#[test]
fn an_export_has_what_its_type_filters_let_through_whether_they_are_joined_or_repeated() {
    let service = observing();
    let check = |started: Response, observations: &[&str], patients: &[&str]| {
        let found = manifest(&service, &started);
        assert_eq!(ids(&service, &found, "Observation"), observations, "{found}");
        assert_eq!(ids(&service, &found, "Patient"), patients, "{found}");
        assert_eq!(found["error"], json!([]));
    };
    let all = ["pt-1", "pt-2", "pt-3"];
    for (query, observations, patients) in [
        // As smart-fetch joins queries: their own commas are encoded once more.
        (
            "_typeFilter=Observation%3Fcategory%3Dlaboratory%252Cvital-signs%2CPatient%3Fgiven%3Dalice",
            &["o-1", "o-2"][..],
            &["pt-1"][..],
        ),
        (
            "_typeFilter=Observation%3Fcategory%3Dlaboratory,vital-signs,Patient?given=alice,bob",
            &["o-1", "o-2"],
            &all[..2],
        ),
        ("_typeFilter=Observation?category=laboratory&_typeFilter=Observation?code=a%255C,b", &["o-1", "o-3"], &all),
        ("_typeFilter=Observation?category=laboratory%26status=preliminary", &[], &all),
        ("_typeFilter=Observation?date=ge2024-01-01T00:00:00+01:00", &["o-1", "o-2", "o-3"], &all),
        ("_typeFilter=Observation%3Fdate%3Dge2024-01-01T00:00:00%2B01:00", &["o-1", "o-2", "o-3"], &all),
        ("_typeFilter=Observation%3Fvalue-string%3Dtwo+words", &["o-4"], &all),
    ] {
        check(kick_off(&service, &format!("?_type=Observation,Patient&{query}")), observations, patients);
    }
    let string = |name: &str, value: &str| json!({"name": name, "valueString": value});
    let types = [string("_type", "Observation"), string("_type", "Patient")];
    let posted = |queries: &[&str]| {
        let filters = queries.iter().map(|query| string("_typeFilter", query));
        post(&service, "respond-async", &types.iter().cloned().chain(filters).collect())
    };
    check(posted(&["Observation?category=laboratory,vital-signs", "Patient?given=alice"]), &["o-1", "o-2"], &["pt-1"]);
    check(posted(&[r"Observation?code=a\,b", "Observation?code=c"]), &["o-3", "o-4"], &all);
    check(posted(&["Observation?category=laboratory%2Cvital-signs,Patient?given=alice"]), &["o-1", "o-2"], &["pt-1"]);
    check(posted(&["Observation?date=ge2024-01-01T00:00:00+01:00&status=final"]), &["o-1", "o-2"], &all);
}

#[test]
fn an_export_with_a_type_filter_that_is_not_understood_starts_nothing() {
    let service = observing();
    let get = |query: &str| kick_off(&service, &format!("?_type=Observation&_typeFilter={query}"));
    let values = vec!["x"; 10_000].join(",");
    for (query, code) in [
        ("Observation?frobnicate=1", "not-supported"),
        ("Observation?code=8302-2,Observation?frobnicate=1", "not-supported"),
        ("Observation?_sort=date", "not-supported"),
        ("Observation?subject:Patient.name=x", "not-supported"),
        ("Observation?date=yesterday", "invalid"),
        ("Observation?status", "invalid"),
        ("Observation", "invalid"),
        ("?code=8302-2", "invalid"),
        ("code=8302-2", "invalid"),
        ("Observation?code=%25zz", "invalid"),
        ("Patient?given=alice", "invalid"),
        ("Nonsense?given=alice", "invalid"),
        (&format!("Observation?code={values}"), "invalid"),
        ("%20", "invalid"),
        ("", "invalid"),
    ] {
        refused(&get(query), "_typeFilter", code);
    }
    let long = format!("Observation?code={}", "x".repeat(1_000_000));
    let too_long = json!([{"name": "_typeFilter", "valueString": long.clone() + &"x".repeat(100_000)}]);
    outcome(&post(&service, "respond-async", &too_long), 413);
    let many: Vec<Value> =
        (0..10_000).map(|n| json!({"name": "_typeFilter", "valueString": format!("Observation?code={n}")})).collect();
    refused(&post(&service, "respond-async", &many.into()), "_typeFilter", "invalid");
    let deep = (0..100).fold(json!("Observation?code=1"), |deep, _| json!([deep]));
    let bottomless = "[".repeat(100_000);
    for part in [
        json!({"name": "_typeFilter", "valueString": long}),
        json!({"name": "_typeFilter", "valueString": "Observation?frobnicate=1"}),
        json!({"name": "_typeFilter", "valueString": ""}),
        json!({"name": "_typeFilter", "valueInteger": 7}),
        json!({"name": "_typeFilter", "valueBoolean": true}),
        json!({"name": "_typeFilter", "valueString": deep}),
        json!({"name": "_typeFilter", "valueQuantity": {"value": 1}}),
        json!({"name": "_typeFilter", "part": [{"name": "x", "valueString": "Observation?code=1"}]}),
        json!({"name": "_typeFilter"}),
    ] {
        let type_too = json!([{"name": "_type", "valueString": "Observation"}, part]);
        let response = post(&service, "respond-async", &type_too);
        assert_eq!(response.json()["issue"][0]["expression"], json!(["_typeFilter"]), "{}", response.text());
        outcome(&response, 400);
    }
    let body =
        format!(r#"{{"resourceType":"Parameters","parameter":[{{"name":"_typeFilter","valueString":{bottomless}"#);
    outcome(&service.send(Request::json("/fhir/$export", &body).header("Prefer", "respond-async")), 400);
    assert_eq!(value(&mut service.database.connect(), "SELECT count(*) FROM bulk_jobs"), "0");
    assert!(!service.database.path("exports").exists(), "a folder of exports");
}

#[test]
fn who_asks_for_leniency_gets_an_export_that_says_which_queries_it_left_out() {
    let service = observing();
    let told = |found: &Value| -> Vec<Value> {
        let files = found["error"].as_array().unwrap();
        files.iter().flat_map(|file| lines(&download(&service, &file["url"]).body)).collect()
    };
    let query = "?_type=Observation&_typeFilter=Observation?category=laboratory,Observation?frobnicate=1\
                 &_typeFilter=Observation?code=c";
    for prefer in [
        &["respond-async", "handling=lenient"][..],
        &["respond-async,handling=lenient"],
        &["Handling = Lenient ,  Respond-Async"],
        &["handling=lenient", "respond-async"],
    ] {
        let get = Request::get(&format!("/fhir/$export{query}"));
        let request = prefer.iter().fold(get, |request, value| request.and_header("Prefer", value));
        let found = manifest(&service, &service.send(request));
        assert_eq!(ids(&service, &found, "Observation"), ["o-1", "o-4"], "{found}");
        let [left_out] = &told(&found)[..] else { panic!("{found}") };
        assert_eq!(left_out["resourceType"], "OperationOutcome", "{left_out}");
        assert_eq!(left_out["issue"][0]["severity"], "warning", "{left_out}");
        assert_eq!(left_out["issue"][0]["code"], "not-supported", "{left_out}");
        assert_eq!(left_out["issue"][0]["expression"], json!(["_typeFilter"]), "{left_out}");
        let text = left_out["issue"][0]["diagnostics"].as_str().unwrap();
        assert!(text.contains("Observation?frobnicate=1") && text.contains("frobnicate"), "{text}");
    }
    // Strict is the default, and the first of two.
    for prefer in
        ["respond-async", "respond-async, handling=strict", "respond-async, handling=strict, handling=lenient"]
    {
        let request = Request::get(&format!("/fhir/$export{query}")).header("Prefer", prefer);
        refused(&service.send(request), "_typeFilter", "not-supported");
    }
    // A format that is not there is never ignored: who asks for it cannot read another one.
    let lenient = |query: &str| {
        let prefer = "respond-async, handling=lenient";
        service.send(Request::get(&format!("/fhir/$export{query}")).header("Prefer", prefer))
    };
    for query in ["?_type=Observation&_outputFormat=csv", "?lenient=true"] {
        outcome(&lenient(query), 400);
    }
    let parts = json!([{"name": "lenient", "valueBoolean": true},
        {"name": "_type", "valueString": "Observation"},
        {"name": "_typeFilter", "valueString": "Observation?frobnicate=1"}]);
    refused(&post(&service, "respond-async", &parts), "lenient", "invalid");
}
