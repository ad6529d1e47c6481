//! `bulk_sql_run`: views and Libraries, given and stored.

use super::{store, view};
use crate::support::{assert_error, fails, rows, run};
use fhir_bulk_tests::{Client, Database};
use serde_json::{Value, json};

const URL: &str = "http://example.org/ViewDefinition/names";

fn call(request: &Value) -> String {
    let request = request.to_string().replace('\'', "''");
    format!("SELECT string_agg(convert_from(chunk, 'UTF8'), '') FROM bulk_sql_run('{request}') AS chunk")
}

#[track_caller]
fn body(client: &mut Client, request: Value) -> String {
    rows(client, &call(&request)).remove(0)
}

fn base64(client: &mut Client, text: &str) -> String {
    rows(
        client,
        &format!("SELECT translate(encode(convert_to('{}', 'UTF8'), 'base64'), E'\\n', '')", text.replace('\'', "''")),
    )
    .remove(0)
}

/// A Library with a query.
fn library(client: &mut Client, code: &str, query: &str, more: Value) -> Value {
    let data = base64(client, query);
    let mut library = json!({"resourceType": "Library", "status": "active", "type": {"coding": [{"code": code}]},
        "content": [{"contentType": "application/sql;dialect=sqlite", "data": base64(client, "SELECT nothing")},
            {"contentType": "application/sql; dialect=postgresql", "data": data}]});
    for (name, value) in more.as_object().unwrap() {
        library[name] = value.clone();
    }
    library
}

/// A view of a patient's names.
fn names() -> Value {
    let mut names: Value =
        serde_json::from_str(&view("Patient", &[("id", "id"), ("family", "name.first().family")])).unwrap();
    names["resourceType"] = "ViewDefinition".into();
    names["url"] = URL.into();
    names["status"] = "active".into();
    names
}

fn depends(label: &str, url: &str) -> Value {
    json!({"relatedArtifact": [{"type": "citation", "label": label}, {"type": "depends-on", "label": label, "resource": url}]})
}

fn patients() -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    let patient = |id: &str, family: &str| json!({"resourceType": "Patient", "id": id, "name": [{"family": family}]});
    store(&mut client, &database, &[patient("p1", "Ødegård"), patient("p2", "Meier")]);
    (database, client)
}

#[test]
fn a_view_is_found_by_its_canonical_its_version_and_its_id() {
    let (database, mut client) = patients();
    let version = |id: &str, version: &str, constant: &str| {
        let mut view = names();
        view["id"] = id.into();
        view["version"] = version.into();
        view["constant"] = json!([{"name": "name", "valueString": constant}]);
        view["select"][0]["column"][1] = json!({"name": "c", "path": "%name"});
        view
    };
    store(&mut client, &database, &[version("old", "1", "first"), version("new", "2", "second")]);
    run(&mut client, "UPDATE viewdefinition SET ts = '2020-01-01Z' WHERE id = 'old'");
    let first = "p1,first\np2,first\n";
    let second = "p1,second\np2,second\n";
    for (subject, found) in [
        (json!({"subjectCanonical": URL}), second),
        (json!({"subjectCanonical": format!("{URL}|1")}), first),
        (json!({"subjectCanonical": format!("{URL}|2")}), second),
        (json!({"subjectReference": "ViewDefinition/old"}), first),
    ] {
        let mut request = subject.clone();
        request["_format"] = "csv".into();
        request["header"] = false.into();
        assert_eq!(body(&mut client, request), found, "{subject}");
    }
    run(&mut client, "SET fhir_bulk.base_url = 'https://here.example/fhir'");
    let request = json!({"subjectReference": "https://here.example/fhir/ViewDefinition/old", "_limit": 1});
    assert_eq!(body(&mut client, request), "{\"id\":\"p1\",\"c\":\"first\"}\n");
    run(&mut client, "UPDATE viewdefinition SET status = 'deleted' WHERE id = 'new'");
    assert_eq!(body(&mut client, json!({"subjectCanonical": URL, "_format": "csv"})), format!("id,c\n{first}"));
    for subject in [
        json!({"subjectCanonical": format!("{URL}|2")}),
        json!({"subjectCanonical": "http://example.org/other"}),
        json!({"subjectReference": "ViewDefinition/new"}),
        json!({"subjectReference": "Library/old"}),
        json!({"subjectReference": "Patient/p1"}),
        json!({"subjectReference": "https://elsewhere.example/fhir/ViewDefinition/old"}),
        json!({"subjectReference": "old"}),
    ] {
        assert_error(&fails(&mut client, &call(&subject)), "P0002", &["there is no ViewDefinition or Library"]);
    }
}

