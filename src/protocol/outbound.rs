//! What the server says: one function for each frame, all compact JSON.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::Offset;

use super::envelope::{Envelope, Head, MessageId, Party, Text};
use super::frame::{self, Opcode};
use super::identity::Identity;
use super::inbound::{About, Family};
use super::order::{Fault, OK_TEXT, Reply};

pub use chat::{Receipt, acknowledged, group_result, group_text, receipt};

mod chat;

/// A session's name: `ip:apiPort_uid_yyyyMMddHHmmss`, and `_n` where that exists already.
#[derive(Clone, Copy, Debug)]
pub struct SessionId<'a> {
    pub node: &'a str,
    pub uid: &'a str,
    /// Unix time at which it was bound first.
    pub since_secs: u32,
    pub ordinal: u16,
}

impl SessionId<'_> {
    /// The user whom a session's name on `node` names, read from its end: an id may hold
    /// underscores, and even look like a date.
    pub fn uid_in<'t>(text: &'t str, node: &str) -> Option<&'t str> {
        let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let is_date = |text: &str| text.len() == 14 && is_number(text);
        let rest = text.strip_prefix(node)?.strip_prefix('_')?;
        let (before, last) = rest.rsplit_once('_')?;
        if is_date(last) {
            return Some(before);
        }
        let (uid, date) = before.rsplit_once('_')?;
        let is_ordinal = (1..=5).contains(&last.len()) && is_number(last);
        (is_ordinal && is_date(date)).then_some(uid)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        let at = civil(i64::from(self.since_secs));
        let mut digits = [0; 14];
        let mut put = |start: usize, width: usize, value: i32| {
            let mut value = value.unsigned_abs();
            for digit in digits[start..start + width].iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        put(0, 4, i32::from(at.year()));
        put(4, 2, i32::from(at.month()));
        put(6, 2, i32::from(at.day()));
        put(8, 2, i32::from(at.hour()));
        put(10, 2, i32::from(at.minute()));
        put(12, 2, i32::from(at.second()));
        out.extend_from_slice(self.node.as_bytes());
        out.push(b'_');
        out.extend_from_slice(self.uid.as_bytes());
        out.push(b'_');
        out.extend_from_slice(&digits);
        if self.ordinal > 0 {
            let _ = write!(Text(out), "_{}", self.ordinal);
        }
    }
}

impl std::fmt::Display for SessionId<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = Vec::new();
        self.write(&mut out);
        f.write_str(std::str::from_utf8(&out).unwrap_or_default())
    }
}

fn civil(secs: i64) -> jiff::civil::DateTime {
    Offset::UTC.to_datetime(Timestamp::from_second(secs).unwrap_or_default())
}

/// `EEE MMM dd HH:mm:ss zzz yyyy`, in UTC.
fn write_date(wall_ms: u64, out: &mut Text<'_>) {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let at = civil((wall_ms / 1000) as i64);
    let day = DAYS[at.weekday().to_monday_zero_offset() as usize % 7];
    let month = MONTHS[(at.month() as usize + 11) % 12];
    let _ = write!(
        out,
        "{day} {month} {:02} {:02}:{:02}:{:02} UTC {}",
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.year()
    );
}

/// Appends a text frame with the JSON that `write` appends.
fn text(out: &mut Vec<u8>, write: impl FnOnce(&mut Text<'_>)) {
    frame::append(Opcode::Text, out, |out| write(&mut Text(out)));
}

/// Appends a message for one session: the head that is its own before the `tail` that all
/// receivers share.
pub fn delivery(
    session: SessionId<'_>,
    identity: &Identity,
    kind: Head,
    tail: &[u8],
    out: &mut Vec<u8>,
) {
    text(out, |out| {
        match kind {
            Head::Bare => {}
            Head::Envelope => head(session, out),
            Head::Chat => {
                head(session, out);
                chat_head(identity, out);
            }
        }
        out.0.extend_from_slice(tail);
    });
}

/// Where an entry stands in an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub epoch: u64,
    pub seq: u64,
    /// It may have been sent before.
    pub is_again: bool,
}

/// Appends an entry of an inbox for one session.
pub fn entry(
    session: SessionId<'_>,
    identity: &Identity,
    place: Place,
    envelope: &Envelope<'_>,
    out: &mut Vec<u8>,
) {
    text(out, |out| {
        entry_text(session, identity, place, envelope, out)
    });
}

