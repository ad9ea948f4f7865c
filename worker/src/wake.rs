//! When an apalis worker polls its queue: when told so, and on a slow timer. The strategies of the library stop waking
//! the worker when a poll is answered at once, and miss what arrives during one; this one keeps a waker registered.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use apalis_core::backend::ext::poll_strategy::{PollSnapshot, PollStrategy};
use futures::{Stream, StreamExt, stream::BoxStream};
use tokio::{sync::Notify, time::Instant};

/// Polls when `told`, at most every `quiet`, and at the latest after `slow`.
pub(crate) struct Wake(BoxStream<'static, ()>);

impl Wake {
    pub(crate) fn new(told: Arc<Notify>, quiet: Duration, slow: Duration) -> Self {
        Self(ticks(told, quiet, slow).boxed())
    }
}

fn ticks(told: Arc<Notify>, quiet: Duration, slow: Duration) -> impl Stream<Item = ()> + Send {
    futures::stream::unfold((told, None::<Instant>), move |(told, last)| async move {
        tokio::select! {
            () = told.notified() => {}
            () = tokio::time::sleep(slow) => {}
        }
        if let Some(last) = last {
            tokio::time::sleep_until(last + quiet).await;
        }
        Some(((), (told, Some(Instant::now()))))
    })
}

impl PollStrategy for Wake {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        let mut fired = false;
        // Polled until it is pending, so that a waker is registered whatever the backend does next.
        while let Poll::Ready(Some(())) = self.0.poll_next_unpin(cx) {
            fired = true;
        }
        if fired { Poll::Ready(Some(())) } else { Poll::Pending }
    }
}
