//! If the library is preloaded, jobs continue by themselves.

use crate::job::{assert_patients, finish, hold, import, server, wait_for_total, worker, workers};
use crate::source::Stalling;
use crate::support::{patients, rows, run};
use fhir_bulk_tests::{Client, wait_for};

#[test]
fn jobs_go_on_without_any_call_after_a_crash_when_the_library_is_preloaded() {
    let database = server(&[
        "shared_preload_libraries = 'fhir_bulk'",
        "fhir_bulk.launcher_databases = 'jobs, absent'",
        "fhir_bulk.launcher_interval = 1",
    ]);
    let mut client = database.connect();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let urls = [database.file("one", patients(1..=50_000)), database.file("two", patients(50_001..=100_000))];
    let _held = ["p-50000", "p-100000"].map(|id| hold(&database, id));
    import(&mut client, "job", &[("Patient", &urls[0]), ("Patient", &urls[1])]);
    wait_for_total(&mut client, "job", 5000);
    database.cluster().kill_server();
    database.cluster().start_server();
    let mut client = database.connect();
    let sql = "SELECT status, total FROM fhir_bulk_internal.bulk_job_task ORDER BY number";
    wait_for("the job to be done", || rows(&mut client, sql) == ["finished|50000"; 2]);
    assert_patients(&mut client, 100_000);

    // A worker that was ended is replaced, too.
    let url = database.file("more", patients(1..=100_000));
    let held = hold(&database, "p-100000");
    import(&mut client, "more", &[("Patient", &url)]);
    let first = worker(&mut client);
    run(&mut client, &format!("SELECT pg_terminate_backend({first}, 10000)"));
    drop(held);
    wait_for("the job to be done", || {
        rows(&mut client, "SELECT status FROM bulk_jobs WHERE id = 'more'") == ["finished"]
    });
    wait_for("the workers to end", || workers(&mut client).is_empty());
    let log = database.cluster().log();
    let told = log.lines().filter(|line| line.contains("there is no database \"absent\"")).count();
    assert!((1..=2).contains(&told), "once in each life of the server: {told}");
    assert!(Client::connect(&database.cluster().dsn("postgres", "postgres"), postgres::NoTls).is_ok());
    database.cluster().stop_server("fast");
}

/// The server restarts at night, and the first client comes in the morning.
#[test]
fn jobs_go_on_after_a_crash_though_nobody_connects() {
    let database = server(&[
        "shared_preload_libraries = 'fhir_bulk'",
        "fhir_bulk.launcher_databases = 'jobs'",
        "fhir_bulk.launcher_interval = 1",
        "fhir_bulk.allowed_sources = '127.0.0.1'",
    ]);
    let source = Stalling::new(patients(1..=1000), 0.5);
    import(&mut database.connect(), "job", &[("Patient", &source.url())]);
    wait_for("the source to be asked", || source.requests() == 1);
    database.cluster().kill_server();
    database.cluster().start_server();
    wait_for("the source to be asked again", || source.requests() == 2);
    source.go_on();
    let mut client = database.connect();
    assert_eq!(finish(&mut client, "job")["status"], "finished");
    assert_patients(&mut client, 1000);
    database.cluster().stop_server("fast");
}
