//! Files of exports: whole, in ranges, and for readers that take their time.

use fhir_bulk_tests::proxy::{Request, Response};
use fhir_bulk_tests::wait_for;
use serde_json::json;

use crate::exports::{download, finished, kick_off, path};
use crate::support::{Service, exporting, exporting_with, outcome};

/// The path of the only file of a type.
fn file_of(service: &Service, resource_type: &str) -> String {
    let response = kick_off(service, &format!("?_type={resource_type}"));
    assert_eq!(response.status, 202, "{}", response.text());
    let manifest = finished(service, path(response.header("content-location").unwrap())).json();
    path(manifest["output"][0]["url"].as_str().unwrap()).to_owned()
}

/// A table of large resources: 19 MB, more than lies about in buffers on the way.
fn binaries(service: &Service) {
    service
        .connect()
        .batch_execute(
            "SELECT bulk_create_table('Binary');
             INSERT INTO \"binary\" (id, txid, status, resource) SELECT n, 1, 'created', jsonb_build_object('data',
               (SELECT string_agg(md5(n::text || i), '') FROM generate_series(1, 3000) i)) FROM generate_series(1, 200) n",
        )
        .unwrap();
}

#[test]
fn a_file_has_a_length_and_a_tag_and_comes_in_ranges() {
    let service = exporting();
    binaries(&service);
    let url = file_of(&service, "Binary");
    let get = |headers: &[(&str, &str)]| {
        let request = headers.iter().fold(Request::get(&url), |request, (name, value)| request.header(name, value));
        service.proxy.send(&request)
    };
    let whole = get(&[]);
    let size = whole.body.len();
    assert_eq!((whole.status, whole.is_whole, size > 2 << 20), (200, true, true));
    assert_eq!(whole.header("content-length"), Some(size.to_string().as_str()));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(whole.header("transfer-encoding"), None);
    let tag = whole.header("etag").unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with("/Binary.1.ndjson\""), "{tag}");
    let head = service.proxy.send(&Request::new("HEAD", &url));
    assert_eq!((head.status, head.header("content-length")), (200, whole.header("content-length")));
    assert_eq!((head.header("etag"), head.header("accept-ranges")), (Some(tag.as_str()), Some("bytes")));

    let assert_part = |response: &Response, start: usize, end: usize| {
        assert_eq!((response.status, response.is_whole), (206, true), "{response:?}");
        assert_eq!(response.header("content-range"), Some(format!("bytes {start}-{}/{size}", end - 1).as_str()));
        assert!(response.body == whole.body[start..end], "{start} {end}");
    };
    assert_part(&get(&[("Range", "bytes=0-9")]), 0, 10);
    assert_part(&get(&[("Range", "bytes=1000000-2200000")]), 1_000_000, 2_200_001);
    assert_part(&get(&[("Range", &format!("bytes={}-", size - 5))]), size - 5, size);
    assert_part(&get(&[("Range", "bytes=-7")]), size - 7, size);
    assert_part(&get(&[("Range", "bytes=0-0"), ("If-Range", &tag)]), 0, 1);
    for headers in [
        &[("Range", "bytes=0-0,5-6")][..],
        &[("Range", "bytes=9-1")],
        &[("Range", "pages=1-2")],
        &[("Range", "bytes=0-0"), ("If-Range", "\"another\"")],
    ] {
        let all = get(headers);
        assert_eq!((all.status, all.body.len()), (200, size), "{headers:?}");
    }
    let beyond = get(&[("Range", &format!("bytes={size}-"))]);
    outcome(&beyond, 416);
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{size}").as_str()));
    let known = get(&[("If-None-Match", &format!("\"x\", {tag}"))]);
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(get(&[("If-None-Match", "\"x\"")]).status, 200);
    // What is not signed is refused whatever part of it is asked for.
    outcome(&service.proxy.send(&Request::get(&format!("{url}0")).header("Range", "bytes=0-0")), 403);
    wait_for("the log to tell of a whole file", || {
        service.proxy.log().contains(&format!("answered status=200 bytes={size}"))
    });
}

