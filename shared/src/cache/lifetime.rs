//! How long an answer is good for, and whether it is worth keeping at all.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Scope;
use crate::tools::ToolOutput;

/// What the definition of a server says about keeping its answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct CacheRules {
    /// Who shares its answers. Unset: the narrowest that its way of signing in asks for.
    pub scope: Option<Scope>,
    /// Seconds for tools that are not named; 0 keeps nothing.
    #[serde(alias = "default_ttl_seconds")]
    pub default_ttl_seconds: Option<u64>,
    /// Seconds by tool, without the server's name; 0 keeps nothing of it.
    pub tools: BTreeMap<String, u64>,
}

/// The deployment's lifetimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// `CACHE_DEFAULT_TTL_SECONDS`
    pub default: Duration,
    /// `CACHE_NOTION_PAGE_TTL_SECONDS`
    pub notion_page: Duration,
    /// `CACHE_NOTION_SEARCH_TTL_SECONDS`
    pub notion_search: Duration,
}

const LISTINGS: Duration = Duration::from_secs(3600);
const GITHUB_REPOSITORY: Duration = Duration::from_secs(86_400);
/// A page that somebody worked on so lately is read again and again.
const LATELY: TimeDelta = TimeDelta::hours(24);

impl Lifetimes {
    /// How long this answer of `server.tool` is good for; zero: it is not kept.
    #[must_use]
    pub fn of(&self, rules: &CacheRules, name: &str, content: &str, now: DateTime<Utc>) -> Duration {
        let tool = name.split_once('.').map_or(name, |(_, tool)| tool);
        if let Some(seconds) = rules.tools.get(tool) {
            return Duration::from_secs(*seconds);
        }
        match (name, tool) {
            ("notion.get_page", _) => match last_edited(content) {
                Some(edited) if now - edited <= LATELY => self.notion_page,
                _ => self.default,
            },
            ("notion.search", _) => self.notion_search,
            ("github.get_repo", _) => GITHUB_REPOSITORY,
            _ => match rules.default_ttl_seconds {
                Some(seconds) => Duration::from_secs(seconds),
                None if tool.starts_with("list_") || tool.starts_with("list-") => LISTINGS.min(self.default),
                None => self.default,
            },
        }
    }
}

/// When a page was last edited, by its own word: the member of the outermost object that has one, or the first mention in
/// text that is not JSON.
fn last_edited(content: &str) -> Option<DateTime<Utc>> {
    match serde_json::from_str::<Value>(content) {
        Ok(value) => edited_in(&value, 0),
        Err(_) => mentioned(content),
    }
}

const EDITED: [&str; 4] = ["last_edited_time", "lastEditedTime", "last_edited", "lastEdited"];

fn edited_in(value: &Value, depth: u32) -> Option<DateTime<Utc>> {
    match value {
        Value::Object(fields) => {
            let own = EDITED.iter().find_map(|name| timestamp(fields.get(*name)?.as_str()?));
            own.or_else(|| {
                fields.values().filter(|_| depth < 4).find_map(|inner| edited_in(inner, depth + 1))
            })
        }
        Value::Array(items) if depth < 4 => items.iter().find_map(|inner| edited_in(inner, depth + 1)),
        // A result of MCP holds the page as text.
        Value::String(text) if text.len() > 40 => match serde_json::from_str::<Value>(text) {
            Ok(inner) if depth < 4 => edited_in(&inner, depth + 1),
            _ => mentioned(text),
        },
        _ => None,
    }
}

fn mentioned(text: &str) -> Option<DateTime<Utc>> {
    EDITED.iter().find_map(|name| {
        let (_, after) = text.split_once(name)?;
        let after = after.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '\n');
        let end =
            after.find(|c: char| !(c.is_ascii_alphanumeric() || "-:.+".contains(c))).unwrap_or(after.len());
        timestamp(&after[..end])
    })
}

fn timestamp(text: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc())
}

/// The largest answer that is kept.
const LARGEST: usize = 512 * 1024;

/// Whether an answer is worth keeping: not an error, however it is told, and not empty: what is not there yet may be there
/// a moment later.
#[must_use]
pub fn is_worth_keeping(output: &ToolOutput) -> bool {
    if output.is_error || output.content.len() > LARGEST {
        return false;
    }
    match serde_json::from_str::<Value>(&output.content) {
        Ok(value) => !is_failure(&value) && !is_empty(&value, 0),
        Err(_) => !output.content.trim().is_empty(),
    }
}

/// A failure that a server tells as a result, as many do with an HTTP API's own words.
fn is_failure(value: &Value) -> bool {
    let Value::Object(fields) = value else { return false };
    let refused =
        |name: &str| fields.get(name).and_then(Value::as_i64).is_some_and(|code| (400..600).contains(&code));
    fields.get("object").and_then(Value::as_str) == Some("error")
        || fields.get("isError").and_then(Value::as_bool) == Some(true)
        || (fields.contains_key("error") && !fields["error"].is_null() && fields.len() <= 4)
        || refused("status")
        || refused("statusCode")
}

