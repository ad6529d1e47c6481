//! Exports by the nodes of Citus (`fhir_bulk.use_nodes`): each writes the files of shards that it has straight into the draft
//! of the export, which all nodes reach. The server with the export divides the shards, waits, and makes the manifest.
//!
//! It must be the coordinator, which learns of each move of a shard before any other node does: the shards are divided after
//! the look at the open transactions, so that what was written before that look is in the shard where it sends for it. A
//! transaction that writes the shard elsewhere, once it has moved, was open then, or began later: the next increment has it
//! (see [`super::horizon`]).

use super::part::{self, Asked, Done, Unit};
use super::target::Target;
use super::units;
use super::work::Work;
use super::written::Numbered;
use crate::citus::{self, Node, literal};
use crate::extension;
use crate::jobs::{EndedTask, Functions, Part, Task, settings_elsewhere};
use crate::settings::{self, UseNodes};
use crate::sink::Draft;
use crate::store::{ResourceTable, ResourceType};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::{session, transaction, worker};
use pgrx::PgSqlErrorCode;
use serde::Deserialize;
use serde_json::json;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// How long a look at the nodes waits for the end of a part: each look is a connection to each of them.
const WAIT_SECONDS: u32 = 5;
/// The wait before a node is asked again that did not answer, or whose parts have not ended yet.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a node may be away.
const MOST_AWAY: Duration = Duration::from_secs(3600);
/// How often shards may have moved before the export begins anew.
const MOST_ROUNDS: usize = 5;

const FUNCTIONS: Functions =
    Functions { kind: part::NAME, wait: "bulk_export_part_wait", cancel: "bulk_export_part_cancel" };

/// Whether the nodes write exports to a location, by the setting of the session.
pub fn are_wanted(location: &str) -> bool {
    let is_reached = match settings::use_nodes() {
        UseNodes::Off => false,
        UseNodes::Remote => !location.starts_with("file://"),
        UseNodes::Files => true,
    };
    is_reached && citus::is_here() && citus::group() == 0
}

/// An attempt of an export that the nodes write to.
pub struct Nodes<'a> {
    task: &'a Task,
    attempt: String,
    /// How many parts were asked for.
    parts: Cell<usize>,
}

impl<'a> Nodes<'a> {
    /// An attempt, if nodes write the export.
    pub fn of(task: &'a Task, target: &Target) -> Result<Option<Nodes<'a>>> {
        if !target.on_nodes {
            return Ok(None);
        }
        let attempt = task.transaction(|| Ok(crate::jobs::random_id()))?;
        Ok(Some(Nodes { task, attempt, parts: Cell::new(0) }))
    }

    /// Ends what earlier attempts have nodes do, and waits until it has ended: they wrote to the same draft.
    ///
    /// # Errors
    /// Those of the nodes.
    pub fn end_earlier(task: &Task) -> Result<()> {
        let prefix = prefix(task.row().job);
        let settings = task.transaction(|| Ok(settings_elsewhere(&task.row().settings)))?;
        while !task.transaction(|| end_all(&prefix, &settings))? {
            worker::wait(AGAIN);
        }
        Ok(())
    }

    /// Lets parts write to the draft.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn admit(&self, draft: &Draft) -> Result<()> {
        let count = AtomicU64::new(0);
        draft.within(None, Some(&count)).announce_unnumbered(|| part::announcement(&self.attempt))
    }

    /// Has the nodes begin with the types that they can write, in the transaction that locks the tables.
    ///
    /// # Errors
    /// Those of the nodes; 3F000.
    pub fn begin<'w>(&'w self, work: &'w Work) -> Result<Begun<'w, 'a>> {
        let mut begun = Begun { nodes: self, work, units: Vec::new(), parts: Vec::new() };
        let is_plain = work.patients.is_none() && !work.kickoff.level.has_patients();
        let mut types = Vec::new();
        for name in work.kickoff.types.iter().filter(|name| is_plain && !work.kickoff.is_linked(name)) {
            let table = ResourceTable::get(&ResourceType::new(name)?)?;
            let is_by_id = citus::distribution_column(table.oid).is_some_and(|column| column == "id");
            // Who may not SELECT it whole is told so where it is read.
            if is_by_id && table.is_open() {
                types.push((name.clone(), table));
            }
        }
        let workers = settings::export::workers();
        let bytes: Vec<u64> = types.iter().map(|(_, table)| citus::bytes(table.oid).unwrap_or(0)).collect();
        let most = units::most_bytes(bytes.iter().sum(), workers * citus::nodes().len().max(1));
        let mut wanted = Vec::new();
        for ((name, table), bytes) in types.into_iter().zip(bytes) {
            let placed = citus::shards_by_node(table.oid);
            let shards: usize = placed.iter().map(|(_, shards)| shards.len()).sum();
            let each = (bytes / (shards as u64).max(1)).max(1);
            let together = usize::try_from(most / each).unwrap_or(usize::MAX).max(1);
            let of_type: Vec<_> = placed
                .iter()
                .flat_map(|(node, shards)| {
                    let count = shards.len().div_ceil(together).max(1);
                    shards
                        .chunks(shards.len().div_ceil(count).max(1))
                        .map(move |shards| (node.clone(), shards.to_vec()))
                })
                .collect();
            let step = of_type.len();
            let of_type = of_type.into_iter().enumerate().map(|(at, (node, shards))| {
                let numbers = super::files::Numbers { first: at + 1, step };
                (node, Unit { resource_type: name.clone(), shards, numbers })
            });
            wanted.extend(of_type);
        }
        begun.ask(wanted)?;
        Ok(begun)
    }

    fn next_id(&self) -> String {
        self.parts.set(self.parts.get() + 1);
        format!("{}{}-{}", prefix(self.task.row().job), self.attempt, self.parts.get())
    }
}

