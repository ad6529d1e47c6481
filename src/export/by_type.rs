//! Writes files of each type; several processes share the work where the tables allow it.

use super::batches::{each_wanted, write_wanted};
use super::exported::OfExported;
use super::files::{Files, Format};
use super::on_nodes::Nodes;
use super::provenance::Linked;
use super::target::{Counters, Target};
use super::units::{self, Unit};
use super::work::Work;
use super::written::{Numbered, Written};
use crate::extension::LIBRARY;
use crate::settings;
use crate::sink::Draft;
use crate::store::Rows;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::error::{Result, or_raise};
use fhir_bulk_pg::parallel::{self, Help, Part};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// The exported function that calls [`help`] in a helper.
const HELP: Help = Help { library: LIBRARY, function: c"fhir_bulk_export_helper" };

/// A file with its resource type.
pub type Typed = (String, Written);

/// The input of helpers.
#[derive(Serialize, Deserialize)]
struct Share {
    work: Work,
    /// In the order in which they are written.
    units: Vec<Unit>,
}

/// Writes all types into one file. The file exists even if it is empty.
///
/// # Errors
/// The errors of the tables and of the sink.
pub fn single_file(work: &Work, draft: &Draft, show: impl Fn(u64)) -> Result<Vec<Typed>> {
    let mut files = Files::new(draft, "export", Format { bytes: u64::MAX, ..work.target.format() });
    files.begin()?;
    let mut total = 0;
    for resource_type in &work.kickoff.types {
        files.write_all(&mut work.reader(&Unit::whole(resource_type), &work.spans()[0])?, |count| {
            total += count;
            show(total);
        })?;
    }
    Ok(files.finish()?.into_iter().map(|file| (String::new(), file)).collect())
}

/// Writes files of each type, with helpers where the tables allow it, and by the nodes of Citus. Returns them in the order of the request.
///
/// # Errors
/// The errors of the tables and of the sink.
pub fn write(
    work: &Work,
    draft: &Draft,
    counters: &Counters,
    nodes: Option<&Nodes<'_>>,
    show: impl Fn(u64),
) -> Result<Vec<Typed>> {
    let begun = nodes.map(|nodes| nodes.begin(work)).transpose()?;
    let workers = settings::export::workers();
    let (together, mut alone) = units::divide(&work.kickoff, workers)?;
    if let Some(begun) = &begun {
        alone.retain(|unit| !begun.have(&unit.resource_type));
    }
    let helpers = workers.min(together.len()).saturating_sub(1);
    let share = Share { work: work.clone(), units: together };
    let input = serde_json::to_vec(&share).expect("an object of texts and numbers");
    let (mine, others) = parallel::run(HELP, helpers, &input, |part| share.write(draft, part, &show));
    let mut counts = mine?;
    for result in others {
        let of_helper: Vec<Counts> = serde_json::from_slice(&result).expect("as help() makes it");
        counts.extend(of_helper);
    }
    let mut written: Vec<Numbered> = counts.iter().flat_map(|counts| share.files(counts)).collect();
    let mut total = written.iter().map(|(_, _, file)| file.count).sum();
    Target::add(counters, written.iter().map(|(_, _, file)| file));
    for unit in alone {
        let files = write_unit(work, &unit, draft, |count| {
            total += count;
            show(total);
        })?;
        let numbered = files.into_iter().enumerate();
        written.extend(numbered.map(|(before, file)| (unit.resource_type.clone(), unit.numbers.at(before), file)));
    }
    if let Some(begun) = begun {
        let files = begun.finish(draft, |seen| show(total + seen))?;
        work.target.check_budget(written.iter().chain(&files).map(|(_, _, file)| file))?;
        written.extend(files);
    }
    written.sort_by_key(|(name, number, _)| (work.kickoff.types.iter().position(|known| known == name), *number));
    Ok(written.into_iter().map(|(name, _, file)| (name, file)).collect())
}

