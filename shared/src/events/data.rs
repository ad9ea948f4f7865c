//! The data of each kind of event, with the member names of [S2], as JSON text on one line.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::{
    error::Error,
    ids::{ConversationId, TurnId},
};

/// JSON text of plain strings, numbers and values; the types here cannot fail to serialise.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}

/// The id of an event on the wire.
#[must_use]
pub fn event_id(turn_no: i64, seq: i64) -> String {
    format!("{turn_no}.{seq}")
}

/// `queued {"jobId","conversationId"}`
#[must_use]
pub fn queued(turn: TurnId, conversation: ConversationId) -> String {
    format!(r#"{{"jobId":"{turn}","conversationId":{conversation}}}"#)
}

/// `token {"text"}`
#[must_use]
pub fn token(piece: &str) -> String {
    #[derive(Serialize)]
    struct Token<'a> {
        text: &'a str,
    }
    text(&Token { text: piece })
}

/// `tool_call {"id","tool","args"}`
#[must_use]
pub fn tool_call(id: &str, tool: &str, args: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct ToolCall<'a, T> {
        id: &'a str,
        tool: &'a str,
        args: &'a T,
    }
    text(&ToolCall { id, tool, args })
}

/// What came of a tool call.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolResult<'a> {
    /// The call's id.
    pub id: &'a str,
    /// The tool's name.
    pub tool: &'a str,
    /// Whether the answer came from the cache.
    pub cache_hit: bool,
    /// How long it took, in milliseconds.
    pub elapsed_ms: i64,
    /// Whether the tool failed.
    pub is_error: bool,
}

/// `tool_result {"id","tool","cacheHit","elapsedMs","isError"}`
#[must_use]
pub fn tool_result(result: ToolResult<'_>) -> String {
    text(&result)
}

/// `cache_hit {"tool","key","ttlRemaining"}`, the last in seconds
#[must_use]
pub fn cache_hit(tool: &str, key: &str, ttl_remaining: i64) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct CacheHit<'a> {
        tool: &'a str,
        key: &'a str,
        ttl_remaining: i64,
    }
    text(&CacheHit { tool, key, ttl_remaining })
}

/// `warning {"code","detail"}`
#[must_use]
pub fn warning(code: &str, detail: &str) -> String {
    #[derive(Serialize)]
    struct Warning<'a> {
        code: &'a str,
        detail: &'a str,
    }
    text(&Warning { code, detail })
}

/// `approval_required {"id","tool","args","expiresAt"}`
#[must_use]
pub fn approval_required(id: &str, tool: &str, args: &impl Serialize, expires_at: DateTime<Utc>) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ApprovalRequired<'a, T> {
        id: &'a str,
        tool: &'a str,
        args: &'a T,
        expires_at: String,
    }
    let expires_at = expires_at.to_rfc3339_opts(SecondsFormat::Millis, true);
    text(&ApprovalRequired { id, tool, args, expires_at })
}

/// `resumed {"discardAfter"}`: text after that event is void. The id is the wire's, `turn_no.seq`.
#[must_use]
pub fn resumed(turn_no: i64, discard_after: i64) -> String {
    format!(r#"{{"discardAfter":"{turn_no}.{discard_after}"}}"#)
}

/// `error {"error","message","origin","requestId"}`
#[must_use]
pub fn error(error: &Error, request_id: &str) -> String {
    error_of(error.code.as_str(), &error.message, error.origin.as_str(), request_id)
}

/// [`error`] out of its parts, as a turn's row keeps them.
#[must_use]
pub fn error_of(code: &str, message: &str, origin: &str, request_id: &str) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Failure<'a> {
        error: &'a str,
        message: &'a str,
        origin: &'a str,
        request_id: &'a str,
    }
    text(&Failure { error: code, message, origin, request_id })
}

/// `done {"status","tokens":{"input","output"}}`
#[must_use]
pub fn done(status: &str, input_tokens: i64, output_tokens: i64) -> String {
    #[derive(Serialize)]
    struct Done<'a> {
        status: &'a str,
        tokens: Tokens,
    }
    #[derive(Serialize)]
    struct Tokens {
        input: i64,
        output: i64,
    }
    text(&Done { status, tokens: Tokens { input: input_tokens, output: output_tokens } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn members_are_spelled_as_the_contract_spells_them() {
        assert_eq!(token("a\"\n\u{0}ü"), r#"{"text":"a\"\n\u0000ü"}"#);
        assert_eq!(
            tool_call("c1", "add_task", &serde_json::json!({"title": "x"})),
            r#"{"id":"c1","tool":"add_task","args":{"title":"x"}}"#
        );
        assert_eq!(
            tool_result(ToolResult { id: "c1", tool: "t", cache_hit: false, elapsed_ms: 3, is_error: true }),
            r#"{"id":"c1","tool":"t","cacheHit":false,"elapsedMs":3,"isError":true}"#
        );
        assert_eq!(cache_hit("t", "k", 9), r#"{"tool":"t","key":"k","ttlRemaining":9}"#);
        assert_eq!(warning("W", "d"), r#"{"code":"W","detail":"d"}"#);
        assert_eq!(
            approval_required("c", "t", &1, DateTime::UNIX_EPOCH),
            r#"{"id":"c","tool":"t","args":1,"expiresAt":"1970-01-01T00:00:00.000Z"}"#
        );
        assert_eq!(resumed(3, 17), r#"{"discardAfter":"3.17"}"#);
        assert_eq!(
            error(&Error::new(Code::ModelTimeout, "slow"), "r1"),
            r#"{"error":"MODEL-TIMEOUT","message":"slow","origin":"model","requestId":"r1"}"#
        );
        assert_eq!(done("succeeded", 5, 6), r#"{"status":"succeeded","tokens":{"input":5,"output":6}}"#);
    }
}
