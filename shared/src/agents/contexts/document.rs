//! What can be known of a user: which fields there are, and what each takes. The stored document holds what was given and
//! nothing else.

use serde_json::{Map, Value, json};

use crate::{
    agents::{
        AgentName,
        permissions::{Granted, Level, Part},
    },
    error::{Error, Result},
    workspace::payload,
};

/// Where users say what each agent has at most. Agents do not see it, only what comes of it.
pub const AGENT_PERMISSIONS: &str = "agent_permissions";

const MOST_BYTES: usize = 32 * 1024;
const MOST_ENTRIES: usize = 100;
const LONGEST_TEXT: usize = 256;
const DEEPEST: usize = 5;

/// What a field takes.
enum Rule {
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of short texts, each once.
    Texts,
    /// The name of a timezone; whether it is one is for the database to say.
    Timezone,
    /// A number in a text: `"1250.50"`.
    Amount,
    /// The same, perhaps below zero.
    Balance,
    /// The same, from 0 to 100.
    Percentage,
    /// Such numbers by name.
    Decimals,
    /// A list of names, or of objects that have one.
    Strategies,
    /// Levels by agent.
    Levels,
    /// An object of the application's own making.
    Free,
    /// These fields.
    Fields(&'static [(&'static str, Rule)]),
}

/// The whole document.
const PARTS: &[(&str, Rule)] = &[
    (
        "preferences",
        Rule::Fields(&[
            ("trading_style", Rule::Word(&["conservative", "moderate", "aggressive"])),
            ("sectors_of_interest", Rule::Texts),
            ("notification_settings", Rule::Free),
            ("timezone", Rule::Timezone),
        ]),
    ),
    (
        "portfolio_settings",
        Rule::Fields(&[
            ("total_portfolio_value", Rule::Amount),
            // Who trades on credit has less than nothing.
            ("available_cash", Rule::Balance),
            ("position_limits", Rule::Decimals),
            (
                "rebalancing_frequency",
                Rule::Word(&["never", "daily", "weekly", "monthly", "quarterly", "annually"]),
            ),
        ]),
    ),
    ("active_strategies", Rule::Strategies),
    (
        "risk_profile",
        Rule::Fields(&[
            ("risk_tolerance", Rule::Word(&["low", "medium", "high"])),
            ("max_position_size", Rule::Amount),
            ("stop_loss_percentage", Rule::Percentage),
            ("diversification_requirements", Rule::Free),
        ]),
    ),
    (AGENT_PERMISSIONS, Rule::Levels),
];

/// What is known of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document(Map<String, Value>);

impl Document {
    /// As stored.
    pub(crate) fn stored(value: Value) -> Self {
        match value {
            Value::Object(members) => Self(members),
            _ => Self::default(),
        }
    }

    /// As it is stored.
    pub(crate) fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// The document with these changes (JSON merge patch, RFC 7396).
    ///
    /// # Errors
    /// 422 with the field's path, when what comes of it is not acceptable.
    pub fn merged(&self, mut changes: Map<String, Value>) -> Result<Self> {
        payload::clean_object(&mut changes);
        let mut merged = self.0.clone();
        payload::merge(&mut merged, changes);
        Self::checked(merged)
    }

    /// The document with this in place of a part.
    ///
    /// # Errors
    /// As [`Document::merged`].
    pub fn with_part(&self, part: Part, mut value: Map<String, Value>) -> Result<Self> {
        payload::clean_object(&mut value);
        let mut changed = self.0.clone();
        changed.insert(part.as_str().to_owned(), Value::Object(value));
        Self::checked(changed)
    }

    fn checked(members: Map<String, Value>) -> Result<Self> {
        let document = Value::Object(members);
        check("", &document, &Rule::Fields(PARTS))?;
        if serde_json::to_string(&document)?.len() > MOST_BYTES {
            // Not by how much: an agent that changes one part would know the size of those that it may not see.
            return Err(Error::unacceptable(format!(
                "the context is too large; at most {MOST_BYTES} bytes of JSON are kept"
            )));
        }
        Ok(Self::stored(document))
    }

