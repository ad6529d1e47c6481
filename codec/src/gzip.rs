//! gzip in both directions: decompresses sources, which are recognised by their first bytes, and compresses dumps.

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use std::io::{self, BufReader, Read, Write};
use std::ops::Range;

/// The first bytes of every gzip member (RFC 1952).
const MAGIC: [u8; 2] = [0x1F, 0x8B];

/// A source whose first bytes have been read ahead.
pub struct Peeked<R> {
    first: [u8; 2],
    /// The part of `first` that is not read yet.
    unread: Range<usize>,
    source: R,
}

impl<R: Read> Peeked<R> {
    /// Reads up to two bytes: a pipe or a socket may return one at a time.
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

/// A source that is decompressed if it is gzip, with any number of members.
pub enum Reader<R: Read> {
    /// Not compressed.
    Plain(BufReader<Peeked<R>>),
    /// Compressed.
    Gzip(Box<MultiGzDecoder<BufReader<Peeked<R>>>>),
}

impl<R: Read> Reader<R> {
    /// Recognises gzip by the first bytes of `source`, not by its name.
    ///
    /// # Errors
    /// The errors of reading the source.
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

/// Compresses a stream. The caller takes the compressed bytes piece by piece.
pub struct Compressor(GzEncoder<Vec<u8>>);

impl Compressor {
    /// `level` is that of gzip, 0 to 9.
    pub fn new(level: u32) -> Compressor {
        Compressor(GzEncoder::new(Vec::new(), Compression::new(level)))
    }

    /// Compresses `bytes`.
    ///
    /// # Errors
    /// None in memory. The trait `Write` requires a result.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// The compressed bytes that have not been taken yet.
    pub fn pending(&mut self) -> &mut Vec<u8> {
        self.0.get_mut()
    }

    /// Ends the stream. Returns the bytes that have not been taken yet, with the trailer.
    ///
    /// # Errors
    /// As for [`Compressor::write`].
    pub fn finish(self) -> io::Result<Vec<u8>> {
        self.0.finish()
    }
}
