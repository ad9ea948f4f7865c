//! What a message asks for: cut into clauses, each read by the rules.

use chrono::NaiveDate;

use super::{
    rules,
    target::{Filter, Kind, Target, Which},
    text::{Words, tidy},
};

/// One thing that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Intent {
    AddTask {
        title: String,
        description: Option<String>,
        due: Option<NaiveDate>,
    },
    ListTasks(Filter),
    Complete(Target),
    Reopen(Target),
    Rename {
        target: Target,
        title: String,
    },
    Describe {
        target: Target,
        text: String,
    },
    Postpone {
        target: Target,
        due: NaiveDate,
    },
    Delete(Target),
    CreateNote {
        title: String,
        content: String,
    },
    ListNotes,
    ReadNote(Target),
    /// Adds to a note's text.
    AppendNote {
        target: Target,
        text: String,
    },
    /// Replaces a note's text.
    RewriteNote {
        target: Target,
        text: String,
    },
    /// Searches a connected server.
    Search {
        text: String,
        place: String,
    },
    /// Reads from a connected server.
    Read {
        text: String,
        place: String,
    },
    /// Only names a thing, as an answer to "which one?".
    Choose(Target),
    Greeting,
    Thanks,
    /// Asks what this is or can do.
    About,
    Unknown,
}

impl Intent {
    /// The thing it is about, if there is one.
    pub(super) fn target_mut(&mut self) -> Option<&mut Target> {
        match self {
            Self::Complete(target)
            | Self::Reopen(target)
            | Self::Rename { target, .. }
            | Self::Describe { target, .. }
            | Self::Postpone { target, .. }
            | Self::Delete(target)
            | Self::ReadNote(target)
            | Self::AppendNote { target, .. }
            | Self::RewriteNote { target, .. } => Some(target),
            _ => None,
        }
    }

    /// Whether its free text may contain an "and" that does not begin another wish.
    fn is_open(&self) -> bool {
        matches!(
            self,
            Self::AddTask { .. }
                | Self::CreateNote { .. }
                | Self::Rename { .. }
                | Self::Describe { .. }
                | Self::AppendNote { .. }
                | Self::RewriteNote { .. }
        )
    }

    fn is_talk(&self) -> bool {
        matches!(self, Self::Unknown | Self::Greeting | Self::Thanks | Self::About | Self::Choose(_))
    }
}

/// Words in front of and behind a wish that change nothing about it.
const POLITE_START: [&str; 32] = [
    "and",
    "also",
    "then",
    "now",
    "so",
    "ok",
    "okay",
    "well",
    "please",
    "pls",
    "just",
    "kindly",
    "hey",
    "hi",
    "hello",
    "alfred",
    "dear",
    "can you",
    "could you",
    "would you",
    "will you",
    "can i",
    "could i",
    "i want you to",
    "i need you to",
    "i'd like you to",
    "i would like you to",
    "i'd like to",
    "i would like to",
    "go ahead and",
    "let's",
    "next",
];
const POLITE_END: [&str; 9] =
    ["please", "pls", "thanks", "thank you", "for me", "now", "alfred", "too", "as well"];

/// The wish without its courtesies.
fn plain(clause: &str) -> &str {
    let mut text = tidy(clause);
    loop {
        let words = Words::new(text);
        let starts = |phrase: &str| {
            let count = phrase.split(' ').count();
            (words.len() > count && words.plain().take(count).eq(phrase.split(' '))).then_some(count)
        };
        if let Some(count) = POLITE_START.iter().find_map(|phrase| starts(phrase)) {
            text = words.slice(count..words.len());
            continue;
        }
        let ends = |phrase: &str| {
            let keep = words.len().checked_sub(phrase.split(' ').count())?;
            (keep > 0 && words.plain().skip(keep).eq(phrase.split(' '))).then_some(keep)
        };
        match POLITE_END.iter().find_map(|phrase| ends(phrase)) {
            Some(keep) => text = words.slice(0..keep),
            None => return text,
        }
    }
}

/// Everything a message asks for, in order; never empty.
pub(super) fn read(message: &str, today: Option<NaiveDate>) -> Vec<Intent> {
    let mut intents = Vec::new();
    // A note's text may have sentences and lines of its own.
    if let Some(note) = rules::free_note(plain(message)) {
        return vec![note];
    }
    if let Some(tasks) = rules::task_lines(message, today) {
        return tasks;
    }
    for sentence in sentences(message) {
        clauses(sentence, today, &mut intents);
    }
    if intents.iter().any(|intent| !intent.is_talk()) {
        intents.retain(|intent| !matches!(intent, Intent::Greeting | Intent::Thanks | Intent::Choose(_)));
    }
    intents.dedup_by(|next, before| next == before && next.is_talk());
    if intents.is_empty() { vec![Intent::Unknown] } else { intents }
}

