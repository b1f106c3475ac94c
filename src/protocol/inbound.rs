//! A client's text message → what it asks. Three families of frames, one set of requests.
//!
//! Owns: the parser's buffers, reused for every message: nothing is allocated once they have
//! grown. Strings are borrowed from the message, which simd-json unescapes in place; `msg` goes
//! through untouched, so it is cut out of a copy that was made before.

use simd_json::{Buffers, Tape};
use smallvec::SmallVec;

use super::assembler::PADDING;
use super::identity;
use super::json::{Object, Value, value_after};

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

/// One message of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound<'a> {
    pub family: Family,
    /// The route's path; empty in the other families.
    pub path: &'a str,
    pub request_id: Option<&'a str>,
    pub msgid: Option<&'a str>,
    pub ask: Ask<'a>,
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
    Heartbeat,
    /// An envelope for each of `to`.
    Send {
        to: Targets<'a>,
        msg: &'a str,
    },
    /// Something that needs the store.
    Stored,
    /// The same for a user code: it names a session, and sessions have no inbox.
    StoredForSession,
    /// Known by nobody here.
    Unknown,
}

/// User ids or user codes.
pub type Targets<'a> = SmallVec<[&'a str; 4]>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials<'a> {
    pub token: Option<&'a str>,
    pub openid: Option<&'a str>,
    pub name: Option<&'a str>,
}

/// Why a message cannot be understood; `family` as far as it was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub family: Family,
    pub why: &'static str,
}

const fn malformed(family: Family, why: &'static str) -> Malformed {
    Malformed { family, why }
}

/// Reads the message in `buffer[..len]`, behind which [`PADDING`] readable bytes follow.
pub fn parse<'a>(
    scratch: &'a mut Scratch,
    buffer: &'a mut [u8],
    len: usize,
) -> Result<Inbound<'a>, Malformed> {
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
    let inbound = match parsed {
        Ok(()) => Object::root(&tape.0)
            .ok_or(malformed(Family::Command, "a message is one JSON object"))
            .and_then(|object| read(object, raw, start)),
        Err(_) => Err(malformed(
            Family::Command,
            "invalid JSON, or nested too deeply",
        )),
    };
    *kept = tape.reset();
    inbound
}

fn read<'a>(object: Object<'_, 'a>, raw: &'a [u8], start: usize) -> Result<Inbound<'a>, Malformed> {
    let fields = Fields::collect(object);
    if let Some(Value::Text(path)) = fields.path {
        return read_route(path, &fields);
    }
    if let Some(kind) = fields.kind {
        let kind = kind
            .as_int()
            .ok_or(malformed(Family::Command, "type is not a number"))?;
        return read_command(kind, &fields);
    }
    if fields.msg_type.is_some() || (fields.to.is_some() && fields.msg_key.is_some()) {
        return read_direct(&fields, raw, start);
    }
    Err(malformed(
        Family::Command,
        "neither path, nor type, nor msgType, nor to and msg",
    ))
}

fn read_route<'a>(path: &'a str, fields: &Fields<'_, 'a>) -> Result<Inbound<'a>, Malformed> {
    let text = |value, why| text_or(value, malformed(Family::Route, why));
    let mut who = Credentials {
        token: text(fields.token, "token is not a string")?,
        ..Credentials::default()
    };
    if let Some(Value::Object(body)) = fields.body {
        for (key, value) in body {
            match key {
                "openid" => who.openid = text(Some(value), "openid is not a string")?,
                "userName" => who.name = text(Some(value), "userName is not a string")?,
                _ => {}
            }
        }
    }
    let ask = match path {
        "connet" | "connect" => Ask::Connect(who),
        "ping" => Ask::Heartbeat,
        _ => Ask::Unknown,
    };
    let request_id = text(fields.request_id, "requestId is not a string")?;
    Ok(Inbound {
        family: Family::Route,
        path,
        request_id,
        msgid: None,
        ask,
    })
}

