//! `strftime_now`: Python's `datetime.strftime` for a given day at midnight, in the C locale.

use std::fmt::Write as _;
use std::str::FromStr;

use crate::{Error, Result};

/// A day of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Date {
    /// The day, when there is one: years 1 to 9999, months and days from 1.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let date = Self { year, month, day };
        ((1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=date.days_in(month)).contains(&day)).then_some(date)
    }

    /// The day of a time in seconds since 1970-01-01 in UTC; times before it, or after the year 9999, are the nearest day.
    pub fn of_unix_time(seconds: u64) -> Self {
        // Days since 0000-03-01 in eras of 400 years, so that the leap day is the last of its year.
        let days = (seconds / 86_400).min(2_932_896) + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Self { year: year as u16, month: month as u8, day: day as u8 }
    }

    fn is_leap(self) -> bool {
        (self.year.is_multiple_of(4) && !self.year.is_multiple_of(100)) || self.year.is_multiple_of(400)
    }

    fn days_in(self, month: u8) -> u8 {
        match month {
            2 if self.is_leap() => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// 1 to 366.
    fn day_of_year(self) -> u32 {
        (1..self.month).map(|month| u32::from(self.days_in(month))).sum::<u32>() + u32::from(self.day)
    }

    /// 0 is Monday.
    fn weekday(self) -> u32 {
        let before = u32::from(self.year) - 1;
        (before * 365 + before / 4 - before / 100 + before / 400 + self.day_of_year() - 1) % 7
    }
}

impl Date {
    /// Year and week of ISO 8601: weeks begin on Monday and belong to the year of their Thursday.
    fn iso_week(self) -> (u32, u32) {
        let year = u32::from(self.year);
        // The Thursday of this week as a day of the year, which may lie before or after it.
        let thursday = self.day_of_year() + 3;
        let days = 365 + u32::from(self.is_leap());
        match thursday.checked_sub(self.weekday()).filter(|day| *day > 0) {
            None => {
                let before = Self { year: self.year.saturating_sub(1), month: 12, day: 31 };
                (year - 1, (before.day_of_year() + self.day_of_year() + 3 - self.weekday() - 1) / 7 + 1)
            }
            Some(day) if day > days => (year + 1, 1),
            Some(day) => (year, (day - 1) / 7 + 1),
        }
    }

    /// Seconds since 1970-01-01 of its midnight in UTC.
    fn unix_time(self) -> i64 {
        let before = i64::from(self.year) - 1;
        (before * 365 + before / 4 - before / 100 + before / 400 + i64::from(self.day_of_year()) - 719_163) * 86_400
    }
}

impl FromStr for Date {
    type Err = Error;

    /// Reads `2024-07-26`.
    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('-').collect();
        let date = match parts[..] {
            [year, month, day] => (|| Self::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?))(),
            _ => None,
        };
        date.ok_or_else(|| Error::config("date", format!("{text:?} is no day"), "give year, month and day as in 2024-07-26"))
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// The date in a format of Python's `strftime`; a conversion that it does not know stays as it is.
pub fn strftime(date: Date, format: &str) -> String {
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = rest.next();
        // glibc's flag for a number without padding, as in `%-d`.
        let unpadded = spec == Some('-');
        if unpadded {
            spec = rest.next();
        }
        let Some(spec) = spec else {
            out.push_str(if unpadded { "%-" } else { "%" });
            break;
        };
        convert(date, spec, unpadded, &mut out);
    }
    out
}

