//! `onlyNew`: an import takes the files that none before it has taken. `order` and `workers`: which of them, and how many at once.

use crate::job::{
    allow, allowed, finish, hold, import_sql, importer, inputs, set, status, wait_for_status, wait_for_workers_to_end,
};
use crate::source::Stalling;
use crate::support::{assert_error, assert_error_with_hint, count, fails, patients, rows, run, value};
use fhir_bulk_tests::{Database, wait_for};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

/// Puts a file into a folder of a database's; the folder's URL.
fn put(database: &Database, name: &str, content: &str) -> String {
    let folder = database.path("in");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.join(name), content).unwrap();
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o644)).unwrap();
    format!("file://{}/", folder.display())
}

/// The statement of an import of what is new at a URL.
fn new_at(id: &str, url: &str, more: Value) -> String {
    let mut request = json!({"onlyNew": true, "inputs": [{"url": url}]});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    import_sql(id, &[], request)
}

const FILES: &str =
    "SELECT file, resource_type, size, loaded, status, message IS NOT NULL FROM bulk_files ORDER BY url";

/// The name of each file of [`FILES`] without its folder.
fn names(rows: &[String]) -> Vec<&str> {
    rows.iter().map(|row| row.rsplit('/').next().unwrap()).collect()
}

#[test]
fn the_next_import_takes_what_is_new_what_failed_waits_until_its_row_is_deleted() {
    let (database, mut client) = allowed();
    let url = put(&database, "Patient.1.ndjson", &patients(1..=3));
    put(&database, "Patient.2.ndjson", "{");
    run(&mut client, &new_at("first", &url, json!({})));
    assert_eq!(inputs(&finish(&mut client, "first")), ["finished 3", "failed 0"]);
    let size = patients(1..=3).len();
    let known =
        [format!("Patient.1.ndjson|Patient|{size}|3|done|f"), "Patient.2.ndjson|Patient|∅|0|error|t".to_owned()];
    assert_eq!(names(&rows(&mut client, FILES)), known);
    // Nothing is new: an import without inputs, which is over.
    run(&mut client, &new_at("none", &url, json!({"disableIndexes": true})));
    let none = finish(&mut client, "none");
    assert_eq!((&none["status"], &none["inputs"], &none["inputsTotal"]), (&json!("finished"), &json!([]), &json!(0)));
    put(&database, "Patient.2.ndjson", &patients(4..=5));
    put(&database, "Patient.3.ndjson", &patients(6..=6));
    // Asked for twice, taken once.
    let both =
        json!({"inputs": [{"url": url}, {"url": format!("{url}Patient.3.ndjson")}, {"url": format!("{url}P**")}]});
    run(&mut client, &new_at("third", &url, both));
    assert_eq!(inputs(&finish(&mut client, "third")), ["finished 1"]);
    run(&mut client, "DELETE FROM bulk_files WHERE status = 'error'");
    run(&mut client, &new_at("second", &url, json!({})));
    assert_eq!(inputs(&finish(&mut client, "second")), ["finished 2"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 6);
    // In another schema none of them has been imported.
    run(&mut client, "CREATE SCHEMA other; SET fhir_bulk.data_schema = 'other'");
    run(&mut client, &new_at("other", &url, json!({})));
    assert_eq!(inputs(&finish(&mut client, "other")).len(), 3);
    assert_eq!(
        rows(&mut client, "SELECT data_schema, count(*) FROM bulk_files GROUP BY 1 ORDER BY 1"),
        ["other|3", "public|3"]
    );
    // Without onlyNew all files are taken, and none is remembered.
    run(&mut client, &import_sql("all", &[], json!({"inputs": [{"url": url}]})));
    assert_eq!(finish(&mut client, "all")["inputsTotal"], 3);
    assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_files"), 6);
    wait_for_workers_to_end(&database);
}

#[test]
fn of_two_imports_at_once_one_takes_a_file_and_after_a_rollback_the_other_one() {
    for ends in ["COMMIT", "ROLLBACK"] {
        let (database, mut client) = allowed();
        let url = put(&database, "Patient.1.ndjson", &patients(1..=3));
        let mut first = database.connect();
        run(&mut first, &format!("BEGIN; {}", new_at("first", &url, json!({}))));
        let (mut second, ask) = (database.connect(), new_at("second", &url, json!({})));
        let second = std::thread::spawn(move || run(&mut second, &ask));
        wait_for("the second to wait for the first", || {
            count(
                &mut client,
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'second' AND datname = current_database()",
            ) > 0
        });
        run(&mut first, ends);
        second.join().unwrap();
        let taken = finish(&mut client, "second");
        assert_eq!(inputs(&taken).len(), usize::from(ends == "ROLLBACK"), "{taken}");
        wait_for("the file to be done", || rows(&mut client, "SELECT loaded, status FROM bulk_files") == ["3|done"]);
        assert_eq!(count(&mut client, "SELECT count(DISTINCT txid) FROM patient"), 1);
    }
}

#[test]
fn a_file_that_is_imported_now_stays_and_after_a_cancel_it_is_new_again() {
    let (database, mut client) = allowed();
    let url = put(&database, "Patient.1.ndjson", &patients(1..=3));
    let held = hold(&database, "p-3");
    run(&mut client, &new_at("job", &url, json!({})));
    assert_eq!(names(&rows(&mut client, FILES)), ["Patient.1.ndjson|Patient|∅|0|active|f"]);
    assert_error_with_hint(&fails(&mut client, "DELETE FROM bulk_files"), "55006", &["Patient.1.ndjson"]);
    run(&mut client, "DELETE FROM bulk_files WHERE status <> 'active'");
    run(&mut client, "SELECT bulk_import_cancel('job')");
    assert_eq!(rows(&mut client, FILES), [""; 0]);
    drop(held);
    run(&mut client, &new_at("again", &url, json!({})));
    assert_eq!(inputs(&finish(&mut client, "again")), ["finished 3"]);
    assert_eq!(names(&rows(&mut client, FILES)).len(), 1);
    for write in ["INSERT INTO bulk_files (url) VALUES ('x')", "UPDATE bulk_files SET url = 'x'"] {
        assert_error(&fails(&mut client, write), "42501", &[]);
    }
}

#[test]
fn nobody_sees_or_deletes_the_files_of_others_and_each_has_new_ones() {
    let (database, mut client) = allowed();
    let role = importer(&database, &mut client, "importer");
    let url = put(&database, "Patient.1.ndjson", &patients(1..=3));
    run(&mut client, &format!("GRANT pg_read_server_files TO {role}"));
    run(&mut client, &new_at("mine", &url, json!({})));
    finish(&mut client, "mine");
    let as_role = |sub: &str| format!("SET ROLE {role}; SET request.jwt.claims = '{{\"sub\": \"{sub}\"}}'");
    for sub in ["a", "b"] {
        run(&mut client, &as_role(sub));
        assert_eq!(rows(&mut client, FILES), [""; 0]);
        run(&mut client, "DELETE FROM bulk_files");
        run(&mut client, &new_at("theirs", &url, json!({})));
        assert_eq!(inputs(&finish(&mut client, "theirs")), ["finished 3"]);
        assert_eq!(rows(&mut client, FILES).len(), 1);
        run(&mut client, "RESET ROLE; RESET request.jwt.claims");
    }
    // Without a sub the role has all of its files.
    run(&mut client, &format!("SET ROLE {role}"));
    assert_eq!(rows(&mut client, FILES).len(), 2);
    run(&mut client, "DELETE FROM bulk_files; RESET ROLE");
    assert_eq!(names(&rows(&mut client, FILES)).len(), 1);
    // Whoever may read and write all data has nothing of them either.
    let all = database.role("all");
    run(&mut client, &format!("GRANT pg_read_all_data, pg_write_all_data TO {all}; SET ROLE {all}"));
    assert_eq!(rows(&mut client, FILES), [""; 0]);
    run(&mut client, "DELETE FROM bulk_files; RESET ROLE");
    assert_eq!(names(&rows(&mut client, FILES)).len(), 1);
}

#[test]
fn files_are_imported_in_the_order_of_their_last_modification_if_asked() {
    let (database, _) = allowed();
    let mut client = set(&database, "fhir_bulk.import_workers = 1");
    let mut url = String::new();
    for (name, age, number) in [("Patient.c", 30, 1), ("Patient.a", 20, 2), ("Patient.b", 10, 3)] {
        let line = patients(number..=number).replace(&format!("p-{number}"), "p-1");
        url = put(&database, &format!("{name}.ndjson"), &line);
        let file = File::options().write(true).open(database.path("in").join(format!("{name}.ndjson"))).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }
    put(&database, "without-a-type.ndjson", "{");
    let last = |client: &mut _| value(client, "SELECT resource ->> 'multipleBirthInteger' FROM patient");
    for (order, expected, first) in [("path", "1", "Patient.a"), ("lastModified", "3", "Patient.c")] {
        let request = json!({"onlyTyped": true, "order": order, "inputs": [{"url": url}]});
        run(&mut client, &import_sql(order, &[], request));
        let ended = finish(&mut client, order);
        assert_eq!(inputs(&ended), ["finished 1"; 3], "{ended}");
        assert!(ended["inputs"][0]["url"].as_str().unwrap().contains(first), "{ended}");
        assert_eq!(last(&mut client), expected, "{order}");
    }
}

#[test]
fn an_import_with_a_limit_leaves_workers_to_others_and_others_are_not_kept_by_its_rest() {
    let (database, mut client) = allowed();
    allow(&database);
    run(&mut client, "SELECT bulk_create_table('Patient')");
    let [first, second] = [1, 2].map(|number| Stalling::new(patients(number..=number), 0.5));
    let urls = [first.url(), second.url()];
    // More than a worker looks at.
    let rest: Vec<String> = (0..210).map(|n| database.file(&format!("rest-{n}"), "")).collect();
    let all: Vec<_> = urls.iter().chain(&rest).map(|url| ("Patient", url.as_str())).collect();
    run(&mut client, &import_sql("limited", &all, json!({"workers": 1})));
    wait_for("the first source to be asked", || first.requests() > 0);
    let other = database.file("other", patients(5..=5));
    run(&mut client, &import_sql("other", &[("Patient", &other)], json!({})));
    assert_eq!(inputs(&finish(&mut client, "other")), ["finished 1"]);
    assert_eq!(second.requests(), 0);
    first.go_on();
    wait_for("the second source to be asked", || second.requests() > 0);
    let shown = status(&mut client, "limited");
    let at_work = shown["inputs"].as_array().unwrap().iter().filter(|input| input["status"] == "active").count();
    assert_eq!(at_work, 1, "{shown}");
    second.go_on();
    wait_for_status(&mut client, "limited", "is over", |status| status["status"] == "finished");
    assert_eq!(rows(&mut client, "SELECT id FROM patient ORDER BY 1"), ["p-1", "p-2", "p-5"]);
    wait_for_workers_to_end(&database);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (database, mut client) = allowed();
    let url = database.file("Patient.ndjson", patients(1..=1));
    for (more, named) in [
        (json!({"onlyNew": 1}), "onlyNew"),
        (json!({"onlyTyped": "x"}), "onlyTyped"),
        (json!({"order": "size"}), "order"),
        (json!({"workers": 0}), "workers"),
        (json!({"workers": 1e30}), "workers"),
        (json!({"workers": 1.5}), "workers"),
        (json!({"onlyNew": true, "inputs": [{"url": "https://127.0.0.1/a"}]}), "onlyNew"),
        (json!({"account": {}}), "account.accessKeyId"),
        (json!({"account": "x"}), "account"),
    ] {
        assert_error(&fails(&mut client, &import_sql("x", &[("Patient", &url)], more)), "22023", &[named]);
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_jobs"), 0);
}

#[test]
fn the_files_of_a_role_that_is_dropped_are_forgotten_and_those_of_others_stay() {
    let (database, mut admin) = allowed();
    let url = put(&database, "Patient.1.ndjson", &patients(1..=3));
    for name in ["gone", "stays"] {
        let role = importer(&database, &mut admin, name);
        run(&mut admin, &format!("GRANT pg_read_server_files TO {role}"));
        let mut client = database.connect_as(&role);
        run(&mut client, &new_at("one", &url, json!({})));
        assert_eq!(inputs(&finish(&mut client, "one")), ["finished 3"]);
    }
    run(&mut admin, &format!("DROP OWNED BY {0}_gone; DROP ROLE {0}_gone", database.name()));
    let owners = "SELECT DISTINCT role::regrole FROM fhir_bulk_internal.bulk_file";
    // A worker that comes by removes them.
    run(&mut admin, &import_sql("other", &[("Patient", "file:///gone")], json!({})));
    wait_for("them to be forgotten", || rows(&mut admin, owners) == [format!("{}_stays", database.name())]);
}
