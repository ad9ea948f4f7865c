//! Whose events an agent is told of: a condition over a user's preferences. Small and closed on purpose: one field, which is
//! equal to a word or contains one. The database decides whether it holds, when it writes an event's deliveries.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const LONGEST_WORD: usize = 128;

/// A field of the preferences that a condition can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionField {
    /// One word.
    TradingStyle,
    /// One word.
    Timezone,
    /// A list of words.
    SectorsOfInterest,
}

/// `{"field": "trading_style", "equals": "aggressive"}` or `{"field": "sectors_of_interest", "contains": "energy"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Of which field.
    pub field: ConditionField,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
    /// What is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}

impl Condition {
    /// # Errors
    /// 422 when it does not say exactly what its field can be asked.
    pub fn must_make_sense(&self) -> Result<()> {
        let word = match (self.field, &self.equals, &self.contains) {
            (ConditionField::SectorsOfInterest, None, Some(word)) => word,
            (ConditionField::TradingStyle | ConditionField::Timezone, Some(word), None) => word,
            _ => {
                return Err(Error::unacceptable(
                    "condition: takes trading_style or timezone with equals, or sectors_of_interest with contains",
                ));
            }
        };
        if word.is_empty() || word.len() > LONGEST_WORD || word.contains('\0') {
            return Err(Error::unacceptable(format!("condition: its word takes 1 to {LONGEST_WORD} bytes")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn is_taken(value: Value) -> bool {
        serde_json::from_value::<Condition>(value).is_ok_and(|condition| condition.must_make_sense().is_ok())
    }

    #[test]
    fn it_says_one_thing_that_its_field_can_be_asked() {
        assert!(is_taken(json!({"field": "trading_style", "equals": "aggressive"})));
        assert!(is_taken(json!({"field": "sectors_of_interest", "contains": "energy"})));
        for wrong in [
            json!({"field": "trading_style"}),
            json!({"field": "trading_style", "contains": "a"}),
            json!({"field": "sectors_of_interest", "equals": "a"}),
            json!({"field": "timezone", "equals": "UTC", "contains": "UTC"}),
            json!({"field": "timezone", "equals": ""}),
            json!({"field": "risk_tolerance", "equals": "low"}),
            json!({"field": "timezone", "equals": "UTC", "or": {}}),
        ] {
            assert!(!is_taken(wrong.clone()), "{wrong}");
        }
    }
}
