//! A client's text message, held against serde_json: what we take, it takes, and it finds the
//! same receivers, names and texts in it. What is passed on or answered is one JSON object that
//! says what the client said. The parser's memory is reused from one to the next.

#![no_main]

#[path = "../oracle.rs"]
mod oracle;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use oracle::{field, is_json, object_in, string};
use throng::protocol::assembler::PADDING;
use throng::protocol::envelope::{Body, Envelope, MessageId, Party, Trigger};
use throng::protocol::identity::{Identity, is_id};
use throng::protocol::inbound::{self, About, Ask, Credentials, Family, Inbound, Scratch};
use throng::protocol::order::{ChatText, Fault, FileType, GroupOrder, Order, Reply, Targets};
use throng::protocol::outbound::{self, Receipt, SessionId};

const NOW_MS: u64 = 1_704_162_492_000;
const ID: MessageId = MessageId([7; 16]);
const ALICE: Party<'_> = Party {
    uid: "alice",
    name: "Alice \"A\" \\ \n",
    is_online: true,
};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new(32));
}

fuzz_target!(|data: &[u8]| {
    // The reader of frames lets nothing else through.
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let first = SCRATCH.with_borrow_mut(|scratch| check(text, b'"', scratch));
    let again = SCRATCH.with_borrow_mut(|scratch| check(text, b'7', scratch));
    let fresh = check(text, 0, &mut Scratch::new(32));
    assert_eq!(first, again, "what lies behind a message matters");
    assert_eq!(first, fresh, "what was parsed before matters");
});

/// The outcome in words.
fn check(text: &str, behind: u8, scratch: &mut Scratch) -> String {
    let mut buffer = text.as_bytes().to_vec();
    buffer.resize(text.len() + PADDING, behind);
    let parsed = inbound::parse(scratch, &mut buffer, text.len());
    match &parsed {
        Ok(Inbound { about, ask }) => {
            let read = serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(text);
            if let Err(error) = read {
                // Numbers that no double holds are passed on.
                let is_large = error.to_string().contains("number out of range");
                assert!(is_large, "serde_json refuses what we take: {error}");
            }
            check_about(text, about);
            check_ask(text, about, ask);
            check_answers(about);
        }
        Err(malformed) => check_answers(&malformed.about),
    }
    format!("{parsed:?}")
}

fn check_about(text: &str, about: &About<'_>) {
    let path = string(text, &["path"]);
    let family = match (&path, field(text, &["type"])) {
        (Some(_), _) => Family::Route,
        (None, Some(kind)) if is_number(kind) => Family::Command,
        (None, _) => Family::Direct,
    };
    assert_eq!(about.family, family);
    assert_eq!(about.path, path.unwrap_or_default());
    let request_id = string(text, &["requestId"]);
    assert_eq!(about.request_id, request_id.as_deref());
    let mut msgids = vec![string(text, &["msgid"])];
    if family == Family::Command {
        msgids.push(string(text, &["params", "msgid"]));
    }
    assert!(msgids.iter().any(|id| id.as_deref() == about.msgid));
}

/// A number, or a text of a whole one.
fn is_number(kind: &str) -> bool {
    let is_digits = |text: String| text.parse::<i64>().is_ok();
    kind.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        || serde_json::from_str(kind).is_ok_and(is_digits)
}

fn check_ask(text: &str, about: &About<'_>, ask: &Ask<'_>) {
    let group = if about.family == Family::Route {
        "body"
    } else {
        "params"
    };
    match ask {
        Ask::Connect(who) | Ask::Register { who, .. } => check_credentials(text, group, who),
        Ask::Renew { token } => {
            let tokens = [string(text, &["token"]), string(text, &["body", "token"])];
            assert!(token.is_none_or(|token| tokens.contains(&Some(token.to_owned()))));
        }
        Ask::Order(order) => check_order(text, group, order),
        Ask::Acknowledge(got) => {
            let named = |key| string(text, &[group, key]);
            assert_eq!(got.up_to, named("upTo").as_deref());
            let one = string(text, &["messageId"]);
            let all = targets(field(text, &[group, "msgids"]));
            let is_named = |id: &&str| {
                all.iter().any(|one| one == id)
                    || about.msgid == Some(*id)
                    || one.as_deref() == Some(*id)
            };
            assert!(got.messages.iter().all(is_named));
            assert!(got.up_to.is_some() || !got.messages.is_empty());
        }
        Ask::Heartbeat | Ask::Pull { .. } | Ask::Unknown => {}
    }
}

