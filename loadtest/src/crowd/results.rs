//! What the crowd has to tell of each thing that it was asked to do.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::chat::ChatTally;
use crate::churn::ChurnTally;
use crate::opening::HostLimit;
use crate::post::PostTally;
use crate::presence::Sample;
use crate::pusher::PushTally;
use crate::returns::ReturnTally;

/// How an opening went.
#[derive(Clone, Debug)]
pub struct Opened {
    pub took: Duration,
    /// All that are registered and open, those of former openings included.
    pub open: u64,
    /// What of this host stopped it, if anything did.
    pub limit: Option<HostLimit>,
    /// Connections begun because a node had said when or where to come back.
    pub followed: u64,
}

/// How a series of broadcasts was heard. Times count from the moment before the push.
#[derive(Clone, Debug)]
pub struct Heard {
    pub waves: u32,
    pub listeners: u64,
    pub delivered: u64,
    /// Each broadcast's deliveries, in order.
    pub by_wave: Vec<u64>,
    pub first: Option<Duration>,
    pub last: Option<Duration>,
}

impl Heard {
    pub fn expected(&self) -> u64 {
        u64::from(self.waves) * self.listeners
    }

    pub fn is_complete(&self) -> bool {
        self.delivered >= self.expected()
    }
}

/// How a run of chats went.
#[derive(Clone, Debug)]
pub struct Chatted {
    pub issued: u64,
    /// Every message was stored, delivered and told of, or given up.
    pub is_settled: bool,
    pub took: Duration,
    pub tally: ChatTally,
    pub returned: Returned,
}

/// How clients came back that had lost their connection.
#[derive(Clone, Debug)]
pub struct Returned {
    pub tally: ReturnTally,
    /// How many were connected, about once a second, from when the crowd was gathered.
    pub over_time: Vec<Sample>,
    /// How many are connected now.
    pub open: u64,
    /// The most that were on their way at once.
    pub arriving_max: u64,
    /// Of each target: those connected now, and all registrations.
    pub by_target: Vec<(String, u64, u64)>,
}

/// How a crowd fared that was only held.
#[derive(Clone, Debug)]
pub struct Weathered {
    /// When all were connected for the first time, if they ever were.
    pub all_open: Option<Duration>,
    /// What of this host stopped the opening, if anything did.
    pub limit: Option<HostLimit>,
    pub returned: Returned,
}

/// How a volley of direct messages went.
#[derive(Clone, Debug)]
pub struct Talked {
    pub sent: u64,
    pub received: u64,
    pub took: Duration,
    /// Sender to receiver, in nanoseconds.
    pub latency: Histogram<u64>,
}

/// How a series of pushes went.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Pushes that were due.
    pub due: u64,
    pub took: Duration,
    pub said: PushTally,
    pub heard: PostTally,
}

/// How clients came and went.
#[derive(Clone, Debug)]
pub struct Churned {
    pub took: Duration,
    pub tally: ChurnTally,
    /// How many were connected, about once a second.
    pub over_time: Vec<Sample>,
}
