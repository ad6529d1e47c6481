//! Writes files of subjects of SQL on FHIR: one for each, or several that are each whole.

use super::by_type::Typed;
use super::files::{BATCH_BYTES, Files, Format, KEEP_BYTES};
use super::subjects::{Subjects, Table};
use super::work::Work;
use super::written::Written;
use crate::sink::Draft;
use crate::stream::{Divisible as _, Lines as _, More};
use crate::subject::Body;
use fhir_bulk_pg::error::Result;

/// Writes the files of all subjects, one after the other. Calls `show` with how many rows there are so far. Returns the files
/// with the names of their subjects, in the order of the request, and how many rows they have.
///
/// # Errors
/// The errors of the subjects and of the sink.
pub fn write(work: &Work, subjects: &Subjects, draft: &Draft<'_>, show: impl Fn(u64)) -> Result<(Vec<Typed>, u64)> {
    let format = Format { table: Some(subjects.extension()), ..work.target.format() };
    let (mut written, mut total) = (Vec::new(), 0);
    for (at, Table { name, stem, .. }) in subjects.tables.iter().enumerate() {
        let files = Files::new(draft, stem, format);
        let files = subjects.of(at, |body| write_one(body, files, |rows| show(total + rows)))?;
        total += files.iter().map(|file| file.count).sum::<u64>();
        written.extend(files.into_iter().map(|file| (name.clone(), file)));
    }
    Ok((written, total))
}

/// Writes all rows of a subject. When a file is full, its body ends before the next row, and another one begins. There is a
/// file even if there are no rows.
fn write_one(body: &mut Body, mut files: Files<'_>, show: impl Fn(u64)) -> Result<Vec<Written>> {
    files.begin()?;
    let (mut out, has_lines) = (Vec::new(), body.has_lines());
    loop {
        let (before, enough) = (body.division().rows, files.room().min(BATCH_BYTES));
        let more = body.read(&mut out, |out| {
            if has_lines {
                out.push(b'\n');
            }
            out.len() as u64 >= enough
        })?;
        let begun = body.division().take();
        if let Some(at) = begun {
            files.append(&out[..at], 0)?;
            files.end_file()?;
        }
        let rows = body.division().rows;
        files.append(&out[begun.unwrap_or(0)..], rows - before)?;
        show(rows);
        if more == More::No {
            return files.finish();
        }
        if files.room() == 0 {
            body.division().ask();
        }
        out.clear();
        out.shrink_to(KEEP_BYTES);
    }
}
