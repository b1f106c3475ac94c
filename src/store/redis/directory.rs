//! Who is connected where, as nodes see it in Redis: the values of session entries, and the calls
//! by which a node keeps its own entries right and takes out those of the dead.
//!
//! An entry is a field `s:<session>` in the hash of a user. Its value is words: the version, the
//! node, the epoch of that life of it, since when, ordinal, mark, device, display name. The last
//! two are escaped, and a name may be empty.

use redis::{Cmd, Value};

use super::Doorbell;
use super::ask::{self, Scene, list, natural};
use super::names::{FORMAT, SESSION, escape, unescape};
use super::scripts::Script;
use crate::inbox::DirectoryEntry;

/// What came of an entry that was to be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// False: it is one of those that had to go.
    pub stays: bool,
    /// Other sessions of this node that had to go.
    pub replaced: Vec<String>,
    pub doorbells: Vec<Doorbell>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cleaned {
    /// Entries that were taken out.
    pub count: u64,
    pub doorbells: Vec<Doorbell>,
}

/// An entry with the node that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub entry: DirectoryEntry,
    pub node: String,
    pub node_epoch: u64,
}

impl Scene<'_> {
    /// A session that is there already enters the directory, by its age.
    pub fn bind(&self, uid: &str, entry: &DirectoryEntry, sessions_max: usize) -> Cmd {
        let call = self.call(Script::Bind).with(uid).with(&entry.session);
        call.with(self.value_of(entry)).with(sessions_max.max(1)).0
    }

    /// Takes out what `node` left of a user in one of its lives, or, with 0, in all but the
    /// present one; the sessions in `keep` stay.
    pub fn clean(&self, uid: &str, node: &str, node_epoch: u64, keep: &[&str]) -> Cmd {
        let call = self.call(Script::Clean).with(uid).with(node);
        call.with(node_epoch).with(keep).0
    }

    pub(super) fn value_of(&self, entry: &DirectoryEntry) -> String {
        format!(
            "{FORMAT} {} {} {} {} {} {} {}",
            self.place.node,
            self.place.epoch,
            entry.since_secs,
            entry.ordinal,
            entry.mark,
            escape(&entry.device),
            escape(&entry.uname),
        )
    }
}

/// What is answered to `Scene::bind`. None: no script of this version says so.
pub fn bound(answer: Value) -> Option<Bound> {
    let (answer, doorbells) = ask::open(answer)?;
    let [stays, replaced] = list(answer)?;
    Some(Bound {
        stays: natural(&stays)? == 1,
        replaced: ask::texts(replaced)?,
        doorbells,
    })
}

/// What is answered to `Scene::clean`.
pub fn cleaned(answer: Value) -> Option<Cleaned> {
    let (count, doorbells) = ask::open(answer)?;
    Some(Cleaned {
        count: natural(&count)?,
        doorbells,
    })
}

/// Reads a field of a user's hash. None: it is no session, or its version is too new or too old.
pub fn read_session(field: &str, value: &[u8]) -> Option<Placed> {
    let session = field.strip_prefix(char::from(SESSION))?.strip_prefix(':')?;
    let mut words = std::str::from_utf8(value).ok()?.split(' ');
    let version: u32 = words.next()?.parse().ok()?;
    if version > FORMAT || version + 1 < FORMAT {
        return None;
    }
    Some(Placed {
        node: words.next()?.to_owned(),
        node_epoch: words.next()?.parse().ok()?,
        entry: DirectoryEntry {
            session: session.to_owned(),
            since_secs: words.next()?.parse().ok()?,
            ordinal: words.next()?.parse().ok()?,
            mark: words.next()?.parse().ok()?,
            device: unescape(words.next()?)?,
            uname: unescape(words.next()?)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::InboxRules;
    use crate::store::redis::Place;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let place = Place {
            node: "10.0.0.1:7".to_owned(),
            epoch: u64::MAX,
            is_broadcast: false,
        };
        let rules = InboxRules {
            entries_max: 1,
            bytes_max: 1,
            notices_max: 1,
            devices_max: 1,
            ttl_ms: 1,
            seen_ms: 1,
            seen_max: 1,
        };
        let scene = Scene {
            prefix: "",
            run: "",
            fresh_epoch: 0,
            now_ms: 0,
            rules: &rules,
            place: &place,
        };
        for uname in ["", "Ann 安 %20"] {
            let entry = DirectoryEntry {
                session: "s:1".to_owned(),
                since_secs: u32::MAX,
                ordinal: u16::MAX,
                mark: u64::MAX - 1,
                device: "ä device".to_owned(),
                uname: uname.to_owned(),
            };
            let value = scene.value_of(&entry);
            let placed = Placed {
                entry,
                node: place.node.clone(),
                node_epoch: place.epoch,
            };
            assert_eq!(read_session("s:s:1", value.as_bytes()), Some(placed));
        }
    }

    #[test]
    fn what_is_no_entry_is_read_as_none() {
        let good = "1 n 7 1 0 9 default ";
        assert!(read_session("s:x", good.as_bytes()).is_some());
        for (field, value) in [
            ("d:x", good),
            ("s", good),
            ("s:x", ""),
            ("s:x", "3 n 7 1 0 9 default "),
            ("s:x", "1 n 7 1 0 9 default"),
            ("s:x", "1 n 7 1 99999 9 default "),
        ] {
            assert_eq!(
                read_session(field, value.as_bytes()),
                None,
                "{field} {value}"
            );
        }
    }
}
