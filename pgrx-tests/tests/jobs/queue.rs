//! The order in which jobs run, and failures of the queue.

use crate::job::{
    allowed, finish, import, import_sql, inputs, server, set, status, wait_for_status, wait_until_waiting, workers,
};
use crate::source::Stalling;
use crate::support::{count, patients, rows, run, value};
use fhir_bulk_tests::{Client, wait_for};
use serde_json::json;

fn active(client: &mut Client) -> i64 {
    count(client, "SELECT count(*) FROM fhir_bulk_internal.bulk_job_task WHERE status = 'active'")
}

#[test]
fn fifty_jobs_at_once_are_all_finished_never_more_than_the_setting_at_a_time() {
    let (database, mut client) = allowed();
    let urls: Vec<String> =
        (0..50).map(|n| database.file(&n.to_string(), patients(n * 20 + 1..=n * 20 + 20))).collect();
    let sql = |n: usize| import_sql(&n.to_string(), &[("Patient", &urls[n])], json!({}));
    let together = (0..25).map(sql).collect::<Vec<_>>().join(";");
    run(&mut client, &format!("BEGIN; {together}; COMMIT"));
    (25..50).for_each(|n| run(&mut client, &sql(n)));
    let mut most = 0;
    wait_for("all of them to end", || {
        most = most.max(active(&mut client));
        count(&mut client, "SELECT count(*) FROM bulk_jobs WHERE ended_at IS NULL") == 0
    });
    assert!(most <= 2, "{most} at once");
    let states = "SELECT status, count(*), sum(resources), sum(inputs_ended) FROM bulk_jobs GROUP BY 1";
    assert_eq!(rows(&mut client, states), ["finished|50|1000|50"]);
    crate::job::assert_patients(&mut client, 1000);
}

#[test]
fn inputs_run_side_by_side_in_the_order_in_which_they_were_asked_for() {
    for workers_at_once in [1_usize, 3] {
        let (database, _) = allowed();
        let mut client = set(&database, &format!("fhir_bulk.import_workers = {workers_at_once}"));
        let sources: Vec<Stalling> = (0..5).map(|_| Stalling::new(patients(1..=10), 0.5)).collect();
        let url = |n: usize| sources[n].url();
        import(&mut client, "a", &[("Patient", &url(0)), ("Patient", &url(1))]);
        import(&mut client, "b", &[("Patient", &url(2)), ("Patient", &url(3)), ("Patient", &url(4))]);
        let order = "SELECT array_agg(id || '.' || t.number ORDER BY t.started_at) FROM fhir_bulk_internal.bulk_job_task t \
                     JOIN fhir_bulk_internal.bulk_job j ON j.number = t.job \
                     WHERE t.started_at IS NOT NULL";
        let all = ["a.1", "a.2", "b.1", "b.2", "b.3"];
        for (ended, source) in sources.iter().enumerate() {
            let begun = (workers_at_once + ended).min(5);
            wait_for("the next ones to be begun", || {
                count(&mut client, "SELECT count(*) FROM fhir_bulk_internal.bulk_job_task WHERE started_at IS NOT NULL")
                    == begun as i64
            });
            let mut found: Vec<String> =
                value(&mut client, order).trim_matches(['{', '}']).split(',').map(str::to_owned).collect();
            // Those that begin together may do so in any order.
            found.sort();
            assert_eq!(found, all[..begun]);
            assert!(active(&mut client) <= workers_at_once as i64);
            // Each request starts workers of its own; those that find no free slot end.
            wait_for("the other workers to end", || workers(&mut client).len() <= workers_at_once);
            source.go_on();
        }
        assert_eq!(inputs(&finish(&mut client, "b")), ["finished 10"; 3]);
    }
}

