//! Messages from backends: to everybody who is here, or to those of a list who are.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::answer::{Answer, read_json};
use super::json::{TooDeep, compact};
use super::{Desk, Shared, now_ms};
use crate::protocol::envelope::{Envelope, MessageId, Trigger};
use crate::protocol::frame::{self, Opcode};
use crate::protocol::identity::is_id;

const REQUEST_ID_BYTES_MAX: usize = 128;

/// What a caller may say. Unknown fields are ignored, as everywhere; so is `uniqueMsgid` where
/// nothing is stored that could be told from a repetition.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Order {
    to: Option<Value>,
    msg: Option<Box<RawValue>>,
    send_to_all: Option<bool>,
    request_id: Option<String>,
    from: Option<String>,
    store: Option<bool>,
    delay: Option<i64>,
    selector: Option<Value>,
}

/// An order that can be carried out.
struct Message {
    msg: String,
    from: String,
    request_id: String,
    active_ms: u64,
}

pub async fn send(State(desk): Shared, request: Request) -> Result<Answer, Answer> {
    let order: Order = read_json(request).await?;
    let is_for_all = order.send_to_all.unwrap_or(false);
    let targets = targets(&order, is_for_all, desk.options.batch_max)?;
    if order.selector.is_some() {
        return Err(Answer::bad("selector is not built into this version"));
    }
    let is_live = order.store == Some(false);
    if (is_for_all || is_live) && order.delay.is_some_and(|secs| secs != 0) {
        let msg = "a delay needs a message that is stored, and this one is not";
        return Err(Answer::bad(msg));
    }
    let message = Message::new(order, desk.options.json_depth_max)?;
    if is_for_all {
        broadcast(&desk, &message)
    } else if is_live {
        deliver(&desk, &message, targets)
    } else {
        let msg = "this node has no store for addressed messages: send \"store\":false to \
                reach those who are online";
        Err(Answer::error(StatusCode::SERVICE_UNAVAILABLE, msg)
            .with(json!({"reason": "store_down"})))
    }
}

/// Who is named, each once.
fn targets(order: &Order, is_for_all: bool, batch_max: usize) -> Result<Vec<String>, Answer> {
    let shape = || Answer::bad("to must be an array of user ids");
    let named: Vec<&str> = match &order.to {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many
            .iter()
            .map(|id| id.as_str().ok_or_else(shape))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(shape()),
    };
    if named.len() > batch_max {
        let count = named.len();
        return Err(Answer::bad(format!(
            "{count} targets are more than the {batch_max} of one call"
        )));
    }
    if named.is_empty() && !is_for_all {
        return Err(Answer::bad("to is empty: name user ids, or set sendToAll"));
    }
    let mut seen = std::collections::HashSet::new();
    Ok(named
        .into_iter()
        .filter(|id| seen.insert(*id))
        .map(str::to_owned)
        .collect())
}

fn broadcast(desk: &Desk, message: &Message) -> Result<Answer, Answer> {
    let id = new_message_id()?;
    let mut encoded = Vec::new();
    frame::append(Opcode::Text, &mut encoded, |out| {
        message.envelope(id).write_broadcast(out)
    });
    desk.services
        .switchboard
        .broadcast(&encoded.into())
        .map_err(|_| busy().with(json!({"reason": "mailbox_full"})))?;
    Ok(Answer::ok(json!({"*": id.to_string()})))
}

/// One id and one encoding for each target, shared by the sessions of that user.
fn deliver(desk: &Desk, message: &Message, targets: Vec<String>) -> Result<Answer, Answer> {
    let (mut sent, mut unknown, mut refused) = (Map::new(), Vec::new(), Vec::new());
    for target in targets {
        let sessions = desk.services.roster.find(&target);
        if sessions.is_empty() {
            unknown.push(target);
            continue;
        }
        let id = new_message_id()?;
        let mut tail = Vec::new();
        message.envelope(id).write_tail(&mut tail);
        let tail: Arc<[u8]> = tail.into();
        let deliver = |key| desk.services.switchboard.deliver(key, tail.clone());
        // A user is reached if any of the sessions is.
        if sessions
            .into_iter()
            .filter(|&key| deliver(key).is_ok())
            .count()
            == 0
        {
            refused.push(target);
        } else {
            sent.insert(target, id.to_string().into());
        }
    }
    if !refused.is_empty() {
        let content =
            json!({"reason": "mailbox_full", "sent": sent, "notSent": refused, "unknown": unknown});
        return Err(busy().with(content));
    }
    Ok(if unknown.is_empty() {
        Answer::ok(sent.into())
    } else {
        Answer::unknown(unknown)
    })
}

impl Message {
    fn new(order: Order, depth_max: usize) -> Result<Message, Answer> {
        let raw = order.msg.ok_or_else(|| Answer::bad("msg is missing"))?;
        let msg = compact(raw.get(), depth_max)
            .map_err(|TooDeep| Answer::bad(format!("msg nests deeper than {depth_max}")))?;
        let from = order.from.unwrap_or_else(|| "system".to_owned());
        if !is_id(&from) {
            return Err(Answer::bad(
                "from must be a user id: 1 to 64 of [A-Za-z0-9_.@-]",
            ));
        }
        let request_id = match order.request_id {
            Some(id) if id.len() > REQUEST_ID_BYTES_MAX => {
                return Err(Answer::bad(format!(
                    "requestId has more than {REQUEST_ID_BYTES_MAX} bytes"
                )));
            }
            Some(id) => id,
            None => new_request_id()?,
        };
        Ok(Message {
            msg,
            from,
            request_id,
            active_ms: now_ms(),
        })
    }

    fn envelope(&self, message_id: MessageId) -> Envelope<'_> {
        Envelope {
            active_ms: self.active_ms,
            from: &self.from,
            message_id,
            msg: &self.msg,
            msg_type: 1,
            request_id: Some(&self.request_id),
            trigger: Trigger::Http,
        }
    }
}

fn busy() -> Answer {
    let msg = "this node is too far behind to take more: try again in a moment";
    Answer::error(StatusCode::SERVICE_UNAVAILABLE, msg)
}

fn new_message_id() -> Result<MessageId, Answer> {
    random().map(MessageId)
}

/// A random UUID (version 4).
fn new_request_id() -> Result<String, Answer> {
    let bits = u128::from_be_bytes(random()?);
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    Ok([
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-"))
}

fn random() -> Result<[u8; 16], Answer> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| {
        Answer::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the system gives no random bytes",
        )
    })?;
    Ok(bytes)
}
