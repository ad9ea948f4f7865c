//! Which task or note is meant: by number, by place in the list that was shown, by "it", or by words of its title.

use super::text::Words;

/// The two kinds of thing the rules know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Task,
    Note,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Note => "note",
        }
    }
}

/// Which tasks a list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    Pending,
    Completed,
    All,
}

impl Filter {
    /// The value of the tool's `status` argument.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::All => "all",
        }
    }
}

/// A thing that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Unset: the sentence does not say.
    pub(super) kind: Option<Kind>,
    pub(super) which: Which,
}

/// How it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    /// "task 3", "#3"
    Id(i64),
    /// "number 3", "3": an id, or a place in the list.
    Number(i64),
    /// "the second one", counted from 0.
    Place(usize),
    /// "the last one"
    LastPlace,
    /// "it"
    It,
    /// "all my done tasks"
    All(Filter),
    /// "the milk task"
    Named(String),
}

const PLACES: [&str; 10] =
    ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];
const TASK_WORDS: [&str; 10] =
    ["task", "tasks", "todo", "todos", "to-do", "to-dos", "reminder", "reminders", "item", "items"];
const NOTE_WORDS: [&str; 4] = ["note", "notes", "memo", "memos"];
/// Words that say nothing of which thing is meant.
const FILLERS: [&str; 30] = [
    "a", "an", "the", "my", "our", "your", "this", "that", "one", "ones", "to", "of", "for", "in", "on",
    "at", "with", "from", "and", "about", "called", "named", "titled", "please", "is", "was", "which",
    "says", "some", "list",
];

/// Reads what a rule captured.
pub(super) fn read(text: &str) -> Target {
    let words = Words::new(text);
    let kind = if words.has(&NOTE_WORDS) {
        Some(Kind::Note)
    } else if words.has(&TASK_WORDS) {
        Some(Kind::Task)
    } else {
        None
    };
    Target { kind, which: which(&words, text) }
}

fn is_kind_word(word: &str) -> bool {
    TASK_WORDS.contains(&word) || NOTE_WORDS.contains(&word)
}

fn which(words: &Words<'_>, text: &str) -> Which {
    let determiners = ["the", "my", "our", "that", "this", "number", "no", "id", "nr"];
    let core: Vec<&str> =
        words.plain().filter(|word| !is_kind_word(word) && !determiners.contains(word)).collect();
    let counted = words.has(&["number", "no", "nr"]) || !words.plain().any(is_kind_word);
    match core.as_slice() {
        [] | ["it" | "one" | "again"] | ["it" | "one", "again"] => return Which::It,
        ["them" | "both"] => return Which::All(Filter::Pending),
        [number] => {
            if let Some(id) = number.strip_prefix('#').and_then(|id| id.parse().ok()) {
                return Which::Id(id);
            }
            if let Ok(number) = number.parse() {
                return if counted { Which::Number(number) } else { Which::Id(number) };
            }
        }
        _ => {}
    }
    if let [place, rest @ ..] = core.as_slice()
        && (rest.is_empty() || matches!(rest, ["one" | "entry"] | ["one", "again"]))
    {
        if *place == "last" {
            return Which::LastPlace;
        }
        let digits = place.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let numbered = digits.parse::<usize>().ok().filter(|_| digits.len() < place.len());
        let named = PLACES.iter().position(|name| name == place);
        if let Some(at) = named.or_else(|| numbered.and_then(|number| number.checked_sub(1))) {
            return Which::Place(at);
        }
    }
    if let Some(filter) = everything(words) {
        return Which::All(filter);
    }
    Which::Named(text.to_owned())
}

/// "all my tasks", "everything", "the completed tasks".
fn everything(words: &Words<'_>) -> Option<Filter> {
    let states = ["done", "completed", "finished", "closed"];
    let open = ["open", "pending", "remaining", "unfinished", "outstanding"];
    let known = |word: &str| {
        is_kind_word(word)
            || states.contains(&word)
            || open.contains(&word)
            || [
                "all",
                "everything",
                "every",
                "of",
                "my",
                "the",
                "them",
                "whole",
                "list",
                "on",
                "in",
                "single",
            ]
            .contains(&word)
    };
    let whole = words.has(&["all", "everything", "every"]);
    let plural = words.has(&["tasks", "todos", "to-dos", "notes", "reminders", "items", "ones"]);
    let stated = words.has(&states) || words.has(&open);
    if !words.plain().all(known) || !(whole || plural && stated) {
        return None;
    }
    Some(if words.has(&states) {
        Filter::Completed
    } else if words.has(&open) {
        Filter::Pending
    } else {
        Filter::All
    })
}

/// The words that tell things apart, each cut to its stem.
pub(super) fn stems(text: &str) -> Vec<String> {
    let words = Words::new(text);
    let telling = words.plain().filter(|word| !FILLERS.contains(word) && !is_kind_word(word));
    telling.flat_map(|word| word.split(['-', '/'])).filter(|word| !word.is_empty()).map(stem).collect()
}

