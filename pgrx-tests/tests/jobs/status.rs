//! The status of an import, and the rows of `bulk_jobs`.

use crate::job::{allowed, finish, import, import_with, one_worker, status, wait_for_status, wait_for_total, worker};
use crate::source::Stalling;
use crate::support::{count, patients, rows, run, value};
use fhir_bulk_tests::http::{Server, status as answer};
use fhir_bulk_tests::{Client, gzip, wait_for};
use serde_json::{Value, json};

/// The status with its times checked and replaced: an instant by `"instant"`, a duration by `"ms"`.
fn golden(mut status: Value) -> Value {
    let instant = |value: &mut Value| {
        let text = value.as_str().unwrap_or_default();
        let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000Z", "{value}");
        *value = "instant".into();
    };
    status["time"].as_object_mut().unwrap().values_mut().for_each(instant);
    for input in status["inputs"].as_array_mut().unwrap() {
        if let Some(ts) = input.get_mut("ts") {
            instant(ts);
        }
        if let Some(duration) = input.get_mut("duration") {
            assert!(duration.as_u64().is_some_and(|ms| ms < 600_000), "{duration}");
            *duration = "ms".into();
        }
    }
    if let Some(rate) = status.pointer_mut("/progress/resourcesPerSecond") {
        assert!(rate.is_u64(), "{rate}");
        *rate = "rate".into();
    }
    status
}

fn utc(client: &mut Client) {
    run(client, "SET TimeZone = 'UTC'");
}

#[test]
fn a_running_import_shows_what_is_committed_and_how_far_it_has_read() {
    let (_database, mut client) = one_worker();
    utc(&mut client);
    let body = patients(1..=4000);
    let source = Stalling::new(&body, 0.6);
    let other = Stalling::silent();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let more = json!({"contentEncoding": "plain"});
    import_with(&mut client, "running", &[("Patient", &source.url()), ("Person", &other.url())], more);
    let first = wait_for_total(&mut client, "running", 1);
    assert_eq!(first["status"], "active");
    wait_for_total(&mut client, "running", 2000);
    let worker = worker(&mut client);
    // 2,400 lines have come, 2,000 are committed; it has read more than those.
    let mut running = golden(wait_for_status(&mut client, "running", "what it read", |status| {
        status["progress"]["bytesRead"].as_u64().unwrap() >= body.len() as u64 / 2
    }));
    assert!(running["progress"]["bytesRead"].as_u64().unwrap() <= body.len() as u64 * 6 / 10);
    running["progress"]["bytesRead"] = "bytes".into();
    // Those too that are not committed yet.
    assert!((2000..=2400).contains(&running["progress"]["resources"].as_u64().unwrap()), "{running}");
    running["progress"]["resources"] = "seen".into();
    assert_eq!(
        running,
        json!({
            "resourceType": "BulkImportStatus",
            "id": "running",
            "type": "aidbox",
            "contentEncoding": "plain",
            "mode": "bulk",
            "time": {"start": "instant"},
            "status": "active",
            // How much the second input has is not known yet.
            "progress": {"bytesRead": "bytes", "resources": "seen", "resourcesPerSecond": "rate"},
            "total": 2000,
            "inputsTotal": 2,
            "inputsFailed": 0,
            "inputs": [
                {"resourceType": "Patient", "url": source.url(), "status": "active", "total": 2000, "duration": "ms",
                 "ts": "instant"},
                {"resourceType": "Person", "url": other.url(), "status": "waiting", "total": 0},
            ],
        })
    );
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 2000);
    let shown = "SELECT query FROM pg_stat_activity WHERE state = 'active' AND pid = ";
    assert_eq!(
        rows(&mut client, &format!("{shown}{worker}")),
        ["fhir_bulk import \"running\", 1 of 2: 2000 resources"]
    );
    source.go_on();
    other.go_on();
    let status = finish(&mut client, "running");
    assert_eq!(status["inputs"][0]["total"], 4000, "{status}");
    assert_eq!(status["progress"], Value::Null);
}

#[test]
fn an_import_in_one_transaction_tells_how_far_it_is_before_it_commits() {
    let (_database, mut client) = allowed();
    let body = gzip(patients(1..=60_000).as_bytes());
    let source = Stalling::new(&body, 0.5);
    import_with(&mut client, "whole", &[("Patient", &source.url())], json!({"mode": "transaction"}));
    let status = wait_for_status(&mut client, "whole", "some of the bytes", |status| {
        status["progress"]["bytesRead"].as_u64().unwrap() > body.len() as u64 / 5
    });
    assert_eq!(status["inputs"][0]["total"], 0);
    assert_eq!(status["progress"]["bytesTotal"], body.len());
    assert!(status["progress"]["resourcesPerSecond"].as_u64().unwrap() > 0);
    let copy = "SELECT bytes_processed < bytes_total, tuples_processed > 0, command FROM pg_stat_progress_copy \
                WHERE datname = current_database()";
    assert_eq!(rows(&mut client, copy), ["t|t|COPY FROM"]);
    source.go_on();
    assert_eq!(finish(&mut client, "whole")["inputs"][0]["total"], 60_000);
    assert_eq!(rows(&mut client, copy), [""; 0]);
}

