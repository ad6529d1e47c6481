//! Imports by the nodes of Citus (`fhir_bulk.use_nodes`): each node reads an input, and stores the resources whose shards it
//! has, straight into these. The server with the job watches, and does nothing else.
//!
//! A node is asked for its part of an input by [`jobs::Part`]: an import of its own of the lines whose ids have certain hashes,
//! those of the shards that it has when the input is begun. The place up to which it has come is committed there together
//! with the rows, without any other server, so that each node goes on from its own place after a crash of whichever. What it
//! meets of shards that have moved away meanwhile it writes by Citus, in the same transactions: whose lines are whose does
//! not depend on where a shard is.

use super::indexes;
use super::request::{Input, NAME, Part as PartOfInput, Request, kept};
use crate::citus::{self, Node};
use crate::jobs::{self, Elsewhere, EndedTask, Functions, Part, Task, Tries, settings_elsewhere};
use crate::settings::{self, UseNodes};
use crate::store::{ResourceTable, ResourceType, distributed_in_schema, is_sharded, make_sequence, next_txid};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::{session, transaction, worker};
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How long a look at the nodes waits for the end of a part: each look is a connection to each node.
const WAIT_SECONDS: u32 = 5;

const FUNCTIONS: Functions = Functions { kind: NAME, wait: "bulk_import_wait", cancel: "bulk_import_cancel" };

/// What is noted of a task.
#[derive(Default, Serialize, Deserialize)]
struct State {
    parts: Vec<Of>,
}

/// A node's part of an input.
#[derive(Clone, Serialize, Deserialize)]
struct Of {
    #[serde(flatten)]
    part: Part,
    hashes: Vec<(i32, i32)>,
    /// How far it is, as far as is known.
    #[serde(skip)]
    told: Told,
}

#[derive(Clone, Copy, Default)]
struct Told {
    total: u64,
    unchanged: u64,
    read_bytes: u64,
    all_bytes: Option<u64>,
    is_finished: bool,
}

/// Has the nodes import a task's input. `None` if it is not for them: then nothing has been done.
pub fn run(task: &Task) -> Option<std::result::Result<(), String>> {
    let row = task.row();
    let (request, input): (Request, Input) = (kept(row.request.clone()), kept(row.input.clone()));
    let parts = row.result.clone().map_or_else(Vec::new, |state| state_of(state).parts);
    // What this server has begun, it ends.
    if parts.is_empty() && row.committed.lines > 0 {
        return None;
    }
    let mut watch = Watch { task, request, input, parts };
    let mut tries = Tries::default();
    loop {
        let error = match watch.go_on() {
            Ok(true) => return Some(Ok(())),
            Ok(false) => return None,
            Err(error) => error,
        };
        if task.is_over() {
            return Some(Ok(()));
        }
        let before = watch.total();
        if !tries.wait(&error, &format!("{} goes on: {}", task.title(), error.message())) {
            return Some(Err(error.reason().to_owned()));
        }
        if watch.total() != before {
            tries.renew();
        }
    }
}

/// How many inputs of a request are imported at once, if the nodes import them: while a worker watches them, it leaves its
/// slot to others.
pub fn limit(request: &Request) -> Option<u16> {
    // Twice as many as a node works on at once: so it has the next one when it ends one, before this server knows.
    let most = settings::import_workers() * 2;
    let is_theirs = settings::use_nodes() != UseNodes::Off && request.part.is_none() && citus::is_here();
    is_theirs.then(|| request.workers.map_or(most, |workers| workers.min(most)))
}

/// Ends the parts of a task that has ended early.
///
/// # Errors
/// Those of the nodes.
pub fn call_off(task: &EndedTask) -> Result<bool> {
    let Some(state) = &task.result else { return Ok(true) };
    transaction::run(|| {
        if session::role_exists(task.role.into()) {
            session::Identity::confined_to(task.role.into()).restore();
            cancel_parts(state.clone())?;
        }
        Ok(true)
    })
}

/// Ends the parts of an import of the current role that the nodes work on, before the import itself is ended: nothing more of
/// it is committed then.
pub fn call_off_all(id: &str) -> Result<()> {
    for state in jobs::states(NAME, id)? {
        if let Err(error) = cancel_parts(state) {
            pgrx::warning!("{}; its part of the import ends when it can be told", error.message());
        }
    }
    Ok(())
}

fn cancel_parts(state: Value) -> Result<()> {
    let nodes = citus::nodes();
    let mut failed = Ok(());
    for Of { mut part, .. } in state_of(state).parts.into_iter().filter(|of| nodes.contains(&of.part.node)) {
        // One that does not answer keeps none of the others from it.
        failed = failed.and(part.cancel(&FUNCTIONS, &[]));
    }
    failed
}

fn state_of(state: Value) -> State {
    State::deserialize(state).unwrap_or_default()
}

struct Watch<'a> {
    task: &'a Task,
    request: Request,
    input: Input,
    parts: Vec<Of>,
}

