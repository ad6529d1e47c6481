//! HL7's Bulk Data Access, the `/v1` endpoints, and downloads by signed URLs.

use std::process::Command;

use fhir_bulk_tests::proxy::{Request, Response};
use fhir_bulk_tests::{gunzip, wait_for};
use serde_json::{Value, json};

use crate::support::{Service, exporting, outcome};

/// The server's address, as clients know it.
pub const HOST: &str = "http://fhir.example.org";

pub fn kick_off(service: &Service, query: &str) -> Response {
    service.send(Request::get(&format!("/fhir/$export{query}")).header("Prefer", "respond-async"))
}

/// The path of a URL of ours.
pub fn path(url: &str) -> &str {
    url.strip_prefix(HOST).unwrap_or_else(|| panic!("{url}"))
}

/// The answer of a status when it no longer is 202.
pub fn finished(service: &Service, status: &str) -> Response {
    let mut last = None;
    wait_for("the export to end", || {
        let response = service.send(Request::get(status));
        if response.status == 202 {
            assert!(response.header("x-progress").is_some_and(|progress| !progress.is_empty()), "{response:?}");
            assert!(response.header("retry-after").unwrap().parse::<u32>().is_ok());
        }
        // Asked for more often than is answered, it is asked for again.
        let is_over = ![202, 429].contains(&response.status);
        last = Some(response);
        is_over
    });
    last.unwrap()
}

pub fn download(service: &Service, url: &Value) -> Response {
    service.proxy.send(&Request::get(path(url.as_str().unwrap())))
}

/// The types that a CapabilityStatement names.
fn types(metadata: &Value) -> Vec<String> {
    let resources = metadata["rest"][0]["resource"].as_array().unwrap().iter();
    resources.map(|resource| resource["type"].as_str().unwrap().to_owned()).collect()
}

/// What a manifest's files of a type hold: ids, in order.
pub fn ids(service: &Service, manifest: &Value, resource_type: &str) -> Vec<String> {
    let outputs = manifest["output"].as_array().unwrap().iter().filter(|output| output["type"] == resource_type);
    let mut ids: Vec<String> = outputs
        .flat_map(|output| {
            let response = download(service, &output["url"]);
            assert_eq!((response.status, response.is_whole), (200, true), "{}", response.text());
            let lines: Vec<Value> = response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(output["count"], lines.len());
            lines.into_iter().map(|line| line["id"].as_str().unwrap().to_owned())
        })
        .collect();
    ids.sort();
    ids
}

#[test]
fn a_client_of_bulk_data_access_gets_from_metadata_to_files_and_deletes_them() {
    let service = exporting();
    let metadata = service.send(Request::get("/fhir/metadata").header("Accept", "application/fhir+json"));
    assert_eq!(metadata.header("content-type"), Some("application/fhir+json"));
    let metadata = metadata.json();
    assert_eq!((&metadata["resourceType"], &metadata["fhirVersion"]), (&json!("CapabilityStatement"), &json!("4.0.1")));
    assert_eq!(types(&metadata), ["Appointment", "Patient"]);
    assert_eq!(metadata["rest"][0]["operation"][0]["name"], "export");
    // Clients ask before they log in, and see what is there for all.
    let open = service.proxy.send(&Request::get("/fhir/metadata")).json();
    assert_eq!(types(&open), ["Patient"]);
    outcome(&service.proxy.send(&Request::get("/fhir/metadata").basic(&service.client, "wrong")), 401);

    let started = kick_off(&service, "");
    assert_eq!((started.status, started.text().as_str()), (202, ""), "{}", started.text());
    let status = path(started.header("content-location").unwrap()).to_owned();
    let done = finished(&service, &status);
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(done.header("content-type"), Some("application/json"));
    assert!(done.header("expires").is_some_and(|date| date.ends_with(" GMT")), "{done:?}");
    let manifest = done.json();
    let mut members: Vec<&String> = manifest.as_object().unwrap().keys().collect();
    members.sort();
    assert_eq!(members, ["deleted", "error", "output", "request", "requiresAccessToken", "transactionTime"]);
    assert_eq!(manifest["request"], format!("{HOST}/fhir/$export"));
    assert_eq!(manifest["requiresAccessToken"], false);
    assert_eq!(ids(&service, &manifest, "Patient"), ["pt-1", "pt-2", "pt-3"]);
    assert_eq!(ids(&service, &manifest, "Appointment"), ["ap-1", "ap-2", "ap-3"]);
    let url = &manifest["output"][0]["url"];
    assert_eq!(download(&service, url).header("content-type"), Some("application/fhir+ndjson"));
    assert!(download(&service, url).header("content-length").is_some());

    assert_eq!(service.send(Request::new("DELETE", &status)).status, 202);
    outcome(&finished(&service, &status), 404);
    outcome(&service.send(Request::new("DELETE", &status)), 404);
    wait_for("the files to be gone", || download(&service, url).status == 404);
}

