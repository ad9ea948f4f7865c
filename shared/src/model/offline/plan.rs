//! What to say and which tools to call next, found anew from the messages each time: every wish of the last user
//! message is walked as far as the results at hand allow, and either wants another call or has something to say.

mod find;

use serde_json::{Map, Value, json};

use self::find::Found;
use super::{
    ModelMessage, ModelRequest, ToolCall, clean, date,
    intent::{self, Intent},
    kit::Kit,
    memory::{Item, Memory, list, single},
    say,
    target::{Kind, Target, Which},
};

/// One reply.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) calls: Vec<ToolCall>,
}

/// Where a wish stands.
enum Step {
    /// It needs these calls first.
    Calls(Vec<(&'static str, Value)>),
    /// It needs a call of a connected server's tool.
    Connected(String, Value),
    /// It waits for an earlier wish.
    Wait,
    /// It is settled; the item is what "it" means from here on.
    Say(String, Option<Item>),
}

/// A call that was made for this message, and what came back.
struct Made<'a> {
    name: &'a str,
    arguments: Value,
    result: Option<(&'a str, bool)>,
    taken: bool,
}

/// The reply to a request.
pub(super) fn answer(request: &ModelRequest) -> Answer {
    let Some(at) = request.messages.iter().rposition(|message| matches!(message, ModelMessage::User { .. }))
    else {
        return Answer { text: say::ABOUT.to_owned(), calls: Vec::new() };
    };
    let (history, current) = request.messages.split_at(at);
    let [ModelMessage::User { text }, steps @ ..] = current else { return Answer::default() };
    let memory = Memory::read(history);
    let today = date::today(&request.system);
    let mut intents = intent::read(text, today);
    if let (Some(question), [Intent::Choose(choice)]) = (&memory.question, intents.as_slice())
        && let Some(asked) = chosen(intent::read(question, today), choice)
    {
        intents = asked;
    }
    let earlier = history.iter().chain(steps).map(|message| match message {
        ModelMessage::Assistant { calls, .. } => calls.len(),
        _ => 0,
    });
    let mut planner =
        Planner { kit: Kit::new(request.tools.clone()), memory, made: made(steps), calls: Vec::new() };
    let text = planner.walk(&intents);
    let first = earlier.sum::<usize>() + 1;
    let calls: Vec<ToolCall> = planner
        .calls
        .into_iter()
        .enumerate()
        .map(|(at, (name, arguments))| ToolCall {
            id: format!("call_{}", first + at),
            name,
            arguments: Ok(arguments),
        })
        .collect();
    Answer { text: if calls.is_empty() { clean(&text) } else { String::new() }, calls }
}

/// The wishes of the message that was asked about, with the thing that was chosen.
fn chosen(mut intents: Vec<Intent>, choice: &Target) -> Option<Vec<Intent>> {
    let target = intents.iter_mut().find_map(Intent::target_mut)?;
    *target = Target { kind: choice.kind.or(target.kind), which: choice.which.clone() };
    Some(intents)
}

/// The calls since the user's message, with their results.
fn made(steps: &[ModelMessage]) -> Vec<Made<'_>> {
    let results: Vec<_> = steps
        .iter()
        .filter_map(|message| match message {
            ModelMessage::ToolResults(results) => Some(results),
            _ => None,
        })
        .flatten()
        .collect();
    let calls = steps.iter().filter_map(|message| match message {
        ModelMessage::Assistant { calls, .. } => Some(calls),
        _ => None,
    });
    calls
        .flatten()
        .map(|call| {
            let result = results.iter().find(|result| result.call_id == call.id);
            Made {
                name: &call.name,
                arguments: call.arguments.clone().unwrap_or_default(),
                result: result.map(|result| (result.content.as_str(), result.is_error)),
                taken: false,
            }
        })
        .collect()
}

struct Planner<'a> {
    kit: Kit,
    memory: Memory,
    made: Vec<Made<'a>>,
    /// What is to be called next.
    calls: Vec<(String, Value)>,
}

