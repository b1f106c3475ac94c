//! The family of `{"to":…,"msg":…,"msgType":…}`.

use super::{About, Ask, Fields, Got, list, list_or, text_or};
use crate::protocol::json::Value;
use crate::protocol::order::Order;

pub(super) fn read<'a>(
    fields: &Fields<'_, 'a>,
    about: &About<'a>,
) -> Result<Ask<'a>, &'static str> {
    let kind = match fields.msg_type {
        None | Some(Value::Text("")) => 1,
        Some(value) => value.as_int().ok_or("msgType is not a whole number")?,
    };
    match kind {
        1 => {
            let to = fields.to.and_then(list).filter(|to| !to.is_empty());
            let to = to.ok_or("to is not a user id or a list of them")?;
            let msg = fields.msg_key.and_then(|key| fields.source.after(key));
            let msg = msg.ok_or("msg is missing")?;
            Ok(Ask::Order(Order::Send { to, msg }))
        }
        2 => {
            let mut messages = list_or(fields.msgids, "msgids is not a list of message ids")?;
            let one = text_or(fields.message_id, "messageId is not a string")?;
            messages.extend(one.or(about.msgid));
            let up_to = text_or(fields.up_to, "upTo is not a string")?;
            if messages.is_empty() && up_to.is_none() {
                return Err("none of messageId, msgid, msgids and upTo is there");
            }
            Ok(Ask::Acknowledge(Got { messages, up_to }))
        }
        3 => Ok(Ask::Heartbeat),
        _ => Err("unknown msgType"),
    }
}
