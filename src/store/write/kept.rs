//! Rows that a running statement has taken, in a temporary file: if it fails because some are known, they are written in another
//! way.

use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::guc;
use fhir_bulk_pg::spill::{SpillSet, SpillWriter};
use pgrx::PgSqlErrorCode;
use std::collections::TryReserveError;

/// The most bytes of a file: a statement that takes as many rows waits for its slowest shard seldom enough.
pub(super) const MOST_BYTES: u64 = 256 << 20;

/// The rows of one statement.
pub(super) struct Kept {
    /// Made with the first row.
    file: Option<(SpillSet, SpillWriter)>,
    rows: u64,
    bytes: u64,
    most_bytes: u64,
}

impl Kept {
    /// None yet.
    pub fn new() -> Kept {
        Kept { file: None, rows: 0, bytes: 0, most_bytes: most_bytes() }
    }

    /// Whether there is room for this row, too.
    pub fn has_room(&self, id: &str, resource: &[u8]) -> bool {
        self.bytes + Kept::bytes_of(id, resource) <= self.most_bytes
    }

    /// How many bytes a row takes.
    pub fn bytes_of(id: &str, resource: &[u8]) -> u64 {
        (Head::BYTES + id.len() + resource.len()) as u64
    }

    /// How many there are.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds a row. Raises PostgreSQL's errors: 53100 if the disk is full, 53400 beyond `temp_file_limit`.
    pub fn keep(&mut self, id: &str, resource: &[u8], created_at: Option<i64>) {
        let (_, file) = self.file.get_or_insert_with(|| {
            let set = SpillSet::new();
            (set, set.create(NAME))
        });
        let head = Head { id_bytes: id.len() as u32, resource_bytes: resource.len() as u32, created_at };
        for part in [&head.to_bytes()[..], id.as_bytes(), resource] {
            file.write(part);
            self.bytes += part.len() as u64;
        }
        self.rows += 1;
    }

    /// Passes all rows to `take`, in their order, and forgets them.
    ///
    /// # Errors
    /// Those of `take`; 53200 if there is no memory for a row.
    pub fn each(self, mut take: impl FnMut(&str, &[u8], Option<i64>) -> Result<()>) -> Result<()> {
        let Some((set, writer)) = self.file else { return Ok(()) };
        writer.finish();
        let mut reader = set.open(NAME).expect("finished above");
        let (mut head, mut row) = ([0; Head::BYTES], Vec::new());
        while reader.read(&mut head) {
            let Head { id_bytes, resource_bytes, created_at } = Head::of_bytes(head);
            let bytes = id_bytes as usize + resource_bytes as usize;
            row.clear();
            row.try_reserve(bytes).map_err(out_of_memory)?;
            row.resize(bytes, 0);
            reader.read(&mut row);
            let (id, resource) = row.split_at(id_bytes as usize);
            take(str::from_utf8(id).expect("kept as text"), resource, created_at)?;
        }
        reader.close();
        set.close();
        Ok(())
    }

    /// Deletes the file.
    pub fn forget(self) {
        if let Some((set, writer)) = self.file {
            writer.finish();
            set.close();
        }
    }
}

const NAME: &str = "rows";

/// The error for a row that the memory has no room for.
pub(super) fn out_of_memory(_: TryReserveError) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory")
}

/// What is before the id and the resource of a row.
struct Head {
    id_bytes: u32,
    resource_bytes: u32,
    created_at: Option<i64>,
}

impl Head {
    const BYTES: usize = 17;

    fn to_bytes(&self) -> [u8; Head::BYTES] {
        let mut bytes = [0; Head::BYTES];
        bytes[..4].copy_from_slice(&self.id_bytes.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.resource_bytes.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.created_at.unwrap_or_default().to_ne_bytes());
        bytes[16] = self.created_at.is_some().into();
        bytes
    }

    fn of_bytes(bytes: [u8; Head::BYTES]) -> Head {
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let created_at = i64::from_ne_bytes(bytes[8..16].try_into().expect("8 bytes"));
        Head { id_bytes: word(0), resource_bytes: word(4), created_at: (bytes[16] == 1).then_some(created_at) }
    }
}

/// Not more than half of `temp_file_limit`, in kB: the session may have other files.
pub(super) fn most_bytes() -> u64 {
    let limit = guc::get(c"temp_file_limit").and_then(|limit| limit.to_str().ok()?.parse::<u64>().ok());
    limit.map_or(MOST_BYTES, |kilobytes| (kilobytes << 10 >> 1).min(MOST_BYTES))
}
