//! Reads resources in batches, so that what decides about them can be looked up for many at a time.

use super::files::Files;
use crate::store::Reader;
use crate::stream::More;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::memory;
use std::ops::ControlFlow;

/// How many resources are decided at a time.
pub const BATCH: usize = 1000;
/// How many bytes of them.
const BATCH_BYTES: usize = 4 << 20;

/// Decides which resources are wanted, many at a time.
pub trait Decider {
    /// What decides about a resource.
    type Candidate;

    /// Takes what decides about a resource.
    fn candidate(&self, resource: Resource<'_>) -> Self::Candidate;

    /// Whether they are wanted, in their order.
    ///
    /// # Errors
    /// The errors of the tables in which this is looked up.
    fn decide<'c>(&self, candidates: impl Iterator<Item = &'c Self::Candidate> + Clone) -> Result<Vec<bool>>
    where
        Self::Candidate: 'c;
}

/// Writes those resources of a reader that are wanted. Calls `progress` with the number of resources in each batch.
///
/// # Errors
/// The errors of the reader, of the decider and of the sink.
pub fn write_wanted(
    decider: &impl Decider,
    reader: &mut Reader,
    files: &mut Files<'_>,
    mut progress: impl FnMut(u64),
) -> Result<()> {
    each_batch(
        reader,
        Making::Lines,
        |resource| decider.candidate(resource),
        |batch| {
            progress(batch.write(&decider.decide(batch.candidates.iter())?, files)?);
            Ok(())
        },
    )
}

/// Passes to `handle` what `take` makes of those resources of a reader that are wanted.
///
/// # Errors
/// The errors of the reader and of the decider.
pub fn each_wanted<T>(
    decider: &impl Decider,
    reader: &mut Reader,
    take: impl Fn(Resource<'_>) -> T,
    mut handle: impl FnMut(&T),
) -> Result<()> {
    each_batch(
        reader,
        Making::Nothing,
        |resource| (decider.candidate(resource), take(resource)),
        |batch| {
            let decided = decider.decide(batch.candidates.iter().map(|(candidate, _)| candidate))?;
            let wanted = batch.candidates.iter().zip(decided).filter(|(_, is_wanted)| *is_wanted);
            wanted.for_each(|((_, taken), _)| handle(taken));
            Ok(())
        },
    )
}

/// Whether the lines of resources are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Making {
    Lines,
    Nothing,
}

/// What decides about each resource of a batch, and their lines.
pub struct Batch<C> {
    pub candidates: Vec<C>,
    lines: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl<C> Batch<C> {
    /// Their lines, each with its newline.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.lines[start..*end])
    }

    /// Writes the lines of the resources that are wanted. Returns how many they are.
    ///
    /// # Errors
    /// The errors of the sink.
    fn write(&self, wanted: &[bool], files: &mut Files<'_>) -> Result<u64> {
        let (mut lines, mut count, mut start) = (Vec::new(), 0, 0);
        for (end, is_wanted) in self.ends.iter().zip(wanted) {
            if *is_wanted {
                lines.extend_from_slice(&self.lines[start..*end]);
                count += 1;
            }
            start = *end;
        }
        files.write(&lines, count)?;
        Ok(count)
    }
}

/// Reads all resources of a reader. `candidate` takes what decides about each, `handle` gets them batch by batch.
///
/// # Errors
/// The errors of the reader and of `handle`.
pub fn each_batch<C>(
    reader: &mut Reader,
    making: Making,
    candidate: impl Fn(Resource<'_>) -> C,
    mut handle: impl FnMut(&Batch<C>) -> Result<()>,
) -> Result<()> {
    let mut batch = Batch { candidates: Vec::new(), lines: Vec::new(), ends: Vec::new() };
    loop {
        let mut bytes = 0;
        let more = reader.each(|stored| {
            bytes += stored.resource.json.len();
            if making == Making::Lines {
                stored.write(&mut batch.lines)?;
                batch.lines.push(b'\n');
                batch.ends.push(batch.lines.len());
            }
            batch.candidates.push(candidate(stored.resource));
            let is_full = batch.candidates.len() >= BATCH || bytes.max(batch.lines.len()) >= BATCH_BYTES;
            Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        // What lookups leave in PostgreSQL's memory is freed now: there may be thousands of batches in one transaction.
        memory::with_scratch(|| handle(&batch))?;
        if more == More::No {
            return Ok(());
        }
        batch.candidates.clear();
        batch.ends.clear();
        batch.lines.clear();
        batch.lines.shrink_to(BATCH_BYTES);
    }
}
