//! A client of Bulk Data Access: SMART's `bulk-data-client`. No registry has it, so it runs where somebody has a checkout of
//! it; what it sends and what it needs is tested without it, too.

use std::env;
use std::fs;
use std::path::Path;

use fhir_bulk_tests::proxy::{Request, Response, base64};
use serde_json::{Value, json};

use super::page::{blocks, follow};
use super::{
    Resources, TYPES, command, fetched, filled, is_of_group, load, load_group, number, run, same, stored, with_login,
};
use crate::exports::{finished, path};
use crate::support::{PASSWORD, Service, file};

/// What the client says of itself, and how it asks for a status.
fn as_client(request: Request) -> Request {
    request
        .header("User-Agent", "SMART-On-FHIR Bulk Data Client / 1.2.1")
        .header("Accept-Encoding", "gzip, deflate, br")
}

fn kick_off(service: &Service, at: &str, parameters: Option<Value>) -> Response {
    let request = match parameters {
        None => Request::get(at),
        Some(parameters) => {
            let body = json!({"resourceType": "Parameters", "parameter": parameters}).to_string();
            Request::post(at, "application/json", body)
        }
    };
    let request = request.header("Accept", "application/fhir+json").header("Prefer", "respond-async, handling=lenient");
    service.send(as_client(request))
}

/// Reads what a kick-off has led to as the client does: by the manifest, and with its checks of each file.
fn exported(service: &Service, started: &Response) -> Resources {
    assert_eq!(started.status, 202, "{}", started.text());
    let done = finished(service, path(started.header("content-location").unwrap()));
    assert_eq!(done.status, 200, "{}", done.text());
    let manifest = done.json();
    // The client reads `error` without a look whether it is there.
    assert!(manifest["output"].is_array() && manifest["error"].is_array(), "{manifest}");
    let mut all = Resources::new();
    let of = |list: &str| manifest[list].as_array().unwrap().clone();
    for file in of("output").iter().chain(&of("deleted")).chain(&of("error")) {
        let request = as_client(Request::get(path(file["url"].as_str().unwrap())));
        // It sends its credentials with each request, where the configuration has them as headers.
        let response = service.send(request);
        assert_eq!((response.status, response.is_whole), (200, true), "{}", response.text());
        assert_eq!(response.header("content-type"), Some("application/fhir+ndjson"));
        let lines: Vec<Value> = response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!lines.is_empty() && file["count"] == lines.len(), "{file}");
        for line in lines {
            assert_eq!(line["resourceType"], file["type"], "{line}");
            let key = (file["type"].as_str().unwrap().to_owned(), line["id"].as_str().unwrap_or_default().to_owned());
            all.insert(key, line);
        }
    }
    all
}

fn string(name: &str, value: &str) -> Value {
    json!({"name": name, "valueString": value})
}

/// The conditions of a filter below.
fn is_recent(of: &str, id: &str) -> bool {
    of == "Condition" && number(id) > 50
}

#[test]
fn what_bulk_data_client_sends_leads_to_files_that_it_accepts() {
    let service = filled();
    load_group(&service);
    let all = stored(&service, &TYPES);
    let only = |keep: &dyn Fn(&str, &str, &Value) -> bool| {
        let mut only = all.clone();
        only.retain(|(of, id), resource| keep(of, id, resource));
        only
    };
    let types = "_type=Patient,Condition,Encounter,Observation";
    let got = exported(&service, &kick_off(&service, &format!("/fhir/$export?{types}"), None));
    same(&got, &all, "system, GET");
    let got = exported(&service, &kick_off(&service, &format!("/fhir/Group/two/$export?{types}"), None));
    same(&got, &only(&is_of_group), "group, GET");
    let filter = "Condition?recorded-date=gt2050-12-31";
    let encoded = "Condition%3Frecorded-date%3Dgt2050-12-31";
    let got = exported(
        &service,
        &kick_off(&service, &format!("/fhir/Patient/$export?_type=Condition&_typeFilter={encoded}"), None),
    );
    same(&got, &only(&|of, id, _| is_recent(of, id)), "patient, GET");

    let posted = json!([{"name": "_since", "valueInstant": "2021-06-10T00:00:00+00:00"}, string("_type", "Patient"),
        string("_type", "Condition"), string("_typeFilter", filter), string("_outputFormat", "application/fhir+ndjson")]);
    let got = exported(&service, &kick_off(&service, "/fhir/$export", Some(posted)));
    same(&got, &only(&|of, id, _| of == "Patient" || is_recent(of, id)), "system, POST");
    let patient = |id: &str| json!({"name": "patient", "valueReference": {"reference": format!("Patient/{id}")}});
    let posted = json!([string("_type", "Encounter"), patient("pt-1"), patient("pt-3")]);
    let of_both = |of: &str, id: &str, resource: &Value| of == "Encounter" && is_of_group(of, id, resource);
    for level in ["Patient", "Group/two"] {
        let got = exported(&service, &kick_off(&service, &format!("/fhir/{level}/$export"), Some(posted.clone())));
        same(&got, &only(&of_both), level);
    }
    let posted = json!([string("_type", "Patient"), string("_elements", "id,Patient.name")]);
    let got = exported(&service, &kick_off(&service, "/fhir/$export", Some(posted)));
    assert_eq!(got.len(), 3);
    for (key, resource) in &got {
        assert_eq!(resource["name"], all[key]["name"]);
        assert!(resource["citizenship"].is_null() && resource["meta"]["tag"][0]["code"] == "SUBSETTED", "{resource}");
    }
    // It asks for leniency, and then reads a file of OperationOutcomes.
    let got =
        exported(&service, &kick_off(&service, "/fhir/$export?_type=Patient&_typeFilter=Patient%3Fno-such%3D1", None));
    assert_eq!(got.keys().filter(|(of, _)| of == "OperationOutcome").count(), 1, "{got:?}");
}

