//! What agents may see and change, and whose events they are told of, as admins write it.

use serde::{Deserialize, Serialize};
use shared::{
    agents::{
        condition::{Condition, ConditionField},
        permissions::{Level, Permission, Permissions},
    },
    error::Result,
};
use utoipa::ToSchema;

/// How much of its permissions an agent has at most.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LevelView {
    /// Nothing: it learns who the user is and no more.
    Restricted,
    ReadOnly,
    ReadWrite,
    /// As read_write, and it looks after all of its own sessions.
    Admin,
}

impl From<Level> for LevelView {
    fn from(level: Level) -> Self {
        match level {
            Level::Restricted => Self::Restricted,
            Level::ReadOnly => Self::ReadOnly,
            Level::ReadWrite => Self::ReadWrite,
            Level::Admin => Self::Admin,
        }
    }
}

impl From<LevelView> for Level {
    fn from(level: LevelView) -> Self {
        match level {
            LevelView::Restricted => Self::Restricted,
            LevelView::ReadOnly => Self::ReadOnly,
            LevelView::ReadWrite => Self::ReadWrite,
            LevelView::Admin => Self::Admin,
        }
    }
}

/// What an agent may do with what is known of users: words such as read:preferences or write:risk_profile. Forbidden wins.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PermissionsView {
    /// In every session of the agent, and for what it is told.
    required: Vec<String>,
    /// In sessions that ask for them, and for what it is told.
    optional: Vec<String>,
    /// Never.
    forbidden: Vec<String>,
}

impl From<Permissions> for PermissionsView {
    fn from(permissions: Permissions) -> Self {
        let words =
            |set: std::collections::BTreeSet<Permission>| set.iter().map(ToString::to_string).collect();
        Self {
            required: words(permissions.required),
            optional: words(permissions.optional),
            forbidden: words(permissions.forbidden),
        }
    }
}

impl PermissionsView {
    pub(super) fn read(&self) -> Result<Permissions> {
        let set = |words: &[String]| words.iter().map(|word| word.parse()).collect::<Result<_>>();
        Ok(Permissions {
            required: set(&self.required)?,
            optional: set(&self.optional)?,
            forbidden: set(&self.forbidden)?,
        })
    }
}

/// A field of the preferences that a condition can be about.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConditionFieldView {
    TradingStyle,
    Timezone,
    SectorsOfInterest,
}

/// Whose events an agent is told of: trading_style or timezone equals a word, or sectors_of_interest contains one.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConditionView {
    field: ConditionFieldView,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    equals: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contains: Option<String>,
}

impl From<Condition> for ConditionView {
    fn from(condition: Condition) -> Self {
        let field = match condition.field {
            ConditionField::TradingStyle => ConditionFieldView::TradingStyle,
            ConditionField::Timezone => ConditionFieldView::Timezone,
            ConditionField::SectorsOfInterest => ConditionFieldView::SectorsOfInterest,
        };
        Self { field, equals: condition.equals, contains: condition.contains }
    }
}

impl From<ConditionView> for Condition {
    fn from(condition: ConditionView) -> Self {
        let field = match condition.field {
            ConditionFieldView::TradingStyle => ConditionField::TradingStyle,
            ConditionFieldView::Timezone => ConditionField::Timezone,
            ConditionFieldView::SectorsOfInterest => ConditionField::SectorsOfInterest,
        };
        Self { field, equals: condition.equals, contains: condition.contains }
    }
}
