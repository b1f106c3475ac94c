//! Who is connected where: the policy of sessions, presence and doorbells over several nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::{Connection, PubSub};
use throng::inbox::batch::{Backend, Batch, Moment, Scene};
use throng::inbox::records::{Entry, EntryBody};
use throng::inbox::service::{Outcome, Request};
use throng::inbox::{Accept, Attach, Attached, DirectoryEntry, PresenceChange, Ring};
use throng::protocol::envelope::MessageId;
use throng::store::redis::{
    Answer, Asking, Bound, Doorbell, Link, Place, Placed, Redis, Word, bound, cleaned, fresh_epoch,
    names, read_session,
};

use crate::server::{PREFIX, Server};
use crate::world::{NODES, RULES, START, Table, place};

const ANYBODY: &str = "default";

/// Some nodes at one Redis, and somebody who hears all channels.
struct Rig<'c> {
    admin: Connection,
    heard: PubSub<'c>,
    nodes: Vec<Node>,
    ids: u64,
}

struct Node {
    redis: Redis,
    link: Link,
    place: Place,
}

impl Node {
    fn new(server: &Server, place: Place) -> Node {
        Node {
            redis: Redis::open(server.address(), PREFIX, place.clone()).unwrap(),
            link: Link::open(&server.address(), PREFIX).unwrap(),
            place,
        }
    }

    fn call(&mut self, make: impl FnOnce(&Asking<'_>) -> redis::Cmd) -> redis::Value {
        let run = self.link.run().to_owned();
        let asking = Asking {
            prefix: PREFIX,
            run: &run,
            fresh_epoch: fresh_epoch().unwrap(),
            now_ms: START,
            rules: &RULES,
            place: &self.place,
        };
        let command = make(&asking);
        match self.link.ask(&[command]).0.remove(0) {
            Answer::Value(value) => value,
            other => panic!("{other:?}"),
        }
    }
}

impl<'c> Rig<'c> {
    fn new(server: &Server, listener: &'c mut Connection, places: &[Place]) -> Rig<'c> {
        let mut heard = listener.as_pubsub();
        let patience = Some(Duration::from_secs(60));
        heard.set_read_timeout(patience).unwrap();
        heard.psubscribe(format!("{PREFIX}*")).unwrap();
        let mut rig = Rig {
            admin: server.admin(),
            heard,
            nodes: Vec::new(),
            ids: 0,
        };
        for place in places {
            rig.lease(&place.node, place.epoch);
            rig.nodes.push(Node::new(server, place.clone()));
        }
        // What a server is asked to prove a user's rights is heard too.
        rig.published();
        rig
    }

    fn two(server: &Server, listener: &'c mut Connection) -> Rig<'c> {
        Rig::new(server, listener, &[place(0), place(1)])
    }

    fn run<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(&mut self.admin).unwrap()
    }

    fn lease(&mut self, node: &str, epoch: u64) {
        let value = format!("{} {epoch} 3 2 9 up ws://x", names::FORMAT);
        self.run::<()>(&["SET", &format!("{PREFIX}{}{node}", names::LEASE), &value]);
    }

    fn die(&mut self, at: usize) {
        let node = self.nodes[at].place.node.clone();
        self.run::<()>(&["DEL", &format!("{PREFIX}{}{node}", names::LEASE)]);
    }

    /// The node wants to hear when the user comes and goes.
    fn watch(&mut self, uid: &str, node: &str, epoch: u64) {
        let value = format!("{} {epoch}", names::FORMAT);
        let key = names::key(PREFIX, names::CLIENT, uid);
        self.run::<()>(&["HSET", &key, &format!("w:{node}"), &value]);
    }

    fn ask(&mut self, at: usize, request: Request) -> Batch {
        let scene = Scene {
            presence: &Table::default(),
            rules: &RULES,
            epoch: 0,
            now: Moment {
                wall_ms: START,
                since_start: Duration::ZERO,
            },
        };
        let batch = self.nodes[at].redis.carry_out(&[&request], &scene);
        assert!(batch.failure.is_none(), "{:?}", batch.failure);
        assert!(batch.broken.is_none(), "{:?}", batch.broken);
        batch
    }

    fn attach(
        &mut self,
        at: usize,
        uid: &str,
        entry: &DirectoryEntry,
        most: usize,
    ) -> (Attached, Batch) {
        let attach = Attach {
            uid: uid.to_owned(),
            device: entry.device.clone(),
            cursor: None,
            page: 10,
            entry: Some(Box::new(entry.clone())),
            sessions_max: most,
        };
        let mut batch = self.ask(at, Request::Attach(Box::new(attach)));
        match batch.outcomes.remove(0) {
            Some(Outcome::Attached(attached)) => (*attached, batch),
            other => panic!("{other:?}"),
        }
    }

    /// Attaches, and says which sessions of the node have to go.
    fn begin(&mut self, at: usize, entry: &DirectoryEntry, most: usize) -> Vec<String> {
        self.attach(at, "bob", entry, most).0.replaced
    }

    fn end(&mut self, at: usize, session: &str) -> Batch {
        let (uid, session) = ("bob".to_owned(), session.to_owned());
        self.ask(at, Request::Unbind { uid, session })
    }

    fn bind(&mut self, at: usize, entry: &DirectoryEntry, most: usize) -> Bound {
        let answer = self.nodes[at].call(|asking| asking.bind("bob", entry, most));
        bound(answer).unwrap()
    }

    fn send(&mut self, at: usize, to: &str) -> Batch {
        self.ids += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.ids.to_be_bytes());
        let accept = Accept {
            to: to.to_owned(),
            sender: "alice".to_owned(),
            msgid: None,
            entry: Entry {
                id: MessageId(id).at(START),
                at_ms: START,
                from: "alice".to_owned(),
                request_id: None,
                is_http: false,
                body: EntryBody::Raw {
                    msg: "1".to_owned(),
                },
            },
        };
        self.ask(at, Request::Accept(Box::new(accept)))
    }

