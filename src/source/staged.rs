//! Bytes that a client has handed over before: piece by piece, in the transaction that then loads them. They wait in a
//! temporary file, which takes them in a third of the time of COPY into a temporary table of bytea.

use super::opened::{Bytes, Progress, Source};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::temporary::TemporaryFile;
use fhir_bulk_pg::transaction::{self, SubtransactionEnd};
use pgrx::PgSqlErrorCode;
use std::cell::RefCell;
use std::io;

/// What loads call them.
pub const URL: &str = "staged://";
/// How much is read at once.
const BLOCK_BYTES: usize = 64 << 10;
/// What messages call them.
const NAME: &str = "the staged bytes";

thread_local! {
    static STAGED: RefCell<Option<Staged>> = const { RefCell::new(None) };
}

struct Staged {
    file: TemporaryFile,
    bytes: u64,
    /// The (sub)transactions that have added to it, the outermost first, with how much there was before each.
    parts: Vec<(u32, u64)>,
}

/// Adds a piece; how many bytes there are now.
///
/// # Errors
/// 53100 when the disk is full, 58030 otherwise; 53400 beyond temp_file_limit is raised.
pub fn add(piece: &[u8]) -> Result<u64> {
    if STAGED.with_borrow(|staged| staged.as_ref().is_none_or(|staged| !staged.file.is_open())) {
        transaction::at_subtransaction_end(subtransaction_ended);
        STAGED.set(Some(Staged { file: TemporaryFile::create(), bytes: 0, parts: Vec::new() }));
    }
    let part = transaction::subtransaction();
    STAGED.with_borrow_mut(|staged| {
        let Staged { file, bytes, parts } = staged.as_mut().expect("there is one");
        if parts.last().is_none_or(|(last, _)| *last != part) {
            parts.push((part, *bytes));
        }
        // What an error leaves behind is not counted, and written over by the next piece.
        file.write_at(piece, *bytes).map_err(|error| failure(&error))?;
        *bytes += piece.len() as u64;
        Ok(*bytes)
    })
}

/// Opens what is staged, which this uses up.
///
/// # Errors
/// 55000 when nothing is.
pub fn open() -> Result<Source> {
    let staged = STAGED.take().filter(|staged| staged.file.is_open() && !staged.parts.is_empty()).ok_or_else(|| {
        Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "no bytes are staged in this transaction")
            .hint("BEGIN; SELECT bulk_load_stage(…) for each piece; then bulk_load('staged://', …); COMMIT.")
    })?;
    let progress = Progress::default();
    progress.set_total(staged.bytes);
    let mut reader = Reader { file: staged.file, at: 0, end: staged.bytes, progress: progress.clone() };
    Ok(Source { name: NAME.to_owned(), bytes: Bytes::Here(Box::new(move || reader.read())), progress })
}

/// What a rolled back subtransaction has added is gone; what a released one has is its parent's.
fn subtransaction_ended(end: SubtransactionEnd) {
    STAGED.with_borrow_mut(|staged| {
        let Some(Staged { bytes, parts, .. }) = staged else { return };
        match (end, parts.last().copied()) {
            (SubtransactionEnd::Aborted { id }, Some((last, before))) if last == id => {
                *bytes = before;
                parts.pop();
            }
            (SubtransactionEnd::Committed { id, parent }, Some((last, before))) if last == id => {
                parts.pop();
                if parts.last().is_none_or(|(outer, _)| *outer != parent) {
                    parts.push((parent, before));
                }
            }
            _ => {}
        }
    });
}

struct Reader {
    file: TemporaryFile,
    at: u64,
    end: u64,
    progress: Progress,
}

impl Reader {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let left = self.end - self.at;
        if left == 0 {
            self.file.close();
            return Ok(Vec::new());
        }
        let mut block = vec![0; usize::try_from(left).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES)];
        let count = self.file.read_at(&mut block, self.at)?;
        if count == 0 {
            return Err(io::Error::other("the temporary file is shorter than what was staged"));
        }
        block.truncate(count);
        self.at += count as u64;
        self.progress.advance(count);
        Ok(block)
    }
}

fn failure(error: &io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull => PgSqlErrorCode::ERRCODE_DISK_FULL,
        _ => PgSqlErrorCode::ERRCODE_IO_ERROR,
    };
    Error::new(code, format!("could not stage bytes in a temporary file: {error}"))
}
