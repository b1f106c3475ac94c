//! Pushes as backends send them, over HTTP or by the route `message/send`: to everybody who is
//! here, or to those of a list who are.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::post::{Carrier, Circumstances, Jammed, Post, Selector, deliver, parcel};
use crate::protocol::away::{Addressed, Errand, Unheard};
use crate::protocol::body;
use crate::protocol::compact::{TooDeep, compact};
use crate::protocol::envelope::{Body, Envelope, MessageId, Trigger};
use crate::protocol::frame::{self, Opcode};
use crate::protocol::identity::{is_id, not_an_id};
use crate::protocol::json::is_taken_from_clients;
use crate::protocol::limits::Limit;
use crate::protocol::order::{Done, MSGID_BYTES_MAX, Reply, StoredPush};

const REQUEST_ID_BYTES_MAX: usize = 128;
/// A week.
const DELAY_SECS_MAX: i64 = 7 * 24 * 3600;

/// What a caller may say. Unknown fields are ignored, as everywhere; so is `uniqueMsgid` where
/// nothing is stored that could be told from a repetition.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Push {
    to: Option<Value>,
    #[serde(default, deserialize_with = "body::any")]
    msg: Option<Box<RawValue>>,
    send_to_all: Option<bool>,
    request_id: Option<String>,
    from: Option<String>,
    store: Option<bool>,
    #[serde(default, deserialize_with = "body::whole")]
    delay: Option<i64>,
    unique_msgid: Option<String>,
    selector: Option<Map<String, Value>>,
}

/// A push that can be carried out.
struct Message {
    msg: String,
    from: String,
    request_id: String,
    trigger: Trigger,
    active_ms: u64,
}

/// Carries out the push in `body` (JSON). `sender`: the user whose session gives it; none where
/// it came over HTTP and may name one.
pub fn carry_out<'d>(
    post: &Post,
    body: &[u8],
    sender: Option<&str>,
    cx: Circumstances<'_>,
    carrier: &mut impl Carrier,
) -> Done<'d> {
    outcome(post, body, sender, cx, carrier).unwrap_or_else(Done::Reply)
}

fn outcome<'d>(
    post: &Post,
    body: &[u8],
    sender: Option<&str>,
    cx: Circumstances<'_>,
    carrier: &mut impl Carrier,
) -> Result<Done<'d>, Reply> {
    let push: Push = body::read(body).map_err(bad)?;
    let is_for_all = push.send_to_all.unwrap_or(false);
    let targets = targets(&push, is_for_all, cx, carrier)?;
    let selector = selector(&push, cx, carrier)?;
    let is_live = is_for_all || push.store == Some(false);
    let delay_secs = push.delay.unwrap_or(0);
    if !(0..=DELAY_SECS_MAX).contains(&delay_secs) {
        return Err(bad(format!("delay is 0 to {DELAY_SECS_MAX} seconds")));
    }
    if selector.is_some() && !is_live {
        return Err(bad("a selector goes with sendToAll or with store: false"));
    }
    if is_live && delay_secs > 0 {
        return Err(bad(
            "a delay needs a message that is stored, and this one is not",
        ));
    }
    let msgid = push.unique_msgid.clone();
    if msgid
        .as_ref()
        .is_some_and(|id| !(1..=MSGID_BYTES_MAX).contains(&id.len()))
    {
        return Err(bad(format!("uniqueMsgid has 1 to {MSGID_BYTES_MAX} bytes")));
    }
    let message = Message::new(push, sender, cx, carrier)?;
    if is_for_all {
        return broadcast(&message, selector, carrier).map(Done::Reply);
    }
    if is_live {
        return Ok(address(post, &message, targets, selector, carrier));
    }
    Ok(Done::Push(Box::new(StoredPush {
        to: targets,
        msg: message.msg,
        from: message.from,
        request_id: message.request_id,
        msgid,
        is_http: sender.is_none(),
        due_ms: (delay_secs > 0).then(|| cx.now_ms + delay_secs as u64 * 1000),
    })))
}

/// Who is named, each once.
fn targets(
    push: &Push,
    is_for_all: bool,
    cx: Circumstances<'_>,
    carrier: &mut impl Carrier,
) -> Result<Vec<String>, Reply> {
    let shape = || bad("to must be an array of user ids");
    let named: Vec<&str> = match &push.to {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many
            .iter()
            .map(|id| id.as_str().ok_or_else(shape))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(shape()),
    };
    let max = cx.limits.targets_max;
    if named.len() > max {
        carrier.strike(Limit::Targets);
        let count = named.len();
        return Err(bad(format!(
            "{count} targets are more than the {max} of one call"
        )));
    }
    if named.is_empty() && !is_for_all {
        return Err(bad("to is empty: name user ids, or set sendToAll"));
    }
    if let Some(id) = named.iter().find(|id| !is_id(id)) {
        return Err(bad(not_an_id("to", id)));
    }
    let mut seen = std::collections::HashSet::new();
    Ok(named
        .into_iter()
        .filter(|id| seen.insert(*id))
        .map(str::to_owned)
        .collect())
}

