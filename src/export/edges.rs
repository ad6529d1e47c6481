//! Which resources belong to which patients, with the resources' lines, on disk while an export is sorted by patient.
//!
//! An edge is one resource of one patient. All edges of a patient are in one partition, and each process writes files of its
//! own for each partition: one with the lines, and one with the keys that sort them. Keys of one partition fit in memory.

use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::spill::{Place, SpillReader, SpillSet, SpillWriter};
use pgrx::PgSqlErrorCode;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

/// About how many bytes of tables go into a partition.
const BYTES_EACH: u64 = 32 << 20;
/// Each takes two open files and 16 kB of each process.
const MOST: u64 = 1024;
/// The bytes of a key before its texts.
const KEY_BYTES: usize = 26;

/// How many partitions tables of a size are divided into, for processes that share them.
pub fn partitions(bytes: u64, processes: usize) -> u32 {
    let least = if bytes > BYTES_EACH / 4 { processes as u64 * 4 } else { 1 };
    bytes.div_ceil(BYTES_EACH).clamp(least, MOST.max(least)) as u32
}

/// Writes the edges that one process finds.
pub struct EdgeWriter {
    files: Vec<Files>,
    key: Vec<u8>,
}

struct Files {
    keys: SpillWriter,
    lines: SpillWriter,
}

impl EdgeWriter {
    /// `name` is a name that no other process uses.
    pub fn new(set: SpillSet, name: u32, partitions: u32) -> EdgeWriter {
        let files = |partition| Files {
            keys: set.create(&file_name("keys", partition, name)),
            lines: set.create(&file_name("lines", partition, name)),
        };
        EdgeWriter { files: (0..partitions).map(files).collect(), key: Vec::new() }
    }

    /// Adds a resource of a patient: the rank of its type within the patient's resources, its id, and its line.
    pub fn add(&mut self, patient: &[u8], rank: u16, id: &[u8], line: &[u8]) {
        let mut hasher = DefaultHasher::new();
        patient.hash(&mut hasher);
        let partition = hasher.finish() % self.files.len() as u64;
        let EdgeWriter { files, key } = self;
        let Files { keys, lines } = &mut files[partition as usize];
        key.clear();
        key.extend_from_slice(&rank.to_ne_bytes());
        for length in [patient.len(), id.len(), line.len()] {
            // No value of PostgreSQL's is larger than 1 GB.
            key.extend_from_slice(&(length as u32).to_ne_bytes());
        }
        key.extend_from_slice(&lines.place().to_bytes());
        debug_assert_eq!(key.len(), KEY_BYTES);
        key.extend_from_slice(patient);
        key.extend_from_slice(id);
        keys.write(key);
        lines.write(line);
    }

    /// Ends the files, so that others can read them.
    pub fn finish(self) {
        for Files { keys, lines } in self.files {
            keys.finish();
            lines.finish();
        }
    }
}

/// One resource of one patient.
pub struct Edge {
    /// Where patient and id are among the partition's texts.
    patient: Range<usize>,
    id: Range<usize>,
    rank: u16,
    writer: u32,
    place: Place,
    /// How many bytes its line has.
    pub bytes: u32,
}

/// The edges of a partition, sorted by patient, rank and id.
pub struct Partition {
    edges: Vec<Edge>,
    texts: Vec<u8>,
    lines: Vec<SpillReader>,
}

impl Partition {
    /// Reads the keys that the processes of these names have written.
    ///
    /// # Errors
    /// 53200 if they do not fit in memory. PostgreSQL raises its own errors.
    pub fn read(set: SpillSet, partition: u32, names: &[u32]) -> Result<Partition> {
        let mut read = Partition { edges: Vec::new(), texts: Vec::new(), lines: Vec::new() };
        for name in names {
            let opened = ["keys", "lines"].map(|kind| set.open(&file_name(kind, partition, *name)));
            let [Some(mut keys), Some(lines)] = opened else { continue };
            read.read_keys(&mut keys)?;
            keys.close();
            read.lines.push(lines);
        }
        let Partition { edges, texts, .. } = &mut read;
        let text = |range: &Range<usize>| &texts[range.clone()];
        edges.sort_unstable_by(|a, b| {
            let patients = text(&a.patient).cmp(text(&b.patient));
            patients.then(a.rank.cmp(&b.rank)).then_with(|| text(&a.id).cmp(text(&b.id)))
        });
        Ok(read)
    }

    fn read_keys(&mut self, keys: &mut SpillReader) -> Result<()> {
        let writer = self.lines.len() as u32;
        let mut key = [0; KEY_BYTES];
        while keys.read(&mut key) {
            let number = |at: usize| u32::from_ne_bytes(key[at..at + 4].try_into().expect("4 bytes"));
            let (patient, id) = (number(2) as usize, number(6) as usize);
            let start = self.texts.len();
            let is_room = self.texts.try_reserve(patient + id).and_then(|()| self.edges.try_reserve(1));
            is_room.map_err(|_| too_many())?;
            self.texts.resize(start + patient + id, 0);
            keys.read(&mut self.texts[start..]);
            self.edges.push(Edge {
                patient: start..start + patient,
                id: start + patient..start + patient + id,
                rank: u16::from_ne_bytes([key[0], key[1]]),
                writer,
                place: Place::from_bytes(key[14..].try_into().expect("12 bytes")),
                bytes: number(10),
            });
        }
        Ok(())
    }

    /// The edges of each patient.
    pub fn blocks(&self) -> impl Iterator<Item = (&[u8], &[Edge])> {
        let patient = |edge: &Edge| &self.texts[edge.patient.clone()];
        let blocks = self.edges.chunk_by(move |a, b| patient(a) == patient(b));
        blocks.map(move |edges| (patient(&edges[0]), edges))
    }

    /// Takes the files of the lines.
    pub fn lines(&mut self) -> EdgeLines {
        EdgeLines(std::mem::take(&mut self.lines))
    }
}

/// The lines of a partition.
pub struct EdgeLines(Vec<SpillReader>);

impl EdgeLines {
    /// Appends the line of an edge.
    ///
    /// # Errors
    /// 53200 if it does not fit in memory.
    pub fn read(&mut self, edge: &Edge, out: &mut Vec<u8>) -> Result<()> {
        let (start, bytes) = (out.len(), edge.bytes as usize);
        out.try_reserve(bytes).map_err(|_| too_many())?;
        out.resize(start + bytes, 0);
        let file = &mut self.0[edge.writer as usize];
        file.seek(edge.place);
        file.read(&mut out[start..]);
        Ok(())
    }

    /// Closes the files.
    pub fn close(self) {
        self.0.into_iter().for_each(SpillReader::close);
    }
}

fn file_name(kind: &str, partition: u32, name: u32) -> String {
    format!("{kind}.{partition}.{name}")
}

fn too_many() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory while an export is sorted by patient")
}