fn read_command<'a>(kind: i64, fields: &Fields<'_, 'a>) -> Result<Inbound<'a>, Malformed> {
    let text = |value, why| text_or(value, malformed(Family::Command, why));
    let mut who = Credentials::default();
    let mut msgid = text(fields.msgid, "msgid is not a string")?;
    let mut is_online = true;
    if let Some(Value::Object(params)) = fields.params {
        for (key, value) in params {
            match key {
                "openid" => who.openid = text(Some(value), "openid is not a string")?,
                "userName" => who.name = text(Some(value), "userName is not a string")?,
                "token" => who.token = text(Some(value), "token is not a string")?,
                "msgid" => msgid = text(Some(value), "msgid is not a string")?,
                "loginStatus" => {
                    is_online = match (value, value.as_int()) {
                        (Value::Null, _) | (_, Some(1)) => true,
                        (_, Some(0)) => false,
                        _ => {
                            return Err(malformed(
                                Family::Command,
                                "loginStatus is neither 1 nor 0",
                            ));
                        }
                    }
                }
                _ => {}
            }
        }
    }
    who.token = who.token.or(text(fields.token, "token is not a string")?);
    let ask = match kind {
        1 | 9 => Ask::Stored,
        3 | 14 | 15 => Ask::Unknown,
        7 => Ask::Register { who, is_online },
        11 => Ask::Heartbeat,
        _ => return Err(malformed(Family::Command, "unknown type")),
    };
    let request_id = text(fields.request_id, "requestId is not a string")?;
    Ok(Inbound {
        family: Family::Command,
        path: "",
        request_id,
        msgid,
        ask,
    })
}

fn read_direct<'a>(
    fields: &Fields<'_, 'a>,
    raw: &'a [u8],
    start: usize,
) -> Result<Inbound<'a>, Malformed> {
    let fault = |why| malformed(Family::Direct, why);
    let kind = match fields.msg_type {
        None | Some(Value::Text("")) => 1,
        Some(value) => value.as_int().ok_or(fault("msgType is not a number"))?,
    };
    let msgid = text_or(fields.msgid, fault("msgid is not a string"))?;
    let request_id = text_or(fields.request_id, fault("requestId is not a string"))?;
    let ask = match kind {
        3 => Ask::Heartbeat,
        2 => Ask::Unknown,
        1 => {
            let to = targets(fields.to).ok_or(fault("to is not a user id or a list of them"))?;
            let key = fields.msg_key.ok_or(fault("msg is missing"))?;
            let msg = value_after(raw, key.as_ptr() as usize - start);
            let msg = msg.ok_or(fault("msg is missing"))?;
            match msgid {
                Some(_) if to.iter().all(|id| identity::is_id(id)) => Ask::Stored,
                Some(_) => Ask::StoredForSession,
                None => Ask::Send { to, msg },
            }
        }
        _ => return Err(fault("unknown msgType")),
    };
    Ok(Inbound {
        family: Family::Direct,
        path: "",
        request_id,
        msgid,
        ask,
    })
}

/// A string, a comma list, or an array of strings; none where it is anything else, or empty.
fn targets<'a>(to: Option<Value<'_, 'a>>) -> Option<Targets<'a>> {
    let split = |text: &'a str| text.split(',').map(str::trim).filter(|id| !id.is_empty());
    let ids: Targets<'a> = match to? {
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
    };
    if ids.is_empty() { None } else { Some(ids) }
}

fn text_or<'a>(
    value: Option<Value<'_, 'a>>,
    fault: Malformed,
) -> Result<Option<&'a str>, Malformed> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(_) => Err(fault),
    }
}

/// The top-level fields that mean something in any family; of repeated ones the last. One that
/// is null is not there, but for `msg`, which may be any value.
#[derive(Default)]
struct Fields<'t, 'a> {
    path: Option<Value<'t, 'a>>,
    kind: Option<Value<'t, 'a>>,
    params: Option<Value<'t, 'a>>,
    msg_type: Option<Value<'t, 'a>>,
    to: Option<Value<'t, 'a>>,
    /// The key itself: it tells where the value lies in the message.
    msg_key: Option<&'a str>,
    msgid: Option<Value<'t, 'a>>,
    request_id: Option<Value<'t, 'a>>,
    token: Option<Value<'t, 'a>>,
    body: Option<Value<'t, 'a>>,
}

