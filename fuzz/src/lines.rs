//! Streams → lines: the same at all cut points, plain and compressed, from the start and from where an earlier reading came to.

use crate::gzip::Pieces;
use fhir_bulk_codec::gzip::Reader;
use fhir_bulk_codec::ndjson::{Line, Lines, Position, ReadError};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{Read, Write as _};

/// A line, as the reader gave it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    bytes: Vec<u8>,
    number: u64,
    offset: u64,
    end: (u64, u64),
}

/// A line over the limit: its number, and where it starts.
type TooLong = (u64, u64);

/// Checks a stream after two bytes: how large the pieces are, and how long a line may be, at
/// least as long as a byte order mark.
pub fn check(data: &[u8]) {
    let Some((&[piece, limit], stream)) = data.split_first_chunk() else { return };
    let (piece, limit) = (usize::from(piece % 64) + 1, usize::from(limit.max(3)));
    let expected = by_definition(stream, limit);
    let pieces = || Pieces::of(stream, piece);
    assert_eq!(read(Lines::new(pieces(), limit)), expected, "in pieces of {piece}");
    assert_eq!(read(Lines::new(stream, limit)), expected, "at once");
    // A stream that begins as gzip does is another one to the reader.
    if !stream.starts_with(&[0x1F, 0x8B]) {
        let plain = Reader::new(pieces(), piece).expect("a slice can be read");
        assert_eq!(read(Lines::new(plain, limit)), expected, "by the reader that knows gzip");
    }
    let members = stream.len() / 2;
    let packed: Vec<u8> = [&stream[..members], &stream[members..]].map(packed).concat();
    let unpacked = Reader::new(Pieces::of(&packed, piece), piece).expect("a slice can be read");
    assert_eq!(read(Lines::new(unpacked, limit)), expected, "compressed");
    goes_on_anywhere(stream, limit);
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(1));
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// Reads all lines, also those after lines over the limit, which are counted apart.
fn read(mut lines: Lines<impl Read>) -> (Vec<Found>, Vec<TooLong>) {
    let (mut found, mut too_long) = (Vec::new(), Vec::new());
    loop {
        match lines.next_line() {
            Ok(None) => return (found, too_long),
            Ok(Some(Line { bytes, number, offset, end })) => {
                let Position { lines, bytes: end, .. } = end;
                found.push(Found { bytes: bytes.to_vec(), number, offset, end: (lines, end) });
            }
            Err(error @ ReadError::LineTooLong(_)) => {
                assert!(error.to_string().starts_with("a line is longer than "));
                too_long.push((lines.number(), lines.offset()));
                lines.skip_long_line().expect("a slice can be read");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The lines of a whole stream.
fn by_definition(stream: &[u8], limit: usize) -> (Vec<Found>, Vec<TooLong>) {
    let (mut found, mut too_long) = (Vec::new(), Vec::new());
    let mut offset = if stream.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    for (at, line) in stream[offset..].split_inclusive(|byte| *byte == b'\n').enumerate() {
        let (start, number) = (offset as u64, at as u64 + 1);
        offset += line.len();
        let bytes = line.strip_suffix(b"\n").unwrap_or(line);
        let is_blank = bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        if bytes.len() > limit {
            too_long.push((number, start));
        } else if !is_blank {
            found.push(Found { bytes: bytes.to_vec(), number, offset: start, end: (number, offset as u64) });
        }
    }
    (found, too_long)
}

/// Reads on from behind each line.
fn goes_on_anywhere(stream: &[u8], limit: usize) {
    let mut first = Lines::new(stream, limit);
    for _ in 0..4 {
        let Ok(Some(line)) = first.next_line() else { return };
        let position = line.end;
        let mut again = Lines::new(stream, limit);
        assert_eq!(again.skip_to(position).expect("a slice can be read"), None);
        assert_eq!(again.position(), position);
        let mut rest = Lines::new(stream, limit);
        rest.skip_to(position).expect("a slice can be read");
        let (all, too_long) = by_definition(stream, limit);
        let (found, skipped) = read(rest);
        assert!(all.ends_with(&found) && too_long.ends_with(&skipped), "other lines after {position:?}");
        assert!(found.iter().all(|line| line.number > position.lines));
    }
}
