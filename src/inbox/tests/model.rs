//! Random requests, against a list of what was accepted and sets of what was passed.
//!
//! The model knows no marks, pages or rows: of each user it holds every entry that ever was, and
//! of each device what it has passed. What it cannot foresee (which device is forgotten) it reads
//! from the head, and checks that this was allowed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const DEVICES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Step {
    /// From one user to another, under one of a few names or none.
    Send {
        from: usize,
        to: usize,
        msgid: Option<u8>,
        size: u8,
    },
    Later {
        to: usize,
        msgid: Option<u8>,
        wait_ms: u64,
    },
    Due,
    Say {
        from: usize,
        msgid: Option<u8>,
    },
    Work,
    Connect {
        of: usize,
        device: usize,
        cursor: Option<u64>,
    },
    Leave {
        of: usize,
        device: usize,
    },
    /// The nth of what is kept, counted from the oldest.
    Ack {
        of: usize,
        device: usize,
        nth: Vec<usize>,
    },
    UpTo {
        of: usize,
        device: usize,
        seq: u64,
    },
    Pong {
        of: usize,
        device: usize,
        seq: u64,
    },
    Pull {
        of: usize,
        device: usize,
        after: u64,
        limit: usize,
    },
    Wait {
        ms: u64,
    },
    Expire {
        of: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let user = 0..USERS.len();
    let device = 0..DEVICES.len();
    let who = (user.clone(), device);
    let msgid = proptest::option::of(0..6_u8);
    prop_oneof![
        8 => (user.clone(), user.clone(), msgid.clone(), 0..200_u8)
            .prop_map(|(from, to, msgid, size)| Step::Send { from, to, msgid, size }),
        1 => (user.clone(), msgid.clone(), 0..2_000_u64)
            .prop_map(|(to, msgid, wait_ms)| Step::Later { to, msgid, wait_ms }),
        1 => Just(Step::Due),
        2 => (user.clone(), msgid).prop_map(|(from, msgid)| Step::Say { from, msgid }),
        2 => Just(Step::Work),
        3 => (who.clone(), proptest::option::of(0..40_u64))
            .prop_map(|((of, device), cursor)| Step::Connect { of, device, cursor }),
        2 => who.clone().prop_map(|(of, device)| Step::Leave { of, device }),
        6 => (who.clone(), prop::collection::vec(0..8_usize, 1..4))
            .prop_map(|((of, device), nth)| Step::Ack { of, device, nth }),
        2 => (who.clone(), 0..40_u64)
            .prop_map(|((of, device), seq)| Step::UpTo { of, device, seq }),
        2 => (who.clone(), 0..40_u64)
            .prop_map(|((of, device), seq)| Step::Pong { of, device, seq }),
        2 => (who, 0..40_u64, 0..8_usize)
            .prop_map(|((of, device), after, limit)| Step::Pull { of, device, after, limit }),
        2 => (1..1_500_u64).prop_map(|ms| Step::Wait { ms }),
        1 => user.prop_map(|of| Step::Expire { of }),
    ]
}

/// Few of everything, so that every limit is met.
const TIGHT: InboxRules = InboxRules {
    entries_max: 6,
    bytes_max: 900,
    notices_max: 3,
    devices_max: 2,
    ttl_ms: 5_000,
    seen_ms: 3_000,
    seen_max: 4,
};

#[derive(Default)]
struct User {
    /// Everything that ever stood in the inbox.
    log: BTreeMap<u64, Entry>,
    /// Of each known device what it has passed.
    passed: BTreeMap<String, BTreeSet<u64>>,
    /// Devices that miss something that was never sent to them, and have read no page since.
    to_tell: BTreeSet<String>,
    kept: BTreeSet<u64>,
}

impl User {
    /// A 17 is passed with a later entry that is named.
    fn pass_notices(&mut self, device: &str, named: u64) {
        if let Some(passed) = self.passed.get_mut(device) {
            let before = self.log.range(..named);
            passed.extend(
                before
                    .filter(|(_, entry)| entry.is_notice())
                    .map(|(seq, _)| seq),
            );
        }
    }
}

