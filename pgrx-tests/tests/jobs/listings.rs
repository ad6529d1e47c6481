//! Imports of folders, prefixes of keys, and patterns.

use crate::job::{finish, importer, inputs, status, wait_for_workers_to_end};
use crate::support::{assert_error, assert_error_with_hint, count, fails, patients, rows, run, value};
use fhir_bulk_tests::http::{Server, ok};
use fhir_bulk_tests::memory::growth;
use fhir_bulk_tests::s3::{KEY_ID, S3Server, SECRET_KEY};
use fhir_bulk_tests::{Client, Cluster, Database, gzip};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The statement of an import of these inputs.
fn sql(id: &str, inputs: Value) -> String {
    let request = json!({"id": id, "inputs": inputs});
    format!("SELECT bulk_import($json${request}$json$)")
}

/// The name below `root`, type and total of each input.
fn listed(status: &Value, root: &str) -> Vec<String> {
    let word = |input: &Value| {
        let name = input["url"].as_str().unwrap().strip_prefix(root).unwrap();
        format!(
            "{name} {} {} {}",
            input["resourceType"].as_str().unwrap_or("-"),
            input["status"].as_str().unwrap(),
            input["total"]
        )
    };
    status["inputs"].as_array().unwrap().iter().map(word).collect()
}

/// A folder of a database's files, with files in it. Its URL ends in a slash.
fn folder(database: &Database, files: &[(&str, &[u8])]) -> String {
    let root = database.path("in");
    for (name, content) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        for above in path.ancestors().skip(1).take_while(|above| above.starts_with(&root)) {
            fs::set_permissions(above, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    format!("file://{}/", root.display())
}

/// The same lines without their type.
fn untyped(lines: &str) -> String {
    lines.replace("\"resourceType\":\"Patient\",", "")
}

/// Files as they lie about in folders of others.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("2026-11/PATIENT.part2.NDJSON.gz", gzip(untyped(&patients(1..=10)).as_bytes())),
        ("2026-11/all.ndjson", patients(11..=13).into_bytes()),
        ("2026-11/deeper/patients-14.ndjson", untyped(&patients(14..=14)).into_bytes()),
        ("2026-12/Person 1%.ndjson", untyped(&patients(1..=2)).into_bytes()),
        ("2026-12/broken.ndjson", b"{".to_vec()),
        ("2026-12/readme.txt", b"x".to_vec()),
        (".hidden/Patient.ndjson", patients(99..=99).into_bytes()),
        ("2026-12/.Patient.ndjson.part", b"x".to_vec()),
        ("2026-12/.Patient.ndjson", patients(99..=99).into_bytes()),
        ("2026.ndjson", patients(15..=15).into_bytes()),
    ]
}

