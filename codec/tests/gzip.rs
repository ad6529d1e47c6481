//! Compressed sources and dumps: no data may be lost without an error.

use fhir_bulk_codec::gzip::{Compressor, Reader};
use fhir_bulk_codec::ndjson::{Lines, ReadError};
use std::io::{self, Read};

/// Hands out one byte at a time, as a slow connection may.
struct Slowly<'a>(&'a [u8]);

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.0.len()).min(1);
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(6);
    compressor.write(bytes).unwrap();
    compressor.finish().unwrap()
}

fn read(source: impl Read) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    Reader::new(source, 4096)?.read_to_end(&mut out)?;
    Ok(out)
}

/// Text that does not compress away.
fn text(bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"0123456789abcdef\n"[state as usize >> 16 & 15]
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn plain_and_compressed_sources_are_told_by_content_even_byte_by_byte() {
    let text = text(10_000);
    for source in [&text, &gzip(&text)] {
        assert_eq!(read(&source[..]).unwrap(), text);
        assert_eq!(read(Slowly(source)).unwrap(), text);
    }
    for plain in [&b""[..], b"\n", b"\x1F", b"\x1Fx", b"x\x1F\x8B"] {
        assert_eq!(read(Slowly(plain)).unwrap(), plain);
    }
}

#[test]
fn all_members_of_a_source_are_read() {
    let (a, b) = (text(5000), b"last line".to_vec());
    let source = [gzip(&a), gzip(b""), gzip(&b)].concat();
    assert_eq!(read(&source[..]).unwrap(), [a.clone(), b.clone()].concat());
    assert_eq!(read(Slowly(&source)).unwrap(), [a, b].concat());
}

#[test]
fn an_empty_dump_is_one_empty_stream() {
    let stream = Compressor::new(6).finish().unwrap();
    assert_eq!(stream, gzip(b""));
    assert_eq!(read(&stream[..]).unwrap(), b"");
}

#[test]
fn a_source_that_broke_off_is_an_error_wherever_it_broke() {
    let members = [gzip(&text(300)), gzip(&text(200))];
    let whole = members.concat();
    for length in 2..whole.len() {
        if length != members[0].len() {
            assert!(read(&whole[..length]).is_err(), "cut at {length}");
        }
    }
    // One byte is not gzip yet; it is no JSON either.
    assert_eq!(read(&whole[..1]).unwrap(), [0x1F]);
}

#[test]
fn a_changed_byte_is_an_error_or_changes_nothing() {
    let text = text(300);
    let stream = gzip(&text);
    for at in 2..stream.len() {
        for flipped in [0xFF, 1, 2, 4, 8, 16, 32, 64, 128] {
            let mut damaged = stream.clone();
            damaged[at] ^= flipped;
            // gzip checks neither flags, time, level and system of its header nor the unused bits before its trailer.
            if let Ok(out) = read(&damaged[..]) {
                assert!(out == text && (at < 10 || flipped != 0xFF), "byte {at}, bits {flipped:#x}");
            }
        }
    }
}

#[test]
fn what_follows_the_last_member_is_an_error() {
    for rest in [&b"\n"[..], b"{}", b"\x1F", b"\x1F\x8B", b"\0", &[0; 512], &gzip(b"x")[..12]] {
        assert!(read(&[&gzip(b"text")[..], rest].concat()[..]).is_err(), "{rest:?}");
    }
}

#[test]
fn the_lines_before_the_damage_are_read_and_the_error_names_the_line_it_is_in() {
    let whole = gzip(&[&b"one\ntwo\n"[..], &text(100_000)].concat());
    let reader = Reader::new(&whole[..whole.len() / 2], 4096).unwrap();
    let mut lines = Lines::new(reader, 1 << 20);
    assert_eq!(lines.next_line().unwrap().unwrap().bytes, b"one");
    assert_eq!(lines.next_line().unwrap().unwrap().bytes, b"two");
    let error = loop {
        match lines.next_line() {
            Ok(line) => assert!(line.is_some(), "the damage was not noticed"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof));
    assert_eq!(lines.number(), 3);
}

#[test]
fn a_dump_taken_away_in_pieces_is_one_stream() {
    let text = text(500_000);
    for level in [0, 1, 6, 9] {
        let mut compressor = Compressor::new(level);
        let mut stream = Vec::new();
        for piece in text.chunks(777) {
            compressor.write(piece).unwrap();
            let pending = compressor.pending();
            if pending.len() > 1000 {
                stream.extend(pending.drain(..1000));
            }
        }
        stream.extend(compressor.finish().unwrap());
        assert_eq!(read(&stream[..]).unwrap(), text);
    }
}
