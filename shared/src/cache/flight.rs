//! One call for many who ask for the same at the same time, within a process.
//!
//! Whoever is first leads; the others wait for what came of it. A leader that goes away (its turn was cancelled) leaves the
//! place to one of them. The epoch is part of what is asked for: whoever comes after a write does not join a flight that
//! began before it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::tier::{Epoch, Slot};
use crate::{
    error::{Code, Error},
    tools::ToolOutput,
};

/// What came of a flight: an answer, or a failure that all share, so that a dead server is not asked once for each.
pub(super) type Landed = Result<ToolOutput, (Code, String)>;

type Asked = (Slot, Epoch);

#[derive(Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Asked, watch::Receiver<Option<Landed>>>>>);

pub(super) enum Boarding {
    Lead(Leader),
    Wait(watch::Receiver<Option<Landed>>),
}

/// The place at the front; empty again when this is dropped.
pub(super) struct Leader {
    flights: Flights,
    asked: Asked,
    landing: watch::Sender<Option<Landed>>,
}

impl Flights {
    pub(super) fn board(&self, slot: Slot, epoch: Epoch) -> Boarding {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = (slot, epoch);
        if let Some(flight) = flights.get(&asked) {
            return Boarding::Wait(flight.clone());
        }
        let (landing, waiting) = watch::channel(None);
        flights.insert(asked.clone(), waiting);
        Boarding::Lead(Leader { flights: self.clone(), asked, landing })
    }
}

impl Leader {
    /// Tells everybody who waits.
    pub(super) fn land(self, outcome: &Result<ToolOutput, Error>) {
        let landed = match outcome {
            Ok(output) => Ok(output.clone()),
            Err(error) => Err((error.code, error.message.to_string())),
        };
        self.landing.send_replace(Some(landed));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.flights.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.asked);
    }
}

/// What came of the flight; none when its leader went away.
pub(super) async fn landed(mut flight: watch::Receiver<Option<Landed>>) -> Option<Landed> {
    flight.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone())
}
