//! Time as the pure core sees it: an argument, never a clock.

/// Ticks in a second.
pub const TICKS_PER_SEC: u32 = 10;
/// Milliseconds of a tick.
pub const TICK_MS: u64 = 1000 / TICKS_PER_SEC as u64;

/// A tenth of a second since the node started, on the monotonic clock. Thirteen years fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick(pub u32);

impl Tick {
    /// Later than any deadline that is ever armed.
    pub const NEVER: Tick = Tick(u32::MAX);

    /// No less than so many seconds later: a tick more, since this one began before now.
    pub fn plus_secs(self, secs: u32) -> Tick {
        self.plus_ticks(secs.saturating_mul(TICKS_PER_SEC).saturating_add(1))
    }

    pub fn plus_ticks(self, ticks: u32) -> Tick {
        Tick(self.0.saturating_add(ticks))
    }

    /// Whole seconds since `earlier`, 0 if that lies ahead.
    pub fn secs_since(self, earlier: Tick) -> u32 {
        self.0.saturating_sub(earlier.0) / TICKS_PER_SEC
    }
}

/// The moment of a turn, read once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    pub tick: Tick,
    /// Unix time in milliseconds, from the wall clock: for dates and expiry only.
    pub wall_ms: u64,
}

impl Now {
    pub fn wall_secs(self) -> u32 {
        (self.wall_ms / 1000).min(u64::from(u32::MAX)) as u32
    }
}
