//! Telling connections that their inbox has grown.
//!
//! Owns: the users whose connections could not be told, because a mailbox was full. They are told
//! to look, soon.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::command::RungOut;
use crate::hub::post::Post;
use crate::inbox::Ring;
use crate::mailbox::Switchboard;

/// How soon a full mailbox is tried again.
pub const RETRY: Duration = Duration::from_millis(50);

pub struct Bells {
    post: Arc<Post>,
    switchboard: Switchboard,
    unrung: BTreeSet<String>,
}

impl Bells {
    pub fn new(post: Arc<Post>, switchboard: Switchboard) -> Bells {
        Bells {
            post,
            switchboard,
            unrung: BTreeSet::new(),
        }
    }

    /// Tells the connections of a user. Where that fails they find it when they look: soon.
    pub fn ring(&mut self, ring: Ring) {
        let uid = ring.uid().to_owned();
        let sessions = self.post.roster.find(&uid);
        if sessions.is_empty() {
            return;
        }
        let is_told = match ring {
            Ring::Lost { .. } => self.switchboard.look(&sessions),
            Ring::Entry {
                epoch,
                seq,
                entry,
                but,
                ..
            } => {
                let rung = RungOut {
                    epoch,
                    seq,
                    entry,
                    but: but.map(|mark| self.post.node.marked(mark)),
                };
                self.switchboard.ring(&sessions, &Arc::new(rung))
            }
        };
        if is_told.is_err() {
            self.unrung.insert(uid);
        }
    }

    /// These users' connections should look.
    pub fn look(&mut self, uids: impl IntoIterator<Item = String>) {
        self.unrung.extend(uids);
    }

    pub fn is_behind(&self) -> bool {
        !self.unrung.is_empty()
    }

    pub fn try_again(&mut self) {
        let (post, switchboard) = (&self.post, &self.switchboard);
        self.unrung
            .retain(|uid| switchboard.look(&post.roster.find(uid)).is_err());
    }
}