    /// The sessions that the directory names, with their nodes.
    fn directory(&mut self, uid: &str) -> BTreeMap<String, Placed> {
        let key = names::key(PREFIX, names::CLIENT, uid);
        let fields: BTreeMap<String, Vec<u8>> = self.run(&["HGETALL", &key]);
        let sessions = fields.iter().filter(|(field, _)| field.starts_with("s:"));
        let read = sessions.map(|(field, value)| read_session(field, value).unwrap());
        read.map(|placed| (placed.entry.session.clone(), placed))
            .collect()
    }

    fn sessions(&mut self, uid: &str) -> Vec<String> {
        self.directory(uid).into_keys().collect()
    }

    /// Users whom the directory names on a node.
    fn users_of(&mut self, at: usize) -> BTreeSet<String> {
        let node = self.nodes[at].place.node.clone();
        self.run(&[
            "SMEMBERS",
            &format!("{PREFIX}{}{node}", names::SERVER_CLIENTS),
        ])
    }

    /// What was published since it was last asked, with its channel.
    fn published(&mut self) -> Vec<(String, Doorbell)> {
        let mark = format!("{PREFIX}mark");
        self.run::<()>(&["PUBLISH", &mark, ""]);
        let mut all = Vec::new();
        loop {
            let message = self.heard.get_message().unwrap();
            let channel = message.get_channel_name();
            if channel == mark {
                return all;
            }
            if let Some(doorbell) = Doorbell::parse(message.get_payload_bytes()) {
                let channel = channel.strip_prefix(PREFIX).unwrap();
                all.push((channel.to_owned(), doorbell));
            }
        }
    }

