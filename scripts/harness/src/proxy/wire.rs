//! The edges of Postgres's wire protocol: message borders, statement texts and the end of a reply.

use std::collections::HashMap;

/// Reads what a client sends.
#[derive(Default)]
pub(super) struct Frontend {
    buffer: Vec<u8>,
    started: bool,
    prepared: HashMap<Vec<u8>, String>,
}

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

impl Frontend {
    /// Takes bytes; gives the texts of the statements that they run, prepared ones included.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.buffer.extend_from_slice(bytes);
        let mut run = Vec::new();
        loop {
            let header = if self.started { 1 } else { 0 };
            let Some(length) = self.buffer.get(header..header + 4).and_then(|bytes| bytes.try_into().ok())
            else {
                return run;
            };
            let length = u32::from_be_bytes(length) as usize;
            let total = header + length.max(4);
            if self.buffer.len() < total {
                return run;
            }
            let message: Vec<u8> = self.buffer.drain(..total).collect();
            if self.started {
                run.extend(self.statement(message[0], &message[5..]));
            } else {
                let code = message.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
                self.started = !matches!(code, Some(SSL_REQUEST | GSS_REQUEST));
            }
        }
    }

    fn statement(&mut self, kind: u8, body: &[u8]) -> Option<String> {
        let mut strings = body.split(|byte| *byte == 0);
        match kind {
            b'Q' => Some(text(strings.next()?)),
            b'P' => {
                let (name, statement) = (strings.next()?, strings.next()?);
                self.prepared.insert(name.to_vec(), text(statement));
                None
            }
            b'B' => {
                let (_portal, name) = (strings.next()?, strings.next()?);
                self.prepared.get(name).cloned()
            }
            _ => None,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads what the server sends.
#[derive(Default)]
pub(super) struct Messages {
    buffer: Vec<u8>,
    past_ssl: bool,
}

impl Messages {
    /// Takes bytes; says whether a "ready for query" was among the messages that they completed.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        if !self.past_ssl {
            // The answer to a request for TLS is a lone letter; the first real message is an authentication one ('R')
            // or an error ('E'), which may follow it.
            while matches!(self.buffer.first(), Some(b'N' | b'G')) {
                self.buffer.remove(0);
            }
            self.past_ssl = !self.buffer.is_empty();
        }
        let mut ready = false;
        loop {
            let Some(length) = self.buffer.get(1..5).and_then(|bytes| bytes.try_into().ok()) else {
                return ready;
            };
            let total = 1 + u32::from_be_bytes(length) as usize;
            if self.buffer.len() < total {
                return ready;
            }
            ready |= self.buffer[0] == b'Z';
            self.buffer.drain(..total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    #[test]
    fn statements_are_seen_through_start_up_and_preparation() {
        let mut stream = [8_u32.to_be_bytes(), SSL_REQUEST.to_be_bytes()].concat();
        stream.extend([9_u32.to_be_bytes(), 196_608_u32.to_be_bytes()].concat());
        stream.push(0);
        stream.extend(message(b'Q', b"begin\0"));
        stream.extend(message(b'P', b"s1\0insert into t\0\0\0"));
        stream.extend(message(b'B', b"\0s1\0\0\0"));
        stream.extend(message(b'S', b""));
        stream.extend(message(b'Q', b"COMMIT\0"));
        for size in [1, 3, 7, stream.len()] {
            let mut frontend = Frontend::default();
            let seen: Vec<String> = stream.chunks(size).flat_map(|chunk| frontend.feed(chunk)).collect();
            assert_eq!(seen, ["begin", "insert into t", "COMMIT"], "chunks of {size}");
        }
    }

    #[test]
    fn a_reply_is_complete_at_ready_for_query() {
        let mut messages = Messages::default();
        assert!(!messages.feed(b"N"));
        assert!(!messages.feed(&message(b'R', &[0, 0, 0, 0])));
        assert!(!messages.feed(&message(b'C', b"COMMIT\0")));
        let ready = message(b'Z', b"I");
        assert!(!messages.feed(&ready[..3]));
        assert!(messages.feed(&ready[3..]));
    }
}
