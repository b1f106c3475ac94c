//! The family of `{"path":…,"body":{…}}`.

use super::{Ask, Credentials, Fields, Got, list_or, text_or};
use crate::protocol::json::{Object, Value};
use crate::protocol::order::{GroupOrder, Order, Targets};

/// What the bodies of our own routes hold.
#[derive(Default)]
struct Body<'a> {
    who: Credentials<'a>,
    group: Option<&'a str>,
    members: Targets<'a>,
    uids: Targets<'a>,
    watch: Targets<'a>,
    unwatch: Targets<'a>,
    got: Got<'a>,
    after: u64,
    limit: usize,
}

pub(super) fn read<'a>(fields: &Fields<'_, 'a>, path: &'a str) -> Result<Ask<'a>, &'static str> {
    let is_ours = matches!(
        path,
        "connet"
            | "connect"
            | "ping"
            | "token/renew"
            | "message/send"
            | "message/pull"
            | "message/ack"
            | "online"
    ) || path.starts_with("group/");
    if !is_ours {
        return Ok(Ask::Unknown);
    }
    if path == "message/send" {
        let body = fields.body_key.and_then(|key| fields.source.after(key));
        return Ok(Ask::Order(Order::Push {
            body: body.ok_or("body is missing")?,
        }));
    }
    let mut body = match fields.body {
        Some(Value::Object(object)) => Body::collect(object)?,
        _ => Body::default(),
    };
    let token = text_or(fields.token, "token is not a string")?;
    let group = || body.group.ok_or("groupId is missing");
    let order = match path {
        "ping" => return Ok(Ask::Heartbeat),
        "connet" | "connect" => {
            body.who.token = token.or(body.who.token);
            return Ok(Ask::Connect(body.who));
        }
        "token/renew" => {
            let token = body.who.token.or(token);
            return Ok(Ask::Renew { token });
        }
        "message/pull" => {
            return Ok(Ask::Pull {
                after: body.after,
                limit: body.limit,
            });
        }
        "message/ack" if body.got.messages.is_empty() && body.got.up_to.is_none() => {
            return Err("neither msgids nor upTo is there");
        }
        "message/ack" => return Ok(Ask::Acknowledge(body.got)),
        "online" => Order::Online {
            uids: body.uids,
            watch: body.watch,
            unwatch: body.unwatch,
        },
        "group/create" => Order::Group(GroupOrder::Create {
            id: group()?,
            members: body.members,
        }),
        "group/join" => Order::Group(GroupOrder::Join {
            id: group()?,
            members: body.members,
        }),
        "group/leave" => Order::Group(GroupOrder::Leave { id: group()? }),
        "group/members" => Order::Group(GroupOrder::Members { id: group()? }),
        _ => return Ok(Ask::Unknown),
    };
    Ok(Ask::Order(order))
}

/// A whole number that is not negative, if it is there.
fn number(value: Option<Value<'_, '_>>, fault: &'static str) -> Result<Option<u64>, &'static str> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_int().and_then(|number| number.try_into().ok());
            number.map(Some).ok_or(fault)
        }
    }
}

impl<'a> Body<'a> {
    fn collect(object: Object<'_, 'a>) -> Result<Body<'a>, &'static str> {
        let mut body = Body::default();
        for (key, value) in object {
            let value = Some(value);
            match key {
                "token" => body.who.token = text_or(value, "token is not a string")?,
                "openid" => body.who.openid = text_or(value, "openid is not a string")?,
                "userName" => body.who.name = text_or(value, "userName is not a string")?,
                "device" => body.who.device = text_or(value, "device is not a string")?,
                "cursor" => body.who.cursor = text_or(value, "cursor is not a string")?,
                "msgids" => {
                    body.got.messages = list_or(value, "msgids is not a list of message ids")?;
                }
                "upTo" => body.got.up_to = text_or(value, "upTo is not a string")?,
                "after" => body.after = number(value, "after is not a seq")?.unwrap_or(0),
                "limit" => {
                    let limit = number(value, "limit is not a number")?;
                    body.limit = limit.unwrap_or(0) as usize;
                }
                "groupId" => body.group = text_or(value, "groupId is not a string")?,
                "userIdList" => {
                    body.members = list_or(value, "userIdList is not a list of user ids")?;
                }
                "uids" => body.uids = list_or(value, "uids is not a list of user ids")?,
                "watch" => body.watch = list_or(value, "watch is not a list of user ids")?,
                "unwatch" => body.unwatch = list_or(value, "unwatch is not a list of user ids")?,
                _ => {}
            }
        }
        Ok(body)
    }
}
