//! How one client comes back after it has lost its connection. Pure.
//!
//! Owns: whether it is connected and since when, how often it has failed, and when it tries
//! again: as it was told, or at random within a bound that doubles.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::frame::Keys;

const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Whoever was connected for so long begins again with a short backoff.
const STABLE: Duration = Duration::from_secs(60);
/// Where clients do not come back whatever happens, they go where they are sent so often.
const FOLLOWS_MAX: u32 = 5;
/// Nobody waits longer than that, whatever it is told.
const TOLD_MAX: Duration = Duration::from_secs(3600);

/// The end of one connection, or of the attempt to have one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Goodbye {
    /// The server has said that coming back is of no use.
    pub must_stop: bool,
    /// When the server wants it back, and where, if it said so.
    pub wait: Option<Duration>,
    pub to: Option<String>,
}

impl Goodbye {
    /// What a close frame of the server says.
    pub fn of_close(code: u16, reason: &[u8]) -> Goodbye {
        #[derive(Default, Deserialize)]
        struct Reason {
            #[serde(rename = "retryMs")]
            retry_ms: Option<u64>,
            to: Option<String>,
        }
        let must_stop = matches!(code, 1002 | 1003 | 1007..=1009 | 4403 | 4409 | 4410);
        if !matches!(code, 1012 | 1013) {
            return Goodbye {
                must_stop,
                ..Goodbye::default()
            };
        }
        let Reason { retry_ms, to } = serde_json::from_slice(reason).unwrap_or_default();
        Goodbye {
            must_stop,
            wait: retry_ms.map(Duration::from_millis),
            to,
        }
    }
}

/// What had been there when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A registered connection.
    Lost,
    /// An attempt to get there.
    Failed,
    /// Nothing: its end was known already.
    Nothing,
}

/// A client is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Since it began to connect.
    pub took: Duration,
    /// Since it lost its last connection, if it had one.
    pub outage: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not connected; it comes back then, if it does at all.
    Away(Option<Instant>),
    /// Connecting since then.
    Arriving(Instant),
    /// Registered since then.
    Here(Instant),
}

pub struct Comeback {
    /// Where it is connected, or will try next.
    pub target: u32,
    stage: Stage,
    fails: u32,
    /// The end of its last registered connection, until the next one is.
    lost_at: Option<Instant>,
    /// The longest time without a connection so far.
    worst: Option<Duration>,
}

impl Comeback {
    pub fn new(target: u32) -> Comeback {
        Comeback {
            target,
            stage: Stage::Away(None),
            fails: 0,
            lost_at: None,
            worst: None,
        }
    }

    pub fn begin(&mut self, now: Instant) {
        self.stage = Stage::Arriving(now);
    }

    /// True if it has had so much time to arrive.
    pub fn is_overdue(&self, patience: Duration, now: Instant) -> bool {
        match self.stage {
            Stage::Arriving(since) => now >= since + patience,
            Stage::Away(_) | Stage::Here(_) => false,
        }
    }

    pub fn registered(&mut self, now: Instant) -> Arrival {
        let began = match self.stage {
            Stage::Arriving(since) => since,
            Stage::Away(_) | Stage::Here(_) => now,
        };
        self.stage = Stage::Here(now);
        let outage = self.lost_at.take().map(|at| now.duration_since(at));
        self.worst = self.worst.max(outage);
        Arrival {
            took: now.duration_since(began),
            outage,
        }
    }

    pub fn ended(&mut self, goodbye: &Goodbye, now: Instant, keys: &mut Keys) -> Ended {
        let ended = match self.stage {
            Stage::Away(_) => return Ended::Nothing,
            Stage::Arriving(_) => Ended::Failed,
            Stage::Here(since) => {
                if now >= since + STABLE {
                    self.fails = 0;
                }
                self.lost_at = Some(now);
                Ended::Lost
            }
        };
        let longest = BACKOFF_MAX.min(BACKOFF_MIN * 2_u32.pow(self.fails.min(6)));
        self.fails += 1;
        let told = goodbye.wait.map(|wait| wait.min(TOLD_MAX));
        let wait = told.unwrap_or_else(|| jitter(longest, keys));
        self.stage = Stage::Away((!goodbye.must_stop).then(|| now + wait));
        ended
    }

    /// True if it was sent on before it was registered, and has not been too often.
    pub fn follows(&self, goodbye: &Goodbye) -> bool {
        let is_told = goodbye.wait.is_some() || goodbye.to.is_some();
        is_told && matches!(self.stage, Stage::Arriving(_)) && self.fails < FOLLOWS_MAX
    }

    pub fn comes_back_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Away(at) => at,
            Stage::Arriving(_) | Stage::Here(_) => None,
        }
    }

    /// How long it has been without a connection, if it had one and wants it back.
    pub fn is_out_for(&self, now: Instant) -> Option<Duration> {
        let is_stopped = self.stage == Stage::Away(None);
        let lost_at = self.lost_at.filter(|_| !is_stopped)?;
        Some(now.duration_since(lost_at))
    }

    /// Its longest outage, one that goes on included; none if there was none.
    pub fn worst(&self, now: Instant) -> Option<Duration> {
        self.worst.max(self.is_out_for(now))
    }
}

