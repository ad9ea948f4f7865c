//! Addresses of people.

use crate::error::{Error, Result};

/// An address as its owner wrote it. Two that differ in case only are the same; the database compares them so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailAddress(String);

impl EmailAddress {
    /// Checks what can be checked without sending anything: one `@` with something on both sides, nothing that is not
    /// visible, at most 254 bytes (RFC 5321).
    ///
    /// # Errors
    /// 422.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let well_formed = text.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty()
                && !domain.is_empty()
                && !domain.contains('@')
                && !domain.starts_with('.')
                && !domain.ends_with('.')
        });
        let visible =
            !text.chars().any(|letter| letter.is_whitespace() || letter.is_control() || letter == '\u{fffd}');
        if !well_formed || !visible || text.len() > 254 {
            return Err(Error::unacceptable("email: is not an address such as ann@example.com"));
        }
        Ok(Self(text.to_owned()))
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same for all spellings of an address.
    pub(super) fn folded(&self) -> String {
        self.0.to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_two_sides() {
        assert_eq!(EmailAddress::parse(" Ann@Example.com ").unwrap().folded(), "ann@example.com");
        for wrong in [
            "",
            "ann",
            "@x",
            "ann@",
            "a@b@c",
            "a b@c.d",
            "a@.c",
            "a@c.",
            "a@c\u{0}",
            &format!("{}@x.y", "a".repeat(260)),
        ] {
            EmailAddress::parse(wrong).unwrap_err();
        }
    }
}
