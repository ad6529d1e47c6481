//! What tokens with scopes open, of what their role may do: the whole table of routes, and what is left out of answers.

use std::collections::BTreeSet;

use fhir_bulk_tests::proxy::{Request, Response};
use fhir_bulk_tests::wait_for;
use serde_json::{Value, json};

use crate::auth::hs256;
use crate::smart::{BASE, Signer, asking, line, service, token_of, with};
use crate::support::{Service, file, outcome};

/// A route of the proxy, as its table has it.
struct Route {
    method: &'static str,
    path: &'static str,
    need: &'static str,
}

/// The table, from the proxy's own text.
fn routes() -> Vec<Route> {
    let source = include_str!("../../../proxy/src/routes/mod.rs");
    let table = source.split("pub fn router").nth(1).unwrap().split("#[cfg(test)]").next().unwrap();
    let mut routes = Vec::new();
    for call in table.split(".route(").skip(1) {
        let mut parts = call.splitn(3, '"').skip(1);
        let (path, rest) = (parts.next().unwrap(), parts.next().unwrap());
        let (need, methods) = rest.trim_start_matches(',').trim_start().split_once(',').unwrap();
        let serves = |method: &&str| methods.contains(&format!("{}(", method.to_lowercase()));
        routes.extend(["GET", "POST", "DELETE"].into_iter().filter(serves).map(|method| Route { method, path, need }));
    }
    assert!(routes.len() > 25, "{}", routes.len());
    routes
}

