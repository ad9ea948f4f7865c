//! Reads variables and collects what is wrong with them, so that one start shows all of it.

use std::{collections::HashMap, fmt::Display, str::FromStr, time::Duration};

use secrecy::SecretString;

use super::variables;

/// Variables whose values cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// (variable, what is wrong and what would be right), in the order of reading. Never a secret's value.
    pub problems: Vec<(&'static str, String)>,
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the configuration is refused")?;
        for (variable, problem) in &self.problems {
            write!(f, "\n{variable}: {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

pub(super) struct Reader<'a> {
    variables: &'a HashMap<String, String>,
    pub(super) problems: Vec<(&'static str, String)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(variables: &'a HashMap<String, String>) -> Self {
        Self { variables, problems: Vec::new() }
    }

    /// The value, or the default of the list; empty counts as unset.
    pub(super) fn text(&mut self, name: &'static str) -> Option<&'a str> {
        let Some(default) = variables::default_of(name) else {
            self.refuse(name, "is missing from the list of variables");
            return None;
        };
        self.given(name).or(Some(default)).filter(|text| !text.is_empty())
    }

    /// The value without any default.
    pub(super) fn given(&self, name: &str) -> Option<&'a str> {
        self.variables.get(name).map(|text| text.trim()).filter(|text| !text.is_empty())
    }

    pub(super) fn refuse(&mut self, name: &'static str, problem: impl Into<String>) {
        self.problems.push((name, problem.into()));
    }

    pub(super) fn secret(&mut self, name: &'static str) -> Option<SecretString> {
        self.text(name).map(SecretString::from)
    }

    /// A value that may be unset; `expected` says what would be right.
    pub(super) fn optional<T: FromStr>(&mut self, name: &'static str, expected: &str) -> Option<T> {
        let text = self.text(name)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.refuse(name, format!("{text:?} is not {expected}"));
        }
        value
    }

    /// A number within bounds; on a problem the least one, as the start is refused anyway.
    pub(super) fn number<T: FromStr + PartialOrd + Display + Copy>(
        &mut self,
        name: &'static str,
        least: T,
        most: T,
    ) -> T {
        let text = self.text(name).unwrap_or_default();
        match text.parse::<T>() {
            Ok(value) if value >= least && value <= most => value,
            _ => {
                self.refuse(name, format!("{text:?} is not a number from {least} to {most}"));
                least
            }
        }
    }

    /// Seconds, fractions allowed.
    pub(super) fn seconds(&mut self, name: &'static str, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64(self.number(name, least, most))
    }

    pub(super) fn milliseconds(&mut self, name: &'static str, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.number(name, least, most))
    }

    /// A list separated by commas; each part is parsed.
    pub(super) fn list<T: FromStr>(&mut self, name: &'static str, expected: &str) -> Vec<T> {
        let parts =
            self.text(name).unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
        let mut values = Vec::new();
        for part in parts {
            match part.parse() {
                Ok(value) => values.push(value),
                Err(_) => self.refuse(name, format!("{part:?} is not {expected}")),
            }
        }
        values
    }

    /// A PostgreSQL URL. What is wrong with it is said without quoting it, as it may hold a password.
    pub(super) fn database(&mut self, name: &'static str) -> Option<SecretString> {
        let text = self.text(name)?;
        let scheme = text.split_once("://").and_then(|(scheme, _)| scheme.split('+').next());
        if !matches!(scheme, Some("postgresql" | "postgres")) || url::Url::parse(text).is_err() {
            self.refuse(name, "is not a readable postgresql:// URL");
            return None;
        }
        Some(text.into())
    }
}
