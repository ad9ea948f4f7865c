//! A circuit breaker: after some failures in a row whoever failed is left alone for a while, then one call tries again.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// When a breaker opens and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// So many failures in a row open it.
    pub failures: u32,
    /// For so long.
    pub recovery: Duration,
}

/// What a breaker knows of one target.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One call is under way to find out.
    Trying,
}

/// Leave to make one call. Whoever holds one says how the call went; a call that was given up says nothing.
#[derive(Debug)]
#[must_use]
pub struct Leave<'a> {
    breaker: &'a Breaker,
    is_trial: bool,
    said: bool,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Leave to call, or none while the target is left alone.
    pub fn leave(&self) -> Option<Leave<'_>> {
        let mut state = self.state();
        let is_trial = match *state {
            State::Closed { .. } => false,
            State::Open { until } if Instant::now() >= until => {
                *state = State::Trying;
                true
            }
            State::Open { .. } | State::Trying => return None,
        };
        Some(Leave { breaker: self, is_trial, said: false })
    }

    /// Leave to call, left alone or not. What comes of the call counts all the same, so that the breaker stands as it should
    /// when it is heeded again.
    pub fn leave_unheeded(&self) -> Leave<'_> {
        Leave { breaker: self, is_trial: false, said: false }
    }

    /// Whether calls are refused now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match *self.state() {
            State::Closed { .. } => false,
            State::Open { until } => Instant::now() < until,
            State::Trying => true,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leave<'_> {
    /// The target answered, be it with a refusal.
    pub fn answered(mut self) {
        self.said = true;
        *self.breaker.state() = State::Closed { failures: 0 };
    }

    /// The target did not answer.
    pub fn failed(mut self) {
        self.said = true;
        let BreakerSettings { failures: most, recovery } = self.breaker.settings;
        let mut state = self.breaker.state();
        let failures = match *state {
            State::Closed { failures } => failures + 1,
            State::Open { .. } => return,
            State::Trying => most,
        };
        *state = if failures >= most {
            State::Open { until: Instant::now() + recovery }
        } else {
            State::Closed { failures }
        };
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        // Nothing was learnt: the next call tries.
        if self.is_trial && !self.said {
            *self.breaker.state() = State::Open { until: Instant::now() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(recovery: Duration) -> Breaker {
        Breaker::new(BreakerSettings { failures: 3, recovery })
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_call_tries_again() {
        let breaker = breaker(Duration::ZERO);
        for _ in 0..2 {
            breaker.leave().unwrap().failed();
        }
        breaker.leave().unwrap().answered();
        for _ in 0..3 {
            assert!(!breaker.is_open());
            breaker.leave().unwrap().failed();
        }
        let trial = breaker.leave().unwrap();
        assert!(breaker.leave().is_none(), "one call at a time tries");
        drop(trial);
        let trial = breaker.leave().unwrap();
        trial.answered();
        let (one, two) = (breaker.leave().unwrap(), breaker.leave().unwrap());
        one.failed();
        two.answered();
        assert!(!breaker.is_open());
    }

    #[test]
    fn it_stays_open_for_its_time_and_who_does_not_heed_it_may_close_it() {
        let breaker = breaker(Duration::from_secs(600));
        for _ in 0..3 {
            breaker.leave_unheeded().failed();
        }
        assert!(breaker.is_open() && breaker.leave().is_none());
        breaker.leave_unheeded().failed();
        drop(breaker.leave_unheeded());
        assert!(breaker.is_open());
        breaker.leave_unheeded().answered();
        assert!(!breaker.is_open() && breaker.leave().is_some());
    }
}