fn entry_text(
    session: SessionId<'_>,
    identity: &Identity,
    place: Place,
    envelope: &Envelope<'_>,
    out: &mut Text<'_>,
) {
    head(session, out);
    place_of(place.epoch, "seq", place.seq, out);
    if place.is_again {
        out.raw("\"redelivered\":true,");
    }
    if envelope.head() == Head::Chat {
        chat_head(identity, out);
    }
    envelope.write_tail(out.0);
}

/// `"epoch":…,` and a number of that epoch.
fn place_of(epoch: u64, name: &str, seq: u64, out: &mut Text<'_>) {
    let _ = write!(out, "\"epoch\":\"{epoch:x}\",\"{name}\":{seq},");
}

/// Something may be missing before the entry `from` (msgType 0).
pub fn resync(
    session: SessionId<'_>,
    message_id: MessageId,
    now_ms: u64,
    (epoch, head_seq): (u64, u64),
    from: u64,
    out: &mut Vec<u8>,
) {
    text(out, |out| {
        notice_head(session, message_id, now_ms, out);
        out.raw("\"event\":\"resync\",");
        place_of(epoch, "headSeq", head_seq, out);
        let _ = write!(out, "\"from\":{from}}},\"msgType\":0,\"trigger\":2}}");
    });
}

/// A page of an inbox, as a route's answer.
pub fn page<'e>(
    to: &About<'_>,
    session: SessionId<'_>,
    identity: &Identity,
    (epoch, head_seq): (u64, u64),
    entries: impl Iterator<Item = (Place, Envelope<'e>)>,
    out: &mut Vec<u8>,
) {
    let mut content = Vec::new();
    let mut list = Text(&mut content);
    list.raw("{");
    place_of(epoch, "headSeq", head_seq, &mut list);
    list.raw("\"entries\":[");
    for (at, (place, envelope)) in entries.enumerate() {
        if at > 0 {
            list.raw(",");
        }
        entry_text(session, identity, place, &envelope, &mut list);
    }
    list.raw("]}");
    let content = String::from_utf8(content).unwrap_or_default();
    route_ok(to, &content, out);
}

/// The message id that stands in an envelope's tail.
pub fn message_id_in(tail: &[u8]) -> Option<&str> {
    const KEY: &[u8] = b"\"messageId\":\"";
    let at = memchr::memmem::rfind(tail, KEY)? + KEY.len();
    std::str::from_utf8(tail.get(at..at + 32)?).ok()
}

/// The beginning of type 2, up to the receiver, who is the receiving session's.
fn chat_head(identity: &Identity, out: &mut Text<'_>) {
    out.raw("\"msg\":{\"type\":2,\"status\":200,\"params\":{\"toUser\":");
    out.party(Party {
        uid: identity.uid(),
        name: identity.name(),
        is_online: true,
    });
}

/// The part of an envelope that is the receiving session's own.
fn head(session: SessionId<'_>, out: &mut Text<'_>) {
    out.raw("{\"sessionId\":\"");
    session.write(out.0);
    out.raw("\",\"to\":[\"");
    out.raw(session.uid);
    out.raw("\"],");
}

/// A notice of the node, up to what it says.
fn notice_head(session: SessionId<'_>, message_id: MessageId, now_ms: u64, out: &mut Text<'_>) {
    head(session, out);
    out.raw("\"activeTime\":");
    out.number(now_ms);
    out.raw(",\"from\":\"system\",\"messageId\":\"");
    out.0.extend_from_slice(&message_id.to_hex());
    out.raw("\",\"msg\":{");
}

/// Connected (msgType 0): the identity is known and the session is in the roster.
pub fn connected(
    session: SessionId<'_>,
    identity: &Identity,
    user_code: &str,
    message_id: MessageId,
    now_ms: u64,
    place: Option<(u64, u64)>,
    out: &mut Vec<u8>,
) {
    text(out, |out| {
        notice_head(session, message_id, now_ms, out);
        if let Some((epoch, head_seq)) = place {
            place_of(epoch, "headSeq", head_seq, out);
        }
        out.raw("\"userCode\":\"");
        out.raw(user_code);
        out.raw("\",\"userId\":\"");
        out.raw(session.uid);
        out.raw("\",\"userName\":");
        out.json(identity.name());
        out.raw("},\"msgType\":0,\"trigger\":2}");
    });
}

