//! What a credential may be used for. Scopes narrow a credential; roles and memberships decide what its user may do.

use std::fmt;

/// One of the things that a credential may be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Reading whatever the user may read.
    Read,
    /// Changing the workspace.
    Write,
    /// Posting chat turns and steering them. What a turn's tools then change needs no scope of its own.
    Chat,
    /// Administration, and making and revoking credentials.
    Admin,
}

impl Scope {
    /// Every scope, in the order they are answered.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Chat, Self::Admin];

    /// The word that requests, tokens and tables use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Chat => "chat",
            Self::Admin => "admin",
        }
    }

    /// The scope of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// All of them: what a user has who signed in.
    pub const ALL: Self = Self(0b1111);
    /// None.
    pub const NONE: Self = Self(0);

    /// The set of these words; words that name no scope are left out, so a word of tomorrow grants nothing today.
    pub fn of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        words.into_iter().filter_map(Scope::from_word).fold(Self::NONE, Self::with)
    }

    /// This set and one more.
    #[must_use]
    pub fn with(self, scope: Scope) -> Self {
        Self(self.0 | bit(scope))
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the scope is in it.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & bit(scope) != 0
    }

    /// Whether all of the other set is in it.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.and(other) == other
    }

    /// The words of the set, in the order of [`Scope::ALL`].
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        Scope::ALL.into_iter().filter(|scope| self.contains(*scope)).map(Scope::as_str).collect()
    }
}

/// As a token's claim and OAuth write it: words with spaces between them.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(" "))
    }
}

fn bit(scope: Scope) -> u8 {
    1 << scope as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_its_words() {
        let set = Scopes::of_words(["admin", "read", "tomorrow"]);
        assert_eq!(set.to_string(), "read admin");
        assert!(set.contains(Scope::Read) && !set.contains(Scope::Write));
        assert!(Scopes::ALL.covers(set) && !set.covers(Scopes::ALL) && set.covers(Scopes::NONE));
        assert_eq!(Scopes::of_words(Scope::ALL.map(Scope::as_str)), Scopes::ALL);
    }
}
