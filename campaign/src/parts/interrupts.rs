//! Statements that are ended from outside, at random moments of their work.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use fhir_bulk_tests::kills::Random;
use fhir_bulk_tests::support::{count, run, value};
use fhir_bulk_tests::{Client, bin, wait_for};
use postgres::NoTls;

use crate::patients::{self, Model};
use crate::place::Place;
use crate::run::{Part, Run};

pub const PART: Part = Part {
    name: "interrupts",
    what: "statements are cancelled, terminated, timed out, or lose their client at a random moment of a load, COPY, dump or \
           query: each has done all or nothing, ends within 10 s, leaves no lock and no file, and its session goes on",
    unit: "statements",
    run: try_all,
};

/// The contract is a second; a machine that does much else gets ten.
const WITHIN: Duration = Duration::from_secs(10);
/// Ids are from this set.
const IDS: usize = 12_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Load,
    LoadUpdate,
    CopyFrom,
    Dump,
    DumpSql,
    View,
    Parquet,
    CopyTo,
}

const KINDS: [Kind; 8] =
    [Kind::Load, Kind::LoadUpdate, Kind::CopyFrom, Kind::Dump, Kind::DumpSql, Kind::View, Kind::Parquet, Kind::CopyTo];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Cancel,
    Terminate,
    StatementTimeout,
    LockTimeout,
    ClientGone,
    None,
}

const ENDS: [End; 6] =
    [End::Cancel, End::Terminate, End::StatementTimeout, End::LockTimeout, End::ClientGone, End::None];

fn try_all(run: &mut Run) {
    let place = Place::new(&["deadlock_timeout = 100ms"]);
    let mut client = place.connect();
    let mut watcher = place.connect();
    let mut model = Model::default();
    // How long each kind takes when nobody ends it.
    let mut typical = [Duration::from_millis(150); KINDS.len()];
    let mut ended = 0_u64;
    while run.goes_on() {
        let (at, end) = (run.random.below(KINDS.len() as u64) as usize, *run.random.one_of(&ENDS));
        let kind = KINDS[at];
        let mark = run.so_far() + 1;
        let attempt = Attempt::new(&place, &mut run.random, kind, end, mark, typical[at]);
        let start = Instant::now();
        let (result, late) = attempt.make(&place, &mut client, &mut watcher);
        if result.is_ok() {
            typical[at] = (typical[at] * 3 + start.elapsed()) / 4;
        }
        run.tried(1);
        ended += u64::from(result.is_err());
        let say = |what: &str| format!("{attempt:?}: {what}, after {result:?}");
        run.check(late < WITHIN, || say(&format!("it ended {late:?} after it was told to")));
        if let Err(error) = &result {
            run.check(attempt.may_fail_with(error), || say("an error that does not say so"));
        }
        // One that is terminated may hear of it late.
        if matches!(end, End::ClientGone | End::Terminate) {
            client = place.connect();
        }
        run.check(count(&mut client, "SELECT 1") == 1, || say("the session does not go on"));
        attempt.check(run, &mut model, &mut watcher, result.as_ref().err());
        if run.so_far().is_multiple_of(50) {
            let left = place.left_over(&mut watcher);
            run.check(left.is_empty(), || say(&format!("left over: {left:?}")));
            let wrong = place.unsound(&mut watcher, &["patient", "patient_history"]);
            run.check(wrong.is_empty(), || say(&format!("amcheck: {wrong:?}")));
            for sql in ["VACUUM patient", "TRUNCATE patient_history"] {
                fhir_bulk_tests::support::run(&mut watcher, sql);
            }
            model.history = 0;
        }
    }
    run.note(format!("{ended} were ended before they were done"));
    place.end();
}

/// One statement, and how it ends.
#[derive(Debug)]
struct Attempt {
    kind: Kind,
    end: End,
    ids: std::ops::Range<usize>,
    mark: u64,
    /// From the statement's begin to its end from outside.
    moment: Duration,
}

impl Attempt {
    fn new(place: &Place, random: &mut Random, kind: Kind, end: End, mark: u64, typical: Duration) -> Attempt {
        let first = random.below(IDS as u64 / 2) as usize;
        let ids = first..first + 1 + random.below(IDS as u64 / 2) as usize;
        place.database.file("Patient.ndjson", patients::lines(ids.clone(), mark));
        // Also a little after its end.
        let moment = Duration::from_micros(random.below((typical.as_micros() as u64) * 5 / 4 + 1));
        Attempt { kind, end, ids, mark, moment }
    }