#[test]
fn a_server_without_a_free_process_keeps_a_job_waiting_and_then_does_it() {
    // One of two is the launcher of logical replication.
    let database = server(&["max_worker_processes = 2"]);
    let other = database.cluster().database("other");
    let (mut client, mut busy) = (database.connect(), set(&other, "fhir_bulk.allowed_sources = '127.0.0.1'"));
    let source = Stalling::new(patients(1..=10), 0.5);
    import(&mut busy, "busy", &[("Patient", &source.url())]);
    wait_until_waiting(&mut busy, "Extension");
    let url = database.file("one", patients(1..=10));
    import(&mut client, "later", &[("Patient", &url), ("Patient", &url)]);
    for _ in 0..20 {
        let status = status(&mut client, "later");
        assert_eq!(inputs(&status), ["waiting 0", "waiting 0"], "{status}");
        assert_eq!(status["status"], "active");
    }
    assert_eq!(rows(&mut client, "SELECT status FROM bulk_jobs"), ["waiting"]);
    source.go_on();
    assert_eq!(inputs(&finish(&mut busy, "busy")), ["finished 10"]);
    assert_eq!(inputs(&finish(&mut client, "later")), ["finished 10", "finished 10"]);
    database.cluster().stop_server("fast");
}

/// A prepared transaction may be committed by another session.
#[test]
fn a_job_of_a_prepared_transaction_begins_when_it_is_next_asked_for() {
    let database = server(&["max_prepared_transactions = 2"]);
    let mut client = database.connect();
    let url = database.file("one", patients(1..=10));
    run(&mut client, &format!("BEGIN; {}; PREPARE TRANSACTION 'p'", import_sql("p", &[("Patient", &url)], json!({}))));
    assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_jobs"), 0);
    run(&mut database.connect(), "COMMIT PREPARED 'p'");
    assert_eq!(inputs(&finish(&mut client, "p")), ["finished 10"]);
    database.cluster().stop_server("fast");
}

