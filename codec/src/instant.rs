//! Reads and writes FHIR's `instant` (an ISO 8601 date and time with seconds and an offset), as PostgreSQL's microseconds.

use std::fmt::Write as _;

/// Microseconds since 2000-01-01T00:00:00Z, as PostgreSQL's `timestamptz` counts.
pub type Micros = i64;

const PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// Days from 0000-03-01 to 2000-01-01 in the proleptic Gregorian calendar.
const EPOCH_DAYS: i64 = 730_425;
/// The first valid microsecond, and the first one after the range (`timestamp.h`: MIN_TIMESTAMP, END_TIMESTAMP).
const MIN: Micros = -211_813_488_000_000_000;
const END: Micros = 9_223_371_331_200_000_000;

/// Reads an instant: `2021-06-10T08:26:10.707454Z`, `…+03:00`. A fraction is rounded to microseconds; second 60 is second 0
/// of the next minute; a year may have more than four digits and a sign. `None` if it is not an instant, or is out of range
/// for `timestamptz`.
pub fn parse(text: &str) -> Option<Micros> {
    let mut rest = Scanner(text.as_bytes());
    let negative = rest.skip(b'-');
    let _ = negative || rest.skip(b'+');
    let year = rest.number(4, 6)? * if negative { -1 } else { 1 };
    rest.expect(b'-')?;
    let month = rest.number(2, 2).filter(|m| (1..=12).contains(m))?;
    rest.expect(b'-')?;
    let day = rest.number(2, 2).filter(|d| (1..=days_in_month(year, month)).contains(d))?;
    rest.expect(b'T')?;
    let hour = rest.number(2, 2).filter(|h| *h < 24)?;
    rest.expect(b':')?;
    let minute = rest.number(2, 2).filter(|m| *m < 60)?;
    rest.expect(b':')?;
    let second = rest.number(2, 2).filter(|s| *s <= 60)?;
    let fraction = if rest.skip(b'.') { rest.fraction()? } else { 0 };
    let offset = rest.offset()?;
    if !rest.0.is_empty() {
        return None;
    }
    let seconds = days_from_civil(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
    let micros = seconds.checked_mul(PER_SECOND)?.checked_add(fraction)?;
    (MIN..END).contains(&micros).then_some(micros)
}

/// The time that a FHIR `date`, `dateTime` or `instant` covers by its precision, from its first microsecond to before the
/// first one after it: a year, month, day, minute, second, or fraction of a second. Without an offset it is in UTC; a space
/// before an offset is a plus, which URLs turn into one. `None` if it is none of them.
pub fn range(text: &str) -> Option<(Micros, Micros)> {
    const DAY: i64 = SECONDS_PER_DAY;
    let mut rest = Scanner(text.as_bytes());
    let year = rest.number(4, 4)?;
    let seconds = |from: i64, to: i64| Some((from * PER_SECOND, to * PER_SECOND));
    let ends = |rest: &Scanner<'_>| rest.0.is_empty();
    if ends(&rest) {
        return seconds(days_from_civil(year, 1, 1) * DAY, days_from_civil(year + 1, 1, 1) * DAY);
    }
    rest.expect(b'-')?;
    let month = rest.number(2, 2).filter(|m| (1..=12).contains(m))?;
    if ends(&rest) {
        let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        return seconds(days_from_civil(year, month, 1) * DAY, days_from_civil(next_year, next, 1) * DAY);
    }
    rest.expect(b'-')?;
    let day = rest.number(2, 2).filter(|d| (1..=days_in_month(year, month)).contains(d))?;
    let midnight = days_from_civil(year, month, day) * DAY;
    if ends(&rest) {
        return seconds(midnight, midnight + DAY);
    }
    rest.expect(b'T')?;
    let hour = rest.number(2, 2).filter(|h| *h < 24)?;
    rest.expect(b':')?;
    let minute = rest.number(2, 2).filter(|m| *m < 60)?;
    let of_minute = midnight + hour * 3600 + minute * 60;
    let (mut from, mut length) = (of_minute * PER_SECOND, 60 * PER_SECOND);
    if rest.skip(b':') {
        (from, length) = (from + rest.number(2, 2).filter(|s| *s <= 60)? * PER_SECOND, PER_SECOND);
        if rest.skip(b'.') {
            let digits = rest.0.iter().take_while(|b| b.is_ascii_digit()).count();
            // Digits beyond microseconds are cut off: rounding could reach the next second.
            let known = rest.0.get(..digits.min(6)).filter(|known| !known.is_empty())?;
            length = 10i64.pow(6 - known.len() as u32);
            from += known.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')) * length;
            rest.0 = &rest.0[digits..];
        }
    }
    if !ends(&rest) {
        if rest.0[0] == b' ' {
            rest.0 = &rest.0[1..];
            let east = rest.east()?;
            from -= east * PER_SECOND;
        } else {
            from -= rest.offset()? * PER_SECOND;
        }
    }
    ends(&rest).then_some((from, from + length))
}

/// The text of an instant in a zone `offset` seconds east of UTC, with six fraction digits. UTC is `Z`.
pub fn format(at: Micros, offset: i64) -> String {
    let (mut text, micros) = local(at, offset);
    // Writing to a String cannot fail.
    let _ = write!(text, ".{micros:06}");
    if offset == 0 {
        text.push('Z');
    } else {
        put_offset(offset, &mut text);
    }
    text
}

/// The text of an instant in UTC, with six fraction digits, as [`format`] writes it.
#[derive(Clone, Copy, Debug)]
pub struct Utc {
    text: [u8; 31],
    length: u8,
}

impl Utc {
    /// The text.
    pub fn new(at: Micros) -> Utc {
        let (seconds, micros) = (at.div_euclid(PER_SECOND), at.rem_euclid(PER_SECOND));
        let (days, of_day) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
        let (year, month, day) = civil_from_days(days);
        let mut out = Utc { text: [0; 31], length: 0 };
        if year < 0 {
            out.put(b'-');
        }
        let digits = year.unsigned_abs().max(1).ilog10() + 1;
        out.number(year.abs(), digits.max(4));
        for (sign, value) in
            [(b'-', month), (b'-', day), (b'T', of_day / 3600), (b':', of_day / 60 % 60), (b':', of_day % 60)]
        {
            out.put(sign);
            out.number(value, 2);
        }
        out.put(b'.');
        out.number(micros, 6);
        out.put(b'Z');
        out
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }

    fn put(&mut self, byte: u8) {
        self.text[usize::from(self.length)] = byte;
        self.length += 1;
    }

    fn number(&mut self, value: i64, digits: u32) {
        for at in (0..digits).rev() {
            self.put(b'0' + (value / 10i64.pow(at) % 10) as u8);
        }
    }
}

/// The text of a timestamp as PostgreSQL's `to_json` writes it, in ISO 8601, without trailing zeros in the fraction.
/// `offset` is in seconds east of UTC, for a type with time zone. Years before 1 are those of ISO 8601: 0 is 1 BC.
pub fn format_timestamp(at: Micros, offset: Option<i64>) -> String {
    let (mut text, micros) = local(at, offset.unwrap_or(0));
    if micros != 0 {
        let _ = write!(text, ".{micros:06}");
        text.truncate(text.trim_end_matches('0').len());
    }
    if let Some(offset) = offset {
        put_offset(offset, &mut text);
    }
    text
}

/// The text of a date in days since 2000-01-01.
pub fn format_date(days: i32) -> String {
    let mut text = String::new();
    put_date(days.into(), &mut text);
    text
}

/// Date and time to the second, and the microseconds of the second.
fn local(at: Micros, offset: i64) -> (String, i128) {
    let local = i128::from(at) + i128::from(offset) * i128::from(PER_SECOND);
    let (seconds, micros) = (local.div_euclid(1_000_000) as i64, local.rem_euclid(1_000_000));
    let (days, of_day) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
    let mut text = String::with_capacity(40);
    put_date(days, &mut text);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let _ = write!(text, "T{hour:02}:{minute:02}:{second:02}");
    (text, micros)
}

fn put_date(days: i64, text: &mut String) {
    let (year, month, day) = civil_from_days(days);
    let sign = if year < 0 { "-" } else { "" };
    let _ = write!(text, "{sign}{:04}-{month:02}-{day:02}", year.abs());
}

fn put_offset(offset: i64, text: &mut String) {
    let east = offset.abs();
    let sign = if offset < 0 { '-' } else { '+' };
    let _ = write!(text, "{sign}{:02}:{:02}", east / 3600, east / 60 % 60);
    if east % 60 != 0 {
        let _ = write!(text, ":{:02}", east % 60);
    }
}

/// How many days a month has, which is 1 to 12.
pub fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 2000-01-01 of a date. Years start in March here, so that the leap day is the last day of a year.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - EPOCH_DAYS
}

