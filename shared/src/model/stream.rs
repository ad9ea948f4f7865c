//! From a request body to a stream of model events: the part that is the same for every wire.

use std::{collections::VecDeque, sync::Arc};

use futures::{StreamExt, stream, stream::BoxStream};

use super::{
    ModelError, ModelEvent, ModelReply, Usage,
    http::{Endpoint, Fault},
    sse::{Event, Events},
};

/// Builds a reply out of one wire's events.
pub(super) trait Assemble: Send + 'static {
    /// Takes one event; gives the reply when the event was the end marker.
    fn take(&mut self, event: &Event, out: &mut Out) -> Result<Option<ModelReply>, Broken>;

    /// The stream was closed in good order without an end marker: the reply, if it is complete all the same.
    fn closed(&mut self) -> Option<ModelReply> {
        None
    }
}

/// Why a stream cannot go on.
pub(super) enum Broken {
    /// Something that is not the protocol.
    Garbage(serde_json::Error),
    /// The provider said so.
    Fault(Box<Fault>),
}

impl From<serde_json::Error> for Broken {
    fn from(error: serde_json::Error) -> Self {
        Self::Garbage(error)
    }
}

/// Where an assembler puts what the user may see at once.
#[derive(Default)]
pub(super) struct Out(VecDeque<ModelEvent>);

impl Out {
    /// One delta of text; empty ones are dropped.
    pub(super) fn text(&mut self, text: String) {
        if !text.is_empty() {
            self.0.push_back(ModelEvent::Text(text));
        }
    }

    /// The usage so far.
    pub(super) fn usage(&mut self, usage: Usage) {
        self.0.push_back(ModelEvent::Usage(usage));
    }
}

struct Run<A> {
    endpoint: Arc<Endpoint>,
    /// Taken when the request is sent.
    body: Option<String>,
    /// Taken when the reply is complete or broken.
    events: Option<Events>,
    assembler: A,
    out: Out,
}

/// Sends `body` when first polled and streams what `assembler` makes of the answer.
pub(super) fn stream<A: Assemble>(
    endpoint: Arc<Endpoint>,
    body: String,
    assembler: A,
) -> BoxStream<'static, Result<ModelEvent, ModelError>> {
    let run = Run { endpoint, body: Some(body), events: None, assembler, out: Out::default() };
    stream::unfold(run, |mut run| async move {
        let item = run.next().await.transpose()?;
        Some((item, run))
    })
    .boxed()
}

impl<A: Assemble> Run<A> {
    async fn next(&mut self) -> Result<Option<ModelEvent>, ModelError> {
        if let Some(body) = self.body.take() {
            self.events = Some(self.endpoint.open(body).await?);
        }
        loop {
            if let Some(event) = self.out.0.pop_front() {
                return Ok(Some(event));
            }
            // Taken out while it is read, so that an error leaves nothing to read on.
            let Some(mut events) = self.events.take() else { return Ok(None) };
            let reply = match events.next(&self.endpoint).await? {
                Some(event) => self.take(&event)?,
                None => match self.assembler.closed() {
                    Some(reply) => Some(reply),
                    None => return Err(self.endpoint.truncated("ended its reply without the end marker")),
                },
            };
            match reply {
                Some(reply) => {
                    events.finish();
                    self.out.usage(reply.usage);
                    self.out.0.push_back(ModelEvent::Done(reply));
                }
                None => self.events = Some(events),
            }
        }
    }

    fn take(&mut self, event: &Event) -> Result<Option<ModelReply>, ModelError> {
        self.assembler.take(event, &mut self.out).map_err(|broken| match broken {
            // A JSON error quotes nothing of its input but a position and what was expected.
            Broken::Garbage(error) => {
                self.endpoint.truncated("sent an event that makes no sense").caused_by(error)
            }
            Broken::Fault(fault) => self.endpoint.fault(&fault),
        })
    }
}
