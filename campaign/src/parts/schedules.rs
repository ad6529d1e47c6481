//! Many sessions at once, in random schedules, against a model that knows what must be true.
//!
//! Each write has a mark of its own, and keeps what it replaces in the history. So, whatever ran beside it: of a write that
//! was committed, each id is there once with its mark, live or in the history; of one that was not, none is.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use fhir_bulk_tests::kills::Random;
use fhir_bulk_tests::support::{rows, run, value};
use fhir_bulk_tests::{Client, SetAtEnd, wait_for};
use serde_json::{Value, json};

use crate::patients;
use crate::place::Place;
use crate::run::{Part, Run};

pub const PART: Part = Part {
    name: "schedules",
    what: "sessions load, COPY, import, dump and export at once, in transactions, savepoints, two-phase commits and all isolation \
           levels, while indexes, columns, triggers, policies and rights come and go, tables are vacuumed and rewritten, and a \
           subscriber follows: every version of every id is there once, reads see one snapshot, the subscriber has the same",
    unit: "operations",
    run: try_all,
};

/// Sessions that write and read; one more changes tables.
const SESSIONS: usize = 6;
/// Operations of each between two looks at everything.
const A_ROUND: u64 = 150;
/// So few ids that sessions meet.
const IDS: u64 = 300;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    Undone,
}