#[test]
fn a_query_reads_its_views_and_binds_its_parameters() {
    let (database, mut client) = patients();
    let mut more = depends("person", URL);
    more["parameter"] = json!([{"name": "family", "use": "in", "type": "string"}, {"name": "unused", "use": "in", "type": "date"},
        {"name": "result", "use": "out", "type": "string"}]);
    let query = library(&mut client, "sql-query", "SELECT id FROM person WHERE family = :family", more);
    let given = |part: Value| json!({"resourceType": "Parameters", "parameter": [part]});
    let meier = given(json!({"name": "family", "valueString": "Meier"}));
    let request = json!({"subjectResource": query, "parameters": meier, "context": [names()]});
    assert_eq!(body(&mut client, request.clone()), "{\"id\":\"p2\"}\n");
    // A value is a value.
    let hostile = given(json!({"name": "family", "valueString": "x' OR true --"}));
    let mut none = request.clone();
    none["parameters"] = hostile;
    assert_eq!(rows(&mut client, &call(&none)), ["∅"]);
    // Stored, with its view.
    let (mut stored, mut stored_view) = (query.clone(), names());
    (stored["id"], stored["url"]) = ("q".into(), "http://example.org/q".into());
    stored_view["id"] = "v".into();
    store(&mut client, &database, &[stored, stored_view]);
    for subject in [json!({"subjectCanonical": "http://example.org/q"}), json!({"subjectReference": "Library/q"})] {
        let mut request = subject;
        request["parameters"] = meier.clone();
        assert_eq!(body(&mut client, request), "{\"id\":\"p2\"}\n");
    }
    // A SQLView, and one that a query depends on.
    let mut more = depends("person", URL);
    more["url"] = "http://example.org/long".into();
    let long = library(&mut client, "sql-view", "SELECT * FROM person WHERE length(family) > 6", more);
    assert_eq!(body(&mut client, json!({"subjectResource": long, "_format": "csv"})), "id,family\np1,Ødegård\n");
    let count =
        library(&mut client, "sql-query", "SELECT count(*) AS n FROM l", depends("l", "http://example.org/long"));
    let request = json!({"subjectResource": count, "context": [long], "_format": "json"});
    assert_eq!(body(&mut client, request), "[{\"n\":1}\n]\n");
    // What narrows views narrows those of a query.
    let mut request = json!({"subjectResource": long, "patient": ["Patient/p2"]});
    assert_eq!(rows(&mut client, &call(&request)), ["∅"]);
    request["patient"] = json!(["p1"]);
    assert_eq!(body(&mut client, request), "{\"id\":\"p1\",\"family\":\"Ødegård\"}\n");
}

