//! Days in plain English: "tomorrow", "next friday", "in two weeks", "12 November", "2026-11-20".

use std::ops::Range;

use chrono::{Datelike, Days, Months, NaiveDate, Weekday};

use super::text::Words;

/// The current date as the system prompt tells it: the first ISO date after "today", or the first at all.
pub(super) fn today(system: &str) -> Option<NaiveDate> {
    let lower = system.to_ascii_lowercase();
    let from = lower.find("today").unwrap_or(0);
    iso_in(&lower[from..]).or_else(|| iso_in(&lower))
}

fn iso_in(text: &str) -> Option<NaiveDate> {
    text.split(|c: char| !c.is_ascii_digit() && c != '-').find_map(|part| part.get(..10)?.parse().ok())
}

/// The first day that the words name and the words that name it, prepositions included. A bare name in the middle
/// of other words is not taken for a date ("the monday report").
pub(super) fn find(words: &Words<'_>, today: NaiveDate) -> Option<(Range<usize>, NaiveDate)> {
    (0..words.len()).find_map(|start| {
        let mut at = start;
        let mut sure = false;
        while matches!(words.get(at), Some("on" | "by" | "due" | "for" | "until" | "till" | "before")) {
            sure = true;
            at += 1;
        }
        let (end, date, named) = day_at(words, at, today)?;
        let edge = start == 0 || end == words.len();
        (sure || named || edge).then_some((start..end, date))
    })
}

/// A day that begins at `at`: where its words end, the day, and whether the words can mean nothing else.
fn day_at(words: &Words<'_>, at: usize, today: NaiveDate) -> Option<(usize, NaiveDate, bool)> {
    let plus = |days: u64| today.checked_add_days(Days::new(days));
    let word = words.get(at)?;
    if matches!(word, "the" | "this" | "coming") {
        let (end, date, named) = day_at(words, at + 1, today)?;
        return Some((end, date, named || word != "the"));
    }
    match word {
        "today" | "tonight" => return Some((at + 1, today, true)),
        "tomorrow" | "tmrw" => return Some((at + 1, plus(1)?, true)),
        "weekend" => {
            let ahead = 5_u64.saturating_sub(u64::from(today.weekday().num_days_from_monday()));
            return Some((at + 1, plus(ahead)?, false));
        }
        "day" if words.get(at + 1) == Some("after") && words.get(at + 2) == Some("tomorrow") => {
            return Some((at + 3, plus(2)?, true));
        }
        "next" => return next_at(words, at + 1, today).map(|(end, date)| (end, date, true)),
        "in" => {
            let count = number(words.get(at + 1)?)?;
            let date = match words.get(at + 2)?.trim_end_matches('s') {
                "day" => plus(count)?,
                "week" => plus(count * 7)?,
                "month" => today.checked_add_months(Months::new(u32::try_from(count).ok()?))?,
                _ => return None,
            };
            return Some((at + 3, date, true));
        }
        _ => {}
    }
    if word.len() == 10
        && let Ok(date) = word.parse()
    {
        return Some((at + 1, date, true));
    }
    if let Some(weekday) = weekday(word) {
        let ahead = (7 + weekday.num_days_from_monday() - today.weekday().num_days_from_monday()) % 7;
        return Some((at + 1, plus(if ahead == 0 { 7 } else { u64::from(ahead) })?, false));
    }
    let second = words.get(at + 1).unwrap_or_default();
    let third = words.get(at + 2).unwrap_or_default();
    let (end, day, month) = if let (Some(month), Some(day)) = (month(word), ordinal(second)) {
        (at + 2, day, Some(month))
    } else if let (Some(day), Some(month)) = (ordinal(word), month(second)) {
        (at + 2, day, Some(month))
    } else if let (Some(day), "of", Some(month)) = (ordinal(word), second, month(third)) {
        (at + 3, day, Some(month))
    } else if let (Some(day), false) = (ordinal(word), word.chars().all(|c| c.is_ascii_digit())) {
        (at + 1, day, None)
    } else {
        return None;
    };
    Some((end, coming(today, day, month)?, month.is_some()))
}

