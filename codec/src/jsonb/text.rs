//! Writes jsonb bytes as JSON text, in PostgreSQL's spacing (`jsonb_out`) or compact.

use super::out::{BLOCK, Out};
use super::scan::{find_special, special_bits};
use super::walk::{Container, Slice, Value};
use super::{kind, numeric};
use crate::decimal;

/// The spacing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// PostgreSQL's: a space after each colon and comma.
    Postgres,
    /// None.
    Compact,
}

/// Writes values as text, without recursion.
pub struct TextWriter {
    spacing: Spacing,
}

impl TextWriter {
    /// A writer for one spacing.
    pub fn new(spacing: Spacing) -> TextWriter {
        TextWriter { spacing }
    }

    /// Appends the text of a jsonb. `bytes` does not include its length header.
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
        text.finish(out);
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

/// The escape sequence of a byte, and its length in the array.
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

/// JSON text of at most one block.
pub(crate) struct Literal {
    block: [u8; BLOCK],
    length: usize,
}

impl Literal {
    /// The name of a member with the colon, if it is short and needs no escapes.
    pub(crate) fn name(name: &str, spacing: Spacing) -> Literal {
        let colon = if spacing == Spacing::Postgres { ": " } else { ":" };
        Literal::new(format!("\"{name}\"{colon}").as_bytes())
    }

    pub(crate) fn new(text: &[u8]) -> Literal {
        let mut block = [0; BLOCK];
        block[..text.len()].copy_from_slice(text);
        Literal { block, length: text.len() }
    }
}

/// The block that starts with a short text, if the text needs no escapes and enough bytes follow it.
#[inline]
fn plain_block<'j>(text: Slice<'j>) -> Option<&'j [u8; BLOCK]> {
    let length = text.len();
    let block = text.bytes.get(text.start..text.start + BLOCK)?.first_chunk()?;
    (length <= BLOCK && special_bits(block) & 0xFFFF >> (BLOCK - length) == 0).then_some(block)
}

/// The containers around the current one; the memory is kept for reuse.
pub(crate) type Open<'j> = Vec<Container<'j>>;

/// Text that is being written.
pub(crate) struct Text {
    spacing: Spacing,
    out: Out,
}

/// Out of memory is a panic here, which the extension turns into an error of the statement. The standard library would abort
/// the process, and PostgreSQL would restart all others.
#[cold]
fn out_of_memory() -> ! {
    panic!("out of memory for the text of a jsonb value")
}

impl Text {
    /// Takes `out` to append the text of about `jsonb_bytes` bytes.
    pub(crate) fn new(spacing: Spacing, jsonb_bytes: usize, out: &mut Vec<u8>) -> Text {
        let out = Out::new(out, jsonb_bytes).unwrap_or_else(|_| out_of_memory());
        Text { spacing, out }
    }

    /// Returns the vector, with the text at its end.
    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        self.out.finish(out);
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

    /// Writes a whole number, in quotes if wanted.
    pub(crate) fn number(&mut self, number: i64, quoted: bool) {
        // A quote before the digits and one after them.
        let mut text = [b'"'; decimal::MAX_LEN + 2];
        let end = text.len() - 1;
        let start = decimal::write_at_end(number, &mut text[..end]);
        let range = if quoted { start - 1..end + 1 } else { start..end };
        self.room(text.len());
        self.out.copy(&text, range.start, range.len());
    }

