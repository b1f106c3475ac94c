//! The family of `{"type":…,"params":{…}}`.

use super::{About, Ask, Credentials, Fields, Got, list_or, text_or};
use crate::protocol::json::{Object, Value};
use crate::protocol::order::{ChatText, FileType, GroupOrder, Order, Targets};

/// What `params` holds, whatever the type.
#[derive(Default)]
struct Params<'a> {
    who: Credentials<'a>,
    is_offline: bool,
    to: Option<&'a str>,
    group: Option<&'a str>,
    /// JSON text of the string.
    message: Option<&'a str>,
    file_type: Option<FileType<'a>>,
    members: Targets<'a>,
    is_leaving: bool,
    got: Got<'a>,
}

pub(super) fn read<'a>(
    fields: &Fields<'_, 'a>,
    about: &mut About<'a>,
) -> Result<Ask<'a>, &'static str> {
    let kind = fields.kind.and_then(Value::as_int);
    let kind = kind.ok_or("type is not a whole number")?;
    let mut params = match fields.params {
        Some(Value::Object(object)) => Params::collect(object, fields, about)?,
        _ => Params::default(),
    };
    let token = text_or(fields.token, "token is not a string")?;
    params.who.token = params.who.token.or(token);
    Ok(match kind {
        1 => Ask::Order(Order::Chat {
            to: params.to.ok_or("toMessageId is missing")?,
            text: params.text()?,
        }),
        9 => Ask::Order(Order::GroupChat {
            group: params.to.ok_or("toMessageId is missing")?,
            text: params.text()?,
        }),
        3 | 14 => Ask::Order(Order::Group(params.group_order(kind)?)),
        7 => Ask::Register {
            who: params.who,
            is_online: !params.is_offline,
        },
        11 => Ask::Heartbeat,
        15 => Ask::Acknowledge(params.got(about)?),
        _ => return Err("unknown type"),
    })
}

impl<'a> Params<'a> {
    fn collect(
        object: Object<'_, 'a>,
        fields: &Fields<'_, 'a>,
        about: &mut About<'a>,
    ) -> Result<Params<'a>, &'static str> {
        let mut params = Params::default();
        for (key, value) in object {
            let value = Some(value);
            match key {
                "openid" => params.who.openid = text_or(value, "openid is not a string")?,
                "userName" => params.who.name = text_or(value, "userName is not a string")?,
                "token" => params.who.token = text_or(value, "token is not a string")?,
                "msgid" => about.msgid = text_or(value, "msgid is not a string")?,
                "toMessageId" => params.to = text_or(value, "toMessageId is not a string")?,
                "groupId" => params.group = text_or(value, "groupId is not a string")?,
                "userIdList" => {
                    params.members = list_or(value, "userIdList is not a list of user ids")?;
                }
                "msgids" => {
                    params.got.messages = list_or(value, "msgids is not a list of message ids")?;
                }
                "upTo" => params.got.up_to = text_or(value, "upTo is not a string")?,
                "cursor" => params.who.cursor = text_or(value, "cursor is not a string")?,
                "leave" => params.is_leaving = is_true(value)?,
                "loginStatus" => params.is_offline = is_offline(value)?,
                "fileType" => params.file_type = file_type(value)?,
                "message" => {
                    let text = text_or(value, "message is not a string")?;
                    params.message = text.and_then(|_| fields.source.after(key));
                }
                _ => {}
            }
        }
        Ok(params)
    }

    fn text(&self) -> Result<ChatText<'a>, &'static str> {
        Ok(ChatText {
            message: self.message.ok_or("message is missing")?,
            file_type: self.file_type.unwrap_or(FileType::Number(0)),
        })
    }

    /// `msgid` is the message that is acknowledged.
    fn got(mut self, about: &About<'a>) -> Result<Got<'a>, &'static str> {
        self.got.messages.extend(about.msgid);
        if self.got.messages.is_empty() && self.got.up_to.is_none() {
            return Err("none of msgid, msgids and upTo is there");
        }
        Ok(self.got)
    }

    fn group_order(self, kind: i64) -> Result<GroupOrder<'a>, &'static str> {
        let id = self.group.ok_or("groupId is missing")?;
        let members = self.members;
        Ok(match kind {
            3 => GroupOrder::Create { id, members },
            _ if self.is_leaving => GroupOrder::Leave { id },
            _ => GroupOrder::Join { id, members },
        })
    }
}

fn is_offline(value: Option<Value<'_, '_>>) -> Result<bool, &'static str> {
    match (value, value.and_then(Value::as_int)) {
        (Some(Value::Null), _) | (_, Some(1)) => Ok(false),
        (_, Some(0)) => Ok(true),
        _ => Err("loginStatus is neither 1 nor 0"),
    }
}

fn is_true(value: Option<Value<'_, '_>>) -> Result<bool, &'static str> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(is_true)) => Ok(is_true),
        Some(_) => Err("leave is neither true nor false"),
    }
}

fn file_type<'a>(value: Option<Value<'_, 'a>>) -> Result<Option<FileType<'a>>, &'static str> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Int(number)) => Ok(Some(FileType::Number(number))),
        Some(Value::Text(text)) => Ok(Some(FileType::Text(text))),
        Some(_) => Err("fileType is neither a whole number nor a string"),
    }
}
