//! How much a client may say in a second: leaky levels that drain by whole seconds.

use crate::parts::time::{TICKS_PER_SEC, Tick};
use crate::protocol::limits::{Limit, Limits};

/// A burst divided by this is how much a client may go over it, each time answered with error
/// 429, before 4429.
const GRACE_DIVISOR: u32 = 10;

#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    at: Tick,
    frames: u32,
    bytes: u32,
    controls: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Fine,
    /// Over the burst of this limit: the message is refused.
    Over(Limit),
    /// Far over: the connection is closed.
    Flood(Limit),
}

/// A level of what `limit` counts, its rate a second; 0: unlimited. A burst is two seconds' worth.
fn pace(limit: Limit, level: u32, rate: u32) -> Pace {
    let burst = rate.saturating_mul(2);
    if rate == 0 || level <= burst {
        Pace::Fine
    } else if level <= burst.saturating_add((burst / GRACE_DIVISOR).max(1)) {
        Pace::Over(limit)
    } else {
        Pace::Flood(limit)
    }
}

impl Meter {
    /// A data message of so many bytes has arrived.
    pub fn message(&mut self, bytes: usize, now: Tick, limits: &Limits) -> Pace {
        self.drain(now, limits);
        self.frames = self.frames.saturating_add(1);
        self.bytes = self
            .bytes
            .saturating_add(bytes.min(u32::MAX as usize) as u32);
        let by_frames = pace(Limit::Frames, self.frames, limits.frames_per_sec);
        let by_bytes = pace(Limit::Bytes, self.bytes, limits.bytes_per_sec);
        match (by_frames, by_bytes) {
            (flood @ Pace::Flood(_), _) | (_, flood @ Pace::Flood(_)) => flood,
            (over @ Pace::Over(_), _) => over,
            (Pace::Fine, by_bytes) => by_bytes,
        }
    }

    /// A control frame has arrived; false if it is one too many.
    pub fn control(&mut self, now: Tick, limits: &Limits) -> bool {
        self.drain(now, limits);
        self.controls = self.controls.saturating_add(1);
        let rate = limits.control_frames_per_sec;
        rate == 0 || u32::from(self.controls) <= rate.saturating_mul(2)
    }

    fn drain(&mut self, now: Tick, limits: &Limits) {
        let secs = now.secs_since(self.at);
        if secs == 0 {
            return;
        }
        self.at = self.at.plus_ticks(secs * TICKS_PER_SEC);
        self.frames = self
            .frames
            .saturating_sub(limits.frames_per_sec.saturating_mul(secs));
        self.bytes = self
            .bytes
            .saturating_sub(limits.bytes_per_sec.saturating_mul(secs));
        let controls = limits.control_frames_per_sec.saturating_mul(secs);
        self.controls = self
            .controls
            .saturating_sub(controls.min(u32::from(u16::MAX)) as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_it_is_refused_then_it_is_a_flood() {
        let limits = Limits {
            frames_per_sec: 10,
            bytes_per_sec: 0,
            ..Limits::default()
        };
        let mut meter = Meter::default();
        let mut say = |tick| meter.message(1, Tick(tick), &limits);
        assert!((0..20).all(|_| say(1) == Pace::Fine));
        assert_eq!(
            [say(1), say(1), say(9)],
            [
                Pace::Over(Limit::Frames),
                Pace::Over(Limit::Frames),
                Pace::Flood(Limit::Frames)
            ]
        );
        assert_eq!(say(19), Pace::Fine, "a second lets ten more pass");
        assert_eq!(say(10_000), Pace::Fine);
    }

    #[test]
    fn bytes_are_metered_as_frames_are() {
        let limits = Limits {
            frames_per_sec: 0,
            bytes_per_sec: 100,
            ..Limits::default()
        };
        let mut meter = Meter::default();
        assert_eq!(meter.message(200, Tick(0), &limits), Pace::Fine);
        assert_eq!(meter.message(1, Tick(0), &limits), Pace::Over(Limit::Bytes));
        assert_eq!(
            meter.message(1 << 20, Tick(0), &limits),
            Pace::Flood(Limit::Bytes)
        );
    }

    #[test]
    fn control_frames_have_a_burst_of_two_seconds() {
        let limits = Limits::default();
        let mut meter = Meter::default();
        assert!((0..20).all(|_| meter.control(Tick(5), &limits)));
        assert!(!meter.control(Tick(5), &limits));
        let off = Limits {
            control_frames_per_sec: 0,
            ..limits
        };
        assert!((0..1000).all(|_| meter.control(Tick(5), &off)));
    }
}