    /// Punctuation.
    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.room(N);
        self.out.put(bytes);
    }

    /// Text that is JSON already.
    #[inline]
    pub(crate) fn literal(&mut self, text: &Literal) {
        self.room(BLOCK);
        self.out.put_block(&text.block, text.length);
    }

    #[inline]
    pub(crate) fn comma(&mut self) {
        self.room(2);
        self.put_comma();
    }

    /// Writes text for which there must be room.
    #[inline]
    fn put_comma(&mut self) {
        match self.spacing {
            Spacing::Postgres => self.out.put(b", "),
            Spacing::Compact => self.out.put(b","),
        }
    }

    /// Writes a member's name, with the punctuation before and after it.
    #[inline]
    pub(crate) fn name(&mut self, name: Slice<'_>, first: bool) {
        self.room(name.len() + BLOCK);
        let Text { spacing, out } = self;
        match (plain_block(name), *spacing, first) {
            (Some(block), Spacing::Compact, false) => out.put_block_between(b",\"", block, name.len(), b"\":"),
            (Some(block), Spacing::Compact, true) => out.put_block_between(b"\"", block, name.len(), b"\":"),
            (Some(block), Spacing::Postgres, false) => out.put_block_between(b", \"", block, name.len(), b"\": "),
            (Some(block), Spacing::Postgres, true) => out.put_block_between(b"\"", block, name.len(), b"\": "),
            (None, ..) => self.other_name(name, first),
        }
    }

    /// Writes a name that is long or needs escapes.
    fn other_name(&mut self, name: Slice<'_>, first: bool) {
        if !first {
            self.put_comma();
        }
        self.put_string(name);
        match self.spacing {
            Spacing::Postgres => self.out.put(b": "),
            Spacing::Compact => self.out.put(b":"),
        }
    }

    /// A string in quotes, escaped as PostgreSQL's `escape_json` does.
    #[inline]
    pub(crate) fn string(&mut self, text: Slice<'_>) {
        self.room(text.len() + BLOCK);
        match plain_block(text) {
            Some(block) => self.out.put_block_between(b"\"", block, text.len(), b"\""),
            None => self.put_string(text),
        }
    }

    /// Writes one string made of several.
    #[inline]
    pub(crate) fn joined<const N: usize>(&mut self, parts: [&[u8]; N]) {
        self.room(parts.iter().map(|part| part.len()).sum::<usize>() + 8);
        self.out.put(b"\"");
        for (at, part) in parts.iter().enumerate() {
            self.put_escaped(Slice::of(part));
            // An escape uses room that is meant for the bytes after it.
            self.room(parts[at + 1..].iter().map(|part| part.len()).sum::<usize>() + 8);
        }
        self.out.put(b"\"");
    }

    /// Writes a string. There must be room for eight bytes more than the string without escapes.
    fn put_string(&mut self, text: Slice<'_>) {
        self.out.put(b"\"");
        self.put_escaped(text);
        self.out.put(b"\"");
    }

    /// A string's text, for which there must be room.
    #[inline]
    fn put_escaped(&mut self, text: Slice<'_>) {
        let Slice { bytes, start: mut at, end } = text;
        while at < end {
            let wanted = (end - at).min(BLOCK);
            let mut rest = [b' '; BLOCK];
            let block = match bytes.get(at..at + BLOCK).and_then(|block| block.first_chunk()) {
                Some(block) => block,
                None => {
                    // The bytes end within a block.
                    rest[..wanted].copy_from_slice(&bytes[at..at + wanted]);
                    &rest
                }
            };
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
    }

    /// Writes the byte at `at` as an escape; returns what comes after it.
    #[cold]
    fn escape(&mut self, text: Slice<'_>, at: usize) -> usize {
        // The escape is longer than the byte, for which there is room.
        self.room(text.end - at + 6 + 8);
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

    /// Writes the rest of an object without inner containers, except members whose name is skipped.
    #[inline]
    pub(crate) fn flat_members(&mut self, mut object: Container<'_>, mut first: bool, passed: impl Fn(&[u8]) -> bool) {
        while let Some((name, value)) = object.next_member() {
            if !passed(name.as_bytes()) {
                self.name(name, first);
                first = false;
                self.scalar(value);
            }
        }
        self.put(b"}");
    }

    /// Writes the rest of an array without inner containers.
    pub(crate) fn flat_elements(&mut self, mut array: Container<'_>) {
        let mut first = true;
        while let Some(value) = array.next_element() {
            if !first {
                self.comma();
            }
            first = false;
            self.scalar(value);
        }
        self.put(b"]");
    }

    /// Writes a whole container if it is flat, else its beginning. Returns whether it is complete.
    #[inline]
    fn start_or_flat(&mut self, container: &Container<'_>) -> bool {
        self.start(container);
        let flat = container.is_flat();
        match (flat, container.is_object()) {
            (false, _) => {}
            (true, true) => self.flat_members(container.clone(), true, |_| false),
            (true, false) => self.flat_elements(container.clone()),
        }
        flat
    }

    /// Writes a container with everything in it. `open` is used as a stack; entries that it has already are kept.
    pub(crate) fn container<'j>(&mut self, root: Container<'j>, open: &mut Open<'j>) {
        let bottom = open.len();
        let mut current = root;
        if self.start_or_flat(&current) {
            return;
        }
        'container: loop {
            let mut first = current.is_at_start();
            if current.is_object() {
                while let Some((name, value)) = current.next_member() {
                    self.name(name, first);
                    first = false;
                    let Some(inner) = value.container() else {
                        self.scalar(value);
                        continue;
                    };
                    if !self.start_or_flat(&inner) {
                        open.push(std::mem::replace(&mut current, inner));
                        continue 'container;
                    }
                }
                self.put(b"}");
            } else {
                while let Some(value) = current.next_element() {
                    if !first {
                        self.comma();
                    }
                    first = false;
                    let Some(inner) = value.container() else {
                        self.scalar(value);
                        continue;
                    };
                    if !self.start_or_flat(&inner) {
                        open.push(std::mem::replace(&mut current, inner));
                        continue 'container;
                    }
                }
                self.put(b"]");
            }
            if open.len() == bottom {
                return;
            }
            if let Some(outer) = open.pop() {
                current = outer;
            }
        }
    }

    #[inline]
    fn start(&mut self, container: &Container<'_>) {
        self.put(if container.is_object() { b"{" } else { b"[" });
    }
}
