//! What the replies say. Things are written `"Title" (#12)`, which is also how a later reply knows what was shown.

use super::{
    memory::{Item, WHICH},
    target::{Filter, Kind},
};

/// What it says of itself.
pub(super) const ABOUT: &str = "I am Alfred's offline stand-in: a small set of rules, not a language model. I can add, \
list, complete, change and delete tasks, keep notes, and search or read through connected servers. Try \"add a task to \
buy milk tomorrow\" or \"what is left to do?\". With a model's API key in the configuration, a real model takes my place.";

pub(super) const GREETING: &str = "Hello! I am Alfred's offline stand-in and can look after your tasks and notes. Ask me what is left to do.";

pub(super) const THANKS: &str = "You are welcome.";

pub(super) const UNKNOWN: &str = "I did not understand that: I am Alfred's offline stand-in, a small set of rules and \
not a language model. Try \"add a task to buy milk tomorrow\", \"what is left to do?\", \"complete the milk task\" or \
\"note: the spare key is under the mat\".";

pub(super) const NO_TOOL: &str = "I have no tool for that here.";

/// `"Title" (#12)`
pub(super) fn thing(item: &Item) -> String {
    match item.title.as_str() {
        "" => format!("{} (#{})", item.kind.name(), item.id),
        title => format!("\"{title}\" (#{})", item.id),
    }
}

/// `, due 2026-11-07`
pub(super) fn due(item: &Item) -> String {
    item.due.as_deref().map(|due| format!(", due {}", due.get(..10).unwrap_or(due))).unwrap_or_default()
}

fn numbered(items: &[Item]) -> String {
    let lines = items.iter().enumerate().map(|(at, item)| {
        let state = if item.done { ", done" } else { "" };
        format!("\n{}. {} (#{}{state}{})", at + 1, item.title, item.id, due(item))
    });
    lines.collect()
}

/// A list of tasks.
pub(super) fn tasks(filter: Filter, items: &[Item], more: bool) -> String {
    let (none, adjective) = match filter {
        Filter::Pending => ("Nothing is left to do.", "open "),
        Filter::Completed => ("No task is done yet.", "completed "),
        Filter::All => ("There are no tasks yet.", ""),
    };
    list(none, adjective, "task", items, more)
}

/// A list of notes.
pub(super) fn notes(items: &[Item], more: bool) -> String {
    list("There are no notes yet.", "", "note", items, more)
}

fn list(none: &str, adjective: &str, noun: &str, items: &[Item], more: bool) -> String {
    match items.len() {
        0 => none.to_owned(),
        1 => format!("You have one {adjective}{noun}:{}", numbered(items)),
        count => {
            let rest = if more { "\nThere are more." } else { "" };
            format!("You have {count} {adjective}{noun}s:{}{rest}", numbered(items))
        }
    }
}

/// A note's text.
pub(super) fn note(item: &Item) -> String {
    match item.content.as_str() {
        "" => format!("{} is empty.", thing(item)),
        content => format!("{}:\n{content}", thing(item)),
    }
}

/// Asks which of several things is meant.
pub(super) fn which(items: &[Item]) -> String {
    let shown = items.iter().take(8).enumerate();
    let lines: String =
        shown.map(|(at, item)| format!("\n{}. {} (#{})", at + 1, item.title, item.id)).collect();
    format!("{WHICH}?{lines}")
}

/// Asks for a thing when nothing is known.
pub(super) fn which_at_all(kind: Kind) -> String {
    format!("{WHICH}? Tell me the {0}'s number or a word of its title.", kind.name())
}

/// Nothing fits.
pub(super) fn not_found(kind: Kind, open_only: bool, wanted: &str) -> String {
    let adjective = if open_only { "open " } else { "" };
    format!("I found no {adjective}{} about \"{wanted}\".", kind.name())
}

/// A call that failed, in its own words if they are short.
pub(super) fn failed(content: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(content).ok();
    let message = parsed.as_ref().and_then(|value| value["message"].as_str()).unwrap_or(content);
    format!("That did not work: {}", clipped(message, 300))
}

/// What a connected server's tool answered.
pub(super) fn answered(tool: &str, content: &str) -> String {
    format!("{tool} answered:\n{}", clipped(content, 1500))
}

fn clipped(text: &str, limit: usize) -> String {
    let text = text.trim();
    match text.char_indices().nth(limit) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