struct World {
    rig: Rig,
    users: BTreeMap<&'static str, User>,
    /// Messages that were confirmed, by receiver.
    confirmed: BTreeMap<(String, MessageId), ()>,
    notices: BTreeSet<(String, MessageId)>,
}

impl World {
    fn new() -> World {
        let mut rig = Rig::with(TIGHT);
        let rules = GroupRules {
            per_user_max: 1,
            members_max: 3,
            is_open: false,
        };
        let members = USERS.map(str::to_owned).to_vec();
        let create = GroupChange::Create { members };
        rig.books(|books| books.change_group("g", None, &create, &rules))
            .unwrap();
        World {
            rig,
            users: USERS.map(|uid| (uid, User::default())).into(),
            confirmed: BTreeMap::new(),
            notices: BTreeSet::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Send {
                from,
                to,
                msgid,
                size,
            } => {
                let text = "x".repeat(usize::from(*size));
                let name = msgid.map(|n| n.to_string());
                let accept = self
                    .rig
                    .chat(USERS[*from], USERS[*to], name.as_deref(), &text);
                let before = self.rig.rows.clone();
                match self.rig.accept(&accept) {
                    Accepted::New(id) => {
                        self.confirmed.insert((USERS[*to].to_owned(), id), ());
                    }
                    Accepted::Again(id) => {
                        assert!(self.confirmed.contains_key(&(USERS[*to].to_owned(), id)));
                        assert_eq!(self.rig.rows, before);
                    }
                    Accepted::Conflict | Accepted::Full => assert_eq!(self.rig.rows, before),
                }
            }
            Step::Later { to, msgid, wait_ms } => {
                let name = msgid.map(|n| n.to_string());
                let accept = self.rig.push(USERS[*to], name.as_deref(), "later");
                let due = self.rig.now_ms + wait_ms;
                if let Accepted::New(id) = self.rig.books(|b| b.schedule(&accept, due)) {
                    self.confirmed.insert((USERS[*to].to_owned(), id), ());
                }
            }
            Step::Due => {
                self.rig.books(|books| books.deliver_due(3));
            }
            Step::Say { from, msgid } => {
                let sender = USERS[*from].to_owned();
                let body = EntryBody::GroupChat {
                    from: author(&sender),
                    group: "g".to_owned(),
                    text: text_of("said"),
                };
                let accept = GroupAccept {
                    group: "g".to_owned(),
                    msgid: msgid.map(|n| n.to_string()),
                    entry: self.rig.entry(&sender, body),
                    sender,
                    origin: None,
                };
                let said = self.rig.books(|books| books.accept_for_group(&accept));
                if let GroupAccepted::New(id) = said {
                    for uid in USERS {
                        self.confirmed.insert((uid.to_owned(), id), ());
                    }
                }
            }
            Step::Work => {
                self.rig.books(|books| books.work(""));
            }
            Step::Connect { of, device, cursor } => {
                let (uid, name) = (USERS[*of], DEVICES[*device]);
                let cursor = cursor.map(|seq| (EPOCH, seq));
                self.rig.disconnect(uid, name);
                self.rig.connect(uid, name);
                let before = self.rig.find(uid);
                let attached = self.rig.attach(uid, name, cursor);
                let fits = |head: &Head, seq: u64| {
                    seq <= head.seq && (head.device(name).is_some() || seq >= head.dropped)
                };
                if let (Some(head), Some((_, seq))) = (&before, cursor) {
                    match fits(head, seq) {
                        true => self.pass(uid, name, |entry| entry <= seq),
                        false => assert!(attached.page.resync),
                    }
                }
                self.settle();
                self.assert_page(uid, name, attached.low, 300, &attached.page);
            }
            Step::Leave { of, device } => self.rig.disconnect(USERS[*of], DEVICES[*device]),
            Step::Ack { of, device, nth } => {
                let (uid, name) = (USERS[*of], DEVICES[*device]);
                let kept = self.rig.kept(uid);
                let named = nth.iter().filter_map(|&nth| kept.get(nth));
                let (mut seqs, mut ids) = (Vec::new(), Vec::new());
                for (seq, entry, _) in named {
                    seqs.push(*seq);
                    ids.push(entry.id);
                }
                let acknowledged = self.rig.ack(uid, name, &ids);
                assert_eq!(acknowledged.unknown, []);
                self.pass(uid, name, |seq| seqs.contains(&seq));
            }
            Step::UpTo { of, device, seq } => {
                let (uid, name) = (USERS[*of], DEVICES[*device]);
                let head_seq = self.rig.find(uid).map_or(0, |head| head.seq);
                self.rig.up_to(uid, name, *seq);
                if *seq <= head_seq {
                    self.pass(uid, name, |entry| entry <= *seq);
                }
            }
            Step::Pong { of, device, seq } => {
                let (uid, name) = (USERS[*of], DEVICES[*device]);
                let to = self.rig.find(uid).map_or(0, |head| head.seq).min(*seq);
                let heard = self.rig.take_rings();
                self.rig.pong(uid, name, *seq);
                let entries = |ring: &Ring| matches!(ring, Ring::Entry { .. });
                assert!(!self.rig.rings.iter().any(entries), "a pong begets nothing");
                self.rig.rings.splice(0..0, heard);
                self.pass(uid, name, |entry| entry <= to);
            }
            Step::Pull {
                of,
                device,
                after,
                limit,
            } => {
                let (uid, name) = (USERS[*of], DEVICES[*device]);
                let page = self.rig.pull(uid, name, *after, *limit);
                self.settle();
                if self.rig.find(uid).is_some() {
                    self.assert_page(uid, name, *after, *limit, &page);
                }
            }
            Step::Wait { ms } => self.rig.now_ms += ms,
            Step::Expire { of } => {
                self.rig.expire(USERS[*of]);
            }
        }
        self.settle();
    }

