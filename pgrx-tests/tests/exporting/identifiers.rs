//! `bulk_export_identifiers`: what a client gets by business identifiers, and what it must not learn.

use crate::support::{assert_error, assert_error_with_hint, count, fails, load, run, value};
use fhir_bulk_tests::{Client, Database};
use serde_json::{Value, json};

/// People as OpenSPP has them, in a table of a type that is not FHIR's.
const INDIVIDUALS: &str = r#"{"id":"1","type":"Individual","identifier":[{"system":"urn:gov:ph:psa:national-id","value":"PH-123456789"}],"name":{"family":"SANTOS","given":"Maria"},"birthDate":"1985-03-15","address":"Manila"}
{"id":"2","type":"Individual","identifier":[{"system":"urn:gov:ph:psa:national-id","value":"PH-987654321"},{"value":"plain"}],"name":{"family":"CRUZ","given":"Juan"},"birthDate":"1990-07-22","gender":"male","weight":1.10}
{"id":"3","identifier":[{"system":"urn:x","value":"a|b|c"},{"system":"urn:x","value":"a|b|c"},{"system":"urn:y","value":"plain"},{"system":"urn:x","value":"twice"}],"name":{"family":"REYES"}}
{"id":"4","identifier":{"system":"urn:x","value":"single"},"name":{"family":"\"GARCÍA\" 🎈"}}
{"id":"5","identifier":[{"system":"urn:x","value":"twice"}]}
{"id":"6","name":{"family":"PH-123456789"},"contact":[{"identifier":[{"system":"urn:x","value":"inner"}]}]}
"#;

fn with_individuals() -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    assert_eq!(load(&mut client, &database.file("individuals", INDIVIDUALS), "'Individual'"), r#"{"total": 6}"#);
    (database, client)
}

fn sql(request: &Value) -> String {
    format!("SELECT bulk_export_identifiers('{}')", request.to_string().replace('\'', "''"))
}

fn export(client: &mut Client, request: &Value) -> Value {
    serde_json::from_str(&value(client, &sql(request))).unwrap()
}

/// The items of a result, each as its `status` with the resource's family name or the error.
fn outcomes(client: &mut Client, identifiers: &[&str]) -> Vec<String> {
    let answer = export(client, &json!({"type": "Individual", "identifiers": identifiers}));
    let items = answer["items"].as_array().unwrap();
    assert_eq!(items.iter().map(|item| item["identifier"].as_str().unwrap()).collect::<Vec<_>>(), identifiers);
    assert_eq!(answer["total"], identifiers.len());
    assert_eq!(answer["successful"], items.iter().filter(|item| item["status"] == "success").count());
    assert_eq!(answer["failed"], items.iter().filter(|item| item["status"] != "success").count());
    let told = |item: &Value| {
        let found = item["resource"]["name"]["family"].as_str();
        format!("{} {}", item["status"].as_str().unwrap(), found.or(item["error"].as_str()).unwrap())
    };
    items.iter().map(told).collect()
}

#[test]
fn the_request_that_openspp_documents_is_answered_as_it_documents_it() {
    let (_database, mut client) = with_individuals();
    let system = "urn:gov:ph:psa:national-id";
    let request = json!({
        "type": "Individual",
        "identifiers": [format!("{system}|PH-123456789"), format!("{system}|PH-987654321"), format!("{system}|PH-555555555")],
        "_elements": "name,birthDate,gender"
    });
    let expected = json!({
        "total": 3,
        "successful": 2,
        "failed": 1,
        "items": [
            {
                "identifier": "urn:gov:ph:psa:national-id|PH-123456789",
                "status": "success",
                "resource": {
                    "type": "Individual",
                    "identifier": [{"system": system, "value": "PH-123456789"}],
                    "name": {"family": "SANTOS", "given": "Maria"},
                    "birthDate": "1985-03-15"
                }
            },
            {
                "identifier": "urn:gov:ph:psa:national-id|PH-987654321",
                "status": "success",
                "resource": {
                    "type": "Individual",
                    "identifier": [{"system": system, "value": "PH-987654321"}, {"value": "plain"}],
                    "name": {"family": "CRUZ", "given": "Juan"},
                    "birthDate": "1990-07-22",
                    "gender": "male"
                }
            },
            {
                "identifier": "urn:gov:ph:psa:national-id|PH-555555555",
                "status": "not_found",
                "error": "Individual not found"
            }
        ]
    });
    assert_eq!(export(&mut client, &request), expected);
    // An index changes nothing of it, nor does the case of the type.
    run(&mut client, "CREATE INDEX ON individual USING gin (resource jsonb_path_ops)");
    assert_eq!(export(&mut client, &request), expected);
    run(&mut client, "CREATE INDEX ON individual USING gin ((resource -> 'identifier') jsonb_path_ops)");
    assert_eq!(export(&mut client, &request), expected);
}

