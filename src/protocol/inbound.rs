//! A client's text message → what it asks. Three families of frames, one set of requests.
//!
//! Owns: the parser's buffers, reused for every message: nothing is allocated once they have
//! grown. Strings are borrowed from the message, which simd-json unescapes in place; values that
//! go through untouched are cut out of a copy that was made before.

mod command;
mod direct;
mod route;
#[cfg(test)]
mod tests;

use simd_json::{Buffers, ErrorType, Tape};

use super::assembler::PADDING;
use super::json::{Object, Value, value_after};
use super::order::{Order, Targets};

/// The parser's memory; one for each thread.
pub struct Scratch {
    buffers: Buffers,
    tape: Tape<'static>,
    raw: Vec<u8>,
}

impl Scratch {
    /// For messages nested at most `depth_max` deep.
    pub fn new(depth_max: usize) -> Scratch {
        Scratch {
            buffers: Buffers::with_max_depth(0, depth_max),
            tape: Tape(Vec::new()),
            raw: Vec::new(),
        }
    }
}

/// The shape in which a client spoke, and in which it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `{"path":…}`
    Route,
    /// `{"type":…}`
    Command,
    /// `{"msgType":…}` or `{"to":…,"msg":…}`
    Direct,
}

/// What an answer must know of the message that it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About<'a> {
    pub family: Family,
    /// The route's path; empty in the other families.
    pub path: &'a str,
    pub request_id: Option<&'a str>,
    pub msgid: Option<&'a str>,
}

/// One message of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound<'a> {
    pub about: About<'a>,
    pub ask: Ask<'a>,
}

impl Inbound<'_> {
    /// What it is, in a few words for people.
    pub fn name(&self, bytes: usize) -> String {
        let ask = match &self.ask {
            Ask::Connect(_) => "connect",
            Ask::Register { .. } => "register",
            Ask::Renew { .. } => "renew the token",
            Ask::Heartbeat => "heartbeat",
            Ask::Acknowledge(_) => "acknowledge",
            Ask::Pull { .. } => "pull",
            Ask::Unknown => "unknown",
            Ask::Order(order) => match order {
                Order::Send { .. } => "direct message",
                Order::Chat { .. } => "chat",
                Order::GroupChat { .. } => "group chat",
                Order::Group(_) => "group",
                Order::Online { .. } => "online",
                Order::Push { .. } => "push",
            },
        };
        format!("{ask}, {bytes} bytes")
    }
}

/// What a client wants, whatever family it used.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask<'a> {
    /// `connet`: authenticate and register.
    Connect(Credentials<'a>),
    /// Type 7: set name and status; with a token, authenticate first.
    Register {
        who: Credentials<'a>,
        is_online: bool,
    },
    /// A newer token for this connection.
    Renew {
        token: Option<&'a str>,
    },
    Heartbeat,
    /// Type 15 and its kin: entries of the inbox were processed.
    Acknowledge(Got<'a>),
    /// A page of the inbox behind `after`, which moves nothing.
    Pull {
        after: u64,
        limit: usize,
    },
    /// Something of others.
    Order(Order<'a>),
    /// Known by nobody here.
    Unknown,
}

/// What a client has got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Got<'a> {
    /// Message ids.
    pub messages: Targets<'a>,
    /// A cursor: everything up to it.
    pub up_to: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials<'a> {
    pub token: Option<&'a str>,
    pub openid: Option<&'a str>,
    pub name: Option<&'a str>,
    pub device: Option<&'a str>,
    pub cursor: Option<&'a str>,
}

/// Why a message cannot be understood; `about` as far as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed<'a> {
    pub about: About<'a>,
    pub why: &'static str,
    pub is_too_deep: bool,
}

const NOT_AN_OBJECT: &str = "a message is one JSON object";
const NOT_JSON: &str = "invalid JSON";
const TOO_DEEP: &str = "JSON is nested too deeply";
const NO_FAMILY: &str = "neither path, nor type, nor msgType, nor to and msg";

/// Reads the message in `buffer[..len]`, behind which [`PADDING`] readable bytes follow.
pub fn parse<'a>(
    scratch: &'a mut Scratch,
    buffer: &'a mut [u8],
    len: usize,
) -> Result<Inbound<'a>, Malformed<'a>> {
    debug_assert!(buffer.len() >= len + PADDING);
    let Scratch {
        buffers,
        tape: kept,
        raw,
    } = scratch;
    raw.clear();
    raw.extend_from_slice(&buffer[..len]);
    let start = buffer.as_ptr() as usize;
    let mut tape = std::mem::replace(kept, Tape(Vec::new())).reset();
    let parsed = simd_json::fill_tape_padded(buffer, len, buffers, &mut tape);
    let message = match parsed {
        Ok(()) => match Object::root(&tape.0) {
            Some(object) => Fields::collect(object, Source { raw, start }).read(),
            None => Err(nameless(NOT_AN_OBJECT)),
        },
        Err(error) if matches!(error.error(), ErrorType::DepthLimitExceeded) => Err(Malformed {
            is_too_deep: true,
            ..nameless(TOO_DEEP)
        }),
        Err(_) => Err(nameless(NOT_JSON)),
    };
    *kept = tape.reset();
    message
}

