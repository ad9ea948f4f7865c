//! What one request gets: steps in order, then the end marker of its wire.

use std::time::Duration;

use shared::model::Usage;

/// One step of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// One delta of text.
    Text(String),
    /// `count` deltas `t0 t1 t2 …`, with a pause before each.
    Tokens {
        /// How many.
        count: usize,
        /// The pause before each.
        delay: Duration,
    },
    /// Hidden reasoning with a signature, and fields no client knows.
    Thinking {
        /// The reasoning.
        text: String,
        /// What proves it.
        signature: String,
    },
    /// A tool call; the arguments are sent as they are, in several chunks, valid or not.
    Call {
        /// The tool's name on the wire.
        name: String,
        /// The raw arguments.
        arguments: String,
    },
    /// Holds the stream until the gate of that name is released.
    Gate(String),
    /// A pause.
    Pause(Duration),
    /// Sends nothing more and keeps the connection open.
    Stall,
    /// Closes the connection without an end marker.
    Cut,
    /// Ends the answer in good order, but without an end marker.
    End,
    /// Bytes that are no event of the wire.
    Garbage(Vec<u8>),
    /// The wire's error event for "overloaded", then the end of the answer.
    Overloaded,
}

/// A refusal instead of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Script {
    pub(super) steps: Vec<Step>,
    pub(super) usage: Option<Usage>,
    pub(super) refusal: Option<Refusal>,
    /// Body chunks of exactly this size, to cut events and characters in two.
    pub(super) chunk_bytes: Option<usize>,
    /// Says that the reply was cut at the token limit.
    pub(super) max_tokens: bool,
    /// Never answers, not even with headers.
    pub(super) silent: bool,
}

impl Script {
    /// An empty answer: 200, the start and the end marker.
    pub fn new() -> Self {
        Self::default()
    }

    /// A 200 without a single event.
    pub fn empty() -> Self {
        Self::new().step(Step::End)
    }

    /// A refusal with this status.
    pub fn refuse(status: u16) -> Self {
        Self { refusal: Some(Refusal { status, headers: Vec::new() }), ..Self::new() }
    }

    /// A header of the refusal, for example `retry-after`.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Some(refusal) = &mut self.refusal {
            refusal.headers.push((name, value.into()));
        }
        self
    }

    /// Takes the request and never answers.
    pub fn silent() -> Self {
        Self { silent: true, ..Self::new() }
    }

    /// Adds a step.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Adds one delta of text.
    pub fn text(self, text: impl Into<String>) -> Self {
        self.step(Step::Text(text.into()))
    }

    /// Adds `count` deltas of text without a pause.
    pub fn tokens(self, count: usize) -> Self {
        self.step(Step::Tokens { count, delay: Duration::ZERO })
    }

    /// Adds `count` deltas of text with a pause before each.
    pub fn slow_tokens(self, count: usize, delay: Duration) -> Self {
        self.step(Step::Tokens { count, delay })
    }

    /// Adds hidden reasoning.
    pub fn thinking(self, text: impl Into<String>, signature: impl Into<String>) -> Self {
        self.step(Step::Thinking { text: text.into(), signature: signature.into() })
    }

    /// Adds a tool call with raw arguments.
    pub fn call(self, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        self.step(Step::Call { name: name.into(), arguments: arguments.into() })
    }

    /// Holds the stream here until the gate is released.
    pub fn gate(self, name: impl Into<String>) -> Self {
        self.step(Step::Gate(name.into()))
    }

    /// Falls silent here.
    pub fn stall(self) -> Self {
        self.step(Step::Stall)
    }

    /// Closes the connection here.
    pub fn cut(self) -> Self {
        self.step(Step::Cut)
    }

    /// Sends bytes that are no event.
    pub fn garbage(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Garbage(bytes.into()))
    }

    /// Sends the error event for "overloaded".
    pub fn overloaded(self) -> Self {
        self.step(Step::Overloaded)
    }

    /// The usage to report; unset, it follows from the request's and the answer's length.
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Cuts the body into chunks of this many bytes, each written by itself.
    pub fn chunks_of(mut self, bytes: usize) -> Self {
        self.chunk_bytes = Some(bytes);
        self
    }

    /// Ends as a reply that was cut at the token limit.
    pub fn max_tokens(mut self) -> Self {
        self.max_tokens = true;
        self
    }
}
