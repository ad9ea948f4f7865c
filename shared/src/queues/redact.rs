//! Taking secrets out of what people are shown. Payloads carry ids and should hold none; this is for those that do.

use serde_json::Value;

const HIDDEN: &str = "[redacted]";
/// A member whose name has one of these in it is hidden, whatever it holds.
const NAMES: &[&str] = &[
    "secret",
    "password",
    "passwd",
    "authorization",
    "cookie",
    "apikey",
    "credential",
    "privatekey",
    "accesstoken",
    "refreshtoken",
    "sessiontoken",
    "signature",
];
/// A word that begins so is hidden wherever it stands.
const BEGINNINGS: &[&str] = &["whsec_", "sk-", "eyJ", "ghp_", "xoxb-", "secret_", "ntn_"];
/// Shorter words are no secrets.
const SHORTEST: usize = 16;

/// The same without secrets.
pub(super) fn value(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let shown = members.into_iter().map(|(name, member)| {
                let member = if is_secret(&name) { Value::from(HIDDEN) } else { self::value(member) };
                (name, member)
            });
            Value::Object(shown.collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(self::value).collect()),
        Value::String(words) => Value::String(text(&words)),
        other => other,
    }
}

/// The same without words that look like secrets. JSON is read as such.
pub(super) fn text(words: &str) -> String {
    if let Ok(json @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(words) {
        return value(json).to_string();
    }
    let mut shown = String::with_capacity(words.len());
    for word in words.split_inclusive(|letter: char| !is_of_word(letter)) {
        let bare = word.trim_end_matches(|letter: char| !is_of_word(letter));
        let hides = bare.len() >= SHORTEST && BEGINNINGS.iter().any(|beginning| bare.starts_with(beginning));
        if hides {
            shown.push_str(HIDDEN);
            shown.push_str(&word[bare.len()..]);
        } else {
            shown.push_str(word);
        }
    }
    shown
}

fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | '+' | '/' | '=')
}

fn is_secret(name: &str) -> bool {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    plain == "token" || NAMES.iter().any(|secret| plain.contains(secret))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_names_or_looks_like_a_secret_is_hidden_and_nothing_else() {
        let shown = value(json!({
            "turn": "0198c0de-0000-7000-8000-000000000000", "tokens": {"input": 3},
            "headers": {"Authorization": "x", "Set-Cookie": "a=b"}, "api_key": 7, "access_token": null,
            "said": ["Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc, or whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw!", "sk-short"],
        }));
        assert_eq!(
            shown,
            json!({
                "turn": "0198c0de-0000-7000-8000-000000000000", "tokens": {"input": 3},
                "headers": {"Authorization": HIDDEN, "Set-Cookie": HIDDEN}, "api_key": HIDDEN, "access_token": HIDDEN,
                "said": ["Bearer [redacted], or [redacted]!", "sk-short"],
            })
        );
        assert_eq!(text("{\"password\":\"x\"}"), "{\"password\":\"[redacted]\"}");
        assert_eq!(text("the agent answered 503"), "the agent answered 503");
    }
}
