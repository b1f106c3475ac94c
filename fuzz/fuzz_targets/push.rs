//! Pushes of any body, over HTTP and by the route: an answer that both can carry, and whoever is
//! reached gets one JSON object that says what the body says.
//!
//! Input: a byte (whether a user asks, whether the route has a `requestId`, and which ways are
//! full; a space: a backend asks, and all are free), and the body.

#![no_main]

#[path = "../oracle.rs"]
mod oracle;

use std::collections::BTreeSet;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use oracle::{Fields, field, object_in, string};
use serde_json::Value;
use throng::hub::code::UserCodes;
use throng::hub::node::Node;
use throng::hub::post::{Carrier, Circumstances, Jammed, Post, Selector};
use throng::hub::push;
use throng::hub::roster::{Extra, Policy, Roster};
use throng::hub::watches::Watches;
use throng::parts::key::Key;
use throng::protocol::away::Errand;
use throng::protocol::envelope::{Head, MessageId};
use throng::protocol::identity::Identity;
use throng::protocol::inbound::{About, Family};
use throng::protocol::limits::{Limit, Limits};
use throng::protocol::metadata::Metadata;
use throng::protocol::order::{Done, OK_TEXT, Reply, SOME_UNKNOWN, SOME_UNKNOWN_TEXT, StoredPush};
use throng::protocol::outbound::{self, SessionId};

const NOW_MS: u64 = 1_704_162_492_000;
const ASKER: &str = "alice";
const REQUEST_ID: &str = "r \" 1";
/// Who is here, and what each connection says of itself.
const USERS: [(&str, &[(&str, &str)]); 4] = [
    ("rose", &[("os", "ios"), ("app", "chat")]),
    ("rose", &[("os", "windows")]),
    ("bob", &[]),
    ("eve", &[("os", "ios")]),
];

thread_local! {
    static POST: Post = post();
    static LIMITS: Limits = Limits::default();
}

fuzz_target!(|data: &[u8]| {
    let Some((&options, body)) = data.split_first() else {
        return;
    };
    let asker = (options & 1 == 1).then_some(ASKER);
    let request_id = (options & 2 == 2).then_some(REQUEST_ID);
    let mut carrier = Recorder::new(options >> 6);
    let done = POST.with(|post| {
        LIMITS.with(|limits| {
            let cx = Circumstances {
                now_ms: NOW_MS,
                limits,
                request_id,
            };
            push::carry_out(post, body, asker, cx, &mut carrier)
        })
    });
    let reply = match done {
        Done::Reply(reply) => reply,
        Done::Push(push) => {
            assert!(carrier.is_idle(), "stored, and sent");
            return check_stored(body, &push, asker, request_id);
        }
        Done::Sent(_) | Done::Away(..) => panic!("a push has a reply"),
    };
    check_reply(&reply);
    let heard = carrier.heard();
    match reply.status {
        200 | SOME_UNKNOWN => {
            let Ok(body) = std::str::from_utf8(body) else {
                panic!("taken, and not even UTF-8");
            };
            assert!(Fields::of(body).is_some(), "taken, and no object");
            for message in &heard {
                check_message(body, message, asker, request_id);
            }
            check_receivers(body, &reply, &carrier, &heard);
        }
        400 | 413 => assert!(carrier.is_idle(), "refused, and sent"),
        503 => {
            assert_eq!(reply.content["reason"], "busy");
            assert!(carrier.refused > 0);
        }
        other => panic!("{other}: {}", reply.msg),
    }
});

/// Fit for HTTP and for the route.
fn check_reply(reply: &Reply) {
    let is_ok = reply.status == 200;
    assert_eq!(is_ok, reply.msg == OK_TEXT);
    let is_partial = reply.status == SOME_UNKNOWN;
    assert_eq!(is_partial, reply.msg == SOME_UNKNOWN_TEXT);
    let about = About {
        family: Family::Route,
        path: "message/send",
        request_id: Some(REQUEST_ID),
        msgid: None,
    };
    let mut frame = Vec::new();
    outbound::route_reply(&about, reply, &mut frame);
    let answer = object_in(&frame);
    assert_eq!(string(answer, &["msg"]).as_deref(), Some(&*reply.msg));
    let content = Fields::of(answer).and_then(|answer| answer.get("content"));
    assert_eq!(content, Some(&*reply.content.to_string()));
}