#[test]
fn identifiers_are_found_with_and_without_a_system_on_every_path() {
    let (_database, mut client) = with_individuals();
    for index in [
        "SELECT",
        "CREATE INDEX whole ON individual USING gin (resource jsonb_path_ops)",
        "DROP INDEX whole; CREATE INDEX part ON individual USING gin ((resource -> 'identifier') jsonb_path_ops)",
        "DROP INDEX part; CREATE INDEX keys ON individual USING gin (resource)",
        "DROP INDEX keys; CREATE INDEX ON individual USING gin ((resource -> 'identifier')) WHERE txid < 0",
    ] {
        run(&mut client, index);
        let asked = [
            "PH-123456789",
            "|PH-123456789",
            "|plain",
            "plain",
            "urn:y|plain",
            "urn:x|a|b|c",
            "a|b|c",
            "urn:x|single",
            "single",
            "urn:x|twice",
            "inner",
            "urn:gov:ph:psa:national-id|PH-1234567890",
            "urn:x|",
            "|",
            "",
            "urn:x|single",
        ];
        let expected = [
            "success SANTOS",
            "not_found Individual not found",
            "success CRUZ",
            "error More than one Individual has this identifier",
            "success REYES",
            "success REYES",
            "not_found Individual not found",
            "success \"GARCÍA\" 🎈",
            "success \"GARCÍA\" 🎈",
            "error More than one Individual has this identifier",
            "not_found Individual not found",
            "not_found Individual not found",
            "error The identifier has no value",
            "error The identifier has no value",
            "error The identifier has no value",
            "success \"GARCÍA\" 🎈",
        ];
        assert_eq!(outcomes(&mut client, &asked), expected, "{index}");
    }
}

#[test]
fn fhir_resources_come_in_fhir_form_with_the_elements_asked_for() {
    let database = Database::new();
    let mut client = database.connect();
    let observation = r#"{"resourceType":"Observation","id":"o","identifier":[{"system":"s","value":"1"}],"status":"final","subject":{"reference":"Patient/p"},"valueQuantity":{"value":1.10}}"#;
    load(&mut client, &database.file("o", observation), "'Observation', fhir => true");
    run(&mut client, "SET TimeZone = 'UTC'; UPDATE observation SET txid = 7, ts = '2021-06-10T08:26:10Z', cts = NULL");
    let mut resource = |elements: Option<&str>| {
        let mut request = json!({"type": "observation", "identifiers": ["s|1"]});
        if let Some(elements) = elements {
            request["_elements"] = elements.into();
        }
        export(&mut client, &request)["items"][0]["resource"].clone()
    };
    let identifier = json!([{"system": "s", "value": "1"}]);
    let whole = json!({
        "resourceType": "Observation", "identifier": identifier, "status": "final",
        "subject": {"reference": "Patient/p"}, "valueQuantity": {"value": serde_json::from_str::<Value>("1.10").unwrap()}
    });
    assert_eq!(resource(None), whole);
    assert_eq!(
        resource(Some("value, subject")),
        json!({"resourceType": "Observation", "identifier": identifier, "subject": whole["subject"], "valueQuantity": whole["valueQuantity"]})
    );
    for nothing in ["", "valueString,unknown,;DROP"] {
        assert_eq!(resource(Some(nothing)), json!({"resourceType": "Observation", "identifier": identifier}));
    }
    assert_eq!(
        resource(Some("id,meta")),
        json!({
            "resourceType": "Observation", "identifier": identifier, "id": "o",
            "meta": {"versionId": "7", "lastUpdated": "2021-06-10T08:26:10.000000Z"}
        })
    );
}

