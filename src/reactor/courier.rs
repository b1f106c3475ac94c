//! How a reactor's own sessions reach others: by a list that it works through itself where they
//! are its own too, and by mail where they are not.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::command;
use crate::hub::ids::MessageIds;
use crate::hub::node::Node;
use crate::hub::post::{Carrier, Jammed, Selector};
use crate::mailbox::{AwayBox, MailboxFull, Switchboard};
use crate::parts::key::Key;
use crate::protocol::away::Errand;
use crate::protocol::envelope::{Head, MessageId};
use crate::protocol::limits::Limit;
use crate::stats::ReactorStats;

/// Strikes of one call into a session that are remembered for the log.
const STRUCK_MAX: usize = 8;

pub struct Courier {
    node: Arc<Node>,
    switchboard: Switchboard,
    pub stats: Arc<ReactorStats>,
    pub ids: MessageIds,
    /// The connection whose session is running.
    pub key: Key,
    pub away: AwayBox,
    /// Messages for connections of this reactor: whose, behind which head, and where the tail
    /// lies in `tails`.
    pub local: Vec<(Key, Head, Range<usize>)>,
    pub tails: Vec<u8>,
    /// Limits that have struck since the reactor looked.
    pub struck: Vec<Limit>,
}

impl Courier {
    pub fn new(
        node: Arc<Node>,
        switchboard: Switchboard,
        stats: Arc<ReactorStats>,
        ids: MessageIds,
        away: AwayBox,
    ) -> Courier {
        Courier {
            node,
            switchboard,
            stats,
            ids,
            key: Key::new(0, 0, 0),
            away,
            local: Vec::new(),
            tails: Vec::new(),
            struck: Vec::new(),
        }
    }

    pub fn note_strike(&mut self, limit: Limit) {
        self.stats.strikes.count(limit);
        if self.struck.len() < STRUCK_MAX {
            self.struck.push(limit);
        }
    }

    fn refused<T>(&mut self, count: usize) -> Result<T, Jammed> {
        self.stats.dropped.add(count as u64);
        Err(Jammed)
    }
}

impl Carrier for Courier {
    fn message_id(&mut self) -> MessageId {
        self.ids.message_id()
    }

    fn carry(
        &mut self,
        to: &[Key],
        head: Head,
        write: &dyn Fn(&mut Vec<u8>),
    ) -> Result<(), Jammed> {
        if self.node.is_out_of_room() {
            self.note_strike(Limit::NodeQueue);
            return self.refused(to.len());
        }
        let start = self.tails.len();
        write(&mut self.tails);
        let tail = start..self.tails.len();
        let mut remote: SmallVec<[Key; 8]> = SmallVec::new();
        for &key in to {
            if key.reactor() == self.key.reactor() {
                self.local.push((key, head, tail.clone()));
            } else {
                remote.push(key);
            }
        }
        if remote.is_empty() {
            return Ok(());
        }
        let shared: command::Shared = Arc::from(&self.tails[tail]);
        match self.switchboard.deliver(&remote, head, &shared) {
            Ok(()) => Ok(()),
            Err(MailboxFull) => self.refused(remote.len()),
        }
    }

    fn broadcast(&mut self, frame: Vec<u8>, selector: Option<Selector>) -> Result<(), Jammed> {
        if self.node.is_out_of_room() {
            self.note_strike(Limit::NodeQueue);
            return self.refused(1);
        }
        let frame = command::Shared::from(frame);
        match self.switchboard.broadcast(&frame, selector.clone()) {
            Ok(()) => {
                self.send_away(Errand::Broadcast { frame, selector });
                Ok(())
            }
            Err(MailboxFull) => self.refused(1),
        }
    }

    fn send_away(&mut self, errand: Errand) {
        self.away.send_quietly(errand);
    }

    fn strike(&mut self, limit: Limit) {
        self.note_strike(limit);
    }
}
