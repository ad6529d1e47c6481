//! Writes the deletions since the last export, as Bundles of DELETE requests, which HL7's manifest lists.

use super::files::{Files, Format, Written};
use super::kickoff::Kickoff;
use crate::sink::Draft;
use crate::store::{Deletions, Filter, ResourceTable, ResourceType, deleted};
use fhir_bulk_codec::jsonb::text::write_string;
use fhir_bulk_pg::error::Result;

/// The most deletions in one Bundle.
const ENTRIES: u64 = 1000;
const START: &[u8] = br#"{"resourceType":"Bundle","type":"transaction","entry":["#;

/// Writes the deletions of what the export would have had, if it has a `since`. `filter` makes the filter of a type. Returns
/// the files.
///
/// # Errors
/// The errors of the tables and of the sink.
pub fn write(
    kickoff: &Kickoff,
    draft: &Draft,
    format: Format,
    filter: impl Fn(&str) -> Result<Option<Filter>>,
) -> Result<Vec<Written>> {
    let Some(since) = kickoff.since.filter(|_| kickoff.has_deletions()) else { return Ok(Vec::new()) };
    let mut files = Files::new(draft, "deleted", format);
    let (mut bundle, mut entries) = (START.to_vec(), 0);
    for name in &kickoff.types {
        let resource_type = ResourceType::new(name)?;
        let table = ResourceTable::get(&resource_type)?;
        let filter = filter(name)?;
        let wanted = Deletions { since, until: kickoff.until, filter: filter.as_ref() };
        deleted(&table, &resource_type, &wanted, |id| {
            if entries > 0 {
                bundle.push(b',');
            }
            bundle.extend_from_slice(br#"{"request":{"method":"DELETE","url":"#);
            write_string(format!("{name}/{id}").as_bytes(), &mut bundle);
            bundle.extend_from_slice(b"}}");
            entries += 1;
            if entries == ENTRIES {
                end(&mut bundle, &mut files)?;
                entries = 0;
            }
            Ok(())
        })?;
    }
    if entries > 0 {
        end(&mut bundle, &mut files)?;
    }
    files.finish()
}

fn end(bundle: &mut Vec<u8>, files: &mut Files<'_>) -> Result<()> {
    bundle.extend_from_slice(b"]}\n");
    files.write(bundle, 1)?;
    bundle.truncate(START.len());
    Ok(())
}
