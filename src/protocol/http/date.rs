//! Dates in the form of HTTP (RFC 9110, 5.6.7), from and to seconds since 1970.
//!
//! Only the preferred form is read; the two obsolete ones count as no date, which costs a client a full
//! response instead of a 304.

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY: u64 = 86_400;
/// The last second of the year 9999: the form has four digits for a year.
const LAST: u64 = 253_402_300_799;

/// Writes a time as `Sun, 06 Nov 1994 08:49:37 GMT`. Times beyond the year 9999 are written as its end.
pub fn format_date(seconds: u64) -> String {
    let seconds = seconds.min(LAST);
    let weekday = DAYS[usize::try_from(seconds / DAY % 7).unwrap_or_default()];
    let ((year, month, day), (hour, minute, second)) = civil(seconds);
    let month = MONTHS[month];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Writes a time as `19941106T084937Z`, the basic form of ISO 8601: safe in a file name, and sorts by time.
pub fn format_stamp(seconds: u64) -> String {
    let ((year, month, day), (hour, minute, second)) = civil(seconds.min(LAST));
    format!("{year:04}{:02}{day:02}T{hour:02}{minute:02}{second:02}Z", month + 1)
}

/// Year, month from 0 and day from 1; hour, minute and second.
fn civil(seconds: u64) -> ((u64, usize, u64), (u64, u64, u64)) {
    let (mut days, clock) = (seconds / DAY, seconds % DAY);
    let mut year = 1970;
    while days >= year_days(year) {
        days -= year_days(year);
        year += 1;
    }
    let mut month = 0;
    while days >= month_days(year, month) {
        days -= month_days(year, month);
        month += 1;
    }
    ((year, month, days + 1), (clock / 3600, clock / 60 % 60, clock % 60))
}

/// Reads what [`format_date`] writes; `None` for anything else. The day of the week is not compared.
pub fn parse_date(text: &str) -> Option<u64> {
    let (weekday, rest) = text.split_once(", ")?;
    DAYS.iter().find(|day| **day == weekday)?;
    let mut words = rest.split(' ');
    let day = number(words.next()?, 2)?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)?;
    let year = number(words.next()?, 4).filter(|year| *year >= 1970)?;
    let mut clock = words.next()?.split(':');
    let (hour, minute) = (number(clock.next()?, 2)?, number(clock.next()?, 2)?);
    let second = number(clock.next()?, 2)?;
    let whole = words.next() == Some("GMT") && words.next().is_none() && clock.next().is_none();
    // A leap second is 60; it becomes the first second of the next minute.
    if !whole || day == 0 || day > month_days(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let years: u64 = (1970..year).map(year_days).sum();
    let months: u64 = (0..month).map(|month| month_days(year, month)).sum();
    Some((years + months + day - 1) * DAY + hour * 3600 + minute * 60 + second)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn year_days(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

/// Days of a month; months count from 0.
fn month_days(year: u64, month: usize) -> u64 {
    match month {
        1 => 28 + u64::from(is_leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

/// A number of exactly `digits` digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stamps() {
        assert_eq!(format_stamp(784_111_777), "19941106T084937Z");
        assert_eq!(format_stamp(0), "19700101T000000Z");
    }

    #[test]
    fn known_dates() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (LAST, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(format_date(seconds), text);
            assert_eq!(parse_date(text), Some(seconds));
        }
        assert_eq!(format_date(u64::MAX), format_date(LAST));
    }

    #[test]
    fn other_texts_are_not_dates() {
        for text in [
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1999 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 08:49:37 GMT x",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 1994 +8:49:37 GMT",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn written_dates_read_back(seconds in 0..=LAST) {
            prop_assert_eq!(parse_date(&format_date(seconds)), Some(seconds));
        }

        #[test]
        fn garbage_never_panics(text in ".{0,40}") {
            let _ = parse_date(&text);
        }
    }
}
