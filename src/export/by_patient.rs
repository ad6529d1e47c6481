//! Writes an export by patient (`organizeOutputBy=Patient`): each patient's resources one after the other, behind a header.
//! First processes read the tables in any order and put what they find into partitions on disk; then they write the files,
//! partition by partition. Both take memory for one partition's keys, however many resources there are.

use super::batches::{BATCH, Decider as _, Making, each_batch};
use super::blocks::Blocks;
use super::by_type::Typed;
use super::edges::{EdgeWriter, Partition, partitions};
use super::files::{Files, Numbers};
use super::provenance::Linked;
use super::target::{Counters, Target};
use super::units::{self, Unit};
use super::work::Work;
use super::written::Written;
use crate::extension::LIBRARY;
use crate::settings;
use crate::sink::Draft;
use crate::store::{Membership, ResourceTable, ResourceType};
use crate::stream::More;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::error::{Result, or_raise};
use fhir_bulk_pg::parallel::{self, Help, Part};
use fhir_bulk_pg::session;
use fhir_bulk_pg::spill::SpillSet;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// The exported functions that call [`help_to_sort`] and [`help_to_write`] in a helper.
const SORT: Help = Help { library: LIBRARY, function: c"fhir_bulk_export_sort_helper" };
const WRITE: Help = Help { library: LIBRARY, function: c"fhir_bulk_export_write_helper" };

/// The names of the files begin with this.
const STEM: &str = "by-patient";

/// What the processes do that read the tables.
#[derive(Serialize, Deserialize)]
struct Sorting {
    work: Work,
    set: u32,
    partitions: u32,
    units: Vec<Unit>,
}

/// What the processes do that write the files.
#[derive(Serialize, Deserialize)]
struct Writing {
    target: Target,
    set: u32,
    partitions: u32,
    /// The names of the processes that have read the tables.
    writers: Vec<u32>,
}

/// Lines and bytes of the files that a process has written, and the partition that it wrote first, which numbers them.
type Counts = (u32, Vec<FileCounts>);
/// Lines, bytes, and whether the last block goes on in the next file.
type FileCounts = (u64, u64, bool);

/// Writes the files, with helpers where the tables allow it. Calls `show` with how many resources have been read. Returns the
/// files, and how many resources of patients there are: each once, however many patients it belongs to.
///
/// # Errors
/// The errors of the tables and of the sink.
pub fn write(work: &Work, draft: &Draft<'_>, counters: &Counters, show: impl Fn(u64)) -> Result<(Vec<Typed>, u64)> {
    let workers = settings::export::workers();
    let set = SpillSet::new();
    let (together, alone) = units::divide(&work.kickoff, workers)?;
    let (partitions, helpers) = (partitions(bytes(work)?, workers), workers.min(together.len()).saturating_sub(1));

    let sorting = Sorting { work: work.clone(), set: set.handle(), partitions, units: together };
    let input = serde_json::to_vec(&sorting).expect("an object of texts and numbers");
    let mut edges = EdgeWriter::new(set, std::process::id(), partitions);
    let (mine, others) = parallel::run(SORT, helpers, &input, |part| sorting.run(&mut edges, part, &show));
    let (mut total, mut writers) = (mine?, vec![std::process::id()]);
    for result in others {
        let (name, count): (u32, u64) = serde_json::from_slice(&result).expect("as help_to_sort() makes it");
        writers.push(name);
        total += count;
    }
    for unit in &alone {
        let before = total;
        total += add(work, unit, &mut edges, |count| show(before + count))?;
    }
    edges.finish();

    let writing = Writing { target: work.target.clone(), set: set.handle(), partitions, writers };
    let input = serde_json::to_vec(&writing).expect("an object of texts and numbers");
    let helpers = workers.min(partitions as usize).saturating_sub(1);
    let (mine, others) = parallel::run(WRITE, helpers, &input, |part| writing.run(set, draft, part));
    let mut counts = vec![mine?];
    counts.extend(others.iter().map(|result| serde_json::from_slice(result).expect("as help_to_write() makes it")));
    set.close();
    let mut written: Vec<(usize, Written)> = counts.iter().flat_map(|counts| writing.files(counts)).collect();
    Target::add(counters, written.iter().map(|(_, file)| file));
    written.sort_by_key(|(number, _)| *number);
    Ok((written.into_iter().map(|(_, file)| (String::new(), file)).collect(), total))
}

/// How large the tables are.
fn bytes(work: &Work) -> Result<u64> {
    let of_type = |name: &String| Ok(ResourceTable::get(&ResourceType::new(name)?)?.bytes());
    work.kickoff.types.iter().map(of_type).sum()
}

impl Sorting {
    /// Reads units until none is left. Returns how many resources of patients they had.
    fn run(&self, edges: &mut EdgeWriter, part: Part<'_>, show: impl Fn(u64)) -> Result<u64> {
        let mut total = 0;
        while let Some(unit) = self.units.get(part.take()) {
            let mut before = 0;
            total += add(&self.work, unit, edges, |count| {
                show(part.add(count - before));
                before = count;
            })?;
        }
        Ok(total)
    }
}

