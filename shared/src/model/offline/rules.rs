//! The phrasings that are understood, as a table: the first pattern that fits and whose reading makes sense wins.

use chrono::NaiveDate;

use super::{
    date,
    intent::{Intent, several},
    target::{self, Filter, Kind, Target, Which},
    text::{Fit, Words, capitalised, tidy},
};

/// What a reading may look at besides the words of the pattern.
type Day = Option<NaiveDate>;
/// Makes wishes of a fitted pattern, or finds that it does not make sense.
type Reading = fn(&Fit<'_, '_>, Day) -> Option<Vec<Intent>>;

const RULES: &[(&str, Reading)] = &[
    // Notes: reading, changing, listing.
    ("read|open|show|display|get|view|print [me|out|us] <target>", |fit, _| note(fit, Intent::ReadNote)),
    ("what_does|what_did|what_do <target> say|contain", |fit, _| note(fit, Intent::ReadNote)),
    ("what_is|what's in|on|inside|under <target>", |fit, _| note(fit, Intent::ReadNote)),
    ("find|search|look_up|look_for|search_for [for|through] <target>", |fit, _| note(fit, Intent::ReadNote)),
    ("list|show|display|see|get|view|read|give [me] [all] [of] [my|the] notes", |_, _| {
        one(Intent::ListNotes)
    }),
    ("what|which notes do_i_have|have_i|are_there|exist [so_far|now]", |_, _| one(Intent::ListNotes)),
    ("[do_i_have|are_there] [any|all] [my] notes", |_, _| one(Intent::ListNotes)),
    ("add|append|put|write <text> to|in|into|onto|under <target>", |fit, _| {
        let text = fit.get("text").to_owned();
        note(fit, |target| Intent::AppendNote { target, text: text.clone() })
    }),
    ("add|append to <target:> <text>", |fit, _| {
        let text = fit.get("text").to_owned();
        note(fit, |target| Intent::AppendNote { target, text: text.clone() })
    }),
    (
        "change|update|replace|rewrite|edit|set|overwrite <target> to|with|so_that_it_says|to_say <text>",
        |fit, _| {
            let text = fit.get("text").to_owned();
            note(fit, |target| Intent::RewriteNote { target, text: text.clone() })
        },
    ),
    ("change|update|rewrite|edit <target:> <text>", |fit, _| {
        let text = fit.get("text").to_owned();
        note(fit, |target| Intent::RewriteNote { target, text: text.clone() })
    }),
    // Tasks: state.
    (
        "mark|set|flag|change <target> as|to|back_to [still] not_done|undone|pending|open|todo|incomplete|unfinished",
        |fit, _| task(fit, Intent::Reopen),
    ),
    ("reopen|uncheck|untick|restore|undo <target>", |fit, _| task(fit, Intent::Reopen)),
    (
        "mark|set|flag|check|tick|change <target> [as|to|off_as|being] done|complete|completed|finished|closed",
        |fit, _| task(fit, Intent::Complete),
    ),
    (
        "mark|check|tick|cross|strike|take <target> off [of] [my|the] [to-do|todo|task] [list|lists]",
        |fit, _| task(fit, Intent::Complete),
    ),
    (
        "complete|finish|close|check_off|tick_off|cross_off|tick|accomplish|resolve|finalize <target>",
        |fit, _| task(fit, Intent::Complete),
    ),
    ("i_am|i'm|we're [all|now|already] done|finished|through with <target>", |fit, _| {
        task(fit, Intent::Complete)
    }),
    (
        "[i|i_have|i've|we|we've] [just|already|now|finally] done|finished|completed|did|closed [with] <target>",
        |fit, _| task(fit, Intent::Complete),
    ),
    (
        "<target> is|are|was|has_been|have_been|got [now|all|already|finally] done|finished|complete|completed|handled",
        |fit, _| task(fit, Intent::Complete),
    ),
    ("i|i_have|i've|we|we've|we_have [have] [just|already|now|finally] <target>", |fit, _| {
        if target::is_past(fit.get("target")) { task(fit, Intent::Complete) } else { None }
    }),
    // Tasks: when and what.
    (
        "move|postpone|push|reschedule|delay|defer|shift|put_off [the] [due_date|deadline] [of|for] <target> to|until|till|for|by <day>",
        postpone,
    ),
    ("change|update|set|make|move [the] due_date|deadline|date [of|for] <target> to|for|as <day>", postpone),
    ("<target> is due <day>", postpone),
    ("change|update|set|edit [the] description|details of|for <target> to|as <text>", |fit, _| describe(fit)),
    ("add [the|a|this] description|details|detail <text> to <target>", |fit, _| describe(fit)),
    ("add [the|a|this] description|details|detail to <target:> <text>", |fit, _| describe(fit)),
    ("rename|retitle <target> to|as|into <title>", |fit, _| rename(fit)),
    (
        "change|update|edit|set|modify [the] [title|name|text|wording] [of] <target> to|into|as <title>",
        |fit, _| rename(fit),
    ),
    ("change|update|edit|rename <target:> <title>", |fit, _| rename(fit)),
    // Both: away with it.
    (
        "remove|delete|take|drop <target> from|off [of] [my|the] [to-do|todo|task|shopping|grocery|note] list|lists|tasks|notes",
        |fit, _| delete(fit),
    ),
    (
        "delete|remove|erase|trash|discard|drop|get_rid_of|throw_away|throw_out|cancel|scratch|bin <target>",
        |fit, _| delete(fit),
    ),
    // Tasks: what is listed.
    ("<question>", list_tasks),
    // New notes with a title.
    (
        "take|make|create|add|write|save|start [down] [me] [a|an|another|the] [new|quick] note|memo about|on|called|titled|named <title:> <content>",
        |fit, _| titled_note(fit),
    ),
    (
        "take|make|create|add|write|save|start [down] [me] [a|an|another|the] [new|quick] note|memo about|on|called|titled|named <title> saying|with|that_says|which_says [the] [content|text] <content>",
        |fit, _| titled_note(fit),
    ),
    (
        "take|make|create|add|write|save|start [down] [me] [a|an|another|the] [new|quick] note|memo called|titled|named|about|on <title>",
        |fit, _| titled_note(fit),
    ),
    (
        "take|make|create|add|write|save|start [down] [me] [a|an|another|the] [new|quick] note|memo [that|saying|of|to] <content>",
        |fit, _| free(fit),
    ),
    // New tasks.
    ("remind_me|remind_us <title>", add),
    ("don't_forget|do_not_forget|don't_let_me_forget|remember <title>", add),
    (
        "add|put|place|stick|throw <title> to|on|onto|in|into [my|the|our] [to-do|todo|task|tasks|shopping|grocery|reminder] list|tasks|todos|to-dos|agenda",
        add_listed,
    ),
    (
        "add|create|make|new|set|set_up|open|log|record|schedule|enter|put [me|up] [a|an|another|one_more|the|this|these|following|the_following|some|two|three|four|five|2|3|4|5] [new|following|quick] task|todo|to-do|reminder|item|errand|chore|tasks|todos|to-dos|reminders [to|for|called|named|titled|that_says|saying|about] <title>",
        add_listed,
    ),
    ("task|tasks|todo|to-do|todos|reminder|new_task: <title>", add_listed),
    (
        "i|we [really|still|also] need_to|have_to|must|should|gotta|have_got_to|ought_to|mustn't_forget_to <title>",
        |fit, day| {
            let first = Words::new(fit.get("title")).get(0).map(str::to_owned).unwrap_or_default();
            if ["see", "know", "view", "check", "find", "list", "be"].contains(&first.as_str()) {
                None
            } else {
                add(fit, day)
            }
        },
    ),
    // Connected servers.
    ("search|query [in|on|through] <place> for <text>", |fit, _| search(fit)),
    ("search|find|look_up|look_for|search_for|google [for|up] <text> in|on|from <place>", |fit, _| {
        search(fit)
    }),
    ("search|find|look_up|look_for|search_for|google [for|up] <text>", |fit, _| search(fit)),
    ("read|open|fetch|retrieve|summarize|summarise|load|get [me] <text> in|on|from <place>", |fit, _| {
        fetch(fit)
    }),
    ("read|open|fetch|retrieve|summarize|summarise|load [me] <text>", |fit, _| fetch(fit)),
    ("add|create <title>", add),
    // Talk.
    ("hi|hello|hey|good_morning|good_evening|good_afternoon|yo [there|alfred]", |_, _| one(Intent::Greeting)),
    (
        "thanks|thank_you|thx|cheers|great|perfect|nice|ok|okay [a_lot|so_much|very_much|alfred|thanks|thank_you]",
        |_, _| one(Intent::Thanks),
    ),
    ("help [me]", |_, _| one(Intent::About)),
    ("who|what are_you [really|exactly]", |_, _| one(Intent::About)),
    ("what can|do you do|help_with|help_me_with|understand [for_me]", |_, _| one(Intent::About)),
    ("are_you <what>", |_, _| one(Intent::About)),
    ("how do|does you|this|it work", |_, _| one(Intent::About)),
];