/// What nodes write of an export.
pub struct Begun<'w, 'a> {
    nodes: &'w Nodes<'a>,
    work: &'w Work,
    /// All units that they were asked for.
    units: Vec<Unit>,
    parts: Vec<Running>,
}

struct Running {
    part: Part,
    /// Its units.
    units: Vec<Unit>,
    seen: u64,
    away: Option<Instant>,
    done: Option<Done>,
}

impl Begun<'_, '_> {
    /// Whether they write a type.
    pub fn have(&self, name: &str) -> bool {
        self.units.iter().any(|unit| unit.resource_type == name)
    }

    /// Asks each node for its units, in as many parts as processes write an export.
    fn ask(&mut self, wanted: Vec<(Node, Unit)>) -> Result<()> {
        let Begun { nodes, work, .. } = self;
        let settings = settings_elsewhere(&nodes.task.row().settings);
        let mut by_node: BTreeMap<String, (Node, Vec<Unit>)> = BTreeMap::new();
        for (node, unit) in wanted {
            self.units.push(unit.clone());
            by_node.entry(node.to_string()).or_insert_with(|| (node, Vec::new())).1.push(unit);
        }
        for (node, units) in by_node.into_values() {
            let parts = settings::export::workers().min(units.len()).max(1);
            let mut shares = vec![Vec::new(); parts];
            for (at, unit) in units.into_iter().enumerate() {
                shares[at % parts].push(unit);
            }
            for units in shares {
                let Target { location, owner, folder, file_bytes, max_bytes, gzip, .. } = work.target.clone();
                let mut kickoff = work.kickoff.clone();
                kickoff.types.retain(|name| units.iter().any(|unit| unit.resource_type == *name));
                let (id, attempt) = (nodes.next_id(), nodes.attempt.clone());
                let (of_id, of_units) = (id.clone(), units.clone());
                let asked = Asked { id, kickoff, location, owner, folder, attempt, file_bytes, max_bytes, gzip, units };
                let call = format!("bulk_export_part({}::pg_catalog.jsonb)", literal(&json!(asked).to_string()));
                let mut part = Part::new(node.clone(), of_id);
                part.begin(&FUNCTIONS, &settings, &call)?;
                self.parts.push(Running { part, units: of_units, seen: 0, away: None, done: None });
            }
        }
        Ok(())
    }