/// Any time up to `longest`.
pub fn jitter(longest: Duration, keys: &mut Keys) -> Duration {
    longest.mul_f64(f64::from(u32::from_ne_bytes(keys.draw())) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reason: &str) -> Goodbye {
        Goodbye::of_close(1012, reason.as_bytes())
    }

    #[test]
    fn a_reason_says_when_and_where_to_come_back() {
        let secs = |secs| Some(Duration::from_secs(secs));
        let goodbye = told(r#"{"retryMs":3000,"to":"ws://a/b"}"#);
        assert_eq!(
            (goodbye.wait, goodbye.to.as_deref()),
            (secs(3), Some("ws://a/b"))
        );
        assert_eq!(told(r#"{"retryMs":2000}"#).wait, secs(2));
        assert_eq!(told("full"), Goodbye::default());
        let other = Goodbye::of_close(4413, br#"{"retryMs":3000,"to":"ws://a/b"}"#);
        assert_eq!(other, Goodbye::default());
    }

    #[test]
    fn it_comes_back_within_a_bound_that_doubles_up_to_half_a_minute() {
        let now = Instant::now();
        let mut keys = Keys::new(7);
        let mut longest_of_all = Duration::ZERO;
        for _ in 0..200 {
            let mut comeback = Comeback::new(0);
            for fails in 0..10 {
                comeback.begin(now);
                let ended = comeback.ended(&Goodbye::default(), now, &mut keys);
                assert_eq!(ended, Ended::Failed);
                let wait = comeback.comes_back_at().unwrap() - now;
                assert!(wait <= BACKOFF_MAX.min(BACKOFF_MIN * 2_u32.pow(fails)));
                longest_of_all = longest_of_all.max(wait);
            }
        }
        assert!(longest_of_all > BACKOFF_MAX / 2, "{longest_of_all:?}");
    }

    #[test]
    fn a_minute_of_connection_makes_the_backoff_short_again() {
        let now = Instant::now();
        let mut keys = Keys::new(7);
        let mut comeback = Comeback::new(0);
        for _ in 0..10 {
            comeback.begin(now);
            comeback.ended(&Goodbye::default(), now, &mut keys);
        }
        comeback.begin(now);
        comeback.registered(now);
        let later = now + STABLE;
        assert_eq!(
            comeback.ended(&Goodbye::default(), later, &mut keys),
            Ended::Lost
        );
        assert!(comeback.comes_back_at().unwrap() <= later + BACKOFF_MIN);
    }

    #[test]
    fn who_only_follows_hints_follows_a_few_until_it_is_registered() {
        let now = Instant::now();
        let mut keys = Keys::new(7);
        let mut comeback = Comeback::new(0);
        let hint = told(r#"{"retryMs":3000}"#);
        comeback.begin(now);
        assert!(comeback.follows(&hint) && !comeback.follows(&Goodbye::default()));
        for _ in 0..FOLLOWS_MAX {
            assert!(comeback.follows(&hint));
            comeback.ended(&hint, now, &mut keys);
            comeback.begin(now);
        }
        assert!(!comeback.follows(&hint));
        let mut comeback = Comeback::new(0);
        comeback.begin(now);
        comeback.registered(now);
        assert!(!comeback.follows(&hint));
    }

    #[test]
    fn it_comes_back_when_it_was_told_to_or_never() {
        let now = Instant::now();
        let mut keys = Keys::new(7);
        let mut comeback = Comeback::new(0);
        let mut back_at = |goodbye: &Goodbye| {
            comeback.begin(now);
            comeback.registered(now);
            comeback.ended(goodbye, now, &mut keys);
            comeback.comes_back_at()
        };
        let told_to = told(r#"{"retryMs":3000}"#);
        assert_eq!(back_at(&told_to), Some(now + Duration::from_secs(3)));
        let forever = told(&format!("{{\"retryMs\":{}}}", u64::MAX));
        assert_eq!(back_at(&forever), Some(now + TOLD_MAX));
        for code in [4403, 4409, 4410] {
            assert_eq!(back_at(&Goodbye::of_close(code, b"")), None);
        }
    }

    #[test]
    fn an_outage_lasts_from_the_loss_to_the_registration_and_the_worst_is_kept() {
        let now = Instant::now();
        let after = |secs| now + Duration::from_secs(secs);
        let mut keys = Keys::new(7);
        let mut comeback = Comeback::new(0);
        comeback.begin(now);
        assert_eq!(comeback.registered(after(1)).outage, None);
        comeback.ended(&Goodbye::default(), after(2), &mut keys);
        // What is known to be over does not end again.
        let again = comeback.ended(&Goodbye::default(), after(3), &mut keys);
        assert_eq!(again, Ended::Nothing);
        comeback.begin(after(3));
        comeback.ended(&Goodbye::default(), after(4), &mut keys);
        comeback.begin(after(5));
        let arrival = comeback.registered(after(7));
        assert_eq!(arrival.took, Duration::from_secs(2));
        assert_eq!(arrival.outage, Some(Duration::from_secs(5)));
        comeback.ended(&Goodbye::default(), after(10), &mut keys);
        assert_eq!(comeback.worst(after(11)), Some(Duration::from_secs(5)));
        assert_eq!(comeback.worst(after(19)), Some(Duration::from_secs(9)));
    }
}
