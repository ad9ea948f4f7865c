//! Where a page of a list ended: opaque to clients, base64url without padding over a format byte and the last uid.

use uuid::Uuid;

use crate::{
    error::{Error, Invalid, Result},
    ids::ItemUid,
};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// The first byte says what follows, so that another order can be told from this one later.
const BY_UID: u8 = 1;

/// The cursor for whatever comes after this item.
pub(super) fn after(uid: ItemUid) -> String {
    let mut bytes = [BY_UID; 17];
    bytes[1..].copy_from_slice(uid.0.as_bytes());
    encode(&bytes)
}

/// The item that the cursor stands behind.
///
/// # Errors
/// When it is not a cursor of ours.
pub(super) fn read(cursor: &str) -> Result<ItemUid> {
    decode(cursor)
        .and_then(|bytes| match bytes.split_first() {
            Some((&BY_UID, uid)) => Uuid::from_slice(uid).ok().map(ItemUid),
            _ => None,
        })
        .ok_or_else(|| {
            Error::invalid(Invalid::Unreadable, "cursor must be a nextCursor of an earlier page, unchanged")
                .with_detail("field", "cursor")
        })
}

pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().chain([&0, &0]).take(3).fold(0_u32, |group, byte| (group << 8) | u32::from(*byte));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[((group >> (18 - 6 * place)) & 63) as usize]));
        }
    }
    text
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0_u32;
        for place in 0..4 {
            let digit = match chunk.get(place) {
                Some(letter) => ALPHABET.iter().position(|known| known == letter)?,
                None => 0,
            };
            group = (group << 6) | u32::try_from(digit).ok()?;
        }
        let [_, whole @ ..] = group.to_be_bytes();
        let (kept, rest) = whole.split_at(chunk.len().checked_sub(1)?);
        // One spelling a cursor: what lies beyond the last byte is zero, and no byte takes a single letter.
        if kept.is_empty() || rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_alphabet_is_the_standard_one() {
        assert_eq!(encode(b"\xff\xef\xbe?"), "_---Pw");
        assert_eq!(encode(b"Alfred"), "QWxmcmVk");
        assert_eq!(encode(b"Alf"), "QWxm");
        assert_eq!(encode(b"A"), "QQ");
    }

    #[test]
    fn what_we_did_not_make_is_refused() {
        let good = after(ItemUid(Uuid::from_u128(7)));
        assert_eq!(read(&good).unwrap(), ItemUid(Uuid::from_u128(7)));
        for bad in [
            "",
            "A",
            "AQ",
            "!",
            "ä",
            &good[1..],
            &format!("{good}A"),
            &format!("{good}="),
            &good.replace('A', "B"),
        ] {
            let error = read(bad).unwrap_err();
            assert_eq!(error.invalid, Invalid::Unreadable, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn every_cursor_has_one_spelling(text in "[A-Za-z0-9_-]{0,30}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