/// Writes the files of a unit.
fn write_unit(work: &Work, unit: &Unit, draft: &Draft, mut progress: impl FnMut(u64)) -> Result<Vec<Written>> {
    let (kickoff, name) = (&work.kickoff, &unit.resource_type);
    let mut files = Files::new(draft, name, work.target.format()).numbered(unit.numbers);
    if let Some(associated) = associated(work, name)? {
        let mut reader = work.open(name, Rows::All, kickoff.filters.of(name)?)?;
        write_wanted(&associated, &mut reader, &mut files, progress)?;
        return files.finish();
    }
    for span in work.spans() {
        match Linked::of(kickoff, span.patients.as_ref(), name) {
            Some(linked) => {
                let mut reader = work.reader_with(unit, &span, kickoff.filters.of(name)?)?;
                write_wanted(&linked, &mut reader, &mut files, &mut progress)?;
            }
            None => files.write_all(&mut work.reader(unit, &span)?, &mut progress)?,
        }
    }
    files.finish()
}

/// Passes to `handle` what `take` makes of each resource of a type that is exported.
///
/// # Errors
/// The errors of the tables.
pub fn each_written<T>(
    work: &Work,
    name: &str,
    take: impl Fn(Resource<'_>) -> T,
    mut handle: impl FnMut(&T),
) -> Result<()> {
    let (kickoff, unit) = (&work.kickoff, Unit::whole(name));
    if let Some(associated) = associated(work, name)? {
        return each_wanted(&associated, &mut work.open(name, Rows::All, kickoff.filters.of(name)?)?, take, handle);
    }
    for span in work.spans() {
        if let Some(linked) = Linked::of(kickoff, span.patients.as_ref(), name) {
            let mut reader = work.reader_with(&unit, &span, kickoff.filters.of(name)?)?;
            each_wanted(&linked, &mut reader, &take, &mut handle)?;
            continue;
        }
        work.reader(&unit, &span)?.each(|stored| {
            handle(&take(stored.resource));
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(())
}

/// What decides which resources of a type are exported as associated data, if they are.
fn associated<'a>(work: &'a Work, name: &str) -> Result<Option<OfExported<'a>>> {
    let mut associated = OfExported::of(&work.kickoff, name, work.spans())?;
    if let Some(associated) = &mut associated {
        associated.find_newest(|| work.open(name, Rows::All, None))?;
    }
    Ok(associated)
}

/// What was written of a unit: its number, whether it was undivided, and the number of lines and bytes of each of its files.
/// It is short because the results of helpers have a size limit, and there may be many files.
type Counts = (usize, bool, Vec<(u64, u64)>);

impl Share {
    /// Writes units until none is left. Calls `show` with the total that all processes have written.
    fn write(&self, draft: &Draft, part: Part<'_>, show: impl Fn(u64)) -> Result<Vec<Counts>> {
        let draft = &self.work.target.draft(draft, part.counters());
        let mut written = Vec::new();
        loop {
            let number = part.take();
            let Some(unit) = self.units.get(number) else { return Ok(written) };
            let is_whole = part.is_alone();
            let unit = if is_whole { unit.undivided() } else { Some(unit.clone()) };
            if let Some(unit) = unit {
                let files = write_unit(&self.work, &unit, draft, |count| show(part.add(count)))?;
                written.push((
                    number,
                    is_whole,
                    files.iter().map(|file| (file.count, file.bytes.unwrap_or(0))).collect(),
                ));
            }
        }
    }

    /// The files of a unit that was written.
    fn files(&self, (number, is_whole, counts): &Counts) -> Vec<Numbered> {
        let unit = &self.units[*number];
        let unit = if *is_whole { unit.undivided().expect("it was written") } else { unit.clone() };
        let file = |(before, &(count, bytes)): (usize, &(u64, u64))| {
            let number = unit.numbers.at(before);
            let name = self.work.target.format().name(&unit.resource_type, number);
            (unit.resource_type.clone(), number, Written { name, count, bytes: Some(bytes), continues_in: None })
        };
        counts.iter().enumerate().map(file).collect()
    }
}

/// Runs in a helper: writes units, and returns what it wrote.
pub fn help(part: Part<'_>) -> Vec<u8> {
    let share: Share = serde_json::from_slice(part.input()).expect("as write() makes it");
    let location = or_raise(share.work.target.location());
    let draft = or_raise(location.join(&share.work.target.folder));
    let written = or_raise(share.write(&draft, part, |_| ()));
    serde_json::to_vec(&written).expect("numbers")
}