/// What the store is to keep says what the body says.
fn check_stored(body: &[u8], push: &StoredPush, asker: Option<&str>, request_id: Option<&str>) {
    let body = std::str::from_utf8(body).unwrap_or_else(|_| panic!("taken, and not even UTF-8"));
    assert!(field(body, &["sendToAll"]) != Some("true"));
    assert!(field(body, &["store"]) != Some("false"));
    let named: BTreeSet<&String> = push.to.iter().collect();
    assert!(!named.is_empty() && named.len() == push.to.len());
    let said = string(body, &["from"]).unwrap_or_else(|| "system".to_owned());
    assert_eq!(push.from, asker.map_or(said, str::to_owned));
    let given = string(body, &["requestId"]).or(request_id.map(str::to_owned));
    assert!(given.is_none_or(|given| given == push.request_id));
    assert_eq!(push.is_http, asker.is_none());
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    assert_eq!(value(&push.msg), field(body, &["msg"]).and_then(value));
    assert!(push.due_ms.is_none_or(|due_ms| due_ms > NOW_MS));
}

/// What one connection hears, or all of them.
fn check_message(
    body: &str,
    (uid, text): &(Option<String>, String),
    asker: Option<&str>,
    request_id: Option<&str>,
) {
    let to = uid.as_deref().unwrap_or("*");
    assert_eq!(field(text, &["to"]), Some(&*format!("[\"{to}\"]")));
    assert_eq!(string(text, &["sessionId"]).is_some(), uid.is_some());
    let said = string(body, &["from"]).unwrap_or_else(|| "system".to_owned());
    let from = asker.map_or(said, str::to_owned);
    assert_eq!(string(text, &["from"]), Some(from));
    let given = string(body, &["requestId"]).or(request_id.map(str::to_owned));
    let carried = string(text, &["requestId"]);
    assert!(carried.is_some() && (given.is_none() || carried == given));
    let trigger = if asker.is_some() { "2" } else { "1" };
    assert_eq!(field(text, &["trigger"]), Some(trigger));
    assert_eq!(field(text, &["msgType"]), Some("1"));
    // Only the space between tokens may go.
    let (sent, asked) = (field(text, &["msg"]), field(body, &["msg"]));
    let bare = |text: Option<&str>| text.map(|text| text.replace([' ', '\t', '\r', '\n'], ""));
    assert_eq!(bare(sent), bare(asked));
    let value = |text: Option<&str>| text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    assert_eq!(value(sent), value(asked));
}

/// Whoever is named and here gets it once on each connection, and the answer says who that is.
fn check_receivers(
    body: &str,
    reply: &Reply,
    carrier: &Recorder,
    heard: &[(Option<String>, String)],
) {
    let id = |text: &str| string(text, &["messageId"]).map(Value::from);
    let selector = field(body, &["selector"]);
    let selector: Selector = selector
        .and_then(|pairs| serde_json::from_str::<std::collections::BTreeMap<_, _>>(pairs).ok())
        .unwrap_or_default()
        .into_iter()
        .collect();
    if field(body, &["sendToAll"]) == Some("true") {
        let [(None, text)] = heard else {
            panic!("{} messages to everybody", heard.len());
        };
        assert_eq!(reply.status, 200);
        assert_eq!(
            reply.content.as_object().map(|content| content.len()),
            Some(1)
        );
        assert_eq!(Some(&reply.content["*"]), id(text).as_ref());
        let asked = carrier.frames[0].1.clone().unwrap_or_default();
        assert_eq!(asked, selector);
        return;
    }
    let matches = |own: &[(&str, &str)]| {
        selector
            .iter()
            .all(|(key, value)| own.contains(&(key, value)))
    };
    let named: BTreeSet<String> = match field(body, &["to"]).map(serde_json::from_str) {
        Some(Ok(Value::String(one))) => BTreeSet::from([one]),
        Some(Ok(Value::Array(many))) => many
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        other => panic!("sent to {other:?}"),
    };
    let (mut reached, mut count) = (BTreeSet::new(), 0);
    for (uid, own) in USERS {
        if named.contains(uid) && matches(own) {
            reached.insert(uid.to_owned());
            count += 1;
        }
    }
    assert_eq!(heard.len(), count);
    let missing: BTreeSet<String> = named.difference(&reached).cloned().collect();
    assert_eq!(reply.status == 200, missing.is_empty());
    match &reply.content {
        Value::Object(ids) => {
            assert_eq!(ids.len(), reached.len());
            for (uid, text) in heard {
                let own = uid.as_ref().and_then(|uid| ids.get(uid));
                assert_eq!(own, id(text).as_ref());
            }
        }
        Value::Array(unknown) => {
            let unknown: Vec<&str> = unknown.iter().filter_map(Value::as_str).collect();
            assert_eq!(unknown.len(), missing.len());
            assert!(unknown.iter().all(|uid| missing.contains(*uid)));
        }
        other => panic!("{other}"),
    }
}