/// The pairs that connections must match; none where any will do.
fn selector(
    push: &Push,
    cx: Circumstances<'_>,
    carrier: &mut impl Carrier,
) -> Result<Option<Selector>, Reply> {
    let Some(pairs) = push.selector.as_ref().filter(|pairs| !pairs.is_empty()) else {
        return Ok(None);
    };
    if pairs.len() > cx.limits.metadata_pairs_max {
        carrier.strike(Limit::MetadataPairs);
        let max = cx.limits.metadata_pairs_max;
        return Err(bad(format!("a selector has at most {max} pairs")));
    }
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    let selector: Option<Selector> = pairs.iter().map(text).collect();
    selector
        .map(Some)
        .ok_or_else(|| bad("the values of a selector are strings"))
}

fn broadcast(
    message: &Message,
    selector: Option<Selector>,
    carrier: &mut impl Carrier,
) -> Result<Reply, Reply> {
    let id = carrier.message_id();
    let mut encoded = Vec::new();
    frame::append(Opcode::Text, &mut encoded, |out| {
        message.envelope(id).write_broadcast(out)
    });
    carrier
        .broadcast(encoded, selector)
        .map_err(|Jammed| Reply::busy())?;
    Ok(Reply::ok(json!({"*": id.to_string()})))
}

/// One id for each target, shared by the sessions of that user, on whatever nodes.
fn address<'d>(
    post: &Post,
    message: &Message,
    targets: Vec<String>,
    selector: Option<Selector>,
    carrier: &mut impl Carrier,
) -> Done<'d> {
    let mut addressed = Addressed::default();
    let mut parcels = Vec::new();
    for target in targets {
        let sessions = match &selector {
            None => post.roster.find(&target),
            Some(selector) => post.roster.find_matching(&target, selector),
        };
        let envelope = message.envelope(carrier.message_id());
        if post.others.is_some() {
            addressed.away.push(target.clone());
            parcels.push(parcel(target.clone(), None, selector.clone(), &envelope));
        }
        if sessions.is_empty() {
            addressed.unknown.push((target, envelope.message_id));
            continue;
        }
        match deliver(&sessions, &envelope, carrier) {
            Ok(id) => {
                addressed.sent.insert(target, id.to_string().into());
            }
            Err(Jammed) => addressed.refused.push(target),
        }
    }
    if parcels.is_empty() {
        return Done::Reply(addressed.reply(&[]));
    }
    Done::Away(Errand::Carry(parcels), Box::new(Unheard::Push(addressed)))
}

impl Message {
    fn new(
        push: Push,
        sender: Option<&str>,
        cx: Circumstances<'_>,
        carrier: &mut impl Carrier,
    ) -> Result<Message, Reply> {
        let raw = push.msg.ok_or_else(|| bad("msg is missing"))?;
        let depth_max = cx.limits.json_depth_max;
        let msg = compact(raw.get(), depth_max).map_err(|TooDeep| {
            carrier.strike(Limit::JsonDepth);
            bad(format!("msg nests deeper than {depth_max}"))
        })?;
        let bytes_max = cx.limits.message_bytes_max;
        if msg.len() > bytes_max {
            carrier.strike(Limit::Message);
            let bytes = msg.len();
            let text = format!("msg has {bytes} bytes, and a message at most {bytes_max}");
            return Err(Reply::error(413, text));
        }
        if sender.is_none() && !is_taken_from_clients(&msg) {
            return Err(bad(
                "msg holds half of a surrogate pair, or a number that no double holds",
            ));
        }
        let from = match sender {
            Some(uid) => uid.to_owned(),
            None => push.from.unwrap_or_else(|| "system".to_owned()),
        };
        if !is_id(&from) {
            return Err(bad("from must be a user id: 1 to 64 of [A-Za-z0-9_.@-]"));
        }
        let given = push.request_id.or(cx.request_id.map(str::to_owned));
        let request_id = given.unwrap_or_else(|| uuid(carrier.message_id()));
        if request_id.len() > REQUEST_ID_BYTES_MAX {
            return Err(bad(format!(
                "requestId has more than {REQUEST_ID_BYTES_MAX} bytes"
            )));
        }
        Ok(Message {
            msg,
            from,
            request_id,
            trigger: match sender {
                Some(_) => Trigger::WebSocket,
                None => Trigger::Http,
            },
            active_ms: cx.now_ms,
        })
    }

    fn envelope(&self, message_id: MessageId) -> Envelope<'_> {
        Envelope {
            active_ms: self.active_ms,
            from: &self.from,
            message_id,
            body: Body::Raw(&self.msg),
            msg_type: 1,
            request_id: Some(&self.request_id),
            trigger: self.trigger,
        }
    }
}

fn bad(msg: impl Into<std::borrow::Cow<'static, str>>) -> Reply {
    Reply::error(400, msg)
}

/// A random UUID (version 4) out of 128 random bits.
fn uuid(id: MessageId) -> String {
    let bits = u128::from_be_bytes(id.0);
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}
