//! Where a reader of the feed stands: opaque to clients, base64url over a format byte, the epoch and the place.

use std::fmt;

use crate::{
    error::{Error, Invalid, Result},
    workspace::cursor::{decode, encode},
};

/// The first byte, so that another form can be told from this one later.
const FORMAT: u8 = 1;

/// A history of transaction ids, in short.
pub(super) type Epoch = [u8; 8];

/// A place in the feed, behind the change of that transaction and number. Places ascend as changes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub(super) xid: u64,
    pub(super) seq: i64,
}

impl Place {
    /// Before everything that this transaction and later ones changed.
    pub(super) fn before(xid: u64) -> Self {
        Self { xid, seq: 0 }
    }
}

/// A place in one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub(super) epoch: Epoch,
    pub(super) place: Place,
}

impl Cursor {
    /// Reads a cursor that a client has kept.
    ///
    /// # Errors
    /// When it is not a cursor of ours.
    pub fn read(text: &str) -> Result<Self> {
        let bytes = decode(text).and_then(|bytes| <[u8; 25]>::try_from(bytes).ok());
        let fields = bytes.filter(|bytes| bytes[0] == FORMAT).and_then(|bytes| {
            let part = |from: usize| bytes.get(from..from + 8).and_then(|part| part.try_into().ok());
            Some((part(1)?, u64::from_be_bytes(part(9)?), i64::from_be_bytes(part(17)?)))
        });
        match fields {
            Some((epoch, xid, seq)) if seq >= 0 => Ok(Self { epoch, place: Place { xid, seq } }),
            _ => Err(Error::invalid(
                Invalid::Unreadable,
                "the cursor must be one that the feed has given, unchanged; ?since=now gives the first",
            )
            .with_detail("field", "since")),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [FORMAT; 25];
        bytes[1..9].copy_from_slice(&self.epoch);
        bytes[9..17].copy_from_slice(&self.place.xid.to_be_bytes());
        bytes[17..].copy_from_slice(&self.place.seq.to_be_bytes());
        f.write_str(&encode(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_we_did_not_make_is_refused() {
        let cursor = Cursor { epoch: [7; 8], place: Place { xid: 9, seq: 3 } };
        let good = cursor.to_string();
        assert_eq!(Cursor::read(&good).unwrap(), cursor);
        for bad in ["", "now", "!", &good[1..], &format!("{good}A"), &good.replacen('A', "B", 1)] {
            assert_eq!(Cursor::read(bad).unwrap_err().invalid, Invalid::Unreadable, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(epoch: [u8; 8], xid: u64, seq in 0..i64::MAX) {
            let cursor = Cursor { epoch, place: Place { xid, seq } };
            prop_assert_eq!(Cursor::read(&cursor.to_string()).unwrap(), cursor);
        }
    }
}