/// What one clause asks for; never empty.
pub(super) fn read(clause: &str, today: Day) -> Vec<Intent> {
    let words = Words::new(clause);
    let found = RULES.iter().find_map(|(pattern, reading)| reading(&words.fit(pattern)?, today));
    found.unwrap_or_else(|| {
        let target = target::read(clause);
        let short = words.len() <= 6;
        match target.which {
            Which::Named(_) if !short => vec![Intent::Unknown],
            Which::Named(_) | Which::Id(_) | Which::Number(_) | Which::Place(_) | Which::LastPlace => {
                vec![Intent::Choose(target)]
            }
            Which::It | Which::All(_) => vec![Intent::Unknown],
        }
    })
}

fn one(intent: Intent) -> Option<Vec<Intent>> {
    Some(vec![intent])
}

fn note(fit: &Fit<'_, '_>, wish: impl Fn(Target) -> Intent) -> Option<Vec<Intent>> {
    let target = target::read(fit.get("target"));
    let plural = matches!(target.which, Which::It) && Words::new(fit.get("target")).has(&["notes", "memos"]);
    (target.kind == Some(Kind::Note) && !plural).then(|| several(fit.get("target"), wish))
}

fn task(fit: &Fit<'_, '_>, wish: impl Fn(Target) -> Intent) -> Option<Vec<Intent>> {
    const ASKING: [&str; 9] = ["how", "if", "what", "what's", "when", "which", "who", "why", "tell"];
    let target = target::read(fit.get("target"));
    let asks = Words::new(fit.get("target")).get(0).is_some_and(|first| ASKING.contains(&first));
    (target.kind != Some(Kind::Note) && !asks).then(|| several(fit.get("target"), wish))
}

