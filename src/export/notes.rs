//! What whoever asked for an export should know of it: OperationOutcomes, which HL7's manifest lists as `error`.

use super::files::{Files, Format, Written};
use super::horizon::Open;
use super::kickoff::Kickoff;
use crate::sink::Draft;
use crate::store::{ResourceTable, ResourceType, foreign_code, hidden_types, may_read_history};
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::session;
use fhir_bulk_pg::spi::{self, Parameter};
use serde_json::json;

/// Something that the files do not show.
pub struct Note {
    /// Of HL7's code system issue-type.
    code: &'static str,
    diagnostics: String,
}

/// Takes those types out of an export of all types whose reading would run code of other roles, who could have had it do
/// anything with the rights of the caller. Their tables are locked.
///
/// # Errors
/// 42P01 for a table that is gone; 3F000.
pub fn leave_out(kickoff: &mut Kickoff) -> Result<Vec<Note>> {
    let mut notes = Vec::new();
    if !kickoff.all {
        return Ok(notes);
    }
    let mut kept = Vec::new();
    for name in std::mem::take(&mut kickoff.types) {
        match foreign_code(&ResourceTable::get(&ResourceType::new(&name)?)?) {
            None => kept.push(name),
            Some(what) => notes.push(Note {
                code: "suppressed",
                diagnostics: format!(
                    "{name} is left out: reading it would run code of another role with your rights ({what}). If you \
                     trust it, name {name} in _type."
                ),
            }),
        }
    }
    kickoff.types = kept;
    Ok(notes)
}

/// What the role's rights keep out of an export: of one of all types, those that it may not read; of one since a point in
/// time, deletions that only a history tells which it may not read.
///
/// # Errors
/// 42P01 for a table that is gone; 3F000.
pub fn of_rights(kickoff: &Kickoff) -> Result<Vec<Note>> {
    let mut notes = Vec::new();
    let hidden = if kickoff.all { hidden_types()? } else { Vec::new() };
    if !hidden.is_empty() {
        let names: Vec<&str> = hidden.iter().map(ResourceType::as_str).collect();
        let diagnostics = format!("What you may not read is left out: {}.", names.join(", "));
        notes.push(Note { code: "forbidden", diagnostics });
    }
    for name in kickoff.types.iter().filter(|_| kickoff.has_deletions()) {
        if !may_read_history(&ResourceType::new(name)?)? {
            let diagnostics = format!(
                "Deletions of {name} are left out, as far as they are told by its history, which you may not read. \
                 Resources that are not in \"deleted\" may be gone."
            );
            notes.push(Note { code: "forbidden", diagnostics });
        }
    }
    Ok(notes)
}

/// What an incremental export from `transactionTime` on could miss, though this one says nothing of it.
///
/// # Errors
/// 42P01 for a table that is gone; 3F000.
pub fn of_horizon(kickoff: &Kickoff, open: [&Open; 2]) -> Result<Vec<Note>> {
    let mut notes = Vec::new();
    if open.iter().any(|open| open.has_prepared) {
        let diagnostics = "A transaction was prepared for two-phase commit while this export began. When it started cannot \
            be known: an export with _since may miss resources that it wrote. Export without _since once it is over.";
        notes.push(Note { code: "incomplete", diagnostics: diagnostics.to_owned() });
    }
    for name in &kickoff.types {
        if is_subscribed(&ResourceTable::get(&ResourceType::new(name)?)?) {
            notes.push(Note {
                code: "incomplete",
                diagnostics: format!(
                    "{name} receives changes of another server by logical replication. They keep the times of that \
                     server: an export with _since may miss resources that arrive later. Export without _since, or on \
                     the server where they are written."
                ),
            });
        }
    }
    Ok(notes)
}

/// Whether a subscription writes into a table or a part of it.
fn is_subscribed(table: &ResourceTable) -> bool {
    let query = c"WITH RECURSIVE parts (oid) AS (SELECT $1 UNION SELECT i.inhrelid FROM parts p \
            JOIN pg_inherits i ON i.inhparent = p.oid) \
        SELECT 'yes' FROM parts p JOIN pg_subscription_rel s ON s.srrelid = p.oid LIMIT 1";
    session::as_bootstrap_superuser(|| !spi::texts(query, &[Parameter::oid(table.oid)]).is_empty())
}

/// Writes notes, a line each; the files there are.
///
/// # Errors
/// Those of the sink.
pub fn write(notes: &[Note], draft: &Draft, format: Format) -> Result<Vec<Written>> {
    let mut files = Files::new(draft, "error", format);
    for Note { code, diagnostics } in notes {
        let issue = json!([{"severity": "warning", "code": code, "diagnostics": diagnostics}]);
        let outcome = json!({"resourceType": "OperationOutcome", "issue": issue});
        files.write(format!("{outcome}\n").as_bytes(), 1)?;
    }
    files.finish()
}
