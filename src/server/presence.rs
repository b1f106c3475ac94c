//! Telling watchers that a user came or went.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::hub::ids::MessageIds;
use crate::hub::post::write_presence;
use crate::hub::roster::OnPresence;
use crate::hub::watches::Watches;
use crate::mailbox::Switchboard;
use crate::protocol::envelope::Head;

/// By mail to every watcher, also where it lives on the same reactor: so a watcher hears of one
/// user's coming and going in the order in which it happened.
pub fn teller(watches: Arc<Watches>, switchboard: Switchboard, ids: MessageIds) -> OnPresence {
    let ids = Mutex::new(ids);
    Box::new(move |uid, is_online| {
        let watchers = watches.watchers(uid);
        if watchers.is_empty() {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| now.as_millis() as u64);
        let id = ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .message_id();
        let mut tail = Vec::new();
        write_presence(uid, is_online, id, now_ms, &mut tail);
        // A watcher on a reactor that is too far behind for its mail misses it.
        let _ = switchboard.deliver(&watchers, Head::Envelope, &tail.into());
    })
}
