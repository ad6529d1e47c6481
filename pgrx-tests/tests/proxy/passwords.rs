//! Limits of password attempts, by role and address.

use fhir_bulk_tests::proxy::{Request, Response};
use fhir_bulk_tests::wait_for;

use crate::support::{PASSWORD, Service, outcome, role};

fn get() -> Request {
    Request::get("/Patient/$dump")
}

fn flags(all: &[&str]) -> Vec<String> {
    all.iter().map(|flag| (*flag).to_owned()).collect()
}

fn is_slowed(response: &Response) -> bool {
    if response.status == 429 {
        assert!(outcome(response, 429).contains("too many wrong passwords"));
        assert!(response.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    }
    response.status == 429
}

#[test]
fn who_guesses_passwords_is_slowed_and_keeps_nobody_else_out() {
    let service = Service::with(|_| flags(&["--trusted-proxies", "127.0.0.1"]));
    let other = role(&service.database, "other");
    let from = |address: &str, request: Request| request.header("X-Forwarded-For", &format!("6.6.6.6, {address}"));
    let guess = |n: usize| service.proxy.send(&from("10.0.0.1", get().basic(&service.client, &format!("wrong {n}"))));
    let answers: Vec<bool> = (0..20).map(|n| is_slowed(&guess(n))).collect();
    assert!(!answers[0] && !answers[2], "the first mistakes are no attack: {answers:?}");
    assert!(answers.iter().filter(|slowed| **slowed).count() > 10, "{answers:?}");
    // The right one is no way to find that it is right.
    assert!(is_slowed(&service.send(from("10.0.0.1", get()))));
    outcome(&service.send(from("10.0.0.2", get())), 404);
    outcome(&service.send(get()), 404);
    outcome(&service.proxy.send(&from("10.0.0.1", get().basic(&other, PASSWORD))), 404);
    // Now there is a connection of the role, which a right guess would find.
    assert!(is_slowed(&service.send(from("10.0.0.1", get()))));
}

#[test]
fn a_header_of_the_callers_own_makes_no_other_address() {
    let service = Service::new();
    let guess = |n: usize| {
        let request = get().basic(&service.client, "wrong").header("X-Forwarded-For", &format!("10.0.0.{n}"));
        is_slowed(&service.proxy.send(&request))
    };
    assert!((0..20).filter(|n| guess(*n)).count() > 10);
}

#[test]
fn a_role_that_is_more_than_others_is_told_that_its_password_is_wrong() {
    let service = Service::new();
    let wrong = outcome(&service.proxy.send(&get().basic("nobody_at_all", PASSWORD)), 401);
    for attribute in ["SUPERUSER", "BYPASSRLS", "CREATEROLE", "REPLICATION"] {
        let privileged = role(&service.database, &attribute.to_lowercase());
        service.database.connect().batch_execute(&format!("ALTER ROLE {privileged} {attribute}")).unwrap();
        assert_eq!(outcome(&service.proxy.send(&get().basic(&privileged, PASSWORD)), 401), wrong, "{attribute}");
        let why = format!("role \"{privileged}\" is SUPERUSER");
        wait_for("the reason in the log", || service.proxy.log().contains(&why));
    }
    let service = Service::with(|_| flags(&["--basic-privileged"]));
    let privileged = role(&service.database, "superuser");
    service.database.connect().batch_execute(&format!("ALTER ROLE {privileged} SUPERUSER")).unwrap();
    outcome(&service.proxy.send(&get().basic(&privileged, PASSWORD)), 404);
}

#[test]
fn passwords_can_be_refused_or_taken_from_some_roles_only() {
    let service = Service::with(|_| flags(&["--basic", "off"]));
    let response = service.send(get());
    outcome(&response, 401);
    assert_eq!(response.headers("www-authenticate"), [r#"Bearer realm="fhir_bulk""#]);

    let service = Service::with(|database| vec!["--basic-roles".into(), format!("{0}_one,{0}_two", database.name())]);
    let two = role(&service.database, "two");
    outcome(&service.proxy.send(&get().basic(&two, PASSWORD)), 404);
    outcome(&service.send(get()), 401);
}

#[test]
fn a_page_of_another_site_cannot_use_what_a_browser_keeps() {
    let service = Service::new();
    let line = r#"{"id":"1","resourceType":"Patient"}"#;
    let load = || service.signed(Request::post("/Patient/$load", "application/ndjson", line));
    for (name, value) in
        [("Origin", "https://elsewhere.example.org"), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")]
    {
        outcome(&service.proxy.send(&load().header(name, value)), 403);
        outcome(&service.proxy.send(&get().header(name, value)), 403);
    }
    // None of them has made the table.
    outcome(&service.send(get()), 404);
    let own = load().header("Origin", "https://fhir.example.org").header("Sec-Fetch-Site", "same-origin");
    let response = service.proxy.send(&own);
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.header("access-control-allow-origin").is_none());
    // A browser that is asked for no password keeps none.
    let asked = service.proxy.send(&get().header("Sec-Fetch-Mode", "navigate"));
    outcome(&asked, 401);
    assert_eq!(asked.headers("www-authenticate"), [r#"Bearer realm="fhir_bulk""#]);
}

#[test]
fn guesses_that_are_sent_at_once_are_slowed_like_those_one_after_another() {
    let service = Service::new();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let guess = |n: usize| service.proxy.send(&get().basic(&service.client, &format!("wrong {n}"))).status;
        let all: Vec<_> = (0..60).map(|n| scope.spawn(move || guess(n))).collect();
        all.into_iter().map(|guess| guess.join().unwrap()).collect()
    });
    let tried = statuses.iter().filter(|status| **status == 401).count();
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    assert!((1..=10).contains(&tried), "{tried} of 60 were tried");
}
