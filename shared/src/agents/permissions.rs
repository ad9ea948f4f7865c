//! What an agent may do with what is known of users: a matrix of required, optional and forbidden permissions, and a level
//! that caps them. Everything that an agent is sent, reads or writes goes through [`Granted`].
//!
//! Invariants: forbidden wins over everything; who may not read a part may not write it; a user's own choice and a session
//! can only take away.

use std::{collections::BTreeSet, str::FromStr};

use serde::Serialize;

use crate::error::{Error, Result};

/// A part of what is known of a user, which agents see or do not see as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// How they want to be dealt with.
    Preferences,
    /// What they have, and within which limits.
    PortfolioSettings,
    /// What is done for them.
    ActiveStrategies,
    /// What they can bear.
    RiskProfile,
    /// Whether they are signed in, and by which sign-in. It is not stored with the rest, and nobody writes it.
    Session,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Preferences,
        Self::PortfolioSettings,
        Self::ActiveStrategies,
        Self::RiskProfile,
        Self::Session,
    ];

    /// The word of documents and permissions.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preferences => "preferences",
            Self::PortfolioSettings => "portfolio_settings",
            Self::ActiveStrategies => "active_strategies",
            Self::RiskProfile => "risk_profile",
            Self::Session => "session",
        }
    }
}

/// What is done with a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Act {
    /// Being sent it, and asking for it.
    Read,
    /// Changing it.
    Write,
}

impl Act {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// An act on a part, written `read:preferences`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    /// What is done.
    pub act: Act,
    /// With what.
    pub part: Part,
}

impl Permission {
    /// Every permission there is.
    pub fn all() -> impl Iterator<Item = Self> {
        let acts = [Act::Read, Act::Write];
        let all = Part::ALL.into_iter().flat_map(move |part| acts.map(|act| Self { act, part }));
        all.filter(|one| one.part != Part::Session || one.act == Act::Read)
    }
}

impl std::fmt::Display for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.act.as_str(), self.part.as_str())
    }
}

impl FromStr for Permission {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::all().find(|one| one.to_string() == text).ok_or_else(|| {
            let all: Vec<String> = Self::all().map(|one| one.to_string()).collect();
            Error::unacceptable(format!("{text:?} is no permission; there are {}", all.join(", ")))
        })
    }
}

impl Serialize for Permission {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How much of its matrix an agent has at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing: it learns who the user is and no more.
    Restricted,
    /// What it may read.
    ReadOnly,
    /// What it may read and write.
    ReadWrite,
    /// The same, and it looks after all of its own sessions.
    Admin,
}

impl Level {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Restricted, Self::ReadOnly, Self::ReadWrite, Self::Admin];

    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restricted => "restricted",
            Self::ReadOnly => "read_only",
            Self::ReadWrite => "read_write",
            Self::Admin => "admin",
        }
    }

    /// The level of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }

    fn allows(self, act: Act) -> bool {
        match act {
            Act::Read => self >= Self::ReadOnly,
            Act::Write => self >= Self::ReadWrite,
        }
    }
}

/// The matrix of an agent, as its admins set it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    /// In every session, whatever it asks for.
    pub required: BTreeSet<Permission>,
    /// In a session that asks for them.
    pub optional: BTreeSet<Permission>,
    /// Never, whatever else says.
    pub forbidden: BTreeSet<Permission>,
}

impl Permissions {
    /// # Errors
    /// 422 when a permission is asked for and forbidden at once.
    pub fn must_agree(&self) -> Result<()> {
        let asked = self.required.union(&self.optional);
        match asked.into_iter().find(|one| self.forbids(**one)) {
            None => Ok(()),
            Some(one) => Err(Error::unacceptable(format!(
                "permissions: {one} is forbidden and yet among the required or the optional ones"
            ))),
        }
    }

    fn forbids(&self, permission: Permission) -> bool {
        let reading = Permission { act: Act::Read, ..permission };
        self.forbidden.contains(&permission) || self.forbidden.contains(&reading)
    }