impl<'t, 'a> Fields<'t, 'a> {
    fn collect(object: Object<'t, 'a>) -> Fields<'t, 'a> {
        let mut fields = Fields::default();
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
                "requestId" => fields.request_id = value,
                "token" => fields.token = value,
                "body" => fields.body = value,
                _ => {}
            }
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<R>(text: &str, check: impl FnOnce(Result<Inbound<'_>, Malformed>) -> R) -> R {
        let mut scratch = Scratch::new(32);
        let mut buffer = text.as_bytes().to_vec();
        buffer.resize(text.len() + PADDING, b'"');
        check(parse(&mut scratch, &mut buffer, text.len()))
    }

    fn sends(text: &str, ids: &[&str], raw_msg: &str) {
        with(text, |inbound| match inbound.unwrap().ask {
            Ask::Send { to, msg } => assert_eq!((&to[..], msg), (ids, raw_msg), "{text}"),
            other => panic!("{text}: {other:?}"),
        });
    }

    fn fault(text: &str) -> Malformed {
        with(text, |inbound| {
            inbound.map(|i| format!("{i:?}")).expect_err(text)
        })
    }

    #[test]
    fn a_direct_frame_passes_its_msg_through_untouched() {
        sends(
            r#"{"from":"a","to":"bob","msg":"hi","msgType":1}"#,
            &["bob"],
            r#""hi""#,
        );
        sends(
            r#"{"msg" : {"a":[1,{"b":"}\""}],"c":1.50} ,"to":"b,c , d"}"#,
            &["b", "c", "d"],
            r#"{"a":[1,{"b":"}\""}],"c":1.50}"#,
        );
        sends(
            r#"{"to":["b","c"],"msgType":"1","msg":"\u0061\"\\"}"#,
            &["b", "c"],
            r#""\u0061\"\\""#,
        );
        sends(
            r#"{"to":"b","msgType":"","msg":123456789012345678901.5e1}"#,
            &["b"],
            "123456789012345678901.5e1",
        );
        sends(r#"{"\u0074o":"\u0062","m\u0073g":null}"#, &["b"], "null");
        sends(
            r#"{"msg":1,"to":"b","x":{"msg":3},"msg":[2]}"#,
            &["b"],
            "[2]",
        );
        sends(
            r#"{"x":"é\n\"msg\":9","to":"b","msg":true}"#,
            &["b"],
            "true",
        );
    }

    #[test]
    fn the_families_are_told_apart_by_their_keys() {
        let family = |text: &str| with(text, |inbound| inbound.unwrap().family);
        assert_eq!(
            family(r#"{"path":"ping","type":7,"msgType":3}"#),
            Family::Route
        );
        assert_eq!(family(r#"{"type":"11","msgType":3}"#), Family::Command);
        assert_eq!(family(r#"{"path":5,"type":11}"#), Family::Command);
        assert_eq!(family(r#"{"msgType":3}"#), Family::Direct);
        for text in [
            "{}",
            "[1]",
            "7",
            "\"x\"",
            "null",
            "",
            " ",
            "{",
            r#"{"to":"b"}"#,
            r#"{"type":99}"#,
            r#"{"type":"x"}"#,
            r#"{"type":1.5}"#,
            r#"{"type":11}x"#,
        ] {
            fault(text);
        }
    }

    #[test]
    fn registering_and_connecting_carry_their_credentials() {
        with(
            r#"{"type":7,"params":{"openid":"u","userName":"rose","loginStatus":"0","token":"T"}}"#,
            |inbound| {
                let who = Credentials {
                    token: Some("T"),
                    openid: Some("u"),
                    name: Some("rose"),
                };
                assert_eq!(
                    inbound.unwrap().ask,
                    Ask::Register {
                        who,
                        is_online: false
                    }
                );
            },
        );
        with(
            r#"{"token":"T","path":"connet","body":{"openid":"u"},"requestId":"r1"}"#,
            |inbound| {
                let inbound = inbound.unwrap();
                assert_eq!((inbound.path, inbound.request_id), ("connet", Some("r1")));
                let who = Credentials {
                    token: Some("T"),
                    openid: Some("u"),
                    name: None,
                };
                assert_eq!(inbound.ask, Ask::Connect(who));
            },
        );
        fault(r#"{"type":7,"params":{"loginStatus":2}}"#);
        fault(r#"{"type":7,"params":{"openid":7}}"#);
    }

    #[test]
    fn what_needs_a_store_is_known_as_such() {
        for text in [
            r#"{"type":1,"params":{"msgid":"m"}}"#,
            r#"{"type":9}"#,
            r#"{"to":"b","msg":1,"msgid":"m"}"#,
        ] {
            with(text, |inbound| {
                assert_eq!(inbound.unwrap().ask, Ask::Stored)
            });
        }
        with(r#"{"type":1,"params":{"msgid":"m"}}"#, |i| {
            assert_eq!(i.unwrap().msgid, Some("m"))
        });
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| {
            format!(
                r#"{{"type":11,"x":{}{}}}"#,
                "[".repeat(depth - 1),
                "]".repeat(depth - 1)
            )
        };
        with(&nested(32), |inbound| assert!(inbound.is_ok()));
        fault(&nested(33));
        fault(&"[".repeat(60_000));
    }

    #[test]
    fn the_scratch_serves_one_message_after_another() {
        let mut scratch = Scratch::new(32);
        for text in [
            r#"{"type":11}"#,
            "{oops",
            r#"{"to":"b","msg":"x"}"#,
            r#"{"msgType":3}"#,
        ] {
            let mut buffer = text.as_bytes().to_vec();
            buffer.resize(text.len() + PADDING, 0);
            assert_eq!(
                parse(&mut scratch, &mut buffer, text.len()).is_ok(),
                text != "{oops"
            );
        }
    }
}
