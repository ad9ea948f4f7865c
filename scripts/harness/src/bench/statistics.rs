//! Percentiles, and figures as people read them.

use std::time::Duration;

/// Samples in order.
pub(super) struct Samples(Vec<f64>);

impl Samples {
    /// Of numbers, in any order.
    pub(super) fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// Of durations, in milliseconds.
    pub(super) fn of_times(times: impl IntoIterator<Item = Duration>) -> Self {
        Self::new(times.into_iter().map(|time| time.as_secs_f64() * 1e3).collect())
    }

    /// The value that `percent` of 100 samples do not exceed; 0 without samples.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few million samples at most, and the rank lies within them"
    )]
    pub(super) fn percentile(&self, percent: f64) -> f64 {
        let rank = ((self.0.len() as f64 * percent / 100.0).ceil() as usize).max(1) - 1;
        self.0.get(rank.min(self.0.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }

    pub(super) fn median(&self) -> f64 {
        self.percentile(50.0)
    }

    pub(super) fn largest(&self) -> f64 {
        self.0.last().copied().unwrap_or(0.0)
    }
}

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
pub(super) fn float(count: usize) -> f64 {
    count as f64
}

/// As [`float`], of what Postgres counts.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
pub(super) fn float_of(count: i64) -> f64 {
    count as f64
}

/// Three significant digits, or so.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => thousands(value),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

/// `value ms`.
pub(super) fn milliseconds(value: f64) -> String {
    format!("{} ms", figure(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples = Samples::new((1..=200).rev().map(f64::from).collect());
        assert_eq!((samples.median(), samples.percentile(99.0), samples.largest()), (100.0, 198.0, 200.0));
        assert_eq!(Samples::new(Vec::new()).median(), 0.0);
    }

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(
            [0.123, 12.34, 123.4, 1_234_567.0, -1234.0].map(figure),
            ["0.12", "12.3", "123", "1 234 567", "-1 234"]
        );
    }
}
