//! Writes compact JSON into one buffer that is reused for all resources.
//!
//! Text is expected *ready for JSON*: whatever needs an escape is escaped already. That makes writing a copy,
//! and lets the vocabulary decide how a character is written (`é` or `\u00e9`).

use super::time::{Day, Second};

/// The buffer, and what is needed to know where a comma goes: its last byte.
pub(crate) struct Json {
    bytes: Vec<u8>,
}

impl Json {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::with_capacity(1 << 17) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// A whole resource and its line end.
    pub(crate) fn line(&mut self, members: impl FnOnce(&mut Self)) {
        self.bytes.push(b'{');
        members(self);
        self.bytes.extend_from_slice(b"}\n");
    }

    // --- objects and arrays

    pub(crate) fn object(&mut self, name: &str, members: impl FnOnce(&mut Self)) {
        self.name(name);
        self.braces(members);
    }

    pub(crate) fn array(&mut self, name: &str, items: impl FnOnce(&mut Self)) {
        self.name(name);
        self.bytes.push(b'[');
        items(self);
        self.bytes.push(b']');
    }

    /// An array of one object, FHIR's commonest shape.
    pub(crate) fn array_of_one(&mut self, name: &str, members: impl FnOnce(&mut Self)) {
        self.array(name, |j| j.item(members));
    }

    /// An object as an element of an array.
    pub(crate) fn item(&mut self, members: impl FnOnce(&mut Self)) {
        self.comma();
        self.braces(members);
    }

    /// A string as an element of an array.
    pub(crate) fn text_item(&mut self, text: &str) {
        self.string_item(|j| j.push(text));
    }

    pub(crate) fn string_item(&mut self, write: impl FnOnce(&mut Self)) {
        self.comma();
        self.quoted(write);
    }

    pub(crate) fn null_item(&mut self) {
        self.comma();
        self.push("null");
    }

    // --- members

    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.quoted(|j| j.push(text));
    }

    /// A string put together by `write` with [`push`](Self::push) and its relatives.
    pub(crate) fn string(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.name(name);
        self.quoted(write);
    }

    pub(crate) fn boolean(&mut self, name: &str, value: bool) {
        self.name(name);
        self.push(if value { "true" } else { "false" });
    }

    pub(crate) fn integer(&mut self, name: &str, value: i64) {
        self.name(name);
        self.push_integer(value);
    }

    /// `units / 10^scale` with exactly `scale` digits after the point: `decimal("value", 3660, 2)` is `36.60`.
    pub(crate) fn decimal(&mut self, name: &str, units: i64, scale: u32) {
        self.name(name);
        self.push_decimal(units, scale);
    }

    /// A number written as it stands.
    pub(crate) fn number(&mut self, name: &str, literal: &str) {
        self.name(name);
        self.push(literal);
    }

    pub(crate) fn date(&mut self, name: &str, day: Day) {
        self.string(name, |j| j.push_date(day));
    }

    /// A FHIR dateTime or instant: seconds and an offset.
    pub(crate) fn date_time(&mut self, name: &str, at: Second, offset: &str) {
        self.string(name, |j| j.push_date_time(at, offset));
    }

    // --- inside a string

    pub(crate) fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn push_integer(&mut self, value: i64) {
        if value < 0 {
            self.bytes.push(b'-');
        }
        self.push_digits(value.unsigned_abs(), 1);
    }

    pub(crate) fn push_decimal(&mut self, units: i64, scale: u32) {
        if units < 0 {
            self.bytes.push(b'-');
        }
        let ten = 10u64.pow(scale);
        self.push_digits(units.unsigned_abs() / ten, 1);
        if scale > 0 {
            self.bytes.push(b'.');
            self.push_digits(units.unsigned_abs() % ten, scale as usize);
        }
    }

    pub(crate) fn push_date(&mut self, day: Day) {
        let (year, month, day) = day.civil();
        self.push_digits(year as u64, 4);
        self.bytes.push(b'-');
        self.push_digits(month as u64, 2);
        self.bytes.push(b'-');
        self.push_digits(day as u64, 2);
    }

    pub(crate) fn push_date_time(&mut self, at: Second, offset: &str) {
        let (hour, minute, second) = at.clock();
        self.push_date(at.day());
        self.bytes.push(b'T');
        self.push_digits(hour as u64, 2);
        self.bytes.push(b':');
        self.push_digits(minute as u64, 2);
        self.bytes.push(b':');
        self.push_digits(second as u64, 2);
        self.push(offset);
    }

    /// Decimal digits, at least `width` of them.
    pub(crate) fn push_digits(&mut self, mut value: u64, width: usize) {
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        while value > 0 {
            start -= 1;
            digits[start] = b'0' + (value % 10) as u8;
            value /= 10;
        }
        self.bytes.extend_from_slice(&digits[start.min(digits.len() - width)..]);
    }

    /// Hexadecimal digits, exactly `width` of them.
    pub(crate) fn push_hex(&mut self, value: u64, width: usize) {
        let mut digits = [0; 16];
        for (i, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(value >> (60 - 4 * i)) as usize & 15];
        }
        self.bytes.extend_from_slice(&digits[16 - width..]);
    }

    // --- punctuation

    fn braces(&mut self, members: impl FnOnce(&mut Self)) {
        self.bytes.push(b'{');
        members(self);
        self.bytes.push(b'}');
    }

    fn quoted(&mut self, write: impl FnOnce(&mut Self)) {
        self.bytes.push(b'"');
        write(self);
        self.bytes.push(b'"');
    }

    fn name(&mut self, name: &str) {
        self.comma();
        self.bytes.push(b'"');
        self.push(name);
        self.bytes.extend_from_slice(b"\":");
    }

    /// A comma unless this is the first member or item: strings end in a quote, so an opening brace or bracket
    /// as the last byte is always structure.
    fn comma(&mut self) {
        if !matches!(self.bytes.last(), Some(b'{' | b'[')) {
            self.bytes.push(b',');
        }
    }
}