#[test]
fn an_input_that_fails_says_why_and_the_others_are_finished() {
    let (database, mut client) = allowed();
    utc(&mut client);
    let good = database.file("good", patients(1..=10));
    let forbidden = Server::answering(answer("403 Forbidden", ""));
    let urls = [good, forbidden.url("/one?signature=secret"), forbidden.url("/two")];
    import(&mut client, "one-bad", &[("Patient", &urls[0]), ("Person", &urls[1])]);
    let one_bad = finish(&mut client, "one-bad");
    assert_eq!(
        golden(one_bad),
        json!({
            "resourceType": "BulkImportStatus",
            "id": "one-bad",
            "type": "aidbox",
            "contentEncoding": "plain",
            "mode": "bulk",
            "time": {"start": "instant", "end": "instant"},
            "status": "finished",
            "total": 10,
            "inputsTotal": 2,
            "inputsFailed": 1,
            "inputs": [
                {"resourceType": "Patient", "url": urls[0], "status": "finished", "total": 10, "duration": "ms",
                 "ts": "instant"},
                {"resourceType": "Person", "url": urls[1], "status": "failed", "total": 0, "duration": "ms",
                 "ts": "instant", "error": "403: Forbidden"},
            ],
        })
    );
    import(&mut client, "all-bad", &[("Patient", &urls[1]), ("Person", &urls[2])]);
    let all_bad = finish(&mut client, "all-bad");
    assert_eq!(all_bad["status"], "failed");
    assert_eq!(all_bad["inputs"][1]["error"], "403: Forbidden");
    // Asked once: it would not answer otherwise the next time. And the log says it once, without the URL's secret.
    assert_eq!(forbidden.seen().len(), 3);
    let log = database.cluster().log();
    let told = log.lines().filter(|line| line.contains("\"one-bad\"")).collect::<Vec<_>>();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("403") && !told[0].contains("secret"), "{told:?}");
}

#[test]
fn what_was_committed_before_an_input_failed_is_counted_and_stays() {
    let (database, mut client) = allowed();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 100");
    let broken = database.file("broken", patients(1..=250) + "{broken\n" + &patients(251..=300));
    import(&mut client, "bulk", &[("Patient", &broken)]);
    let status = finish(&mut client, "bulk");
    assert_eq!((&status["status"], &status["inputs"][0]["total"]), (&json!("failed"), &json!(200)), "{status}");
    assert!(status["inputs"][0]["error"].as_str().unwrap().contains("line 251"), "{status}");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 200);
    run(&mut client, "TRUNCATE patient");
    import_with(&mut client, "whole", &[("Patient", &broken)], json!({"mode": "transaction"}));
    let status = finish(&mut client, "whole");
    assert_eq!((&status["mode"], &status["inputs"][0]["total"]), (&json!("transaction"), &json!(0)), "{status}");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
}

#[test]
fn the_view_has_a_row_of_each_job_with_its_rate_and_the_time_left() {
    let (database, mut client) = one_worker();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let source = Stalling::new(patients(1..=4000), 0.6);
    let small = database.file("small", patients(1..=10));
    import(&mut client, "first", &[("Patient", &source.url())]);
    wait_for_total(&mut client, "first", 2000);
    import(&mut client, "second", &[("Patient", &small), ("Patient", &small)]);
    let sql =
        "SELECT kind, id, role, subject, status, inputs, inputs_ended, resources, progress > 0.4 AND progress < 0.7,
                 resources_per_second > 0, time_left > '0', created_at <= now(), started_at >= created_at, ended_at
               FROM bulk_jobs ORDER BY created_at";
    wait_for("the rows", || {
        rows(&mut client, sql)
            == [
                "import|first|postgres|∅|active|1|0|2000|t|t|t|t|t|∅",
                "import|second|postgres|∅|waiting|2|0|0|f|∅|∅|t|∅|∅",
            ]
    });
    source.go_on();
    finish(&mut client, "first");
    finish(&mut client, "second");
    assert_eq!(
        rows(
            &mut client,
            "SELECT id, status, inputs_ended, resources, progress, time_left, ended_at >= started_at FROM bulk_jobs"
        ),
        ["first|finished|1|4000|1.000|∅|t", "second|finished|2|20|1.000|∅|t"]
    );
}

#[test]
fn times_are_in_the_zone_of_whoever_asks() {
    let (database, mut client) = allowed();
    let url = database.file("one", patients(1..=10));
    import(&mut client, "zone", &[("Patient", &url)]);
    finish(&mut client, "zone");
    run(&mut client, "SET TimeZone = 'Europe/Moscow'");
    let status = status(&mut client, "zone");
    assert!(status["time"]["start"].as_str().unwrap().ends_with("+03:00"), "{status}");
    let same = format!(
        "SELECT created_at = '{}' AND ended_at = '{}' FROM bulk_jobs",
        status["time"]["start"].as_str().unwrap(),
        status["time"]["end"].as_str().unwrap()
    );
    assert_eq!(value(&mut client, &same), "t");
}
