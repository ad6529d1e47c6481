//! Rights of jobs as a matrix: what a worker does for a role is what PostgreSQL's own statement does for it.

use fhir_bulk_tests::support::{run, value};
use fhir_bulk_tests::{Client, gunzip, wait_for};
use serde_json::{Value, json};

use super::cell::{Cell, Operation, ROLES, TABLES, prepare};
use crate::place::Place;
use crate::run::{Part, Run};

pub const PART: Part = Part {
    name: "job_rights",
    what: "random cells of the matrix of roles, tables and grants, by jobs: an import and an export, which a worker runs, are \
           allowed, and see and write the same rows, exactly where a plain INSERT or SELECT of that role is; no other role sees \
           the job, reads its status or ends it",
    unit: "jobs",
    run: try_all,
};

const OPERATIONS: [Operation; 5] =
    [Operation::LoadNew, Operation::LoadKnown, Operation::LoadUpdate, Operation::Dump, Operation::DumpSince];

fn try_all(run: &mut Run) {
    let place = Place::new(&[]);
    let mut client = place.connect();
    let (new, known) = prepare(&place, &mut client);
    fhir_bulk_tests::support::run(
        &mut client,
        "GRANT EXECUTE ON FUNCTION bulk_import_cancel, bulk_export_cancel TO PUBLIC; RESET ALL",
    );
    for table in TABLES {
        let keep = format!("CREATE TABLE {table}.saved AS SELECT * FROM {table}.patient");
        fhir_bulk_tests::support::run(&mut client, &keep);
    }
    let mut allowed = 0;
    while run.goes_on() {
        // Most of what there is, or nothing would ever be allowed.
        let cell = Cell::of(&OPERATIONS, |choices| match choices {
            2 => usize::from(run.random.below(8) > 0),
            _ => run.random.below(choices as u64) as usize,
        });
        run.tried(1);
        let url = if cell.operation == Operation::LoadNew { &new } else { &known };
        let job = Job { cell: &cell, number: run.so_far() };
        match job.look(&mut client, url) {
            Ok(both) => allowed += u64::from(both),
            Err(what) => run.found(format!("{cell:?}: {what}")),
        }
    }
    run.note(format!("{allowed} of them were allowed"));
    place.end();
}

/// A cell, done by a job.
struct Job<'a> {
    cell: &'a Cell,
    number: u64,
}

