//! Tasks. States and what moves between them:
//!
//! ```text
//! todo --start--> in_progress --complete--> done
//! todo --complete--> done        done, archived --reopen--> todo        any --archive--> archived
//! ```

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::workspace::{Entity, Problem, Projection, StatusFilter};

/// Something to be done.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// What is to be done, in a few words.
    #[schemars(length(min = 1, max = 500))]
    pub title: String,
    /// Details, as long as need be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where the task stands.
    #[serde(default)]
    pub status: Status,
    /// How much it matters.
    #[serde(default)]
    pub priority: Priority,
    /// When it is due: a date such as 2031-05-17, or a moment with its offset such as 2031-05-17T09:30:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_date: Option<String>,
    /// Words to find it by.
    #[serde(default)]
    #[schemars(length(max = 100), inner(length(max = 100)))]
    pub tags: Vec<String>,
    /// Fields that are not ours.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Todo,
    InProgress,
    Done,
    Archived,
}

/// How much a task matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    Low,
    #[default]
    Medium,
    High,
}

impl Status {
    /// The word that is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Todo => "todo",
            Self::InProgress => "in_progress",
            Self::Done => "done",
            Self::Archived => "archived",
        }
    }
}

impl Entity for Task {
    const KIND: &'static str = "task";
    const PLURAL: &'static str = "tasks";
    const ACTIONS: &'static [&'static str] = &["start", "complete", "reopen"];
    const STATUSES: &'static [StatusFilter] = &[
        StatusFilter { word: "pending", states: &["todo", "in_progress"], archived: false },
        StatusFilter { word: "completed", states: &["done"], archived: false },
        StatusFilter { word: "todo", states: &["todo"], archived: false },
        StatusFilter { word: "in_progress", states: &["in_progress"], archived: false },
        StatusFilter { word: "done", states: &["done"], archived: false },
        StatusFilter { word: "archived", states: &["archived"], archived: true },
    ];
    const ID_ARGUMENT: Option<&'static str> = Some("task_id");

    fn check(&self) -> Result<(), Problem> {
        if self.title.trim().is_empty() {
            return Err(Problem::new("title", "must not be empty"));
        }
        if self.due_date.is_some() && self.due_at().is_none() {
            return Err(Problem::new(
                "dueDate",
                "must be a date such as 2031-05-17, or a moment with its offset such as 2031-05-17T09:30:00Z",
            ));
        }
        Ok(())
    }

    fn projection(&self) -> Projection {
        Projection {
            status: Some(self.status.as_str()),
            due_at: self.due_at(),
            archived: self.status == Status::Archived,
            ..Projection::default()
        }
    }

    fn act(&mut self, action: &str) -> Result<(), String> {
        self.status = match (action, self.status) {
            ("start", Status::Todo) => Status::InProgress,
            ("complete", Status::Todo | Status::InProgress) => Status::Done,
            ("reopen", Status::Done | Status::Archived) => Status::Todo,
            (_, state) => return Err(state.as_str().to_owned()),
        };
        Ok(())
    }

    fn archive(&mut self) {
        self.status = Status::Archived;
    }
}

impl Task {
    /// The moment it is due; a date counts from its first moment in UTC.
    #[must_use]
    pub fn due_at(&self) -> Option<DateTime<Utc>> {
        let text = self.due_date.as_deref()?;
        // chrono would also read +2031-05-1, or a moment with a space in it.
        match text.as_bytes() {
            [b'0'..=b'9', _, _, _, b'-', _, _, b'-', _, _] => {
                let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
                Some(day.and_time(NaiveTime::MIN).and_utc())
            }
            [_, _, _, _, b'-', _, _, b'-', _, _, b'T', ..] => {
                Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(status: Status, due_date: Option<&str>) -> Task {
        let mut task: Task = serde_json::from_value(json!({"title": "milk"})).unwrap();
        task.status = status;
        task.due_date = due_date.map(str::to_owned);
        task
    }

    #[test]
    fn every_action_in_every_state() {
        use Status::{Archived, Done, InProgress, Todo};
        for (action, after) in [
            ("start", [Some(InProgress), None, None, None]),
            ("complete", [Some(Done), Some(Done), None, None]),
            ("reopen", [None, None, Some(Todo), Some(Todo)]),
        ] {
            for (before, after) in [Todo, InProgress, Done, Archived].into_iter().zip(after) {
                let mut task = task(before, None);
                let outcome = task.act(action);
                assert_eq!(outcome.is_ok(), after.is_some(), "{action} when {before:?}");
                assert_eq!(task.status, after.unwrap_or(before), "{action} when {before:?}");
            }
        }
    }

    #[test]
    fn due_dates_are_dates_or_moments() {
        for (text, moment) in [
            ("2031-05-17", Some("2031-05-17T00:00:00Z")),
            ("2031-05-17T09:30:00Z", Some("2031-05-17T09:30:00Z")),
            ("2031-05-17T09:30:00.5+02:00", Some("2031-05-17T07:30:00.5Z")),
            ("2031-05-17T09:30:00", None),
            ("2031-02-30", None),
            ("2031-5-17", None),
            ("+2031-05-1", None),
            ("tomorrow", None),
            ("tomorrow!!", None),
            ("", None),
        ] {
            let task = task(Status::Todo, Some(text));
            let moment = moment.map(|moment| moment.parse::<DateTime<Utc>>().unwrap());
            assert_eq!(task.due_at(), moment, "{text}");
            assert_eq!(task.check().is_ok(), moment.is_some(), "{text}");
        }
    }
}