impl Watch<'_> {
    /// Has the input imported to its end. False if it is not for the nodes.
    ///
    /// 1. divide it, drop the indexes of its table if it shall have none, and store who has which part
    /// 2. ask each node for its part, and store that it has it
    /// 3. look how far the nodes are, and store that, until all have ended
    fn go_on(&mut self) -> Result<bool> {
        let Watch { task, request, input, parts } = self;
        if parts.is_empty() {
            *parts = task.transaction(|| divide(task, request, input))?;
            if parts.is_empty() {
                return Ok(false);
            }
            if let Some(name) = input.resource_type.as_ref().filter(|_| request.disable_indexes) {
                task.transaction(|| indexes::disable(task, &ResourceType::new(name)?))?;
            }
            self.note()?;
        }
        // The nodes' own workers may be this server's.
        self.task.step_aside();
        jobs::start_worker();
        for at in 0..self.parts.len() {
            if !self.parts[at].part.begun {
                self.begin(at)?;
                self.parts[at].part.begun = true;
                self.note()?;
            }
        }
        loop {
            let is_finished = self.task.transaction(|| {
                self.look()?;
                let elsewhere = self.elsewhere();
                self.task.mirror(&elsewhere)?;
                Ok(elsewhere.at_end)
            })?;
            worker::report(Some(&format!(
                "{} on {} nodes: {} resources",
                self.task.title(),
                self.parts.len(),
                self.total()
            )));
            if is_finished {
                return Ok(true);
            }
            worker::end_without_server();
        }
    }

    fn note(&self) -> Result<()> {
        self.task.transaction(|| self.task.note(&json!({"parts": self.parts})))
    }

    /// Asks a node for its part.
    fn begin(&mut self, at: usize) -> Result<()> {
        let Watch { task, request, input, parts } = self;
        let of = &mut parts[at];
        let mut part = PartOfInput { hashes: of.hashes.clone(), within: input.within.clone(), txid: None };
        let mut asked = json!({
            "id": of.part.id,
            "update": request.update,
            "skipUnchanged": request.skip_unchanged,
            "allowedRetryCount": request.retries,
            "inputs": [{"resourceType": input.resource_type, "url": input.url}],
        });
        if request.refuse_known {
            asked["onConflict"] = "error".into();
        }
        task.transaction(|| {
            part.txid = Some(next_txid(None)?);
            asked["part"] = json!(part);
            let asked = citus::literal(&asked.to_string());
            let call = format!("bulk_import({asked}::pg_catalog.jsonb, {})", request.fhir);
            of.part.begin(&FUNCTIONS, &settings_elsewhere(&task.row().settings), &call)
        })
    }

    /// Asks the nodes how far they are.
    fn look(&mut self) -> Result<()> {
        let settings = settings_elsewhere(&self.task.row().settings);
        // The first of them that has not ended: the others are asked how far they are then.
        let mut wait = WAIT_SECONDS;
        for Of { part, told, .. } in self.parts.iter_mut().filter(|of| !of.told.is_finished) {
            let status = part.wait(&FUNCTIONS, &settings, std::mem::take(&mut wait))?;
            let number = |value: &Value| value.as_u64();
            told.total = number(&status["total"]).unwrap_or(told.total);
            told.unchanged = number(&status["unchanged"]).unwrap_or(told.unchanged);
            told.read_bytes = number(&status["progress"]["bytesRead"]).unwrap_or(told.read_bytes);
            told.all_bytes = number(&status["progress"]["bytesTotal"]).or(told.all_bytes);
            match status["status"].as_str() {
                Some("active") => {}
                Some("finished") => {
                    told.is_finished = true;
                    wait = WAIT_SECONDS;
                    told.read_bytes = told.all_bytes.unwrap_or(told.read_bytes);
                }
                ended => {
                    let reason = status["inputs"][0]["error"].as_str().map(str::to_owned);
                    let reason = reason.unwrap_or_else(|| format!("its part is {}", ended.unwrap_or("unknown")));
                    let message = format!("node {}: {reason}", part.node);
                    return Err(Error::new(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, message));
                }
            }
        }
        Ok(())
    }

    fn total(&self) -> u64 {
        self.parts.iter().map(|of| of.told.total).sum()
    }

    fn elsewhere(&self) -> Elsewhere {
        let told = || self.parts.iter().map(|of| of.told);
        Elsewhere {
            // What was stored before is not asked of all again at once.
            total: self.total().max(if told().all(|told| told.is_finished) {
                0
            } else {
                self.task.row().committed.total
            }),
            unchanged: told().map(|told| told.unchanged).sum(),
            // Each reads all of it.
            read_bytes: told().map(|told| told.read_bytes).sum::<u64>() / (self.parts.len() as u64).max(1),
            all_bytes: told().filter_map(|told| told.all_bytes).max(),
            at_end: told().all(|told| told.is_finished),
        }
    }
}

/// Divides an input among the nodes by where the shards of its table are, which is made if it does not exist. Empty if the
/// nodes cannot do it, or do it no better.
fn divide(task: &Task, request: &Request, input: &Input) -> Result<Vec<Of>> {
    let is_reached = match settings::use_nodes() {
        UseNodes::Off => false,
        UseNodes::Remote => !input.url.starts_with("file://"),
        UseNodes::Files => true,
    };
    // An input that is one transaction is one server's, and a key that came with the request stays here.
    let is_divisible = !request.transaction && request.service.is_none() && request.part.is_none();
    if !is_reached || !is_divisible || !citus::is_here() {
        return Ok(Vec::new());
    }
    let table = match &input.resource_type {
        Some(name) => {
            let resource_type = ResourceType::new(name)?;
            let table = ResourceTable::get_or_create(&resource_type)?;
            is_sharded(&table)?.then_some(table)
        }
        None => distributed_in_schema()?,
    };
    let Some(table) = table else { return Ok(Vec::new()) };
    make_sequence()?;
    let shares = citus::hashes_by_node(table.oid);
    let id = |at: usize| format!("part-{:016x}-{}-{}", task.row().job, task.row().number, at + 1);
    let of = |(at, (node, hashes)): (usize, (Node, Vec<(i32, i32)>))| Of {
        part: Part::new(node, id(at)),
        hashes,
        told: Told::default(),
    };
    Ok(if shares.len() > 1 { shares.into_iter().enumerate().map(of).collect() } else { Vec::new() })
}