    /// Sessions that were told to go, by node.
    fn closed(&mut self) -> Vec<(usize, String)> {
        let published = self.published().into_iter();
        let told = published.map(|(channel, doorbell)| match doorbell.word {
            Word::Close {
                uid, session, code, ..
            } => {
                assert_eq!((uid.as_str(), code), ("bob", 4409));
                let is_it = |(node, _): &(&str, u64)| channel == format!("node:{node}");
                let at = NODES.iter().position(is_it).unwrap();
                assert_eq!(doorbell.node_epoch, NODES[at].1);
                (at, session)
            }
            other => panic!("{other:?}"),
        });
        told.collect()
    }
}

fn session(name: &str, since_secs: u32, device: &str) -> DirectoryEntry {
    DirectoryEntry {
        session: name.to_owned(),
        since_secs,
        ordinal: 0,
        mark: u64::MAX,
        device: device.to_owned(),
        uname: "Bob".to_owned(),
    }
}

fn change(is_online: bool) -> PresenceChange {
    PresenceChange {
        uid: "bob".to_owned(),
        is_online,
        at_ms: START,
    }
}

#[test]
fn a_session_too_many_makes_the_oldest_go_on_whatever_node_it_is() {
    let server = Server::start();
    let mut listener = server.admin();
    let mut rig = Rig::two(&server, &mut listener);
    let second = DirectoryEntry {
        ordinal: 1,
        ..session("a second", 1, ANYBODY)
    };
    assert!(rig.begin(0, &second, 3).is_empty());
    assert!(rig.begin(1, &session("b first", 1, ANYBODY), 3).is_empty());
    assert!(rig.begin(0, &session("c", 2, "phone"), 3).is_empty());
    assert!(rig.closed().is_empty());
    // The node's clock is behind: the newest stays all the same.
    assert!(rig.begin(0, &session("d", 0, ANYBODY), 3).is_empty());
    assert_eq!(rig.closed(), [(1, "b first".to_owned())]);
    assert_eq!(rig.users_of(1), BTreeSet::new());
    assert_eq!(rig.begin(1, &session("e", 3, ANYBODY), 3), [""; 0]);
    assert_eq!(rig.closed(), [(0, "d".to_owned())]);
    assert_eq!(rig.begin(0, &session("f", 4, ANYBODY), 3), ["a second"]);
    assert!(rig.closed().is_empty());
    assert_eq!(rig.sessions("bob"), ["c", "e", "f"]);
    assert_eq!(rig.users_of(0), BTreeSet::from(["bob".to_owned()]));
}

#[test]
fn where_only_one_is_allowed_all_others_go() {
    let server = Server::start();
    let mut listener = server.admin();
    let mut rig = Rig::two(&server, &mut listener);
    rig.begin(0, &session("a", 1, ANYBODY), 8);
    rig.begin(1, &session("b", 2, ANYBODY), 8);
    rig.begin(1, &session("c", 3, "phone"), 8);
    let mut replaced = rig.begin(1, &session("d", 4, ANYBODY), 1);
    replaced.sort();
    assert_eq!(replaced, ["b", "c"]);
    assert_eq!(rig.closed(), [(0, "a".to_owned())]);
    assert_eq!(rig.sessions("bob"), ["d"]);
}

#[test]
fn a_named_device_has_one_session_and_anonymous_ones_as_many_as_there_is_room_for() {
    let server = Server::start();
    let mut listener = server.admin();
    let mut rig = Rig::two(&server, &mut listener);
    rig.begin(0, &session("a", 1, "phone"), 8);
    rig.begin(1, &session("b", 2, ANYBODY), 8);
    rig.begin(0, &session("c", 3, ANYBODY), 8);
    rig.begin(0, &session("d", 4, "pad"), 8);
    assert!(rig.closed().is_empty());
    assert!(rig.begin(1, &session("e", 5, "phone"), 8).is_empty());
    assert_eq!(rig.closed(), [(0, "a".to_owned())]);
    assert_eq!(rig.sessions("bob"), ["b", "c", "d", "e"]);
}

#[test]
fn entries_of_the_dead_are_taken_out_and_count_for_nothing() {
    let server = Server::start();
    let mut listener = server.admin();
    let mut rig = Rig::two(&server, &mut listener);
    rig.begin(1, &session("a", 1, ANYBODY), 2);
    rig.begin(1, &session("b", 2, "phone"), 2);
    rig.die(1);
    rig.watch("bob", NODES[0].0, NODES[0].1);
    let (attached, batch) = rig.attach(0, "bob", &session("c", 3, "phone"), 2);
    assert_eq!(attached.replaced, [""; 0]);
    assert_eq!(batch.presence, [change(true)], "nobody was there");
    assert!(rig.published().is_empty());
    assert_eq!(rig.sessions("bob"), ["c"]);
    assert_eq!(rig.users_of(1), BTreeSet::new());
    // Another life of the node makes its old entries stale too.
    rig.lease(NODES[0].0, NODES[0].1 + 1);
    rig.lease(NODES[1].0, NODES[1].1);
    rig.begin(1, &session("d", 4, "phone"), 2);
    let is_close = |(_, bell): &(String, Doorbell)| matches!(bell.word, Word::Close { .. });
    assert!(!rig.published().iter().any(is_close));
    assert_eq!(rig.sessions("bob"), ["d"]);
}

#[test]
fn the_end_of_a_session_never_takes_out_one_of_another_life_or_node() {
    let server = Server::start();
    let mut listener = server.admin();
    let later = Place {
        epoch: 12,
        ..place(0)
    };
    let mut rig = Rig::new(&server, &mut listener, &[place(0), place(1), later]);
    let entry = session("a", 1, "phone");
    rig.begin(0, &entry, 8);
    rig.begin(2, &entry, 8);
    rig.end(0, "a");
    assert_eq!(rig.directory("bob")["a"].node_epoch, 12);
    rig.end(1, "a");
    assert_eq!(rig.sessions("bob"), ["a"]);
    rig.begin(1, &entry, 8);
    assert_eq!(rig.users_of(0), BTreeSet::new());
    rig.end(2, "a");
    assert_eq!(rig.directory("bob")["a"].node, NODES[1].0);
    rig.end(1, "a");
    assert_eq!(rig.sessions("bob"), [""; 0]);
    assert_eq!(rig.users_of(1), BTreeSet::new());
}

#[test]
fn only_the_first_coming_and_the_last_going_are_told_and_only_to_watchers() {
    let server = Server::start();
    let mut listener = server.admin();
    let mut rig = Rig::two(&server, &mut listener);
    rig.attach(0, "carol", &session("x", 1, ANYBODY), 8);
    rig.watch("bob", NODES[0].0, NODES[0].1);
    rig.watch("bob", NODES[1].0, NODES[1].1);
    let to_other = |rig: &mut Rig<'_>, is_online: bool| {
        let published = rig.published();
        let [(channel, doorbell)] = &published[..] else {
            panic!("{published:?}");
        };
        assert_eq!(*channel, format!("node:{}", NODES[1].0));
        assert_eq!(doorbell.node_epoch, NODES[1].1);
        assert_eq!(doorbell.from, NODES[0].0);
        assert_eq!(doorbell.word, Word::Presence(change(is_online)));
    };
    let (_, batch) = rig.attach(0, "bob", &session("a", 1, ANYBODY), 8);
    assert_eq!(batch.presence, [change(true)]);
    to_other(&mut rig, true);
    let (_, batch) = rig.attach(1, "bob", &session("b", 2, ANYBODY), 8);
    assert!(batch.presence.is_empty());
    assert!(rig.end(0, "a").presence.is_empty());
    assert!(rig.published().is_empty());
    rig.begin(0, &session("c", 3, ANYBODY), 8);
    // What a dead node has left is not somebody.
    rig.die(1);
    assert_eq!(rig.end(0, "c").presence, [change(false)]);
    to_other(&mut rig, false);
    assert!(rig.end(0, "c").presence.is_empty(), "it is gone already");
}

