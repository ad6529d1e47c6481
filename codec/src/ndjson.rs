//! Reads lines from a stream of bytes: with `\n` or `\r\n`, a missing last newline, blank lines, a byte order mark.

use crc32fast::Hasher;
use std::fmt;
use std::io::{self, Read};

/// How many bytes are read at once. Longer lines make the buffer grow.
const BLOCK_BYTES: usize = 256 << 10;
/// How many more bytes of blank lines than of other lines there may be. Otherwise a few megabytes of gzip could contain
/// gigabytes of blank lines.
const MOST_BLANK_BYTES: u64 = 64 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A position in a stream, after a number of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Lines, with blank lines.
    pub lines: u64,
    /// Bytes of the (decompressed) stream.
    pub bytes: u64,
    /// The CRC-32 of these bytes, to recognise the stream when it is read again.
    pub checksum: u32,
}

/// How a stream has changed since it was read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It ends before the position that was reached.
    Shorter,
    /// The bytes that were read are different now.
    Other,
}

/// One line that is not blank.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The line without its `\n`. A `\r` before it stays: it is white space in JSON.
    pub bytes: &'a [u8],
    /// Counted from 1, with blank lines.
    pub number: u64,
    /// Where the line starts in the (decompressed) stream, in bytes.
    pub offset: u64,
    /// Where the next line starts, or the stream ends.
    pub end: Position,
}

/// Why no further line can be read.
#[derive(Debug)]
pub enum ReadError {
    /// The source failed, or its compression is broken.
    Io(io::Error),
    /// A line longer than this limit, in bytes.
    LineTooLong(usize),
    /// More bytes of blank lines than this limit.
    TooBlank(u64),
    /// Out of memory for a line of this many bytes.
    OutOfMemory(usize),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Io(error) => error.fmt(f),
            ReadError::LineTooLong(limit) => write!(f, "a line is longer than {limit} bytes"),
            ReadError::TooBlank(limit) => write!(f, "there are more than {limit} bytes of blank lines"),
            ReadError::OutOfMemory(bytes) => write!(f, "out of memory for a line of {bytes} bytes"),
        }
    }
}

impl std::error::Error for ReadError {}

/// The lines of a source.
pub struct Lines<R> {
    source: R,
    max_line_bytes: usize,
    buffer: Vec<u8>,
    /// The unread part of `buffer`.
    start: usize,
    end: usize,
    /// The stream's offset of `buffer[start]`, and the state before it.
    offset: u64,
    checksum: Hasher,
    number: u64,
    /// How many more bytes of blank lines are allowed.
    blank_left: u64,
    at_end: bool,
}

impl<R: Read> Lines<R> {
    /// Lines of at most `max_line_bytes`.
    pub fn new(source: R, max_line_bytes: usize) -> Lines<R> {
        let (buffer, checksum) = (Vec::new(), Hasher::new());
        Lines {
            source,
            max_line_bytes,
            buffer,
            start: 0,
            end: 0,
            offset: 0,
            checksum,
            number: 0,
            blank_left: MOST_BLANK_BYTES,
            at_end: false,
        }
    }

    /// The number of the last line that was returned, or that could not be read to its end.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The offset in the stream after the returned lines; after [`ReadError::LineTooLong`] the start of that line.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The position after the returned lines.
    pub fn position(&self) -> Position {
        Position { lines: self.number, bytes: self.offset, checksum: self.checksum.clone().finalize() }
    }

