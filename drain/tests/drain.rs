//! A drain as a backend uses it: rows in, lines out, in their order; dropped at any time.

use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::resource::{Encoder, Envelope, Form, Writer};
use fhir_bulk_drain::{Drain, Failed, Piece, Why};
use std::time::{Duration, Instant};

/// The jsonb of a resource whose text repeats a number of times.
fn stored(number: usize, repeats: usize) -> Vec<u8> {
    let text = format!("größer \\\"{number}\\\" ").repeat(repeats);
    let line = format!("{{\"resourceType\":\"Basic\",\"id\":\"{number}\",\"text\":\"{text}\",\"n\":{number}}}");
    let mut encoder = Encoder::new(IdRule::Aidbox, "ex:createdAt");
    let mut jsonb = Vec::new();
    encoder.encode(line.as_bytes()).unwrap().write(&mut jsonb).unwrap();
    jsonb
}

fn writer() -> Writer {
    Writer::new(Form::Fhir(Version::R4), "ex:createdAt", true)
}

struct Rows {
    ids: Vec<String>,
    json: Vec<Vec<u8>>,
}

impl Rows {
    fn new(count: usize) -> Rows {
        let size = |number: usize| if number % 997 == 5 { 60_000 } else { number % 40 };
        Rows {
            ids: (0..count).map(|number| format!("id-{number}")).collect(),
            json: (0..count).map(|number| stored(number, size(number))).collect(),
        }
    }

    fn envelope(&self, at: usize) -> Envelope<'_> {
        Envelope {
            id: &self.ids[at],
            resource_type: "Basic",
            version_id: (!at.is_multiple_of(3)).then_some(at as i64),
            last_updated: (!at.is_multiple_of(5)).then_some("2020-01-01T00:00:00.123456Z"),
            created_at: (!at.is_multiple_of(7)).then_some("2019-01-01T00:00:00Z"),
        }
    }

    /// The lines as one thread writes them.
    fn lines(&self) -> Vec<Vec<u8>> {
        let line = |at: usize| {
            let mut out = Vec::new();
            writer().write(&self.envelope(at), &self.json[at], &mut out).unwrap();
            out
        };
        (0..self.ids.len()).map(line).collect()
    }

    /// The next piece from `at`, and where the one after it begins.
    fn piece(&self, mut at: usize, mut piece: Piece) -> (usize, Piece) {
        while at < self.ids.len() && !piece.is_full() {
            piece.push(&self.envelope(at), &self.json[at]).unwrap();
            at += 1;
        }
        (at, piece)
    }
}

fn take(drain: &mut Drain) -> Piece {
    let start = Instant::now();
    loop {
        if let Some(piece) = drain.take().expect("no thread is lost") {
            return piece;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "the drain says nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_lines_of_any_number_of_threads_are_those_of_one_in_the_same_order() {
    let rows = Rows::new(6000);
    let expected = rows.lines();
    for threads in [1, 2, 5] {
        let mut drain = Drain::start(threads, writer);
        assert_eq!(drain.threads(), threads);
        let (mut at, mut lines, mut free) = (0, Vec::new(), Vec::new());
        while lines.len() < expected.len() {
            while at < rows.ids.len() && (drain.has_room() || drain.may_keep()) {
                let (next, mut piece) = rows.piece(at, free.pop().unwrap_or_default());
                if drain.has_room() {
                    drain.give(piece);
                } else {
                    piece.write(&writer());
                    drain.keep(piece);
                }
                at = next;
            }
            let mut piece = take(&mut drain);
            while let Some(line) = piece.next_line() {
                lines.push(line.to_vec());
            }
            assert_eq!(piece.failed(), None);
            piece.clear();
            free.push(piece);
        }
        assert!(lines == expected, "{threads} threads");
        assert!(drain.is_empty());
    }
}

#[test]
fn a_row_that_is_no_object_is_named_after_the_lines_before_it() {
    let rows = Rows::new(10);
    let mut drain = Drain::start(2, writer);
    let mut piece = Piece::default();
    for at in 0..3 {
        piece.push(&rows.envelope(at), &rows.json[at]).unwrap();
    }
    // An empty array.
    piece.push(&rows.envelope(3), &0x4000_0000_u32.to_le_bytes()).unwrap();
    piece.push(&rows.envelope(4), &rows.json[4]).unwrap();
    drain.give(piece);
    let mut piece = take(&mut drain);
    let lines: Vec<_> = std::iter::from_fn(|| piece.next_line().map(<[u8]>::to_vec)).collect();
    assert_eq!(lines, rows.lines()[..3]);
    assert_eq!(piece.failed(), Some(Failed { resource_type: "Basic", id: "id-3", why: Why::NotAnObject }));
    // It can be used again.
    piece.clear();
    assert!(piece.is_empty() && piece.failed().is_none() && piece.next_line().is_none());
}

#[test]
fn little_is_under_way_at_once() {
    let rows = Rows::new(6000);
    let mut drain = Drain::start(3, writer);
    let (mut at, mut given) = (0, 0);
    while drain.has_room() {
        let (next, piece) = rows.piece(at, Piece::default());
        drain.give(piece);
        (at, given) = (next, given + 1);
    }
    assert!(given <= 24 && at < rows.ids.len(), "{given} pieces");
    take(&mut drain);
    assert!(drain.has_room());
}

#[test]
fn a_drain_that_is_dropped_ends_its_threads() {
    let rows = Rows::new(1000);
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        tasks.map(name).filter(|name| name.starts_with("fhir_bulk drain")).count()
    };
    for given in 0..4 {
        let mut drain = Drain::start(2, writer);
        for at in 0..given {
            drain.give(rows.piece(at * 100, Piece::default()).1);
        }
        drop(drain);
    }
    // Those of other tests end, too.
    let start = Instant::now();
    while threads() > 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "{} threads are left", threads());
        std::thread::sleep(Duration::from_millis(5));
    }
}
