//! Tells the caller what an export left out or may miss: OperationOutcomes, which HL7's manifest lists as `error`.

use super::associated;
use super::files::{Files, Format};
use super::horizon::Open;
use super::ignored::Ignored;
use super::kickoff::Kickoff;
use super::written::Written;
use crate::sink::Draft;
use crate::store::{
    ResourceTable, ResourceType, Telling, foreign_code, foreign_code_of, hidden_types, may_read_history, telling,
};
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::session;
use fhir_bulk_pg::spi::{self, Parameter};
use serde_json::json;

/// One OperationOutcome.
pub struct Note {
    /// A code of HL7's code system issue-type.
    code: String,
    diagnostics: String,
    /// The parameter of the request that it is about.
    parameter: Option<String>,
}

impl Note {
    fn new(code: &str, diagnostics: String) -> Note {
        Note { code: code.to_owned(), diagnostics, parameter: None }
    }
}

/// Removes types that the request did not name if reading them would run code of other roles: it could do anything with the
/// caller's rights. The caller has locked the tables.
///
/// # Errors
/// 42P01 for a table that no longer exists; 3F000.
pub fn leave_out(kickoff: &mut Kickoff) -> Result<Vec<Note>> {
    let (mut notes, mut left_out) = (Vec::new(), Vec::new());
    let names = kickoff.types.iter().chain(&kickoff.extras).filter(|name| !kickoff.trusts(name));
    let read = names.map(|name| Ok((name, Read::of(&ResourceType::new(name)?)?))).collect::<Result<Vec<_>>>()?;
    // Mostly there is nothing, which one look at all of them tells.
    if foreign_code_of(read.iter().flat_map(|(_, read)| read.tables())).is_none() {
        return Ok(notes);
    }
    for (name, read) in read {
        if let Some(what) = read.foreign_code() {
            let diagnostics = format!(
                "{name} is left out: reading it would run code of another role with your rights ({what}). If you trust it, \
                 name {name} in _type."
            );
            notes.push(Note::new("suppressed", diagnostics));
            left_out.push(name.clone());
        }
    }
    for types in [&mut kickoff.types, &mut kickoff.extras] {
        types.retain(|name| !left_out.contains(name));
    }
    Ok(notes)
}

/// What is read of a type.
struct Read {
    table: ResourceTable,
    /// Its deletions are read, too, and all of it is planned when it is locked.
    history: Option<ResourceTable>,
}

impl Read {
    fn of(resource_type: &ResourceType) -> Result<Read> {
        let table = ResourceTable::get(resource_type)?;
        Ok(Read { table, history: ResourceTable::lock_history_to_read(resource_type)? })
    }

    fn tables(&self) -> impl Iterator<Item = &ResourceTable> {
        std::iter::once(&self.table).chain(&self.history)
    }

    /// What of it would run code of other roles.
    fn foreign_code(&self) -> Option<String> {
        let of_history = |history| Some(format!("in its history: {}", foreign_code(history)?));
        foreign_code(&self.table).or_else(|| self.history.as_ref().and_then(of_history))
    }
}

/// Notes what a lenient request asked for in vain, and what means nothing in its queries.
pub fn of_ignored(kickoff: &Kickoff) -> Vec<Note> {
    let note = |Ignored { parameter, code, diagnostics }: &Ignored| Note {
        parameter: Some(parameter.clone()),
        ..Note::new(code, diagnostics.clone())
    };
    kickoff.ignored.iter().chain(kickoff.filters.ignored()).map(note).collect()
}

/// Notes deletions of which it is not known whether the export would have had the resource.
pub fn of_deletions(unknown: u64) -> Option<Note> {
    let diagnostics = format!(
        "Of {unknown} deleted resources no content is kept, so that it is not known whether they belonged to this export. \
         They are not in \"deleted\"."
    );
    (unknown > 0).then(|| Note::new("incomplete", diagnostics))
}

/// Notes types that the request named, and that belong to no patient.
pub fn of_types(left_out: &[String]) -> Option<Note> {
    let diagnostics = format!("These types belong to no patient, and are left out: {}.", left_out.join(", "));
    let note = Note { parameter: Some("_type".to_owned()), ..Note::new("not-supported", diagnostics) };
    (!left_out.is_empty()).then_some(note)
}

