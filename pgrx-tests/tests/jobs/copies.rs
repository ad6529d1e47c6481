//! A copy of a database must not run its jobs a second time.

use crate::job::{
    allow, assert_patients, finish, import, inputs, server, wait_for_total, wait_for_workers_to_end,
    wait_until_waiting, worker, workers,
};
use crate::source::Stalling;
use crate::support::{assert_error, count, fails, patients, rows, run, value};
use fhir_bulk_tests::wait_for;

#[test]
fn a_database_made_from_one_with_an_active_job_as_its_template_leaves_the_job_alone() {
    let original = server(&[]);
    let mut client = original.connect();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let source = Stalling::new(patients(1..=4000), 0.6);
    import(&mut client, "job", &[("Patient", &source.url())]);
    wait_for_total(&mut client, "job", 2000);
    wait_until_waiting(&mut client, "Extension");
    let held = worker(&mut client);
    run(&mut client, &format!("SELECT pg_terminate_backend({held}, 10000)"));
    drop(client);
    let mut postgres = original.cluster().connect("postgres", "postgres");
    wait_for("the template to be free", || {
        postgres.batch_execute(&format!("CREATE DATABASE copy TEMPLATE {}", original.name())).is_ok()
    });

    let copy = original.cluster().existing("copy");
    allow(&copy);
    let mut client = copy.connect();
    assert_eq!(count(&mut client, "SELECT count(*) FROM fhir_bulk_internal.bulk_job_task WHERE status = 'active'"), 1);
    // Reading a status starts workers.
    assert_error(&fails(&mut client, "SELECT bulk_import_status('job')"), "P0002", &["no import \"job\""]);
    assert_eq!(value(&mut client, "SELECT bulk_import_cancel('job')"), "f");
    assert_eq!(rows(&mut client, "SELECT * FROM bulk_jobs"), [""; 0]);
    wait_for_workers_to_end(&copy);
    let url = copy.file("own", patients(2001..=2010));
    import(&mut client, "job", &[("Patient", &url)]);
    assert_eq!(inputs(&finish(&mut client, "job")), ["finished 10"]);
    wait_for_workers_to_end(&copy);
    assert_eq!(rows(&mut client, "SELECT id, status FROM fhir_bulk_internal.bulk_job"), ["job|finished"]);
    assert_patients(&mut client, 2010);

    let mut client = original.connect();
    assert_eq!(source.requests(), 1);
    source.go_on();
    assert_eq!(inputs(&finish(&mut client, "job")), ["finished 4000"]);
    assert_patients(&mut client, 4000);
    original.cluster().stop_server("fast");
}

#[test]
fn a_subscriber_to_all_tables_keeps_its_own_jobs_and_does_none_of_the_publishers() {
    let (publisher, subscriber) = (server(&["wal_level = logical"]), server(&[]));
    let mut follower = subscriber.connect();
    // The same keys as the publisher's: number 1 of jobs and of rejects, and the one secret.
    let own = subscriber.file("own", patients(1..=10).replace("\"Patient\"", "\"Person\""));
    let rejected = "SELECT bulk_load('SOURCE', 'Person', options => '{\"on_error\": \"skip\"}')";
    import(&mut follower, "own", &[("Person", &own)]);
    assert_eq!(inputs(&finish(&mut follower, "own")), ["finished 10"]);
    run(&mut follower, &rejected.replace("SOURCE", &subscriber.file("bad", "of the subscriber\n")));
    run(&mut follower, "SELECT bulk_create_table('Patient')");
    let kept = "SELECT 1, id, status FROM bulk_jobs UNION ALL SELECT 2, sqlstate, line::text FROM bulk_load_reject
        UNION ALL SELECT 3, '', md5(secret) FROM fhir_bulk_internal.bulk_secret ORDER BY 1";
    let before = rows(&mut follower, kept);
    assert_eq!(before.len(), 3);

    let mut client = publisher.connect();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'), bulk_create_table('Person'); CREATE PUBLICATION everything FOR ALL TABLES; SET fhir_bulk.import_commit_rows = 1000",
    );
    run(&mut client, &rejected.replace("SOURCE", &publisher.file("bad", "of the publisher\n")));
    let source = Stalling::new(patients(1..=4000), 0.6);
    import(&mut client, "job", &[("Patient", &source.url())]);
    wait_for_total(&mut client, "job", 2000);
    run(
        &mut follower,
        &format!(
            "CREATE SUBSCRIPTION everything CONNECTION 'host=127.0.0.1 port={} user=postgres dbname={}' PUBLICATION everything",
            publisher.cluster().port(),
            publisher.name()
        ),
    );
    // The first copy of each table.
    wait_for("all tables to be copied", || {
        value(&mut follower, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel") == "t"
    });
    assert_eq!(rows(&mut follower, kept), before);
    // And later changes.
    source.go_on();
    assert_eq!(inputs(&finish(&mut client, "job")), ["finished 4000"]);
    run(&mut client, "DELETE FROM bulk_load_reject");
    wait_for("the subscriber to have all rows", || count(&mut follower, "SELECT count(*) FROM patient") == 4000);
    let position = value(&mut client, "SELECT pg_current_wal_flush_lsn()");
    let followed = format!("SELECT latest_end_lsn >= '{position}' FROM pg_stat_subscription WHERE relid IS NULL");
    wait_for("the subscriber to have followed", || value(&mut follower, &followed) == "t");
    assert_eq!(rows(&mut follower, kept), before);
    assert_eq!(rows(&mut follower, "SELECT bulk_import_status('own') ->> 'status'"), ["finished"]);
    assert_error(&fails(&mut follower, "SELECT bulk_import_status('job')"), "P0002", &["no import \"job\""]);
    assert_eq!(workers(&mut follower), [0; 0]);
    assert_eq!(source.requests(), 1);
    assert_patients(&mut follower, 4000);
    // If only a session is a replica (session_replication_role), everything works as usual.
    run(&mut follower, "SET session_replication_role = replica");
    import(&mut follower, "again", &[("Person", &own)]);
    assert_eq!(inputs(&finish(&mut follower, "again")), ["finished 10"]);
    run(&mut follower, "DROP SUBSCRIPTION everything");
    subscriber.cluster().stop_server("fast");
    publisher.cluster().stop_server("fast");
}