    /// A member, empty when nothing is known: an object or a list.
    #[must_use]
    pub fn member(&self, name: &str) -> Value {
        let empty = if name == Part::ActiveStrategies.as_str() { json!([]) } else { json!({}) };
        self.0.get(name).cloned().unwrap_or(empty)
    }

    /// The word that the user chose for this agent.
    #[must_use]
    pub fn level_of(&self, agent: &str) -> Option<&str> {
        self.0.get(AGENT_PERMISSIONS)?.get(agent)?.as_str()
    }

    /// The timezone of the preferences.
    #[must_use]
    pub(crate) fn timezone(&self) -> Option<&str> {
        self.0.get("preferences")?.get("timezone")?.as_str()
    }

    /// The members, by name, that are not the same in both.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let names = PARTS.iter().map(|(name, _)| *name);
        names.filter(|name| self.member(name) != other.member(name)).collect()
    }

    /// What an agent may see of it, with what its user left to it.
    #[must_use]
    pub fn seen_by(&self, agent: &str, granted: Granted) -> Map<String, Value> {
        let granted = granted.narrowed(self.level_of(agent));
        let parts = Part::ALL.into_iter().filter(|part| *part != Part::Session && granted.reads(*part));
        parts.map(|part| (part.as_str().to_owned(), self.member(part.as_str()))).collect()
    }
}

fn check(path: &str, value: &Value, rule: &Rule) -> Result<()> {
    match rule {
        Rule::Word(words) => match value.as_str() {
            Some(text) if words.contains(&text) => Ok(()),
            _ => refuse(path, format!("must be one of {}", words.join(", "))),
        },
        Rule::Texts => texts(path, value),
        Rule::Timezone => match value.as_str() {
            Some(text)
                if (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                Ok(())
            }
            _ => refuse(path, "must be the name of a timezone, such as Europe/Berlin"),
        },
        Rule::Amount | Rule::Balance => match value.as_str() {
            Some(text) if is_decimal(text, matches!(rule, Rule::Balance)) => Ok(()),
            _ => refuse(path, "must be a decimal number in a string, such as \"1250.50\""),
        },
        Rule::Percentage => match value.as_str() {
            Some(text)
                if is_decimal(text, false) && text.parse().is_ok_and(|number: f64| number <= 100.0) =>
            {
                Ok(())
            }
            _ => refuse(path, "must be a decimal number from 0 to 100 in a string, such as \"7.5\""),
        },
        Rule::Decimals => each(path, value, |_, path, limit| check(path, limit, &Rule::Amount)),
        Rule::Strategies => strategies(path, value),
        Rule::Levels => each(path, value, level),
        Rule::Free => free(path, value),
        Rule::Fields(fields) => fields_of(path, value, fields),
    }
}

fn fields_of(path: &str, value: &Value, fields: &[(&str, Rule)]) -> Result<()> {
    let Some(members) = value.as_object() else { return refuse(path, "must be an object") };
    for (name, member) in members {
        let place = below(path, name);
        match fields.iter().find(|(known, _)| known == name) {
            Some((_, rule)) => check(&place, member, rule)?,
            None => {
                let known: Vec<&str> = fields.iter().map(|(known, _)| *known).collect();
                return refuse(&place, format!("is not known here; there are {}", known.join(", ")));
            }
        }
    }
    Ok(())
}

fn texts(path: &str, value: &Value) -> Result<()> {
    let Some(entries) = value.as_array() else { return refuse(path, "must be a list of strings") };
    if entries.len() > MOST_ENTRIES {
        return refuse(path, format!("takes at most {MOST_ENTRIES} entries"));
    }
    for (place, entry) in entries.iter().enumerate() {
        let path = format!("{path}[{place}]");
        match entry.as_str() {
            Some(text) if !text.is_empty() && text.len() <= LONGEST_TEXT => {}
            _ => return refuse(&path, format!("must be a string of 1 to {LONGEST_TEXT} bytes")),
        }
        if entries[..place].contains(entry) {
            return refuse(&path, "is there twice");
        }
    }
    Ok(())
}

