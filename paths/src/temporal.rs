//! Dates, times of day and instants with the precision that their text has, compared as FHIRPath says: what their precision
//! does not tell is unknown.

use fhir_bulk_codec::instant::{self, Micros};
use std::cmp::Ordering;

/// A date, a time of day, or both, as far as its text says it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temporal {
    /// Year, month, day, hour, minute, and microseconds of the minute.
    parts: [i64; 6],
    /// The parts that are known: from the first to before the last.
    from: usize,
    to: usize,
    /// Minutes east of UTC.
    offset: Option<i64>,
}

const HOUR: usize = 3;
const ALL: usize = 6;
/// The parts after which a text with another precision differs.
const DAY_END: usize = 3;

/// The text of a boundary.
#[derive(Clone, Copy, Debug)]
pub struct Short {
    text: [u8; 31],
    length: u8,
}

impl Short {
    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }

    /// A text of at most 31 bytes; what is longer is cut.
    pub(crate) fn new(text: &[u8]) -> Short {
        let length = text.len().min(31);
        let mut short = Short { text: [0; 31], length: length as u8 };
        short.text[..length].copy_from_slice(&text[..length]);
        short
    }

    fn push(&mut self, text: &[u8]) {
        for byte in text.iter().take(31 - usize::from(self.length)) {
            self.text[usize::from(self.length)] = *byte;
            self.length += 1;
        }
    }
}

impl Temporal {
    /// Reads a FHIR `date`, `dateTime`, `instant` or `time`; FHIRPath's literals may start or end with a `T`.
    pub fn parse(text: &[u8]) -> Option<Temporal> {
        let mut found = Temporal { parts: [0; 6], from: 0, to: 0, offset: None };
        let time = match text.strip_prefix(b"T") {
            Some(time) => Some(time),
            None if text.get(2) == Some(&b':') => Some(text),
            None => None,
        };
        if let Some(time) = time {
            found.from = HOUR;
            found.to = HOUR;
            return found.read_time(time).filter(|rest| rest.is_empty()).map(|_| found);
        }
        let (date, rest) = match text.iter().position(|byte| *byte == b'T') {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        for (at, part) in date.split(|byte| *byte == b'-').enumerate() {
            let (digits, least, most) = *[(4, 0, 9999), (2, 1, 12), (2, 1, 31)].get(at)?;
            found.parts[at] = number(part, digits, least, most)?;
            found.to = at + 1;
        }
        let Some(time) = rest.filter(|rest| !rest.is_empty()) else { return Some(found) };
        if found.to != DAY_END {
            return None;
        }
        let rest = found.read_time(time)?;
        found.offset = match rest {
            [] => None,
            b"Z" => Some(0),
            [sign @ (b'+' | b'-'), hour @ .., b':', _, _] => {
                let minutes = number(hour, 2, 0, 23)? * 60 + number(&rest[rest.len() - 2..], 2, 0, 59)?;
                Some(if *sign == b'-' { -minutes } else { minutes })
            }
            _ => return None,
        };
        Some(found)
    }

    /// Reads hour, minute and second; returns what is behind them.
    fn read_time<'t>(&mut self, time: &'t [u8]) -> Option<&'t [u8]> {
        let length = time.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b':' | b'.')).unwrap_or(time.len());
        let (time, rest) = time.split_at(length);
        for (at, part) in time.split(|byte| *byte == b':').enumerate() {
            let (part, fraction) = match part.iter().position(|byte| *byte == b'.') {
                Some(point) if at == 2 => (&part[..point], &part[point + 1..]),
                Some(_) => return None,
                None => (part, &b""[..]),
            };
            let value = number(part, 2, 0, *[23, 59, 60].get(at)?)?;
            if !fraction.iter().all(u8::is_ascii_digit) {
                return None;
            }
            let digit = |at: usize| fraction.get(at).map_or(0, |digit| i64::from(digit - b'0'));
            let micros = (0..6).fold(0, |micros, at| micros * 10 + digit(at));
            self.parts[HOUR + at] = if at == 2 { value * 1_000_000 + micros } else { value };
            self.to = HOUR + at + 1;
        }
        Some(rest)
    }

    /// An instant.
    pub fn of_instant(at: Micros) -> Option<Temporal> {
        Temporal::parse(instant::Utc::new(at).as_bytes())
    }

    /// The same time in UTC, if its offset is known.
    fn in_utc(mut self) -> Temporal {
        let Some(offset) = self.offset.filter(|offset| *offset != 0) else { return self };
        let mut minutes = self.parts[HOUR] * 60 + self.parts[HOUR + 1] - offset;
        let mut days = instant::days_from_civil(self.parts[0], self.parts[1], self.parts[2]);
        days += minutes.div_euclid(1440);
        minutes = minutes.rem_euclid(1440);
        let (year, month, day) = instant::civil_from_days(days);
        self.parts[..HOUR + 2].copy_from_slice(&[year, month, day, minutes / 60, minutes % 60]);
        self.offset = Some(0);
        self
    }

    /// The order of two; `None` if it is unknown: one is more precise than the other, and equal as far as both tell; one has an
    /// offset and the other has none; or one has a date and the other has none.
    pub fn compare(&self, other: &Temporal) -> Option<Ordering> {
        if self.from != other.from {
            return None;
        }
        let both = self.offset.is_some() && other.offset.is_some();
        let (a, b) = if both { (self.in_utc(), other.in_utc()) } else { (*self, *other) };
        let mut known = a.to.min(b.to);
        let have_time = a.to > DAY_END && b.to > DAY_END;
        if have_time && self.offset.is_some() != other.offset.is_some() {
            return None;
        }
        if !have_time {
            known = known.min(DAY_END);
        }
        match a.parts[a.from..known].cmp(&b.parts[a.from..known]) {
            Ordering::Equal if a.to != b.to => None,
            order => Some(order),
        }
    }

    /// The first or last moment that it may be, with milliseconds; a `date` has days only. A dateTime without an offset may be
    /// anywhere on the earth.
    pub fn boundary(&self, high: bool, is_date: bool) -> Short {
        let mut parts = self.parts;
        let millis = if high { 59_999_000 } else { 0 };
        let bounds = if high { [9999, 12, 31, 23, 59, millis] } else { [1, 1, 1, 0, 0, millis] };
        parts[self.to..ALL].copy_from_slice(&bounds[self.to..ALL]);
        if high && self.to < DAY_END {
            parts[2] = instant::days_in_month(parts[0], parts[1]);
        }
        let mut text = Short { text: [0; 31], length: 0 };
        let two = |value: i64| [b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8];
        if self.from == 0 {
            for (sign, digits) in
                [("", two(parts[0] / 100)), ("", two(parts[0])), ("-", two(parts[1])), ("-", two(parts[2]))]
            {
                text.push(sign.as_bytes());
                text.push(&digits);
            }
            if is_date {
                return text;
            }
            text.push(b"T");
        }
        for (sign, value) in [("", parts[HOUR]), (":", parts[HOUR + 1]), (":", parts[HOUR + 2] / 1_000_000)] {
            text.push(sign.as_bytes());
            text.push(&two(value));
        }
        // A second without a fraction lasts to its last millisecond.
        let micros = parts[HOUR + 2] % 1_000_000;
        let millis = if high && self.to == ALL && micros == 0 { 999 } else { micros / 1000 };
        text.push(b".");
        text.push(&[b'0' + (millis / 100) as u8]);
        text.push(&two(millis));
        if self.from == 0 {
            let offset = self.offset.unwrap_or(if high { -720 } else { 840 });
            match offset {
                0 => text.push(b"Z"),
                _ => {
                    text.push(if offset < 0 { b"-" } else { b"+" });
                    text.push(&two(offset.abs() / 60));
                    text.push(b":");
                    text.push(&two(offset.abs() % 60));
                }
            }
        }
        text
    }
}

