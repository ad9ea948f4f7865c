//! What a provider would bill for the input of requests: the rules of Anthropic's prompt cache over the bodies that the
//! fake received, with four bytes counted as a token.
//!
//! A prompt is the tools, the system prompt and the messages, block by block. What precedes a breakpoint is written to the
//! cache at a quarter more than the price of input; a later prompt that begins alike reads it at a tenth, if a breakpoint
//! of its own stands at most twenty blocks behind its end. Beginnings of less than 1 024 tokens are not cached.

use std::collections::HashSet;

use serde_json::Value;

use super::ReceivedRequest;

/// Tokens by price.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bill {
    /// Requests.
    pub requests: usize,
    /// All input.
    pub input: f64,
    /// Of it, written to the cache.
    pub written: f64,
    /// Of it, read from the cache.
    pub read: f64,
}

impl Bill {
    /// Tokens of plain input that cost as much.
    #[must_use]
    pub fn billed(&self) -> f64 {
        self.input + 0.25 * self.written - 0.9 * self.read
    }
}

/// A provider's cache. It forgets nothing: sessions are shorter than its five minutes, and reading prolongs them.
#[derive(Default)]
pub struct PromptCache(HashSet<String>);

const LEAST: f64 = 1024.0;
const REACH: usize = 20;

impl PromptCache {
    /// Bills one more request.
    #[expect(clippy::cast_precision_loss, reason = "bytes of a prompt are far below 2^52")]
    pub fn bill(&mut self, request: &ReceivedRequest, bill: &mut Bill) {
        let blocks = blocks(&request.json());
        let mut hash = String::new();
        // After each block: tokens so far, the hash of all of it, and whether a breakpoint stands there.
        let mut ends = Vec::with_capacity(blocks.len());
        let mut tokens = 0.0;
        for (text, is_marked) in &blocks {
            tokens += text.len() as f64 / 4.0;
            hash = shared::cache::hash(&format!("{hash}{text}"));
            ends.push((tokens, hash.clone(), *is_marked));
        }
        let marks: Vec<usize> =
            (0..ends.len()).filter(|index| ends[*index].2 && ends[*index].0 >= LEAST).collect();
        let reaches = |end: usize| marks.iter().any(|mark| *mark >= end && mark - end <= REACH);
        let found = (0..ends.len()).rev().find(|end| reaches(*end) && self.0.contains(&ends[*end].1));
        let read = found.map_or(0.0, |end| ends[end].0);
        let marked = marks.last().map_or(0.0, |mark| ends[*mark].0);
        bill.requests += 1;
        bill.input += tokens;
        bill.read += read;
        bill.written += (marked - read).max(0.0);
        self.0.extend(marks.into_iter().map(|mark| ends[mark].1.clone()));
    }
}

/// The prompt's blocks as text, without their marks.
fn blocks(body: &Value) -> Vec<(String, bool)> {
    let mut blocks = Vec::new();
    let mut add = |role: &str, block: &Value| {
        let mut block = block.clone();
        let mark = block.as_object_mut().and_then(|fields| fields.remove("cache_control"));
        blocks.push((format!("{role}{block}"), mark.is_some()));
    };
    for name in ["tools", "system"] {
        for block in body[name].as_array().into_iter().flatten() {
            add("", block);
        }
    }
    for message in body["messages"].as_array().into_iter().flatten() {
        let role = message["role"].as_str().unwrap_or_default();
        match &message["content"] {
            Value::Array(content) => content.iter().for_each(|block| add(role, block)),
            text => add(role, text),
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::fakes::model::Wire;

    fn request(texts: &[(&str, bool)]) -> ReceivedRequest {
        let content: Vec<Value> = texts
            .iter()
            .map(|(text, mark)| {
                let mut block = json!({"type": "text", "text": text.repeat(2000)});
                if *mark {
                    block["cache_control"] = json!({"type": "ephemeral"});
                }
                block
            })
            .collect();
        let body = json!({"messages": [{"role": "user", "content": content}]}).to_string();
        ReceivedRequest {
            number: 1,
            wire: Wire::Anthropic,
            model: String::new(),
            last_user: String::new(),
            rounds: 0,
            key: None,
            body: Bytes::from(body),
        }
    }

    #[test]
    fn what_begins_alike_is_read_at_a_tenth() {
        let (mut cache, mut bill) = (PromptCache::default(), Bill::default());
        cache.bill(&request(&[("abc", true)]), &mut bill);
        assert_eq!((bill.read, bill.written), (0.0, bill.input));
        let first = bill.input;
        cache.bill(&request(&[("abc", false), ("def", true)]), &mut bill);
        assert_eq!((bill.read, bill.written), (first, bill.input - first));
        let mut plain = Bill::default();
        cache.bill(&request(&[("abc", false)]), &mut plain);
        assert_eq!((plain.read, plain.written, plain.billed()), (0.0, 0.0, plain.input));
        let mut other = Bill::default();
        cache.bill(&request(&[("xyz", false), ("abc", true)]), &mut other);
        assert_eq!(other.read, 0.0, "only a beginning counts");
    }
}
