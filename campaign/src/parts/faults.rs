//! System calls that fail, by a library that is preloaded into a server (`faults.c`), and memory that cannot be had, by a limit.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use fhir_bulk_tests::kills::Random;
use fhir_bulk_tests::support::{count, rows, run, value};
use fhir_bulk_tests::{Client, memory};
use serde_json::{Value, json};

use crate::patients::{self, Model};
use crate::place::{Place, text_of};
use crate::preload;
use crate::run::{Part, Run};

pub const PART: Part = Part {
    name: "faults",
    what: "opens, reads, writes, syncs and new threads of a backend or a worker fail at random (disk full, I/O error, a part of \
           the bytes, no descriptor), or a backend's address space ends at a random allocation, during loads, dumps, sorts, \
           imports and exports: no process crashes, a statement has done all or nothing and says why, a job ends, nothing of a \
           failed export is left",
    unit: "statements",
    run: try_all,
};

const IDS: usize = 8000;
/// Statements and jobs end by then, whatever fails.
const WITHIN: Duration = Duration::from_secs(60);

// As faults.c has them.
const OPEN: u32 = 1;
const WRITE: u32 = 2;
const READ: u32 = 4;
const SYNC: u32 = 8;
const THREAD: u32 = 16;
const TEMPORARY: u32 = 1;
const RELATION: u32 = 2;
const EXPORT: u32 = 4;
const SOURCE: u32 = 8;

const ENOSPC: u32 = 28;
const EIO: u32 = 5;
const EMFILE: u32 = 24;
/// About half of the bytes.
const PART_OF_IT: u32 = 0;

/// What fails, how, and where.
#[derive(Debug)]
struct Fault {
    calls: u32,
    places: u32,
    error: u32,
    /// Of 65,536 calls.
    rate: u32,
    /// How much more address space the backend may have.
    memory: Option<u64>,
}

impl Fault {
    fn new(random: &mut Random) -> Fault {
        let (calls, places, error) = *random.one_of(&[
            (WRITE, TEMPORARY, ENOSPC),
            (WRITE, RELATION, ENOSPC),
            (WRITE, RELATION, PART_OF_IT),
            (WRITE, EXPORT, ENOSPC),
            (WRITE, EXPORT, EIO),
            (WRITE, EXPORT | TEMPORARY, PART_OF_IT),
            (READ, SOURCE, EIO),
            (READ, SOURCE, PART_OF_IT),
            (READ, RELATION, EIO),
            (READ | WRITE, TEMPORARY, EIO),
            (SYNC, EXPORT, EIO),
            (OPEN, EXPORT | SOURCE | TEMPORARY, EMFILE),
            (OPEN, EXPORT, ENOSPC),
            (OPEN, SOURCE, EIO),
            (THREAD, 0, 0),
            (0, 0, 0),
            (0, 0, 0),
            (0, 0, 0),
        ]);
        let most = 1 << random.below(26);
        let memory = (calls == 0).then(|| random.below(most));
        Fault { calls, places, error, rate: 1 << (6 + random.below(11)), memory }
    }
}

/// The file that the preloaded library looks at.
struct Control(File);

impl Control {
    fn set(&self, fault: Option<&Fault>) {
        let words = fault.map_or([0; 4], |fault| [fault.calls, fault.places, fault.rate, fault.error]);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.0.write_all_at(&bytes, 0).expect("the control file takes it");
    }