/// Registered (type 8).
pub fn registered(
    session: SessionId<'_>,
    identity: &Identity,
    is_online: bool,
    place: Option<(u64, u64)>,
    out: &mut Vec<u8>,
) {
    text(out, |out| {
        out.raw("{\"type\":8,\"status\":200,\"params\":{");
        if let Some((epoch, head_seq)) = place {
            place_of(epoch, "headSeq", head_seq, out);
        }
        out.raw("\"openid\":\"");
        out.raw(session.uid);
        out.raw("\",\"userName\":");
        out.json(identity.name());
        out.raw(",\"loginStatus\":\"");
        out.number(u8::from(is_online));
        out.raw("\",\"sessionId\":\"");
        session.write(out.0);
        out.raw("\"}}");
    });
}

/// The answer to a heartbeat, in the family that it came in.
pub fn heartbeat(to: &About<'_>, now_ms: u64, head_seq: Option<u64>, out: &mut Vec<u8>) {
    let head = |out: &mut Text<'_>| {
        if let Some(head_seq) = head_seq {
            let _ = write!(out, ",\"headSeq\":{head_seq}");
        }
    };
    match to.family {
        Family::Command => text(out, |out| {
            out.raw("{\"type\":12,\"status\":200,\"params\":{\"date\":\"");
            write_date(now_ms, out);
            out.raw("\"");
            head(out);
            out.raw("}}");
        }),
        Family::Direct => text(out, |out| {
            let _ = write!(
                out,
                "{{\"activeTime\":{now_ms},\"from\":\"system\",\"msgType\":4"
            );
            if let Some(id) = to.request_id {
                out.raw(",\"requestId\":");
                out.json(id);
            }
            head(out);
            out.raw(",\"trigger\":2}");
        }),
        Family::Route => route_ok(to, "\"pong\"", out),
    }
}

/// A route's success; `content` is JSON.
pub fn route_ok(to: &About<'_>, content: &str, out: &mut Vec<u8>) {
    text(out, |out| route(to, 200, content, OK_TEXT, out));
}

/// A route's answer, in the shape of the HTTP API's.
pub fn route_reply(to: &About<'_>, reply: &Reply, out: &mut Vec<u8>) {
    let content = reply.content.to_string();
    text(out, |out| {
        route(to, reply.status, &content, &reply.msg, out)
    });
}

fn route(to: &About<'_>, status: i32, content: &str, msg: &str, out: &mut Text<'_>) {
    out.raw("{\"path\":");
    out.json(to.path);
    if let Some(id) = to.request_id {
        out.raw(",\"requestId\":");
        out.json(id);
    }
    let _ = write!(
        out,
        ",\"success\":{},\"statusCode\":{status},\"content\":{content},\"msg\":",
        status == 200
    );
    out.json(msg);
    out.raw("}");
}

/// Appends an error in the family of what it answers. In the direct family the frame carries
/// both forms: `msgType` -1 with its text, and the fields of type 500.
pub fn error(to: &About<'_>, fault: &Fault, out: &mut Vec<u8>) {
    let params = |out: &mut Text<'_>| {
        let _ = write!(
            out,
            "\"type\":500,\"status\":500,\"params\":{{\"code\":{},\"message\":",
            fault.code
        );
        out.json(&fault.message);
        if let Some(id) = to.msgid.or(to.request_id) {
            out.raw(",\"ref\":");
            out.json(id);
        }
        if let Some(reason) = fault.reason {
            out.raw(",\"reason\":");
            out.json(reason);
        }
        out.raw("}}");
    };
    match to.family {
        Family::Command => text(out, |out| {
            out.raw("{");
            params(out);
        }),
        Family::Direct => text(out, |out| {
            out.raw("{\"msgType\":-1,\"resultMsg\":");
            out.json(&fault.message);
            out.raw(",");
            params(out);
        }),
        Family::Route => text(out, |out| {
            let content = fault
                .reason
                .map(|reason| format!("{{\"reason\":\"{reason}\"}}"));
            route(
                to,
                fault.code.into(),
                content.as_deref().unwrap_or("null"),
                &fault.message,
                out,
            );
        }),
    }
}

