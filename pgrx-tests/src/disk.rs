//! Small file systems that tests fill up.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system. Drop removes it.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one in an existing folder. `None`, with a message, if the tests may not mount.
    pub fn mount(folder: &Path, megabytes: usize) -> Option<SmallDisk> {
        let user = Command::new("id").args(["-u", "postgres"]).output().ok()?;
        let options = format!("size={megabytes}m,uid={}", String::from_utf8_lossy(&user.stdout).trim());
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            let _ = writeln!(std::io::stderr(), "skipped: a full disk takes a tmpfs, which only root may mount");
            return None;
        }
        Some(SmallDisk(folder.to_owned()))
    }

    /// Makes it larger.
    pub fn grow(&self, megabytes: usize) {
        let options = format!("remount,size={megabytes}m");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