    fn done(&self) -> u32 {
        let mut bytes = [0; 4];
        self.0.read_exact_at(&mut bytes, 16).expect("the control file has it");
        u32::from_ne_bytes(bytes)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Load,
    Copy,
    Dump,
    Sort,
    Parquet,
    Import,
    Export,
    ByPatient,
}

const KINDS: [Kind; 8] =
    [Kind::Load, Kind::Copy, Kind::Dump, Kind::Sort, Kind::Parquet, Kind::Import, Kind::Export, Kind::ByPatient];

fn try_all(run: &mut Run) {
    let (before, control) = preload::compile("faults");
    let place = Place::after(&before, &["work_mem = '64kB'", "shared_buffers = '16MB'", "jit = off"]);
    let control = Control(control);
    let mut watcher = place.connect();
    let mut model = Model::default();
    let mut failed = 0;
    while run.goes_on() {
        let (kind, fault) = (*run.random.one_of(&KINDS), Fault::new(&mut run.random));
        // Their workers are processes of their own, which the limit of a session does not reach.
        let kind = if fault.memory.is_some() && kind.is_job() { Kind::Load } else { kind };
        let (first, mark) = (run.random.below(IDS as u64 / 2) as usize, run.so_far() + 1);
        let ids = first..first + 1 + run.random.below(IDS as u64 / 2) as usize;
        let url = place.database.file("Patient.ndjson", patients::lines(ids.clone(), mark));
        let done = control.done();
        let mut client = place.connect();
        let start = Instant::now();
        let mut result = match kind {
            Kind::Import => import(&mut client, &control, &fault, &url, mark),
            Kind::Export | Kind::ByPatient => export(&mut client, &control, &fault, kind),
            _ => statement(&mut client, &control, &fault, &sql(kind, &url)),
        };
        let took = start.elapsed();
        run.tried(1);
        let injected = control.done() - done;
        failed += u64::from(result.is_err());
        let crashed = watcher.simple_query("SELECT 1").is_err();
        if crashed {
            watcher = place.when_up();
        }
        if kind.is_export() {
            result = result.and(check_files(&place, &mut watcher, kind));
        }
        let say = |what: &str| format!("{kind:?} with {fault:?}, {injected} failed, {result:?}: {what}");
        run.check(took < WITHIN, || say(&format!("it took {took:?}")));
        run.check(!crashed, || say("a process crashed, and the server restarted"));
        if let (Err(error), false) = (&result, crashed) {
            let says_why = ["53100", "53200", "53000", "58030", "58P01", "53400", "XX001", "job: "];
            let has_one = injected > 0 || fault.memory.is_some();
            // PostgreSQL's own word for it.
            let of_postgres = error.contains("could not create temporary file");
            run.check(has_one && (of_postgres || says_why.iter().any(|state| error.starts_with(state))), || {
                say("an error that does not say why")
            });
        }
        check_table(run, &place, &mut watcher, &mut model, (kind, ids, mark), &result, &say);
        let left = place.left_over(&mut watcher);
        run.check(left.is_empty(), || say(&format!("left over: {left:?}")));
    }
    run.note(format!("{} calls failed, and with them or for memory {failed} statements and jobs", control.done()));
    place.end();
}

impl Kind {
    fn is_job(self) -> bool {
        self == Kind::Import || self.is_export()
    }