/// The reason of 1012 and 1013: when to come back, and where.
pub fn come_back(retry_ms: u32, to: Option<&str>) -> String {
    let mut reason = Vec::with_capacity(128);
    let mut text = Text(&mut reason);
    let _ = write!(text, "{{\"retryMs\":{retry_ms}");
    if let Some(url) = to {
        text.raw(",\"to\":");
        text.json(url);
    }
    text.raw("}");
    String::from_utf8(reason).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::envelope::{Body, Envelope, Trigger};

    const SESSION: SessionId<'_> = SessionId {
        node: "10.0.0.1:8084",
        uid: "bob",
        since_secs: 1_704_162_492,
        ordinal: 0,
    };

    fn about(family: Family) -> About<'static> {
        About {
            family,
            path: "p/q",
            request_id: Some("r"),
            msgid: None,
        }
    }

    fn json(out: &[u8]) -> serde_json::Value {
        let header = out.len() - frame::server_frame_len(out) + frame::header_size(out.len() - 4);
        serde_json::from_slice(&out[header.min(4)..])
            .or_else(|_| serde_json::from_slice(&out[2..]))
            .unwrap()
    }

    #[test]
    fn a_session_id_names_node_user_and_second() {
        let mut out = Vec::new();
        SESSION.write(&mut out);
        assert_eq!(out, b"10.0.0.1:8084_bob_20240102022812");
        out.clear();
        SessionId {
            ordinal: 12,
            ..SESSION
        }
        .write(&mut out);
        assert_eq!(out, b"10.0.0.1:8084_bob_20240102022812_12");
    }

    #[test]
    fn a_session_id_says_whose_it_is_though_the_user_id_looks_like_a_part_of_it() {
        for uid in ["bob", "a_b", "_", "bob_20240102022812", "20240102022812_7"] {
            for ordinal in [0, 1, u16::MAX] {
                let id = SessionId {
                    uid,
                    ordinal,
                    ..SESSION
                };
                let text = id.to_string();
                assert_eq!(SessionId::uid_in(&text, SESSION.node), Some(uid), "{text}");
                assert_eq!(SessionId::uid_in(&text, "10.0.0.1:808"), None);
            }
        }
        for bad in [
            "",
            "10.0.0.1:8084",
            "10.0.0.1:8084_",
            "10.0.0.1:8084_bob",
            "10.0.0.1:8084_20240102022812",
            "10.0.0.1:8084_bob_2024010202281",
            "10.0.0.1:8084_bob_20240102022812_",
            "10.0.0.1:8084_bob_20240102022812_x",
            "10.0.0.1:8084_bob_20240102022812_123456",
            "10.0.0.1:8084_bob_2024010202281x_1",
        ] {
            assert_eq!(SessionId::uid_in(bad, SESSION.node), None, "{bad}");
        }
    }

    #[test]
    fn a_date_names_day_month_time_zone_and_year() {
        let mut out = Vec::new();
        write_date(1_704_162_492_912, &mut Text(&mut out));
        assert_eq!(out, b"Tue Jan 02 02:28:12 UTC 2024");
    }

    #[test]
    fn an_envelope_has_its_fields_in_one_object() {
        let mut tail = Vec::new();
        Envelope {
            active_ms: 7,
            from: "alice",
            message_id: MessageId([0xab; 16]),
            body: Body::Raw("{\"k\":[1]}"),
            msg_type: 1,
            request_id: Some("a\"b"),
            trigger: Trigger::Http,
        }
        .write_tail(&mut tail);
        let mut out = Vec::new();
        let bob = Identity::new("bob", "").unwrap();
        delivery(SESSION, &bob, Head::Envelope, &tail, &mut out);
        let expected = serde_json::json!({
            "activeTime": 7, "from": "alice", "messageId": "ab".repeat(16), "msg": {"k": [1]},
            "msgType": 1, "requestId": "a\"b", "trigger": 1, "to": ["bob"],
            "sessionId": "10.0.0.1:8084_bob_20240102022812",
        });
        assert_eq!(json(&out), expected);
    }

    #[test]
    fn every_family_has_its_own_error() {
        let fault = Fault::new(503, "no").because("store_down");
        let of = |family| {
            let mut out = Vec::new();
            error(&about(family), &fault, &mut out);
            json(&out)
        };
        let params =
            serde_json::json!({"code": 503, "message": "no", "ref": "r", "reason": "store_down"});
        assert_eq!(
            of(Family::Command),
            serde_json::json!({"type": 500, "status": 500, "params": params})
        );
        assert_eq!(
            of(Family::Direct),
            serde_json::json!({"msgType": -1, "resultMsg": "no", "type": 500, "status": 500, "params": params})
        );
        assert_eq!(
            of(Family::Route),
            serde_json::json!({"path": "p/q", "requestId": "r", "success": false, "statusCode": 503,
                "content": {"reason": "store_down"}, "msg": "no"})
        );
    }

    #[test]
    fn the_longest_way_back_fits_a_close_frame() {
        let reason = come_back(99_999, Some(&"w".repeat(90)));
        assert!(
            reason.len() <= crate::protocol::close::REASON_BYTES_MAX,
            "{}",
            reason.len()
        );
    }
}
