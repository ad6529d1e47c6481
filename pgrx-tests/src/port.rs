//! Ports for servers that start later, and that stop and start again on the same one.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

/// A TCP port of 127.0.0.1 that no other test takes while this lives.
///
/// A port that the system picks for `127.0.0.1:0` is free only at that moment: before a server listens on it, any
/// connection that leaves this machine may get it. So these are below the range that the system picks from, and a locked
/// file holds each against other test programs.
pub struct Port {
    number: u16,
    _held: File,
}

/// Below Linux's `ip_local_port_range`.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

impl Port {
    /// A free one.
    pub fn take() -> Port {
        let folder = std::env::temp_dir().join("fhir_bulk_test_ports");
        fs::create_dir_all(&folder).unwrap();
        // Tests of another user take theirs from the same range.
        let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(0o777));
        let first = (std::process::id() % u32::from(PORTS.end - PORTS.start)) as u16;
        let all = (PORTS.start + first..PORTS.end).chain(PORTS.start..PORTS.start + first);
        for number in all {
            let path = folder.join(number.to_string());
            let Ok(held) = File::options().create(true).write(true).truncate(false).open(&path) else { continue };
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o666));
            if held.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Port { number, _held: held };
            }
        }
        panic!("no free port from {} to {}", PORTS.start, PORTS.end);
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
