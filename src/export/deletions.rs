//! Writes the deletions since the last export, as Bundles of DELETE requests, which HL7's manifest lists.

use super::batches::{BATCH, Decider};
use super::files::{Files, Format};
use super::kickoff::Kickoff;
use super::provenance::Linked;
use super::span::Span;
use super::written::Written;
use crate::sink::Draft;
use crate::store::{Deletions, ResourceTable, ResourceType, deleted, foreign_code};
use fhir_bulk_codec::jsonb::EMPTY_OBJECT;
use fhir_bulk_codec::jsonb::text::write_string;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;

/// The most deletions in one Bundle.
const ENTRIES: u64 = 1000;
const START: &[u8] = br#"{"resourceType":"Bundle","type":"transaction","entry":["#;

/// Writes the deletions of what the export would have had, if it has a `since`. Returns the files, and how many
/// deletions were left out because no content is kept of them, which would tell.
///
/// # Errors
/// The errors of the tables and of the sink.
pub fn write(kickoff: &Kickoff, span: &Span, draft: &Draft, format: Format) -> Result<(Vec<Written>, u64)> {
    let Some(since) = kickoff.since.filter(|_| kickoff.has_deletions()) else { return Ok((Vec::new(), 0)) };
    let mut bundles = Bundles { files: Files::new(draft, "deleted", format), bundle: START.to_vec(), entries: 0 };
    let mut unknown = 0;
    for name in &kickoff.types {
        let resource_type = ResourceType::new(name)?;
        let table = ResourceTable::get(&resource_type)?;
        // As for the table itself, another role may have created an index or a cast since.
        if !kickoff.trusts(name)
            && let Some(history) = ResourceTable::find_history(&resource_type)?
            && let Some(what) = foreign_code(&history)
        {
            let message = format!("reading the history of {name} would now run code of another role: {what}");
            return Err(Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, message));
        }
        let linked = Linked::of(kickoff, span.patients.as_ref(), name);
        let filter = if linked.is_some() { kickoff.filters.of(name)? } else { span.filter(kickoff, name)? };
        let with_content = filter.is_some() || linked.is_some();
        let mut candidates = Vec::new();
        deleted(&table, &resource_type, Deletions { since, until: kickoff.until, with_content }, |resource| {
            if filter.as_ref().is_some_and(|filter| !filter.matches(resource)) {
                unknown += u64::from(resource.json == EMPTY_OBJECT);
                return Ok(());
            }
            match &linked {
                Some(linked) => {
                    candidates.push((resource.id.to_owned(), linked.candidate(resource)));
                    Ok(())
                }
                None => bundles.add(name, resource.id),
            }
        })?;
        if let Some(linked) = &linked {
            for some in candidates.chunks(BATCH) {
                let decided = linked.decide(some.iter().map(|(_, candidate)| candidate))?;
                for ((id, _), _) in some.iter().zip(decided).filter(|(_, is_wanted)| *is_wanted) {
                    bundles.add(name, id)?;
                }
            }
        }
    }
    Ok((bundles.finish()?, unknown))
}

/// The lines of the files.
struct Bundles<'a> {
    files: Files<'a>,
    bundle: Vec<u8>,
    entries: u64,
}

impl Bundles<'_> {
    fn add(&mut self, name: &str, id: &str) -> Result<()> {
        if self.entries > 0 {
            self.bundle.push(b',');
        }
        self.bundle.extend_from_slice(br#"{"request":{"method":"DELETE","url":"#);
        write_string(format!("{name}/{id}").as_bytes(), &mut self.bundle);
        self.bundle.extend_from_slice(b"}}");
        self.entries += 1;
        if self.entries == ENTRIES { self.end() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<()> {
        self.bundle.extend_from_slice(b"]}\n");
        self.files.write(&self.bundle, 1)?;
        self.bundle.truncate(START.len());
        self.entries = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Written>> {
        if self.entries > 0 {
            self.end()?;
        }
        self.files.finish()
    }
}
