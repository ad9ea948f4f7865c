//! A tool's name on a model provider's wire, which takes letters, digits, `_` and `-`, and 64 of them at most.

use sha2::{Digest, Sha256};

const LONGEST: usize = 64;
/// Of a shortened name, so that there is room for its hash.
const KEPT: usize = LONGEST - 9;

/// The name of a tool as every provider takes it. `server.tool` becomes `server__tool`; whatever would lose something on
/// the way gets a hash of the whole name instead, so that no two names become one: servers' names have no `_`, and ours no
/// `__`. Also of a name that a model made up, which is replayed with its call: one that a provider refuses would end the
/// conversation for good.
#[must_use]
pub fn wire_name(tool: &str) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    let plain = tool.replacen('.', "__", 1);
    if !plain.is_empty() && plain.len() <= LONGEST && plain.chars().all(fits) {
        return plain;
    }
    let kept: String =
        plain.chars().take(KEPT).map(|letter| if fits(letter) { letter } else { '_' }).collect();
    let hash: String = Sha256::digest(tool).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{kept}_{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_stay_apart() {
        assert_eq!(wire_name("add_task"), "add_task");
        assert_eq!(wire_name("notion.get_page"), "notion__get_page");
        let long = format!("docs.{}", "x".repeat(128));
        let names = ["", "a.b.c", "a.b_c", "a.b/c", &long, &format!("{long}y"), "größe"];
        let wires: std::collections::BTreeSet<String> = names.iter().map(|name| wire_name(name)).collect();
        assert_eq!(wires.len(), names.len());
        for wire in wires {
            assert!(!wire.is_empty() && wire.len() <= 64, "{wire}");
            assert!(
                wire.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')),
                "{wire}"
            );
        }
    }
}
