//! Random requests, times and presence: what Redis does is what the contract over rows does.

use std::cell::Cell;

use proptest::prelude::*;
use redis::PubSub;
use throng::inbox::records::{EntryBody, Origin};
use throng::inbox::service::{Outcome, Request};
use throng::inbox::{Accepted, Cursor, GroupAccept, GroupChange, GroupRules, InboxRules, Reach};
use throng::protocol::envelope::MessageId;

use crate::server::Server;
use crate::world::{World, author, text_of};

const USERS: [&str; 3] = ["alice", "bob", "c.{a}-%rol@x"];
const DEVICES: [&str; 4] = ["default", "b", "ä device", "d"];
const GROUPS: [&str; 2] = ["g", "team"];
const DAY_MS: u64 = 24 * 3_600_000;

/// Few of everything, so that every limit is met.
pub const TIGHT: InboxRules = InboxRules {
    entries_max: 6,
    bytes_max: 900,
    notices_max: 3,
    devices_max: 2,
    ttl_ms: 5_000,
    seen_ms: 3_000,
    seen_max: 2,
};

#[derive(Clone, Debug)]
enum Step {
    Ask(Vec<Want>),
    Connect {
        of: usize,
        device: usize,
        cursor: Option<u64>,
    },
    Leave {
        of: usize,
        device: usize,
    },
    Wait {
        ms: u64,
    },
}

#[derive(Clone, Debug)]
enum Want {
    Send {
        from: usize,
        to: usize,
        msgid: Option<u8>,
        size: u8,
    },
    Push {
        to: Vec<usize>,
        msgid: Option<u8>,
        wait_ms: Option<u64>,
    },
    Cancel {
        nth: usize,
    },
    Say {
        group: usize,
        from: usize,
        msgid: Option<u8>,
        device: Option<usize>,
    },
    Change {
        group: usize,
        by: Option<usize>,
        change: GroupChange,
        is_open: bool,
    },
    Ack {
        of: usize,
        device: usize,
        nth: Vec<usize>,
    },
    UpTo {
        of: usize,
        device: usize,
        seq: u64,
        fits: bool,
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
    Remember {
        of: usize,
        device: usize,
    },
}

fn want() -> impl Strategy<Value = Want> {
    let user = 0..USERS.len();
    let who = (user.clone(), 0..DEVICES.len());
    let msgid = proptest::option::of(0..4_u8);
    let users = prop::collection::vec(user.clone(), 0..3);
    let group = 0..GROUPS.len();
    prop_oneof![
        8 => (user.clone(), user.clone(), msgid.clone(), 0..210_u8)
            .prop_map(|(from, to, msgid, size)| Want::Send { from, to, msgid, size }),
        4 => (users, msgid.clone(), proptest::option::of(1..6_000_u64))
            .prop_map(|(to, msgid, wait_ms)| Want::Push { to, msgid, wait_ms }),
        1 => (0..6_usize).prop_map(|nth| Want::Cancel { nth }),
        3 => (group.clone(), user.clone(), msgid, proptest::option::of(0..DEVICES.len()))
            .prop_map(|(group, from, msgid, device)| Want::Say { group, from, msgid, device }),
        2 => (group, proptest::option::of(user.clone()), change(), any::<bool>())
            .prop_map(|(group, by, change, is_open)| Want::Change { group, by, change, is_open }),
        6 => (who.clone(), prop::collection::vec(0..8_usize, 1..4))
            .prop_map(|((of, device), nth)| Want::Ack { of, device, nth }),
        2 => (who.clone(), 0..40_u64, prop::bool::weighted(0.9))
            .prop_map(|((of, device), seq, fits)| Want::UpTo { of, device, seq, fits }),
        2 => (who.clone(), 0..40_u64)
            .prop_map(|((of, device), seq)| Want::Pong { of, device, seq }),
        2 => (who.clone(), 0..40_u64, 0..8_usize)
            .prop_map(|((of, device), after, limit)| Want::Pull { of, device, after, limit }),
        1 => who.prop_map(|(of, device)| Want::Remember { of, device }),
    ]
}

fn change() -> impl Strategy<Value = GroupChange> {
    let named = prop::sample::select(vec!["alice", "bob", "dave", "no user"]);
    let members = prop::collection::vec(named.prop_map(str::to_owned), 0..3);
    let leaver = prop::sample::select(vec!["alice", "bob", "dave"]);
    prop_oneof![
        3 => members.clone().prop_map(|members| GroupChange::Create { members }),
        2 => members.prop_map(|members| GroupChange::Join { members }),
        2 => leaver.prop_map(|uid| GroupChange::Leave { uid: uid.to_owned() }),
        2 => Just(GroupChange::Delete),
        1 => Just(GroupChange::Look),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let who = (0..USERS.len(), 0..DEVICES.len());
    prop_oneof![
        12 => prop::collection::vec(want(), 1..5).prop_map(Step::Ask),
        3 => (who.clone(), proptest::option::of(0..40_u64))
            .prop_map(|((of, device), cursor)| Step::Connect { of, device, cursor }),
        2 => who.prop_map(|(of, device)| Step::Leave { of, device }),
        3 => (1_000..2_500_u64).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Wait { ms: 31 * DAY_MS }),
    ]
}

/// One run, and what it knows of what was done.
struct Run<'p> {
    world: World,
    heard: PubSub<'p>,
    /// Messages that were accepted, by receiver; and those that are due later.
    sent: Vec<(String, MessageId)>,
    scheduled: Vec<MessageId>,
}