    /// A device says that it has what `has` says: the model believes it.
    fn pass(&mut self, uid: &str, device: &str, has: impl Fn(u64) -> bool) {
        let Some(head) = self.rig.find(uid) else {
            return;
        };
        let user = self.users.get_mut(uid).unwrap();
        let passed = user.passed.entry(device.to_owned()).or_default();
        passed.extend((1..=head.seq).filter(|&seq| has(seq)));
        let named = (1..=head.seq).rev().find(|&seq| has(seq));
        user.pass_notices(device, named.unwrap_or_default());
    }

    /// Brings the model up to what has happened, and checks that it was allowed.
    fn settle(&mut self) {
        for (&uid, user) in &mut self.users {
            let Some(head) = self.rig.find(uid) else {
                continue;
            };
            assert_eq!(head.epoch, EPOCH);
            let kept = self.rig.kept(uid);
            for (seq, entry, _) in &kept {
                if let Some(known) = user.log.get(seq) {
                    assert_eq!(known, entry, "{uid}: {seq} was given twice");
                }
                let is_new = user.log.values().all(|known| known.id != entry.id);
                assert!(
                    is_new || user.log.contains_key(seq),
                    "{uid}: twice {entry:?}"
                );
                if let EntryBody::Delivered { message, to, .. } = &entry.body
                    && !user.log.contains_key(seq)
                {
                    assert!(self.notices.insert((to.clone(), *message)), "a second 17");
                    assert!(self.confirmed.contains_key(&(to.clone(), *message)));
                } else if !entry.is_notice() {
                    let key = (uid.to_owned(), entry.id);
                    assert!(self.confirmed.contains_key(&key), "nobody sent {entry:?}");
                }
                user.log.insert(*seq, entry.clone());
            }
            let now: BTreeSet<u64> = kept.iter().map(|(seq, ..)| *seq).collect();
            // What is gone was passed by every known device, or that device is to be told.
            let gone: Vec<u64> = user.kept.difference(&now).copied().collect();
            let none = BTreeSet::new();
            for device in &head.devices {
                let passed = user.passed.get(&device.name).unwrap_or(&none);
                for seq in gone.iter().filter(|seq| !passed.contains(seq)) {
                    let entry = &user.log[seq];
                    assert!(device.resync, "{uid} {device:?} was not told of {seq}");
                    let is_old = entry.at_ms + TIGHT.ttl_ms <= self.rig.now_ms;
                    assert!(entry.is_notice() || is_old, "{uid} lost {seq}: {device:?}");
                    if *seq > device.offered {
                        user.to_tell.insert(device.name.clone());
                    }
                }
            }
            // And by one device at least, or it was old, or a notice.
            for seq in &gone {
                let entry = &user.log[seq];
                let is_passed = user.passed.values().any(|passed| passed.contains(seq));
                let is_old = entry.at_ms + TIGHT.ttl_ms <= self.rig.now_ms;
                assert!(is_passed || is_old || entry.is_notice(), "{uid} lost {seq}");
            }
            // Who was known and is not was not connected, and is told on his return.
            let known = |name: &String| head.device(name).is_some();
            let present = self.rig.present.devices(uid);
            let went: Vec<_> = user.passed.keys().filter(|name| !known(name)).collect();
            for name in &went {
                let is_noted = head.forgotten.contains(name) || head.forgot_names;
                assert!(is_noted, "{uid}: {name} went in silence");
            }
            assert!(user.passed.keys().count() == 0 || !head.devices.is_empty());
            let crowd = head.devices.iter().filter(|d| present.contains(&d.name));
            let many = crowd.count().max(TIGHT.devices_max) + 2;
            assert!(head.devices.len() <= many, "{uid}: {:?}", head.devices);
            user.passed.retain(|name, _| known(name));
            user.to_tell.retain(known);
            for name in &user.to_tell {
                assert!(
                    head.device(name).is_some_and(|device| device.resync),
                    "{name}"
                );
            }
            user.kept = now.clone();
            for device in &head.devices {
                user.passed.entry(device.name.clone()).or_default();
            }
            // The marks say exactly what the model says, of what is kept.
            for device in &head.devices {
                let passed = &user.passed[&device.name];
                for seq in &now {
                    let is_passed = passed.contains(seq);
                    assert_eq!(device.has_passed(*seq), is_passed, "{uid} {seq} {device:?}");
                }
            }
            assert!(head.notices <= TIGHT.notices_max);
            assert!(head.entries <= TIGHT.entries_max && head.bytes <= TIGHT.bytes_max);
            let newest = user.log.last_key_value().map_or(0, |(seq, _)| *seq);
            assert!(head.seq >= newest);
        }
    }