fn convert(date: Date, spec: char, unpadded: bool, out: &mut String) {
    let month = MONTHS[usize::from(date.month - 1)];
    let weekday = DAYS[date.weekday() as usize];
    let number = |value: u32, width: usize| if unpadded { value.to_string() } else { format!("{value:0width$}") };
    let year = u32::from(date.year);
    // Writing to a string cannot fail.
    let _ = match spec {
        'Y' => write!(out, "{year}"),
        'y' => write!(out, "{}", number(year % 100, 2)),
        'C' => write!(out, "{}", number(year / 100, 2)),
        'm' => write!(out, "{}", number(date.month.into(), 2)),
        'd' => write!(out, "{}", number(date.day.into(), 2)),
        'e' if unpadded => write!(out, "{}", date.day),
        'e' => write!(out, "{:2}", date.day),
        'j' => write!(out, "{}", number(date.day_of_year(), 3)),
        'B' => out.write_str(month),
        'b' | 'h' => out.write_str(&month[..3]),
        'A' => out.write_str(weekday),
        'a' => out.write_str(&weekday[..3]),
        'u' => write!(out, "{}", date.weekday() + 1),
        'w' => write!(out, "{}", (date.weekday() + 1) % 7),
        'U' => write!(out, "{}", number((date.day_of_year() + 6 - (date.weekday() + 1) % 7) / 7, 2)),
        'W' => write!(out, "{}", number((date.day_of_year() + 6 - date.weekday()) / 7, 2)),
        'V' => write!(out, "{}", number(date.iso_week().1, 2)),
        'G' => write!(out, "{}", date.iso_week().0),
        'g' => write!(out, "{}", number(date.iso_week().0 % 100, 2)),
        's' => write!(out, "{}", date.unix_time()),
        'H' | 'M' | 'S' => out.write_str(&number(0, 2)),
        'k' => out.write_str(if unpadded { "0" } else { " 0" }),
        'I' | 'l' => out.write_str("12"),
        'p' => out.write_str("AM"),
        'P' => out.write_str("am"),
        'r' => out.write_str("12:00:00 AM"),
        'f' => out.write_str("000000"),
        'F' => write!(out, "{date}"),
        'D' | 'x' => write!(out, "{:02}/{:02}/{:02}", date.month, date.day, year % 100),
        'T' | 'X' => out.write_str("00:00:00"),
        'R' => out.write_str("00:00"),
        'c' => write!(out, "{} {} {:2} 00:00:00 {year}", &weekday[..3], &month[..3], date.day),
        'n' => out.write_str("\n"),
        't' => out.write_str("\t"),
        // A naive datetime has no zone.
        'z' | 'Z' => Ok(()),
        '%' => out.write_str("%"),
        other => write!(out, "%{}{other}", if unpadded { "-" } else { "" }),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Python: `datetime(y, m, d).strftime(...)`.
    #[test]
    fn dates_are_written_as_python_writes_them() {
        let all = "%Y-%m-%d|%y|%-d %b %B|%e|%j|%a %A|%u%w|%U %W|%H:%M:%S %I %p|%F %D %T %R|%%|%c|%x %X|%f|%z%Z|";
        let expected = "2024-07-04|24|4 Jul July| 4|186|Thu Thursday|44|26 27|00:00:00 12 AM|2024-07-04 07/04/24 00:00:00 00:00|%|\
                        Thu Jul  4 00:00:00 2024|07/04/24 00:00:00|000000||";
        assert_eq!(strftime(Date::new(2024, 7, 4).expect("a day"), all), expected);
        let weeks = |year, month, day| strftime(Date::new(year, month, day).expect("a day"), "%G-%V|%g|%s");
        assert_eq!(weeks(2024, 7, 4), "2024-27|24|1720051200");
        assert_eq!((weeks(2021, 1, 3), weeks(2024, 12, 30)), ("2020-53|20|1609632000".into(), "2025-01|25|1735516800".into()));
        assert_eq!((weeks(2023, 1, 1), weeks(1970, 1, 1)), ("2022-52|22|1672531200".into(), "1970-01|70|0".into()));
        assert_eq!(weeks(1969, 12, 31), "1970-01|70|-86400");
        assert_eq!(strftime(Date::new(2024, 7, 4).expect("a day"), "%k %-k %l %P %r"), " 0 0 12 am 12:00:00 AM");
        assert_eq!(strftime(Date::new(2000, 12, 31).expect("a day"), "%a %j %U %W %-m %"), "Sun 366 53 52 12 %");
        assert_eq!(strftime(Date::new(1, 1, 1).expect("a day"), "%A %Y"), "Monday 1");
    }

    #[test]
    fn days_are_read_and_checked() {
        assert_eq!("2024-02-29".parse::<Date>().expect("leap").to_string(), "2024-02-29");
        for wrong in ["2023-02-29", "2024-13-01", "2024-00-01", "2024-01-00", "24", "", "10000-01-01", "2024-1-1-1", "0-1-1"] {
            assert!(wrong.parse::<Date>().is_err(), "{wrong}");
        }
        for (seconds, day) in [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (951_868_800, "2000-03-01"), (1_720_051_200, "2024-07-04")] {
            assert_eq!(Date::of_unix_time(seconds).to_string(), day);
        }
        assert_eq!(Date::of_unix_time(u64::MAX).to_string(), "9999-12-31");
    }
}
