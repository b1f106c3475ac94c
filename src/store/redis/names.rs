//! The names of every key and channel, and the numbers that scripts and this process share.
//!
//! They are written down here once: scripts name them, and have their values put in.
//! Keys of one user or group end with its id in braces, which Redis Cluster takes for the part
//! that decides where a key lives. What of an id is no letter, digit or one of `_.@-` is escaped
//! (`%` and two digits), so that no two ids have one key.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

use crate::inbox::records::VERSION;
use crate::inbox::{AGAIN_MS, DAY_MS, IDLE_MS, LOOK, PAGE_BYTES, PAGE_ENTRIES};
use crate::protocol::metadata::ANONYMOUS;

/// Arguments that all scripts have, before their own.
pub const HEADER: usize = 14;
/// The close code of a session that had to go for another one.
pub const REPLACED: u16 = 4409;
/// Letters of the fields of a user's hash that there are many of: a colon and a name follow.
pub const SESSION: u8 = b's';
pub const WATCHER: u8 = b'w';
const DEVICE: u8 = b'd';

/// Of what scripts write, and of doorbells. Scripts read their own version and the one before.
pub const FORMAT: u32 = 1;
/// What all names begin with where nothing else is configured.
pub const PREFIX: &str = "throng:";

/// Constants of one kind, and the same by name as Lua writes them.
macro_rules! shared {
    ($lua:ident: $type:ty { $($(#[$doc:meta])* $name:ident = $value:expr;)* }) => {
        $($(#[$doc])* pub const $name: $type = $value;)*

        fn $lua() -> impl Iterator<Item = (&'static str, String)> {
            [$((stringify!($name), $name)),*]
                .into_iter()
                .map(|(name, value)| (name, format!("{value:?}")))
        }
    };
}

shared! { keys: &str {
    /// Hash of a user: the inbox without its entries (`epoch`, `seq`, `state`, known devices
    /// `d:`, forgotten ones `f:`), the sessions (`s:`), and the nodes that want to know when the
    /// user comes and goes (`w:`).
    CLIENT = "client:";
    /// Stream of a user: entries, each under its number and the letter of its kind.
    INBOX = "inbox:";
    /// Hash of a user: what is remembered of messages. See seen.lua.
    SEEN = "seen:";
    /// Sorted set of a user: the ids of the same messages, oldest first.
    AGES = "ages:";
    /// Sorted set: members in the order of joining.
    GROUP = "group:";
    /// Stream: messages that not all members have got.
    GROUP_LOG = "grouplog:";
    /// How far the oldest of them has come.
    GROUP_MARK = "groupmark:";
    GROUP_SEEN = "groupseen:";
    GROUP_AGES = "groupages:";
    /// Sorted set of a user: his groups by name.
    GROUPS_OF = "groups:";
    /// Sorted set: all groups by name.
    GROUPS = "allgroups";
    /// Sorted set: groups with work, by when somebody took it up last.
    WORK = "work";
    /// Sorted set: ids of messages that are due later, by when; and traces of those that were.
    DELAY = "delay";
    /// Hash: those messages by id.
    DELAYED = "delayed";
    /// Sorted sets: when to look for what has grown old.
    DUE_INBOXES = "dueinboxes";
    DUE_GROUPS = "duegroups";
    /// Hash: the epoch of inboxes that begin now, and the server under which it was made.
    STORE = "store";
    /// Set of a node: users who have sessions there.
    SERVER_CLIENTS = "serverclients:";
    /// String of a node that lives, by its name: FORMAT, the epoch of this life, and more words.
    LEASE = "lease:";
    /// Hash: all nodes, and where they are reached.
    SERVERS = "websocket_server";
    /// String: what tokens are signed with where nothing is configured.
    SECRET = "secret";
    /// Channel of a node: doorbells.
    NODE = "node:";
    /// Channel of every node: doorbells, where they are broadcast.
    ALL = "all";
    /// Channel of every node: what concerns the cluster itself.
    CTL = "ctl";
} }

shared! { kinds: &str {
    /// A single chat: its sender hears when it is got.
    CHAT = "c";
    /// A type 17.
    NOTICE = "n";
    OTHER = "o";
} }

shared! { codes: i64 {
    NEW = 1;
    AGAIN = 2;
    CONFLICT = 3;
    FULL = 4;
    DONE = 10;
    EXISTS = 11;
    NOT_FOUND = 12;
    NOT_MEMBER = 13;
    CROWDED = 14;
    TOO_MANY = 15;
    BAD_ID = 16;
    CANCELLED = 20;
    TOO_LATE = 21;
    UNKNOWN = 22;
} }

const SPECIAL: AsciiSet = NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'@')
    .remove(b'-');

/// All names that scripts use, and what Lua writes for them.
pub fn in_lua() -> BTreeMap<&'static str, String> {
    let numbers = [
        ("FORMAT", u64::from(FORMAT)),
        ("RECORD", u64::from(VERSION)),
        ("HEADER", HEADER as u64),
        ("REPLACED", u64::from(REPLACED)),
        ("COLON", u64::from(b':')),
        ("SESSION", u64::from(SESSION)),
        ("WATCHER", u64::from(WATCHER)),
        ("DEVICE", u64::from(DEVICE)),
        // Where the id stands in a row, counted as Lua does.
        ("ID_AT", 2),
        ("IDLE_MS", IDLE_MS),
        ("DAY_MS", DAY_MS),
        ("HOUR_MS", DAY_MS / 24),
        ("AGAIN_MS", AGAIN_MS),
        ("LOOK", LOOK as u64),
        // Members who get the last messages of a group in the step that ends it.
        ("END_MAX", 512),
        // Ids of messages that are looked at in one inbox, and in all of one step, about.
        ("SWEEP_IDS", 4_096),
        ("SWEEP_MAX", 4_096),
        ("PAGE_ENTRIES", PAGE_ENTRIES as u64),
        ("PAGE_BYTES", PAGE_BYTES as u64),
    ];
    let numbers = numbers.map(|(name, value)| (name, value.to_string()));
    let anonymous = ("ANONYMOUS", format!("{ANONYMOUS:?}"));
    let all = keys().chain(kinds()).chain(codes()).chain(numbers);
    all.chain([anonymous]).collect()
}

/// The key of one user or group.
pub fn key(prefix: &str, name: &str, id: &str) -> String {
    format!("{prefix}{name}{{{}}}", escape(id))
}

/// One word, whatever the text holds.
pub fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, &SPECIAL).to_string()
}

/// The text of such a word.
pub fn unescape(word: &str) -> Option<String> {
    let bytes = percent_encoding::percent_decode_str(word);
    bytes.decode_utf8().ok().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_ids_have_one_key() {
        let ids = ["a", "A", "a}", "a%7D", "{a", "é", "a b", "a:b", "", "a\0"];
        let mut keys: Vec<_> = ids.iter().map(|id| key(PREFIX, CLIENT, id)).collect();
        assert_eq!(keys[0], "throng:client:{a}");
        assert_eq!(keys[2], "throng:client:{a%7D}");
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), ids.len());
    }
}
