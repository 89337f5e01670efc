//! A circuit breaker (Nygard, "Release It!", 2007) as a pure state machine; the clock is passed in.

use std::time::{Duration, Instant};

/// When a model server is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// So many failures in a row open it; 0: it never opens.
    pub failures: u32,
    /// How long it stays open before one request tries again.
    pub rest: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything passes; so many failures in a row so far.
    Closed(u32),
    /// Nothing passes before then.
    Open(Instant),
    /// One request tries; nothing else passes.
    Trying,
}

/// Counts failures and says whether a request may be sent.
#[derive(Debug)]
pub(crate) struct Breaker {
    settings: BreakerSettings,
    state: State,
}

impl Breaker {
    pub(crate) fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: State::Closed(0) }
    }

    /// Whether a request may be sent now; if not, how long it should wait. What was admitted must be reported by one of the three below.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Closed(_) => Ok(()),
            State::Open(until) if now < until => Err(until - now),
            State::Open(_) => {
                self.state = State::Trying;
                Ok(())
            }
            State::Trying => Err(self.settings.rest),
        }
    }

    /// Whether nothing passes now. A request that is let through to try finds out by itself.
    pub(crate) fn is_resting(&self, now: Instant) -> bool {
        match self.state {
            State::Closed(_) => false,
            State::Open(until) => now < until,
            State::Trying => true,
        }
    }

    /// The answer has begun: if this was the one that tries, others may follow.
    pub(crate) fn began(&mut self) {
        if self.state == State::Trying {
            self.state = State::Closed(0);
        }
    }

    /// The answer is complete.
    pub(crate) fn succeeded(&mut self) {
        self.state = State::Closed(0);
    }

    /// The server failed. True when this opened the breaker.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        let failures = match self.state {
            State::Closed(failures) => failures.saturating_add(1),
            State::Trying => self.settings.failures,
            // A request from before it opened.
            State::Open(_) => return false,
        };
        let opens = self.settings.failures > 0 && failures >= self.settings.failures;
        self.state = if opens { State::Open(now + self.settings.rest) } else { State::Closed(failures) };
        opens
    }

    /// The request ended without saying anything about the server: its client left, or it was wrong itself.
    pub(crate) fn no_verdict(&mut self, now: Instant) {
        if self.state == State::Trying {
            self.state = State::Open(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: BreakerSettings = BreakerSettings { failures: 3, rest: Duration::from_secs(10) };

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_one_success() {
        let (mut breaker, start) = (Breaker::new(SETTINGS), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!breaker.failed(start) && !breaker.failed(start));
        breaker.succeeded();
        assert!(!breaker.failed(start) && !breaker.failed(start), "a success in between starts the count anew");
        assert!(breaker.failed(start));
        assert_eq!(breaker.admit(at(4)), Err(Duration::from_secs(6)));
        assert_eq!(breaker.admit(at(10)), Ok(()), "one request tries");
        assert!(breaker.admit(at(10)).is_err(), "and only one");
        assert!(breaker.failed(at(11)), "it fails: open again");
        assert!(breaker.admit(at(12)).is_err());
        assert_eq!(breaker.admit(at(21)), Ok(()));
        breaker.no_verdict(at(22));
        assert_eq!(breaker.admit(at(22)), Ok(()), "its client left: the next one tries");
        breaker.succeeded();
        assert_eq!((breaker.admit(at(22)), breaker.admit(at(22))), (Ok(()), Ok(())));
    }

    proptest! {
        #[test]
        fn it_never_stays_shut(steps in proptest::collection::vec((0u8..4, 0u64..30), 0..60), failures in 0u32..5) {
            let mut breaker = Breaker::new(BreakerSettings { failures, ..SETTINGS });
            let mut now = Instant::now();
            let mut out = 0u32;
            for (step, seconds) in steps {
                now += Duration::from_secs(seconds);
                match step {
                    0 => out += u32::from(breaker.admit(now).is_ok()),
                    _ if out == 0 => continue,
                    1 => { breaker.succeeded(); out -= 1; }
                    2 => { breaker.failed(now); out -= 1; }
                    _ => { breaker.no_verdict(now); out -= 1; }
                }
            }
            // Once everything that was admitted is over, a request passes after the rest at the latest.
            for _ in 0..out { breaker.no_verdict(now); }
            prop_assert!(breaker.admit(now + SETTINGS.rest).is_ok());
            prop_assert!(failures > 0 || breaker.admit(now).is_ok());
        }
    }
}
