//! Disks that are full.

use crate::job::{assert_patients, assert_sound, finish, import, inputs, server};
use crate::support::{count, patients, run};
use fhir_bulk_tests::disk::SmallDisk;

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