/// A message of which nothing is known. It is answered as a command.
const fn nameless(why: &'static str) -> Malformed<'static> {
    Malformed {
        about: About {
            family: Family::Command,
            path: "",
            request_id: None,
            msgid: None,
        },
        why,
        is_too_deep: false,
    }
}

/// The text of the message before it was unescaped, and where the other one began.
#[derive(Clone, Copy)]
struct Source<'a> {
    raw: &'a [u8],
    start: usize,
}

impl<'a> Source<'a> {
    /// The text of the value that stands behind `key`, a key of this message.
    fn after(self, key: &str) -> Option<&'a str> {
        value_after(self.raw, key.as_ptr() as usize - self.start)
    }
}

/// The top-level fields that mean something in any family; of repeated ones the last. One that
/// is null is not there, but for `msg`, which may be any value.
struct Fields<'t, 'a> {
    source: Source<'a>,
    path: Option<Value<'t, 'a>>,
    kind: Option<Value<'t, 'a>>,
    params: Option<Value<'t, 'a>>,
    msg_type: Option<Value<'t, 'a>>,
    to: Option<Value<'t, 'a>>,
    /// The keys themselves: they tell where the values lie in the message.
    msg_key: Option<&'a str>,
    body_key: Option<&'a str>,
    msgid: Option<Value<'t, 'a>>,
    message_id: Option<Value<'t, 'a>>,
    msgids: Option<Value<'t, 'a>>,
    up_to: Option<Value<'t, 'a>>,
    request_id: Option<Value<'t, 'a>>,
    token: Option<Value<'t, 'a>>,
    body: Option<Value<'t, 'a>>,
}

impl<'t, 'a> Fields<'t, 'a> {
    fn collect(object: Object<'t, 'a>, source: Source<'a>) -> Fields<'t, 'a> {
        let mut fields = Fields {
            source,
            path: None,
            kind: None,
            params: None,
            msg_type: None,
            to: None,
            msg_key: None,
            body_key: None,
            msgid: None,
            message_id: None,
            msgids: None,
            up_to: None,
            request_id: None,
            token: None,
            body: None,
        };
        for (key, value) in object {
            let value = (!matches!(value, Value::Null)).then_some(value);
            match key {
                "path" => fields.path = value,
                "type" => fields.kind = value,
                "params" => fields.params = value,
                "msgType" => fields.msg_type = value,
                "to" => fields.to = value,
                "msg" => fields.msg_key = Some(key),
                "msgid" => fields.msgid = value,
                "messageId" => fields.message_id = value,
                "msgids" => fields.msgids = value,
                "upTo" => fields.up_to = value,
                "requestId" => fields.request_id = value,
                "token" => fields.token = value,
                "body" => (fields.body, fields.body_key) = (value, Some(key)),
                _ => {}
            }
        }
        fields
    }

    fn read(&self) -> Result<Inbound<'a>, Malformed<'a>> {
        let (family, path) = if let Some(Value::Text(path)) = self.path {
            (Family::Route, path)
        } else if self.is_command() {
            (Family::Command, "")
        } else if self.msg_type.is_some() || (self.to.is_some() && self.msg_key.is_some()) {
            (Family::Direct, "")
        } else {
            return Err(nameless(NO_FAMILY));
        };
        let mut about = About {
            family,
            path,
            request_id: None,
            msgid: None,
        };
        let ask = self.ids(&mut about).and_then(|()| match family {
            Family::Route => route::read(self, path),
            Family::Command => command::read(self, &mut about),
            Family::Direct => direct::read(self, &about),
        });
        match ask {
            Ok(ask) => Ok(Inbound { about, ask }),
            Err(why) => Err(Malformed {
                about,
                why,
                is_too_deep: false,
            }),
        }
    }

    /// A type that is neither a number nor a text of one says nothing of the family.
    fn is_command(&self) -> bool {
        match self.kind {
            Some(Value::Int(_) | Value::Number) => true,
            Some(Value::Text(text)) => text.parse::<i64>().is_ok(),
            _ => false,
        }
    }

    fn ids(&self, about: &mut About<'a>) -> Result<(), &'static str> {
        about.request_id = text_or(self.request_id, "requestId is not a string")?;
        about.msgid = text_or(self.msgid, "msgid is not a string")?;
        Ok(())
    }
}

/// A string, if it is there; `fault` where it is anything else.
fn text_or<'a>(
    value: Option<Value<'_, 'a>>,
    fault: &'static str,
) -> Result<Option<&'a str>, &'static str> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(_) => Err(fault),
    }
}

/// A string, a comma list, or an array of strings; none where it is anything else.
fn list<'a>(value: Value<'_, 'a>) -> Option<Targets<'a>> {
    let split = |text: &'a str| text.split(',').map(str::trim).filter(|id| !id.is_empty());
    Some(match value {
        Value::Text(one) if memchr::memchr(b',', one.as_bytes()).is_none() => Some(one.trim())
            .filter(|id| !id.is_empty())
            .into_iter()
            .collect(),
        Value::Text(list) => split(list).collect(),
        Value::Array(items) => items
            .map(|item| match item {
                Value::Text(text) if !text.is_empty() => Some(text),
                _ => None,
            })
            .collect::<Option<_>>()?,
        _ => return None,
    })
}

/// The same where nothing means nobody.
fn list_or<'a>(
    value: Option<Value<'_, 'a>>,
    fault: &'static str,
) -> Result<Targets<'a>, &'static str> {
    match value {
        None | Some(Value::Null) => Ok(Targets::new()),
        Some(value) => list(value).ok_or(fault),
    }
}
