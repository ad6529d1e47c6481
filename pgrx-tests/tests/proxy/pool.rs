//! How many connections of the database the proxy takes.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fhir_bulk_tests::SetAtEnd;
use fhir_bulk_tests::proxy::Request;

use crate::support::{PASSWORD, Service, aidbox_rows, role};

/// How many looks in a row must show a backend: what the proxy has closed is gone by then, though not at once.
const LOOKS: usize = 5;

/// The most backends of the proxy that there are at once, of one role and in all, while `work` runs.
fn most_backends(service: &Service, work: impl FnOnce()) -> (usize, usize) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut admin = service.database.connect();
            let backends = "SELECT pid, usename::text FROM pg_stat_activity
                WHERE datname = current_database() AND application_name ~ '^fhir_bulk_proxy'";
            let (mut looks, mut most) = (VecDeque::new(), (0, 0));
            while !is_over.load(Ordering::Relaxed) {
                let rows = admin.query(backends, &[]).unwrap();
                looks.push_back(rows.iter().map(|row| (row.get(0), row.get(1))).collect::<HashSet<(i32, String)>>());
                if looks.len() == LOOKS {
                    let stay: Vec<_> =
                        looks[0].iter().filter(|one| looks.iter().all(|look| look.contains(one))).collect();
                    let of_role = |role: &str| stay.iter().filter(|(_, of)| of == role).count();
                    let of_one = stay.iter().map(|(_, role)| of_role(role)).max().unwrap_or(0);
                    most = (most.0.max(of_one), most.1.max(stay.len()));
                    looks.pop_front();
                }
            }
            most
        });
        let end = SetAtEnd(&is_over);
        work();
        drop(end);
        watching.join().unwrap()
    })
}

#[test]
fn a_burst_of_requests_takes_no_more_backends_than_were_allowed() {
    let flags = ["--connections", "4", "--connections-per-role", "3"];
    let service = Service::with(|_| flags.map(str::to_owned).to_vec());
    aidbox_rows(&mut service.connect());
    let other = role(&service.database, "other");
    service.database.connect().batch_execute(&format!("GRANT SELECT ON patient TO {other}")).unwrap();
    let request = |role: &str| Request::get("/Patient/$dump").basic(role, PASSWORD);
    let (of_role, of_all) = most_backends(&service, || {
        thread::scope(|scope| {
            for client in 0..12 {
                let request = request(if client % 3 == 0 { &other } else { &service.client });
                let proxy = &service.proxy;
                scope.spawn(move || {
                    for round in 0..6 {
                        let exchange = proxy.open(&request);
                        // Some go away before they have their answer.
                        if (client + round) % 4 != 0 {
                            assert_eq!(exchange.read().status, 200);
                        }
                    }
                });
            }
        });
    });
    assert!((1..=3).contains(&of_role), "{of_role} backends of one role");
    assert!((1..=4).contains(&of_all), "{of_all} backends");
}
