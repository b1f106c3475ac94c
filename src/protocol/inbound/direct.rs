//! The family of `{"to":…,"msg":…,"msgType":…}`.

use super::{Ask, Fields, Got, list, text_or};
use crate::protocol::json::Value;
use crate::protocol::order::Order;

pub(super) fn read<'a>(fields: &Fields<'_, 'a>) -> Result<Ask<'a>, &'static str> {
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
            let message = text_or(fields.message_id, "messageId is not a string")?;
            let messages = [message.ok_or("messageId is missing")?]
                .into_iter()
                .collect();
            Ok(Ask::Acknowledge(Got {
                messages,
                up_to: None,
            }))
        }
        3 => Ok(Ask::Heartbeat),
        _ => Err("unknown msgType"),
    }
}
