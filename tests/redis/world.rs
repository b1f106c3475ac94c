//! Requests in two worlds: the contract over rows in memory, and the same in a real Redis. What
//! they come to, what rings, and what stands in the inboxes has to be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::{Connection, PubSub};
use smallvec::SmallVec;
use throng::inbox::batch::{Backend, Batch, Moment, Scene};
use throng::inbox::memory::MemoryRows;
use throng::inbox::records::{Author, Entry, EntryBody, Text};
use throng::inbox::service::{Outcome, Request};
use throng::inbox::{
    Accept, Attach, Books, Cursor, DirectoryEntry, IDLE_MS, InboxRules, Page, Presence, Ring,
    epoch_at,
};
use throng::protocol::envelope::MessageId;
use throng::store::redis::{Doorbell, Place, Redis, Word, names};

use crate::server::Server;

pub const START: u64 = 1_700_000_000_000;
/// As they are by default.
pub const RULES: InboxRules = InboxRules {
    entries_max: 1_000,
    bytes_max: 8 << 20,
    notices_max: 1_000,
    devices_max: 8,
    ttl_ms: 7 * 24 * 3_600_000,
    seen_ms: 24 * 3_600_000,
    seen_max: 10_000,
};

/// Two nodes, each in its life.
pub const NODES: [(&str, u64); 2] = [("10.0.0.1:7", 11), ("10.0.0.2:7", 22)];

pub fn place(at: usize) -> Place {
    let (node, epoch) = NODES[at];
    Place {
        node: node.to_owned(),
        epoch,
        is_broadcast: false,
    }
}

/// Who is connected: by user and device, on which of the nodes.
#[derive(Default)]
pub struct Table(pub BTreeMap<String, BTreeMap<String, usize>>);

impl Presence for Table {
    fn devices(&self, uid: &str) -> SmallVec<[String; 2]> {
        let devices = self.0.get(uid);
        devices.map_or_else(SmallVec::new, |devices| devices.keys().cloned().collect())
    }
}

pub struct World {
    pub redis: Redis,
    /// The other node. What is not an attach or its end, the first one is asked for.
    other: Redis,
    /// What rang in answers since somebody listened, and on which node.
    own_rings: Vec<(usize, Ring)>,
    rows: MemoryRows,
    pub present: Table,
    pub rules: InboxRules,
    pub now_ms: u64,
    since_start: Duration,
    store_epoch: u64,
    ids: u64,
    prefix: String,
    admin: Connection,
}

/// What was heard on each node, in answers and on its channel, by node and user, in its order.
pub type Heard = BTreeMap<(usize, String), Vec<Ring>>;

impl World {
    pub fn new(server: &Server, prefix: &str, rules: InboxRules) -> World {
        for (node, epoch) in NODES {
            let lease = format!("{prefix}{}{node}", names::LEASE);
            server.command(&["SET", &lease, &format!("1 {epoch} 0 0 0 up")]);
        }
        let mut world = World {
            redis: Redis::open(server.address(), prefix, place(0)).unwrap(),
            other: Redis::open(server.address(), prefix, place(1)).unwrap(),
            own_rings: Vec::new(),
            rows: MemoryRows::default(),
            present: Table::default(),
            rules,
            now_ms: START,
            since_start: Duration::ZERO,
            store_epoch: 0,
            ids: 0,
            prefix: prefix.to_owned(),
            admin: server.admin(),
        };
        let nobody = Request::Look {
            uid: "nobody".to_owned(),
            after: 0,
            limit: 1,
        };
        let Some(Outcome::Page(page)) = world.ask_redis(&[nobody]).outcomes.remove(0) else {
            panic!("a look has no page");
        };
        world.store_epoch = page.epoch - START / IDLE_MS;
        world
    }

    pub fn epoch(&self) -> u64 {
        epoch_at(self.store_epoch, self.now_ms)
    }