    /// A page shows what is kept and not passed behind `after`, without holes up to `until`.
    fn assert_page(&mut self, uid: &str, device: &str, after: u64, limit: usize, page: &Page) {
        let shown = seqs(page);
        let user = self.users.get_mut(uid).unwrap();
        assert!(
            page.resync || !user.to_tell.remove(device),
            "{device} is not told"
        );
        let passed = &user.passed[device];
        let to_show = user.kept.iter().copied();
        let wanted: Vec<u64> = to_show
            .filter(|seq| *seq > after && *seq <= page.until && !passed.contains(seq))
            .collect();
        assert_eq!(shown, wanted);
        assert!(page.passed.iter().all(|seq| passed.contains(seq)));
        let count = shown.len() + page.passed.len();
        assert!(count <= limit);
        let is_whole = page.until >= page.head_seq;
        assert!(is_whole || count == limit, "{page:?}");
        user.to_tell.remove(device);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_is_asked_nothing_confirmed_is_lost_in_silence(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
    }

    #[test]
    fn what_is_taken_back_leaves_no_trace_in_between(
        steps in prop::collection::vec((step(), any::<bool>()), 1..80),
    ) {
        // One world is asked everything, the other only what was kept in the first.
        let (mut torn, mut whole) = (World::new(), World::new());
        for (step, is_kept) in &steps {
            if *is_kept {
                torn.take(step);
                whole.take(step);
            } else {
                let before = torn.rig.rows.clone();
                let accept = torn.rig.chat("alice", "bob", Some("torn"), "hi");
                let wait = Reach::UpTo { epoch: EPOCH, seq: 1 };
                torn.rig.open(|books| {
                    books.accept(&accept)?;
                    books.acknowledge("bob", "a", &wait)?;
                    books.work("")?;
                    books.deliver_due(5)?;
                    books.expire("alice")
                }).unwrap();
                torn.rig.rows.roll_back();
                torn.rig.ids -= 1;
                assert!(torn.rig.rows == before);
            }
        }
        assert!(torn.rig.rows == whole.rig.rows);
    }
}
