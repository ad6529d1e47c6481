//! Jobs on a full disk.

use crate::job::{assert_patients, assert_sound, finish, import, inputs, server};
use crate::support::{count, patients, run};
use crate::survival::reconnect;
use fhir_bulk_tests::disk::SmallDisk;
use fhir_bulk_tests::{as_server_user, wait_for};
use std::path::Path;

#[test]
fn a_full_disk_ends_the_input_with_true_numbers_and_room_lets_it_be_imported() {
    let database = server(&[]);
    let folder = database.cluster().shared_folder("small");
    let Some(disk) = SmallDisk::mount(&folder, 10) else { return };
    let mut client = database.connect();
    run(&mut client, &format!("CREATE TABLESPACE small LOCATION '{}'", folder.display()));
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'); ALTER TABLE patient SET TABLESPACE small;
         SET fhir_bulk.import_commit_rows = 1000",
    );
    let url = database.file("all", patients(1..=60_000));
    import(&mut client, "full", &[("Patient", &url)]);
    let status = finish(&mut client, "full");
    assert_eq!(status["status"], "failed", "{status}");
    assert!(status["inputs"][0]["error"].as_str().unwrap().contains("No space left on device"), "{status}");
    let total = status["inputs"][0]["total"].as_i64().unwrap();
    assert!(total >= 1000 && total % 1000 == 0, "{status}");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), total);
    assert_sound(&mut client);
    disk.grow(100);
    import(&mut client, "room", &[("Patient", &url)]);
    assert_eq!(inputs(&finish(&mut client, "room")), ["finished 60000"]);
    assert_patients(&mut client, 60_000);
    drop(client);
    database.cluster().stop_server("fast");
}

#[test]
fn a_full_disk_of_the_log_ends_the_server_and_with_room_the_import_goes_on_after_its_start() {
    const NUMBER: usize = 300_000;
    let database = server(&[]);
    let cluster = database.cluster();
    let folder = cluster.shared_folder("log_disk");
    let Some(disk) = SmallDisk::mount(&folder, 64) else { return };
    cluster.stop_server("fast");
    let move_log = "mv \"$0\"/pg_wal/* \"$1\" && rmdir \"$0\"/pg_wal && ln -s \"$1\" \"$0\"/pg_wal";
    let moved = as_server_user(Path::new("/bin/sh")).args(["-c", move_log]).arg(cluster.data()).arg(&folder).status();
    assert!(moved.unwrap().success());
    cluster.start_server();
    let mut client = reconnect(&database);
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let url = database.file("all", patients(1..=NUMBER));
    import(&mut client, "job", &[("Patient", &url)]);
    // PostgreSQL gives up where it can't write its log, and then where it can't recover either.
    wait_for("the server to end", || !cluster.is_running());
    assert!(cluster.log().contains("PANIC:  could not write to file \"pg_wal/xlogtemp"), "{}", cluster.log());
    disk.grow(1000);
    cluster.start_server();
    let mut client = reconnect(&database);
    let total = count(&mut client, "SELECT total FROM fhir_bulk_internal.bulk_job_task");
    assert!((1000..NUMBER as i64).contains(&total), "{total}");
    let status = finish(&mut client, "job");
    assert_eq!(inputs(&status), [format!("finished {NUMBER}")], "{status}");
    assert_patients(&mut client, NUMBER);
    drop(client);
    cluster.stop_server("fast");
}
