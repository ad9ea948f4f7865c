//! A tool's result as text for a model: what can be read of it, bounded, without what cannot be seen.

use rmcp::model::{CallToolResult, ContentBlock, ProgressNotificationParam, ResourceContents};
use serde_json::Value;

use crate::{remote::text, tools::ToolOutput};

/// Bytes of a result that a model is sent.
const MOST: usize = 96 * 1024;
/// Bytes of a result that may be the words of an API that refuses.
const LONGEST_REFUSAL: usize = 16 * 1024;
/// Bytes of what a server says about its progress.
const LONGEST_MESSAGE: usize = 200;

/// The result as one text.
pub(super) fn flattened(result: &CallToolResult) -> ToolOutput {
    let mut parts: Vec<String> = Vec::new();
    let structured = result.structured_content.as_ref().filter(|value| !value.is_null());
    // FastMCP wraps what is no object: the text says the same without the wrapping.
    let structured = structured.filter(|value| match (wrapped(value), result.content.as_slice()) {
        (Some(Value::String(inside)), [ContentBlock::Text(text)]) => *inside != text.text,
        _ => true,
    });
    for block in &result.content {
        match block {
            // Servers send a structured result once more as text, for clients that do not know it.
            ContentBlock::Text(text) if structured.is_some_and(|value| is_copy(&text.text, value)) => {}
            ContentBlock::Text(text) => parts.push(text.text.clone()),
            ContentBlock::Image(image) => parts.push(left_out("image", &image.mime_type, image.data.len())),
            ContentBlock::Audio(audio) => {
                parts.push(left_out("recording", &audio.mime_type, audio.data.len()))
            }
            ContentBlock::Resource(resource) => parts.push(match &resource.resource {
                ResourceContents::TextResourceContents { uri, text, .. } => format!("{uri}\n{text}"),
                ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
                    let kind = mime_type.as_deref().unwrap_or("of an unknown kind");
                    format!("{uri}\n{}", left_out("file", kind, blob.len()))
                }
                _ => "[a resource of an unknown kind was left out]".to_owned(),
            }),
            ContentBlock::ResourceLink(link) => parts.push(format!("{}: {}", link.name, link.uri)),
            _ => parts.push("[something of an unknown kind was left out]".to_owned()),
        }
    }
    if let Some(value) = structured {
        parts.push(value.to_string());
    }
    let joined = parts.join("\n");
    let content = cut(&text::visible(&joined));
    let is_error = result.is_error.unwrap_or(false) || refusal(result).is_some();
    ToolOutput { content, is_error, ..ToolOutput::default() }
}

/// Whether an API behind the server did not accept the person's token. Servers that pass tokens on tell of it in a result.
pub(super) fn says_unauthorized(result: &CallToolResult) -> bool {
    refusal(result) == Some(Some(401))
}

/// The refusal in a result that is not marked as an error, with its status if it tells one. Notion's own server hands the
/// errors of its API over as ordinary results; kept as one, such an error would be served for hours.
fn refusal(result: &CallToolResult) -> Option<Option<u64>> {
    let [ContentBlock::Text(text)] = result.content.as_slice() else { return None };
    if text.text.len() > LONGEST_REFUSAL || !text.text.starts_with('{') {
        return None;
    }
    let Ok(Value::Object(said)) = serde_json::from_str(&text.text) else { return None };
    let status = said.get("status");
    let number = status.and_then(Value::as_u64).filter(|status| (400..600).contains(status));
    let is_an_api_error = said.get("object").is_some_and(|object| object == "error") && number.is_some();
    let envelope = ["status", "message", "code", "data"];
    let is_an_envelope = status.is_some_and(|status| status == "error")
        && said.keys().all(|member| envelope.contains(&member.as_str()));
    (is_an_api_error || is_an_envelope).then_some(number)
}

/// How far a call is, for a person who waits.
pub(super) fn sentence(tool: &str, how_far: &ProgressNotificationParam) -> String {
    let count = match how_far.total {
        Some(total) => format!("{} of {total}", how_far.progress),
        None => how_far.progress.to_string(),
    };
    match how_far.message.as_deref().map(text::visible).filter(|message| !message.is_empty()) {
        Some(message) => format!("{tool}: {} ({count})", text::shortened(&message, LONGEST_MESSAGE)),
        None => format!("{tool}: {count}"),
    }
}