/// Year, month and day of so many days since 2000-01-01.
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    let days = days + EPOCH_DAYS;
    let (era, of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let of_era_year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_era_year + of_era_year / 4 - of_era_year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + of_era_year + i64::from(month <= 2), month, day)
}

struct Scanner<'a>(&'a [u8]);

impl Scanner<'_> {
    fn skip(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip(byte).then_some(())
    }

    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let length = self.0.iter().take(most).take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        (length >= least).then(|| digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
    }

    /// Microseconds, rounded.
    fn fraction(&mut self) -> Option<i64> {
        let length = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        let digit = |at: usize| digits.get(at).map_or(0, |digit| i64::from(digit - b'0'));
        let micros = (0..6).fold(0, |value, at| value * 10 + digit(at));
        (length > 0).then_some(micros + i64::from(digit(6) >= 5))
    }

    /// Seconds east of UTC.
    fn offset(&mut self) -> Option<i64> {
        if self.skip(b'Z') {
            return Some(0);
        }
        let west = self.skip(b'-');
        if !west {
            self.expect(b'+')?;
        }
        self.east().map(|east| if west { -east } else { east })
    }

    /// An offset without its sign.
    fn east(&mut self) -> Option<i64> {
        let hours = self.number(2, 2).filter(|h| *h < 16)?;
        self.expect(b':')?;
        let minutes = self.number(2, 2).filter(|m| *m < 60)?;
        let seconds = if self.skip(b':') { self.number(2, 2).filter(|s| *s < 60)? } else { 0 };
        Some(hours * 3600 + minutes * 60 + seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgresql_says_of_these_instants() {
        // extract(epoch from …) * 1000000 - 946684800000000
        for (text, micros) in [
            ("2000-01-01T00:00:00Z", 0),
            ("2021-06-10T08:26:10.707454Z", 676_628_770_707_454),
            ("2021-04-02T16:03:31.057462+03:00", 670_683_811_057_462),
            ("1999-12-31T23:59:59.9999995Z", 0),
            ("1969-12-31T19:00:00-05:00", -946_684_800_000_000),
            ("2016-12-31T23:59:60Z", 536_544_000_000_000),
            ("0001-01-01T00:00:00Z", -63_082_281_600_000_000),
            ("294276-12-31T23:59:59.999999Z", 9_223_371_331_199_999_999),
        ] {
            assert_eq!(parse(text), Some(micros), "{text}");
        }
    }

    #[test]
    fn an_instant_in_utc_is_written_the_same_without_memory() {
        for at in [0, 1, -1, 676_628_770_707_454, MIN, END - 1, -63_082_281_600_000_000, -63_150_000_000_000_000] {
            assert_eq!(str::from_utf8(Utc::new(at).as_bytes()).unwrap(), format(at, 0));
        }
    }

    #[test]
    fn a_time_covers_what_its_precision_says() {
        let at = |text: &str| parse(text).unwrap();
        for (text, from, to) in [
            ("2020", "2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"),
            ("2020-02", "2020-02-01T00:00:00Z", "2020-03-01T00:00:00Z"),
            ("2020-12", "2020-12-01T00:00:00Z", "2021-01-01T00:00:00Z"),
            ("2020-02-29", "2020-02-29T00:00:00Z", "2020-03-01T00:00:00Z"),
            ("2020-02-29T23:59", "2020-02-29T23:59:00Z", "2020-03-01T00:00:00Z"),
            ("2020-02-29T23:59+01:00", "2020-02-29T22:59:00Z", "2020-02-29T23:00:00Z"),
            ("2020-02-29T23:59:59-01:30", "2020-03-01T01:29:59Z", "2020-03-01T01:30:00Z"),
            ("2020-02-29T23:59:59 01:30", "2020-02-29T22:29:59Z", "2020-02-29T22:30:00Z"),
            ("2020-02-29T23:59:59.25Z", "2020-02-29T23:59:59.25Z", "2020-02-29T23:59:59.26Z"),
            ("2020-02-29T23:59:59.9999999Z", "2020-02-29T23:59:59.999999Z", "2020-03-01T00:00:00Z"),
            ("0000", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(range(text), Some((at(from), at(to))), "{text}");
        }
        for text in [
            "",
            "202",
            "20200",
            "2020-",
            "2020-13",
            "2020-00",
            "2021-02-29",
            "2020-01-01T",
            "2020-01-01T10",
            "2020-01-01T24:00",
            "2020-01-01T10:00:",
            "2020-01-01T10:00:00.",
            "2020-01-01T10:00:00.1x",
            "2020-01-01 10:00",
            "2020-01-01T10:00Zz",
            "2020-01-01T10:00 1",
            "2020-01-01T10:00+1:00",
            "now",
            "-2020",
        ] {
            assert_eq!(range(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "",
            "infinity",
            "now",
            "2021",
            "2021-06-10",
            "2021-06-10T08:26:10",
            "2021-06-10 08:26:10Z",
            "2021-13-10T08:26:10Z",
            "2021-02-29T08:26:10Z",
            "2021-06-10T24:00:00Z",
            "2021-06-10T08:26:10.Z",
            "2021-06-10T08:26:10Zz",
            "2021-06-10T08:26:10+3:00",
            "294277-01-01T00:00:00Z",
            "-4800-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn text_comes_back_from_its_micros_at_any_offset() {
        for (text, offset) in [
            ("2021-06-10T08:26:10.707454Z", 0),
            ("2021-04-02T16:03:31.057462+03:00", 10_800),
            ("1900-01-01T00:00:00.000001+00:19:32", 1172),
            ("2024-02-29T23:59:59.999999-09:30", -34_200),
            ("-0043-03-15T12:00:00.000000Z", 0),
            ("12021-03-01T12:00:00.000000Z", 0),
        ] {
            assert_eq!(format(parse(text).unwrap(), offset), text);
        }
    }

    #[test]
    fn timestamps_and_dates_are_those_of_to_json() {
        for (micros, offset, text) in [
            (0, None, "2000-01-01T00:00:00"),
            (0, Some(0), "2000-01-01T00:00:00+00:00"),
            (500_000, Some(19_800), "2000-01-01T05:30:00.5+05:30"),
            (676_628_770_707_454, Some(-34_200), "2021-06-09T22:56:10.707454-09:30"),
            (10, None, "2000-01-01T00:00:00.00001"),
            (-1, None, "1999-12-31T23:59:59.999999"),
        ] {
            assert_eq!(format_timestamp(micros, offset), text);
        }
        for (days, text) in [
            (0, "2000-01-01"),
            (-1, "1999-12-31"),
            (7829, "2021-06-08"),
            (-730_485, "0000-01-01"),
            (3_652_425, "12000-01-01"),
        ] {
            assert_eq!(format_date(days), text);
        }
    }

    #[test]
    fn every_day_of_four_centuries_keeps_its_date() {
        for day in 0..146_097 * 2 {
            let (year, month, of_month) = civil_from_days(day - 146_097);
            assert_eq!(days_from_civil(year, month, of_month), day - 146_097);
        }
    }
}
