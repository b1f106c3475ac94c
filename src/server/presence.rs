//! The hub of a node, and telling watchers that a user came or went.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{ServeError, start};
use crate::hub::code::UserCodes;
use crate::hub::ids::MessageIds;
use crate::hub::node::Node;
use crate::hub::others::Others;
use crate::hub::post::{Post, write_presence};
use crate::hub::roster::{OnPresence, Roster};
use crate::hub::watches::Watches;
use crate::mailbox::Switchboard;
use crate::protocol::envelope::Head;

/// The hub, observed where presence is this node's own affair; and who tells it to watchers.
pub fn post(
    node: &Arc<Node>,
    switchboard: &Switchboard,
    others: Option<Arc<Others>>,
    codes: UserCodes,
) -> Result<(Arc<Post>, OnPresence), ServeError> {
    let watches = Arc::new(Watches::default());
    let ids = MessageIds::new(start::seed()?);
    let teller = teller(watches.clone(), switchboard.clone(), ids);
    let roster = Roster::for_sessions(node.max_connections);
    // Where several nodes know who is where, the store says who comes and goes.
    let has_directory = others.as_ref().is_some_and(|others| others.has_directory);
    let roster = match has_directory {
        true => roster,
        false => roster.observed_by(teller.clone()),
    };
    let post = Arc::new(Post {
        roster,
        watches,
        codes,
        node: node.clone(),
        others,
    });
    Ok((post, teller))
}

/// By mail to every watcher, also where it lives on the same reactor: so a watcher hears of one
/// user's coming and going in the order in which it happened.
fn teller(watches: Arc<Watches>, switchboard: Switchboard, ids: MessageIds) -> OnPresence {
    let ids = Mutex::new(ids);
    Arc::new(move |uid, is_online| {
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
