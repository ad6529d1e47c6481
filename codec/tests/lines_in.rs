//! Lines of a stream, at all cut points.

use fhir_bulk_codec::ndjson::{Lines, ReadError};
use std::io::{self, Read};

/// Gives so many bytes at a time.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(buffer.len());
        (&self.0[..self.0.len().min(count)]).read(buffer).inspect(|count| self.0 = &self.0[*count..])
    }
}

/// A load would fail or not as the network happens to cut its source.
#[test]
fn a_blank_line_over_the_limit_is_refused_at_every_cut() {
    let text = b"{1}\n \n    \n{2}\n";
    for piece in 1..=text.len() {
        let mut lines = Lines::new(Pieces(text, piece), 3);
        assert_eq!(lines.next_line().unwrap().unwrap().bytes, b"{1}");
        assert!(matches!(lines.next_line(), Err(ReadError::LineTooLong(3))), "pieces of {piece}");
        assert_eq!((lines.number(), lines.offset()), (3, 6));
        lines.skip_long_line().unwrap();
        assert_eq!(lines.next_line().unwrap().map(|line| (line.bytes, line.number)), Some((&b"{2}"[..], 4)));
    }
}

#[test]
fn a_line_over_the_limit_is_refused_and_one_at_it_is_not() {
    let text = [vec![b'x'; 100], vec![b'\n'], vec![b'y'; 101]].concat();
    let mut lines = Lines::new(&text[..], 100);
    assert_eq!(lines.next_line().unwrap().unwrap().bytes.len(), 100);
    assert!(matches!(lines.next_line(), Err(ReadError::LineTooLong(100))));
    assert_eq!(lines.number(), 2);
}