#[test]
fn clients_find_the_function_under_its_name_and_arguments() {
    let mut client = Database::new().connect();
    let signature =
        "SELECT pg_get_function_arguments(oid), pg_get_function_result(oid), provolatile, proparallel, prosecdef,
                     has_function_privilege('public', oid, 'EXECUTE'), obj_description(oid, 'pg_proc') <> ''
                     FROM pg_proc WHERE proname = 'bulk_export_identifiers'";
    assert_eq!(value(&mut client, signature), "request jsonb|jsonb|s|u|f|f|t");
}

#[test]
fn deleted_resources_are_not_found() {
    let (_database, mut client) = with_individuals();
    run(&mut client, "UPDATE individual SET status = 'deleted' WHERE id IN ('1', '5')");
    assert_eq!(
        outcomes(&mut client, &["PH-123456789", "urn:x|twice"]),
        ["not_found Individual not found", "success REYES"]
    );
}

#[test]
fn a_hundred_identifiers_are_answered_and_none_or_more_refused() {
    let (_database, mut client) = with_individuals();
    let many: Vec<String> = (0..101).map(|n| format!("urn:x|{n}")).collect();
    let hundred = export(&mut client, &json!({"type": "Individual", "identifiers": many[..100]}));
    assert_eq!((&hundred["total"], &hundred["failed"]), (&json!(100), &json!(100)));
    let same = vec!["PH-123456789"; 100];
    assert_eq!(outcomes(&mut client, &same), vec!["success SANTOS"; 100]);
    for (identifiers, number) in [(&many[..], "101"), (&many[..0], "0")] {
        let error = fails(&mut client, &sql(&json!({"type": "Individual", "identifiers": identifiers})));
        assert_error_with_hint(&error, "22023", &[number]);
    }
}

#[test]
fn a_bad_request_says_what_is_wrong_with_it() {
    let (_database, mut client) = with_individuals();
    for (request, state, piece) in [
        (json!([]), "22023", "object"),
        (json!({"identifiers": ["1"]}), "22023", "\"type\""),
        (json!({"type": "Individual"}), "22023", "\"identifiers\""),
        (json!({"type": "Individual", "identifiers": null}), "22023", "\"identifiers\""),
        (json!({"type": 1, "identifiers": ["1"]}), "22023", "\"type\""),
        (json!({"type": "Individual", "identifiers": "1"}), "22023", "\"identifiers\""),
        (json!({"type": "Individual", "identifiers": ["1", 2]}), "22023", "\"identifiers\""),
        (json!({"type": "Individual", "identifiers": ["1"], "_elements": {}}), "22023", "\"_elements\""),
        (json!({"type": "Individual", "identifiers": ["1"], "elements": "name"}), "22023", "\"elements\""),
        (json!({"type": "Nobody", "identifiers": ["1"]}), "42P01", "Nobody"),
        (json!({"type": "'; DROP TABLE", "identifiers": ["1"]}), "42P01", "DROP TABLE"),
    ] {
        assert_error(&fails(&mut client, &sql(&request)), state, &[piece]);
    }
    assert_error(&fails(&mut client, "SELECT bulk_export_identifiers(NULL)"), "22004", &["request"]);
}

