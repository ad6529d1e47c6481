//! gzip: whatever the bytes, the same at all cut points; and what is compressed comes back.

use fhir_bulk_codec::gzip::{Compressor, Reader};
use std::io::{self, Read};

/// Gives a few bytes at a time, of a number that changes, and is interrupted now and then.
pub struct Pieces<'a> {
    left: &'a [u8],
    size: usize,
    turn: usize,
}

impl Pieces<'_> {
    /// Pieces of one byte and of `size` bytes in turn.
    pub fn of(bytes: &[u8], size: usize) -> Pieces<'_> {
        Pieces { left: bytes, size, turn: 0 }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.turn += 1;
        if self.turn % 5 == 2 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = if self.turn.is_multiple_of(2) { 1 } else { self.size }.min(buffer.len()).min(self.left.len());
        let (now, later) = self.left.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.left = later;
        Ok(count)
    }
}

/// Fails instead of ending.
struct Failing<'a>(Pieces<'a>);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            count => Ok(count),
        }
    }
}

/// The most bytes that are unpacked: a few bytes of gzip may be many.
const MOST: u64 = 1 << 20;

/// What can be read, and whether it ends in an error.
fn unpacked(reader: io::Result<Reader<impl Read>>) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let is_bad = reader.and_then(|reader| reader.take(MOST).read_to_end(&mut bytes)).is_err();
    (bytes, is_bad)
}

/// Checks a stream after a byte: how large the pieces are, and the level.
pub fn check(data: &[u8]) {
    let Some((&options, stream)) = data.split_first() else { return };
    let piece = usize::from(options % 64) + 1;
    let (whole, is_bad) = unpacked(Reader::new(stream, 1 << 16));
    let (in_pieces, is_bad_in_pieces) = unpacked(Reader::new(Pieces::of(stream, piece), piece));
    assert_eq!(is_bad, is_bad_in_pieces, "an error at some cuts only");
    // After an error the bytes before it may have come or not.
    assert!(is_bad || whole == in_pieces, "other bytes at other cuts");
    if !stream.starts_with(&[0x1F, 0x8B]) {
        assert!(!is_bad && whole == stream[..stream.len().min(MOST as usize)], "what is no gzip is read as it is");
    }
    let (before, is_bad) = unpacked(Reader::new(Failing(Pieces::of(stream, piece)), piece));
    assert!(is_bad || before.len() as u64 == MOST, "a source that fails is no end");
    let mut compressor = Compressor::new(u32::from(options % 10));
    let mut packed = Vec::new();
    for part in stream.chunks(piece * 7) {
        compressor.write(part).expect("memory");
        packed.append(compressor.pending());
    }
    packed.append(&mut compressor.finish().expect("memory"));
    let (back, is_bad) = unpacked(Reader::new(Pieces::of(&packed, piece), piece));
    assert!(!is_bad && back == stream[..stream.len().min(MOST as usize)], "what was compressed comes back");
    let mut theirs = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut theirs).expect("one gzip stream");
    assert!(theirs == stream);
}