/// Members that hold what was asked for.
const FOUND: [&str; 12] = [
    "results",
    "items",
    "data",
    "matches",
    "hits",
    "entries",
    "content",
    "records",
    "rows",
    "pages",
    "structuredContent",
    "result",
];

fn is_empty(value: &Value, depth: u32) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => {
            text.trim().is_empty()
                || (depth > 0
                    && depth < 6
                    && serde_json::from_str::<Value>(text).is_ok_and(|inner| {
                        !inner.is_string() && !inner.is_number() && is_empty(&inner, depth + 1)
                    }))
        }
        Value::Array(items) => {
            items.iter().all(|item| depth > 0 && is_block(item) && is_empty(&item["text"], depth + 1))
        }
        Value::Object(fields) => {
            let mut found = fields.iter().filter(|(name, _)| FOUND.contains(&name.as_str())).peekable();
            match found.peek() {
                None => fields.is_empty(),
                Some(_) => found.all(|(_, inner)| is_empty(inner, depth + 1)),
            }
        }
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A text block of an MCP result.
fn is_block(value: &Value) -> bool {
    value["type"] == "text" && value["text"].is_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes {
        default: Duration::from_secs(14_400),
        notion_page: Duration::from_secs(86_400),
        notion_search: Duration::from_secs(7200),
    };

    fn of(rules: &str, name: &str, content: &str) -> u64 {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        LIFETIMES.of(&serde_json::from_str(rules).unwrap(), name, content, now).as_secs()
    }

    #[test]
    fn the_servers_word_goes_before_ours_and_ours_before_the_default() {
        for (rules, name, seconds) in [
            ("{}", "docs.read", 14_400),
            ("{}", "docs.list_pages", 3600),
            ("{}", "notion.search", 7200),
            ("{}", "github.get_repo", 86_400),
            (r#"{"defaultTtlSeconds":60}"#, "docs.read", 60),
            (r#"{"default_ttl_seconds":60,"tools":{"read":0}}"#, "docs.read", 0),
            (r#"{"tools":{"search":5}}"#, "notion.search", 5),
            (r#"{"defaultTtlSeconds":60}"#, "notion.search", 7200),
        ] {
            assert_eq!(of(rules, name, ""), seconds, "{rules} {name}");
        }
        assert!(serde_json::from_str::<CacheRules>(r#"{"ttl":1}"#).is_err());
    }

    #[test]
    fn a_page_lives_by_its_own_timestamp() {
        let page = |time: &str| format!(r#"{{"object":"page","last_edited_time":"{time}"}}"#);
        for (content, seconds) in [
            (page("2026-11-21T03:00:00.000Z"), 86_400),
            (page("2026-11-19T03:00:00.000Z"), 14_400),
            (
                format!(r#"{{"content":[{{"type":"text","text":{:?}}}]}}"#, page("2026-11-21T03:00:00Z")),
                86_400,
            ),
            ("<page last_edited_time=\"2026-11-21T03:00:00.000Z\">x".to_owned(), 86_400),
            ("last_edited_time: unknown\n2026-11-21T03:00:00Z".to_owned(), 14_400),
            ("no word of it".to_owned(), 14_400),
        ] {
            assert_eq!(of("{}", "notion.get_page", &content), seconds, "{content}");
        }
        // A block's timestamp does not stand for its page's.
        let nested = r#"{"blocks":[{"last_edited_time":"2026-11-21T03:00:00Z"}],"last_edited_time":"2020-01-01T00:00:00Z"}"#;
        assert_eq!(of("{}", "notion.get_page", nested), 14_400);
    }

    #[test]
    fn errors_and_empty_results_are_not_kept() {
        for content in [
            "",
            " \n",
            "null",
            "[]",
            "{}",
            "\"\"",
            r#"{"results":[],"has_more":false,"object":"list"}"#,
            r#"{"object":"error","status":404,"code":"object_not_found"}"#,
            r#"{"status":429,"message":"slow down"}"#,
            r#"{"error":"no"}"#,
            r#"{"content":[{"type":"text","text":""}]}"#,
            r#"{"content":[{"type":"text","text":"{\"results\":[]}"}]}"#,
            r#"{"content":[]}"#,
        ] {
            let output = ToolOutput { content: content.to_owned(), ..ToolOutput::error("") };
            assert!(!is_worth_keeping(&ToolOutput { is_error: false, ..output }), "{content}");
        }
        for content in [
            "plain words",
            "0",
            "false",
            r#"{"results":[1]}"#,
            r#"{"title":"x","error":null}"#,
            r#"{"status":"open"}"#,
            r#"{"content":[{"type":"text","text":"0"}]}"#,
            r#"[{"id":1}]"#,
            r#"{"items":[],"results":[{"a":1}]}"#,
        ] {
            let output = ToolOutput { content: content.to_owned(), ..ToolOutput::error("") };
            assert!(!is_worth_keeping(&output), "an error: {content}");
            assert!(is_worth_keeping(&ToolOutput { is_error: false, ..output }), "{content}");
        }
    }
}