#[test]
fn a_role_without_select_is_denied_each_item_and_told_nothing() {
    let (database, mut admin) = with_individuals();
    let role = database.role("app");
    let mut client = database.connect_as(&role);
    let request = json!({"type": "Individual", "identifiers": ["PH-123456789", "absent"]});
    assert_error(&fails(&mut client, &sql(&request)), "42501", &["bulk_export_identifiers"]);
    run(&mut admin, &format!("GRANT EXECUTE ON FUNCTION bulk_export_identifiers(jsonb) TO {role}"));
    let denied = ["access_denied Access to Individual denied"; 2];
    let asked = ["PH-123456789", "absent"];
    for grant in ["INSERT, UPDATE, DELETE", "SELECT (id, txid, cts, ts, status, resource_type)", "REFERENCES"] {
        run(&mut admin, &format!("GRANT {grant} ON individual TO {role}"));
        assert_eq!(outcomes(&mut client, &asked), denied, "{grant}");
    }
    run(&mut admin, &format!("GRANT SELECT (resource) ON individual TO {role}"));
    assert_eq!(outcomes(&mut client, &asked), ["success SANTOS", "not_found Individual not found"]);
    run(&mut admin, "CREATE SCHEMA hidden; ALTER TABLE individual SET SCHEMA hidden");
    run(&mut client, "SET fhir_bulk.data_schema = 'hidden'");
    assert_eq!(outcomes(&mut client, &asked), denied);
    run(&mut admin, &format!("GRANT USAGE ON SCHEMA hidden TO {role}"));
    assert_eq!(outcomes(&mut client, &asked), ["success SANTOS", "not_found Individual not found"]);
}

#[test]
fn a_row_that_row_level_security_hides_is_not_found() {
    let (database, mut admin) = with_individuals();
    let role = database.role("app");
    run(
        &mut admin,
        &format!(
            "CREATE INDEX ON individual USING gin (resource jsonb_path_ops);
             GRANT EXECUTE ON FUNCTION bulk_export_identifiers(jsonb) TO {role}; GRANT SELECT ON individual TO {role};
             ALTER TABLE individual ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON individual USING (id <> current_setting('app.hidden', true))"
        ),
    );
    let mut client = database.connect_as(&role);
    run(&mut client, "SET app.hidden = '1'");
    let asked = ["PH-123456789", "urn:gov:ph:psa:national-id|PH-987654321", "urn:x|twice"];
    assert_eq!(
        outcomes(&mut client, &asked),
        ["not_found Individual not found", "success CRUZ", "error More than one Individual has this identifier"]
    );
    // The error does not reveal that another resource has the same identifier.
    run(&mut client, "SET app.hidden = '5'");
    assert_eq!(outcomes(&mut client, &asked[2..]), ["success REYES"]);
    run(&mut client, "SET row_security = off");
    assert_error(
        &fails(&mut client, &sql(&json!({"type": "Individual", "identifiers": ["1"]}))),
        "42501",
        &["individual"],
    );
}

