//! What a client of an inbox reads: receipts, entries, answers, and a word about what is missing.

use serde::Deserialize;
use throng_history::{Entry, Place};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Type 0.
    Stored {
        msgid: String,
        message_id: String,
        dup: bool,
    },
    /// Type 500 about a message.
    Refused {
        msgid: String,
        code: u16,
    },
    /// Type 2, or 10 where it was sent to a group.
    Message {
        entry: Entry,
        from: String,
        text: String,
    },
    /// Type 16.
    Answered {
        message_id: String,
        status: u16,
    },
    /// Type 17; the entry has the messageId of the message.
    Delivered {
        entry: Entry,
        msgid: String,
        by: String,
    },
    /// An entry of another kind.
    Entry {
        entry: Entry,
    },
    /// Something may be missing before the entry `from`.
    Gap {
        epoch: String,
        head_seq: u64,
        from: u64,
    },
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Frame {
    #[serde(rename = "type")]
    kind: Option<i32>,
    status: Option<u16>,
    params: Option<Params>,
    msg: Option<Msg>,
    epoch: Option<String>,
    seq: Option<u64>,
    message_id: Option<String>,
    #[serde(default)]
    redelivered: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    msgid: Option<String>,
    message_id: Option<String>,
    message: Option<String>,
    #[serde(default)]
    dup: bool,
    code: Option<u16>,
    r#ref: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Msg {
    #[serde(rename = "type")]
    kind: Option<i32>,
    params: Option<MsgParams>,
    event: Option<String>,
    epoch: Option<String>,
    head_seq: Option<u64>,
    from: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MsgParams {
    message: Option<String>,
    msgid: Option<String>,
    message_id: Option<String>,
    from_user: Option<Party>,
    /// A text in type 17, and more in type 2.
    to_user: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Party {
    openid: String,
}

pub fn read(text: &[u8]) -> Heard {
    let heard = serde_json::from_slice(text).ok().and_then(understand);
    heard.unwrap_or(Heard::Other)
}

fn understand(frame: Frame) -> Option<Heard> {
    if let (Some(epoch), Some(seq)) = (frame.epoch, frame.seq) {
        let entry = Entry {
            place: Place { epoch, seq },
            message_id: frame.message_id?,
            redelivered: frame.redelivered,
        };
        let msg = frame.msg?;
        return Some(match (msg.kind, msg.params) {
            (Some(2 | 10), Some(params)) => Heard::Message {
                entry,
                from: params.from_user?.openid,
                text: params.message?,
            },
            (Some(17), Some(params)) => Heard::Delivered {
                entry: Entry {
                    message_id: params.message_id?,
                    ..entry
                },
                msgid: params.msgid.unwrap_or_default(),
                by: params.to_user?.as_str()?.to_owned(),
            },
            _ => Heard::Entry { entry },
        });
    }
    if let Some(msg) = frame.msg {
        return (msg.event.as_deref() == Some("resync")).then_some(Heard::Gap {
            epoch: msg.epoch?,
            head_seq: msg.head_seq?,
            from: msg.from?,
        });
    }
    let params = frame.params?;
    Some(match frame.kind? {
        0 => Heard::Stored {
            msgid: params.msgid?,
            message_id: params.message_id?,
            dup: params.dup,
        },
        16 => Heard::Answered {
            message_id: params.message?,
            status: frame.status?,
        },
        500 => Heard::Refused {
            msgid: params.r#ref?,
            code: params.code?,
        },
        _ => Heard::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, message_id: &str, redelivered: bool) -> Entry {
        let place = Place {
            epoch: "c4e9".to_owned(),
            seq,
        };
        let message_id = message_id.to_owned();
        Entry {
            place,
            message_id,
            redelivered,
        }
    }

    #[test]
    fn receipts_answers_and_errors_are_told_apart() {
        assert_eq!(
            read(br#"{"type":0,"status":200,"params":{"date":"Tue","message":"hi","msgid":"m1","messageId":"c4","dup":true}}"#),
            Heard::Stored { msgid: "m1".to_owned(), message_id: "c4".to_owned(), dup: true }
        );
        assert_eq!(
            read(br#"{"type":16,"status":404,"params":{"date":"Tue","message":"c4"}}"#),
            Heard::Answered {
                message_id: "c4".to_owned(),
                status: 404
            }
        );
        assert_eq!(
            read(br#"{"type":500,"status":500,"params":{"code":503,"message":"no","ref":"m1","reason":"store_busy"}}"#),
            Heard::Refused { msgid: "m1".to_owned(), code: 503 }
        );
    }

    #[test]
    fn entries_say_where_they_stand_and_what_they_are() {
        assert_eq!(
            read(br#"{"sessionId":"s","to":["bob"],"epoch":"c4e9","seq":2,"redelivered":true,"msg":{"type":2,"status":200,"params":{"toUser":{"openid":"bob"},"fromUser":{"openid":"alice"},"message":"hi","fileType":"0"}},"messageId":"a1","msgType":1}"#),
            Heard::Message { entry: entry(2, "a1", true), from: "alice".to_owned(), text: "hi".to_owned() }
        );
        assert_eq!(
            read(br#"{"to":["bob"],"epoch":"c4e9","seq":2,"msg":{"type":10,"status":200,"params":{"fromUser":{"openid":"alice"},"message":"hi","fileType":"0","groupId":"team"}},"messageId":"a1","msgType":1}"#),
            Heard::Message { entry: entry(2, "a1", false), from: "alice".to_owned(), text: "hi".to_owned() }
        );
        assert_eq!(
            read(br#"{"to":["alice"],"epoch":"c4e9","seq":1,"msg":{"type":17,"status":200,"params":{"msgid":"m1","messageId":"a1","toUser":"bob"}},"messageId":"a2","msgType":1}"#),
            Heard::Delivered { entry: entry(1, "a1", false), msgid: "m1".to_owned(), by: "bob".to_owned() }
        );
        assert_eq!(
            read(br#"{"to":["bob"],"epoch":"c4e9","seq":3,"msg":{"text":"a push"},"messageId":"a3","msgType":1}"#),
            Heard::Entry { entry: entry(3, "a3", false) }
        );
        assert_eq!(
            read(br#"{"to":["bob"],"from":"system","msg":{"event":"resync","epoch":"c4e9","headSeq":2,"from":2},"msgType":0}"#),
            Heard::Gap { epoch: "c4e9".to_owned(), head_seq: 2, from: 2 }
        );
    }

    #[test]
    fn what_is_none_of_these_is_something_else() {
        for text in [
            &br#"{"type":8,"status":200,"params":{"epoch":"c4e9","headSeq":0,"openid":"a"}}"#[..],
            br#"{"msg":{"event":"online","userId":"bob"},"msgType":0}"#,
            br#"{"msg":"a text","msgType":1}"#,
            b"no JSON",
        ] {
            assert_eq!(read(text), Heard::Other);
        }
    }
}
