//! Provenance of what belongs to patients: of a patient, or of a resource in the compartment. Whether a target is in it only
//! the target itself tells, so targets are looked up, many at a time.

use super::files::Files;
use super::kickoff::Kickoff;
use crate::settings;
use crate::store::{Filter, Patients, Reader, ResourceTable, ResourceType, each_live, foreign_code};
use crate::stream::More;
use fhir_bulk_paths::search::{Compartment, Links};
use fhir_bulk_pg::error::Result;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

/// The type that this file is about.
pub const TYPE: &str = "Provenance";
/// How many resources, or bytes of lines, are decided at a time.
const BATCH: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;

/// A line that is not decided yet.
struct Pending {
    /// Where it ends.
    end: usize,
    /// Whether a patient is a target.
    is_wanted: bool,
    /// The other targets, by type and id.
    targets: Vec<(String, String)>,
}

/// Writes those resources of a reader of which a target belongs to one of the patients; without patients, to any. Calls
/// `progress` with the number of resources in each batch.
///
/// # Errors
/// The errors of the reader, of the targets' tables and of the sink.
pub fn write(
    kickoff: &Kickoff,
    patients: Option<&Patients>,
    reader: &mut Reader,
    files: &mut Files<'_>,
    mut progress: impl FnMut(u64),
) -> Result<()> {
    let bases = settings::base_urls();
    let of_patients = Filter::of_patients(None, TYPE, patients.cloned());
    let Some(links) = Links::of(settings::fhir_version(), TYPE, "target") else { return Ok(()) };
    let (mut lines, mut pending) = (Vec::new(), Vec::new());
    loop {
        let more = reader.each(|stored| {
            stored.write(&mut lines)?;
            lines.push(b'\n');
            let resource = stored.as_resource();
            let is_wanted = of_patients.matches(resource.id, TYPE, None, resource.json);
            let mut targets = Vec::new();
            if !is_wanted {
                let _ = links.each(resource, &bases, |name, id| {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    targets.push((text(name), text(id)));
                    ControlFlow::Continue(())
                });
            }
            pending.push(Pending { end: lines.len(), is_wanted, targets });
            let is_full = pending.len() >= BATCH || lines.len() >= BATCH_BYTES;
            Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let belonging = belonging(kickoff, patients, &pending)?;
        let (mut wanted, mut count, mut start) = (Vec::new(), 0, 0);
        for row in pending.drain(..) {
            if row.is_wanted || row.targets.iter().any(|target| belonging.contains(target)) {
                wanted.extend_from_slice(&lines[start..row.end]);
                count += 1;
            }
            start = row.end;
        }
        files.write(&wanted, count)?;
        progress(count);
        lines.clear();
        lines.shrink_to(BATCH_BYTES);
        if more == More::No {
            return Ok(());
        }
    }
}

/// Those targets that belong to the patients.
fn belonging(kickoff: &Kickoff, patients: Option<&Patients>, rows: &[Pending]) -> Result<HashSet<(String, String)>> {
    let mut targets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, id) in rows.iter().flat_map(|row| &row.targets) {
        targets.entry(name).or_default().insert(id);
    }
    let mut found = HashSet::new();
    for (name, ids) in targets {
        if Compartment::of(settings::fhir_version(), name).is_none() || !may_look_up(kickoff, name)? {
            continue;
        }
        let filter = Filter::of_patients(None, name, patients.cloned());
        each_live(&ResourceType::new(name)?, ids.into_iter(), |id, json| {
            if filter.matches(id, name, None, json) {
                found.insert((name.to_owned(), id.to_owned()));
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// Whether the role may read a type's table, and reading it runs nobody else's code.
fn may_look_up(kickoff: &Kickoff, name: &str) -> Result<bool> {
    let Some(table) = ResourceTable::find(&ResourceType::new(name)?)? else { return Ok(false) };
    Ok(table.is_readable()? && (!kickoff.all || foreign_code(&table).is_none()))
}