    /// All that an agent of this level can have.
    #[must_use]
    pub fn granted(&self, level: Level) -> Granted {
        let asked = self.required.union(&self.optional).copied();
        Granted(asked.filter(|one| !self.forbids(*one) && level.allows(one.act)).collect())
    }
}

/// What an agent may do, here and now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted(BTreeSet<Permission>);

impl Granted {
    /// Of these words; a word of tomorrow grants nothing today.
    pub fn of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        Self(words.into_iter().filter_map(|word| word.parse().ok()).collect())
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Whether it is among them.
    #[must_use]
    pub fn contains(&self, permission: Permission) -> bool {
        self.0.contains(&permission)
    }

    /// Whether the part may be read.
    #[must_use]
    pub fn reads(&self, part: Part) -> bool {
        self.contains(Permission { act: Act::Read, part })
    }

    /// Whether the part may be changed: only by who may read it.
    #[must_use]
    pub fn writes(&self, part: Part) -> bool {
        self.reads(part) && self.contains(Permission { act: Act::Write, part })
    }

    /// What is in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    /// What is left of it at a level that the user chose.
    #[must_use]
    pub fn at_most(mut self, level: Level) -> Self {
        self.0.retain(|one| level.allows(one.act));
        self
    }

    /// What is left of it for a user whose context has this word for the agent: all without one, nothing for a word that is
    /// no level.
    #[must_use]
    pub fn narrowed(self, word: Option<&str>) -> Self {
        match word {
            None => self,
            Some(word) => self.at_most(Level::from_word(word).unwrap_or(Level::Restricted)),
        }
    }
}

impl FromIterator<Permission> for Granted {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &[&str]) -> BTreeSet<Permission> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn every_permission_has_its_word() {
        let words: Vec<String> = Permission::all().map(|one| one.to_string()).collect();
        assert_eq!(words.len(), 9);
        assert!(words.iter().all(|word| word.parse::<Permission>().unwrap().to_string() == *word));
        for wrong in ["write:session", "read", "preferences", "read:", "delete:preferences"] {
            assert!(wrong.parse::<Permission>().is_err(), "{wrong}");
        }
    }

    /// The whole matrix: for each level, what is left of what an agent could have.
    #[test]
    fn a_level_caps_and_forbidden_wins() {
        let matrix = Permissions {
            required: set(&["read:preferences"]),
            optional: set(&["write:preferences", "read:portfolio_settings", "write:portfolio_settings"]),
            forbidden: set(&["read:portfolio_settings", "read:risk_profile"]),
        };
        let expected = [
            (Level::Restricted, vec![]),
            (Level::ReadOnly, vec!["read:preferences"]),
            (Level::ReadWrite, vec!["read:preferences", "write:preferences"]),
            (Level::Admin, vec!["read:preferences", "write:preferences"]),
        ];
        for (level, words) in &expected {
            assert_eq!(matrix.granted(*level).words(), *words, "{level:?}");
            // The user's own choice takes away in the same way, and gives nothing.
            let narrowed = matrix.granted(Level::Admin).narrowed(Some(level.as_str()));
            assert_eq!(narrowed.words(), *words, "{level:?}");
            assert_eq!(matrix.granted(Level::Restricted).narrowed(Some(level.as_str())), Granted::default());
        }
        assert!(matrix.must_agree().is_err());
        let agreeing = Permissions { forbidden: set(&["read:risk_profile"]), ..matrix };
        assert!(agreeing.must_agree().is_ok());
        assert_eq!(agreeing.granted(Level::Admin).narrowed(Some("god")), Granted::default());
        let session = Granted::of_words(["read:preferences", "read:everything", "read:risk_profile"]);
        assert_eq!(agreeing.granted(Level::Admin).and(&session).words(), ["read:preferences"]);
        let blind = Granted::of_words(["write:preferences"]);
        assert!(!blind.writes(Part::Preferences) && !blind.reads(Part::Preferences));
        assert!(agreeing.granted(Level::Admin).writes(Part::Preferences));
    }
}