fn delete(fit: &Fit<'_, '_>) -> Option<Vec<Intent>> {
    Some(several(fit.get("target"), Intent::Delete))
}

fn rename(fit: &Fit<'_, '_>) -> Option<Vec<Intent>> {
    let title = capitalised(fit.get("title"));
    one(Intent::Rename { target: target::read(fit.get("target")), title })
}

fn describe(fit: &Fit<'_, '_>) -> Option<Vec<Intent>> {
    let text = capitalised(fit.get("text"));
    task(fit, |target| Intent::Describe { target, text: text.clone() })
}

fn postpone(fit: &Fit<'_, '_>, today: Day) -> Option<Vec<Intent>> {
    let words = Words::new(fit.get("day"));
    let (range, due) = date::find(&words, today?)?;
    if range != (0..words.len()) {
        return None;
    }
    task(fit, |target| Intent::Postpone { target, due })
}

fn search(fit: &Fit<'_, '_>) -> Option<Vec<Intent>> {
    one(Intent::Search { text: fit.get("text").to_owned(), place: fit.get("place").to_owned() })
}

fn fetch(fit: &Fit<'_, '_>) -> Option<Vec<Intent>> {
    one(Intent::Read { text: fit.get("text").to_owned(), place: fit.get("place").to_owned() })
}

/// A task out of its title: day and description are taken out of it.
fn task_of(title: &str, today: Day) -> Option<Intent> {
    let mut title = tidy(title).to_owned();
    let mut description = None;
    let words = Words::new(&title);
    if let Some(fit) = words.fit("<title> with [the|a] description|details|detail <text>") {
        description = Some(capitalised(fit.get("text")));
        title = fit.get("title").to_owned();
    }
    let words = Words::new(&title);
    let day =
        today.and_then(|today| date::find(&words, today)).filter(|(range, _)| range.len() < words.len());
    let due = day.as_ref().map(|(_, due)| *due);
    if let Some((range, _)) = &day {
        title = words.without(range);
    }
    let words = Words::new(&title);
    let start = ["that_i_need_to", "that_i_have_to", "that_i_must", "that", "to", "about"]
        .into_iter()
        .find_map(|lead| {
            let count = lead.split('_').count();
            words.plain().take(count).eq(lead.split('_')).then_some(count)
        });
    title = capitalised(words.slice(start.unwrap_or(0)..words.len()));
    (!title.is_empty()).then_some(Intent::AddTask { title, description, due })
}

fn add(fit: &Fit<'_, '_>, today: Day) -> Option<Vec<Intent>> {
    one(task_of(fit.get("title"), today)?)
}

/// Several tasks where commas say so: "add milk, bread and eggs to my list".
fn add_listed(fit: &Fit<'_, '_>, today: Day) -> Option<Vec<Intent>> {
    let title = fit.get("title");
    if !title.contains(',') {
        return add(fit, today);
    }
    let parts = title.split(',').flat_map(|part| part.split(" and ")).map(|part| part.trim());
    let parts = parts.map(|part| part.strip_prefix("and ").unwrap_or(part)).filter(|part| !part.is_empty());
    let tasks: Vec<Intent> = parts.filter_map(|part| task_of(part, today)).collect();
    (!tasks.is_empty()).then_some(tasks)
}

