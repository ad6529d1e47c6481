//! Disks that are full.

use crate::job::{assert_patients, assert_sound, finish, import, inputs, server};
use crate::support::{count, patients, run};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system of its own.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, and it says so, where tests may not mount one.
    fn mount(folder: &Path, megabytes: usize) -> Option<SmallDisk> {
        let user = Command::new("id").args(["-u", "postgres"]).output().ok()?;
        let options = format!("size={megabytes}m,uid={}", String::from_utf8_lossy(&user.stdout).trim());
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            let _ = writeln!(std::io::stderr(), "skipped: a full disk takes a tmpfs, which only root may mount");
            return None;
        }
        Some(SmallDisk(folder.to_owned()))
    }

    fn grow(&self, megabytes: usize) {
        let options = format!("remount,size={megabytes}m");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

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
