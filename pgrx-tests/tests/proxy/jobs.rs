//! `$import` and its status.

use fhir_bulk_tests::proxy::Request;
use fhir_bulk_tests::{gzip, wait_for};
use serde_json::json;

use crate::support::{PASSWORD, Service, outcome, role};

fn lines(resource_type: &str, count: usize) -> Vec<u8> {
    let line = |n| format!("{{\"resourceType\":\"{resource_type}\",\"id\":\"x-{n}\"}}\n");
    gzip((1..=count).map(line).collect::<String>().as_bytes())
}

#[test]
fn the_documented_import_runs_and_is_followed_at_the_address_it_gives() {
    let service = Service::new();
    let url = |name: &str, count| service.database.file(&format!("{name}.ndjson.gz"), lines(name, count));
    let (encounters, patients) = (url("Encounter", 30), url("Patient", 20));
    let body = format!(
        "id: synthea\ninputFormat: application/fhir+ndjson\ncontentEncoding: gzip\nmode: bulk\ninputs:\n\
         - resourceType: Encounter\n  url: {encounters}\n- resourceType: Patient\n  url: {patients}\n"
    );
    let import = || Request::post("/fhir/$import", "text/yaml", &body);
    let response = service.send(import());
    assert_eq!(response.status, 200, "{}", response.text());
    let location = response.header("content-location").unwrap();
    assert_eq!(location, "http://fhir.example.org/BulkImportStatus/synthea");
    assert_eq!(response.json()["resourceType"], "BulkImportStatus");
    let path = location.strip_prefix("http://fhir.example.org").unwrap();
    let mut status = json!(null);
    wait_for("the import to end", || {
        let response = service.send(Request::get(path));
        assert_eq!(response.status, 200, "{}", response.text());
        status = response.json();
        status["status"] != "active"
    });
    assert_eq!(status["status"], "finished", "{status}");
    assert_eq!((&status["type"], &status["id"]), (&json!("fhir"), &json!("synthea")));
    let totals = |at: usize| (&status["inputs"][at]["resourceType"], &status["inputs"][at]["total"]);
    assert_eq!(totals(0), (&json!("Encounter"), &json!(30)));
    assert_eq!(totals(1), (&json!("Patient"), &json!(20)));
    // Once more is not the same import.
    outcome(&service.send(import()), 409);
    outcome(&service.send(Request::new("DELETE", path)), 409);
    // What one role imports is no other role's business.
    let other = role(&service.database, "other");
    outcome(&service.proxy.send(&Request::get(path).basic(&other, PASSWORD)), 404);
    outcome(&service.proxy.send(&import().basic(&other, PASSWORD)), 403);
}

#[test]
fn an_import_that_prefers_so_answers_with_202_and_can_be_ended() {
    let service = Service::new();
    let url = service.database.file("Patient.ndjson.gz", lines("Patient", 20));
    service
        .connect()
        .batch_execute(
            "SELECT bulk_create_table('Patient');
             CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NEW; END $$;
             CREATE TRIGGER stall BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION stall()",
        )
        .unwrap();
    let body = json!({"id": "a~b", "inputs": [{"resourceType": "Patient", "url": url}]}).to_string();
    let response = service.send(Request::json("/$import", &body).header("Prefer", "respond-async"));
    assert_eq!(response.status, 202, "{}", response.text());
    let path = response.header("content-location").unwrap().strip_prefix("http://fhir.example.org").unwrap();
    assert_eq!(path, "/BulkImportStatus/a~b");
    let status = || service.send(Request::get(path)).json();
    assert_eq!((&status()["type"], &status()["status"]), (&json!("aidbox"), &json!("active")));
    assert_eq!(service.send(Request::new("DELETE", path)).status, 202);
    wait_for("the import to end", || status()["status"] == "cancelled");
    for request in [Request::get("/BulkImportStatus/unknown"), Request::new("DELETE", "/BulkImportStatus/unknown")] {
        outcome(&service.send(request), 404);
    }
}

#[test]
fn an_import_that_makes_no_sense_is_refused_at_once() {
    let service = Service::new();
    for body in [
        json!({}),
        json!({"id": "x", "inputs": []}),
        json!({"id": "x", "inputs": [{"resourceType": "Patient", "url": "nonsense"}]}),
        json!({"id": "x", "mode": "fast", "inputs": [{"resourceType": "Patient", "url": "https://example.org/x"}]}),
    ] {
        outcome(&service.send(Request::json("/$import", &body.to_string())), 400);
    }
}