fn check_credentials(text: &str, group: &str, who: &Credentials<'_>) {
    let named = |key| string(text, &[group, key]);
    assert_eq!(who.openid, named("openid").as_deref());
    assert_eq!(who.name, named("userName").as_deref());
    let tokens = [string(text, &["token"]), named("token")];
    let is_there = |token: &str| tokens.contains(&Some(token.to_owned()));
    assert!(who.token.is_none_or(is_there));
    assert_eq!(who.token.is_none(), tokens == [None, None]);
}

fn check_order(text: &str, group: &str, order: &Order<'_>) {
    let named = |key| targets(field(text, &[group, key]));
    match order {
        Order::Send { to, msg } => {
            let raw = oracle::Fields::of(text).and_then(|fields| fields.get("msg"));
            assert_eq!(Some(*msg), raw);
            assert_eq!(to.to_vec(), targets(field(text, &["to"])));
            assert!(!to.is_empty());
            let sent = tail(Body::Raw(msg));
            assert_eq!(
                oracle::Fields::of(&sent).and_then(|sent| sent.get("msg")),
                raw
            );
        }
        Order::Chat { to, text: chat } => {
            assert_eq!(
                Some((*to).to_owned()),
                string(text, &["params", "toMessageId"])
            );
            check_chat(text, chat);
            let from = ALICE;
            let sent = tail(Body::Chat { from, text: *chat });
            check_sent(text, &sent, chat);
            assert_eq!(
                string(&sent, &["msg", "params", "toUser", "openid"]).as_deref(),
                Some("rose")
            );
        }
        Order::GroupChat { group, text: chat } => {
            assert_eq!(
                Some((*group).to_owned()),
                string(text, &["params", "toMessageId"])
            );
            check_chat(text, chat);
            // Nothing is sent to a group that cannot be there.
            if is_id(group) {
                let from = ALICE;
                let sent = tail(Body::GroupChat {
                    from,
                    group,
                    text: *chat,
                });
                check_sent(text, &sent, chat);
                assert_eq!(
                    string(&sent, &["msg", "params", "groupId"]).as_deref(),
                    Some(*group)
                );
            }
        }
        Order::Group(order) => {
            let (id, members) = match order {
                GroupOrder::Create { id, members } | GroupOrder::Join { id, members } => {
                    (id, Some(members))
                }
                GroupOrder::Leave { id } | GroupOrder::Members { id } => (id, None),
            };
            assert_eq!(Some((*id).to_owned()), string(text, &[group, "groupId"]));
            assert!(members.is_none_or(|members| members.to_vec() == named("userIdList")));
        }
        Order::Online {
            uids,
            watch,
            unwatch,
        } => {
            let lists: [(&Targets<'_>, _); 3] =
                [(uids, "uids"), (watch, "watch"), (unwatch, "unwatch")];
            for (list, key) in lists {
                assert_eq!(list.to_vec(), named(key), "{key}");
            }
        }
        Order::Push { body } => {
            assert!(is_json(body));
            assert_eq!(
                Some(*body),
                oracle::Fields::of(text).and_then(|fields| fields.get("body"))
            );
        }
    }
}

/// User ids as a client lists them: a text, a list with commas, or an array.
fn targets(list: Option<&str>) -> Vec<String> {
    let Some(list) = list else { return Vec::new() };
    if let Ok(list) = serde_json::from_str::<String>(list) {
        let ids = list.split(',').map(str::trim).filter(|id| !id.is_empty());
        return ids.map(str::to_owned).collect();
    }
    match serde_json::from_str(list) {
        Ok(ids) => ids,
        Err(error) => panic!("no receivers in {list}: {error}"),
    }
}

fn check_chat(text: &str, chat: &ChatText<'_>) {
    assert_eq!(Some(chat.message), field(text, &["params", "message"]));
    let said = field(text, &["params", "fileType"]);
    match chat.file_type {
        FileType::Number(0) if said.is_none() => {}
        FileType::Number(number) => {
            let whole = |said: &str| said.parse().ok().or(Some(said.parse::<f64>().ok()? as i64));
            assert_eq!(said.and_then(whole), Some(number));
        }
        FileType::Text(file_type) => {
            assert_eq!(
                string(text, &["params", "fileType"]).as_deref(),
                Some(file_type)
            );
        }
    }
}

/// What was sent says what was asked for.
fn check_sent(text: &str, sent: &str, chat: &ChatText<'_>) {
    let message = string(sent, &["msg", "params", "message"]);
    assert!(message.is_some());
    assert_eq!(message, string(text, &["params", "message"]));
    assert_eq!(
        field(sent, &["msg", "params", "message"]),
        Some(chat.message)
    );
    let from = string(sent, &["msg", "params", "fromUser", "userName"]);
    assert_eq!(from.as_deref(), Some(ALICE.name));
    let file_type = string(sent, &["msg", "params", "fileType"]);
    let expected = match chat.file_type {
        FileType::Number(number) => number.to_string(),
        FileType::Text(text) => text.to_owned(),
    };
    assert_eq!(file_type, Some(expected));
}

/// The whole message that rose gets.
fn tail(body: Body<'_>) -> String {
    let envelope = Envelope {
        active_ms: NOW_MS,
        from: ALICE.uid,
        message_id: ID,
        body,
        msg_type: 1,
        request_id: Some("r \" \\"),
        trigger: Trigger::WebSocket,
    };
    let Ok(rose) = Identity::new("rose", "Rose") else {
        panic!("rose is a user id");
    };
    let session = SessionId {
        node: "10.0.0.1:8084",
        uid: rose.uid(),
        since_secs: 1_704_162_492,
        ordinal: 1,
    };
    let mut tail = Vec::new();
    envelope.write_tail(&mut tail);
    let mut frame = Vec::new();
    outbound::delivery(session, &rose, envelope.head(), &tail, &mut frame);
    object_in(&frame).to_owned()
}

/// Whatever is answered is one object, and carries what names the question.
fn check_answers(about: &About<'_>) {
    let answer = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Vec::new();
        write(&mut frame);
        let answer = object_in(&frame).to_owned();
        if about.family == Family::Route {
            assert_eq!(string(&answer, &["path"]).as_deref(), Some(about.path));
            assert_eq!(string(&answer, &["requestId"]).as_deref(), about.request_id);
        }
        answer
    };
    let fault = Fault::new(404, "this is not served here").because("why");
    let error = answer(&|out| outbound::error(about, &fault, out));
    if about.family != Family::Route {
        let names = about.msgid.or(about.request_id);
        assert_eq!(string(&error, &["params", "ref"]).as_deref(), names);
    }
    let reply = Reply::ok(serde_json::json!({"a": about.request_id}));
    if about.family == Family::Route {
        answer(&|out| outbound::route_reply(about, &reply, out));
    } else {
        let receipt = Receipt {
            now_ms: NOW_MS,
            message_id: ID,
            message: r#""a""#,
            to_user: about.request_id,
            is_again: about.msgid.is_some(),
        };
        let receipt = answer(&|out| outbound::receipt(about, &receipt, out));
        assert_eq!(
            string(&receipt, &["params", "msgid"]).as_deref(),
            about.msgid
        );
        let named = ["m".to_owned()];
        answer(&|out| outbound::acknowledged(about, &named, |_| false, NOW_MS, out));
    }
    answer(&|out| outbound::heartbeat(about, NOW_MS, about.msgid.map(|_| 7), out));
}