/// A request that is right for a route.
fn request(route: &Route) -> Request {
    let path = route
        .path
        .replace("{type}", "Patient")
        .replace("{id}", "pt-1")
        .replace("{job}/{file}", "job/file")
        .replace("{file}", "file");
    let line = r#"{"resourceType": "Patient", "id": "pt-1"}"#;
    let request = match route.path {
        "/auth/token" => asking("x", "system/*.rs"),
        _ if route.method != "POST" => Request::new(route.method, &path),
        "/$dump-sql" => Request::json(&path, r#"{"query": "select 1"}"#),
        _ if path.ends_with("$load") => Request::post(&path, "application/ndjson", line),
        _ if path.ends_with("$import") => {
            Request::json(&path, r#"{"inputs": [{"resourceType": "Patient", "url": "https://example.org/x"}]}"#)
        }
        "/v1/bulk/export" => Request::json(&path, r#"{"resourceTypes": ["Patient"]}"#),
        _ if path.ends_with("$bulk/export") => {
            Request::json(&path, r#"{"type": "Patient", "identifiers": ["a"], "_elements": "name"}"#)
        }
        _ => Request::post(&path, "application/fhir+json", r#"{"resourceType": "Parameters"}"#),
    };
    request.header("Prefer", "respond-async")
}

/// Whether scopes, as pairs of a type and letters, permit something for a type, or for all.
fn permits(scopes: &[(&str, &str)], name: &str, letters: &str) -> bool {
    letters.chars().all(|letter| scopes.iter().any(|(of, own)| (*of == "*" || *of == name) && own.contains(letter)))
}

/// Whether scopes should open a route.
fn opens(scopes: &[(&str, &str)], route: &Route) -> bool {
    let letters = match route.need.rsplit_once("::").map(|(_, name)| name.trim_end_matches(')')) {
        Some("READ") => "r",
        Some("READ_ALL") => "rs",
        Some("LOAD") => "cu",
        other => other.unwrap_or_default(),
    };
    match route.need.split('(').next().unwrap() {
        "Open" | "OwnJob" => true,
        "Closed" => false,
        "Submit" => scopes.iter().any(|(of, _)| *of == "bulk-submit"),
        "OfType" => permits(scopes, "Patient", letters),
        "OfAll" => permits(scopes, "*", letters),
        // The request of an import names patients.
        "OfSome" if route.method == "POST" && route.path.ends_with("$import") => permits(scopes, "Patient", letters),
        "OfSome" => scopes.iter().any(|(of, _)| permits(scopes, of, letters)),
        other => panic!("{other}: what does {} need?", route.path),
    }
}

/// Whether it was the scopes that closed it.
fn is_closed(response: &Response) -> bool {
    let text = response.text();
    let is_about_scopes = text.contains("the scopes of the token") || text.contains("a token with scopes");
    assert!(!is_about_scopes || response.status == 403, "{text}");
    is_about_scopes
}

const SCOPES: [&[(&str, &str)]; 12] = [
    &[("*", "cruds")],
    &[("*", "rs")],
    &[("*", "cu")],
    &[("*", "r")],
    &[("*", "cd"), ("Patient", "u")],
    &[("Patient", "rs")],
    &[("Patient", "r")],
    &[("Patient", "s")],
    &[("Patient", "cu")],
    &[("Observation", "cruds")],
    &[("Observation", "rs"), ("Group", "r")],
    &[("bulk-submit", "")],
];

#[test]
fn each_route_is_open_to_the_scopes_that_it_names_and_to_no_others_whatever_the_role() {
    let signer = Signer::elliptic();
    let service = service(
        |reader| {
            let nobody = reader.replace("_reader", "_nobody");
            line("reads", &signer.jwks("k"), reader, "system/*.* system/bulk-submit")
                + &line("nothing", &signer.jwks("k"), &nobody, "system/*.* system/bulk-submit")
        },
        &[],
    );
    for client in ["reads", "nothing"] {
        for scopes in SCOPES {
            let text =
                scopes.iter().map(|(of, letters)| format!("system/{of}.{letters}")).collect::<Vec<_>>().join(" ");
            let text = text.trim_end_matches('.').to_owned();
            let token = token_of(&service.proxy.send(&asking(&signer.assertion(client, "k"), &text)));
            for route in routes() {
                let response = service.proxy.send(&with(&token, request(&route)));
                let told = format!("{client} {text}: {} {}: {}", route.method, route.path, response.text());
                assert_eq!(is_closed(&response), !opens(scopes, &route), "{told}");
                let shows =
                    ["$dump", "$dump-csv", "/fhir/{type}/{id}", "$export"].iter().any(|end| route.path.ends_with(end));
                if client == "reads" && route.method == "GET" && shows && opens(scopes, &route) {
                    assert!([200, 202, 404, 429].contains(&response.status), "{told}");
                }
                if client == "nothing" && route.path.contains("{type}") {
                    assert!(response.status >= 400, "{told}");
                }
            }
        }
    }
}

#[test]
fn a_token_of_all_scopes_opens_what_has_types_and_nothing_else() {
    let is_open = |route: &Route| opens(&[("*", "cruds")], route) && route.need != "Open";
    let open: BTreeSet<&str> = routes().iter().filter(|route| is_open(route)).map(|route| route.path).collect();
    let expected = [
        "/$import",
        "/$load",
        "/BulkImportStatus/{id}",
        "/caller",
        "/fhir/$export",
        "/fhir/$export-status/{id}",
        "/fhir/$export-v4",
        "/fhir/$import",
        "/fhir/$load",
        "/fhir/$sql-export",
        "/fhir/$sql-export-result/{id}",
        "/fhir/$sql-export-status/{id}",
        "/fhir/$sql-run",
        "/fhir/$viewdefinition-export",
        "/fhir/$viewdefinition-run",
        "/fhir/Group/{id}/$export",
        "/fhir/Group/{id}/$export-v4",
        "/fhir/Patient/$export",
        "/fhir/Patient/$export-v4",
        "/fhir/ViewDefinition/$run",
        "/fhir/ViewDefinition/{id}/$run",
        "/fhir/{type}/$load",
        "/fhir/{type}/{id}",
        "/jobs",
        "/jobs/{id}",
        "/types",
        "/types/{type}",
        "/v2/$import",
        "/v2/$import/{id}",
        "/v2/fhir/$import",
        "/{type}/$dump",
        "/{type}/$dump-csv",
        "/{type}/$load",
    ];
    assert_eq!(open, BTreeSet::from(expected));
    let public: BTreeSet<&str> = routes().iter().filter(|route| route.need == "Open").map(|route| route.path).collect();
    let expected = [
        "/auth/token",
        "/export/{job}/{file}",
        "/fhir/.well-known/smart-configuration",
        "/fhir/metadata",
        "/health",
        "/metrics",
        "/ui",
        "/ui/{file}",
    ];
    assert_eq!(public, BTreeSet::from(expected));
}

/// A hospital of many types, and a client whose tokens may have any scope; its role reads all.
fn hospital() -> (Service, Signer) {
    let signer = Signer::elliptic();
    let service = service(
        |reader| {
            line("nightly", &signer.jwks("k"), reader, "system/*.cruds")
                + &line("weekly", &signer.jwks("k"), reader, "system/*.cruds")
        },
        &[],
    );
    let of_a = json!({"reference": "Patient/a"});
    let lines = [
        json!({"resourceType": "Patient", "id": "a", "generalPractitioner": [{"reference": "Practitioner/d"}],
            "managingOrganization": {"reference": "Organization/o"}}),
        json!({"resourceType": "Observation", "id": "o-a", "status": "final", "subject": of_a}),
        json!({"resourceType": "Practitioner", "id": "d"}),
        json!({"resourceType": "Organization", "id": "o"}),
        json!({"resourceType": "Provenance", "id": "p", "target": [of_a]}),
        json!({"resourceType": "Group", "id": "g", "member": [{"entity": of_a}]}),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let loaded = service.send(Request::post("/fhir/$load", "application/ndjson", text));
    assert_eq!(loaded.status, 200, "{}", loaded.text());
    let name = service.database.name();
    let settings = format!(
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}_reader;
         ALTER ROLE {name}_reader SET fhir_bulk.export_extras = 'Practitioner,Organization'"
    );
    service.database.connect().batch_execute(&settings).unwrap();
    (service, signer)
}

fn token(service: &Service, signer: &Signer, scopes: &str) -> String {
    token_of(&service.proxy.send(&asking(&signer.assertion("nightly", "k"), scopes)))
}

fn start(service: &Service, token: &str, path: &str) -> Response {
    service.proxy.send(&with(token, Request::get(path).header("Prefer", "respond-async")))
}

/// The types of an export's files, and what its deletions and notes say.
fn exported(service: &Service, token: &str, path: &str) -> (String, String) {
    let started = start(service, token, path);
    assert_eq!(started.status, 202, "{}", started.text());
    let status = started.header("content-location").unwrap().strip_prefix(BASE).unwrap().to_owned();
    let mut manifest = Value::Null;
    wait_for("the export to end", || {
        let response = service.proxy.send(&with(token, Request::get(&status)));
        assert!([200, 202, 429].contains(&response.status), "{}", response.text());
        if response.status == 200 {
            manifest = response.json();
        }
        response.status == 200
    });
    let types: BTreeSet<&str> =
        manifest["output"].as_array().unwrap().iter().map(|file| file["type"].as_str().unwrap()).collect();
    let others = ["deleted", "error"].into_iter().flat_map(|list| manifest[list].as_array().unwrap().iter());
    let text = others.map(|file| {
        let path = file["url"].as_str().unwrap().strip_prefix(BASE).unwrap();
        service.proxy.send(&Request::get(path)).text()
    });
    (types.into_iter().collect::<Vec<_>>().join(" "), text.collect())
}

#[test]
fn exports_leave_out_types_out_of_scope_and_refuse_those_that_are_named() {
    let (service, signer) = hospital();
    let of = |scopes: &str| token(&service, &signer, scopes);
    let some = of("system/Patient.rs system/observation.read system/Practitioner.r");
    let everything = "Appointment Group Observation Organization Patient Practitioner Provenance";
    assert_eq!(exported(&service, &of("system/*.rs"), "/fhir/$export").0, everything);
    assert_eq!(exported(&service, &some, "/fhir/$export").0, "Observation Patient");
    assert_eq!(exported(&service, &some, "/fhir/$export?_type=Observation").0, "Observation");
    assert_eq!(exported(&service, &of("system/Nothing.rs"), "/fhir/$export").0, "");
    // Neither Provenance, nor what is referred to.
    assert_eq!(exported(&service, &some, "/fhir/Patient/$export").0, "Observation Patient");
    let more = of("system/Patient.rs system/Practitioner.rs system/Provenance.rs");
    assert_eq!(exported(&service, &more, "/fhir/Patient/$export").0, "Patient Practitioner Provenance");
    for query in [
        "_type=Appointment",
        "_type=Patient,Appointment",
        "_type=NeverHeardOf",
        "_type=Practitioner",
        "_typeFilter=Appointment%3Fstatus%3Dbooked",
        "_type=Patient&_typeFilter=Patient%3Factive%3Dtrue,Appointment%3Fstatus%3Dbooked",
    ] {
        for level in ["", "/Patient"] {
            let path = format!("/fhir{level}/$export?{query}");
            let request = with(&some, Request::get(&path).header("Prefer", "respond-async, handling=lenient"));
            let text = outcome(&service.proxy.send(&request), 403);
            assert!(text.contains("is not among those that this request may export"), "{path}: {text}");
        }
    }
    // Nobody widens what the proxy has narrowed.
    let wider = json!({"resourceType": "Parameters",
        "parameter": [{"name": "allowedTypes", "valueString": "Appointment"}]});
    let wider = Request::post("/fhir/$export", "application/fhir+json", wider.to_string());
    outcome(&service.proxy.send(&with(&some, wider.header("Prefer", "respond-async"))), 400);
    outcome(&start(&service, &some, "/fhir/$export?allowedTypes=Appointment"), 400);
}

#[test]
fn a_group_chooses_patients_for_whatever_scopes_and_patients_that_are_named_must_be_in_scope() {
    let (service, signer) = hospital();
    let of = |scopes: &str| token(&service, &signer, scopes);
    let some = of("system/Observation.rs");
    assert_eq!(exported(&service, &some, "/fhir/Group/g/$export").0, "Observation");
    assert_eq!(exported(&service, &some, "/fhir/Patient/$export").0, "Observation");
    // That is all that it is good for.
    outcome(&start(&service, &some, "/fhir/Group/g/$export?_type=Group"), 403);
    outcome(&start(&service, &some, "/fhir/Group/g"), 403);
    let named = |token: &str, path: &str| {
        let patient = json!({"name": "patient", "valueReference": {"reference": "Patient/a"}});
        let body = json!({"resourceType": "Parameters", "parameter": [patient]}).to_string();
        let request = Request::post(path, "application/fhir+json", body).header("Prefer", "respond-async");
        service.proxy.send(&with(token, request))
    };
    assert!(outcome(&named(&some, "/fhir/Patient/$export"), 403).contains("system/Patient.r"));
    assert!(outcome(&named(&some, "/fhir/Group/g/$export"), 403).contains("system/Patient.r"));
    assert_eq!(named(&of("system/Observation.rs system/Patient.r"), "/fhir/Patient/$export").status, 202);
}

#[test]
fn deletions_and_notes_speak_of_types_in_scope_only() {
    let (service, signer) = hospital();
    let name = service.database.name().to_owned();
    service
        .database
        .connect()
        .batch_execute(&format!(
            "UPDATE patient SET status = 'deleted', ts = now() WHERE id = 'pt-1';
             UPDATE appointment SET status = 'deleted', ts = now() WHERE id = 'ap-1';
             CREATE TABLE hidden (LIKE appointment INCLUDING ALL); REVOKE ALL ON hidden FROM {name}_reader"
        ))
        .unwrap();
    let of = |scopes: &str| exported(&service, &token(&service, &signer, scopes), "/fhir/$export?_since=2020-01-01").1;
    let all = of("system/*.rs");
    assert!(all.contains("Patient/pt-1") && all.contains("Appointment/ap-1") && all.contains("idden"), "{all}");
    let some = of("system/Patient.rs");
    assert!(some.contains("Patient/pt-1") && !some.contains("Appointment") && !some.contains("idden"), "{some}");
}

#[test]
fn reads_and_metadata_show_types_in_scope_only() {
    let (service, signer) = hospital();
    let some = token(&service, &signer, "system/Patient.r system/Observation.rs");
    let get = |path: &str| service.proxy.send(&with(&some, Request::get(path)));
    assert_eq!(get("/fhir/Patient/a").status, 200);
    for path in ["/fhir/Appointment/ap-1", "/fhir/Appointment/none", "/fhir/NeverHeardOf/1", "/Patient/$dump"] {
        assert!(outcome(&get(path), 403).contains("scopes of the token"), "{path}");
    }
    // However it is spelt.
    assert_eq!((get("/observation/$dump").status, get("/%4Fbservation/$dump").status), (200, 200));
    for path in ["/appointment/$dump", "/%41ppointment/$dump", "/Observation%2f..%2fAppointment/$dump"] {
        outcome(&get(path), 403);
    }
    let metadata = get("/fhir/metadata").json();
    let types = metadata["rest"][0]["resource"].as_array().unwrap().iter();
    assert_eq!(
        types.map(|resource| resource["type"].as_str().unwrap()).collect::<Vec<_>>(),
        ["Observation", "Patient"]
    );
}

#[test]
fn imports_need_the_types_of_all_their_inputs() {
    let (service, signer) = hospital();
    let send = |scopes: &str, inputs: Value| {
        let body = json!({"inputs": inputs}).to_string();
        service.proxy.send(&with(&token(&service, &signer, scopes), Request::json("/fhir/$import", &body)))
    };
    let input = |name: &str| json!({"resourceType": name, "url": "https://example.org/x.ndjson"});
    let untyped = json!({"url": "https://example.org/x.ndjson"});
    for (scopes, inputs) in [
        ("system/Patient.cu", json!([input("Patient"), input("Observation")])),
        ("system/Patient.cu", json!([untyped])),
        ("system/Patient.cu", json!([input("Patient"), untyped])),
        ("system/Patient.cu", json!({"resourceType": "Patient"})),
        ("system/Patient.cu", json!(["Patient"])),
        ("system/Patient.c system/Observation.cu", json!([input("Patient")])),
        ("system/*.rs", json!([input("Patient")])),
    ] {
        assert!(is_closed(&send(scopes, inputs.clone())), "{scopes} {inputs}");
    }
    for (scopes, inputs) in [
        ("system/Patient.cu system/Observation.write", json!([input("Patient"), input("observation")])),
        ("system/*.cu", json!([untyped])),
    ] {
        assert!(!is_closed(&send(scopes, inputs.clone())), "{scopes} {inputs}");
    }
}

#[test]
fn a_job_is_the_business_of_the_client_that_started_it() {
    let (service, signer) = hospital();
    let started = start(&service, &token(&service, &signer, "system/Patient.rs"), "/fhir/$export");
    let status = started.header("content-location").unwrap().strip_prefix(BASE).unwrap().to_owned();
    let weekly = token_of(&service.proxy.send(&asking(&signer.assertion("weekly", "k"), "system/*.cruds")));
    outcome(&service.proxy.send(&with(&weekly, Request::get(&status))), 404);
    outcome(&service.proxy.send(&with(&weekly, Request::new("DELETE", &status))), 404);
    // Another token of the same client.
    let other = token(&service, &signer, "system/Observation.r");
    assert!([200, 202].contains(&service.proxy.send(&with(&other, Request::get(&status))).status));
    assert_eq!(service.proxy.send(&with(&other, Request::new("DELETE", &status))).status, 202);
}

#[test]
fn what_tokens_of_other_issuers_say_about_scopes_narrows_nothing() {
    let signer = Signer::elliptic();
    let secret = "a secret of at least thirty-two bytes";
    let service = service(|reader| line("nightly", &signer.jwks("k"), reader, "system/Observation.rs"), &[]);
    let path = file(&service.database, "secret", secret);
    let flags: Vec<&str> = service.flags.iter().map(String::as_str).chain(["--jwt-secret-file", &path]).collect();
    let proxy = fhir_bulk_tests::proxy::Proxy::start(&flags);
    let reader = format!("{}_reader", service.database.name());
    let send = |token: &str, request: Request| proxy.send(&with(token, request)).status;
    let claims = json!({"role": reader, "scope": "openid system/Observation.rs", "iss": BASE, "sub": "nightly"});
    let outside = hs256(&claims, secret);
    let query = || Request::json("/$dump-sql", r#"{"query": "select 1"}"#);
    assert_eq!((send(&outside, Request::get("/Patient/$dump")), send(&outside, query())), (200, 200));
    let own = token_of(&proxy.send(&asking(&signer.assertion("nightly", "k"), "system/*.rs")));
    assert_eq!((send(&own, Request::get("/Patient/$dump")), send(&own, query())), (403, 403));
}
