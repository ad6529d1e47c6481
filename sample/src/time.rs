//! Days and seconds since 1970-01-01, and back to the calendar.

/// Days since 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day(pub(crate) i64);

/// Seconds since 1970-01-01T00:00:00, in whatever zone the writer appends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Second(pub(crate) i64);

impl Day {
    /// Year, month, day (the `civil_from_days` of Howard Hinnant's date algorithms).
    pub(crate) fn civil(self) -> (i64, i64, i64) {
        let shifted = self.0 + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        (year_of_era + era * 400 + i64::from(month <= 2), month, day)
    }

    pub(crate) fn start(self) -> Second {
        Second(self.0 * 86_400)
    }
}

impl Second {
    pub(crate) fn day(self) -> Day {
        Day(self.0.div_euclid(86_400))
    }

    /// Hour, minute, second.
    pub(crate) fn clock(self) -> (i64, i64, i64) {
        let second = self.0.rem_euclid(86_400);
        (second / 3600, second / 60 % 60, second % 60)
    }

    pub(crate) fn plus_minutes(self, minutes: i64) -> Second {
        Second(self.0 + 60 * minutes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_088, (2024, 12, 31)),
        ] {
            assert_eq!(Day(days).civil(), date);
        }
        assert_eq!(Second(-1).clock(), (23, 59, 59));
    }
}