#[test]
fn an_import_of_the_second_version_has_its_shape_is_listed_and_can_be_ended() {
    let service = Service::new();
    let patients = service.database.file("Patient.ndjson.gz", lines("Patient", 20));
    let broken = service.database.file("Broken.ndjson", b"{");
    let start = |path: &str, id: &str, urls: &[&String]| {
        let inputs: Vec<_> = urls.iter().map(|url| json!({"resourceType": "Patient", "url": url})).collect();
        let body =
            json!({"id": id, "contentEncoding": "gzip", "update": false, "allowedRetryCount": 2, "inputs": inputs});
        let response = service.send(Request::json(path, &body.to_string()));
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.json()["id"], id);
        let location = response.header("content-location").unwrap();
        location.strip_prefix("http://fhir.example.org").unwrap().to_owned()
    };
    let ended = |path: &str| {
        let mut status = json!(null);
        wait_for("the import to end", || {
            status = service.send(Request::get(path)).json();
            status["status"] != "in-progress"
        });
        status
    };
    let path = start("/v2/fhir/$import", "i1", &[&patients]);
    assert_eq!(path, "/v2/$import/i1");
    let expected = json!({"id": "i1", "type": "fhir", "contentEncoding": "gzip", "status": "done", "outcome": "succeeded",
        "result": {"message": "All input files imported, 20 new resources loaded", "total-files": 1,
                   "total-imported-resources": 20},
        "inputs": [{"url": patients, "resourceType": "Patient", "status": "done", "outcome": "succeeded",
                    "result": {"imported-resources": 20}}]});
    assert_eq!(ended(&path), expected);
    let failed = ended(&start("/v2/$import", "i2", &[&patients, &broken]));
    assert_eq!((&failed["status"], &failed["outcome"]), (&json!("done"), &json!("failed")), "{failed}");
    assert_eq!(failed["inputs"][0]["outcome"], "succeeded", "{failed}");
    let message = failed["inputs"][1]["error"]["message"].as_str().unwrap();
    assert!(message.contains("line 1") && failed["error"]["message"].as_str().unwrap().ends_with(message), "{failed}");
    // One that waits for a row of another session.
    let mut holder = service.connect();
    holder.batch_execute("BEGIN; LOCK TABLE patient").unwrap();
    let path = start("/v2/$import", "i3", &[&patients]);
    let list = || service.send(Request::get("/v2/$import")).json()["imports"].as_array().unwrap().clone();
    let listed = list();
    let ids: Vec<_> = listed.iter().map(|import| import["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["i3", "i2", "i1"]);
    assert_ne!(listed[0]["status"], "done");
    assert_eq!((&listed[2]["status"], &listed[2]["total-imported-resources"]), (&json!("done"), &json!(20)));
    assert_eq!(service.send(Request::new("DELETE", &path)).status, 202);
    drop(holder);
    assert_eq!(ended(&path)["error"]["message"], "The import was cancelled");
    outcome(&service.send(Request::new("DELETE", &path)), 409);
    // The jobs of a role are no other's.
    let other = role(&service.database, "other");
    outcome(&service.proxy.send(&Request::get(&path).basic(&other, PASSWORD)), 404);
    let theirs = service.proxy.send(&Request::get("/v2/$import").basic(&other, PASSWORD)).json();
    assert_eq!(theirs, json!({"imports": []}));
    outcome(&service.send(Request::json("/v2/$import", &json!({"inputs": []}).to_string())), 400);
}

#[test]
fn the_list_of_imports_has_pages() {
    let service = Service::new();
    let add = "SELECT bulk_import(jsonb_build_object('id', 'i' || n, 'inputs', jsonb_build_array(jsonb_build_object('url', 'file:///none'))))
        FROM generate_series(1, 101) n";
    service.connect().batch_execute(add).unwrap();
    let page = |path: &str| {
        let list = service.send(Request::get(path)).json();
        let ids: Vec<_> = list["imports"].as_array().unwrap().iter().map(|import| import["id"].clone()).collect();
        (ids, list["link"].clone())
    };
    let (first, link) = page("/v2/$import");
    assert_eq!((first.len(), &first[0], &first[99]), (100, &json!("i101"), &json!("i2")));
    assert_eq!(link[0], json!({"relation": "next", "url": "http://fhir.example.org/v2/$import?page=2"}));
    assert_eq!(page("/v2/$import?page=2"), (vec![json!("i1")], json!(null)));
    assert_eq!(page("/v2/$import?page=4294967295"), (vec![], json!(null)));
    for wrong in ["0", "-1", "x", "4294967296", ""] {
        outcome(&service.send(Request::get(&format!("/v2/$import?page={wrong}"))), 400);
    }
}