impl Job<'_> {
    /// Whether both were allowed; that they differ is an error.
    fn look(&self, client: &mut Client, url: &str) -> Result<bool, String> {
        let cell = self.cell;
        run(client, &format!("BEGIN; {}; SAVEPOINT here", cell.grants()));
        let plain = cell.outcome(client, &cell.plain());
        let may_call = self.may_call(client);
        // A worker sees what is committed.
        run(client, &format!("COMMIT; SET fhir_bulk.data_schema = '{}'", cell.table));
        let before = cell.stored(client);
        let ours = self.outcome(client, url);
        let after = cell.stored(client);
        run(client, &cell.revokes());
        if !cell.reads() {
            let restore = "TRUNCATE {0}.patient, {0}.patient_history; INSERT INTO {0}.patient SELECT * FROM {0}.saved";
            run(client, &restore.replace("{0}", cell.table));
        }
        let ours = ours?;
        match (&ours, &plain) {
            (Ok(_), Ok(_)) if !may_call => return Err("done, though the role may not call it".to_owned()),
            (Ok(ours), Ok(plain)) if ours == plain => return Ok(true),
            (Err(_), _) if before != after => return Err(format!("{ours:?}, and {before} is {after}")),
            (Err(_), Ok(_)) if !may_call => {}
            (Err(_), Err(state)) if state == "42501" => {}
            _ => return Err(format!("{ours:?}, but PostgreSQL's own {plain:?}, may call {may_call}")),
        }
        match &ours {
            Err(why) if !["42501", "permission denied", "row-level security"].iter().any(|word| why.contains(word)) => {
                Err(format!("refused without the reason: {why}"))
            }
            _ => Ok(false),
        }
    }

    /// What the plain statement does not need: a function and a file.
    fn may_call(&self, client: &mut Client) -> bool {
        let role = self.cell.actor();
        let needed = if self.cell.reads() {
            format!("has_function_privilege('{role}', 'bulk_export(jsonb)', 'EXECUTE')")
        } else {
            format!(
                "has_function_privilege('{role}', 'bulk_import(jsonb, boolean)', 'EXECUTE')
                     AND pg_has_role('{role}', 'pg_read_server_files', 'USAGE')"
            )
        };
        value(client, &format!("SELECT {needed}")) == "t"
    }

    fn name(&self) -> &'static str {
        if self.cell.reads() { "export" } else { "import" }
    }

    /// What the job returned or made, or why it did not; what others can do with it is an error of its own.
    fn outcome(&self, client: &mut Client, url: &str) -> Result<Result<String, String>, String> {
        let cell = self.cell;
        let kind = self.name();
        let request = match cell.operation {
            Operation::Dump => json!({"_type": "Patient"}),
            Operation::DumpSince => json!({"_type": "Patient", "_since": "2000-01-01T00:00:00Z"}),
            operation => json!({"id": format!("job-{}", self.number), "update": operation == Operation::LoadUpdate,
                "mode": "transaction", "inputs": [{"resourceType": "Patient", "url": url}]}),
        };
        run(client, &format!("SET SESSION AUTHORIZATION {}", cell.role));
        let added = client.query(&cell.call(&format!("SELECT bulk_{kind}('{request}')")), &[]);
        run(client, "RESET SESSION AUTHORIZATION");
        let id: String = match added {
            Ok(rows) => rows[0].get(0),
            Err(error) => return Ok(Err(error.code().map_or("none", |code| code.code()).to_owned())),
        };
        self.check_others(client, &id)?;
        let status = self.ended(client, &id);
        self.check_others(client, &id)?;
        if kind == "import" {
            let input = &status["inputs"][0];
            return Ok(if input["status"] == "finished" { Ok(cell.stored(client)) } else { Err(input.to_string()) });
        }
        if status["status"] != "completed" {
            return Ok(Err(status.to_string()));
        }
        let mut ids = Vec::new();
        for file in status["output"].as_array().into_iter().flatten() {
            let url = file["url"].as_str().expect("a URL");
            let parts = client.query("SELECT bulk_export_file($1)", &[&url]).expect("a file");
            let bytes: Vec<u8> = parts.iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect();
            let bytes = if bytes.starts_with(b"\x1F\x8B") { gunzip(&bytes) } else { bytes };
            for line in String::from_utf8(bytes).expect("text").lines() {
                let resource: Value = serde_json::from_str(line).expect("a line is JSON");
                ids.push(resource["id"].as_str().expect("an id").to_owned());
            }
        }
        ids.sort();
        if self.as_role(client, cell.actor(), &format!("SELECT bulk_export_cancel('{id}')")) != "t" {
            return Err("the role could not delete its own export".to_owned());
        }
        Ok(Ok(ids.join(",")))
    }

    /// The status of the job when it has ended, as its role sees it.
    fn ended(&self, client: &mut Client, id: &str) -> Value {
        let mut last = Value::Null;
        wait_for("a job to end", || {
            let sql = format!("SELECT bulk_{}_status('{id}')::text", self.name());
            last = serde_json::from_str(&self.as_role(client, self.cell.actor(), &sql)).expect("JSON");
            !matches!(last["status"].as_str(), Some("active" | "pending" | "processing"))
        });
        last
    }

    /// What no other role can do.
    fn check_others(&self, client: &mut Client, id: &str) -> Result<(), String> {
        let kind = self.name();
        for role in ROLES.iter().filter(|role| **role != self.cell.actor()) {
            let status = self.as_role(client, role, &format!("SELECT bulk_{kind}_status('{id}')::text"));
            let cancelled = self.as_role(client, role, &format!("SELECT bulk_{kind}_cancel('{id}')"));
            let seen = self.as_role(client, role, &format!("SELECT count(*) FROM bulk_jobs WHERE id = '{id}'"));
            // Who sees all jobs of the server may still not touch them.
            let may_see = *role == "super";
            if status != "P0002" || cancelled != "f" || seen != if may_see { "1" } else { "0" } {
                return Err(format!("role {role}: status {status}, cancelled {cancelled}, in the view {seen}"));
            }
        }
        Ok(())
    }

    /// The only value, or the SQLSTATE, of a query of a role.
    fn as_role(&self, client: &mut Client, role: &str, sql: &str) -> String {
        run(client, &format!("SET SESSION AUTHORIZATION {role}"));
        let result = client.simple_query(sql);
        run(client, "RESET SESSION AUTHORIZATION");
        match result {
            Ok(messages) => messages
                .iter()
                .find_map(|message| match message {
                    postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                })
                .unwrap_or_default(),
            Err(error) => error.code().map_or_else(|| format!("{error:?}"), |code| code.code().to_owned()),
        }
    }
}