fn strategies(path: &str, value: &Value) -> Result<()> {
    let Some(entries) = value.as_array() else { return refuse(path, "must be a list") };
    if entries.len() > MOST_ENTRIES {
        return refuse(path, format!("takes at most {MOST_ENTRIES} entries"));
    }
    for (place, entry) in entries.iter().enumerate() {
        let path = format!("{path}[{place}]");
        let name = if entry.is_object() { entry.get("name") } else { Some(entry) };
        match name.and_then(Value::as_str) {
            Some(name) if !name.is_empty() && name.len() <= LONGEST_TEXT => {}
            _ => return refuse(&path, "must be a name, or an object with a name"),
        }
        if entry.is_object() {
            free(&path, entry)?;
        }
    }
    Ok(())
}

fn level(agent: &str, path: &str, value: &Value) -> Result<()> {
    if agent.parse::<AgentName>().is_err() {
        return refuse(path, "is not the name of an agent");
    }
    match value.as_str().and_then(Level::from_word) {
        Some(_) => Ok(()),
        None => refuse(path, format!("must be one of {}", Level::ALL.map(Level::as_str).join(", "))),
    }
}

fn each(path: &str, value: &Value, check: impl Fn(&str, &str, &Value) -> Result<()>) -> Result<()> {
    let Some(members) = value.as_object() else { return refuse(path, "must be an object") };
    if members.len() > MOST_ENTRIES {
        return refuse(path, format!("takes at most {MOST_ENTRIES} members"));
    }
    members.iter().try_for_each(|(name, member)| {
        if name.is_empty() || name.len() > LONGEST_TEXT {
            return refuse(path, format!("its names take 1 to {LONGEST_TEXT} bytes"));
        }
        check(name, &below(path, name), member)
    })
}

