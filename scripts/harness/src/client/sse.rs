//! Server-sent events, taken apart without losing a byte.
//!
//! Deliberately not the parser that the product's own clients use: two readers of the same bytes check each other.

/// One event as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The `id:` field.
    pub id: String,
    /// The `event:` field.
    pub event: String,
    /// The `data:` lines, joined by newlines.
    pub data: String,
    /// Every byte of the block, up to and with the blank line.
    pub raw: Vec<u8>,
}

impl Frame {
    /// The data as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap_or(serde_json::Value::Null)
    }

    /// Turn number and sequence number, if the id has our form.
    #[must_use]
    pub fn position(&self) -> Option<(i64, i64)> {
        let (turn, seq) = self.id.split_once('.')?;
        Some((turn.parse().ok()?, seq.parse().ok()?))
    }
}

/// What a block of the stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// An event with an id.
    Event(Frame),
    /// `retry:` in milliseconds.
    Retry(u64),
    /// A comment.
    Comment(String),
    /// Anything else: an event without an id, or a line that is no field. Never legal here.
    Other(Vec<u8>),
}

/// Cuts a stream into blocks.
#[derive(Debug, Default)]
pub struct FrameParser {
    buffer: Vec<u8>,
}

impl FrameParser {
    /// Takes more bytes; gives the blocks that are complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.buffer.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        let mut start = 0;
        while let Some(length) = find(&self.buffer[start..], b"\n\n") {
            let end = start + length + 2;
            pieces.push(piece(&self.buffer[start..end]));
            start = end;
        }
        self.buffer.drain(..start);
        pieces
    }

    /// The bytes of a block that is not complete yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.buffer
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn piece(raw: &[u8]) -> Piece {
    let Ok(text) = std::str::from_utf8(raw) else { return Piece::Other(raw.to_vec()) };
    let (mut id, mut event, mut data, mut retry, mut comment) = (None, None, Vec::new(), None, None);
    for line in text.trim_end_matches('\n').split('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => comment = Some(value.to_owned()),
            "id" => id = Some(value.to_owned()),
            "event" => event = Some(value.to_owned()),
            "data" => data.push(value),
            "retry" => retry = value.parse().ok(),
            _ => return Piece::Other(raw.to_vec()),
        }
    }
    match (id, event, retry, comment) {
        (Some(id), Some(event), None, None) => {
            Piece::Event(Frame { id, event, data: data.join("\n"), raw: raw.to_vec() })
        }
        (None, None, Some(retry), None) if data.is_empty() => Piece::Retry(retry),
        (None, None, None, Some(comment)) if data.is_empty() => Piece::Comment(comment),
        _ => Piece::Other(raw.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_out_whole_however_the_bytes_are_cut() {
        let stream = b"retry: 1500\n\nid: 1.1\nevent: queued\ndata: {}\n\n:keepalive\n\nid: 1.2\nevent: token\ndata: {\"text\":\"h\xc3\xa4\"}\n\nid: 1.3";
        let mut whole = FrameParser::default();
        let expected = whole.feed(stream);
        assert_eq!(expected.len(), 4);
        assert_eq!(expected[0], Piece::Retry(1500));
        assert_eq!(expected[2], Piece::Comment("keepalive".to_owned()));
        for size in 1..20 {
            let mut parser = FrameParser::default();
            let pieces: Vec<Piece> = stream.chunks(size).flat_map(|chunk| parser.feed(chunk)).collect();
            assert_eq!(pieces, expected, "chunks of {size}");
            assert_eq!(parser.rest(), b"id: 1.3");
        }
    }
}
