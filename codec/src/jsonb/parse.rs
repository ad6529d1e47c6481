//! JSON tokens of one line: strings, numbers, literals, white space. RFC 8259, with PostgreSQL's limits.

use super::kind;
use super::numeric::{self, Decimal};
use super::scan::find_special;
use super::value::Value;
use crate::error::{LineError, Reason, Refusal};

#[cold]
fn refusal(reason: Reason, offset: usize) -> Refusal {
    Box::new(LineError::new(reason, offset))
}

/// A line and the position in it.
pub(crate) struct Tokens<'l> {
    pub line: &'l [u8],
    pub at: usize,
}

impl<'l> Tokens<'l> {
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        match self.line.get(self.at) {
            Some(byte) if *byte > b' ' => Some(*byte),
            _ => self.peek_after_space(),
        }
    }

    fn peek_after_space(&mut self) -> Option<u8> {
        loop {
            match self.line.get(self.at) {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    #[cold]
    pub(crate) fn error(&self, reason: Reason) -> Refusal {
        refusal(reason, self.at)
    }

    #[cold]
    pub(crate) fn syntax(&self, expected: &'static str) -> Refusal {
        let expected = if self.at >= self.line.len() { "the line ends in the middle of a value" } else { expected };
        self.error(Reason::Syntax(expected))
    }

    /// Reads a string from its opening quote. Without escapes the value points into the line, else into the arena.
    #[inline(always)]
    pub(crate) fn string(&mut self, arena: &mut Vec<u8>) -> Result<Value, Refusal> {
        let start = self.at + 1;
        let end = find_special(self.line, start);
        if self.line.get(end) == Some(&b'"') {
            self.at = end + 1;
            return Value::in_line(start..end).map_err(|limit| limit.at(start));
        }
        self.escaped_string(start, end, arena)
    }

    #[cold]
    fn escaped_string(&mut self, start: usize, plain_end: usize, arena: &mut Vec<u8>) -> Result<Value, Refusal> {
        let arena_start = arena.len();
        let (mut run, mut end) = (start, plain_end);
        loop {
            arena.try_reserve(end - run + 4)?;
            arena.extend_from_slice(&self.line[run..end]);
            self.at = end;
            match self.line.get(end) {
                Some(b'"') => {
                    self.at += 1;
                    let value = Value::in_arena(kind::STRING, arena_start..arena.len());
                    return value.map_err(|limit| limit.at(start));
                }
                Some(b'\\') => {
                    self.escape(arena)?;
                    run = self.at;
                    end = find_special(self.line, run);
                }
                Some(0) => return Err(self.error(Reason::NulCharacter)),
                Some(_) => return Err(self.syntax("a control character in a string must be escaped")),
                None => return Err(self.syntax("")),
            }
        }
    }

    fn escape(&mut self, arena: &mut Vec<u8>) -> Result<(), Refusal> {
        let byte = match self.line.get(self.at + 1) {
            Some(b'"') => b'"',
            Some(b'\\') => b'\\',
            Some(b'/') => b'/',
            Some(b'b') => 0x08,
            Some(b'f') => 0x0C,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode_escape(arena),
            Some(_) => return Err(self.syntax("unknown escape in a string")),
            None => {
                self.at = self.line.len();
                return Err(self.syntax(""));
            }
        };
        arena.push(byte);
        self.at += 2;
        Ok(())
    }

    fn unicode_escape(&mut self, arena: &mut Vec<u8>) -> Result<(), Refusal> {
        let start = self.at;
        let unit = self.hex4()?;
        let code = match unit {
            0xD800..=0xDBFF => {
                let low = if self.line[self.at..].starts_with(b"\\u") { self.hex4()? } else { 0 };
                if !(0xDC00..=0xDFFF).contains(&low) {
                    return Err(refusal(Reason::LoneSurrogate, start));
                }
                0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
            }
            0 => return Err(refusal(Reason::NulCharacter, start)),
            other => other,
        };
        // The only code left that is not a character is a low surrogate.
        let character = char::from_u32(code).ok_or_else(|| refusal(Reason::LoneSurrogate, start))?;
        arena.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    /// The four digits after `\u`.
    fn hex4(&mut self) -> Result<u32, Refusal> {
        let mut value = 0;
        for offset in 2..6 {
            match self.line.get(self.at + offset).and_then(|b| (*b as char).to_digit(16)) {
                Some(digit) => value = value * 16 + digit,
                None => {
                    self.at = (self.at + offset).min(self.line.len());
                    return Err(self.syntax("\\u must be followed by four hexadecimal digits"));
                }
            }
        }
        self.at += 6;
        Ok(value)
    }

    /// Reads a number, and appends it to the arena as a numeric.
    pub(crate) fn number(&mut self, arena: &mut Vec<u8>) -> Result<Value, Refusal> {
        let start = self.at;
        let negative = self.line[start] == b'-';
        self.at += usize::from(negative);
        let integer = self.digits("a digit must follow the minus sign")?;
        if integer.len() > 1 && integer[0] == b'0' {
            return Err(refusal(Reason::Syntax("a number must not start with 0"), start));
        }
        let mut fraction: &[u8] = &[];
        if self.line.get(self.at) == Some(&b'.') {
            self.at += 1;
            fraction = self.digits("a digit must follow the decimal point")?;
        }
        let mut exponent = Some(0);
        if let Some(b'e' | b'E') = self.line.get(self.at) {
            self.at += 1;
            let below = match self.line.get(self.at) {
                Some(sign @ (b'+' | b'-')) => {
                    self.at += 1;
                    *sign == b'-'
                }
                _ => false,
            };
            let digits = self.digits("a digit must follow the exponent's e")?;
            let value = digits
                .iter()
                .try_fold(0i64, |value, digit| value.checked_mul(10)?.checked_add(i64::from(digit - b'0')));
            exponent = value.map(|value| if below { -value } else { value });
        }
        // `12abc` is not a number. The error is better here than at the next token.
        if self.line.get(self.at).is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-')) {
            return Err(self.syntax("a number must end before this character"));
        }
        let arena_start = arena.len();
        numeric::encode(&Decimal { negative, integer, fraction, exponent }, arena)
            .and_then(|()| Value::in_arena(kind::NUMERIC, arena_start..arena.len()))
            .map_err(|limit| limit.at(start))
    }

    fn digits(&mut self, expected: &'static str) -> Result<&'l [u8], Refusal> {
        let start = self.at;
        while self.line.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { Err(self.syntax(expected)) } else { Ok(&self.line[start..self.at]) }
    }

    /// `true`, `false` or `null`.
    pub(crate) fn literal(&mut self) -> Result<Value, Refusal> {
        for (text, kind) in [(&b"true"[..], kind::TRUE), (b"false", kind::FALSE), (b"null", kind::NULL)] {
            let rest = &self.line[self.at..];
            if rest.starts_with(text) && !rest.get(text.len()).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
            {
                self.at += text.len();
                return Ok(Value::plain(kind));
            }
        }
        Err(self.syntax("expected a value"))
    }
}