/// Runs the client with a configuration, which has its own destination, and options.
#[track_caller]
fn client(service: &Service, config: &Path, options: &[&str]) {
    let of = |variable: &str| env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set"));
    let (checkout, node) = (of("BULK_DATA_CLIENT"), of("BULK_DATA_CLIENT_NODE"));
    // Its path is relative to the checkout.
    let config = format!("{}{}", "../".repeat(Path::new(&checkout).components().count()), config.display());
    let mut command = command(Path::new(&node));
    command.arg(".").args(["--config", &config]).args(options).current_dir(&checkout);
    run(command.env("FHIR_URL", service.proxy.url()).env("SHOW_ERRORS", "y"));
}

/// Runs the client with options on a new folder, with a password; what came.
#[track_caller]
fn fetch(service: &Service, name: &str, options: &[&str]) -> Resources {
    let files = service.database.path(name);
    fs::create_dir(&files).unwrap();
    let basic = base64(format!("{}:{PASSWORD}", service.client).as_bytes(), true);
    let config = json!({"fhirUrl": format!("{}/fhir", service.proxy.url()), "tokenUrl": "none", "reporter": "text",
        "destination": files, "requests": {"headers": {"authorization": format!("Basic {basic}")}}});
    let config = file(&service.database, &format!("{name}.js"), &format!("module.exports = {config}"));
    client(service, Path::new(&config), options);
    assert!(!files.join("error").exists(), "{name}");
    fetched(&files)
}

#[test]
#[ignore = "needs a checkout of SMART's bulk-data-client in BULK_DATA_CLIENT, and a node that it runs on in BULK_DATA_CLIENT_NODE"]
fn bulk_data_client_exports_at_each_level_with_its_parameters() {
    let service = filled();
    load_group(&service);
    let all = stored(&service, &TYPES);
    let only = |keep: &dyn Fn(&str, &str, &Value) -> bool| {
        let mut only = all.clone();
        only.retain(|(of, id), resource| keep(of, id, resource));
        only
    };
    let types = ["--_type", "Patient,Condition,Encounter,Observation"];
    same(&fetch(&service, "system", &[&["--global"], &types[..]].concat()), &all, "system");
    same(&fetch(&service, "posted", &[&["--global", "--post"], &types[..]].concat()), &all, "system, by POST");
    same(&fetch(&service, "patient", &types), &all, "patient");
    same(&fetch(&service, "group", &[&["--group", "two"], &types[..]].concat()), &only(&is_of_group), "group");
    let two = ["--patient", "pt-1,pt-3", "--_type", "Encounter"];
    same(
        &fetch(&service, "two", &two),
        &only(&|of, id, of_two| of == "Encounter" && is_of_group(of, id, of_two)),
        "two",
    );
    let filter = ["--_type", "Condition", "--_typeFilter", "Condition?recorded-date=gt2050-12-31"];
    let expected = only(&|of, id, _| is_recent(of, id));
    same(&fetch(&service, "filtered", &filter), &expected, "filtered");
    same(&fetch(&service, "filtered-posted", &[&["--post"], &filter[..]].concat()), &expected, "filtered, by POST");
    let elements = fetch(&service, "elements", &["--_type", "Patient", "--_elements", "id,name"]);
    assert!(elements.len() == 3 && elements.values().all(|patient| patient["citizenship"].is_null()), "{elements:?}");
}

#[test]
#[ignore = "as above"]
fn bulk_data_client_downloads_attachments() {
    let service = filled();
    let document = json!({"resourceType": "DocumentReference", "id": "d", "subject": {"reference": "Patient/pt-1"},
        "content": [{"attachment": {"contentType": "text/plain", "url": "Binary/note"}}]});
    load(&service, "DocumentReference", &document.to_string());
    let note = json!({"resourceType": "Binary", "id": "note", "contentType": "text/plain", "data": "SGVsbG8K"});
    load(&service, "Binary", &note.to_string());
    fetch(&service, "documents", &["--_type", "DocumentReference"]);
    let attachments: Vec<_> = fs::read_dir(service.database.path("documents/attachments")).unwrap().collect();
    assert_eq!(attachments.len(), 1);
    assert_eq!(fs::read_to_string(attachments[0].as_ref().unwrap().path()).unwrap(), "Hello\n");
}

#[test]
#[ignore = "as above"]
fn bulk_data_client_finds_where_to_log_in_with_a_key() {
    let service = with_login();
    let (folder, _) = follow(&service, &["Logging in with a key"]);
    fs::write(folder.join("reader.js"), &blocks("bulk-data-client", "js")[0]).unwrap();
    fs::create_dir(folder.join("downloads")).unwrap();
    client(&service, &folder.join("reader.js"), &["--global", "--_type", "Patient,Condition"]);
    same(&fetched(&folder.join("downloads")), &stored(&service, &["Patient", "Condition"]), "");
}