fn sentences(message: &str) -> impl Iterator<Item = &str> {
    message.split(['\n', ';']).flat_map(|line| {
        let mut rest = line;
        std::iter::from_fn(move || {
            if rest.trim().is_empty() {
                return None;
            }
            let end = rest
                .char_indices()
                .filter(|(_, c)| matches!(c, '.' | '!' | '?'))
                .map(|(at, _)| at + 1)
                .find(|at| rest[*at..].starts_with(char::is_whitespace))
                .unwrap_or(rest.len());
            let (first, others) = rest.split_at(end);
            rest = others;
            Some(first)
        })
    })
}

/// Cuts a sentence where another wish begins.
fn clauses(sentence: &str, today: Option<NaiveDate>, intents: &mut Vec<Intent>) {
    const JOINTS: [&str; 7] = [", and then ", " and then ", ", then ", " and also ", ", and ", " and ", ", "];
    let mut cuts: Vec<(usize, usize)> = JOINTS
        .iter()
        .flat_map(|joint| sentence.match_indices(joint).map(|(at, found)| (at, found.len())))
        .collect();
    // The longest joint at a place is the one that stands there.
    cuts.sort_by_key(|(at, length)| (*at, usize::MAX - length));
    for (at, length) in cuts {
        let (left, right) = (&sentence[..at], &sentence[at + length..]);
        if tidy(left).is_empty() {
            continue;
        }
        let mut first = rules::read(plain(left), today);
        let second = rules::read(plain(first_wish(right)), today);
        let open = first.iter().any(Intent::is_open);
        let begins = second.iter().all(|intent| !intent.is_talk()) && (!open || names_its_object(right));
        // Only a greeting may stand before a wish without being one.
        let stands = first
            .iter()
            .all(|intent| !intent.is_talk() || matches!(intent, Intent::Greeting | Intent::Thanks));
        if begins && stands {
            intents.append(&mut first);
            clauses(right, today, intents);
            return;
        }
    }
    intents.append(&mut rules::read(plain(sentence), today));
}

/// What stands before the next "and".
fn first_wish(text: &str) -> &str {
    text.split(" and ").next().unwrap_or(text)
}

/// Whether a clause says that it is a wish of its own: a verb of ours and a thing of ours.
fn names_its_object(clause: &str) -> bool {
    const THINGS: [&str; 19] = [
        "task",
        "tasks",
        "todo",
        "todos",
        "to-do",
        "note",
        "notes",
        "list",
        "reminder",
        "it",
        "one",
        "remind",
        "what",
        "what's",
        "show",
        "read",
        "search",
        "everything",
        "left",
    ];
    const VERBS: [&str; 30] = [
        "add",
        "append",
        "change",
        "check",
        "complete",
        "create",
        "delete",
        "erase",
        "finish",
        "jot",
        "list",
        "make",
        "mark",
        "move",
        "read",
        "remind",
        "remove",
        "rename",
        "reopen",
        "reschedule",
        "search",
        "set",
        "show",
        "take",
        "tell",
        "tick",
        "update",
        "what",
        "what's",
        "write",
    ];
    let clause = plain(clause);
    let words = Words::new(clause);
    words.get(0).is_some_and(|verb| VERBS.contains(&verb))
        && (words.has(&THINGS) || words.plain().any(|word| word.starts_with('#')))
}

/// The same wish for each of several things: "tasks 2 and 3", "the first and the second".
pub(super) fn several(target: &str, wish: impl Fn(Target) -> Intent) -> Vec<Intent> {
    let whole = super::target::read(target);
    if !matches!(whole.which, Which::Named(_)) {
        return vec![wish(whole)];
    }
    let parts: Vec<Target> = target
        .split(',')
        .flat_map(|part| part.split(" and "))
        .map(tidy)
        .filter(|part| !part.is_empty())
        .map(|part| super::target::read(part.trim_start_matches("and ")))
        .map(|part| Target { kind: part.kind.or(whole.kind), ..part })
        .collect();
    let plural = Words::new(target).has(&["tasks", "notes", "todos", "items"]);
    let counted = parts.iter().all(|part| !matches!(part.which, Which::Named(_) | Which::It));
    if parts.len() < 2 || !(plural || counted) {
        return vec![wish(whole)];
    }
    // "tasks 2 and 3" names ids, not places.
    let ids = whole.kind == Some(Kind::Task);
    parts
        .into_iter()
        .map(|part| match part.which {
            Which::Number(id) if ids => wish(Target { which: Which::Id(id), ..part }),
            _ => wish(part),
        })
        .collect()
}