/// Adds the resources of a unit. Calls `progress` with how many it has added. Returns that number.
fn add(work: &Work, unit: &Unit, edges: &mut EdgeWriter, mut progress: impl FnMut(u64)) -> Result<u64> {
    let (kickoff, name) = (&work.kickoff, &unit.resource_type);
    // The patient comes first.
    let position = kickoff.types.iter().position(|known| known == name).unwrap_or(0);
    let rank = if name == "Patient" { 0 } else { position as u16 + 1 };
    let mut count = 0;
    for span in work.spans() {
        let mut reader = work.reader_with(unit, &span, kickoff.filters.of(name)?)?;
        if let Some(linked) = Linked::of(kickoff, span.patients.as_ref(), name) {
            let candidate = |resource: Resource<'_>| (resource.id.to_owned(), linked.candidate(resource));
            each_batch(&mut reader, Making::Lines, candidate, |batch| {
                let patients = linked.patients(batch.candidates.iter().map(|(_, candidate)| candidate))?;
                for (((id, _), line), patients) in batch.candidates.iter().zip(batch.lines()).zip(&patients) {
                    patients.iter().for_each(|patient| edges.add(patient.as_bytes(), rank, id.as_bytes(), line));
                    count += u64::from(!patients.is_empty());
                }
                progress(count);
                Ok(())
            })?;
            continue;
        }
        let membership = Membership::new(name, span.patients.clone());
        let (mut line, mut more) = (Vec::new(), More::Yes);
        while more == More::Yes {
            let mut read = 0;
            more = reader.each(|stored| {
                let (resource, mut patients) = (stored.resource, Vec::new());
                let _ = membership.each(resource, |id| {
                    if !patients.contains(&id) {
                        patients.push(id);
                    }
                    ControlFlow::Continue(())
                });
                if !patients.is_empty() {
                    line.clear();
                    stored.write(&mut line)?;
                    line.push(b'\n');
                    count += 1;
                }
                for patient in patients {
                    edges.add(patient, rank, resource.id.as_bytes(), &line);
                }
                read += 1;
                Ok(if read == BATCH { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            progress(count);
        }
    }
    Ok(count)
}

impl Writing {
    /// Writes partitions until none is left.
    fn run(&self, set: SpillSet, draft: &Draft<'_>, part: Part<'_>) -> Result<Counts> {
        let draft = self.target.draft(draft, part.counters());
        let first = part.take() as u32;
        let numbers = Numbers { first: first as usize + 1, step: self.partitions as usize };
        let mut blocks = Blocks::new(Files::new(&draft, STEM, self.target.format()).numbered(numbers));
        let mut partition = first;
        while partition < self.partitions {
            let mut read = Partition::read(set, partition, &self.writers)?;
            let mut lines = read.lines();
            for (patient, edges) in read.blocks() {
                blocks.write(patient, edges, &mut lines)?;
                session::check_for_interrupts();
            }
            lines.close();
            partition = part.take() as u32;
        }
        let counts = |file: &Written| (file.count, file.bytes.unwrap_or(0), file.continues_in.is_some());
        Ok((first, blocks.finish()?.iter().map(counts).collect()))
    }

    /// The files of a process, with their numbers.
    fn files<'c>(&self, (first, counts): &'c Counts) -> impl Iterator<Item = (usize, Written)> + 'c {
        let numbers = Numbers { first: *first as usize + 1, step: self.partitions as usize };
        let format = self.target.format();
        counts.iter().enumerate().map(move |(before, &(count, bytes, continues))| {
            let name = |before| format.name(STEM, numbers.at(before));
            let continues_in = continues.then(|| name(before + 1));
            (numbers.at(before), Written { name: name(before), count, bytes: Some(bytes), continues_in })
        })
    }
}

/// Runs in a helper: reads units, and returns its name and how many resources of patients they had.
pub fn help_to_sort(part: Part<'_>) -> Vec<u8> {
    let sorting: Sorting = serde_json::from_slice(part.input()).expect("as write() makes it");
    let name = std::process::id();
    let mut edges = EdgeWriter::new(SpillSet::join(sorting.set), name, sorting.partitions);
    let count = or_raise(sorting.run(&mut edges, part, |_| ()));
    edges.finish();
    serde_json::to_vec(&(name, count)).expect("numbers")
}

/// Runs in a helper: writes partitions, and returns what it wrote.
pub fn help_to_write(part: Part<'_>) -> Vec<u8> {
    let writing: Writing = serde_json::from_slice(part.input()).expect("as write() makes it");
    let location = or_raise(writing.target.location());
    let draft = or_raise(location.join(&writing.target.folder));
    let written = or_raise(writing.run(SpillSet::join(writing.set), &draft, part));
    serde_json::to_vec(&written).expect("numbers")
}