/// How many scans of a table, sequential and by index, a statement makes.
fn scans(client: &mut Client, table: &str, statement: &str) -> (i64, i64) {
    let query =
        format!("SELECT seq_scan, coalesce(idx_scan, 0) FROM pg_stat_xact_user_tables WHERE relname = '{table}'");
    let so_far = |client: &mut Client| {
        let row = client.query_one(&query, &[]).unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    // In one transaction, since at its end the numbers leave the session when it suits them.
    run(client, "BEGIN");
    let before = so_far(client);
    run(client, statement);
    let after = so_far(client);
    run(client, "COMMIT");
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn a_hundred_identifiers_come_from_the_index_or_from_one_scan() {
    let database = Database::new();
    let mut client = database.connect();
    // A table that PostgreSQL knows nothing of yet, where it would take a hundred identifiers for most of the rows.
    run(
        &mut client,
        "SELECT bulk_create_table('Patient');
         INSERT INTO patient (id, txid, status, resource) SELECT n, n, 'created',
           jsonb_build_object('identifier', jsonb_build_array(jsonb_build_object('system', 's', 'value', n::text)), 'name', repeat(md5(n::text), 20))
           FROM generate_series(1, 20000) n",
    );
    let identifiers: Vec<String> = (0..100).map(|n| format!("s|{}", 1 + n * 199)).collect();
    let request = json!({"type": "Patient", "identifiers": identifiers, "_elements": ""});
    assert_eq!(export(&mut client, &request)["successful"], 100);
    assert_eq!(scans(&mut client, "patient", &sql(&request)), (1, 0));
    for index in ["resource", "(resource -> 'identifier')"] {
        run(&mut client, &format!("CREATE INDEX found ON patient USING gin ({index} jsonb_path_ops)"));
        let (sequential, by_index) = scans(&mut client, "patient", &sql(&request));
        assert!(sequential == 0 && by_index > 0, "{index}: {sequential} scans, {by_index} by index");
        run(&mut client, "SET enable_bitmapscan = off");
        assert_eq!(scans(&mut client, "patient", &sql(&request)).0, 0);
        // The caller's settings are the caller's again.
        assert_eq!(value(&mut client, "SHOW enable_bitmapscan"), "off");
        assert_eq!(value(&mut client, "SHOW enable_seqscan"), "on");
        run(&mut client, "RESET enable_bitmapscan; DROP INDEX found");
    }
}

#[test]
fn new_tables_have_the_index_when_the_setting_asks_for_it() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_create_table('Device')");
    run(
        &mut client,
        "SET fhir_bulk.identifier_index = on; SELECT bulk_create_table('Patient'), bulk_create_table('Device')",
    );
    let indexes = "SELECT count(*) FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = relam
                   WHERE amname = 'gin' AND indrelid IN ('device'::regclass, 'patient'::regclass, 'patient_history'::regclass)";
    assert_eq!(count(&mut client, indexes), 1);
    let line = r#"{"resourceType":"Patient","id":"p","identifier":[{"system":"s","value":"1"}]}"#;
    load(&mut client, &database.file("p", line), "'Patient', fhir => true");
    let request = json!({"type": "Patient", "identifiers": ["s|1"]});
    assert_eq!(export(&mut client, &request)["successful"], 1);
    assert_eq!(scans(&mut client, "patient", &sql(&request)).0, 0);
}

#[test]
fn what_is_in_a_request_cannot_become_sql_or_a_pattern() {
    let (_database, mut client) = with_individuals();
    let evil = ["'); DROP TABLE individual; --", "%", "_", "\\", "\"", "urn:x|$1", "*", "\u{1}", "{}", "[]"];
    assert_eq!(outcomes(&mut client, &evil), vec!["not_found Individual not found"; evil.len()]);
    run(&mut client, "CREATE INDEX ON individual USING gin ((resource -> 'identifier') jsonb_path_ops)");
    assert_eq!(outcomes(&mut client, &evil), vec!["not_found Individual not found"; evil.len()]);
    // Operators of the caller's own come before PostgreSQL's only for the caller.
    run(
        &mut client,
        "CREATE SCHEMA trap; CREATE FUNCTION trap.has(jsonb, jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE OPERATOR trap.@> (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = trap.has);
         CREATE FUNCTION trap.get(jsonb, text) RETURNS jsonb LANGUAGE sql AS 'SELECT to_jsonb(1/0)';
         CREATE OPERATOR trap.-> (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = trap.get);
         SET search_path = trap, public, pg_catalog",
    );
    assert_eq!(
        outcomes(&mut client, &["PH-123456789", "absent"]),
        ["success SANTOS", "not_found Individual not found"]
    );
    let request = sql(&json!({"type": "Individual", "identifiers": ["PH-123456789"]}));
    assert_eq!(scans(&mut client, "individual", &request).0, 0);
}

#[test]
fn tables_of_other_kinds_are_searched_as_well() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TYPE resource_status AS ENUM ('created', 'updated', 'deleted', 'recreated');
         CREATE TABLE patient (id text, txid bigint, ts timestamptz, resource_type text, status resource_status, resource jsonb,
           PRIMARY KEY (id)) PARTITION BY HASH (id);
         CREATE TABLE patient_0 PARTITION OF patient FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE patient_1 PARTITION OF patient FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO patient SELECT n, n, now(), NULL, 'created', jsonb_build_object('identifier', jsonb_build_array(jsonb_build_object('value', n::text)))
           FROM generate_series(1, 100) n;
         CREATE VIEW device AS SELECT * FROM patient",
    );
    for index in ["SELECT", "CREATE INDEX ON patient USING gin ((resource -> 'identifier') jsonb_path_ops)"] {
        run(&mut client, index);
        for resource_type in ["Patient", "Device"] {
            let request = json!({"type": resource_type, "identifiers": ["7", "|8", "101"], "_elements": "id"});
            let answer = export(&mut client, &request);
            assert_eq!(answer["successful"], 2);
            assert_eq!(answer["items"][1]["resource"]["id"], "8");
            assert_eq!(answer["items"][1]["resource"]["resourceType"], resource_type);
        }
    }
}