/// A number of so many digits, in a range.
fn number(text: &[u8], digits: usize, least: i64, most: i64) -> Option<i64> {
    if text.len() != digits || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = text.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    (least..=most).contains(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Temporal {
        Temporal::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn the_order_is_known_as_far_as_both_are() {
        use Ordering::{Equal, Greater, Less};
        for (a, b, order) in [
            ("2020", "2021", Some(Less)),
            ("2020", "2020", Some(Equal)),
            ("2020", "2020-01", None),
            ("2020-02", "2020-01-31", Some(Greater)),
            ("2020-01-01", "2020-01-01T00:00:00Z", None),
            ("2020-01-01", "2020-01-02T00:00:00Z", Some(Less)),
            ("2020-01-01T12:00:00Z", "2020-01-01T13:00:00+01:00", Some(Equal)),
            ("2020-01-01T00:30:00+01:00", "2019-12-31T23:30:00Z", Some(Equal)),
            ("2020-03-01T00:00:00-00:30", "2020-02-29T23:59:00Z", Some(Greater)),
            ("2020-01-01T12:00:00", "2020-01-01T13:00:00+01:00", None),
            ("2020-01-01T12:00", "2020-01-01T12:00:30", None),
            ("2020-01-01T12:00:30.5Z", "2020-01-01T12:00:30.500Z", Some(Equal)),
            ("12:00:00", "12:00:00.000", Some(Equal)),
            ("12:00", "12:01:00", Some(Less)),
            ("T12:00", "12:00", Some(Equal)),
            ("12:00", "2020", None),
            ("2020T", "2020", Some(Equal)),
        ] {
            assert_eq!(read(a).compare(&read(b)), order, "{a} {b}");
            assert_eq!(read(b).compare(&read(a)), order.map(Ordering::reverse), "{b} {a}");
        }
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for text in [
            "",
            "20",
            "2020-13",
            "2020-00-01",
            "2020-01-32",
            "2020-01-01T25:00",
            "2020T12:00",
            "abc",
            "12:00:00Z",
            "2020-01-01T12:00:00+1",
            "2020-01-01T1.5:00",
            "T",
            "-",
            "2020-01-01-01",
            "12:60",
            "12:00:00.5.1",
            "2020-01-01T12:00:00.5.Z",
        ] {
            assert_eq!(Temporal::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn boundaries_are_the_first_and_last_moment() {
        for (text, is_date, low, high) in [
            ("1970-06", true, "1970-06-01", "1970-06-30"),
            ("2020-02", true, "2020-02-01", "2020-02-29"),
            ("2020", true, "2020-01-01", "2020-12-31"),
            ("2010-10-10", false, "2010-10-10T00:00:00.000+14:00", "2010-10-10T23:59:59.999-12:00"),
            ("2010-10-10T12:30Z", false, "2010-10-10T12:30:00.000Z", "2010-10-10T12:30:59.999Z"),
            ("2010-10-10T12:30:15-05:30", false, "2010-10-10T12:30:15.000-05:30", "2010-10-10T12:30:15.999-05:30"),
            ("2010-10-10T12:30:15.250Z", false, "2010-10-10T12:30:15.250Z", "2010-10-10T12:30:15.250Z"),
            ("12:34:00", false, "12:34:00.000", "12:34:00.999"),
            ("12:34", false, "12:34:00.000", "12:34:59.999"),
        ] {
            let bound = |high| String::from_utf8(read(text).boundary(high, is_date).as_bytes().to_vec()).unwrap();
            assert_eq!((bound(false).as_str(), bound(true).as_str()), (low, high), "{text}");
        }
    }
}