    /// After [`ReadError::LineTooLong`]: the part of the line that was read.
    pub fn long_line(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// After [`ReadError::LineTooLong`]: skips that line, however long it is.
    ///
    /// # Errors
    /// The errors of the source.
    pub fn skip_long_line(&mut self) -> Result<(), ReadError> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            let taken = memchr::memchr(b'\n', unread).map_or(unread.len(), |at| at + 1);
            let found = taken > 0 && unread[taken - 1] == b'\n';
            self.pass(taken);
            if found || self.at_end {
                return Ok(());
            }
            self.read_more()?;
        }
    }

    /// Skips to `position` in a stream that was read to there before. Returns how the stream has changed, if it has.
    ///
    /// # Errors
    /// The errors of the source.
    pub fn skip_to(&mut self, position: Position) -> Result<Option<Change>, ReadError> {
        while self.offset < position.bytes {
            if self.start == self.end {
                self.read_more()?;
            }
            let wanted = usize::try_from(position.bytes - self.offset).unwrap_or(usize::MAX);
            let taken = wanted.min(self.end - self.start);
            if taken == 0 {
                return Ok(Some(Change::Shorter));
            }
            self.pass(taken);
        }
        self.number = position.lines;
        Ok((self.position() != position).then_some(Change::Other))
    }

    /// Consumes bytes of the buffer.
    fn pass(&mut self, count: usize) {
        self.checksum.update(&self.buffer[self.start..self.start + count]);
        self.start += count;
        self.offset += count as u64;
    }

    /// The next line that is not blank; `None` at the end.
    ///
    /// # Errors
    /// [`ReadError`]; then [`Lines::number`] is the number of the line.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        loop {
            self.skip_blank_lines()?;
            let Some(length) = self.find_end()? else { return Ok(None) };
            let (start, offset) = (self.start, self.offset);
            let taken = (length + 1).min(self.end - start);
            self.pass(taken);
            if self.buffer[start..start + length].iter().any(|byte| !is_blank(*byte)) {
                self.blank_left = self.blank_left.saturating_add(taken as u64);
                let bytes = &self.buffer[start..start + length];
                return Ok(Some(Line { bytes, number: self.number, offset, end: self.position() }));
            }
            self.spend_blank(taken)?;
        }
    }

    /// Skips all blank lines at the beginning of the buffer at once.
    fn skip_blank_lines(&mut self) -> Result<(), ReadError> {
        let unread = &self.buffer[self.start..self.end];
        let blank = unread.iter().position(|byte| *byte != b'\n' && !is_blank(*byte)).unwrap_or(unread.len());
        let (mut end, mut count) = (0, 0);
        for at in memchr::memchr_iter(b'\n', &unread[..blank]) {
            // One over the limit is refused as other lines are, wherever the stream was cut.
            if at - end > self.max_line_bytes {
                break;
            }
            (end, count) = (at + 1, count + 1);
        }
        self.number += count;
        self.pass(end);
        self.spend_blank(end)
    }

    fn spend_blank(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.blank_left = self.blank_left.checked_sub(bytes as u64).ok_or(ReadError::TooBlank(MOST_BLANK_BYTES))?;
        Ok(())
    }

    /// Reads the whole next line into the buffer. Returns its length; `None` at the end.
    fn find_end(&mut self) -> Result<Option<usize>, ReadError> {
        self.number += 1;
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.start..self.end];
            if self.offset == 0 && unread.starts_with(BYTE_ORDER_MARK) {
                self.pass(BYTE_ORDER_MARK.len());
                searched = 0;
                continue;
            }
            let length = match memchr::memchr(b'\n', &unread[searched..]) {
                Some(at) => searched + at,
                None if self.at_end && unread.is_empty() => {
                    self.number -= 1;
                    return Ok(None);
                }
                None if self.at_end => unread.len(),
                None => {
                    searched = unread.len();
                    if unread.len() > self.max_line_bytes {
                        return Err(ReadError::LineTooLong(self.max_line_bytes));
                    }
                    self.read_more()?;
                    continue;
                }
            };
            if length > self.max_line_bytes {
                return Err(ReadError::LineTooLong(self.max_line_bytes));
            }
            return Ok(Some(length));
        }
    }

    fn read_more(&mut self) -> Result<(), ReadError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            // A line that does not fit doubles the buffer, so that it is moved few times. The buffer does not grow far
            // beyond the limit.
            let more = self.buffer.len().min(self.max_line_bytes.saturating_sub(self.end)).max(BLOCK_BYTES);
            self.buffer.try_reserve_exact(more).map_err(|_| ReadError::OutOfMemory(self.end + more))?;
            self.buffer.resize(self.end + more, 0);
        } else if self.end < BLOCK_BYTES && self.buffer.len() > 32 * BLOCK_BYTES {
            // The memory of a huge line is freed after it.
            self.buffer.truncate(BLOCK_BYTES);
            self.buffer.shrink_to_fit();
        }
        loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    self.at_end = true;
                    return Ok(());
                }
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Io(error)),
            }
        }
    }
}

