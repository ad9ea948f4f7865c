//! Directives in a user message, for tests and load programs that only have the product's own API in hand:
//!
//! | directive | effect |
//! | --- | --- |
//! | `[[tool:NAME {json}]]` | calls the tool; several are one reply with several calls |
//! | `[[next]]` | the tools after it are called in the reply after those results |
//! | `[[tokens:N]]` | the last reply streams N deltas (8 without it) |
//! | `[[delay:MS]]` | a pause before each delta |
//! | `[[gate:NAME]]` | holds the last reply in the middle until the gate is released |
//! | `[[first:WHAT]]` | the first request for this message and round goes wrong: a status, `cut`, `stall`, `garbage` or `overloaded` |
//! | `[[always:WHAT]]` | every request for it does |

use std::time::Duration;

use super::Script;

/// What a user message asks of the fake.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives {
    /// The calls of each reply before the last, as name and raw arguments.
    pub rounds: Vec<Vec<(String, String)>>,
    /// Deltas of the last reply.
    pub tokens: usize,
    /// The pause before each delta.
    pub delay: Duration,
    /// Where the last reply waits.
    pub gate: Option<String>,
    /// What goes wrong the first time.
    pub first: Option<String>,
    /// What goes wrong each time.
    pub always: Option<String>,
}

impl Directives {
    /// Reads a user message; one without directives asks for eight tokens.
    pub fn read(text: &str) -> Self {
        let mut read = Self { rounds: vec![Vec::new()], tokens: 8, ..Self::default() };
        let mut rest = text;
        while let Some(start) = rest.find("[[") {
            rest = &rest[start + 2..];
            let Some(end) = closing(rest) else { break };
            let (name, value) = rest[..end].split_once(':').unwrap_or((&rest[..end], ""));
            match name.trim() {
                "tool" => {
                    let (tool, arguments) = value.split_once(' ').unwrap_or((value, "{}"));
                    if let Some(round) = read.rounds.last_mut() {
                        round.push((tool.to_owned(), arguments.to_owned()));
                    }
                }
                "next" => read.rounds.push(Vec::new()),
                "tokens" => read.tokens = value.parse().unwrap_or(read.tokens),
                "delay" => read.delay = Duration::from_millis(value.parse().unwrap_or_default()),
                "gate" => read.gate = Some(value.to_owned()),
                "first" => read.first = Some(value.to_owned()),
                "always" => read.always = Some(value.to_owned()),
                _ => {}
            }
            rest = &rest[end..];
        }
        read.rounds.retain(|round| !round.is_empty());
        read
    }

    /// Whether the answer in this round is plain text that may be kept ready-made.
    pub(super) fn is_plain(&self, round: usize) -> bool {
        round >= self.rounds.len()
            && self.delay.is_zero()
            && self.gate.is_none()
            && self.first.is_none()
            && self.always.is_none()
    }

    /// The answer in this round; `seen` says whether the same request has come before.
    pub(super) fn script(&self, round: usize, seen: bool) -> Script {
        let wrong = self.always.as_deref().or(self.first.as_deref().filter(|_| !seen));
        match wrong {
            Some("cut") => return Script::new().tokens(self.tokens / 2).cut(),
            Some("stall") => return Script::new().tokens(self.tokens / 2).stall(),
            Some("garbage") => return Script::new().tokens(self.tokens / 2).garbage("<html>oops\n\n"),
            Some("overloaded") => return Script::new().tokens(self.tokens / 2).overloaded(),
            Some(status) => {
                if let Ok(status) = status.parse() {
                    return Script::refuse(status);
                }
            }
            None => {}
        }
        if let Some(calls) = self.rounds.get(round) {
            return calls
                .iter()
                .fold(Script::new(), |script, (name, arguments)| script.call(name, arguments));
        }
        let Some(gate) = &self.gate else { return Script::new().slow_tokens(self.tokens, self.delay) };
        let half = self.tokens / 2;
        Script::new().slow_tokens(half, self.delay).gate(gate).slow_tokens(self.tokens - half, self.delay)
    }
}

/// The `]]` that ends a directive; those inside a JSON value do not.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_i32, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            ']' if !quoted && depth == 0 && text[at..].starts_with("]]") => return Some(at),
            '}' | ']' if !quoted => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read() {
        let read = Directives::read(
            r#"go [[tool:a {"l":[[1]],"s":"]]"}]] and [[tool:b]] [[next]][[tool:c {}]] [[tokens:32]] [[delay:5]]"#,
        );
        let call = |name: &str, arguments: &str| (name.to_owned(), arguments.to_owned());
        assert_eq!(
            read.rounds,
            vec![vec![call("a", r#"{"l":[[1]],"s":"]]"}"#), call("b", "{}")], vec![call("c", "{}")]]
        );
        assert_eq!((read.tokens, read.delay), (32, Duration::from_millis(5)));
        assert!(!read.is_plain(2));
        assert!(Directives::read("hello [[ world").is_plain(0));
    }
}
