//! Errors have the right status and a helpful message, and reveal nothing that callers must not know.

use fhir_bulk_tests::proxy::Request;
use serde_json::json;

use crate::support::{PASSWORD, Service, aidbox_rows, outcome, role};

#[test]
fn addresses_methods_and_versions_that_are_not_served_say_so() {
    let service = Service::new();
    for path in [
        "/",
        "/Patient",
        "/Patient/$everything",
        "/$dump",
        "/fhir/Patient/$dump",
        "/fhir/Patient/$dump-csv",
        "/metadata",
        "/%",
    ] {
        outcome(&service.send(Request::get(path)), 404);
    }
    let response = service.send(Request::new("DELETE", "/Patient/$dump"));
    assert_eq!(response.header("allow"), Some("GET,HEAD"));
    outcome(&response, 405);
    let response = service.send(Request::get("/fhir/$load"));
    assert_eq!(response.header("allow"), Some("POST"));
    outcome(&response, 405);
    // An HTTP/1.0 client could not tell half a dump from a whole one.
    let text = outcome(&service.send(Request::get("/Patient/$dump").version("HTTP/1.0")), 505);
    assert!(text.contains("HTTP/1.1"), "{text}");
}

#[test]
fn an_answer_that_the_caller_rules_out_is_not_sent() {
    let service = Service::new();
    aidbox_rows(&mut service.connect());
    let dump = |accept: &str| service.send(Request::get("/Patient/$dump").header("Accept", accept));
    for accept in ["*/*", "application/ndjson", "application/fhir+ndjson", "text/html, */*;q=0.1", "application/*"] {
        assert_eq!(dump(accept).status, 200, "{accept}");
    }
    for accept in ["text/html", "application/json", "application/ndjson;q=0"] {
        outcome(&dump(accept), 406);
    }
}

#[test]
fn bodies_that_are_broken_too_large_or_of_another_type_are_refused() {
    let service = Service::with(|_| vec!["--max-body".into(), "1kB".into()]);
    let load = |content_type: &str, body: &str| service.send(Request::post("/Patient/$load", content_type, body));
    for (content_type, body) in [
        ("application/json", "{"),
        ("application/json", "[]"),
        ("application/json", ""),
        ("application/json", r#"{"source": "x"} more"#),
        ("application/json", r#"{"source": 1}"#),
        ("application/json", "{}"),
        ("application/json", "source: x"),
        ("text/yaml", "source: [x"),
        ("text/yaml", "- source"),
        ("text/yaml", "source: \u{1}"),
        (
            "text/yaml",
            "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d]",
        ),
    ] {
        outcome(&load(content_type, body), 400);
    }
    outcome(&load("application/json", &json!({"source": "x".repeat(2000)}).to_string()), 413);
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/xml", "nonsense"] {
        let text = outcome(&load(content_type, "{}"), 415);
        assert!(text.contains("application/json"), "{text}");
    }
    let deep = "[".repeat(900);
    outcome(&load("application/json", &format!("{{\"source\":{deep}")), 400);
}

#[test]
fn a_role_with_too_many_requests_waits_and_is_then_refused_while_others_are_served() {
    let service = Service::with(|_| {
        ["--connections-per-role", "1", "--connections", "2", "--wait", "200ms"].map(str::to_owned).to_vec()
    });
    aidbox_rows(&mut service.connect());
    let others = ["second", "third"].map(|name| role(&service.database, name));
    service
        .connect()
        .batch_execute(&format!(
            "CREATE FUNCTION stall() RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT pg_sleep(600) IS NOT NULL';
             ALTER TABLE patient ENABLE ROW LEVEL SECURITY; CREATE POLICY stall ON patient USING (stall());
             ALTER TABLE patient FORCE ROW LEVEL SECURITY;
             GRANT SELECT ON patient, appointment TO {}",
            others.join(", ")
        ))
        .unwrap();
    let get = |path: &str, role: &str| Request::get(path).basic(role, PASSWORD);
    let _running = service.proxy.open(&get("/Patient/$dump", &service.client));
    let stalled = |count: i64| {
        let mut client = service.database.connect();
        fhir_bulk_tests::wait_for("dumps to stall", || {
            let query =
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
            client.query_one(query, &[]).unwrap().get::<_, i64>(0) == count
        });
    };
    stalled(1);
    let response = service.proxy.send(&get("/Appointment/$dump", &service.client));
    assert!(response.header("retry-after").is_some());
    outcome(&response, 429);
    assert_eq!(service.proxy.send(&get("/Appointment/$dump", &others[0])).status, 200);
    let _running_too = service.proxy.open(&get("/Patient/$dump", &others[0]));
    stalled(2);
    let response = service.proxy.send(&get("/Appointment/$dump", &others[1]));
    assert!(response.header("retry-after").is_some());
    outcome(&response, 503);
}

#[test]
fn failures_behind_the_functions_stay_there_and_are_found_in_the_log_by_the_requests_id() {
    let service = Service::new();
    service
        .connect()
        .batch_execute(
            "SELECT bulk_create_table('Patient');
             CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF NEW.id = 'internal' THEN RAISE 'the secret is 42' USING ERRCODE = 'XX000';
                ELSIF NEW.id = 'undefined' THEN PERFORM secret_function(secret_column); RETURN NEW;
                ELSE RAISE 'no patients on Sundays'; END IF; END $$;
             CREATE TRIGGER fail BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION fail()",
        )
        .unwrap();
    let load = |id: &str| {
        let source = service.database.file("Patient.ndjson", format!("{{\"id\":\"{id}\"}}\n"));
        let request = Request::json("/Patient/$load", &json!({"source": source}).to_string());
        service.send(request.header("X-Request-Id", &format!("load-{id}")))
    };
    for id in ["internal", "undefined"] {
        let response = load(id);
        assert_eq!(response.header("x-request-id"), Some(format!("load-{id}").as_str()));
        let text = outcome(&response, 500);
        assert!(!text.contains("secret") && !text.contains("PL/pgSQL") && !text.contains("SELECT"), "{text}");
        fhir_bulk_tests::wait_for("the cause in the log", || {
            let log = service.proxy.log();
            log.lines().any(|line| line.contains(&format!("load-{id}")) && line.contains("secret"))
        });
    }
    // What a trigger says on purpose is for whoever loads.
    let text = outcome(&load("sunday"), 422);
    assert!(text.contains("no patients on Sundays"), "{text}");
}

#[test]
fn a_request_id_is_kept_if_it_is_one_and_made_otherwise() {
    let service = Service::new();
    let id = |given: Option<&str>| {
        let request = Request::get("/Patient/$dump");
        let request = given.iter().fold(request, |request, id| request.header("X-Request-Id", id));
        service.send(request).header("x-request-id").unwrap().to_owned()
    };
    // The longest that application_name has room for.
    for good in ["abc-1.2_3", &"x".repeat(47)] {
        assert_eq!(id(Some(good)), good);
    }
    let forged = ["a b", "a\tid=\"x\"", "", &"x".repeat(48), "é"];
    let made: Vec<String> = forged.iter().map(|given| id(Some(given))).chain([id(None)]).collect();
    for (at, id) in made.iter().enumerate() {
        assert!(id.len() == 32 && !made[..at].contains(id), "{made:?}");
    }
}

#[test]
fn while_the_database_is_away_callers_are_told_to_come_back() {
    let service = Service::with(|_| ["--database", "host=127.0.0.1 port=1 dbname=gone"].map(str::to_owned).to_vec());
    let response = service.send(Request::get("/Patient/$dump"));
    assert!(response.header("retry-after").is_some());
    let text = outcome(&response, 503);
    assert!(!text.contains("127.0.0.1") && !text.contains("refused"), "{text}");
    assert_eq!(service.proxy.send(&Request::get("/health")).status, 503);
}

#[test]
fn a_database_without_the_extension_is_told_apart_in_the_log() {
    let service = Service::new();
    service.database.connect().batch_execute("DROP EXTENSION fhir_bulk CASCADE").unwrap();
    outcome(&service.send(Request::get("/Patient/$dump")), 503);
    fhir_bulk_tests::wait_for("the reason in the log", || service.proxy.log().contains("CREATE EXTENSION fhir_bulk"));
    let text = outcome(&service.send(Request::get("/Patient/$dump")), 503);
    assert!(text.contains("no extension fhir_bulk"), "{text}");
    // Whoever watches the proxy learns it from what requests have found.
    let health = service.proxy.send(&Request::get("/health"));
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["status"], "the database has no extension fhir_bulk");
}