/// Errands in the past, and the same in the present.
const PAST: [(&str, &str); 24] = [
    ("ate", "eat"),
    ("bought", "buy"),
    ("brought", "bring"),
    ("built", "build"),
    ("did", "do"),
    ("done", "do"),
    ("drove", "drive"),
    ("fed", "feed"),
    ("found", "find"),
    ("gave", "give"),
    ("given", "give"),
    ("gone", "go"),
    ("got", "get"),
    ("made", "make"),
    ("met", "meet"),
    ("paid", "pay"),
    ("sent", "send"),
    ("sold", "sell"),
    ("spoken", "speak"),
    ("taken", "take"),
    ("took", "take"),
    ("went", "go"),
    ("written", "write"),
    ("wrote", "write"),
];

/// A crude stem: endings off, and the past of the commonest errands turned into the present.
fn stem(word: &str) -> String {
    let word = word.trim_end_matches("'s");
    if let Some((_, present)) = PAST.iter().find(|(past, _)| *past == word) {
        return stem(present);
    }
    let strip = |ending: &str, least: usize| word.strip_suffix(ending).filter(|rest| rest.len() >= least);
    let rest = if let Some(rest) = strip("ies", 2) {
        return format!("{rest}y");
    } else if let Some(rest) = strip("ing", 3).or_else(|| strip("ed", 3)) {
        // "planned" is "plan", but "called" is "call".
        let mut letters = rest.chars().rev();
        match (letters.next(), letters.next()) {
            (Some(last), Some(other)) if last == other && !"lsz".contains(last) => &rest[..rest.len() - 1],
            _ => rest,
        }
    } else if word.ends_with("shes") || word.ends_with("ches") || word.ends_with("xes") {
        &word[..word.len() - 2]
    } else if word.ends_with("ss") {
        word
    } else {
        strip("s", 3).unwrap_or(word)
    };
    match rest.strip_suffix("ie") {
        Some(rest) => format!("{rest}y"),
        None => rest.strip_suffix('e').filter(|rest| rest.len() >= 3).unwrap_or(rest).to_owned(),
    }
}

/// Whether the words are those of something that was done: "bought the milk".
pub(super) fn is_past(text: &str) -> bool {
    let words = Words::new(text);
    let Some(first) = words.get(0) else { return false };
    let regular = first.len() > 4 && first.ends_with("ed") && first != "need";
    regular || PAST.iter().any(|(past, _)| *past == first)
}

/// The places of the titles that fit the words best: one when it is clear, several when it is not.
pub(super) fn best(wanted: &str, titles: &[&str]) -> Vec<usize> {
    let wanted = stems(wanted);
    if wanted.is_empty() {
        return Vec::new();
    }
    let scored: Vec<(usize, usize, bool)> = titles
        .iter()
        .enumerate()
        .map(|(at, title)| {
            let title = stems(title);
            let hits = wanted.iter().filter(|word| title.contains(word)).count();
            (at, hits, hits == wanted.len() && title.len() == wanted.len())
        })
        .collect();
    let exact: Vec<usize> = scored.iter().filter(|(_, _, exact)| *exact).map(|(at, ..)| *at).collect();
    if exact.len() == 1 {
        return exact;
    }
    let most = scored.iter().map(|(_, hits, _)| *hits).max().unwrap_or(0);
    // Half of the words must fit, or it is about something else.
    if most == 0 || most * 2 < wanted.len() {
        return Vec::new();
    }
    scored.iter().filter(|(_, hits, _)| *hits == most).map(|(at, ..)| *at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let named = |text: &str| Which::Named(text.to_owned());
        for (text, kind, which) in [
            ("it", None, Which::It),
            ("that one", None, Which::It),
            ("the note", Some(Kind::Note), Which::It),
            ("task 3", Some(Kind::Task), Which::Id(3)),
            ("task #3", Some(Kind::Task), Which::Id(3)),
            ("#12", None, Which::Id(12)),
            ("number 3", None, Which::Number(3)),
            ("3", None, Which::Number(3)),
            ("the second one", None, Which::Place(1)),
            ("the 2nd task", Some(Kind::Task), Which::Place(1)),
            ("the last note", Some(Kind::Note), Which::LastPlace),
            ("all my tasks", Some(Kind::Task), Which::All(Filter::All)),
            ("everything", None, Which::All(Filter::All)),
            ("the completed tasks", Some(Kind::Task), Which::All(Filter::Completed)),
            ("the milk task", Some(Kind::Task), named("the milk task")),
            ("the done report", None, named("the done report")),
            ("my note about wifi", Some(Kind::Note), named("my note about wifi")),
        ] {
            assert_eq!(read(text), Target { kind, which }, "{text}");
        }
    }

    #[test]
    fn titles_are_found_by_words() {
        let titles = ["Buy milk", "Milk the cow", "Pay the rent", "Call mom about groceries"];
        for (wanted, found) in [
            ("the milk task", vec![0, 1]),
            ("bought the milk", vec![0]),
            ("milk the cow", vec![1]),
            ("paid rent", vec![2]),
            ("called mom", vec![3]),
            ("the grocery call", vec![3]),
            ("the bread task", vec![]),
            ("the task", vec![]),
        ] {
            assert_eq!(best(wanted, &titles), found, "{wanted}");
        }
    }

    #[test]
    fn deeds_are_told_from_things() {
        for text in ["bought the milk", "called mom", "paid it", "taken the bins out", "sent the letter"] {
            assert!(is_past(text), "{text}");
        }
        for text in ["a question", "dishes to do", "running shoes", "milk", "need", "the milk"] {
            assert!(!is_past(text), "{text}");
        }
    }
}
