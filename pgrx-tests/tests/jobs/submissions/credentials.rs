//! Credentials for sources that want access tokens: who sets them, who sees them, and which can be set.

use super::oauth::{Guarded, credential, set, set_sql, with_token};
use super::{allowed, finish, outcomes, request, submit, submitter, texts};
use crate::support::{assert_error, count, fails, rows, run, value};
use fhir_bulk_tests::{Client, bin};
use serde_json::json;
use std::process::Command;

/// The texts of the outcomes of the only manifest, which was left out.
fn left_out(client: &mut Client) -> String {
    let status = finish(client, "s");
    assert_eq!((&status["manifestsLeftOut"], &status["total"]), (&json!(1), &json!(0)), "{status}");
    let found = outcomes(client, &status);
    texts(found.values().next().unwrap())[0].to_owned()
}

#[test]
fn credentials_are_set_by_superusers_and_shown_to_nobody() {
    let (database, mut admin) = allowed();
    let role = submitter(&database, &mut admin, "one");
    let endpoint = "https://as.example/token";
    let secret = format!("geheim-{}", database.name());
    set(&mut admin, endpoint, json!({"role": role, "clientSecret": secret}));
    let shown = "SELECT role, value, token_endpoint, client_id, method, sources FROM bulk_source_credentials";
    let expected = format!("{role}|payer-7|{endpoint}|me:1|client_secret_basic|[\"https://as.example/\"]");
    assert_eq!(rows(&mut admin, shown), [expected]);
    run(
        &mut admin,
        &format!(
            "GRANT SELECT ON bulk_source_credentials TO {role}; GRANT pg_read_all_data, pg_write_all_data TO {role};
             GRANT EXECUTE ON FUNCTION bulk_set_source_credential(jsonb), bulk_remove_source_credential(jsonb) TO {role}"
        ),
    );
    let mut client = database.connect_as(&role);
    assert_eq!(rows(&mut client, "SELECT * FROM bulk_source_credentials"), [""; 0]);
    assert_eq!(rows(&mut client, "SELECT * FROM fhir_bulk_internal.bulk_source_credential"), [""; 0]);
    let own = credential(&mut client, endpoint, json!({}));
    assert_error(&fails(&mut client, &set_sql(&own)), "42501", &["superusers"]);
    let remove = set_sql(&own).replace("bulk_set", "bulk_remove");
    assert_error(&fails(&mut client, &remove), "42501", &["superusers"]);
    let insert = "INSERT INTO fhir_bulk_internal.bulk_source_credential VALUES (0, '', '', '', '{}')";
    assert_eq!(fails(&mut client, insert).code().code(), "42501");
    let public = "SELECT count(*) FROM pg_proc WHERE proname ~ 'source_credential' AND has_function_privilege('public', oid, 'EXECUTE')";
    assert_eq!(count(&mut admin, public), 0);
    let dump = Command::new(bin("pg_dump")).args(["-d", &database.cluster().dsn("postgres", database.name())]).output();
    let dump = dump.unwrap();
    let text = String::from_utf8_lossy(&dump.stdout).into_owned() + &String::from_utf8_lossy(&dump.stderr);
    assert!(dump.status.success() && !text.contains(&secret), "{text}");
    let wrong = request("s", json!({"role": role}));
    let error = fails(&mut admin, &set_sql(&wrong));
    assert_error(&error, "22023", &["tokenEndpoint"]);
}

#[test]
fn credentials_that_cannot_work_are_refused_without_showing_them() {
    let (_database, mut client) = allowed();
    let endpoint = "https://as.example/token";
    for (more, state, piece) in [
        (json!({"role": null}), "22023", "\"role\""),
        (json!({"role": "no one"}), "42704", "does not exist"),
        (json!({"submitter": null}), "22023", "submitter"),
        (json!({"tokenEndpoint": "ftp://h/t"}), "22023", "tokenEndpoint"),
        (json!({"tokenEndpoint": format!("https://h/{}", "x".repeat(3000))}), "22023", "2000 bytes"),
        (json!({"clientId": null}), "22023", "clientId"),
        (json!({"clientSecret": null}), "22023", "exactly one"),
        (json!({"privateKey": "geheim", "keyId": "k"}), "22023", "exactly one"),
        (json!({"clientSecret": null, "privateKey": "geheim"}), "22023", "keyId"),
        (json!({"clientSecret": null, "privateKey": "geheim", "keyId": "k"}), "22023", "privateKey"),
        (json!({"clientSecret": "geheim ä"}), "22023", "ASCII"),
        (json!({"clientSecret": "geheim\n"}), "22023", "clientSecret"),
        (json!({"clientSecret": ["geheim"]}), "22023", "clientSecret"),
        (json!({"sources": []}), "22023", "sources"),
        (json!({"sources": ["as.example"]}), "22023", "sources"),
        (json!({"unknown": "geheim"}), "22023", "unknown member"),
    ] {
        let all = credential(&mut client, endpoint, more);
        let error = fails(&mut client, &set_sql(&all));
        assert_error(&error, state, &[piece]);
        assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
    }
    assert_error(&fails(&mut client, "SELECT bulk_set_source_credential(NULL)"), "22004", &["request"]);
    assert_eq!(rows(&mut client, "SELECT * FROM bulk_source_credentials"), [""; 0]);
}

#[test]
fn credentials_that_are_removed_before_they_are_used_leave_the_manifest_out() {
    let database = crate::job::server(&["fhir_bulk.import_workers = 1"]);
    let mut client = database.connect();
    let guarded = Guarded::new();
    let stalling = crate::source::Stalling::silent();
    let busy = json!({"id": "busy", "inputs": [{"resourceType": "Patient", "url": stalling.url()}]});
    run(&mut client, &format!("SELECT bulk_import($json${busy}$json$)"));
    fhir_bulk_tests::wait_for("the only worker to be busy", || stalling.requests() == 1);
    let url = guarded.manifest("/m", &[], true);
    set(&mut client, &guarded.url("/token"), json!({}));
    submit(&mut client, "s", with_token(&guarded, &url));
    remove(&mut client, &guarded.url("/token"));
    stalling.go_on();
    assert!(left_out(&mut client).contains("no credentials for the token endpoint"));
    assert_eq!(guarded.asked(), 0);
    drop(client);
    database.cluster().stop_server("fast");
}

fn remove(client: &mut Client, endpoint: &str) {
    let mut all = credential(client, endpoint, json!({}));
    for name in ["clientId", "clientSecret"] {
        all.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(value(client, &set_sql(&all).replace("bulk_set", "bulk_remove")), "t");
}
