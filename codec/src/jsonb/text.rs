//! jsonb bytes into JSON text, as PostgreSQL writes it (`jsonb_out`) or compact.

use super::out::{BLOCK, Out};
use super::scan::{find_special, special_bits};
use super::walk::{Container, Slice, Value};
use super::{kind, numeric};

/// How the text is spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// PostgreSQL's: a space after each colon and comma.
    Postgres,
    /// None.
    Compact,
}

/// Writes values as text. Depth costs no stack of the process.
pub struct TextWriter {
    spacing: Spacing,
}

impl TextWriter {
    /// A writer for one spacing.
    pub fn new(spacing: Spacing) -> TextWriter {
        TextWriter { spacing }
    }

    /// Appends the text of a whole jsonb, `bytes` being those after its length header.
    pub fn write(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut root = Container::new(bytes);
        let mut text = Text::new(self.spacing, bytes.len(), out);
        if root.is_scalar() {
            if let Some(value) = root.next_element() {
                text.scalar(value);
            }
        } else {
            text.container(root, &mut Vec::new());
        }
        text.finish();
    }
}

/// Appends a string in quotes, escaped as PostgreSQL's `escape_json` does.
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut run = 0;
    loop {
        let end = find_special(text, run);
        out.extend_from_slice(&text[run..end]);
        let Some(&byte) = text.get(end) else { break };
        let (escape, length) = escape_of(byte);
        out.extend_from_slice(&escape[..length]);
        run = end + 1;
    }
    out.push(b'"');
}

/// The escape sequence of a byte, and how much of the array it takes.
fn escape_of(byte: u8) -> ([u8; 6], usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        0x08 => b'b',
        0x0C => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        b'"' | b'\\' => byte,
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            return ([b'\\', b'u', b'0', b'0', high, low], 6);
        }
    };
    ([b'\\', short, 0, 0, 0, 0], 2)
}

/// The containers around the one that is being written; kept for reuse.
pub(crate) type Open<'j> = Vec<Container<'j>>;

/// Text that is being written.
pub(crate) struct Text<'o> {
    spacing: Spacing,
    out: Out<'o>,
}

/// Memory for text that cannot be had is a panic, which the extension turns into an error of the statement; the
/// standard library would end the process, and with it the whole cluster.
#[cold]
fn out_of_memory() -> ! {
    panic!("out of memory for the text of a jsonb value")
}

impl<'o> Text<'o> {
    /// Appends to `out` what `jsonb_bytes` become, more or less.
    pub(crate) fn new(spacing: Spacing, jsonb_bytes: usize, out: &'o mut Vec<u8>) -> Text<'o> {
        let out = Out::new(out, jsonb_bytes).unwrap_or_else(|_| out_of_memory());
        Text { spacing, out }
    }

    pub(crate) fn finish(self) {
        self.out.finish();
    }

    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        self.out.truncate(length);
    }

    #[inline]
    fn room(&mut self, more: usize) {
        if self.out.room(more).is_err() {
            out_of_memory();
        }
    }

    /// Punctuation.
    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.room(N);
        self.out.put(bytes);
    }

    /// Text that is JSON already.
    pub(crate) fn raw(&mut self, text: &[u8]) {
        self.room(text.len());
        self.out.copy(text, 0, text.len());
    }

    #[inline]
    pub(crate) fn comma(&mut self) {
        self.room(2);
        self.out.put(b", ");
        if self.spacing == Spacing::Compact {
            self.out.truncate(self.out.len() - 1);
        }
    }

    /// What follows a member's name.
    #[inline]
    fn colon(&mut self) {
        self.room(2);
        self.out.put(b": ");
        if self.spacing == Spacing::Compact {
            self.out.truncate(self.out.len() - 1);
        }
    }

    /// A member's name and the colon.
    #[inline]
    pub(crate) fn name(&mut self, name: Slice<'_>) {
        self.string(name);
        self.colon();
    }

    /// A string in quotes, escaped as PostgreSQL's `escape_json` does.
    #[inline]
    pub(crate) fn string(&mut self, text: Slice<'_>) {
        self.room(text.len() + 2);
        self.out.put(b"\"");
        let Slice { bytes, start: mut at, end } = text;
        while at < end {
            // Where the jsonb ends within a block, only what is there is read.
            let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk::<BLOCK>) else {
                at = self.last_block(text, at);
                continue;
            };
            let wanted = (end - at).min(BLOCK);
            let special = special_bits(block) & (0xFFFF >> (BLOCK - wanted));
            if special == 0 {
                self.out.put_block(block, wanted);
                at += wanted;
            } else {
                let plain = special.trailing_zeros() as usize;
                self.out.put_block(block, plain);
                at = self.escape(text, at + plain);
            }
        }
        self.out.put(b"\"");
    }

    /// As the loop of [`Text::string`], for a string within a block of the end of its bytes.
    #[cold]
    fn last_block(&mut self, text: Slice<'_>, at: usize) -> usize {
        let end = find_special(&text.bytes[..text.end], at);
        self.out.copy(text.bytes, at, end - at);
        if end < text.end { self.escape(text, end) } else { end }
    }

    /// Writes the byte at `at` as an escape; returns what comes after it.
    #[cold]
    fn escape(&mut self, text: Slice<'_>, at: usize) -> usize {
        // The escape is longer than the byte for which there is room.
        self.room(text.end - at + 6 + 2);
        let (escape, length) = escape_of(text.bytes[at]);
        let end = self.out.len() + length;
        self.out.put(&escape);
        self.out.truncate(end);
        at + 1
    }

    /// One value of a container.
    #[inline]
    pub(crate) fn value<'j>(&mut self, value: Value<'j>, open: &mut Open<'j>) {
        match value.container() {
            Some(container) => self.container(container, open),
            None => self.scalar(value),
        }
    }

    #[inline]
    fn scalar(&mut self, value: Value<'_>) {
        match value.kind() {
            kind::STRING => self.string(value.slice()),
            kind::NUMERIC => {
                if numeric::write(value.numeric(), &mut self.out).is_err() {
                    out_of_memory();
                }
            }
            kind::TRUE => self.put(b"true"),
            kind::FALSE => self.put(b"false"),
            _ => self.put(b"null"),
        }
    }

    /// A container and all within. `open` is used as a stack above what it holds.
    pub(crate) fn container<'j>(&mut self, root: Container<'j>, open: &mut Open<'j>) {
        let bottom = open.len();
        let mut current = root;
        self.start(&current);
        loop {
            let first = current.is_at_start();
            let value = if current.is_object() {
                current.next_member().map(|(name, value)| {
                    if !first {
                        self.comma();
                    }
                    self.name(name);
                    value
                })
            } else {
                current.next_element().inspect(|_| {
                    if !first {
                        self.comma();
                    }
                })
            };
            match value.map(|value| (value, value.container())) {
                Some((_, Some(inner))) => {
                    self.start(&inner);
                    open.push(std::mem::replace(&mut current, inner));
                }
                Some((value, None)) => self.scalar(value),
                None => {
                    self.end(&current);
                    if open.len() == bottom {
                        return;
                    }
                    if let Some(outer) = open.pop() {
                        current = outer;
                    }
                }
            }
        }
    }

    #[inline]
    fn start(&mut self, container: &Container<'_>) {
        self.put(if container.is_object() { b"{" } else { b"[" });
    }

    #[inline]
    fn end(&mut self, container: &Container<'_>) {
        self.put(if container.is_object() { b"}" } else { b"]" });
    }
}