/// Notes what the export lacks because of the role's rights: types that the role may not read, if all types are exported;
/// deletions in history tables that it may not read, if the export has a `since`.
///
/// # Errors
/// 42P01 for a table that no longer exists; 3F000.
pub fn of_rights(kickoff: &Kickoff) -> Result<Vec<Note>> {
    let mut notes = Vec::new();
    let mut hidden = if kickoff.all { hidden_types()? } else { Vec::new() };
    hidden.retain(|name| kickoff.allows(name.as_str()));
    if !hidden.is_empty() {
        let names: Vec<&str> = hidden.iter().map(ResourceType::as_str).collect();
        let diagnostics = format!("These types are left out, because you may not read them: {}.", names.join(", "));
        notes.push(Note::new("forbidden", diagnostics));
    }
    let may_have = |name| -> Result<bool> { Ok(kickoff.allows(name) && (kickoff.all || !is_hidden(name)?)) };
    if kickoff.associated.is_some() && !may_have(associated::TYPE)? {
        let diagnostics = format!("{} is left out, because you may not read it.", associated::TYPE);
        let parameter = Some(associated::PARAMETER.to_owned());
        notes.push(Note { parameter, ..Note::new("forbidden", diagnostics) });
    }
    for name in kickoff.types.iter().filter(|_| kickoff.has_deletions()) {
        let resource_type = ResourceType::new(name)?;
        if !may_read_history(&resource_type)? {
            let diagnostics = format!(
                "Deletions of {name} are incomplete, because you may not read its history table. \
                 A resource may be deleted although it is not in \"deleted\"."
            );
            notes.push(Note::new("forbidden", diagnostics));
        } else if telling(&ResourceTable::get(&resource_type)?, &resource_type)? == Telling::Hidden {
            let diagnostics = format!(
                "Deletions of {name} are incomplete: its table has no row of what was deleted, and you may not see all of \
                 its rows, so that it is not known whether a resource is deleted or hidden. A resource may be deleted \
                 although it is not in \"deleted\"."
            );
            notes.push(Note::new("incomplete", diagnostics));
        }
    }
    Ok(notes)
}

/// Whether a type has a table that the role may not read.
fn is_hidden(name: &str) -> Result<bool> {
    ResourceTable::find(&ResourceType::new(name)?)?.map_or(Ok(false), |table| Ok(!table.is_readable()?))
}

/// Notes what a later export with `transactionTime` as `_since` could miss.
///
/// # Errors
/// 42P01 for a table that no longer exists; 3F000.
pub fn of_horizon(kickoff: &Kickoff, open: [&Open; 2]) -> Result<Vec<Note>> {
    let mut notes = Vec::new();
    if open.iter().any(|open| open.has_prepared) {
        let diagnostics = "A transaction was prepared for two-phase commit while this export began. Its start is not \
            known, so an export with _since may miss resources that it wrote. Export without _since after it has ended.";
        notes.push(Note::new("incomplete", diagnostics.to_owned()));
    }
    let mut unknown: Vec<_> = open.iter().flat_map(|open| &open.unknown).collect();
    unknown.dedup();
    for server in unknown {
        let diagnostics = format!(
            "Which transactions are open on a server of Citus is not known ({server}). An export with _since may miss \
             resources that they write. Export without _since."
        );
        notes.push(Note::new("incomplete", diagnostics));
    }
    for name in &kickoff.types {
        if is_subscribed(&ResourceTable::get(&ResourceType::new(name)?)?) {
            let diagnostics = format!(
                "{name} receives changes of another server by logical replication. They keep the timestamps of that \
                 server: an export with _since may miss resources that arrive later. Export without _since, or on \
                 the server where they are written."
            );
            notes.push(Note::new("incomplete", diagnostics));
        }
    }
    Ok(notes)
}

/// Whether a subscription writes into a table or one of its partitions or child tables.
fn is_subscribed(table: &ResourceTable) -> bool {
    let query = c"WITH RECURSIVE parts (oid) AS (SELECT $1 UNION SELECT i.inhrelid FROM parts p \
            JOIN pg_inherits i ON i.inhparent = p.oid) \
        SELECT 'yes' FROM parts p JOIN pg_subscription_rel s ON s.srrelid = p.oid LIMIT 1";
    session::as_bootstrap_superuser(|| !spi::texts(query, &[Parameter::oid(table.oid)]).is_empty())
}

/// Writes one line per note. Returns the files.
///
/// # Errors
/// The errors of the sink.
pub fn write(notes: &[Note], draft: &Draft, format: Format) -> Result<Vec<Written>> {
    let mut files = Files::new(draft, "error", format);
    for Note { code, diagnostics, parameter } in notes {
        let mut issue = json!({"severity": "warning", "code": code, "diagnostics": diagnostics});
        if let Some(parameter) = parameter {
            issue["expression"] = json!([parameter]);
        }
        let outcome = json!({"resourceType": "OperationOutcome", "issue": [issue]});
        files.write(format!("{outcome}\n").as_bytes(), 1)?;
    }
    files.finish()
}