impl Planner<'_> {
    /// Walks all wishes; gives the text for when nothing needs to be called any more.
    fn walk(&mut self, intents: &[Intent]) -> String {
        let mut lines: Vec<Option<String>> = vec![None; intents.len()];
        // What is to be shown is looked up last, so that it shows what the other wishes did.
        let shows = |intent: &Intent| matches!(intent, Intent::ListTasks(_) | Intent::ListNotes);
        let mut before: Option<Option<Item>> = None;
        let mut settled = true;
        for late in [false, true] {
            for (intent, line) in intents.iter().zip(&mut lines).filter(|(intent, _)| shows(intent) == late) {
                if late && !settled {
                    continue;
                }
                match self.step(intent, before.as_ref()) {
                    Step::Say(text, item) => {
                        *line = Some(text);
                        before = item.map(Some).or(before);
                    }
                    step => {
                        before = Some(None);
                        settled = false;
                        self.want(step);
                    }
                }
            }
        }
        lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }

    fn want(&mut self, step: Step) {
        let calls = match step {
            Step::Calls(calls) => {
                calls.into_iter().map(|(name, arguments)| (name.to_owned(), arguments)).collect()
            }
            Step::Connected(name, arguments) => vec![(name, arguments)],
            Step::Wait | Step::Say(..) => Vec::new(),
        };
        let changes = self.calls.iter().any(|(name, _)| !name.starts_with("list_"));
        for call in calls {
            let lookup = call.0.starts_with("list_");
            // Two wishes may need the same list, and none a list from before an earlier wish's change.
            if !lookup || !(changes || self.calls.contains(&call)) {
                self.calls.push(call);
            }
        }
    }

    /// The result of a call that changes something; each call serves one wish.
    fn done(&mut self, name: &str, arguments: &Value) -> Option<(String, bool)> {
        let mut fits = self.made.iter_mut().filter(|made| !made.taken && made.name == name);
        let made = fits.find(|made| made.arguments == *arguments)?;
        made.taken = true;
        // A call without a result was cut off; saying nothing of it would repeat it for ever.
        Some(
            made.result
                .map_or(("it was interrupted".to_owned(), true), |(text, error)| (text.to_owned(), error)),
        )
    }

    /// The result of a lookup, which may serve many wishes. `fresh` ones were made after the last change.
    fn looked_up(&self, name: &str, arguments: &Value, fresh: bool) -> Option<(&str, bool)> {
        let reads = |made: &Made<'_>| made.name.starts_with("list_") || made.name.starts_with("get_");
        let changed = self.made.iter().rposition(|made| !reads(made)).map_or(0, |at| at + 1);
        let from = if fresh { changed } else { 0 };
        let made = self.made[from..].iter().find(|made| made.name == name && made.arguments == *arguments)?;
        made.result.or(Some(("it was interrupted", true)))
    }

    fn step(&mut self, intent: &Intent, before: Option<&Option<Item>>) -> Step {
        match intent {
            Intent::AddTask { title, description, due } => {
                let mut arguments = Map::from_iter([("title".to_owned(), json!(title))]);
                if let Some(text) = description {
                    arguments.insert("description".to_owned(), json!(text));
                }
                if let Some(due) = due {
                    if self.kit.takes("add_task", "due_date") {
                        arguments.insert("due_date".to_owned(), json!(due.to_string()));
                    } else {
                        arguments.insert("title".to_owned(), json!(format!("{title} (by {due})")));
                    }
                }
                self.act("add_task", Value::Object(arguments), Kind::Task, |item| {
                    format!("Added {}{}.", say::thing(item), say::due(item))
                })
            }
            Intent::CreateNote { title, content } => {
                self.act("create_note", json!({"title": title, "content": content}), Kind::Note, |item| {
                    format!("Noted as {}.", say::thing(item))
                })
            }
            Intent::ListTasks(filter) => {
                self.show("list_tasks", json!({"status": filter.as_str()}), Kind::Task, |items, more| {
                    say::tasks(*filter, items, more)
                })
            }
            Intent::ListNotes => self.show("list_notes", json!({}), Kind::Note, say::notes),
            Intent::Search { text, place } => match self.kit.search(text, place) {
                Some((tool, arguments)) => self.connected(tool, arguments),
                None => Step::Say(say::NO_TOOL.to_owned(), None),
            },
            Intent::Read { text, place } => self.read(text, place, before),
            Intent::Greeting => Step::Say(say::GREETING.to_owned(), None),
            Intent::Thanks => Step::Say(say::THANKS.to_owned(), None),
            Intent::About => Step::Say(say::ABOUT.to_owned(), None),
            Intent::Choose(_) | Intent::Unknown => Step::Say(say::UNKNOWN.to_owned(), None),
            Intent::Complete(target)
            | Intent::Reopen(target)
            | Intent::Rename { target, .. }
            | Intent::Describe { target, .. }
            | Intent::Postpone { target, .. }
            | Intent::Delete(target)
            | Intent::ReadNote(target)
            | Intent::AppendNote { target, .. }
            | Intent::RewriteNote { target, .. } => match self.find(intent, target, before) {
                Found::Items(items) => self.each(intent, &items),
                Found::Step(step) => step,
            },
        }
    }

    /// "read it" and "read the plan": a note that was spoken of, else a connected server's page, else a note.
    fn read(&mut self, text: &str, place: &str, before: Option<&Option<Item>>) -> Step {
        let target = super::target::read(text);
        let note = self.memory.last.as_ref().is_some_and(|item| item.kind == Kind::Note);
        if !(target.which == Which::It && note)
            && let Some((tool, arguments)) = self.kit.read(text, place)
        {
            return self.connected(tool, arguments);
        }
        if matches!(target.which, Which::All(_)) || !place.is_empty() {
            return Step::Say(say::NO_TOOL.to_owned(), None);
        }
        self.step(&Intent::ReadNote(Target { kind: Some(Kind::Note), ..target }), before)
    }

    fn connected(&mut self, tool: String, arguments: Value) -> Step {
        match self.done(&tool, &arguments) {
            None => Step::Connected(tool, arguments),
            Some((content, true)) => Step::Say(say::failed(&content), None),
            Some((content, false)) => Step::Say(say::answered(&tool, &content), None),
        }
    }

    /// Makes a change, or says what came of it.
    fn act(
        &mut self,
        tool: &'static str,
        arguments: Value,
        kind: Kind,
        words: impl Fn(&Item) -> String,
    ) -> Step {
        if !self.kit.has(tool) {
            return Step::Say(say::NO_TOOL.to_owned(), None);
        }
        match self.done(tool, &arguments) {
            None => Step::Calls(vec![(tool, arguments)]),
            Some((content, true)) => Step::Say(say::failed(&content), None),
            Some((content, false)) => {
                let id = arguments.get("task_id").or_else(|| arguments.get("id")).and_then(Value::as_i64);
                let known = id.map(|id| self.memory.known(kind, id));
                match single(kind, &content).filter(|item| !item.title.is_empty()).or(known) {
                    Some(item) => Step::Say(words(&item), Some(item)),
                    None => Step::Say("Done.".to_owned(), None),
                }
            }
        }
    }

    fn show(
        &mut self,
        tool: &'static str,
        arguments: Value,
        kind: Kind,
        words: impl Fn(&[Item], bool) -> String,
    ) -> Step {
        if !self.kit.has(tool) {
            return Step::Say(say::NO_TOOL.to_owned(), None);
        }
        match self.looked_up(tool, &arguments, true) {
            None => Step::Calls(vec![(tool, arguments)]),
            Some((content, true)) => Step::Say(say::failed(content), None),
            Some((content, false)) => match list(kind, content) {
                Some((items, more)) => Step::Say(words(&items, more), None),
                None => Step::Say(say::failed("the list came in a form I cannot read"), None),
            },
        }
    }

    /// The same wish for every thing that was found.
    fn each(&mut self, intent: &Intent, items: &[Item]) -> Step {
        let (mut calls, mut lines, mut last) = (Vec::new(), Vec::new(), None);
        for item in items {
            match self.one(intent, item) {
                Step::Say(line, item) => {
                    lines.push(line);
                    last = item.or(last);
                }
                Step::Calls(more) => calls.extend(more),
                step @ (Step::Connected(..) | Step::Wait) => return step,
            }
        }
        if calls.is_empty() { Step::Say(lines.join("\n"), last) } else { Step::Calls(calls) }
    }

    fn one(&mut self, intent: &Intent, item: &Item) -> Step {
        let id = item.id;
        let thing = |found: &Item| say::thing(if found.title.is_empty() { item } else { found });
        match (intent, item.kind) {
            (Intent::Complete(_), Kind::Task) => {
                self.act("complete_task", json!({"task_id": id}), Kind::Task, |item| {
                    format!("Done: {}.", thing(item))
                })
            }
            (Intent::Reopen(_), Kind::Task) if self.kit.takes("update_task", "status") => {
                self.act("update_task", json!({"task_id": id, "status": "todo"}), Kind::Task, |item| {
                    format!("{} is open again.", thing(item))
                })
            }
            (Intent::Rename { title, .. }, Kind::Task) => {
                self.act("update_task", json!({"task_id": id, "title": title}), Kind::Task, |item| {
                    format!("It is now called {}.", thing(item))
                })
            }
            (Intent::Describe { text, .. }, Kind::Task) => {
                self.act("update_task", json!({"task_id": id, "description": text}), Kind::Task, |item| {
                    format!("Described {}.", thing(item))
                })
            }
            (Intent::Postpone { due, .. }, Kind::Task) if self.kit.takes("update_task", "due_date") => {
                let arguments = json!({"task_id": id, "due_date": due.to_string()});
                self.act("update_task", arguments, Kind::Task, |item| {
                    format!("{} is now due {due}.", thing(item))
                })
            }
            (Intent::Delete(_), kind) => {
                let (tool, arguments) = match kind {
                    Kind::Task => ("delete_task", json!({"task_id": id})),
                    Kind::Note => ("delete_note", json!({"id": id})),
                };
                self.act(tool, arguments, kind, |_| {
                    format!("Deleted the {} {}.", kind.name(), say::thing(item))
                })
            }
            (Intent::ReadNote(_), Kind::Note) => {
                self.act("get_note", json!({"id": id}), Kind::Note, say::note)
            }
            (Intent::AppendNote { text, .. }, Kind::Note) => {
                // The whole text is needed, which a list may have trimmed.
                let arguments = json!({"id": id});
                let content = match self.looked_up("get_note", &arguments, false) {
                    None => return Step::Calls(vec![("get_note", arguments)]),
                    Some((content, true)) => return Step::Say(say::failed(content), None),
                    Some((content, false)) => {
                        single(Kind::Note, content).map(|note| note.content).unwrap_or_default()
                    }
                };
                let content = format!("{content}\n{text}").trim().to_owned();
                self.patch(id, "content", &content, "Added to")
            }
            (Intent::RewriteNote { text, .. }, Kind::Note) => self.patch(id, "content", text, "Rewrote"),
            (Intent::Rename { title, .. }, Kind::Note) => self.patch(id, "title", title, "Renamed to"),
            _ => Step::Say(say::NO_TOOL.to_owned(), None),
        }
    }

    fn patch(&mut self, id: i64, field: &str, value: &str, verb: &str) -> Step {
        let arguments = if self.kit.takes("patch_note", field) {
            json!({"id": id, field: value})
        } else {
            json!({"id": id, "updates": {field: value}})
        };
        self.act("patch_note", arguments, Kind::Note, |item| format!("{verb} {}.", say::thing(item)))
    }
}

#[cfg(test)]
mod tests;