#[test]
fn parameters_of_a_kick_off_count_in_the_url_and_in_a_parameters_resource() {
    let service = exporting();
    let manifest = |started: Response| {
        assert_eq!(started.status, 202, "{}", started.text());
        let done = finished(&service, path(started.header("content-location").unwrap()));
        assert_eq!(done.status, 200, "{}", done.text());
        done.json()
    };
    let query = "?_type=Patient&_since=2021-06-10T11:26:10+03:00&_elements=id&_outputFormat=application/fhir+ndjson";
    let found = manifest(kick_off(&service, query));
    assert_eq!(ids(&service, &found, "Patient"), ["pt-1", "pt-2", "pt-3"]);
    assert_eq!(found["output"].as_array().unwrap().len(), 1);
    assert_eq!(found["request"], format!("{HOST}/fhir/$export{query}"));
    let since = manifest(kick_off(&service, "?_type=Patient&_since=2021-06-10T08:26:11Z"));
    assert_eq!(ids(&service, &since, "Patient"), [""; 0]);
    // A list may be repeated or have commas, in the URL as in the resource.
    for query in ["?_type=Patient&_type=Appointment", "?_type=Patient,Appointment&_elements=id&_elements=name,status"] {
        let found = manifest(kick_off(&service, query));
        assert_eq!(found["request"], format!("{HOST}/fhir/$export{query}"));
        assert_eq!((ids(&service, &found, "Patient").len(), ids(&service, &found, "Appointment").len()), (3, 3));
    }
    let body = json!({"resourceType": "Parameters", "parameter": [
        {"name": "_type", "valueCode": "Patient"}, {"name": "_type", "valueString": "Appointment"},
        {"name": "_since", "valueInstant": "2021-06-10T08:26:10Z"}, {"name": "contentEncoding", "valueId": "gzip"}]});
    let post = |body: &Value| {
        service.send(
            Request::post("/fhir/$export", "application/fhir+json", body.to_string()).header("Prefer", "respond-async"),
        )
    };
    let zipped = manifest(post(&body));
    let file = zipped["output"].as_array().unwrap().iter().find(|output| output["type"] == "Appointment").unwrap();
    let response = download(&service, &file["url"]);
    assert_eq!(response.header("content-encoding"), Some("gzip"));
    assert_eq!(gunzip(&response.body).iter().filter(|byte| **byte == b'\n').count(), 3);

    for query in
        ["?_type=Practitioner", "?_since=yesterday", "?_outputFormat=csv", "?_since=2021-06-10&_since=2021-06-10"]
    {
        outcome(&kick_off(&service, query), 400);
    }
    for (query, parameter) in [("?_type=", "_type"), ("?_elements=", "_elements"), ("?request=x", "request")] {
        let response = kick_off(&service, query);
        outcome(&response, 400);
        assert_eq!(response.json()["issue"][0]["expression"], json!([parameter]));
    }
    for parameters in [
        json!({"name": "_type", "valueString": "Patient"}),
        json!([{"name": "_type", "valueString": ""}]),
        json!([{"name": "request", "valueString": "x"}]),
        json!([{"$serde_json::private::Number": "1"}]),
    ] {
        outcome(&post(&json!({"resourceType": "Parameters", "parameter": parameters})), 400);
    }
    // Whatever is wrong with one is told by its name.
    for part in [
        json!({"name": "_since"}),
        json!({"name": "_since", "valueQuantity": {"value": 1}}),
        json!({"name": "_since", "valueBoolean": true}),
        json!({"name": "_since", "valueReference": {"display": "x"}}),
        json!({"name": "_since", "valueReference": {"reference": "Patient/1"}}),
        json!({"name": "_since", "valueInteger": 7}),
        json!({"name": "_since", "valueDate": "2021-06-10", "valueInstant": "2021-06-10T08:26:10Z"}),
        json!({"name": "_since", "resource": {"resourceType": "Patient"}}),
    ] {
        let response = post(&json!({"resourceType": "Parameters", "parameter": [part]}));
        let text = outcome(&response, 400);
        assert!(text.contains("_since"), "{text}");
        assert_eq!(response.json()["issue"][0]["expression"], json!(["_since"]), "{text}");
    }
    outcome(&post(&json!({"resourceType": "Patient"})), 400);
    outcome(&post(&json!({"resourceType": "Parameters", "parameter": [{"name": "_type"}]})), 400);
    outcome(&service.send(Request::get("/fhir/$export")), 400);
    outcome(
        &service.send(Request::get("/fhir/$export").header("Prefer", "respond-async").header("Accept", "text/csv")),
        406,
    );
}

