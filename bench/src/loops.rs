//! The hot loops without a server: lines into jsonb bytes, as a load encodes them; back, as a dump writes them; and into the
//! rows of a view.

use std::fs;
use std::ops::ControlFlow::{self, Continue};
use std::rc::Rc;

use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::resource::{Encoder, Envelope, Form, Writer};
use fhir_bulk_codec::rows::csv::Csv;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_sample::{ResourceType, Sample};
use fhir_bulk_views::rows::{CsvRows, RowWriter};
use fhir_bulk_views::{Cell, Resources, Rows, View};

use crate::ten_columns;

const CREATED_AT_URL: &str = "ex:createdAt";
/// A file of NDJSON that is taken instead of a sample.
const FILE_VARIABLE: &str = "FHIR_BULK_BENCH_FILE";
/// Half of them are Observations, 2 MB.
const SAMPLE_RESOURCES: u64 = 4000;
/// Batches and chunks are about so large.
const OUT_BYTES: usize = 256 << 10;

/// The lines that are measured.
///
/// # Panics
/// When `FHIR_BULK_BENCH_FILE` names a file that cannot be read.
pub fn lines() -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    match std::env::var_os(FILE_VARIABLE) {
        Some(path) => text = fs::read(path).expect(FILE_VARIABLE),
        None => {
            let sample = Sample::new(1, SAMPLE_RESOURCES);
            sample.write(ResourceType::Observation, &mut text).expect("memory takes it");
        }
    }
    lines_of(&text)
}

/// The lines of a text that are not empty.
pub fn lines_of(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

/// The loop of a load.
pub struct Encode<'a> {
    lines: &'a [Vec<u8>],
    encoder: Encoder,
    out: Vec<u8>,
}

impl<'a> Encode<'a> {
    /// With `fhir` lines are converted from FHIR's form to Aidbox's.
    pub fn new(lines: &'a [Vec<u8>], fhir: bool) -> Encode<'a> {
        Encode { lines, encoder: encoder(fhir), out: Vec::new() }
    }

    /// Encodes every line; how many bytes of jsonb that makes.
    ///
    /// # Panics
    /// When a line is no resource.
    pub fn run(&mut self) -> usize {
        let mut total = 0;
        for line in self.lines {
            self.encoder.encode(line).expect("a resource").write(&mut self.out).expect("it fits");
            self.out.resize(self.out.len().next_multiple_of(4), 0);
            total += taken(&mut self.out, OUT_BYTES);
        }
        total + taken(&mut self.out, 0)
    }
}

/// The loop of a dump.
pub struct Write {
    stored: Vec<Stored>,
    writer: Writer,
    out: Vec<u8>,
}

/// A resource as it is stored.
struct Stored {
    id: String,
    resource_type: String,
    jsonb: Vec<u8>,
}

impl Write {
    /// With `fhir` resources are converted from Aidbox's form to FHIR's.
    ///
    /// # Panics
    /// When a line is no resource.
    pub fn new(lines: &[Vec<u8>], fhir: bool) -> Write {
        let form = if fhir { Form::Fhir(Version::R4) } else { Form::Aidbox };
        let stored = stored(lines, fhir);
        Write { stored, writer: Writer::new(form, CREATED_AT_URL, false), out: Vec::new() }
    }

    /// Writes every resource; how many bytes of NDJSON that makes.
    ///
    /// # Panics
    /// Never: what is stored was encoded.
    pub fn run(&mut self) -> usize {
        let mut total = 0;
        for Stored { id, resource_type, jsonb } in &self.stored {
            let row = Envelope {
                id,
                resource_type,
                version_id: Some(481),
                last_updated: Some("2021-06-10T08:26:10.707454Z"),
                created_at: Some("2021-06-10T08:26:10.707454Z"),
            };
            self.writer.write(&row, jsonb, &mut self.out).expect("an object");
            self.out.push(b'\n');
            total += taken(&mut self.out, OUT_BYTES);
        }
        total + taken(&mut self.out, 0)
    }
}

fn stored(lines: &[Vec<u8>], fhir: bool) -> Vec<Stored> {
    let mut encoder = encoder(fhir);
    let store = |line: &Vec<u8>| {
        let encoded = encoder.encode(line).expect("a resource");
        let mut jsonb = Vec::new();
        encoded.write(&mut jsonb).expect("it fits");
        let resource_type = encoded.resource_type().unwrap_or("Observation").to_owned();
        Stored { id: encoded.id().to_owned(), resource_type, jsonb }
    };
    lines.iter().map(store).collect()
}

/// The loop of a view: [`ten_columns`] to CSV.
pub struct Flatten {
    stored: Vec<Stored>,
    resources: Resources,
    csv: CsvRows,
    out: Vec<u8>,
}

impl Flatten {
    /// # Panics
    /// When a line is no resource.
    pub fn new(lines: &[Vec<u8>]) -> Flatten {
        let definition = serde_json::from_str(&ten_columns::view()).expect("JSON");
        let view = Rc::new(View::compile(Version::R4, &definition).expect("a view"));
        let csv = CsvRows::new(&view, Csv::new(",", "").expect("a comma"), false);
        let resources = Resources::new(view, Vec::new(), || ());
        Flatten { stored: stored(lines, true), resources, csv, out: Vec::new() }
    }

    /// Makes the rows of every resource; how many bytes of CSV that makes.
    ///
    /// # Panics
    /// When a resource has several values for a column.
    pub fn run(&mut self) -> usize {
        let Flatten { stored, resources, csv, out } = self;
        let mut total = 0;
        for Stored { id, resource_type, jsonb } in stored {
            let last_updated = None;
            let resource = Resource { id, resource_type, last_updated, version_id: Some(481), json: jsonb };
            let mut lines = CsvLines { csv: &mut *csv, out: &mut *out };
            resources.rows(resource, &mut lines).expect("one value for each column").is_continue();
            total += taken(out, OUT_BYTES);
        }
        total + taken(out, 0)
    }
}

struct CsvLines<'a> {
    csv: &'a mut CsvRows,
    out: &'a mut Vec<u8>,
}

impl Rows for CsvLines<'_> {
    fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>]) -> ControlFlow<()> {
        self.csv.row(resource, cells, self.out);
        self.out.push(b'\n');
        Continue(())
    }
}

/// Empties a buffer that has more than `limit` bytes; how many it had.
fn taken(out: &mut Vec<u8>, limit: usize) -> usize {
    let length = out.len();
    if length <= limit {
        return 0;
    }
    out.clear();
    length
}

fn encoder(fhir: bool) -> Encoder {
    let encoder = Encoder::new(IdRule::Fhir, CREATED_AT_URL);
    if fhir { encoder.from_fhir(Version::R4, true, None) } else { encoder }
}
