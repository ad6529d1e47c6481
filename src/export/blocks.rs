//! Writes blocks: a header that names a patient, and the patient's resources.

use super::edges::{Edge, EdgeLines};
use super::files::Files;
use super::written::Written;
use fhir_bulk_codec::jsonb::text::write_string;
use fhir_bulk_pg::error::Result;

/// How many bytes of lines are collected before they are written: most blocks are smaller.
const WRITE_BYTES: usize = 256 << 10;
/// A buffer that a huge resource made larger than this is shrunk to this size.
const KEEP_BYTES: usize = 4 << 20;

/// Writes blocks into files.
pub struct Blocks<'a> {
    files: Files<'a>,
    /// Lines that are not written yet.
    lines: Vec<u8>,
    count: u64,
}

impl<'a> Blocks<'a> {
    /// Creates no file before the first block.
    pub fn new(files: Files<'a>) -> Blocks<'a> {
        Blocks { files, lines: Vec::new(), count: 0 }
    }

    /// Writes a patient's block. It is in one file unless it is larger than a file may be.
    ///
    /// # Errors
    /// 53200 for a line that does not fit in memory; the errors of the sink.
    pub fn write(&mut self, patient: &[u8], edges: &[Edge], from: &mut EdgeLines) -> Result<()> {
        let header = header(patient);
        let bytes = header.len() as u64 + edges.iter().map(|edge| u64::from(edge.bytes)).sum::<u64>();
        if self.lines.len() as u64 + bytes > self.files.room() {
            self.flush()?;
            self.files.begin_block(bytes)?;
        }
        self.add(&header);
        for (number, edge) in edges.iter().enumerate() {
            from.read(edge, &mut self.lines)?;
            self.count += 1;
            if self.lines.len() < WRITE_BYTES && (self.lines.len() as u64) < self.files.room() {
                continue;
            }
            self.flush()?;
            if self.files.room() == 0 && number + 1 < edges.len() {
                self.files.continue_in_next()?;
                self.add(&header);
            }
        }
        Ok(())
    }

    /// Ends the last file. Returns all files.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn finish(mut self) -> Result<Vec<Written>> {
        self.flush()?;
        self.files.finish()
    }

    fn add(&mut self, line: &[u8]) {
        self.lines.extend_from_slice(line);
        self.count += 1;
    }

    fn flush(&mut self) -> Result<()> {
        self.files.write(&self.lines, std::mem::take(&mut self.count))?;
        self.lines.clear();
        self.lines.shrink_to(KEEP_BYTES);
        Ok(())
    }
}

/// The line that begins a patient's resources, as HL7 has it.
fn header(patient: &[u8]) -> Vec<u8> {
    let mut line =
        br#"{"resourceType":"Parameters","parameter":[{"name":"header","valueReference":{"reference":"#.to_vec();
    write_string(&[b"Patient/", patient].concat(), &mut line);
    line.extend_from_slice(b"}}]}\n");
    line
}