#[test]
fn given_resources_are_instead_of_stored_ones() {
    let (_database, mut client) = patients();
    let bundle = json!({"resourceType": "Bundle", "type": "collection", "entry": [{"resource":
        {"resourceType": "Patient", "id": "x", "name": [{"family": "Given"}]}}]});
    let request = json!({"subjectResource": names(), "resource": [bundle], "_format": "csv"});
    assert_eq!(body(&mut client, request), "id,family\nx,Given\n");
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let (_database, mut client) = patients();
    let mut declared = depends("person", URL);
    declared["parameter"] = json!([{"name": "n", "use": "in", "type": "integer", "min": 1}]);
    let query = library(&mut client, "sql-query", "SELECT id FROM person LIMIT :n", declared);
    let parameters = |part: Value| json!({"resourceType": "Parameters", "parameter": part});
    let of_query =
        |part: Value| json!({"subjectResource": query, "context": [names()], "parameters": parameters(part)});
    let of_view = |name: &str, value: Value| {
        let mut request = json!({"subjectResource": names()});
        request[name] = value;
        request
    };
    let simple = |client: &mut Client, more: Value| library(client, "sql-query", "SELECT 1 AS one", more);
    let (plain, twice) = (
        simple(&mut client, json!({})),
        simple(&mut client, json!({"relatedArtifact": [{"type": "depends-on", "resource": URL}]})),
    );
    let mut circle = depends("again", "http://example.org/c");
    circle["url"] = "http://example.org/c".into();
    let circle = library(&mut client, "sql-view", "SELECT 1 FROM again", circle);
    for (request, state, beginning) in [
        (json!({}), "22023", "subject is missing"),
        (
            json!({"subjectCanonical": URL, "subjectReference": "Library/x"}),
            "22023",
            "subject is named in more than one way",
        ),
        (json!({"subjectResource": "x"}), "22023", "subjectResource is not"),
        (json!({"subjectResource": {"resourceType": "Patient"}}), "22023", "the subject is no ViewDefinition"),
        (json!({"subjectResource": {"resourceType": "Library"}}), "22023", "the subject is no ViewDefinition"),
        (of_view("parameters", parameters(json!([]))), "22023", "parameters are for a query"),
        (of_view("context", json!([names()])), "22023", "context has http"),
        (of_view("_format", json!("fhir")), "0A000", "_format \"fhir\" is not supported"),
        (of_view("_since", json!("yesterday")), "22023", "_since is not"),
        (of_view("_limit", json!("many")), "22023", "_limit is not"),
        (of_view("header", json!("maybe")), "22023", "header is not"),
        (of_view("patient", json!(["Device/1"])), "22023", "patient is not"),
        (of_view("patient", json!(["nobody"])), "22023", "there is no Patient \"nobody\""),
        (of_view("group", json!(["nobody"])), "P0002", "there is no Group \"nobody\""),
        (of_view("source", json!("x")), "22023", "the request has the unknown member \"source\""),
        (of_view("resource", json!([{"id": "x"}])), "22023", "option resources"),
        (of_view("allowedTypes", json!(["Observation"])), "42501", "a view of Patient is not among"),
        (of_query(json!([])), "22023", "parameters lack \"n\""),
        (of_query(json!([{"name": "m", "valueInteger": 1}])), "22023", "parameters have \"m\""),
        (of_query(json!([{"name": "n", "valueString": "1"}])), "22023", "parameters have another type for \"n\""),
        (
            of_query(json!([{"name": "n", "valueInteger": 1}, {"name": "n", "valueInteger": 1}])),
            "22023",
            "parameters have \"n\" twice",
        ),
        (json!({"subjectResource": plain, "resource": []}), "22023", "resource is for a view"),
        (json!({"subjectResource": plain, "context": [names()]}), "22023", "context has http"),
        (json!({"subjectResource": plain, "context": [{}]}), "22023", "context has a resource without url"),
        (json!({"subjectResource": plain, "context": [names(), names()]}), "22023", "context has two"),
        (json!({"subjectResource": plain, "patient": ["p1"]}), "22023", "patient is for views"),
        (json!({"subjectResource": plain, "allowedTypes": ["*"]}), "42501", "a query of SQL"),
        (json!({"subjectResource": twice}), "22023", "the Library has a relatedArtifact"),
        (json!({"subjectResource": circle, "context": [circle]}), "22023", "the Library has dependencies in a circle"),
        (json!({"subjectResource": query}), "P0002", "there is no ViewDefinition or Library"),
    ] {
        let error = fails(&mut client, &call(&request));
        assert_error(&error, state, &[]);
        assert!(error.message().starts_with(beginning), "{request}: {error:?}");
    }
    let allowed = json!({"subjectResource": names(), "allowedTypes": ["patient"], "_limit": 1});
    assert_eq!(body(&mut client, allowed), "{\"id\":\"p1\",\"family\":\"Ødegård\"}\n");
    for content in [
        json!([]),
        json!([{"contentType": "application/sql", "data": "%"}]),
        json!([{"contentType": "text/cql", "data": ""}]),
    ] {
        let mut library = plain.clone();
        library["content"] = content;
        let error = fails(&mut client, &call(&json!({"subjectResource": library})));
        assert_error(&error, "22023", &["the Library has"]);
    }
}
