//! The memory of a process of the server.

use crate::{Client, SetAtEnd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Memory that a process allocated itself, without shared buffers, in bytes; `None` when it is gone.
pub fn anonymous(pid: i64) -> Option<i64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<i64>().unwrap() * 1024)
}

/// Lets a server's process have so many more bytes of address space than it has now, until it ends.
pub fn limit(pid: i64, more: u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a living process");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("it has a size");
    let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    let limit = format!("--as={}:unlimited", size * 1024 + more);
    let mut prlimit = crate::as_server_user(Path::new("/usr/bin/prlimit"));
    let done = prlimit.args(["--pid", &pid.to_string(), &limit]).status();
    assert!(done.is_ok_and(|status| status.success()), "prlimit is in util-linux");
}

/// The most that the memory of a client's backend grows by while `work` runs, in bytes.
pub fn growth(client: &mut Client, work: impl FnOnce(&mut Client)) -> i64 {
    let pid = i64::from(client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get::<_, i32>(0));
    let now = move || anonymous(pid).expect("a living backend");
    let (before, ended) = (now(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = before;
            while !ended.load(Ordering::Relaxed) {
                most = most.max(now());
                std::thread::sleep(Duration::from_millis(5));
            }
            most.max(now()) - before
        });
        let end = SetAtEnd(&ended);
        work(client);
        drop(end);
        watch.join().unwrap()
    })
}
