//! Where a page of results ended: opaque to clients, base64url over a format byte, the window and the last result.

use std::fmt;

use uuid::Uuid;

use super::Match;
use crate::{
    error::{Error, Invalid, Result},
    ids::ItemUid,
    workspace::cursor::{decode, encode},
};

/// The first byte. A list's cursor begins with another one.
const FORMAT: u8 = 2;

/// A place in the results.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Place {
    /// The window has the newest matches before this one; none: of all.
    pub(super) before: Option<ItemUid>,
    /// The last result of the page, and its rank; none: the window's first page.
    after: Option<(f32, ItemUid)>,
}

impl Place {
    /// The beginning of the window behind this match.
    pub(super) fn window(oldest: ItemUid) -> Self {
        Self { before: Some(oldest), after: None }
    }

    /// Behind this match, in the same window.
    pub(super) fn after(self, last: &Match) -> Self {
        Self { after: Some((last.rank, last.uid)), ..self }
    }

    /// Whether the match comes after this place.
    pub(super) fn is_before(self, found: &Match) -> bool {
        self.after.is_none_or(|(rank, uid)| {
            found.rank.total_cmp(&rank).then(found.uid.cmp(&uid)) == std::cmp::Ordering::Less
        })
    }

    /// Reads a cursor that a client has kept.
    ///
    /// # Errors
    /// When it is not a cursor of a search.
    pub(super) fn read(text: &str) -> Result<Self> {
        decode(text).and_then(|bytes| Self::of_bytes(&bytes)).ok_or_else(|| {
            Error::invalid(Invalid::Unreadable, "cursor must be a nextCursor of an earlier page, unchanged")
                .with_detail("field", "cursor")
        })
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 37] = bytes.try_into().ok()?;
        let uid = |from: usize| {
            let uid = Uuid::from_slice(bytes.get(from..from + 16)?).ok()?;
            Some(Some(ItemUid(uid)).filter(|uid| !uid.0.is_nil()))
        };
        let rank = f32::from_be_bytes(bytes[17..21].try_into().ok()?);
        let (before, after) = (uid(1)?, uid(21)?);
        let place = Self { before, after: after.map(|after| (rank, after)) };
        (bytes[0] == FORMAT && rank.is_finite()).then_some(place)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 37];
        bytes[0] = FORMAT;
        if let Some(before) = self.before {
            bytes[1..17].copy_from_slice(before.0.as_bytes());
        }
        if let Some((rank, uid)) = self.after {
            bytes[17..21].copy_from_slice(&rank.to_be_bytes());
            bytes[21..].copy_from_slice(uid.0.as_bytes());
        }
        f.write_str(&encode(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_undoes_writing_and_refuses_all_else() {
        let (one, two) = (ItemUid(Uuid::from_u128(1)), ItemUid(Uuid::from_u128(2)));
        for place in [
            Place::default(),
            Place::window(one),
            Place { before: Some(one), after: Some((0.25, two)) },
            Place { before: None, after: Some((0.0, two)) },
        ] {
            let text = place.to_string();
            assert_eq!(Place::read(&text).unwrap(), place);
            for bad in
                [&text[1..], &format!("{text}A"), &text.replacen('A', "B", 1).replacen("Ag", "Bg", 1)[..5]]
            {
                assert_eq!(Place::read(bad).unwrap_err().invalid, Invalid::Unreadable);
            }
        }
    }
}
