//! A tool's result as text for a model: what can be read of it, bounded, without what cannot be seen.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use serde_json::Value;

use crate::{remote::text, tools::ToolOutput};

/// Bytes of a result that a model is sent.
const MOST: usize = 96 * 1024;

/// The result as one text.
pub(super) fn flattened(result: &CallToolResult) -> ToolOutput {
    let mut parts: Vec<String> = Vec::new();
    let structured = result.structured_content.as_ref().filter(|value| !value.is_null());
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
    let is_error = result.is_error.unwrap_or(false);
    ToolOutput { content, is_error, ..ToolOutput::default() }
}

fn is_copy(text: &str, value: &Value) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|read| read == *value)
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
    fn a_long_result_is_cut_with_a_note() {
        let output = result(serde_json::json!({"content": [{"type": "text", "text": "ä".repeat(MOST)}]}));
        assert!(output.content.len() < MOST + 100);
        assert!(output.content.ends_with("ask for less at once]"));
    }
}
