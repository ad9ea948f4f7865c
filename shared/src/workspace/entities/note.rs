//! Notes. Pinning and archiving are independent of each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::workspace::{Entity, Projection};

/// Something to be remembered: free text under a title.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// What it is about, in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub title: Option<String>,
    /// The text, Markdown if you like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Whether it is kept in view.
    #[serde(default)]
    pub pinned: bool,
    /// Whether lists leave it out.
    #[serde(default)]
    pub archived: bool,
    /// Words to find it by.
    #[serde(default)]
    #[schemars(length(max = 100), inner(length(max = 100)))]
    pub tags: Vec<String>,
    /// Fields that are not ours.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl Entity for Note {
    const KIND: &'static str = "note";
    const PLURAL: &'static str = "notes";
    const ACTIONS: &'static [&'static str] = &["pin", "unpin", "archive", "unarchive"];

    fn projection(&self) -> Projection {
        Projection { pinned: Some(self.pinned), archived: self.archived, ..Projection::default() }
    }

    fn act(&mut self, action: &str) -> Result<(), String> {
        match (action, self.pinned, self.archived) {
            ("pin", false, _) => self.pinned = true,
            ("unpin", true, _) => self.pinned = false,
            ("archive", _, false) => self.archived = true,
            ("unarchive", _, true) => self.archived = false,
            ("pin", true, _) => return Err("pinned already".to_owned()),
            ("unpin", false, _) => return Err("not pinned".to_owned()),
            ("archive", _, true) => return Err("archived already".to_owned()),
            _ => return Err("not archived".to_owned()),
        }
        Ok(())
    }

    fn archive(&mut self) {
        self.archived = true;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_action_in_every_state() {
        for pinned in [false, true] {
            for archived in [false, true] {
                for (action, after) in [
                    ("pin", (!pinned).then_some((true, archived))),
                    ("unpin", pinned.then_some((false, archived))),
                    ("archive", (!archived).then_some((pinned, true))),
                    ("unarchive", archived.then_some((pinned, false))),
                ] {
                    let mut note: Note =
                        serde_json::from_value(json!({"pinned": pinned, "archived": archived})).unwrap();
                    assert_eq!(note.act(action).is_ok(), after.is_some(), "{action} {pinned} {archived}");
                    assert_eq!((note.pinned, note.archived), after.unwrap_or((pinned, archived)));
                }
            }
        }
    }
}
