//! What the crowd and its workers say to each other.

use std::io;
use std::sync::Arc;

use hdrhistogram::Histogram;

use crate::chat::ChatTally;
use crate::churn::{ChurnTally, Manners};
use crate::counts::Counts;
use crate::opening::HostLimit;
use crate::post::{PostTally, Series};
use crate::returns::ReturnTally;
use crate::schedule::Schedule;
use crate::tally::{Shared, Tally};

/// What the crowd asks of a worker. Each task is answered with [`Report::Done`] of its number.
pub enum Command {
    /// Opens clients up to this index.
    Open { task: u32, until: u32 },
    /// Waits for broadcasts; answered at once with [`Report::Ready`].
    Hear { task: u32, first: u32, count: u32 },
    /// Takes part in a volley; done when the whole volley is.
    Talk {
        task: u32,
        shared: Arc<Shared>,
        in_flight: u32,
    },
    /// Has the clients talk; whoever asks looks at what all of them share to see how far it is.
    Chat { schedule: Schedule },
    /// Has the clients hear a series of pushes; answered at once with [`Report::Ready`].
    Listen { series: Arc<Series> },
    /// Has the clients, none of whom is connected, come and go; whoever is done is done for good.
    Churn {
        task: u32,
        manners: Manners,
        schedule: Schedule,
    },
    /// Ends the task, whether done or not; answered with [`Report::Part`].
    Collect,
    /// Resets all connections and ends.
    Leave,
}

pub enum Report {
    Ready,
    Done { task: u32 },
    Part(Box<Part>),
    Died(io::Error),
}

/// What a worker has to tell of its task, and of everything so far.
pub struct Part {
    pub counts: Counts,
    pub limit: Option<HostLimit>,
    pub listeners: u64,
    pub tallies: Vec<Tally>,
    pub talk: Option<(u64, Histogram<u64>)>,
    pub chat: Option<Box<ChatTally>>,
    pub returns: Option<Box<ReturnTally>>,
    pub posts: Option<Box<PostTally>>,
    pub churn: Option<Box<ChurnTally>>,
}