/// A heading and a list, one task a line: "add these tasks:\n- milk\n- bread".
pub(super) fn task_lines(message: &str, today: Day) -> Option<Vec<Intent>> {
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let heading = Words::new(lines.next()?);
    if !heading.has(&["tasks", "todos", "to-dos", "list", "todo", "to-do", "reminders"])
        || !heading.has(&["add", "create", "make", "new", "tasks", "todo", "todos", "put"])
    {
        return None;
    }
    let items: Vec<&str> = lines
        .map(|line| {
            let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
            let bare = if number.len() < line.len() { number.strip_prefix(['.', ')']) } else { None };
            bare.or_else(|| line.strip_prefix(['-', '*', '•']))
        })
        .collect::<Option<_>>()?;
    let tasks: Vec<Intent> = items.into_iter().filter_map(|item| task_of(item, today)).collect();
    (!tasks.is_empty()).then_some(tasks)
}

/// A note whose text is everything that follows, whatever is in it.
pub(super) fn free_note(message: &str) -> Option<Intent> {
    const PATTERNS: [&str; 5] = [
        "[take|make|create|add|write|save] [down] [a|an|another|my] [new|quick] note|memo|note_to_self: <content>",
        "[take|make|create|add|write|save] [down] [a|an|another] [new|quick] note|memo|note_to_self that <content>",
        "note|jot|write down [that|this] <content>",
        "make|take a_note of|that <content>",
        "remember|save|keep that|this <content>",
    ];
    // The text may run over lines, which the words of a pattern do not show; so it is cut out of the message.
    let words = Words::new(message);
    let content =
        PATTERNS.iter().find_map(|pattern| words.fit(pattern).map(|fit| fit.get("content").to_owned()))?;
    Some(note_of(&content))
}

fn free(fit: &Fit<'_, '_>) -> Option<Vec<Intent>> {
    one(note_of(fit.get("content")))
}

/// A note out of its text: the title is its first line or sentence, at most eight words of it.
fn note_of(content: &str) -> Intent {
    let content = capitalised(tidy(content));
    let line = content.lines().next().unwrap_or_default();
    let sentence = line.split_inclusive(['.', '!', '?']).next().unwrap_or(line);
    let words = Words::new(sentence);
    let title = words.slice(0..words.len().min(8)).to_owned();
    let title = if words.len() > 8 { format!("{title}…") } else { title };
    Intent::CreateNote { title, content }
}

fn titled_note(fit: &Fit<'_, '_>) -> Option<Vec<Intent>> {
    let title = capitalised(fit.get("title"));
    one(Intent::CreateNote { title, content: capitalised(fit.get("content")) })
}

/// Questions for tasks, which come in too many words for patterns: one that begins like a question or a request and
/// speaks of tasks, of a list, or of what is left.
fn list_tasks(fit: &Fit<'_, '_>, _: Day) -> Option<Vec<Intent>> {
    const STARTS: [&str; 29] = [
        "all",
        "any",
        "anything",
        "are",
        "check",
        "display",
        "do",
        "get",
        "give",
        "have",
        "how",
        "is",
        "list",
        "my",
        "open",
        "pending",
        "print",
        "read",
        "remaining",
        "remind",
        "see",
        "show",
        "tasks",
        "tell",
        "the",
        "todos",
        "view",
        "what",
        "which",
    ];
    const THINGS: [&str; 9] =
        ["task", "tasks", "todo", "todos", "to-do", "to-dos", "list", "agenda", "reminders"];
    const STATES: [&str; 8] =
        ["left", "remaining", "outstanding", "pending", "unfinished", "undone", "due", "open"];
    const DONE: [&str; 7] = ["done", "completed", "finished", "closed", "complete", "accomplished", "did"];
    let words = Words::new(fit.get("question"));
    let first = words.get(0)?;
    let asks = STARTS.contains(&first) || first.starts_with("what'") || first == "whats";
    let things = words.has(&THINGS);
    let states = words.has(&STATES) || words.has_phrase("to do") || words.has_phrase("on my plate");
    let done = words.has(&DONE);
    let question = first.starts_with("what")
        || ["which", "anything", "is", "how", "have", "do"].contains(&first)
        || words.has(&["what", "what's", "which"]);
    let reminds = first == "remind" && !words.has(&["what", "of"]);
    let note = words.has(&["note", "notes", "you", "your"]);
    if !asks || reminds || note || !(things || question && (states || done)) {
        return None;
    }
    // "the list is done" and "my milk task is finished" tell, they do not ask.
    if !question && ["my", "the"].contains(&first) && words.has(&["is", "are", "was"]) {
        return None;
    }
    let undone =
        words.has_phrase("not done") || words.has_phrase("to be done") || words.has(&["still", "haven't"]);
    let whole = words.has(&["all", "every", "everything"]) && things;
    one(Intent::ListTasks(if done && !undone && !states {
        Filter::Completed
    } else if whole && !states {
        Filter::All
    } else {
        Filter::Pending
    }))
}

#[cfg(test)]
mod tests;
