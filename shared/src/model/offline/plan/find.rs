//! Finds the things that a wish is about: in what was shown, in what was said, or by a lookup.

use serde_json::json;

use super::{Planner, Step};
use crate::model::offline::{
    intent::Intent,
    memory::{Item, list},
    say,
    target::{Filter, Kind, Target, Which, best},
};

/// What a thing turned out to be.
pub(super) enum Found {
    Items(Vec<Item>),
    Step(Step),
}

impl Planner<'_> {
    /// Finds out what is meant, with a lookup if need be.
    pub(super) fn find(&mut self, intent: &Intent, target: &Target, before: Option<&Option<Item>>) -> Found {
        let notes =
            matches!(intent, Intent::ReadNote(_) | Intent::AppendNote { .. } | Intent::RewriteNote { .. });
        let kind = target.kind.unwrap_or(if notes { Kind::Note } else { Kind::Task });
        let fits = |item: &&Item| {
            target.kind.is_none_or(|kind| item.kind == kind) && (!notes || item.kind == Kind::Note)
        };
        let shown: Vec<Item> = self.memory.shown.iter().filter(fits).cloned().collect();
        let one = |item: Item| Found::Items(vec![item]);
        let place = |at: usize| shown.get(at).cloned();
        match &target.which {
            Which::Id(id) => one(self.memory.known(self.kind_of(target, kind, *id), *id)),
            Which::Number(number) => {
                let listed = shown.iter().find(|item| item.id == *number).cloned();
                let placed = || number.checked_sub(1).and_then(|at| usize::try_from(at).ok()).and_then(place);
                one(listed.or_else(placed).unwrap_or_else(|| self.memory.known(kind, *number)))
            }
            Which::Place(_) | Which::LastPlace if shown.is_empty() => match self.lookup(kind, intent) {
                Ok(items) => match target.which {
                    Which::Place(at) => items.get(at).cloned(),
                    _ => items.last().cloned(),
                }
                .map_or_else(|| Found::Step(Step::Say(say::which_at_all(kind), None)), one),
                Err(step) => Found::Step(step),
            },
            Which::Place(at) => match place(*at) {
                Some(item) => one(item),
                None => Found::Step(Step::Say(say::which(&shown), None)),
            },
            Which::LastPlace => Found::Items(shown.last().cloned().into_iter().collect()),
            Which::It => match before {
                Some(Some(item)) => one(item.clone()),
                Some(None) => Found::Step(Step::Wait),
                None => match self.memory.last.clone().filter(|item| fits(&item)) {
                    Some(item) => one(item),
                    None if shown.len() == 1 => Found::Items(shown),
                    None => Found::Step(Step::Say(say::which_at_all(kind), None)),
                },
            },
            Which::All(filter) => self.all(kind, *filter, intent),
            Which::Named(wanted) => self.named(kind, target.kind.is_none(), wanted, intent),
        }
    }

    /// "#3" may be a note when a note of that number was just spoken of.
    fn kind_of(&self, target: &Target, kind: Kind, id: i64) -> Kind {
        let spoken = self.memory.last.iter().chain(&self.memory.shown).find(|item| item.id == id);
        if target.kind.is_none() { spoken.map_or(kind, |item| item.kind) } else { kind }
    }

    /// The things that a wish can be about: open tasks for completing, all of them for the rest.
    fn lookup(&self, kind: Kind, intent: &Intent) -> Result<Vec<Item>, Step> {
        let filter = if matches!(intent, Intent::Complete(_)) { Filter::Pending } else { Filter::All };
        self.lookup_filtered(kind, filter)
    }

    fn lookup_filtered(&self, kind: Kind, filter: Filter) -> Result<Vec<Item>, Step> {
        let (tool, arguments) = match kind {
            Kind::Task => ("list_tasks", json!({"status": filter.as_str()})),
            Kind::Note => ("list_notes", json!({})),
        };
        if !self.kit.has(tool) {
            return Err(Step::Say(say::NO_TOOL.to_owned(), None));
        }
        match self.looked_up(tool, &arguments, false) {
            None => Err(Step::Calls(vec![(tool, arguments)])),
            Some((content, true)) => Err(Step::Say(say::failed(content), None)),
            Some((content, false)) => match list(kind, content) {
                Some((items, _)) => Ok(items),
                None => Err(Step::Say(say::failed("the list came in a form I cannot read"), None)),
            },
        }
    }

    fn all(&mut self, kind: Kind, filter: Filter, intent: &Intent) -> Found {
        let filter = if matches!(intent, Intent::Complete(_)) { Filter::Pending } else { filter };
        match self.lookup_filtered(kind, filter) {
            Err(step) => Found::Step(step),
            Ok(items) if items.is_empty() => {
                let text =
                    if kind == Kind::Task { say::tasks(filter, &[], false) } else { say::notes(&[], false) };
                Found::Step(Step::Say(text, None))
            }
            Ok(items) => Found::Items(items),
        }
    }

    fn named(&mut self, kind: Kind, either: bool, wanted: &str, intent: &Intent) -> Found {
        let items = match self.lookup(kind, intent) {
            Ok(items) => items,
            Err(step) => return Found::Step(step),
        };
        let titles: Vec<&str> = items.iter().map(|item| item.title.as_str()).collect();
        let mut places = best(wanted, &titles);
        if places.is_empty() && kind == Kind::Note {
            let contents: Vec<&str> = items.iter().map(|item| item.content.as_str()).collect();
            places = best(wanted, &contents);
        }
        // Of things with the same name, the open one is meant.
        let open: Vec<usize> = places.iter().copied().filter(|at| !items[*at].done).collect();
        if places.len() > 1 && open.len() == 1 && !matches!(intent, Intent::Reopen(_)) {
            places = open;
        }
        let found: Vec<Item> = places.into_iter().map(|at| items[at].clone()).collect();
        match found.len() {
            0 if either
                && kind == Kind::Task
                && matches!(intent, Intent::Delete(_))
                && self.kit.has("list_notes") =>
            {
                match self.named(Kind::Note, false, wanted, intent) {
                    Found::Step(Step::Say(..)) => {
                        Found::Step(Step::Say(say::not_found(kind, false, wanted), None))
                    }
                    found => found,
                }
            }
            0 => {
                let open_only = matches!(intent, Intent::Complete(_));
                Found::Step(Step::Say(say::not_found(kind, open_only, wanted), None))
            }
            1 => Found::Items(found),
            _ => Found::Step(Step::Say(say::which(&found), None)),
        }
    }
}