/// What follows "next": a week, a month, or a day of next week.
fn next_at(words: &Words<'_>, at: usize, today: NaiveDate) -> Option<(usize, NaiveDate)> {
    let date = match words.get(at)? {
        "week" => today.checked_add_days(Days::new(7))?,
        "month" => today.checked_add_months(Months::new(1))?,
        word => {
            let weekday = weekday(word)?;
            let monday = Days::new(u64::from(7 - today.weekday().num_days_from_monday()));
            today
                .checked_add_days(monday)?
                .checked_add_days(Days::new(u64::from(weekday.num_days_from_monday())))?
        }
    };
    Some((at + 1, date))
}

/// The next such day from today on.
fn coming(today: NaiveDate, day: u32, month: Option<u32>) -> Option<NaiveDate> {
    match month {
        Some(month) => (0..5)
            .filter_map(|year| NaiveDate::from_ymd_opt(today.year() + year, month, day))
            .find(|date| *date >= today),
        None => (0..3)
            .filter_map(|months| today.with_day(1)?.checked_add_months(Months::new(months))?.with_day(day))
            .find(|date| *date >= today),
    }
}

fn number(word: &str) -> Option<u64> {
    const NAMES: [&str; 11] =
        ["", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    if matches!(word, "a" | "an") {
        return Some(1);
    }
    let named = NAMES.iter().position(|name| *name == word).and_then(|at| u64::try_from(at).ok());
    named.or_else(|| word.parse().ok()).filter(|number| *number <= 1000)
}

fn ordinal(word: &str) -> Option<u32> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let ending = &word[digits.len()..];
    let day: u32 = digits.parse().ok()?;
    (matches!(ending, "" | "st" | "nd" | "rd" | "th") && (1..=31).contains(&day)).then_some(day)
}

fn weekday(word: &str) -> Option<Weekday> {
    const LONG: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    LONG.contains(&word).then(|| word.parse().ok()).flatten()
}

fn month(word: &str) -> Option<u32> {
    // "may" and "march" are verbs too; they count only beside a number, which the callers see to.
    word.parse::<chrono::Month>().ok().map(|month| month.number_from_month())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_found() {
        // A Friday.
        let today = today("You are Alfred. Today is Friday, 2026-11-06 (Europe/Berlin).").unwrap();
        for (text, rest, date) in [
            ("buy milk tomorrow", "buy milk", "2026-11-07"),
            ("tomorrow to buy milk", "to buy milk", "2026-11-07"),
            ("call mom the day after tomorrow", "call mom", "2026-11-08"),
            ("call mom on friday", "call mom", "2026-11-13"),
            ("call mom sunday", "call mom", "2026-11-08"),
            ("call mom next monday at 5", "call mom at 5", "2026-11-09"),
            ("call mom next friday", "call mom", "2026-11-13"),
            ("pay rent by the 1st", "pay rent", "2026-12-01"),
            ("pay rent by december 3rd", "pay rent", "2026-12-03"),
            ("pay rent on 3 november", "pay rent", "2027-11-03"),
            ("pay rent on the 20th of november", "pay rent", "2026-11-20"),
            ("renew in two weeks", "renew", "2026-11-20"),
            ("renew due 2027-01-31", "renew", "2027-01-31"),
            ("rest this weekend", "rest", "2026-11-07"),
            ("tidy up next week", "tidy up", "2026-11-13"),
        ] {
            let words = Words::new(text);
            let (range, found) = find(&words, today).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((words.without(&range).as_str(), found.to_string().as_str()), (rest, date), "{text}");
        }
        for text in ["write the monday report", "buy 2 apples", "march on", "read chapter 12 again"] {
            assert_eq!(find(&Words::new(text), today), None, "{text}");
        }
    }
}