    fn sql(&self, place: &Place) -> String {
        let url = format!("file://{}", place.database.path("Patient.ndjson").display());
        let view = r#"{"resource": "Patient", "select": [{"column": [{"name": "id", "path": "getResourceKey()"},
            {"name": "family", "path": "name.first().family"}]}]}"#;
        match self.kind {
            Kind::Load => format!("SELECT bulk_load('{url}', 'Patient')"),
            Kind::LoadUpdate => format!("SELECT bulk_load('{url}', 'Patient', options => '{{\"update\": true}}')"),
            Kind::CopyFrom => {
                format!("COPY patient FROM '{}' (FORMAT aidbox)", place.database.path("Patient.ndjson").display())
            }
            Kind::Dump => "SELECT count(*) FROM bulk_dump('Patient', fhir => true)".to_owned(),
            Kind::DumpSql => {
                "SELECT count(*) FROM dump_sql('SELECT id, resource FROM patient ORDER BY resource', 'ndjson')"
                    .to_owned()
            }
            Kind::View => format!("SELECT count(*) FROM dump_view('{view}')"),
            Kind::Parquet => format!("SELECT count(*) FROM dump_view_chunks('{view}', 'parquet')"),
            Kind::CopyTo => "COPY patient TO PROGRAM 'cat >/dev/null' (FORMAT fhir, GZIP)".to_owned(),
        }
    }

    fn writes(&self) -> bool {
        matches!(self.kind, Kind::Load | Kind::LoadUpdate | Kind::CopyFrom)
    }

    /// Runs the statement, and ends it. What it said, and how long after its end was asked for.
    fn make(&self, place: &Place, client: &mut Client, watcher: &mut Client) -> (Result<(), String>, Duration) {
        let sql = self.sql(place);
        let text = |error: postgres::Error| {
            error
                .as_db_error()
                .map_or_else(|| error.to_string(), |error| format!("{}: {}", error.code().code(), error.message()))
        };
        match self.end {
            End::ClientGone => return self.without_client(place, watcher, &sql),
            End::StatementTimeout => {
                run(client, &format!("SET statement_timeout = {}", self.moment.as_millis().max(1)));
                let start = Instant::now();
                let result = client.simple_query(&sql).map(|_| ()).map_err(text);
                let late = start.elapsed().saturating_sub(self.moment);
                // Which a millisecond may be too short for.
                while client.simple_query("RESET statement_timeout").is_err() {}
                return (result, if late > Duration::ZERO && late < WITHIN { Duration::ZERO } else { late });
            }
            End::LockTimeout => {
                let mut holder = place.connect();
                run(&mut holder, "BEGIN; LOCK TABLE patient IN ACCESS EXCLUSIVE MODE");
                run(client, &format!("SET lock_timeout = {}", self.moment.as_millis().max(1)));
                let start = Instant::now();
                let result = client.simple_query(&sql).map(|_| ()).map_err(text);
                let late = start.elapsed().saturating_sub(self.moment);
                drop(holder);
                run(client, "RESET lock_timeout");
                return (result, late);
            }
            End::Cancel | End::Terminate | End::None => {}
        }
        let (token, pid) = (client.cancel_token(), count(client, "SELECT pg_backend_pid()"));
        let (ended, wait) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let killer = scope.spawn(move || {
                if self.end == End::None || wait.recv_timeout(self.moment).is_ok() {
                    return None;
                }
                let asked = Instant::now();
                match self.end {
                    End::Cancel => token.cancel_query(NoTls).expect("a cancel request is taken"),
                    _ => drop(value(watcher, &format!("SELECT pg_terminate_backend({pid})"))),
                }
                Some(asked)
            });
            let result = client.simple_query(&sql).map(|_| ()).map_err(text);
            let end = Instant::now();
            drop(ended);
            let asked = killer.join().expect("the killer ends");
            // A request that comes after the statement may hit the next one: one that only waits takes it.
            if asked.is_some() && result.is_ok() {
                let _ = client.simple_query("SELECT pg_sleep(0.05)");
            }
            (result, asked.map_or(Duration::ZERO, |asked| end.saturating_duration_since(asked)))
        })
    }

    /// A client that is killed: the server must see that nobody is there.
    fn without_client(&self, place: &Place, watcher: &mut Client, sql: &str) -> (Result<(), String>, Duration) {
        let cluster = place.database.cluster();
        let mut psql = Command::new(bin("psql"))
            .args(["-X", "-q", "-d", &cluster.dsn("postgres", place.database.name()), "-c", sql])
            .env("PGAPPNAME", "gone")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("psql");
        thread::sleep(self.moment);
        let _ = psql.kill();
        let status = psql.wait().expect("psql ends");
        let start = Instant::now();
        wait_for("the session of a killed client to end", || {
            count(watcher, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gone'") == 0
        });
        (if status.success() { Ok(()) } else { Err("gone".to_owned()) }, start.elapsed())
    }

    fn may_fail_with(&self, error: &str) -> bool {
        match self.end {
            End::Cancel => error.starts_with("57014"),
            End::StatementTimeout => error.starts_with("57014") && error.contains("statement timeout"),
            End::Terminate => error.starts_with("57P01") || error.contains("closed"),
            End::LockTimeout => error.starts_with("55P03"),
            End::ClientGone => error == "gone",
            End::None => false,
        }
    }

    /// All or nothing.
    fn check(&self, run: &mut Run, model: &mut Model, watcher: &mut Client, error: Option<&String>) {
        let mut after = model.clone();
        if self.writes() {
            let before = after.history;
            after.write(self.ids.clone(), self.mark);
            if self.kind != Kind::LoadUpdate {
                after.history = before;
            }
        }
        let found = patients::stored(watcher);
        // Who lost his connection does not know.
        let unknown = matches!(self.end, End::ClientGone | End::Terminate);
        if (error.is_none() || unknown) && found == after.digest() {
            *model = after;
            return;
        }
        let holds = (error.is_some()) && found == model.digest();
        run.check(holds, || {
            format!("{self:?} after {error:?}: {found}, before {}, as a whole {}", model.digest(), after.digest())
        });
    }
}