#[test]
fn no_cache_is_to_keep_what_tells_of_patients() {
    let service = exporting();
    let url = file_of(&service, "Patient");
    let sql = Request::json("/$dump-sql", r#"{"query": "select id from patient"}"#);
    for request in [
        Request::get("/Patient/$dump"),
        sql,
        Request::get(&url),
        Request::get(&url).header("Range", "bytes=0-1"),
        Request::new("HEAD", &url),
        Request::get("/fhir/metadata"),
        Request::json("/$bulk/export", r#"{"type": "Patient", "identifiers": ["a|b"]}"#),
        Request::get("/nothing"),
    ] {
        let response = service.send(request);
        assert_eq!(response.headers("cache-control"), ["no-store"], "{response:?}");
    }
}

#[test]
fn readers_that_stall_keep_neither_other_files_nor_other_requests_from_being_served() {
    let service = exporting_with(&["--trusted-proxies", "127.0.0.1", "--wait", "1s"]);
    service
        .connect()
        .batch_execute(
            "SELECT bulk_create_table('Binary'), bulk_create_table('Device');
             INSERT INTO device (id, txid, status, resource) VALUES ('1', 1, 'created', '{}');
             INSERT INTO \"binary\" (id, txid, status, resource) SELECT n, 1, 'created', jsonb_build_object('data',
               (SELECT string_agg(md5(n::text || i), '') FROM generate_series(1, 30000) i)) FROM generate_series(1, 30) n",
        )
        .unwrap();
    let response = kick_off(&service, "?_type=Binary,Device");
    let manifest = finished(&service, path(response.header("content-location").unwrap())).json();
    let url_of = |name: &str| {
        let file = manifest["output"].as_array().unwrap().iter().find(|file| file["type"] == name).unwrap();
        path(file["url"].as_str().unwrap()).to_owned()
    };
    let (large, small) = (url_of("Binary"), url_of("Device"));
    let from = |n: usize, url: &str| Request::get(url).header("X-Forwarded-For", &format!("10.0.0.{n}"));
    // Each reads the head of its answer, and no more.
    let mut stalled = Vec::new();
    let mut refused = 0;
    for n in 0..40 {
        let mut exchange = service.proxy.open(&from(n % 4, &large));
        let head = exchange.head();
        match head.status {
            200 => stalled.push(exchange),
            429 => {
                assert!(head.header("retry-after").is_some());
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(!stalled.is_empty() && refused > 20, "{} run, {refused} were refused", stalled.len());
    let other = service.proxy.send(&from(9, &small));
    assert_eq!((other.status, other.is_whole), (200, true), "{}", other.text());
    assert_eq!(service.proxy.send(&Request::get("/fhir/metadata")).status, 200);
    // Who ends makes room.
    drop(stalled);
    wait_for("a download to be let in", || service.proxy.send(&from(9, &large)).is_whole);
}

#[test]
fn a_reader_that_takes_its_time_holds_neither_a_connection_nor_a_snapshot() {
    let service = exporting();
    binaries(&service);
    let url = file_of(&service, "Binary");
    let mut readers: Vec<_> = (0..4).map(|_| service.proxy.open(&Request::get(&url))).collect();
    for reader in &mut readers {
        assert_eq!(reader.head().status, 200);
    }
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
         AND application_name LIKE 'fhir_bulk_proxy%' AND (state <> 'idle' OR backend_xmin IS NOT NULL)";
    let mut admin = service.database.connect();
    wait_for("no session to work for those who do not read", || {
        admin.query_one(busy, &[]).unwrap().get::<_, i64>(0) == 0
            && service.proxy.send(&Request::get("/metrics")).text().contains("connections{state=\"used\"} 0")
    });
    // They get all of it when they read on, though its server was away meanwhile.
    admin
        .batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name LIKE 'fhir_bulk_proxy%' AND pid <> pg_backend_pid()",
        )
        .unwrap();
    let mut whole = None;
    // A connection may break under whoever is about to begin.
    wait_for("a download of all", || {
        let found = download(&service, &json!(format!("http://fhir.example.org{url}")));
        whole = (found.status == 200 && found.is_whole).then_some(found.body);
        whole.is_some()
    });
    let whole = whole.unwrap();
    for mut reader in readers {
        let mut rest = vec![0; whole.len()];
        std::io::Read::read_exact(reader.reader(), &mut rest).unwrap();
        assert!(rest == whole);
    }
}