fn post() -> Post {
    let roster = Roster::default();
    for (slot, (uid, pairs)) in USERS.into_iter().enumerate() {
        let pairs = pairs.iter().map(|&(key, value)| (key.into(), value.into()));
        let Ok(metadata) = Metadata::collect(pairs, 8, 256) else {
            panic!("too much metadata");
        };
        let extra = (!metadata.is_empty()).then(|| {
            Arc::new(Extra {
                device: None,
                metadata,
            })
        });
        let policy = Policy {
            is_single: false,
            sessions_max: 8,
        };
        roster.bind(identity(uid), key(slot), 1_704_162_492, extra, policy);
    }
    Post {
        roster,
        watches: Arc::new(Watches::default()),
        codes: UserCodes::new(&[7; 32]),
        node: Arc::new(Node::new("n:1".to_owned(), "ws://n".to_owned(), None, 8)),
        others: None,
    }
}

fn identity(uid: &str) -> Identity {
    match Identity::new(uid, "") {
        Ok(identity) => identity,
        Err(error) => panic!("{uid}: {error:?}"),
    }
}

fn key(slot: usize) -> Key {
    Key::new(slot % 2, slot, 0)
}

/// What was to be brought to connections, and what the ways to them were like.
struct Recorder {
    /// 0: all are free, 1: none, 2: every other one, 3: the first.
    ways: u8,
    asked: u8,
    refused: usize,
    next_id: u128,
    mail: Vec<(Vec<Key>, Head, Vec<u8>)>,
    frames: Vec<(Vec<u8>, Option<Selector>)>,
}

impl Recorder {
    fn new(ways: u8) -> Recorder {
        Recorder {
            ways,
            asked: 0,
            refused: 0,
            next_id: 0,
            mail: Vec::new(),
            frames: Vec::new(),
        }
    }

    fn ask(&mut self) -> Result<(), Jammed> {
        self.asked = self.asked.wrapping_add(1);
        let is_free = match self.ways {
            0 => true,
            1 => false,
            2 => self.asked % 2 == 1,
            _ => self.asked == 1,
        };
        self.refused += usize::from(!is_free);
        if is_free { Ok(()) } else { Err(Jammed) }
    }

    fn is_idle(&self) -> bool {
        self.asked == 0
    }

    /// Each message as its receiver has it, and who that is; none: everybody.
    fn heard(&self) -> Vec<(Option<String>, String)> {
        let mut heard = Vec::new();
        for (to, head, tail) in &self.mail {
            assert!(!to.is_empty() && *head == Head::Envelope);
            for key in to {
                let (uid, _) = USERS[key.index()];
                let session = SessionId {
                    node: "n:1",
                    uid,
                    since_secs: 1_704_162_492,
                    ordinal: key.index() as u16,
                };
                let mut frame = Vec::new();
                outbound::delivery(session, &identity(uid), *head, tail, &mut frame);
                heard.push((Some(uid.to_owned()), object_in(&frame).to_owned()));
            }
        }
        let frames = self.frames.iter();
        heard.extend(frames.map(|(frame, _)| (None, object_in(frame).to_owned())));
        heard
    }
}

impl Carrier for Recorder {
    fn message_id(&mut self) -> MessageId {
        self.next_id += 1;
        MessageId(self.next_id.to_be_bytes())
    }

    fn carry(
        &mut self,
        to: &[Key],
        head: Head,
        write: &dyn Fn(&mut Vec<u8>),
    ) -> Result<(), Jammed> {
        self.ask()?;
        let mut tail = Vec::new();
        write(&mut tail);
        self.mail.push((to.to_vec(), head, tail));
        Ok(())
    }

    fn broadcast(&mut self, frame: Vec<u8>, selector: Option<Selector>) -> Result<(), Jammed> {
        self.ask()?;
        self.frames.push((frame, selector));
        Ok(())
    }

    fn send_away(&mut self, _: Errand) {}

    fn strike(&mut self, _: Limit) {}
}