#[test]
fn names_may_hold_anything() {
    let server = Server::start();
    let mut listener = server.admin();
    let mut rig = Rig::two(&server, &mut listener);
    let uid = "c.{a}-%rol@x é\n安";
    let entry = DirectoryEntry {
        session: "s: {é} %20\n".to_owned(),
        since_secs: u32::MAX,
        ordinal: u16::MAX,
        mark: (1 << 60) + 1,
        device: "ä device %".to_owned(),
        uname: "安 %41 ".to_owned(),
    };
    rig.watch(uid, NODES[1].0, NODES[1].1);
    rig.attach(0, uid, &entry, 8);
    let placed = Placed {
        entry: entry.clone(),
        node: NODES[0].0.to_owned(),
        node_epoch: NODES[0].1,
    };
    assert_eq!(rig.directory(uid)[&entry.session], placed);
    assert_eq!(rig.users_of(0), BTreeSet::from([uid.to_owned()]));
    rig.attach(1, uid, &session("b", 1, "ä device %"), 8);
    let words: Vec<Word> = rig
        .published()
        .into_iter()
        .map(|(_, bell)| bell.word)
        .collect();
    let came = PresenceChange {
        uid: uid.to_owned(),
        is_online: true,
        at_ms: START,
    };
    let close = Word::Close {
        uid: uid.to_owned(),
        session: entry.session,
        code: 4409,
    };
    assert_eq!(words, [Word::Presence(came), close]);
    let rings = rig.send(1, uid).rings;
    assert!(matches!(&rings[..], [Ring::Entry { uid: rung, .. }] if rung == uid));
}