#[test]
fn polling_a_status_does_not_start_a_process_each_time() {
    let (database, mut client) = allowed();
    // The queue can't be written: each worker that is started ends.
    run(&mut client, "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$");
    run(
        &mut client,
        "CREATE TRIGGER refuse BEFORE UPDATE ON fhir_bulk_internal.bulk_job_task FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let url = database.file("one", patients(1..=10));
    import(&mut client, "stuck", &[("Patient", &url)]);
    wait_for("a worker to give up", || database.cluster().log().contains("fhir_bulk job worker: not now"));
    let start = std::time::Instant::now();
    for _ in 0..200 {
        status(&mut client, "stuck");
    }
    let log = database.cluster().log();
    let told = log.lines().filter(|line| line.contains("not now")).count() as u64;
    assert!(told <= 4 + 2 * start.elapsed().as_secs(), "{told} lines in the log");
    run(&mut client, "DROP TRIGGER refuse ON fhir_bulk_internal.bulk_job_task");
    wait_for_status(&mut client, "stuck", "is finished", |status| status["status"] == "finished");
}

/// A client that waits, or is asleep, before it commits.
#[test]
fn a_cancel_that_is_not_committed_keeps_no_other_job_waiting() {
    let (database, mut client) = allowed();
    let slow = [Stalling::new(patients(1..=10), 0.5), Stalling::new(patients(1..=10), 0.5)];
    import(&mut client, "slow", &[("Patient", &slow[0].url()), ("Patient", &slow[1].url())]);
    wait_for("both slots to be taken", || active(&mut client) == 2);
    let (one, two) = (database.file("one", patients(1..=10)), database.file("two", patients(11..=20)));
    import(&mut client, "ended", &[("Patient", &one), ("Patient", &two)]);
    let mut asleep = database.connect();
    run(&mut asleep, "BEGIN");
    assert_eq!(value(&mut asleep, "SELECT bulk_import_cancel('ended')"), "t");
    import(&mut client, "next", &[("Patient", &one)]);
    slow.iter().for_each(Stalling::go_on);
    wait_for_status(&mut client, "next", "its end", |status| status["status"] == "finished");
    run(&mut asleep, "COMMIT");
    wait_for_status(&mut client, "ended", "its end", |status| status["status"] == "cancelled");
}

#[test]
fn jobs_that_take_their_workers_down_fail_in_the_end_and_keep_no_other_from_its_turn() {
    let (database, mut client) = allowed();
    run(
        &mut client,
        "SELECT bulk_create_table('Device'), bulk_create_table('Group'), bulk_create_table('Patient');
         CREATE FUNCTION fatal() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
         CREATE TRIGGER fatal BEFORE INSERT ON device FOR EACH ROW EXECUTE FUNCTION fatal();
         CREATE TRIGGER fatal BEFORE INSERT ON \"group\" FOR EACH ROW EXECUTE FUNCTION fatal()",
    );
    for resource_type in ["Device", "Group"] {
        let lines = patients(1..=10).replace("\"Patient\"", &format!("\"{resource_type}\""));
        import(&mut client, resource_type, &[(resource_type, &database.file(resource_type, lines))]);
    }
    wait_for("both to have ended their workers", || {
        count(&mut client, "SELECT count(*) FROM fhir_bulk_internal.bulk_job_task WHERE starts > 0") == 2
    });
    import(&mut client, "good", &[("Patient", &database.file("good", patients(1..=10)))]);
    assert_eq!(inputs(&finish(&mut client, "good")), ["finished 10"]);
    let before = "SELECT count(*) FROM fhir_bulk_internal.bulk_job_task WHERE status = 'failed'";
    assert_eq!(count(&mut client, before), 0, "the good one waited until the others were given up");
    for resource_type in ["Device", "Group"] {
        let status = finish(&mut client, resource_type);
        assert_eq!(inputs(&status), ["failed 0"]);
        let error = status["inputs"][0]["error"].as_str().unwrap();
        assert!(error.starts_with("10 workers in a row ended"), "{error}");
    }
}

#[test]
fn a_job_that_takes_the_server_down_takes_no_other_job_with_it() {
    let database = server(&[]);
    let mut client = database.connect();
    run(
        &mut client,
        "SELECT bulk_create_table('Device'), bulk_create_table('Patient');
         CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE pid int := pg_backend_pid(); BEGIN
             PERFORM pg_sleep(0.2); EXECUTE format('COPY (SELECT 1) TO PROGRAM ''kill -9 %s''', pid); PERFORM pg_sleep(60);
             RETURN NEW; END $$;
         CREATE TRIGGER crash BEFORE INSERT ON device FOR EACH ROW EXECUTE FUNCTION crash();
         -- Never done before the other has taken the server down, and nothing of it is committed before its end.
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let devices = patients(1..=10).replace("\"Patient\"", "\"Device\"");
    let (device, patient) = (database.file("devices", devices), database.file("patients", patients(1..=20)));
    import(&mut client, "bad", &[("Device", &device)]);
    import(&mut client, "good", &[("Patient", &patient)]);
    // Whoever asks for a status after a crash has a worker started.
    let ended = |id: &str| {
        let mut last = None;
        wait_for("the job to end", || {
            let query = format!("SELECT bulk_import_status('{id}')::text");
            let found = fhir_bulk_tests::connect(&database.cluster().dsn("postgres", database.name()))
                .and_then(|mut client| client.query_one(&query, &[]));
            last = found.ok().map(|row| serde_json::from_str::<serde_json::Value>(row.get(0)).unwrap());
            last.as_ref().is_some_and(|status| status["status"] != "active")
        });
        last.unwrap()
    };
    let good = ended("good");
    assert_eq!((&good["status"], &good["inputs"][0]["total"]), (&"finished".into(), &20.into()), "{good}");
    let bad = ended("bad");
    assert_eq!(bad["status"], "failed", "{bad}");
    assert!(bad["inputs"][0]["error"].as_str().unwrap().starts_with("10 workers in a row"), "{bad}");
}

#[test]
fn a_suspect_job_that_somebody_is_about_to_cancel_keeps_no_worker_busy() {
    let (database, mut client) = allowed();
    run(
        &mut client,
        "SELECT bulk_create_table('Device');
         CREATE FUNCTION fatal() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
         CREATE TRIGGER fatal BEFORE INSERT ON device FOR EACH ROW EXECUTE FUNCTION fatal()",
    );
    let url = database.file("devices", patients(1..=10).replace("\"Patient\"", "\"Device\""));
    import(&mut client, "bad", &[("Device", &url)]);
    let starts = "SELECT count(*) FROM fhir_bulk_internal.bulk_job_task WHERE starts BETWEEN 2 AND 9";
    let mut asleep = database.connect();
    wait_for("the job to be suspect, and its cancel to wait for its commit", || {
        status(&mut client, "bad");
        run(&mut asleep, "BEGIN");
        let is_held = count(&mut asleep, starts) == 1 && value(&mut asleep, "SELECT bulk_import_cancel('bad')") == "t";
        if !is_held {
            run(&mut asleep, "ROLLBACK");
        }
        is_held
    });
    // A worker that has done something else looks for more, finds nothing that it may begin, and ends.
    import(&mut client, "good", &[("Patient", &database.file("good", patients(1..=10)))]);
    assert_eq!(inputs(&finish(&mut client, "good")), ["finished 10"]);
    wait_for("no worker to be there", || workers(&mut client).is_empty());
    run(&mut asleep, "COMMIT");
    assert_eq!(finish(&mut client, "bad")["status"], "cancelled");
}

#[test]
fn an_administrator_sees_from_psql_what_workers_see_of_the_queue() {
    let (database, _) = allowed();
    let mut client = set(&database, "fhir_bulk.import_workers = 1");
    let source = Stalling::new(patients(1..=10), 0.5);
    let url = database.file("one", patients(1..=5));
    import(&mut client, "first", &[("Patient", &source.url()), ("Patient", &url)]);
    import(&mut client, "second", &[("Patient", &url)]);
    wait_until_waiting(&mut client, "Extension");
    let open = "SELECT j.id, o.number, o.starts FROM fhir_bulk_internal.open_tasks() WITH ORDINALITY o (job, number, starts, place)
        JOIN fhir_bulk_internal.bulk_job j ON j.number = o.job ORDER BY o.place";
    assert_eq!(rows(&mut client, open), ["first|2|0", "second|1|0", "first|1|1"]);
    let suspect = "SELECT count(*) FROM fhir_bulk_internal.open_tasks(suspect => true)";
    assert_eq!(count(&mut client, suspect), 0);
    let own = "SELECT f.status, jsonb_array_length(f.tasks), t.number, t.status, t.total
        FROM fhir_bulk_internal.find_job('import', 'first', 'postgres'::regrole, NULL) f,
            fhir_bulk_internal.own_jobs('import', 'first', 'postgres'::regrole, NULL) own,
            fhir_bulk_internal.job_tasks(own) t";
    assert_eq!(rows(&mut client, own), ["active|2|1|active|0", "active|2|2|waiting|0"]);
    assert_eq!(
        value(&mut client, "SELECT fhir_bulk_internal.unfinished_jobs('import', 'postgres'::regrole, NULL)"),
        "2"
    );
    source.go_on();
    assert_eq!(inputs(&finish(&mut client, "second")), ["finished 5"]);
    finish(&mut client, "first");
    assert_eq!(rows(&mut client, open), [""; 0]);
    assert_eq!(rows(&mut client, "SELECT * FROM fhir_bulk_internal.left_behind()"), [""; 0]);
    let expired = "SELECT jsonb_array_length(inputs) FROM fhir_bulk_internal.expired_jobs('import', -60)";
    assert_eq!(rows(&mut client, expired).len(), 2);
}
