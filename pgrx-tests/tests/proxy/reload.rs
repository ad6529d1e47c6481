//! SIGHUP: files are reloaded while requests go on.

use std::process::Command;

use fhir_bulk_tests::Database;
use fhir_bulk_tests::proxy::Request;

use crate::support::{PASSWORD, Service, aidbox_rows, certificate, file, key_line, outcome, role, target};

/// A role of a database whose password and membership are the proxy's own.
fn own_user(database: &Database) -> String {
    let (own, reader) = (role(database, "own"), role(database, "reader"));
    database.connect().batch_execute(&format!("GRANT {reader} TO {own}")).unwrap();
    own
}

#[test]
fn keys_count_from_the_signal_on_and_a_file_with_a_mistake_changes_nothing() {
    let service = Service::with(|database| {
        let own = own_user(database);
        let keys = file(database, "keys.yaml", &key_line("first", &format!("{}_reader", database.name())));
        let own = target(database, &format!("user={own} password='{PASSWORD}'"));
        ["--api-keys-file", &keys, "--database", &own].map(str::to_owned).to_vec()
    });
    aidbox_rows(&mut service.connect());
    let reader = format!("{}_reader", service.database.name());
    service.connect().batch_execute(&format!("GRANT SELECT ON patient TO {reader}")).unwrap();
    let status = |key: &str| service.proxy.send(&Request::get("/Patient/$dump").header("x-api-key", key)).status;
    assert_eq!((status("first"), status("second")), (200, 401));
    file(&service.database, "keys.yaml", &key_line("second", &reader));
    assert_eq!((status("first"), status("second")), (200, 401));
    service.proxy.reload();
    assert_eq!((status("first"), status("second")), (401, 200));
    file(&service.database, "keys.yaml", "- sha256: abc\n  role: x\n");
    service.proxy.reload();
    assert!(service.proxy.log().contains("64 hexadecimal digits"), "{}", service.proxy.log());
    assert_eq!((status("first"), status("second")), (401, 200));
}

#[test]
fn a_token_secret_and_the_proxys_own_password_can_be_replaced() {
    let service = Service::with(|database| {
        let own = own_user(database);
        let secret = file(database, "secret", &"a".repeat(32));
        let password = file(database, "password", PASSWORD);
        let own = target(database, &format!("user={own}"));
        [
            "--jwt-secret-file",
            &secret,
            "--database-password-file",
            &password,
            "--database",
            &own,
            "--connection-age",
            "1ms",
        ]
        .map(str::to_owned)
        .to_vec()
    });
    aidbox_rows(&mut service.connect());
    let name = service.database.name();
    service.connect().batch_execute(&format!("GRANT SELECT ON patient TO {name}_reader")).unwrap();
    let dump = |secret: &str| {
        let token = crate::auth::hs256(&serde_json::json!({"role": format!("{name}_reader")}), &secret.repeat(32));
        service.proxy.send(&Request::get("/Patient/$dump").header("Authorization", &format!("Bearer {token}")))
    };
    assert_eq!((dump("a").status, dump("b").status), (200, 401));
    service.database.connect().batch_execute(&format!("ALTER ROLE {name}_own PASSWORD 'another'")).unwrap();
    outcome(&dump("a"), 503);
    file(&service.database, "secret", &"b".repeat(32));
    file(&service.database, "password", "another\n");
    service.proxy.reload();
    assert_eq!((dump("a").status, dump("b").status), (401, 200));
}

#[test]
fn a_certificate_that_is_renewed_is_shown_to_the_next_client() {
    let service = Service::with(|database| certificate(database, "first"));
    let url = format!("https://{}/health", service.proxy.address());
    let trusted = || {
        let cert = service.database.path("cert.pem");
        Command::new("curl").args(["-s", "--fail", "--cacert"]).arg(cert).arg(&url).output().unwrap().status.success()
    };
    assert!(trusted());
    certificate(&service.database, "second");
    assert!(!trusted());
    service.proxy.reload();
    assert!(trusted());
}