fn is_copy(text: &str, value: &Value) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|read| read == *value || wrapped(value) == Some(&read))
}

/// What stands alone under `result`.
fn wrapped(value: &Value) -> Option<&Value> {
    value.as_object().filter(|members| members.len() == 1)?.get("result")
}

/// Base64 is a third longer than what it holds.
fn left_out(what: &str, kind: &str, base64: usize) -> String {
    format!("[a {what} {kind} of about {} bytes was left out]", base64 / 4 * 3)
}

fn cut(whole: &str) -> String {
    if whole.len() <= MOST {
        return whole.to_owned();
    }
    let kept = text::shortened(whole, MOST);
    format!("{kept}\n[cut off after {} of {} bytes; ask for less at once]", kept.len(), whole.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(json: Value) -> ToolOutput {
        flattened(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn a_copy_of_the_structured_result_is_not_repeated() {
        let output = result(serde_json::json!({
            "content": [{"type": "text", "text": "{\"a\": 1}"}, {"type": "text", "text": "see\u{200b} also"}],
            "structuredContent": {"a": 1}
        }));
        assert_eq!((output.content.as_str(), output.is_error), ("see also\n{\"a\":1}", false));
    }

    #[test]
    fn what_fastmcp_wraps_is_read_once() {
        let output = result(serde_json::json!({
            "content": [{"type": "text", "text": "20 pages"}], "structuredContent": {"result": "20 pages"}
        }));
        assert_eq!(output.content, "20 pages");
        let output = result(serde_json::json!({
            "content": [{"type": "text", "text": "[1, 2]"}], "structuredContent": {"result": [1, 2]}
        }));
        assert_eq!(output.content, "{\"result\":[1,2]}");
        let output = result(serde_json::json!({
            "content": [{"type": "text", "text": "two pages"}], "structuredContent": {"result": "20 pages"}
        }));
        assert_eq!(output.content, "two pages\n{\"result\":\"20 pages\"}");
    }

    #[test]
    fn what_is_not_text_is_named() {
        let output = result(serde_json::json!({
            "content": [
                {"type": "image", "data": "AAAA", "mimeType": "image/png"},
                {"type": "resource_link", "uri": "docs://a", "name": "A"},
                {"type": "resource", "resource": {"uri": "docs://b", "text": "B"}}
            ],
            "isError": true
        }));
        assert!(output.is_error);
        assert_eq!(
            output.content,
            "[a image image/png of about 3 bytes was left out]\nA: docs://a\ndocs://b\nB"
        );
    }

    #[test]
    fn an_api_that_refuses_is_an_error_however_the_server_tells_it() {
        let told = |text: &str| {
            let json = serde_json::json!({"content": [{"type": "text", "text": text}]});
            let result: CallToolResult = serde_json::from_value(json).unwrap();
            (flattened(&result).is_error, says_unauthorized(&result))
        };
        let notion =
            r#"{"status":401,"object":"error","code":"unauthorized","message":"API token is invalid."}"#;
        assert_eq!(told(notion), (true, true));
        assert_eq!(told(r#"{"status":404,"object":"error","code":"object_not_found"}"#), (true, false));
        assert_eq!(told(r#"{"status":"error","data":"<html>"}"#), (true, false));
        assert_eq!(told(r#"{"status":"error"}"#), (true, false));
        // What a tool found out about something else is no refusal.
        for result in [
            r#"{"status":"error","build":7}"#,
            r#"{"status":404,"url":"https://a.example"}"#,
            r#"{"object":"error","id":"e-1"}"#,
            r#"[{"status":"error"}]"#,
            "{",
            "it failed",
        ] {
            assert_eq!(told(result), (false, false), "{result}");
        }
    }

    #[test]
    fn a_long_result_is_cut_with_a_note() {
        let output = result(serde_json::json!({"content": [{"type": "text", "text": "ä".repeat(MOST)}]}));
        assert!(output.content.len() < MOST + 100);
        assert!(output.content.ends_with("ask for less at once]"));
    }
}