    /// Waits until the nodes have written their units. Units whose shards have moved are asked for where they are now.
    /// Returns the files.
    ///
    /// # Errors
    /// Those of the nodes; 40001 if shards move all the time.
    pub fn finish(mut self, draft: &Draft, show: impl Fn(u64)) -> Result<Vec<Numbered>> {
        let mut files = Vec::new();
        for _ in 0..MOST_ROUNDS {
            self.wait(&show)?;
            let mut moved = Vec::new();
            for running in std::mem::take(&mut self.parts) {
                let done = running.done.unwrap_or_default();
                for (number, written) in done.written {
                    let Some(unit) = running.units.get(number) else { continue };
                    for (before, file) in written.into_iter().enumerate() {
                        draft.announce(|number| file.announcement(number))?;
                        files.push((unit.resource_type.clone(), unit.numbers.at(before), file));
                    }
                }
                moved.extend(done.moved.iter().filter_map(|number| running.units.get(*number).cloned()));
            }
            if moved.is_empty() {
                return Ok(files);
            }
            let mut wanted = Vec::new();
            for unit in moved {
                wanted.extend(self.where_now(unit)?);
            }
            self.ask(wanted)?;
        }
        let message = "shards have moved each time that they were to be read";
        Err(Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, message))
    }

    /// A unit whose shards have moved, by where they are now. Its first piece has its numbers, the others new ones.
    fn where_now(&self, unit: Unit) -> Result<Vec<(Node, Unit)>> {
        let table = ResourceTable::get(&ResourceType::new(&unit.resource_type)?)?;
        let mut pieces = Vec::new();
        let mut count = 0;
        for (node, shards) in citus::shards_by_node(table.oid) {
            let shards: Vec<i64> = unit.shards.iter().copied().filter(|shard| shards.contains(shard)).collect();
            if shards.is_empty() {
                continue;
            }
            count += shards.len();
            pieces.push((node, shards));
        }
        if count != unit.shards.len() {
            let message = format!("shards of {} were split or are without a node", unit.resource_type);
            return Err(Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, message));
        }
        let step = unit.numbers.step * pieces.len();
        let piece = |(at, (node, shards)): (usize, (Node, Vec<i64>))| {
            let numbers = super::files::Numbers { first: unit.numbers.first + unit.numbers.step * at, step };
            (node, Unit { resource_type: unit.resource_type.clone(), shards, numbers })
        };
        Ok(pieces.into_iter().enumerate().map(piece).collect())
    }

    fn wait(&mut self, show: &impl Fn(u64)) -> Result<()> {
        let settings = settings_elsewhere(&self.nodes.task.row().settings);
        loop {
            // The first of them that has not ended: the others are asked how far they are then.
            let mut wait = WAIT_SECONDS;
            for running in self.parts.iter_mut().filter(|running| running.done.is_none()) {
                running.look(&settings, wait)?;
                if running.done.is_none() {
                    wait = 0;
                }
            }
            show(self.parts.iter().map(|running| running.seen).sum());
            if self.parts.iter().all(|running| running.done.is_some()) {
                return Ok(());
            }
            session::check_for_interrupts();
            if self.parts.iter().any(|running| running.away.is_some()) {
                session::wait_for_latch(AGAIN);
            }
        }
    }
}

impl Running {
    fn look(&mut self, settings: &[(String, String)], wait: u32) -> Result<()> {
        let status = match self.part.wait(&FUNCTIONS, settings, wait) {
            // Its own server begins it anew when it is back.
            Err(error) if error.is_of_server_away() => {
                let is_long = self.away.get_or_insert_with(Instant::now).elapsed() > MOST_AWAY;
                return if is_long { Err(error) } else { Ok(()) };
            }
            status => status?,
        };
        self.away = None;
        self.seen = status["seen"].as_u64().unwrap_or(self.seen);
        match status["status"].as_str() {
            Some("active") => {}
            Some("finished") => {
                let done = Done::deserialize(&status["result"]).map_err(|error| {
                    let message = format!("node {} gave no result of its part: {error}", self.part.node);
                    Error::new(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, message)
                })?;
                self.done = Some(done);
            }
            ended => {
                let reason = status["error"].as_str().map(str::to_owned);
                let reason = reason.unwrap_or_else(|| format!("its part is {}", ended.unwrap_or("unknown")));
                let message = format!("node {}: {reason}", self.part.node);
                return Err(Error::new(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, message));
            }
        }
        Ok(())
    }
}

/// Ends what nodes write of an export that has ended early. Returns false if some of it has not ended yet.
///
/// # Errors
/// Those of the nodes.
pub fn call_off(task: &EndedTask) -> Result<bool> {
    if !Target::of(&task.input).on_nodes {
        return Ok(true);
    }
    transaction::run(|| {
        if !session::role_exists(task.role.into()) {
            return Ok(true);
        }
        session::Identity::confined_to(task.role.into()).restore();
        end_all(&prefix(task.job), &[])
    })
}

/// The beginning of the ids of all parts of a job.
fn prefix(job: i64) -> String {
    format!("part-{job:016x}-")
}

/// Ends the parts with a prefix on all nodes. Returns whether none of them is worked on any more.
fn end_all(prefix: &str, settings: &[(String, String)]) -> Result<bool> {
    let schema = extension::schema();
    // Ids have nothing that LIKE takes for more than itself.
    let own = format!(
        "FROM {schema}.bulk_jobs j WHERE j.kind OPERATOR(pg_catalog.=) '{}' AND j.id OPERATOR(pg_catalog.~~) {}",
        part::NAME,
        literal(&format!("{prefix}%"))
    );
    // One that is ended now may be at work still, which the next look tells. Both by one connection.
    let at_work = format!(
        "(SELECT pg_catalog.count({schema}.bulk_export_part_cancel(j.id)) {own} \
         AND j.status OPERATOR(pg_catalog.=) 'active') \
         OPERATOR(pg_catalog.+) (SELECT pg_catalog.count(*) {own} AND ({schema}.bulk_export_part_wait(j.id, 0) \
         OPERATOR(pg_catalog.->>) 'atWork')::pg_catalog.bool)"
    );
    let mut at_rest = true;
    for node in citus::nodes() {
        at_rest &= match node.ask(settings, &at_work) {
            // Who may not call it there has nothing there.
            Err(error) if error.code() == PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE => true,
            count => count? == "0",
        };
    }
    Ok(at_rest)
}
