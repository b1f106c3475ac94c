//! Receipts, acknowledgements and what the members of a group are told.

use super::{route_ok, text, write_date};
use crate::protocol::envelope::{MessageId, Text};
use crate::protocol::inbound::{About, Family};
use crate::protocol::order::GroupView;

/// A message was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Receipt<'a> {
    pub now_ms: u64,
    pub message_id: MessageId,
    /// JSON text of what was sent.
    pub message: &'a str,
    /// Which of several receivers it is about.
    pub to_user: Option<&'a str>,
    /// It had been accepted before.
    pub is_again: bool,
}

/// Appends type 0; in the direct family it is msgType 2, with the same fields beside.
pub fn receipt(to: &About<'_>, receipt: &Receipt<'_>, out: &mut Vec<u8>) {
    text(out, |out| {
        out.raw("{");
        if to.family == Family::Direct {
            out.raw("\"msgType\":2,\"from\":\"system\",\"activeTime\":");
            out.number(receipt.now_ms);
            ids(to, receipt, out);
            if let Some(id) = to.request_id {
                out.raw(",\"requestId\":");
                out.json(id);
            }
            out.raw(",\"trigger\":2,");
        }
        out.raw("\"type\":0,\"status\":200,\"params\":{\"date\":\"");
        write_date(receipt.now_ms, out);
        out.raw("\",\"message\":");
        out.raw(receipt.message);
        ids(to, receipt, out);
        out.raw("}}");
    });
}

fn ids(to: &About<'_>, receipt: &Receipt<'_>, out: &mut Text<'_>) {
    if let Some(msgid) = to.msgid {
        out.raw(",\"msgid\":");
        out.json(msgid);
    }
    out.raw(",\"messageId\":\"");
    out.0.extend_from_slice(&receipt.message_id.to_hex());
    out.raw("\"");
    if let Some(uid) = receipt.to_user {
        out.raw(",\"toUser\":");
        out.json(uid);
    }
    if receipt.is_again {
        out.raw(",\"dup\":true");
    }
}

/// Answers an acknowledgement: type 16 for each that was named, status 404 for those that the
/// caller's inbox never held; over the route, one answer for all.
pub fn acknowledged(
    to: &About<'_>,
    named: &[String],
    is_known: impl Fn(&str) -> bool,
    now_ms: u64,
    out: &mut Vec<u8>,
) {
    if to.family == Family::Route {
        let (known, unknown): (Vec<_>, Vec<_>) = named.iter().partition(|name| is_known(name));
        let content = serde_json::json!({"acknowledged": known, "unknown": unknown});
        return route_ok(to, &content.to_string(), out);
    }
    for name in named {
        let status = if is_known(name) { 200 } else { 404 };
        text(out, |out| {
            out.raw("{\"type\":16,\"status\":");
            out.number(status);
            out.raw(",\"params\":{\"date\":\"");
            write_date(now_ms, out);
            out.raw("\",\"message\":");
            out.json(name);
            out.raw("}}");
        });
    }
}

/// What a member hears of a group (type 4), as the JSON text of a bare frame.
pub fn group_text(view: &GroupView, out: &mut Text<'_>) {
    out.raw("{\"type\":4,\"status\":200,\"groupId\":");
    out.json(&view.group_id);
    out.raw(",\"nameList\":");
    out.json(&view.name_list);
    out.raw("}");
}

/// The answer to who changed a group, or asked for it: type 4, or the route's.
pub fn group_result(to: &About<'_>, view: &GroupView, out: &mut Vec<u8>) {
    match to.family {
        Family::Route => {
            let mut content = Vec::new();
            Text(&mut content).json(view);
            let content = String::from_utf8(content).unwrap_or_default();
            route_ok(to, &content, out);
        }
        Family::Command | Family::Direct => text(out, |out| group_text(view, out)),
    }
}
