//! Operating the proxy: health, metrics, flags, TLS, and stopping.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fhir_bulk_tests::proxy::{Exchange, Proxy, Request, program};
use fhir_bulk_tests::wait_for;

use crate::support::{PASSWORD, Service, aidbox_rows, certificate, file, stall_patients, target};

#[test]
fn health_and_metrics_need_no_credentials_and_count_what_was_done() {
    let service = Service::new();
    aidbox_rows(&mut service.connect());
    let health = service.proxy.send(&Request::get("/health"));
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("ok")));
    assert_eq!(service.send(Request::get("/Patient/$dump")).status, 200);
    assert_eq!(service.send(Request::get("/Patient/$dump?gzip=true")).status, 200);
    assert_eq!(service.send(Request::get("/Nothing/$dump")).status, 404);
    let mut text = String::new();
    let mut metric = |line: &str| {
        wait_for(line, || {
            text = service.proxy.send(&Request::get("/metrics")).text();
            text.lines().any(|found| found == line)
        });
    };
    metric(r#"fhir_bulk_proxy_requests_total{method="GET",route="/{type}/$dump",status="200"} 2"#);
    metric(r#"fhir_bulk_proxy_requests_total{method="GET",route="/{type}/$dump",status="404"} 1"#);
    metric(r#"fhir_bulk_proxy_rows_total{direction="out"} 3"#);
    metric(r#"fhir_bulk_proxy_connections{state="used"} 0"#);
    // Kept for the next request, also after one that failed.
    wait_for("idle connections", || {
        !service.proxy.send(&Request::get("/metrics")).text().contains("{state=\"idle\"} 0")
    });
    // Methods that somebody invents are one.
    for method in ["FROBNICATE", "X-1"] {
        service.proxy.send(&Request::new(method, "/Patient/$dump"));
    }
    metric(r#"fhir_bulk_proxy_requests_total{method="other",route="/{type}/$dump",status="405"} 2"#);
    // Itself.
    metric("fhir_bulk_proxy_running_requests 1");
    for line in text.lines() {
        assert!(line.starts_with('#') || line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn sigterm_lets_a_running_dump_finish_and_takes_no_new_requests() {
    let service = Service::new();
    let client = &mut service.connect();
    client
        .batch_execute(
            "SELECT bulk_create_table('Patient'); INSERT INTO patient (id, txid, status, resource)
             SELECT 'p-' || n, 1, 'created', jsonb_build_object('text', repeat('x', 100000)) FROM generate_series(1, 500) n",
        )
        .unwrap();
    let mut exchange = service.proxy.open(&service.signed(Request::get("/Patient/$dump")));
    assert_eq!(exchange.head().status, 200);
    service.proxy.terminate();
    wait_for("the door to be closed", || std::net::TcpStream::connect(service.proxy.address()).is_err());
    assert_eq!(service.proxy.ended(), None);
    let mut lines = 0;
    loop {
        let chunk = exchange.chunk().unwrap().expect("a whole body");
        if chunk.is_empty() {
            break;
        }
        lines += chunk.iter().filter(|byte| **byte == b'\n').count();
    }
    assert_eq!(lines, 500);
    wait_for("the proxy to end", || service.proxy.ended() == Some(true));
}

/// A service with a dump that stalls until its query ends, and whether that query is there.
fn stalled(shutdown_timeout: &str) -> (Service, Exchange, impl FnMut() -> bool + use<>) {
    let flags = ["--shutdown-timeout".to_owned(), shutdown_timeout.to_owned()];
    let service = Service::with(|_| flags.to_vec());
    let mut client = service.connect();
    let patient = "SELECT bulk_create_table('Patient');
                   INSERT INTO patient (id, txid, status, resource) VALUES ('p', 1, 'created', '{}')";
    client.batch_execute(patient).unwrap();
    stall_patients(&mut client);
    let exchange = service.proxy.open(&service.signed(Request::get("/Patient/$dump")));
    let mut client = service.database.connect();
    let mut is_there = move || {
        let query =
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        client.query_one(query, &[]).unwrap().get(0)
    };
    wait_for("the dump to stall", &mut is_there);
    (service, exchange, is_there)
}

#[test]
fn a_stop_does_not_wait_for_ever_and_leaves_no_query_behind() {
    let (service, _exchange, mut query_is_there) = stalled("200ms");
    service.proxy.terminate();
    wait_for("the proxy to end", || service.proxy.ended() == Some(true));
    wait_for("the query to end", || !query_is_there());
}

#[test]
fn who_asks_a_second_time_does_not_wait_for_running_requests() {
    let (service, _exchange, mut query_is_there) = stalled("1h");
    service.proxy.terminate();
    wait_for("the door to be closed", || std::net::TcpStream::connect(service.proxy.address()).is_err());
    assert_eq!(service.proxy.ended(), None);
    service.proxy.terminate();
    wait_for("the proxy to end", || service.proxy.ended() == Some(true));
    wait_for("the query to end", || !query_is_there());
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let service = Service::new();
    aidbox_rows(&mut service.connect());
    let good = target(&service.database, "");
    let config =
        file(&service.database, "proxy.yaml", "listen: 127.0.0.1:0\ndatabase: host=127.0.0.1 port=1\nlog: debug\n");
    let start = |flag: Option<&str>, environment: Option<&str>| {
        let mut command = Command::new(program(false));
        command.args(["--config", &config]);
        flag.iter().for_each(|value| {
            command.args(["--database", value]);
        });
        environment.iter().for_each(|value| {
            command.env("FHIR_BULK_DATABASE", value);
        });
        Proxy::spawn(&mut command)
    };
    let bad = "host=127.0.0.1 port=1";
    for (flag, environment, status) in [
        (None, None, 503),
        (None, Some(good.as_str()), 200),
        (Some(good.as_str()), Some(bad), 200),
        (Some(bad), Some(&good), 503),
    ] {
        let proxy = start(flag, environment);
        assert_eq!(
            proxy.send(&service.signed(Request::get("/Patient/$dump"))).status,
            status,
            "{flag:?} {environment:?}"
        );
    }
}

#[test]
fn mistakes_in_the_configuration_are_told_at_the_start() {
    let service = Service::new();
    let good = target(&service.database, "");
    let path = |name: &str, content: &str| file(&service.database, name, content);
    let unknown = path("unknown.yaml", "databse: x\n");
    let short = path("short", "too short");
    let keys = path("keys.yaml", "- sha256: abc\n  role: x\n");
    let (with_user, with_tls) = (format!("{good} user=x"), format!("{good} sslmode=require"));
    let nested = path("nested.yaml", "config: /other.yaml\n");
    let half = path("half.yaml", "tls-cert: /nowhere.pem\n");
    let other_half = path("other_half.yaml", "tls-key: /nowhere.key\n");
    for (flags, reason) in [
        (vec![], "--database"),
        (vec!["--config", &unknown], "databse"),
        (vec!["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (vec!["--database", "nonsense"], "--database"),
        (vec!["--database", &good, "--anonymous-role", "x"], "need a user in --database"),
        (vec!["--database", &with_user, "--jwt-secret-file", &short], "fewer than 32 bytes"),
        (vec!["--database", &with_user, "--api-keys-file", &keys], "64 hexadecimal digits"),
        (vec!["--database", &good, "--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.pem"], "/nowhere.pem"),
        // A certificate alone would serve plain HTTP; its key may come from elsewhere.
        (vec!["--config", &half, "--database", &good], "tls-cert needs tls-key"),
        (vec!["--database", &good, "--tls-key", "/nowhere.key"], "tls-key needs tls-cert"),
        (vec!["--config", &other_half, "--database", &good, "--tls-cert", "/nowhere.pem"], "/nowhere.pem: "),
        (vec!["--config", &nested, "--database", &good], "cannot name another"),
        // What could never be reached.
        (vec!["--database", "dbname=fhir user=x"], "names no host"),
        (vec!["--database", &with_tls], "asks for TLS"),
        (vec!["--database", &good, "--wait", "5"], "a time is a number with"),
    ] {
        let output = Command::new(program(false)).args(&flags).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(reason), "{flags:?}: {error}");
    }
    for flags in [
        vec!["--database", "host=x password=hunter2 frobnicate=hunter2"],
        vec!["--database", "postgresql://x:hunter2@host:hunter2/fhir"],
        vec!["--database", "host=x", "password=hunter2"],
    ] {
        let output = Command::new(program(false)).args(&flags).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains("--database") && !error.contains("hunter2"), "{error}");
    }
    let help = Command::new(program(false)).arg("--help").output().unwrap();
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("FHIR_BULK_DATABASE"));
}

#[test]
fn with_a_certificate_it_speaks_https_only() {
    let mut flags = Vec::new();
    let service = Service::with(|database| {
        flags = certificate(database, "localhost");
        flags.clone()
    });
    aidbox_rows(&mut service.connect());
    let user = format!("{}:{PASSWORD}", service.client);
    let curl = |scheme: &str| {
        let url = format!("{scheme}://{}/Patient/$dump", service.proxy.address());
        Command::new("curl").args(["-s", "--cacert", &flags[1], "-u", &user, &url]).output().unwrap()
    };
    let output = curl("https");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 3);
    assert!(!curl("http").status.success());
}

/// A service whose proxy has a user of its own, with this password.
fn with_own_user(password: &str) -> Service {
    Service::with(|database| {
        let own = crate::support::role(database, "own");
        vec!["--database".into(), target(database, &format!("user={own} password='{password}'"))]
    })
}

#[test]
fn however_many_ask_for_health_the_database_is_asked_once_a_second() {
    let service = with_own_user(PASSWORD);
    let sessions = || -> i64 {
        let query = "SELECT sessions FROM pg_stat_database WHERE datname = $1";
        let mut client = service.database.cluster().connect("postgres", "postgres");
        client.query_one(query, &[&service.database.name()]).unwrap().get(0)
    };
    let before = sessions();
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(service.proxy.send(&Request::get("/health")).status, 200);
                }
            });
        }
    });
    let most = 2 + start.elapsed().as_secs() as i64;
    // The server counts a session a moment after it began.
    thread::sleep(Duration::from_millis(1500));
    let opened = sessions() - before;
    assert!((1..=most).contains(&opened), "{opened} sessions");
}

#[test]
fn health_says_in_its_own_words_what_is_wrong() {
    let status = |service: &Service| {
        let health = service.proxy.send(&Request::get("/health"));
        (health.status, health.json()["status"].as_str().unwrap_or_default().to_owned())
    };
    let service = with_own_user(PASSWORD);
    service.database.connect().batch_execute("DROP EXTENSION fhir_bulk CASCADE").unwrap();
    assert_eq!(status(&service), (503, "the database has no extension fhir_bulk".to_owned()));
    service.database.connect().batch_execute("CREATE EXTENSION fhir_bulk").unwrap();
    wait_for("health to be good", || status(&service) == (200, "ok".to_owned()));
    assert_eq!(status(&with_own_user("wrong")), (503, "the user of --database cannot log in".to_owned()));
    let gone = Service::with(|_| ["--database", "host=127.0.0.1 port=1 dbname=gone"].map(str::to_owned).to_vec());
    assert_eq!(status(&gone), (503, "the database cannot be reached".to_owned()));
}