/// A write: its mark, its ids, whether it is there, and what wrote it.
type Written = (u64, Vec<usize>, Fate, &'static str);

fn try_all(run: &mut Run) {
    let place = Place::new(&[
        "wal_level = logical",
        "max_prepared_transactions = 20",
        "deadlock_timeout = 50ms",
        "max_locks_per_transaction = 128",
    ]);
    let mut client = place.connect();
    let subscriber = subscribe(&place, &mut client);
    let mark = AtomicU64::new(1);
    let mut refused: HashMap<String, u64> = HashMap::new();
    while run.goes_on() {
        let seeds: Vec<u64> = (0..=SESSIONS).map(|_| run.random.below(1 << 31)).collect();
        let over = AtomicBool::new(false);
        let (writes, wrong) = thread::scope(|scope| {
            let (place, mark, over, seeds) = (&place, &mark, &over, &seeds);
            let changer = scope.spawn(move || change_tables(place, &mut Random::new(seeds[SESSIONS]), over));
            let end = SetAtEnd(over);
            let sessions: Vec<_> =
                (0..SESSIONS).map(|at| scope.spawn(move || Session::new(place, at, seeds[at], mark).work())).collect();
            let mut writes = Vec::new();
            let mut wrong = Vec::new();
            for session in sessions {
                let done = session.join().expect("a session ends");
                writes.extend(done.writes);
                wrong.extend(done.wrong);
                for state in done.refused {
                    *refused.entry(state).or_default() += 1;
                }
            }
            drop(end);
            wrong.extend(changer.join().expect("the changes end"));
            (writes, wrong)
        });
        run.tried(A_ROUND * SESSIONS as u64);
        wrong.into_iter().for_each(|what| run.found(what));
        look(run, &place, &mut client, &subscriber, &writes);
    }
    let mut refused: Vec<String> = refused.into_iter().map(|(state, count)| format!("{count} × {state}")).collect();
    refused.sort();
    run.note(format!("PostgreSQL ended some of them: {}", refused.join(", ")));
    place.end();
}

/// A second database, which follows the first one's table.
fn subscribe(place: &Place, client: &mut Client) -> String {
    run(
        client,
        "CREATE PUBLICATION all_patients FOR TABLE patient (id, txid, ts, cts, resource_type, status, resource);
         CREATE ROLE clerk LOGIN; GRANT ALL ON patient, patient_history TO clerk; GRANT USAGE ON SEQUENCE transaction_id_seq TO clerk;
         GRANT EXECUTE ON FUNCTION bulk_load TO clerk; GRANT pg_read_server_files TO clerk;
         CREATE POLICY anybody ON patient USING (true)",
    );
    rows(client, "SELECT pg_create_logical_replication_slot('follower', 'pgoutput')");
    let cluster = place.database.cluster();
    let follower = cluster.database("follower");
    let mut there = follower.connect();
    let source = cluster.dsn("postgres", place.database.name());
    run(&mut there, "SELECT bulk_create_table('Patient'); ALTER TABLE patient REPLICA IDENTITY DEFAULT");
    run(
        &mut there,
        &format!(
            "CREATE SUBSCRIPTION follower CONNECTION '{source}' PUBLICATION all_patients
             WITH (create_slot = false, slot_name = 'follower', copy_data = false)"
        ),
    );
    follower.name().to_owned()
}

/// Everything must be as the writes say.
fn look(run: &mut Run, place: &Place, client: &mut Client, subscriber: &str, writes: &[Written]) {
    let mut expected: HashMap<(u64, usize), bool> = HashMap::new();
    for (mark, ids, fate, _) in writes {
        expected.extend(ids.iter().map(|id| ((*mark, *id), *fate == Fate::Committed)));
    }
    let versions = rows(
        client,
        "SELECT (resource #>> '{name,0,family}')::bigint, substring(id FROM 3)::bigint, count(*) FROM
             (SELECT id, resource FROM patient UNION ALL SELECT id, resource FROM patient_history) v GROUP BY 1, 2",
    );
    let mut there = HashSet::new();
    for version in versions {
        let numbers: Vec<u64> = version.split('|').map(|number| number.parse().expect("a number")).collect();
        let [mark, id, times] = numbers[..] else { panic!("three columns") };
        there.insert((mark, id as usize));
        let known = expected.get(&(mark, id as usize));
        run.check(known == Some(&true) && times == 1, || {
            format!("p-{id} of write {mark} is there {times} times, expected: {known:?}")
        });
    }
    for (mark, ids, fate, what) in writes {
        let lost: Vec<usize> = ids.iter().copied().filter(|id| !there.contains(&(*mark, *id))).collect();
        run.check(*fate == Fate::Undone || lost.is_empty(), || {
            format!("{what} was committed as write {mark} of {} ids, but {lost:?} are not there", ids.len())
        });
    }
    let wrong = place.unsound(client, &["patient", "patient_history"]);
    run.check(wrong.is_empty(), || format!("amcheck: {wrong:?}"));
    let left = place.left_over(client);
    run.check(left.is_empty(), || format!("left over: {left:?}"));
    let contents =
        "SELECT count(*), coalesce(sum(hashtextextended(id || resource::text || txid || status, 0)), 0) FROM patient";
    let mut there = place.database.cluster().connect("postgres", subscriber);
    let (mut here, mut of_it) = (value(client, contents), String::new());
    wait_for("the subscriber to have the same", || {
        (here, of_it) = (value(client, contents), value(&mut there, contents));
        here == of_it
    });
    // Else what one round wrote would be history in the next.
    fhir_bulk_tests::support::run(client, "TRUNCATE patient_history, patient");
}

/// What a session did in a round.
#[derive(Default)]
struct Done {
    writes: Vec<Written>,
    wrong: Vec<String>,
    refused: Vec<String>,
}

/// A session of its own.
struct Session<'a> {
    place: &'a Place,
    at: usize,
    random: Random,
    mark: &'a AtomicU64,
    client: Client,
    clerk: Client,
    done: Done,
}

/// Errors with which PostgreSQL itself ends what meets something else; the last one is a right that was taken away.
const MAY_END_WITH: [&str; 5] = ["40001", "40P01", "55P03", "57014", "42501"];