#[test]
fn what_callers_write_forges_no_line_of_the_log() {
    let service = Service::new();
    let name = "x\n2026-01-01 ERROR forged\r\u{1b}[31m\u{202e}";
    outcome(&service.proxy.send(&Request::get("/Patient/$dump").basic(name, PASSWORD)), 401);
    outcome(&service.send(Request::get("/x\u{202e}/y")), 404);
    fhir_bulk_tests::wait_for("both lines", || service.proxy.log().matches("answered").count() == 2);
    let log = service.proxy.log();
    assert!(log.contains("ERROR forged") && !log.lines().any(|line| line.starts_with("2026-01-01 ERROR")), "{log}");
    assert!(!log.contains(['\u{1b}', '\r', '\u{202e}']), "{log:?}");
}

#[test]
fn a_host_that_is_missing_there_twice_or_none_is_refused() {
    let service = Service::new();
    let get = || service.signed(Request::get("/Patient/$dump"));
    outcome(&service.proxy.send(&get().without("Host")), 400);
    outcome(&service.proxy.send(&get().and_header("Host", "evil.example.org")), 400);
    for host in ["", "user@fhir.example.org", "fhir.example.org/path", "fhir.example.org:port", "a b", "a.org#"] {
        outcome(&service.proxy.send(&get().header("Host", host)), 400);
    }
    for host in ["fhir.example.org:8443", "[::1]:8080"] {
        outcome(&service.proxy.send(&get().header("Host", host)), 404);
    }
}

#[test]
fn csv_is_text_for_those_who_accept_text() {
    let service = Service::new();
    let dump = |accept: &str| {
        service.send(Request::json("/$dump-sql", r#"{"query": "select 1"}"#).header("Accept", accept)).status
    };
    for accept in ["text/csv", "text/*", "application/csv", "*/*"] {
        assert_eq!(dump(accept), 200, "{accept}");
    }
    assert_eq!(dump("text/html"), 406);
}