impl<'p> Run<'p> {
    fn new(world: World, heard: PubSub<'p>) -> Run<'p> {
        Run {
            world,
            heard,
            sent: Vec::new(),
            scheduled: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Ask(wants) => {
                let mut says = 0;
                let mut requests = Vec::new();
                for want in wants {
                    // Which of two groups comes first is not promised.
                    says += usize::from(matches!(want, Want::Say { .. }));
                    if says < 2 || !matches!(want, Want::Say { .. }) {
                        requests.push(self.request(want));
                    }
                }
                let outcomes = self.world.ask(&mut self.heard, &requests);
                for (request, outcome) in requests.iter().zip(&outcomes) {
                    self.note(request, outcome);
                }
            }
            Step::Connect { of, device, cursor } => {
                let epoch = self.world.epoch();
                let cursor = cursor.map(|seq| Cursor { epoch, seq });
                let (uid, device, at) = (USERS[*of], DEVICES[*device], *device % 2);
                let heard = &mut self.heard;
                self.world.connect(heard, uid, device, at, cursor);
            }
            Step::Leave { of, device } => self.world.leave(USERS[*of], DEVICES[*device]),
            Step::Wait { ms } => self.world.wait(&mut self.heard, *ms),
        }
        self.world.compare_inboxes(&mut self.heard, &USERS);
    }

    fn note(&mut self, request: &Request, outcome: &Outcome) {
        match (request, outcome) {
            (Request::Accept(accept), Outcome::Accepted(Accepted::New(id))) => {
                self.sent.push((accept.to.clone(), *id));
            }
            (Request::AcceptAll(accepts), Outcome::AllAccepted(_)) => {
                let sent = accepts.iter().map(|one| (one.to.clone(), one.entry.id));
                self.sent.extend(sent);
            }
            (Request::Schedule { accepts, .. }, Outcome::AllAccepted(_)) => {
                self.scheduled
                    .extend(accepts.iter().map(|one| one.entry.id));
            }
            _ => {}
        }
    }

    /// The nth last message that was sent to somebody.
    fn message(&mut self, to: &str, nth: usize) -> MessageId {
        let own = self.sent.iter().rev().filter(|(uid, _)| uid == to);
        let found = own.map(|(_, id)| *id).nth(nth);
        found.unwrap_or_else(|| self.world.next_id())
    }

    fn request(&mut self, want: &Want) -> Request {
        let name = |msgid: &Option<u8>| msgid.map(|n| format!("m\0{n}"));
        match want {
            Want::Send {
                from,
                to,
                msgid,
                size,
            } => {
                // Two texts, so that one msgid may name two bodies.
                let length = match size / 40 {
                    // More than an inbox holds.
                    5 => 1_000,
                    forties => usize::from(forties) * 40,
                };
                let text = "x".repeat(length);
                let msgid = name(msgid);
                let chat = self
                    .world
                    .chat(USERS[*from], USERS[*to], msgid.as_deref(), &text);
                Request::Accept(Box::new(chat))
            }
            Want::Push { to, msgid, wait_ms } => {
                let body = EntryBody::Raw {
                    msg: "7".to_owned(),
                };
                let msgid = name(msgid);
                let accepts = to.iter().map(|to| {
                    let msgid = msgid.as_deref();
                    self.world
                        .accept_of("system", USERS[*to], msgid, body.clone())
                });
                let accepts = accepts.collect();
                match wait_ms {
                    Some(wait_ms) => Request::Schedule {
                        due_ms: self.world.now_ms + wait_ms,
                        accepts,
                    },
                    None => Request::AcceptAll(accepts),
                }
            }
            Want::Cancel { nth } => {
                let known = self.scheduled.iter().rev().nth(*nth).copied();
                Request::Cancel(known.unwrap_or_else(|| self.world.next_id()))
            }
            Want::Say {
                group,
                from,
                msgid,
                device,
            } => {
                let body = EntryBody::GroupChat {
                    from: author(USERS[*from]),
                    group: GROUPS[*group].to_owned(),
                    text: text_of("all of you"),
                };
                Request::AcceptForGroup(Box::new(GroupAccept {
                    group: GROUPS[*group].to_owned(),
                    sender: USERS[*from].to_owned(),
                    msgid: name(msgid),
                    entry: self.world.entry(USERS[*from], body),
                    origin: device.map(|device| Origin {
                        device: DEVICES[device].to_owned(),
                        connection: u64::MAX - 5,
                    }),
                }))
            }
            Want::Change {
                group,
                by,
                change,
                is_open,
            } => Request::Group {
                id: GROUPS[*group].to_owned(),
                by: by.map(|by| USERS[by].to_owned()),
                change: change.clone(),
                rules: GroupRules {
                    per_user_max: 1,
                    members_max: 3,
                    is_open: *is_open,
                },
            },
            Want::Ack { of, device, nth } => {
                let ids = nth.iter().map(|nth| self.message(USERS[*of], *nth));
                let reach = Reach::Messages(ids.collect());
                acknowledge(*of, *device, reach)
            }
            Want::UpTo {
                of,
                device,
                seq,
                fits,
            } => {
                let epoch = self.world.epoch() + u64::from(!fits);
                acknowledge(*of, *device, Reach::UpTo { epoch, seq: *seq })
            }
            Want::Pong { of, device, seq } => {
                acknowledge(*of, *device, Reach::Silently { seq: *seq })
            }
            Want::Pull {
                of,
                device,
                after,
                limit,
            } => Request::Pull {
                uid: USERS[*of].to_owned(),
                device: DEVICES[*device].to_owned(),
                after: *after,
                limit: *limit,
            },
            Want::Remember { of, device } => Request::Remember {
                uid: USERS[*of].to_owned(),
                device: DEVICES[*device].to_owned(),
            },
        }
    }
}

fn acknowledge(of: usize, device: usize, reach: Reach) -> Request {
    Request::Acknowledge {
        uid: USERS[of].to_owned(),
        device: DEVICES[device].to_owned(),
        reach,
    }
}

#[test]
fn redis_does_what_the_contract_over_rows_does() {
    let server = Server::start();
    let case = Cell::new(0);
    let config = ProptestConfig {
        cases: 192,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let steps = prop::collection::vec(step(), 1..100);
    proptest!(config, |(steps in steps)| {
        case.set(case.get() + 1);
        let mut connection = server.admin();
        let world = World::new(&server, &format!("throng:{}:", case.get()), TIGHT);
        let heard = world.subscribe(&mut connection);
        let mut run = Run::new(world, heard);
        for step in &steps {
            run.take(step);
        }
    });
}

#[test]
fn what_chance_seldom_finds_is_the_same_too() {
    let server = Server::start();
    let mut connection = server.admin();
    let world = World::new(&server, "throng:rare:", TIGHT);
    let heard = world.subscribe(&mut connection);
    let mut run = Run::new(world, heard);
    let change = |change: GroupChange| Want::Change {
        group: 0,
        by: None,
        change,
        is_open: false,
    };
    let members = || ["alice", "bob"].map(str::to_owned).to_vec();
    let create = || change(GroupChange::Create { members: members() });
    let say = |device| Want::Say {
        group: 0,
        from: 0,
        msgid: None,
        device,
    };
    let later = Want::Push {
        to: vec![1],
        msgid: Some(1),
        wait_ms: Some(2_000),
    };
    for wants in [
        // A group ends with a message on its way: its members get it.
        vec![create(), say(None), change(GroupChange::Delete)],
        // What was taken back may be scheduled again under its name.
        vec![later.clone()],
        vec![Want::Cancel { nth: 0 }, later],
    ] {
        run.take(&Step::Ask(wants));
    }
    run.take(&Step::Wait { ms: 2_500 });
}

#[test]
fn a_notice_that_alone_holds_up_a_full_inbox_is_lost_in_both() {
    let server = Server::start();
    let mut connection = server.admin();
    let world = World::new(&server, "throng:held:", TIGHT);
    let heard = world.subscribe(&mut connection);
    let mut run = Run::new(world, heard);
    let speaker = 1;
    for of in [0, 1] {
        run.take(&Step::Connect {
            of,
            device: speaker,
            cursor: None,
        });
    }
    let members = ["alice", "bob"].map(str::to_owned).to_vec();
    let create = Want::Change {
        group: 0,
        by: None,
        change: GroupChange::Create { members },
        is_open: false,
    };
    let chat = Want::Send {
        from: 0,
        to: 1,
        msgid: None,
        size: 0,
    };
    let ack = Want::Ack {
        of: 1,
        device: speaker,
        nth: vec![0],
    };
    run.take(&Step::Ask(vec![create, chat]));
    run.take(&Step::Ask(vec![ack]));
    let before = run.world.look("alice");
    assert!(before.entries[0].1.is_notice());
    for _ in 0..=TIGHT.entries_max {
        let say = Want::Say {
            group: 0,
            from: 0,
            msgid: None,
            device: Some(speaker),
        };
        run.take(&Step::Ask(vec![say]));
    }
    let after = run.world.look("alice");
    assert!(!after.entries.iter().any(|(_, entry)| entry.is_notice()));
}