#[test]
fn a_node_hears_its_own_doorbells_in_the_answer_and_the_others_on_their_channels() {
    let server = Server::start();
    let mut listener = server.admin();
    let mut rig = Rig::two(&server, &mut listener);
    rig.begin(0, &session("a", 1, ANYBODY), 8);
    rig.begin(0, &session("b", 2, ANYBODY), 8);
    rig.begin(1, &session("c", 3, ANYBODY), 8);
    let rings = rig.send(0, "bob").rings;
    assert!(
        matches!(&rings[..], [Ring::Entry { seq: 1, .. }]),
        "{rings:?}"
    );
    let published = rig.published();
    let [(channel, doorbell)] = &published[..] else {
        panic!("{published:?}");
    };
    assert_eq!(*channel, format!("node:{}", NODES[1].0));
    assert_eq!(doorbell.word, Word::Ring(rings[0].clone()));
    assert_eq!(doorbell.from, NODES[0].0);
    assert!(rig.send(0, "nobody").rings.is_empty());
}

#[test]
fn with_broadcasts_every_node_hears_everything_and_nothing_says_who_is_where() {
    let server = Server::start();
    let mut listener = server.admin();
    let places = [0, 1].map(|at| Place {
        is_broadcast: true,
        ..place(at)
    });
    let mut rig = Rig::new(&server, &mut listener, &places);
    let (attached, _) = rig.attach(0, "bob", &session("a", 1, ANYBODY), 1);
    assert!(attached.is_known, "its inbox begins");
    rig.attach(1, "bob", &session("b", 2, ANYBODY), 1);
    assert!(rig.published().is_empty(), "nobody is replaced");
    assert_eq!(rig.sessions("bob"), [""; 0]);
    rig.end(0, "a");
    let rings = rig.send(0, "bob").rings;
    assert!(
        matches!(&rings[..], [Ring::Entry { seq: 1, .. }]),
        "{rings:?}"
    );
    let published = rig.published();
    let [(channel, doorbell)] = &published[..] else {
        panic!("{published:?}");
    };
    assert_eq!((channel.as_str(), doorbell.node_epoch), (names::ALL, 0));
    assert_eq!(doorbell.from, NODES[0].0);
    assert_eq!(doorbell.word, Word::Ring(rings[0].clone()));
}