fn borrowed<'a>(files: &'a [(&'static str, Vec<u8>)]) -> Vec<(&'static str, &'a [u8])> {
    files.iter().map(|(name, content)| (*name, content.as_slice())).collect()
}

const ALL: [&str; 6] = [
    "2026-11/PATIENT.part2.NDJSON.gz Patient finished 10",
    "2026-11/all.ndjson - finished 3",
    "2026-11/deeper/patients-14.ndjson Patient finished 1",
    "2026-12/Person 1%25.ndjson Person finished 2",
    "2026-12/broken.ndjson - failed 0",
    "2026.ndjson - finished 1",
];

#[test]
fn each_file_of_a_folder_is_an_input_of_the_type_in_its_name() {
    let database = Database::new();
    let mut client = database.connect();
    let files = files();
    let root = folder(&database, &borrowed(&files));
    run(&mut client, &sql("folder", json!([{"url": root}])));
    let whole = finish(&mut client, "folder");
    assert_eq!(listed(&whole, &root), ALL);
    assert_eq!((&whole["status"], &whole["inputsTotal"]), (&json!("finished"), &json!(6)));
    assert!(whole["inputs"][4]["error"].as_str().unwrap().contains("line 1"), "{whole}");
    assert_eq!(rows(&mut client, "SELECT count(*), count(DISTINCT id) FROM patient"), ["15|15"]);
    // The same, as rows; and again, in the same order.
    let by_view =
        "SELECT number, status, total, resource_type FROM bulk_job_inputs WHERE id = 'folder' ORDER BY number";
    assert_eq!(rows(&mut client, by_view)[3..5], ["4|finished|2|Person", "5|failed|0|∅"]);
    run(&mut client, &sql("again", json!([{"url": root}])));
    assert_eq!(listed(&finish(&mut client, "again"), &root), ALL);
    // A type that is given is that of all files.
    run(&mut client, &sql("given", json!([{"url": format!("{root}2026-12/"), "resourceType": "Patient"}])));
    let given = finish(&mut client, "given");
    assert_eq!(listed(&given, &root)[0], "2026-12/Person 1%25.ndjson Patient finished 2");
    wait_for_workers_to_end(&database);
}

#[test]
fn a_pattern_takes_the_files_that_fit_it() {
    let database = Database::new();
    let mut client = database.connect();
    let files = files();
    let root = folder(&database, &borrowed(&files));
    for (number, (pattern, expected)) in [
        ("*", vec![ALL[5]]),
        ("*/*.ndjson", vec![ALL[1], ALL[3], ALL[4]]),
        ("2026-1*/P*", vec![ALL[0], ALL[3]]),
        ("*11/", vec![ALL[0], ALL[1], ALL[2]]),
        ("*/*1%25.nd*", vec![ALL[3]]),
        (".hidden/*", vec![".hidden/Patient.ndjson Patient finished 1"]),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("pattern-{number}");
        run(&mut client, &sql(&id, json!([{"url": format!("{root}{pattern}")}])));
        assert_eq!(listed(&finish(&mut client, &id), &root), expected, "{pattern}");
    }
    // Beside others, in the order of the request.
    let last = format!("{root}2026.ndjson");
    run(&mut client, &sql("mixed", json!([{"url": last}, {"url": format!("{root}*11/a*")}, {"url": last}])));
    assert_eq!(inputs(&finish(&mut client, "mixed")), ["finished 1", "finished 3", "finished 1"]);
}

#[test]
fn a_listing_without_a_source_or_a_folder_says_so_and_leaves_no_job() {
    let database = Database::new();
    let mut client = database.connect();
    let root = folder(&database, &[("a.txt", b"x"), ("b/c.json", b"x"), ("Patient.ndjson", b"")]);
    let mut refused = |url: &str, state: &str, pieces: &[&str]| {
        let error = fails(&mut client, &sql("refused", json!([{"url": url}])));
        assert_error_with_hint(&error, state, pieces);
        error
    };
    let error = refused(&format!("{root}b/"), "58P01", &["nothing to import", "/b/"]);
    assert_eq!(error.detail(), Some("There is 1 file with another name."));
    refused(&format!("{root}Group*"), "58P01", &["nothing to import"]);
    refused(&format!("{root}missing/"), "58P01", &["could not list", "missing"]);
    refused(&format!("{root}Patient.ndjson/"), "42809", &["not a folder"]);
    refused("file://relative/*", "22023", &["no absolute path"]);
    for url in ["https://example.org/export/", "http://example.org/*.ndjson", "https://example.org/a*/b?c=d"] {
        refused(url, "22023", &["cannot be listed"]);
    }
    refused("s3://bucket/2026/", "42501", &["permission denied"]);
    let role = importer(&database, &mut client, "importer");
    run(&mut client, &format!("SET ROLE {role}"));
    let error = fails(&mut client, &sql("refused", json!([{"url": root}])));
    assert_error_with_hint(&error, "42501", &["permission denied"]);
    run(&mut client, "RESET ROLE");
    assert_eq!(count(&mut client, "SELECT count(*) FROM fhir_bulk_internal.bulk_job"), 0);
}

/// Whoever may write into the folder could read any file of the server that way.
#[test]
fn a_link_that_leads_out_of_the_folder_is_refused_also_if_it_took_the_place_of_a_file() {
    let database = Database::new();
    let mut client = database.connect();
    let files = [
        ("Patient.1.ndjson", patients(1..=1)),
        ("Patient.2.ndjson", patients(2..=2)),
        ("b/Patient.ndjson", patients(3..=3)),
    ];
    let files = files.each_ref().map(|(name, content)| (*name, content.as_bytes()));
    let root = folder(&database, &files);
    let path = database.path("in");
    let secret = database.file("secret.ndjson", patients(99..=99));
    let secret = secret.strip_prefix("file://").unwrap();
    symlink(secret, path.join("Patient.3.ndjson")).unwrap();
    symlink("../../secret.ndjson", path.join("b/Patient.4.ndjson")).unwrap();
    symlink("Patient.1.ndjson", path.join("Patient.5.ndjson")).unwrap();
    symlink(database.path(""), path.join("folder")).unwrap();
    run(&mut client, &format!("BEGIN; {}", sql("links", json!([{"url": root}]))));
    // Listed, but not read yet.
    fs::remove_file(path.join("Patient.2.ndjson")).unwrap();
    symlink(secret, path.join("Patient.2.ndjson")).unwrap();
    fs::rename(path.join("b"), path.join("c")).unwrap();
    symlink("c", path.join("b")).unwrap();
    run(&mut client, "COMMIT");
    let status = finish(&mut client, "links");
    assert_eq!(
        listed(&status, &root),
        [
            "Patient.1.ndjson Patient finished 1",
            "Patient.2.ndjson Patient failed 0",
            "Patient.3.ndjson Patient failed 0",
            "Patient.5.ndjson Patient finished 1",
            "b/Patient.4.ndjson Patient failed 0",
            "b/Patient.ndjson Patient finished 1",
        ]
    );
    for at in [1, 2, 4] {
        let error = status["inputs"][at]["error"].as_str().unwrap();
        assert!(error.contains("permission denied") && error.contains("leads out of"), "{status}");
    }
    assert_eq!(rows(&mut client, "SELECT id FROM patient ORDER BY 1"), ["p-1", "p-3"]);
    // In an input of its own, the role may read it.
    run(&mut client, &sql("own", json!([{"url": format!("{root}Patient.2.ndjson")}])));
    assert_eq!(inputs(&finish(&mut client, "own")), ["finished 1"]);
}

/// A database of a server with a key for S3, whose sessions and workers may read objects below `s3://bucket/in/`.
fn with_key(endpoint: &str) -> Database {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let settings = [
        format!("fhir_bulk.s3_access_key_id = '{KEY_ID}'"),
        format!("fhir_bulk.s3_secret_access_key = '{SECRET_KEY}'"),
    ];
    let cluster = CLUSTER.get_or_init(|| Cluster::start(&settings.each_ref().map(String::as_str)));
    let database = cluster.database(&format!("listings_{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    run(
        &mut database.connect(),
        &format!(
            "ALTER DATABASE {0} SET fhir_bulk.s3_endpoint = '{endpoint}';
             ALTER DATABASE {0} SET fhir_bulk.allowed_sources = 's3://bucket/in/'",
            database.name()
        ),
    );
    database
}

#[test]
fn a_prefix_of_keys_and_a_pattern_list_the_objects_that_are_allowed() {
    let service = S3Server::new();
    for (name, content) in files() {
        service.put("bucket", &format!("in/{name}"), content);
    }
    service.put("bucket", "secret/Patient.ndjson", patients(99..=99));
    let database = with_key(&service.endpoint());
    let mut client = database.connect();
    let root = "s3://bucket/in/";
    run(&mut client, &sql("prefix", json!([{"url": root}])));
    let all = ALL.map(|line| line.replace("%25", "%"));
    assert_eq!(listed(&finish(&mut client, "prefix"), root), all);
    run(&mut client, &sql("pattern", json!([{"url": "s3://bucket/in/2026*/P*"}])));
    assert_eq!(listed(&finish(&mut client, "pattern"), root), [all[0].clone(), all[3].clone()]);
    for url in ["s3://bucket/", "s3://bucket/i*", "s3://bucket/secret/", "s3://other/in/"] {
        assert_error_with_hint(&fails(&mut client, &sql("x", json!([{"url": url}]))), "42501", &["permission denied"]);
    }
    for url in ["s3://bucket/in/../secret/", "s3://bucket/in/../*"] {
        assert_error(&fails(&mut client, &sql("x", json!([{"url": url}]))), "22023", &[url]);
    }
    assert_error_with_hint(
        &fails(&mut client, &sql("x", json!([{"url": "s3://bucket/in/none*"}]))),
        "58P01",
        &["none"],
    );
    assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_jobs"), 2);
}

/// A service whose listings have pages of a thousand keys. It has no objects.
fn paged(pages: usize) -> Server {
    Server::new(move |request, stream| {
        use std::io::Write as _;
        let after = |name: &str| request.path.split(name).nth(1).and_then(|rest| rest.split('&').next());
        if after("list-type=").is_none() {
            let _ = stream.write_all(&fhir_bulk_tests::http::status("404 Not Found", ""));
            return;
        }
        let page: usize =
            after("continuation-token=").map_or(0, |token| token.trim_start_matches("page-").parse().unwrap());
        let key = |n: usize| {
            format!(
                "<Contents><Key>in/Patient.{n:07}.ndjson</Key><LastModified>2026-11-30T00:00:00.000Z</LastModified>\
            <ETag>\"x\"</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
        };
        let keys: String = (page * 1000..(page + 1) * 1000).map(key).collect();
        let is_last = page + 1 == pages;
        let next = if is_last {
            String::new()
        } else {
            format!("<NextContinuationToken>page-{}</NextContinuationToken>", page + 1)
        };
        let _ = stream.write_all(&ok(format!(
            "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bucket</Name>\
             <Prefix>in/</Prefix><KeyCount>1000</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>{}</IsTruncated>{next}{keys}</ListBucketResult>",
            !is_last
        )));
    })
}

#[test]
fn a_hundred_thousand_objects_are_listed_page_by_page_and_the_status_stays_readable() {
    let service = paged(100);
    let database = with_key(&service.url(""));
    let mut client: Client = database.connect();
    let ask = sql("large", json!([{"url": "s3://bucket/in/"}]));
    let grown = growth(&mut client, |client| run(client, &format!("BEGIN; {ask}")));
    assert!(grown < 16 << 20, "the session grew by {} kB", grown >> 10);
    assert_eq!(service.seen().len(), 100);
    let shown = status(&mut client, "large");
    assert_eq!((shown["inputs"].as_array().unwrap().len(), &shown["inputsTotal"]), (1000, &json!(100_000)));
    let all = "SELECT count(*), min(url), max(url), max(number) FROM bulk_job_inputs WHERE id = 'large'";
    let ends = "100000|s3://bucket/in/Patient.0000000.ndjson|s3://bucket/in/Patient.0099999.ndjson|100000";
    assert_eq!(rows(&mut client, all), [ends]);
    assert_eq!(value(&mut client, "SELECT inputs FROM bulk_jobs WHERE id = 'large'"), "100000");
    // What failed is shown before others, which come in their order.
    run(&mut client, "COMMIT");
    let failed = crate::job::wait_for_status(&mut client, "large", "some that failed", |status| {
        status["inputs"].as_array().unwrap().iter().filter(|input| input["status"] == "failed").count() > 20
    });
    assert_eq!(failed["inputs"].as_array().unwrap().len(), 1000);
    run(&mut client, "SELECT bulk_import_cancel('large')");
    assert_eq!(status(&mut client, "large")["status"], "cancelled");
    wait_for_workers_to_end(&database);
}

#[test]
fn a_folder_with_more_files_than_are_kept_in_memory_is_listed_in_order() {
    let database = Database::new();
    let mut client = database.connect();
    let root = folder(&database, &[("z/Patient.ndjson", b"")]);
    for number in (0..45_000).rev() {
        fs::write(database.path("in").join(format!("Patient.{number:05}.ndjson")), "").unwrap();
    }
    run(&mut client, &format!("BEGIN; {}", sql("large", json!([{"url": root}]))));
    let order = "SELECT count(*), bool_and(url LIKE '%/Patient.' || lpad((number - 1)::text, 5, '0') || '.ndjson')
        FROM bulk_job_inputs WHERE number <= 45000";
    assert_eq!(rows(&mut client, order), ["45000|t"]);
    assert_eq!(rows(&mut client, "SELECT number FROM bulk_job_inputs WHERE url LIKE '%/z/Patient.ndjson'"), ["45001"]);
    run(&mut client, "ROLLBACK");
}

#[test]
fn nobody_sees_the_inputs_of_others() {
    let database = Database::new();
    let mut client = database.connect();
    let (role, monitor) = (importer(&database, &mut client, "importer"), database.role("monitor"));
    run(&mut client, &format!("GRANT pg_monitor TO {monitor}; SET ROLE {role}"));
    let secret = json!([{"url": "https://127.0.0.1/Patient.ndjson?signature=secret"}]);
    run(&mut client, &format!("SET request.jwt.claims = '{{\"sub\": \"a\"}}'; {}", sql("mine", secret)));
    let mut sees = |session: &str| {
        run(&mut client, &format!("RESET ROLE; RESET request.jwt.claims; {session}"));
        count(&mut client, "SELECT count(*) FROM bulk_job_inputs")
    };
    assert_eq!(sees(&format!("SET ROLE {role}")), 1);
    assert_eq!(sees(&format!("SET ROLE {role}; SET request.jwt.claims = '{{\"sub\": \"a\"}}'")), 1);
    assert_eq!(sees(&format!("SET ROLE {role}; SET request.jwt.claims = '{{\"sub\": \"b\"}}'")), 0);
    assert_eq!(sees(&format!("SET ROLE {monitor}")), 0);
    assert_eq!(sees("RESET ROLE"), 0);
}