#[test]
fn the_documented_v1_export_ends_with_one_file_that_needs_no_credentials() {
    let service = exporting();
    let curl = |line: &str| {
        let output = Command::new("bash").args(["-c", line]).env("BASE", service.proxy.url()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let started = curl(
        r#"curl -s -X POST $BASE/v1/bulk/export \
          -H "x-api-key: clk_live_abc123" \
          -H "Content-Type: application/json" \
          -d '{
            "resourceTypes": ["Patient"],
            "since": "2021-01-01T00:00:00Z"
          }'"#,
    );
    let id = started["data"]["jobId"].as_str().unwrap();
    assert_eq!(started["data"], json!({"jobId": id, "status": "pending", "message": "Export job started"}));
    assert_eq!(started["meta"]["status"], 202);
    assert_eq!(started["meta"]["rateLimit"]["limit"], 32);
    // A request counts until its connection is clean again.
    assert!((31..=32).contains(&started["meta"]["rateLimit"]["remaining"].as_u64().unwrap()), "{started}");
    assert!(started["meta"]["requestId"].is_string() && started["meta"]["timestamp"].is_string(), "{started}");
    let mut job = Value::Null;
    wait_for("the export to end", || {
        job = curl(&format!(r#"curl -s $BASE/v1/bulk/jobs/{id} -H "x-api-key: clk_live_abc123""#));
        !["pending", "processing"].contains(&job["data"]["status"].as_str().unwrap())
    });
    assert_eq!(job["data"]["status"], "completed", "{job}");
    assert_eq!(job["meta"]["status"], 200);
    let url = job["data"]["downloadUrl"].as_str().unwrap();
    assert!(url.starts_with(&service.proxy.url()), "{url}");
    // HL7's address has no manifest of it.
    let elsewhere = Request::get(&format!("/fhir/$export-status/{id}")).header("x-api-key", "clk_live_abc123");
    outcome(&service.proxy.send(&elsewhere), 404);
    // With its length, half a file does not look like a whole one, not even to HTTP/1.0.
    let old = service.proxy.send(&Request::get(url.strip_prefix(&service.proxy.url()).unwrap()).version("HTTP/1.0"));
    assert_eq!(old.header("content-length"), Some(old.body.len().to_string().as_str()), "{old:?}");
    assert_eq!((old.status, old.text().lines().count()), (200, 3));
    let file = Command::new("curl").args(["-s", "--fail", url]).output().unwrap();
    let lines = String::from_utf8(file.stdout).unwrap();
    assert_eq!(lines.lines().count(), 3);
    assert!(lines.contains(r#""meta":{"versionId":"481","lastUpdated""#), "{lines}");

    let key = |request: Request| service.proxy.send(&request.header("x-api-key", "clk_live_abc123"));
    let error = key(Request::get("/v1/bulk/jobs/unknown"));
    assert_eq!((error.status, &error.json()["error"]["code"]), (404, &json!("not-found")));
    assert_eq!(error.json()["meta"]["status"], 404);
    for (body, status) in [
        (json!({"resourceTypes": ["Appointment"]}), 403),
        (json!({"resourceTypes": ["Practitioner"]}), 404),
        (json!({"resourceTypes": []}), 400),
        (json!({"since": "2021-01-01"}), 400),
        (json!({"_type": "Patient"}), 400),
    ] {
        let response = key(Request::json("/v1/bulk/export", &body.to_string()));
        assert_eq!(response.status, status, "{body}: {}", response.text());
        assert!(response.json()["error"]["message"].is_string());
    }
    assert_eq!(service.proxy.send(&Request::get(&format!("/v1/bulk/jobs/{id}"))).status, 401);
    // A role cannot see another role's exports.
    assert_eq!(service.send(Request::get(&format!("/v1/bulk/jobs/{id}"))).status, 404);
}

#[test]
fn a_url_that_was_not_signed_here_opens_nothing() {
    let service = exporting();
    let done = finished(&service, path(kick_off(&service, "?_type=Patient").header("content-location").unwrap()));
    let url = path(done.json()["output"][0]["url"].as_str().unwrap()).to_owned();
    assert_eq!(service.proxy.send(&Request::get(&url)).status, 200);
    let (file, signature) = url.split_once('?').unwrap();
    let other_digit = if signature.ends_with('0') { '1' } else { '0' };
    for forged in [
        file.to_owned(),
        format!("{file}?{}{other_digit}", &signature[..signature.len() - 1]),
        format!("{}?{signature}", file.replace("Patient", "Appointment")),
        format!("{file}?{}", signature.replace("expires=1", "expires=2")),
        format!("/export/..%2f..%2fetc/passwd?{signature}"),
    ] {
        let response = service.proxy.send(&Request::get(&forged));
        assert!(matches!(response.status, 403 | 404), "{forged}: {}", response.status);
    }
    // Without a user of its own the proxy has nobody to open files as.
    let other = crate::support::proxy_of(&service.database);
    outcome(&other.send(&Request::get(&url)), 503);
}

#[test]
fn a_role_with_too_many_exports_is_asked_to_wait_and_one_without_a_place_for_files_is_told_so() {
    let service = exporting();
    let name = service.database.name();
    let mut admin = service.database.connect();
    admin.batch_execute(&format!("ALTER DATABASE {name} SET fhir_bulk.max_exports_per_role = 1")).unwrap();
    // Exports wait for a table that somebody has locked.
    let mut locker = service.database.connect();
    locker.batch_execute("BEGIN; LOCK TABLE appointment").unwrap();
    let get = || Request::get("/fhir/$export?_type=Appointment").header("Prefer", "respond-async");
    let fresh = service.proxy_again();
    let send = |request: Request| fresh.send(&service.signed(request));
    let first = send(get());
    assert_eq!(first.status, 202, "{}", first.text());
    let refused = send(get());
    let text = outcome(&refused, 429);
    assert_eq!(refused.json()["issue"][0]["code"], "throttled");
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{refused:?}");
    assert!(text.contains("1 unfinished export") && !text.contains("SELECT") && !text.contains("fhir_bulk."), "{text}");
    locker.batch_execute("COMMIT").unwrap();
    wait_for("room for another", || send(get()).status == 202);
    admin.batch_execute(&format!("ALTER DATABASE {name} SET fhir_bulk.export_location = ''; ALTER DATABASE {name} RESET fhir_bulk.max_exports_per_role")).unwrap();
    let fresh = service.proxy_again();
    let text = outcome(&fresh.send(&service.signed(get())), 501);
    assert!(text.contains("export_location is not set") && !text.contains("ALTER"), "{text}");
}

#[test]
fn who_asks_for_a_status_without_a_pause_is_told_to_make_one() {
    let service = exporting();
    let started = kick_off(&service, "?_type=Patient");
    let status = path(started.header("content-location").unwrap()).to_owned();
    finished(&service, &status);
    let mut refused = None;
    wait_for("a poll to be one too many", || {
        let all: Vec<Response> = std::thread::scope(|scope| {
            let ask = || scope.spawn(|| service.send(Request::get(&status)));
            (0..24).map(|_| ask()).collect::<Vec<_>>().into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        refused = all.into_iter().find(|response| response.status == 429);
        refused.is_some()
    });
    let refused = refused.unwrap();
    assert!(outcome(&refused, 429).contains("10 times a second"));
    assert!(refused.header("retry-after").is_some());
    wait_for("polls to be answered again", || service.send(Request::get(&status)).status == 200);
}

#[test]
fn metadata_names_none_but_fhirs_own_types() {
    let service = exporting();
    service
        .connect()
        .batch_execute("SELECT bulk_create_table('Individual'), bulk_create_table('RequestOrchestration')")
        .unwrap();
    assert_eq!(types(&service.send(Request::get("/fhir/metadata")).json()), ["Appointment", "Patient"]);
    let found = kick_off(&service, "?_type=Individual");
    assert_eq!(found.status, 202, "{}", found.text());
    let name = service.database.name();
    let set = format!("ALTER DATABASE {name} SET fhir_bulk.fhir_version = '5.0.0'");
    service.database.connect().batch_execute(&set).unwrap();
    let fresh = service.proxy_again();
    let found = fresh.send(&service.signed(Request::get("/fhir/metadata"))).json();
    assert_eq!(found["fhirVersion"], "5.0.0");
    assert_eq!(types(&found), ["Appointment", "Patient", "RequestOrchestration"]);
}

#[test]
fn who_only_asks_for_the_head_of_a_kick_off_starts_nothing() {
    let service = exporting();
    let head = Request::new("HEAD", "/fhir/$export").header("Prefer", "respond-async");
    let mut exchange = service.proxy.open(&service.signed(head));
    let response = exchange.head();
    assert_eq!((response.status, response.header("allow")), (405, Some("GET,POST")));
    let count = "SELECT count(*) FROM bulk_jobs";
    assert_eq!(crate::support::value(&mut service.database.connect(), count), "0");
    outcome(&service.send(Request::new("DELETE", "/fhir/$export")), 405);
}

#[test]
fn metadata_takes_what_fhirs_clients_say_of_its_form() {
    let service = exporting();
    let get = |query: &str| service.proxy.send(&Request::get(&format!("/fhir/metadata?{query}")));
    for format in ["json", "application/json", "application/fhir+json", "application%2Ffhir%2Bjson"] {
        assert_eq!(get(&format!("_format={format}")).status, 200, "{format}");
    }
    assert_eq!(get("mode=full").status, 200);
    outcome(&get("_format=xml"), 406);
    outcome(&get("mode=x"), 400);
    outcome(&get("_summary=true"), 400);
}
