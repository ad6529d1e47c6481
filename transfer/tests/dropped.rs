//! What becomes of a download that nobody wants any more. Alone in its process, whose threads it counts.

use fhir_bulk_tests::http::{Server, hold, ok, status};
use fhir_bulk_transfer::{Authorities, Client, Download, Limits, Origin, Policy};
use std::fs;
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

fn downloading() -> bool {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .map(|task| fs::read_to_string(task.path().join("comm")).unwrap_or_default())
        .any(|name| name.trim_end() == "fhir_bulk read")
}

#[test]
fn a_dropped_download_ends_its_thread_wherever_that_is() {
    let waits = Server::answering(status("503 Service Unavailable", "Retry-After: 100\r\n"));
    let full = Server::new(|_, stream| {
        let _ = stream.write_all(&ok(vec![b' '; 64 << 20]));
    });
    let silent = Server::new(|_, stream| hold(stream));
    let stalls = Server::new(|_, stream| {
        let _ = stream.write_all(&ok("all of this and more")[..50]);
        hold(stream);
    });
    for (name, server) in [("back-off", waits), ("full channel", full), ("no answer", silent), ("stalled", stalls)] {
        let seconds = Duration::from_secs(100);
        let limits = Limits { connect: seconds, idle: seconds, redirects: 0, retries: 9 };
        let download = Download::start(
            Origin::url(&server.url("/")).unwrap(),
            Client::new(Policy::parse("127.0.0.1").unwrap(), limits, Authorities::default()),
        )
        .unwrap();
        let start = Instant::now();
        while server.seen().is_empty() || start.elapsed() < Duration::from_millis(200) {
            assert!(start.elapsed() < seconds, "{name}: never asked");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(downloading(), "{name}");
        drop(download);
        let start = Instant::now();
        while downloading() {
            assert!(start.elapsed() < Duration::from_secs(5), "{name}: the thread goes on");
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(server.seen().len(), 1, "{name}");
    }
}