impl<'a> Session<'a> {
    fn new(place: &'a Place, at: usize, seed: u64, mark: &'a AtomicU64) -> Session<'a> {
        let client = place.connect();
        let clerk = place.database.connect_as("clerk");
        Session { place, at, random: Random::new(seed), mark, client, clerk, done: Done::default() }
    }

    fn work(mut self) -> Done {
        for _ in 0..A_ROUND {
            let isolation =
                *self.random.one_of(&["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]);
            run(
                &mut self.client,
                &format!("SET default_transaction_isolation = '{isolation}'; SET statement_timeout = '20s'"),
            );
            match self.random.below(12) {
                0 | 1 => self.load(),
                2 => self.copy(),
                3 | 4 => self.transaction(),
                5 => self.savepoint(),
                6 => self.two_phases(),
                7 => self.as_clerk(),
                8 => self.import(),
                9 => self.export(),
                _ => self.read(),
            }
        }
        self.done
    }

    /// The lines of a new write, and their file.
    fn lines(&mut self) -> (u64, Vec<usize>, String) {
        let mark = self.mark.fetch_add(1, Ordering::Relaxed);
        let mut ids: Vec<usize> = (0..1 + self.random.below(12)).map(|_| self.random.below(IDS) as usize).collect();
        let mut seen = HashSet::new();
        ids.retain(|id| seen.insert(*id));
        let mut lines = String::new();
        ids.iter().for_each(|id| patients::line(&mut lines, *id, mark));
        let url = self.place.database.file(&format!("{}-{}.Patient.ndjson", self.at, mark), lines);
        (mark, ids, url)
    }

    fn load_sql(url: &str) -> String {
        format!("SELECT bulk_load('{url}', 'Patient', options => '{{\"update\": true}}')")
    }

    /// The end of a write, and of its file.
    fn note(&mut self, write: (u64, Vec<usize>, String), committed: Result<bool, postgres::Error>, what: &'static str) {
        let (mark, ids, url) = write;
        let _ = std::fs::remove_file(url.trim_start_matches("file://"));
        let fate = match committed {
            Ok(true) => Fate::Committed,
            Ok(false) => Fate::Undone,
            Err(error) => {
                self.refused(&error, what);
                Fate::Undone
            }
        };
        self.done.writes.push((mark, ids, fate, what));
    }

    fn refused(&mut self, error: &postgres::Error, what: &str) {
        let state = error.code().map_or("none", |code| code.code()).to_owned();
        if !MAY_END_WITH.contains(&state.as_str()) {
            self.done.wrong.push(format!("{what}: {error:?}"));
        }
        self.done.refused.push(state);
    }

    fn load(&mut self) {
        let write = self.lines();
        let result = self.client.simple_query(&Self::load_sql(&write.2)).map(|_| true);
        self.note(write, result, "a load");
    }

    fn copy(&mut self) {
        let write = self.lines();
        let text = std::fs::read(write.2.trim_start_matches("file://")).expect("a file of ours");
        // The driver takes the end of the statement for the end of all: what fails in the commit would not be heard of.
        let copied = self.client.simple_query("BEGIN").and_then(|_| {
            let mut copy = self.client.copy_in("COPY patient FROM STDIN (FORMAT fhir, UPDATE_HISTORY)")?;
            // What the server says when it ends it comes at the end.
            let _ = copy.write_all(&text);
            copy.finish()
        });
        let end = if copied.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = self.client.simple_query(end);
        self.note(write, copied.and(ended).map(|_| true), "a COPY");
    }

    /// Several loads, and their end as a whole.
    fn transaction(&mut self) {
        let writes: Vec<_> = (0..1 + self.random.below(3)).map(|_| self.lines()).collect();
        let commits = self.random.below(3) > 0;
        let loads: Vec<String> = writes.iter().map(|write| Self::load_sql(&write.2)).collect();
        let end = if commits { "COMMIT" } else { "ROLLBACK" };
        let result = self.all_of(&format!("BEGIN; {}; {end}", loads.join("; "))).map(|()| commits);
        let committed = *result.as_ref().unwrap_or(&false);
        if let Err(error) = &result {
            self.refused(error, "a transaction");
        }
        for write in writes {
            self.note(write, Ok(committed), "a transaction");
        }
    }

    /// Statements of one transaction, which is rolled back if one of them fails.
    fn all_of(&mut self, sql: &str) -> Result<(), postgres::Error> {
        let result = self.client.simple_query(sql).map(|_| ());
        if result.is_err() {
            run(&mut self.client, "ROLLBACK");
        }
        result
    }

    /// A load that is undone within a transaction, and one that is not.
    fn savepoint(&mut self) {
        let (undone, kept) = (self.lines(), self.lines());
        let sql = format!(
            "BEGIN; SAVEPOINT here; {}; ROLLBACK TO here; {}; COMMIT",
            Self::load_sql(&undone.2),
            Self::load_sql(&kept.2)
        );
        let result = self.all_of(&sql).map(|()| true);
        self.note(undone, Ok(false), "a savepoint");
        self.note(kept, result, "a savepoint");
    }

    fn two_phases(&mut self) {
        let write = self.lines();
        let (name, commits) = (format!("x{}", write.0), self.random.below(3) > 0);
        let prepared = self.all_of(&format!("BEGIN; {}; PREPARE TRANSACTION '{name}'", Self::load_sql(&write.2)));
        let result = prepared.map(|()| {
            self.random.sleep(std::time::Duration::from_millis(5));
            let end = if commits { "COMMIT" } else { "ROLLBACK" };
            run(&mut self.client, &format!("{end} PREPARED '{name}'"));
            commits
        });
        self.note(write, result, "a prepared transaction");
    }

    /// By a role whose rights come and go.
    fn as_clerk(&mut self) {
        let write = self.lines();
        let result = self.clerk.simple_query(&Self::load_sql(&write.2)).map(|_| true);
        self.note(write, result, "a load by an ordinary role");
    }

    fn import(&mut self) {
        let write = self.lines();
        let request = json!({"id": format!("import-{}", write.0), "update": true, "mode": "transaction", "allowedRetryCount": 20,
            "inputs": [{"resourceType": "Patient", "url": write.2}]});
        let started = self.client.simple_query(&format!("SELECT bulk_import('{request}')"));
        let id = format!("import-{}", write.0);
        let result = started.map(|_| {
            let mut last = Value::Null;
            // An import that meets others begins again; it may still fail when it has done so often enough.
            wait_for("an import to end", || {
                let status = self.client.simple_query(&format!("SELECT bulk_import_status('{id}')"));
                let Ok(messages) = status else { return false };
                let text = messages.iter().find_map(|message| match message {
                    postgres::SimpleQueryMessage::Row(row) => row.get(0),
                    _ => None,
                });
                last = serde_json::from_str(text.expect("a row")).expect("JSON");
                last["status"] != "active"
            });
            last["inputs"][0]["status"] == "finished"
        });
        self.note(write, result, "an import");
    }

    /// Everything that an export has is a version that somebody wrote, and each id is there once.
    fn export(&mut self) {
        let request = json!({"resourceTypes": ["Patient"]}).to_string();
        let request = if self.random.below(2) == 0 { request } else { r#"{"_type": ["Patient"]}"#.to_owned() };
        let id = match self.client.query_one(&format!("SELECT bulk_export('{request}')"), &[]) {
            Ok(row) => row.get::<_, String>(0),
            Err(error) => return self.refused(&error, "an export"),
        };
        let mut last = Value::Null;
        wait_for("an export to end", || {
            let row = self.client.query_one(&format!("SELECT bulk_export_status('{id}')::text"), &[]);
            let Ok(row) = row else { return false };
            last = serde_json::from_str(&row.get::<_, String>(0)).expect("JSON");
            !matches!(last["status"].as_str(), Some("pending" | "processing"))
        });
        if last["status"] != "completed" {
            let text = last.to_string();
            if !MAY_END_WITH.iter().any(|state| text.contains(state)) && !text.contains("deadlock") {
                self.done.wrong.push(format!("an export: {last}"));
            }
            return;
        }
        let mut ids = Vec::new();
        for file in last["output"].as_array().into_iter().flatten() {
            let url = file["url"].as_str().expect("a URL");
            let parts = self.client.query("SELECT bulk_export_file($1)", &[&url]).expect("a file");
            let bytes: Vec<u8> = parts.iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect();
            let bytes = if bytes.starts_with(b"\x1F\x8B") { fhir_bulk_tests::gunzip(&bytes) } else { bytes };
            for line in String::from_utf8(bytes).expect("text").lines() {
                let resource: Value = serde_json::from_str(line).expect("a line is JSON");
                ids.push(resource["id"].as_str().expect("an id").to_owned());
            }
        }
        let all = ids.len();
        ids.sort();
        ids.dedup();
        if ids.len() != all {
            self.done.wrong.push(format!("an export has {all} lines of {} ids", ids.len()));
        }
        let _ = self.client.simple_query(&format!("SELECT bulk_export_cancel('{id}')"));
    }

    /// A dump sees what a SELECT of the same snapshot sees.
    fn read(&mut self) {
        let begun = self.client.simple_query("BEGIN ISOLATION LEVEL REPEATABLE READ");
        let found = begun.and_then(|_| {
            let dump = match self.random.below(3) {
                0 => "SELECT line::jsonb #>> '{name,0,family}' || (line::jsonb ->> 'id') FROM bulk_dump('Patient') line ORDER BY 1",
                1 => "SELECT line::jsonb ->> 'x' FROM dump_sql('SELECT (resource #>> ''{name,0,family}'') || id AS x FROM patient', 'ndjson') line ORDER BY 1",
                _ => "SELECT trim(line, E'\\r\\n') FROM dump_view('{\"resource\": \"Patient\", \"select\": [{\"column\": [{\"name\": \"x\", \"path\": \"name.first().family + id\"}]}]}') line ORDER BY 1",
            };
            let select = "SELECT (resource #>> '{name,0,family}') || id FROM patient ORDER BY 1";
            let text = |client: &mut Client, sql: &str| {
                client.query(sql, &[]).map(|rows| rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>())
            };
            Ok((dump, text(&mut self.client, dump)?, text(&mut self.client, select)?))
        });
        run(&mut self.client, "ROLLBACK");
        match found {
            Ok((_, dumped, selected)) if dumped == selected => {}
            Ok((dump, dumped, selected)) => {
                self.done.wrong.push(format!("{dump}: {} and {} rows", dumped.len(), selected.len()))
            }
            Err(error) => self.refused(&error, "a read"),
        }
    }
}

/// What comes, what goes, and what rewrites tables.
const CHANGES: [&str; 19] = [
    "CREATE INDEX IF NOT EXISTS by_family ON patient ((resource #>> '{name,0,family}'))",
    "DROP INDEX IF EXISTS by_family",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_paths ON patient USING gin (resource jsonb_path_ops)",
    "DROP INDEX CONCURRENTLY IF EXISTS by_paths",
    "ALTER TABLE patient ADD COLUMN IF NOT EXISTS more int DEFAULT 7",
    "ALTER TABLE patient DROP COLUMN IF EXISTS more",
    "CREATE OR REPLACE TRIGGER watch BEFORE UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "DROP TRIGGER IF EXISTS watch ON patient",
    "ALTER TABLE patient ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE patient DISABLE ROW LEVEL SECURITY",
    "REVOKE INSERT ON patient FROM clerk",
    "GRANT INSERT ON patient TO clerk",
    "VACUUM patient",
    "VACUUM FULL patient",
    "VACUUM (FREEZE) patient_history",
    "REINDEX TABLE patient",
    "ANALYZE patient",
    "CHECKPOINT",
    "SELECT pg_stat_reset()",
];

/// Changes tables until the round is over.
fn change_tables(place: &Place, random: &mut Random, over: &AtomicBool) -> Vec<String> {
    let mut client = place.connect();
    let mut wrong = Vec::new();
    run(&mut client, "SET lock_timeout = '2s'");
    while !over.load(Ordering::Relaxed) {
        let change = *random.one_of(&CHANGES);
        if let Err(error) = client.simple_query(change) {
            let state = error.code().map_or("", |code| code.code()).to_owned();
            // An index that was not finished is there, and not valid.
            if !["40P01", "55P03", "57014", "42P07"].contains(&state.as_str()) {
                wrong.push(format!("{change}: {error:?}"));
            }
        }
        random.sleep(std::time::Duration::from_millis(30));
    }
    wrong
}
