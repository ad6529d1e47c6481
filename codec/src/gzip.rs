//! gzip, both ways: sources may be compressed, told by their first bytes; dumps are compressed as they are cut.

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use std::io::{self, BufReader, Read, Write};
use std::ops::Range;

/// The first bytes of every gzip member (RFC 1952).
const MAGIC: [u8; 2] = [0x1F, 0x8B];

/// A source whose first bytes were looked at.
pub struct Peeked<R> {
    first: [u8; 2],
    /// The part of `first` that is not read yet.
    unread: Range<usize>,
    source: R,
}

impl<R: Read> Peeked<R> {
    /// Reads up to two bytes: a pipe or a socket may hand out one at a time.
    fn new(mut source: R) -> io::Result<Peeked<R>> {
        let (mut first, mut length) = ([0; 2], 0);
        while length < first.len() {
            match source.read(&mut first[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Peeked { first, unread: 0..length, source })
    }

    fn is_gzip(&self) -> bool {
        self.first[self.unread.clone()] == MAGIC
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() {
            return self.source.read(buffer);
        }
        let count = self.unread.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.first[self.unread.start..self.unread.start + count]);
        self.unread.start += count;
        Ok(count)
    }
}

/// A source whose gzip, of any number of members, is undone when there is any.
pub enum Reader<R: Read> {
    /// Not compressed.
    Plain(BufReader<Peeked<R>>),
    /// Compressed.
    Gzip(Box<MultiGzDecoder<BufReader<Peeked<R>>>>),
}

impl<R: Read> Reader<R> {
    /// Looks at the first bytes of `source`, not at its name.
    ///
    /// # Errors
    /// Those of reading the source.
    pub fn new(source: R, buffer_bytes: usize) -> io::Result<Reader<R>> {
        let source = Peeked::new(source)?;
        let is_gzip = source.is_gzip();
        let source = BufReader::with_capacity(buffer_bytes, source);
        Ok(if is_gzip { Reader::Gzip(Box::new(MultiGzDecoder::new(source))) } else { Reader::Plain(source) })
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Reader::Plain(reader) => reader.read(buffer),
            Reader::Gzip(decoder) => decoder.read(buffer),
        }
    }
}

/// A stream that is compressed as it grows, taken away piece by piece.
pub struct Compressor(GzEncoder<Vec<u8>>);

impl Compressor {
    /// `level` 0 to 9, as gzip's.
    pub fn new(level: u32) -> Compressor {
        Compressor(GzEncoder::new(Vec::new(), Compression::new(level)))
    }

    /// Compresses `bytes`.
    ///
    /// # Errors
    /// None that zlib would report for memory; kept because writing is fallible by its trait.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// What is compressed so far and not yet taken.
    pub fn pending(&mut self) -> &mut Vec<u8> {
        self.0.get_mut()
    }

    /// Ends the stream: everything not yet taken, with the trailer.
    ///
    /// # Errors
    /// As [`Compressor::write`].
    pub fn finish(self) -> io::Result<Vec<u8>> {
        self.0.finish()
    }
}
