//! The files of the page at `/ui`, and what a browser is told with them.

use fhir_bulk_tests::proxy::Request;

use crate::support::{Service, outcome};

fn with_page() -> Service {
    Service::with(|_| vec!["--ui".to_owned()])
}

#[test]
fn there_is_no_page_unless_it_is_asked_for() {
    let service = Service::new();
    for path in ["/ui", "/ui/main.js"] {
        outcome(&service.proxy.send(&Request::get(path)), 404);
    }
    assert_eq!(service.proxy.send(&Request::get("/health")).header("content-security-policy"), None);
}

#[test]
fn the_page_takes_no_credentials_and_tells_the_browser_to_run_nothing_but_its_own_files() {
    let service = with_page();
    let page = service.proxy.send(&Request::get("/ui").header("Sec-Fetch-Site", "cross-site"));
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let text = page.text();
    let named = |mark: &str| {
        let parts = text.split(mark).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        parts.filter(|name| name.starts_with("ui/")).collect::<Vec<_>>()
    };
    let files = [named("src=\""), named("href=\"")].concat();
    assert!(files.len() > 2, "{files:?}");
    for path in files.iter().map(|name| format!("/{name}")).chain(["/ui".to_owned()]) {
        let sent = service.proxy.send(&Request::get(&path));
        assert_eq!(sent.status, 200, "{path}: {}", sent.text());
        let policy = sent.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "form-action 'none'",
        ] {
            assert!(policy.split("; ").any(|own| own == part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(sent.headers(name), [value], "{path}");
        }
        assert!(sent.header("set-cookie").is_none());
        // Whoever has it is not sent it again.
        let tag = sent.header("etag").unwrap();
        let again = service.proxy.send(&Request::get(&path).header("If-None-Match", tag));
        assert_eq!((again.status, again.body.len()), (304, 0));
    }
    for path in ["/ui/", "/ui/index.html", "/ui/other.js", "/ui/..%2Fmain.js"] {
        assert_eq!(service.proxy.send(&Request::get(path)).status, 404, "{path}");
    }
}

/// What others have stored comes from where the page comes from, and could read what is typed there.
#[test]
fn what_comes_from_where_the_page_is_has_no_rights_in_a_browser() {
    let service = with_page();
    let html = r#"{"resourceType": "Binary", "id": "b", "contentType": "text/html", "data": "PHNjcmlwdD4="}"#;
    assert_eq!(service.send(Request::post("/fhir/$load", "application/ndjson", html)).status, 200);
    let binary = service.send(Request::get("/fhir/Binary/b").header("Accept", "text/html"));
    assert_eq!((binary.header("content-type"), binary.text().as_str()), (Some("text/html"), "<script>"));
    for response in [binary, service.proxy.send(&Request::get("/health")), service.send(Request::get("/nothing"))] {
        let policy = response.header("content-security-policy").unwrap();
        assert!(policy.split("; ").any(|part| part == "sandbox"), "{policy}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
}