/// Whether a byte is JSON's white space within a line.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a few bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len()).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    /// An import that continues after a stop must see each line once, with its own number.
    #[test]
    fn lines_go_on_where_an_earlier_reading_of_the_stream_came_to() {
        let text = b"\xEF\xBB\xBF{1}\n\n{2}\r\n{3}\n{4}";
        for piece in 1..text.len() {
            let mut first = Lines::new(Pieces(text, piece), 1 << 20);
            for _ in 0..2 {
                first.next_line().unwrap().unwrap();
            }
            let mut again = Lines::new(Pieces(text, piece), 1 << 20);
            assert_eq!(again.skip_to(first.position()).unwrap(), None);
            loop {
                let (expected, found) = (first.next_line().unwrap(), again.next_line().unwrap());
                let parts = |line: Line<'_>| (line.number, line.offset, line.end, line.bytes.to_vec());
                assert_eq!(found.map(parts), expected.map(parts));
                if expected.is_none() {
                    break;
                }
            }
        }
    }

    #[test]
    fn lines_do_not_go_on_in_a_stream_that_is_another() {
        let text = b"\xEF\xBB\xBF{1}\n\n{2}\r\n{3}\n{4}";
        let mut first = Lines::new(&text[..], 1 << 20);
        for _ in 0..3 {
            first.next_line().unwrap().unwrap();
        }
        let read = first.position().bytes as usize;
        for at in 0..text.len() {
            let mut changed = *text;
            changed[at] ^= 1;
            let expected = (at < read).then_some(Change::Other);
            assert_eq!(Lines::new(&changed[..], 1 << 20).skip_to(first.position()).unwrap(), expected, "byte {at}");
        }
        let mut shorter = Lines::new(&text[..read - 1], 1 << 20);
        assert_eq!(shorter.skip_to(first.position()).unwrap(), Some(Change::Shorter));
    }

    fn lines(bytes: &[u8], piece: usize) -> Vec<(u64, u64, String)> {
        let mut lines = Lines::new(Pieces(bytes, piece), 1 << 20);
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            found.push((line.number, line.offset, String::from_utf8(line.bytes.to_vec()).unwrap()));
        }
        found
    }

    #[test]
    fn numbers_and_offsets_count_blank_lines_and_the_mark() {
        let text = b"\xEF\xBB\xBFa\r\n\n  \t\r\nbb\nc";
        for piece in 1..20 {
            let expected = [(1, 3, "a\r"), (4, 12, "bb"), (5, 15, "c")];
            let expected: Vec<_> = expected.iter().map(|(n, o, t)| (*n, *o, (*t).to_owned())).collect();
            assert_eq!(lines(text, piece), expected);
        }
    }

    #[test]
    fn a_mark_alone_and_nothing_at_all_are_no_lines() {
        for text in [&b""[..], b"\n", b"\xEF\xBB\xBF", b"\xEF\xBB\xBF\n\n"] {
            assert!(lines(text, 1).is_empty());
        }
    }

    #[test]
    fn blank_lines_are_counted_and_bounded() {
        let many = MOST_BLANK_BYTES as usize;
        let blank = |count: usize| [&b" \t\r\n".repeat(count / 4)[..], &b"\n".repeat(count % 4)].concat();
        let text = [&blank(many)[..], b"{1}\n", &blank(4), b"{2}\n"].concat();
        let mut lines = Lines::new(&text[..], 100);
        let expected = (many / 4 + 1) as u64;
        assert_eq!(lines.next_line().unwrap().map(|line| (line.number, line.bytes)), Some((expected, &b"{1}"[..])));
        assert_eq!(lines.next_line().unwrap().unwrap().number, expected + 2);
        for beyond in [many + 1, many + 5] {
            let text = blank(beyond);
            let mut lines = Lines::new(&text[..], 100);
            assert!(matches!(lines.next_line(), Err(ReadError::TooBlank(MOST_BLANK_BYTES))));
        }
        // A source with as many bytes of other lines may have as many bytes of blank lines.
        let line = [&vec![b'x'; 99][..], b"\n", &blank(100)].concat();
        let text = line.repeat(many / 100 * 2);
        let mut lines = Lines::new(&text[..], 100);
        let mut found = 0;
        while lines.next_line().unwrap().is_some() {
            found += 1;
        }
        assert_eq!(found, many / 100 * 2);
    }

    /// Fails or is interrupted between its bytes.
    struct Unreliable(Vec<Result<u8, io::ErrorKind>>);

    impl Read for Unreliable {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.pop() {
                Some(Ok(byte)) => buffer[0] = byte,
                Some(Err(kind)) => return Err(kind.into()),
                None => return Ok(0),
            }
            Ok(1)
        }
    }

    #[test]
    fn a_failing_source_is_no_end_and_an_interrupted_one_goes_on() {
        let bytes = [Ok(b'a'), Err(io::ErrorKind::Interrupted), Ok(b'\n'), Ok(b'b'), Err(io::ErrorKind::TimedOut)];
        let mut lines = Lines::new(Unreliable(bytes.into_iter().rev().collect()), 100);
        assert_eq!(lines.next_line().unwrap().unwrap().bytes, b"a");
        let error = lines.next_line().unwrap_err();
        assert!(matches!(error, ReadError::Io(error) if error.kind() == io::ErrorKind::TimedOut));
        assert_eq!(lines.number(), 2);
    }

    #[test]
    fn the_line_after_one_over_the_limit_can_be_read_with_its_number_and_offset() {
        for last in [&b"ok"[..], b"ok\n"] {
            let text = [&b"a\n"[..], &vec![b'y'; BLOCK_BYTES * 3], b"\n", last].concat();
            let mut lines = Lines::new(&text[..], 100);
            assert_eq!(lines.next_line().unwrap().unwrap().bytes, b"a");
            assert!(lines.next_line().is_err());
            assert_eq!((lines.number(), lines.offset()), (2, 2));
            assert!(lines.long_line().starts_with(b"yyyy"));
            lines.skip_long_line().unwrap();
            let line = lines.next_line().unwrap().unwrap();
            assert_eq!((line.bytes, line.number, line.offset), (&b"ok"[..], 3, 3 + 3 * BLOCK_BYTES as u64));
            assert!(lines.next_line().unwrap().is_none());
        }
    }

    #[test]
    fn lines_longer_than_a_block_come_whole_and_the_buffer_shrinks_again() {
        let long = vec![b'z'; 20 << 20];
        let text = [&long[..], b"\nshort\n", &vec![b'a'; BLOCK_BYTES * 3], b"\n"].concat();
        let mut lines = Lines::new(&text[..], 64 << 20);
        assert_eq!(lines.next_line().unwrap().unwrap().bytes, long);
        assert_eq!(lines.next_line().unwrap().unwrap().bytes, b"short");
        assert_eq!(lines.next_line().unwrap().unwrap().bytes.len(), BLOCK_BYTES * 3);
        assert!(lines.next_line().unwrap().is_none());
    }
}
