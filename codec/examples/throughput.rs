//! How fast lines become jsonb and jsonb becomes lines: `throughput FILE.ndjson [RUNS]`.
//!
//! The file is read into memory first; each run encodes and writes all of it, and the medians are printed.
//! MB are 10^6 bytes of NDJSON text, in both directions. "FHIR" lines are converted from and to Aidbox form.

use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::ndjson::Lines;
use fhir_bulk_codec::resource::{Encoder, Envelope, Form, Writer};
use std::time::Instant;

const CREATED_AT_URL: &str = "ex:createdAt";

/// Every stored resource of the input, one after the other, each at a multiple of 4.
#[derive(Default)]
struct Stored {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    ids: Vec<String>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        eprintln!("usage: throughput FILE.ndjson [RUNS]");
        std::process::exit(2);
    };
    let runs = arguments.next().map_or(9, |runs| runs.parse().expect("RUNS is a number"));
    let text = std::fs::read(&path).expect("the file can be read");

    let start = Instant::now();
    converting();
    println!("definitions   {:.3} s, once", start.elapsed().as_secs_f64());
    let mut out = Vec::new();
    report("encode Aidbox", text.len(), runs, || encode(&text, encoder(), &mut out));
    report("encode FHIR", text.len(), runs, || encode(&text, converting(), &mut out));
    let mut lines = Vec::new();
    for (name, form, encoder) in
        [("write Aidbox", Form::Aidbox, encoder()), ("write FHIR", Form::Fhir(Version::R4), converting())]
    {
        let stored = store(&text, encoder);
        let bytes = write(&stored, form, &mut lines);
        report(name, bytes, runs, || write(&stored, form, &mut lines));
    }
}

fn encoder() -> Encoder {
    Encoder::new(IdRule::Fhir, CREATED_AT_URL)
}

fn converting() -> Encoder {
    encoder().from_fhir(Version::R4, true, None)
}

/// Encodes every line into a batch, as a load does, and returns how many bytes that made.
fn encode(text: &[u8], mut encoder: Encoder, out: &mut Vec<u8>) -> usize {
    let mut lines = Lines::new(text, 256 << 20);
    let mut total = 0;
    while let Some(line) = lines.next_line().expect("lines can be read") {
        if out.len() > 256 << 10 {
            total += out.len();
            out.clear();
        }
        encoder.encode(line.bytes).expect("the line is valid").write(out).expect("it fits");
        out.resize(out.len().next_multiple_of(4), 0);
    }
    total
}

/// Writes every stored resource into chunks, as a dump does, and returns how many bytes that made.
fn write(stored: &Stored, form: Form, out: &mut Vec<u8>) -> usize {
    let writer = Writer::new(form, CREATED_AT_URL, false);
    let (mut start, mut total) = (0usize, 0);
    for (id, end) in stored.ids.iter().zip(&stored.ends) {
        if out.len() > 64 << 10 {
            total += out.len();
            out.clear();
        }
        let row = Envelope {
            id,
            resource_type: "Observation",
            version_id: Some(481),
            last_updated: Some("2021-06-10T08:26:10.707454Z"),
            created_at: Some("2021-06-10T08:26:10.707454Z"),
        };
        writer.write(&row, &stored.bytes[start..*end], out).expect("an object");
        out.push(b'\n');
        start = end.next_multiple_of(4);
    }
    total + out.len()
}

fn store(text: &[u8], mut encoder: Encoder) -> Stored {
    let mut stored = Stored::default();
    let mut lines = Lines::new(text, 256 << 20);
    while let Some(line) = lines.next_line().expect("lines can be read") {
        let encoded = encoder.encode(line.bytes).expect("the line is valid");
        stored.bytes.resize(stored.bytes.len().next_multiple_of(4), 0);
        encoded.write(&mut stored.bytes).expect("it fits");
        stored.ends.push(stored.bytes.len());
        stored.ids.push(encoded.id().to_owned());
    }
    stored
}

fn report(name: &str, bytes: usize, runs: usize, mut run: impl FnMut() -> usize) {
    let mut seconds: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(run());
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let rate = |seconds: f64| bytes as f64 / 1e6 / seconds;
    let (median, best) = (seconds[runs / 2], seconds[0]);
    println!("{name:13} {median:.3} s, {:.0} MB/s; best {best:.3} s, {:.0} MB/s", rate(median), rate(best));
}