#[test]
fn who_enters_late_counts_by_age() {
    let server = Server::start();
    let mut listener = server.admin();
    let mut rig = Rig::two(&server, &mut listener);
    rig.begin(0, &session("a", 5, "phone"), 2);
    let older = rig.bind(1, &session("b", 4, "phone"), 2);
    assert!(!older.stays && older.replaced.is_empty());
    assert!(rig.closed().is_empty());
    assert!(rig.bind(1, &session("c", 3, ANYBODY), 2).stays);
    assert!(!rig.bind(1, &session("d", 2, ANYBODY), 2).stays);
    assert_eq!(rig.sessions("bob"), ["a", "c"]);
    let younger = rig.bind(1, &session("e", 6, ANYBODY), 2);
    assert_eq!(
        (younger.stays, younger.replaced),
        (true, vec!["c".to_owned()])
    );
    assert!(rig.bind(1, &session("f", 7, "phone"), 2).stays);
    assert_eq!(rig.closed(), [(0, "a".to_owned())]);
    // Entering again changes nothing.
    assert!(rig.bind(1, &session("f", 7, "phone"), 2).stays);
    assert_eq!(rig.sessions("bob"), ["e", "f"]);
    assert_eq!(rig.users_of(1), BTreeSet::from(["bob".to_owned()]));
    rig.watch("carol", NODES[1].0, NODES[1].1);
    let answer = rig.nodes[1].call(|asking| asking.bind("carol", &session("x", 1, "pad"), 2));
    let doorbells = bound(answer).unwrap().doorbells;
    assert!(matches!(&doorbells[..], [bell] if matches!(bell.word, Word::Presence(_))));
}

#[test]
fn what_a_dead_node_left_is_taken_out_and_the_watchers_hear_of_it() {
    let server = Server::start();
    let mut listener = server.admin();
    let mut rig = Rig::two(&server, &mut listener);
    rig.begin(1, &session("a", 1, ANYBODY), 8);
    rig.begin(1, &session("b", 2, ANYBODY), 8);
    rig.watch("bob", NODES[0].0, NODES[0].1);
    rig.watch("bob", NODES[1].0, NODES[1].1);
    let clean = |rig: &mut Rig<'_>, epoch: u64, keep: &[&str]| {
        let answer = rig.nodes[0].call(|asking| asking.clean("bob", NODES[1].0, epoch, keep));
        cleaned(answer).unwrap()
    };
    assert_eq!(clean(&mut rig, 0, &[]).count, 0, "it lives");
    assert_eq!(clean(&mut rig, NODES[1].1 + 1, &[]).count, 0);
    let some = clean(&mut rig, NODES[1].1, &["b"]);
    assert_eq!((some.count, some.doorbells.len()), (1, 0));
    assert_eq!(rig.sessions("bob"), ["b"]);
    assert_eq!(rig.users_of(1), BTreeSet::from(["bob".to_owned()]));
    rig.lease(NODES[1].0, NODES[1].1 + 1);
    let rest = clean(&mut rig, 0, &[]);
    assert_eq!(rest.count, 1);
    let words: Vec<_> = rest.doorbells.into_iter().map(|bell| bell.word).collect();
    assert_eq!(words, [Word::Presence(change(false))]);
    assert_eq!(rig.users_of(1), BTreeSet::new());
    assert!(rig.published().is_empty(), "the dead do not watch");
    let key = names::key(PREFIX, names::CLIENT, "bob");
    let watchers: Vec<String> = rig.run(&["HKEYS", &key]);
    assert_eq!(watchers, [format!("w:{}", NODES[0].0)]);
}