    fn is_export(self) -> bool {
        matches!(self, Kind::Export | Kind::ByPatient)
    }
}

fn sql(kind: Kind, url: &str) -> String {
    let path = url.trim_start_matches("file://");
    let view = r#"{"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"}]}]}"#;
    match kind {
        Kind::Load => format!("SELECT bulk_load('{url}', 'Patient', options => '{{\"update\": true}}')"),
        Kind::Copy => format!("COPY patient FROM '{path}' (FORMAT fhir, UPDATE_HISTORY)"),
        Kind::Dump => "SELECT count(*) FROM bulk_dump_chunks('Patient', gzip => true)".to_owned(),
        Kind::Sort => {
            "SELECT count(*) FROM dump_sql('SELECT resource FROM patient ORDER BY resource', 'ndjson')".to_owned()
        }
        _ => format!("SELECT count(*) FROM dump_view_chunks('{view}', 'parquet')"),
    }
}

/// Waits for a job while calls fail, then for what it does without. Its last status.
fn ended(client: &mut Client, control: &Control, status: &str, is_over: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let start = Instant::now();
    // A job that hangs is found by its time.
    while !is_over(&last) && start.elapsed() < WITHIN {
        // A worker that could not even start is started again by who asks.
        if start.elapsed() > Duration::from_secs(2) {
            control.set(None);
        }
        std::thread::sleep(Duration::from_millis(20));
        let Ok(messages) = client.simple_query(status) else { continue };
        let text = messages.iter().find_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        last = text.map_or(Value::Null, |text| serde_json::from_str(text).expect("JSON"));
    }
    control.set(None);
    last
}

/// Runs a statement while calls fail, or its session has little memory.
fn statement(client: &mut Client, control: &Control, fault: &Fault, sql: &str) -> Result<(), String> {
    match fault.memory {
        Some(more) => memory::limit(count(client, "SELECT pg_backend_pid()"), more),
        None => control.set(Some(fault)),
    }
    let result = client.simple_query(sql).map(|_| ()).map_err(|error| text_of(&error));
    control.set(None);
    result
}

fn import(client: &mut Client, control: &Control, fault: &Fault, url: &str, mark: u64) -> Result<(), String> {
    let id = format!("import-{mark}");
    let request = json!({"id": id, "update": true, "mode": "transaction", "allowedRetryCount": 0,
        "inputs": [{"resourceType": "Patient", "url": url}]});
    run(client, &format!("SELECT bulk_import('{request}')"));
    control.set(Some(fault));
    let status = format!("SELECT bulk_import_status('{id}')");
    let last = ended(client, control, &status, |status| !status.is_null() && status["status"] != "active");
    if last["inputs"][0]["status"] == "finished" { Ok(()) } else { Err(format!("job: {last}")) }
}

fn export(client: &mut Client, control: &Control, fault: &Fault, kind: Kind) -> Result<(), String> {
    let request = match kind {
        Kind::ByPatient => r#"{"_type": ["Patient"], "level": "patient", "organizeOutputBy": "Patient"}"#,
        _ => r#"{"_type": ["Patient"]}"#,
    };
    let id = value(client, &format!("SELECT bulk_export('{request}')"));
    control.set(Some(fault));
    let status = format!("SELECT bulk_export_status('{id}')");
    let last = ended(client, control, &status, |status| {
        !status.is_null() && !matches!(status["status"].as_str(), Some("pending" | "processing"))
    });
    if last["status"] == "completed" { Ok(()) } else { Err(format!("job: {last}")) }
}

/// The files of a whole export have all patients; of a failed one there are none. They are removed.
fn check_files(place: &Place, client: &mut Client, kind: Kind) -> Result<(), String> {
    let job = rows(
        client,
        "SELECT id, bulk_export_status(id)::text FROM bulk_jobs WHERE kind = 'export' ORDER BY created_at DESC LIMIT 1",
    );
    let mut result = Ok(());
    for job in job {
        let (id, status) = job.split_once('|').expect("two columns");
        let status: Value = serde_json::from_str(status).expect("JSON");
        let lines: u64 =
            status["output"].as_array().into_iter().flatten().filter_map(|file| file["count"].as_u64()).sum();
        let there = count(client, "SELECT count(*) FROM patient") as u64;
        if status["status"] == "completed" && kind == Kind::Export && lines != there {
            result = Err(format!("an export of {lines} lines of {there}"));
        }
        if status["status"] != "completed" && !gone(place) {
            result = Err(format!("files of a failed export are left: {status}"));
        }
        run(client, &format!("SELECT bulk_export_cancel('{id}')"));
    }
    if gone(place) { result } else { Err("files of an export that was deleted are left".to_owned()) }
}

/// Whether no file of an export is left, soon.
fn gone(place: &Place) -> bool {
    let start = Instant::now();
    while place.exported() > 0 && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    place.exported() == 0
}

/// The table has all or nothing of a statement, and is sound.
fn check_table(
    run: &mut Run,
    place: &Place,
    watcher: &mut Client,
    model: &mut Model,
    (kind, ids, mark): (Kind, std::ops::Range<usize>, u64),
    result: &Result<(), String>,
    say: &dyn Fn(&str) -> String,
) {
    let mut after = model.clone();
    if matches!(kind, Kind::Load | Kind::Copy | Kind::Import) {
        after.write(ids, mark);
    }
    let found = patients::stored(watcher);
    let expected = if result.is_ok() { after.digest() } else { model.digest() };
    run.check(found == expected, || say(&format!("{found} instead of {expected}")));
    if found == after.digest() {
        *model = after;
    }
    if run.so_far().is_multiple_of(25) {
        let wrong = place.unsound(watcher, &["patient", "patient_history"]);
        run.check(wrong.is_empty(), || say(&format!("amcheck: {wrong:?}")));
        rows(watcher, "TRUNCATE patient_history");
        model.history = 0;
    }
}