    pub fn subscribe<'c>(&self, connection: &'c mut Connection) -> PubSub<'c> {
        let mut heard = connection.as_pubsub();
        for (node, _) in NODES {
            heard.subscribe(self.channel(node)).unwrap();
        }
        heard
    }

    fn channel(&self, node: &str) -> String {
        format!("{}{}{node}", self.prefix, names::NODE)
    }

    /// The storekeeper lets a second pass.
    pub fn rest(&mut self) {
        self.since_start += Duration::from_secs(1);
    }

    pub fn carry_out(&mut self, requests: &[Request]) -> Batch {
        self.carry_out_at(0, requests)
    }

    fn carry_out_at(&mut self, at: usize, requests: &[Request]) -> Batch {
        let requests: Vec<&Request> = requests.iter().collect();
        let scene = Scene {
            presence: &self.present,
            rules: &self.rules,
            epoch: 0,
            now: Moment {
                wall_ms: self.now_ms,
                since_start: self.since_start,
            },
        };
        let node = if at == 0 {
            &mut self.redis
        } else {
            &mut self.other
        };
        let batch = node.carry_out(&requests, &scene);
        let rings = batch.rings.iter().cloned();
        self.own_rings.extend(rings.map(|ring| (at, ring)));
        batch
    }

    pub fn ask_redis(&mut self, requests: &[Request]) -> Batch {
        self.ask_redis_at(0, requests)
    }

    pub fn ask_redis_at(&mut self, at: usize, requests: &[Request]) -> Batch {
        let batch = self.carry_out_at(at, requests);
        assert!(batch.failure.is_none(), "{:?}", batch.failure);
        assert!(batch.broken.is_none(), "{:?}", batch.broken);
        batch
    }

    /// All that an inbox in Redis holds.
    pub fn look(&mut self, uid: &str) -> Page {
        let request = Request::Look {
            uid: uid.to_owned(),
            after: 0,
            limit: 300,
        };
        match self.ask_redis(&[request]).outcomes.remove(0) {
            Some(Outcome::Page(page)) => *page,
            other => panic!("{other:?}"),
        }
    }

    /// Until nothing is left that could be done now.
    pub fn drain_redis(&mut self) {
        let now = Moment {
            wall_ms: self.now_ms,
            since_start: self.since_start,
        };
        while self.redis.patience(now) == Duration::ZERO {
            self.ask_redis(&[]);
        }
    }

    fn books<T>(&mut self, rings: &mut Vec<Ring>, work: impl FnOnce(&mut Books<'_>) -> T) -> T {
        let mut books = Books {
            epoch: epoch_at(self.store_epoch, self.now_ms),
            rows: &mut self.rows,
            presence: &self.present,
            rules: &self.rules,
            now_ms: self.now_ms,
            rings,
        };
        let result = work(&mut books);
        self.rows.commit();
        result
    }

    /// Asks both, and compares all that can be seen. Returns the outcomes.
    pub fn ask(&mut self, heard: &mut PubSub<'_>, requests: &[Request]) -> Vec<Outcome> {
        self.ask_at(0, heard, requests)
    }

    fn ask_at(&mut self, at: usize, heard: &mut PubSub<'_>, requests: &[Request]) -> Vec<Outcome> {
        let batch = self.ask_redis_at(at, requests);
        self.drain_redis();
        let mut rings = Vec::new();
        let expected = self.books(&mut rings, |books| {
            let serve = |request| books.serve(request).unwrap();
            let outcomes: Vec<_> = requests.iter().map(serve).collect();
            while books.work("").unwrap().is_some() {}
            outcomes
        });
        for ((request, outcome), expected) in requests.iter().zip(batch.outcomes).zip(&expected) {
            assert_eq!(outcome.as_ref(), Some(expected), "{request:#?}");
        }
        self.compare_rings(heard, &rings);
        expected
    }

    /// Lets time pass, and what is due or old takes its course.
    pub fn wait(&mut self, heard: &mut PubSub<'_>, ms: u64) {
        self.now_ms += ms;
        self.since_start += Duration::from_millis(ms);
        self.drain_redis();
        let mut rings = Vec::new();
        self.books(&mut rings, |books| {
            books.deliver_due(usize::MAX).unwrap();
            for uid in books.users("", usize::MAX).unwrap() {
                books.expire(&uid).unwrap();
            }
            for group in books.groups("", usize::MAX).unwrap() {
                books.expire_group(&group).unwrap();
            }
        });
        self.compare_rings(heard, &rings);
    }

    /// What stands in the inboxes and groups of these users.
    pub fn compare_inboxes(&mut self, heard: &mut PubSub<'_>, uids: &[&str]) {
        let mut looks = vec![Request::Groups {
            after: String::new(),
            limit: 100,
        }];
        for uid in uids {
            let uid = (*uid).to_owned();
            looks.push(Request::GroupsOf { uid: uid.clone() });
            let (after, limit) = (0, 300);
            looks.push(Request::Look { uid, after, limit });
        }
        self.ask(heard, &looks);
    }

    fn compare_rings(&mut self, heard: &mut PubSub<'_>, rings: &[Ring]) {
        let mut expected = Heard::new();
        for ring in rings {
            let devices = self.present.0.get(ring.uid());
            let nodes: BTreeSet<usize> = devices.into_iter().flatten().map(|(_, at)| *at).collect();
            for at in nodes {
                let key = (at, ring.uid().to_owned());
                expected.entry(key).or_default().push(ring.clone());
            }
        }
        assert_eq!(self.listen(heard), expected);
    }

    /// What rang so far. An answer of the other node comes before what is published to it, and
    /// whatever the first one does after that answers behind what was published to that.
    pub fn listen(&mut self, heard: &mut PubSub<'_>) -> Heard {
        let mut bells = Heard::new();
        let mut note = |at: usize, ring: Ring| {
            let key = (at, ring.uid().to_owned());
            bells.entry(key).or_default().push(ring);
        };
        let own = std::mem::take(&mut self.own_rings).into_iter();
        let (of_first, of_other): (Vec<_>, Vec<_>) = own.partition(|(at, _)| *at == 0);
        of_other.into_iter().for_each(|(at, ring)| note(at, ring));
        for (at, (node, _)) in NODES.iter().enumerate() {
            let channel = self.channel(node);
            let mut mark = redis::cmd("PUBLISH");
            mark.arg(&channel)
                .arg("mark")
                .exec(&mut self.admin)
                .unwrap();
            loop {
                let message = heard.get_message().unwrap();
                let at = if message.get_channel_name() == channel {
                    at
                } else {
                    1 - at
                };
                if message.get_payload_bytes() == b"mark" {
                    break;
                }
                let bell = Doorbell::parse(message.get_payload_bytes()).expect("a doorbell");
                assert_eq!(bell.node_epoch, NODES[at].1);
                assert_eq!(bell.from, NODES[1 - at].0, "nobody publishes to himself");
                match bell.word {
                    Word::Ring(ring) => note(at, ring),
                    other => panic!("{other:?}"),
                }
            }
        }
        of_first.into_iter().for_each(|(at, ring)| note(at, ring));
        bells
    }

    /// A connection of a device begins on a node, in both worlds.
    pub fn connect(
        &mut self,
        heard: &mut PubSub<'_>,
        uid: &str,
        device: &str,
        at: usize,
        cursor: Option<Cursor>,
    ) {
        self.leave(uid, device);
        let devices = self.present.0.entry(uid.to_owned()).or_default();
        devices.insert(device.to_owned(), at);
        let attach = self.attach(uid, device, cursor);
        self.ask_at(at, heard, &[attach]);
    }

    pub fn leave(&mut self, uid: &str, device: &str) {
        let devices = self.present.0.entry(uid.to_owned()).or_default();
        if let Some(at) = devices.remove(device) {
            self.end_session(uid, device, at);
        }
    }

    /// The session of a device has its name.
    fn attach(&mut self, uid: &str, device: &str, cursor: Option<Cursor>) -> Request {
        self.ids += 1;
        Request::Attach(Box::new(Attach {
            uid: uid.to_owned(),
            device: device.to_owned(),
            cursor,
            page: 3,
            entry: Some(Box::new(DirectoryEntry {
                session: device.to_owned(),
                since_secs: self.ids as u32,
                ordinal: 0,
                mark: u64::MAX - self.ids,
                device: device.to_owned(),
                uname: String::new(),
            })),
            sessions_max: 8,
        }))
    }

    pub fn begin_session(&mut self, uid: &str, device: &str, at: usize) {
        let attach = self.attach(uid, device, None);
        self.ask_redis_at(at, &[attach]);
    }

    pub fn end_session(&mut self, uid: &str, device: &str, at: usize) {
        let unbind = Request::Unbind {
            uid: uid.to_owned(),
            session: device.to_owned(),
        };
        self.ask_redis_at(at, &[unbind]);
    }

    pub fn next_id(&mut self) -> MessageId {
        self.ids += 1;
        let mut id = [0; 16];
        id[6..14].copy_from_slice(&self.ids.to_be_bytes());
        MessageId(id).at(self.now_ms)
    }

    pub fn entry(&mut self, from: &str, body: EntryBody) -> Entry {
        Entry {
            id: self.next_id(),
            at_ms: self.now_ms,
            from: from.to_owned(),
            request_id: Some("r".to_owned()),
            is_http: false,
            body,
        }
    }

    pub fn chat(&mut self, from: &str, to: &str, msgid: Option<&str>, text: &str) -> Accept {
        let body = EntryBody::Chat {
            from: author(from),
            text: text_of(text),
        };
        self.accept_of(from, to, msgid, body)
    }

    pub fn accept_of(
        &mut self,
        from: &str,
        to: &str,
        msgid: Option<&str>,
        body: EntryBody,
    ) -> Accept {
        Accept {
            to: to.to_owned(),
            sender: from.to_owned(),
            msgid: msgid.map(str::to_owned),
            entry: self.entry(from, body),
        }
    }
}

pub fn author(name: &str) -> Author {
    Author {
        name: name.to_owned(),
        is_online: true,
    }
}

pub fn text_of(text: &str) -> Text {
    Text {
        message: format!("{text:?}"),
        file_type: "0".to_owned(),
    }
}