fn free(path: &str, value: &Value) -> Result<()> {
    if !value.is_object() {
        return refuse(path, "must be an object");
    }
    if depth(value) > DEEPEST {
        return refuse(path, format!("is nested deeper than {DEEPEST} levels"));
    }
    Ok(())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Array(entries) => 1 + entries.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Digits, and perhaps a point and more digits; bounded, so that whoever computes with it can.
fn is_decimal(text: &str, may_be_negative: bool) -> bool {
    let text = if may_be_negative { text.strip_prefix('-').unwrap_or(text) } else { text };
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    are_digits(whole) && whole.len() <= 18 && are_digits(part) && part.len() <= 8
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The refusal names the field, for people in its sentence and for programs beside it.
fn refuse(path: &str, problem: impl std::fmt::Display) -> Result<()> {
    let shown: String = path.chars().take(200).collect();
    Err(Error::unacceptable(format!("{shown}: {problem}")).with_detail("field", shown))
}

/// What a timezone is told that the database does not know.
pub(super) fn no_timezone() -> Error {
    let path = "preferences.timezone";
    Error::unacceptable(format!("{path}: is not the name of a timezone that is known here"))
        .with_detail("field", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Value {
        json!({
            "preferences": {
                "trading_style": "moderate", "sectors_of_interest": ["energy", "tech"],
                "notification_settings": {"email": true, "push": {"quiet": ["22:00", "07:00"]}}, "timezone": "Europe/Berlin",
            },
            "portfolio_settings": {
                "total_portfolio_value": "125000.50", "available_cash": "-12.5",
                "position_limits": {"ACME": "1000", "GLOBEX": "0.25"}, "rebalancing_frequency": "quarterly",
            },
            "active_strategies": ["momentum", {"name": "pairs", "since": 2026}],
            "risk_profile": {
                "risk_tolerance": "low", "max_position_size": "5000", "stop_loss_percentage": "7.5",
                "diversification_requirements": {"sectors": 4},
            },
            "agent_permissions": {"risk_management": "read_only"},
        })
    }

    fn merged(value: Value) -> Result<Document> {
        let Value::Object(changes) = value else { panic!("an object") };
        Document::default().merged(changes)
    }

    #[test]
    fn a_whole_document_is_taken_as_it_is() {
        assert_eq!(merged(whole()).unwrap().to_value(), whole());
        assert_eq!(merged(json!({})).unwrap(), Document::default());
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_path() {
        for (changes, path) in [
            (json!({"preferences": []}), "preferences"),
            (json!({"preferences": {"trading_style": "reckless"}}), "preferences.trading_style"),
            (json!({"preferences": {"sectors_of_interest": ["a", 1]}}), "preferences.sectors_of_interest[1]"),
            (
                json!({"preferences": {"sectors_of_interest": ["a", "a"]}}),
                "preferences.sectors_of_interest[1]",
            ),
            (json!({"preferences": {"notification_settings": true}}), "preferences.notification_settings"),
            (json!({"preferences": {"timezone": "Mars Base"}}), "preferences.timezone"),
            (json!({"preferences": {"colour": "red"}}), "preferences.colour"),
            (
                json!({"portfolio_settings": {"total_portfolio_value": 1.5}}),
                "portfolio_settings.total_portfolio_value",
            ),
            (
                json!({"portfolio_settings": {"total_portfolio_value": "-1"}}),
                "portfolio_settings.total_portfolio_value",
            ),
            (json!({"portfolio_settings": {"available_cash": "1e5"}}), "portfolio_settings.available_cash"),
            (json!({"portfolio_settings": {"available_cash": "1."}}), "portfolio_settings.available_cash"),
            (
                json!({"portfolio_settings": {"position_limits": {"A": "x"}}}),
                "portfolio_settings.position_limits.A",
            ),
            (
                json!({"portfolio_settings": {"rebalancing_frequency": "often"}}),
                "portfolio_settings.rebalancing_frequency",
            ),
            (json!({"active_strategies": "momentum"}), "active_strategies"),
            (json!({"active_strategies": ["a", {"title": "b"}]}), "active_strategies[1]"),
            (json!({"risk_profile": {"stop_loss_percentage": "100.1"}}), "risk_profile.stop_loss_percentage"),
            (json!({"agent_permissions": {"x": "god"}}), "agent_permissions.x"),
            (json!({"agent_permissions": {"No Agent": "admin"}}), "agent_permissions.No Agent"),
            (json!({"agent_permissions": {"no.agent": "admin"}}), "agent_permissions.no.agent"),
            (json!({"user_id": "somebody else"}), "user_id"),
            (
                json!({"preferences": {"notification_settings": {"a": {"b": {"c": {"d": {"e": {}}}}}}}}),
                "preferences.notification_settings",
            ),
        ] {
            let error = merged(changes.clone()).unwrap_err();
            let details = error.details.clone().unwrap_or_default();
            assert_eq!(details.get("field"), Some(&json!(path)), "{changes}: {error}");
            assert!(error.message.starts_with(path), "{error}");
        }
        let large = json!({"preferences": {"notification_settings": {"x": "y".repeat(MOST_BYTES)}}});
        let refused = merged(large).unwrap_err();
        assert_eq!(
            refused.message,
            format!("the context is too large; at most {MOST_BYTES} bytes of JSON are kept")
        );
    }

    #[test]
    fn a_patch_merges_and_null_removes() {
        let document = merged(whole()).unwrap();
        let Value::Object(changes) =
            json!({"preferences": {"timezone": null, "trading_style": "aggressive"}, "risk_profile": null})
        else {
            panic!()
        };
        let changed = document.merged(changes).unwrap();
        assert_eq!(changed.timezone(), None);
        assert_eq!(changed.member("preferences")["sectors_of_interest"], json!(["energy", "tech"]));
        assert_eq!(changed.member("risk_profile"), json!({}));
        assert_eq!(document.differences(&changed), ["preferences", "risk_profile"]);
        let put = document.with_part(Part::Preferences, Map::new()).unwrap();
        assert_eq!((put.member("preferences"), put.differences(&document)), (json!({}), vec!["preferences"]));
    }

    #[test]
    fn an_agent_sees_its_parts_as_far_as_the_user_leaves_them() {
        let document = merged(whole()).unwrap();
        let granted = Granted::of_words(["read:preferences", "write:risk_profile", "read:session"]);
        let seen = |agent: &str, document: &Document| {
            document.seen_by(agent, granted.clone()).keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(seen("risk_management", &document), ["preferences"]);
        let Value::Object(narrow) = json!({"agent_permissions": {"risk_management": "restricted"}}) else {
            panic!()
        };
        let narrowed = document.merged(narrow).unwrap();
        assert!(seen("risk_management", &narrowed).is_empty());
        assert_eq!(seen("news_analysis", &narrowed), ["preferences"]);
    }
}
