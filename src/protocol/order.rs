//! What somebody wants of others: one vocabulary for the three families of messages and the HTTP
//! API, and what comes of it.

use std::borrow::Cow;

use serde::Serialize;
use smallvec::SmallVec;

use super::away::{Errand, Parcel, Unheard};
use super::envelope::MessageId;

/// User ids or user codes.
pub type Targets<'a> = SmallVec<[&'a str; 4]>;

/// Bytes of a sender's own name for a message at most.
pub const MSGID_BYTES_MAX: usize = 256;

/// One wish, whatever the family or the door that it came through.
#[derive(Clone, Debug, PartialEq)]
pub enum Order<'a> {
    /// An envelope for each of `to`; `msg` is JSON text.
    Send {
        to: Targets<'a>,
        msg: &'a str,
    },
    /// A chat message to a user.
    Chat {
        to: &'a str,
        text: ChatText<'a>,
    },
    /// A chat message to the members of a group.
    GroupChat {
        group: &'a str,
        text: ChatText<'a>,
    },
    Group(GroupOrder<'a>),
    /// Who of `uids` is online, and whose coming and going this connection wants to hear of.
    Online {
        uids: Targets<'a>,
        watch: Targets<'a>,
        unwatch: Targets<'a>,
    },
    /// A push as backends send it; `body` is the JSON text of one.
    Push {
        body: &'a str,
    },
}

/// What a chat message says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChatText<'a> {
    /// A JSON string, quotes and escapes as the sender wrote them.
    pub message: &'a str,
    pub file_type: FileType<'a>,
}

/// A number or a string from the client; always a string to others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FileType<'a> {
    Number(i64),
    Text(&'a str),
}

#[derive(Clone, Debug, PartialEq)]
pub enum GroupOrder<'a> {
    /// Makes a group of the caller and `members`.
    Create {
        id: &'a str,
        members: Targets<'a>,
    },
    /// Adds `members`, or the caller where none are named.
    Join {
        id: &'a str,
        members: Targets<'a>,
    },
    Leave {
        id: &'a str,
    },
    /// Who is in it; changes nothing.
    Members {
        id: &'a str,
    },
}

/// A group as its members see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupView {
    pub group_id: String,
    /// Display names, in the order of `user_id_list`; who is not here is called by the id.
    pub name_list: Vec<String>,
    pub user_id_list: Vec<String>,
}

/// What came of an order.
#[derive(Debug)]
pub enum Done<'a> {
    Sent(Deliveries<'a>),
    Reply(Reply),
    /// There is no answer before the other nodes have been heard.
    Away(Errand, Box<Unheard>),
    /// A push that is to be stored.
    Push(Box<StoredPush>),
}

/// A push for the inboxes of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPush {
    /// User ids, each once.
    pub to: Vec<String>,
    /// JSON text.
    pub msg: String,
    pub from: String,
    pub request_id: String,
    /// The caller's own name for it: a push that is repeated under it is stored once.
    pub msgid: Option<String>,
    pub is_http: bool,
    /// Not before this time, Unix milliseconds.
    pub due_ms: Option<u64>,
}

/// What came of an envelope for several.
#[derive(Debug, Default)]
pub struct Deliveries<'a> {
    pub accepted: SmallVec<[(&'a str, MessageId); 1]>,
    pub missing: Vec<&'a str>,
    /// They are here, and the way to them is full.
    pub refused: Vec<&'a str>,
    /// For those who may be elsewhere, and whether they are among the missing.
    pub away: Vec<(Parcel, Option<&'a str>)>,
}

/// An answer in the one shape that routes and the HTTP API share.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// An HTTP status, or -501: some of those named are not here.
    pub status: i32,
    pub content: serde_json::Value,
    pub msg: Cow<'static, str>,
}

/// Text of every success, and of one that did not reach all, as the systems that we serve have it.
pub const OK_TEXT: &str = "操作成功";
pub const SOME_UNKNOWN_TEXT: &str = "存在找不到的客户端";
/// Status where some of those named are not here.
pub const SOME_UNKNOWN: i32 = -501;

impl Reply {
    pub fn ok(content: serde_json::Value) -> Reply {
        Reply {
            status: 200,
            content,
            msg: OK_TEXT.into(),
        }
    }

    /// `ids` are not here.
    pub fn unknown(ids: Vec<String>) -> Reply {
        Reply {
            status: SOME_UNKNOWN,
            content: ids.into(),
            msg: SOME_UNKNOWN_TEXT.into(),
        }
    }

    pub fn error(status: u16, msg: impl Into<Cow<'static, str>>) -> Reply {
        Reply {
            status: status.into(),
            content: serde_json::Value::Null,
            msg: msg.into(),
        }
    }

    /// The way to those who are meant is full.
    pub fn busy() -> Reply {
        let msg = "this node is too far behind to take more: try again in a moment";
        Reply::error(503, msg).with(serde_json::json!({"reason": "busy"}))
    }

    pub fn with(self, content: serde_json::Value) -> Reply {
        Reply { content, ..self }
    }
}

pub const STORE_DOWN: Fault =
    Fault::new(503, "the store does not answer, nothing was sent").because("store_down");

/// An error that does not end a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// One of 400, 401, 403, 404, 409, 413, 429, 503.
    pub code: u16,
    pub message: Cow<'static, str>,
    /// A word for programs where the code alone does not say enough.
    pub reason: Option<&'static str>,
}

impl Fault {
    pub const fn new(code: u16, message: &'static str) -> Fault {
        Fault {
            code,
            message: Cow::Borrowed(message),
            reason: None,
        }
    }

    pub const fn because(mut self, reason: &'static str) -> Fault {
        self.reason = Some(reason);
        self
    }

    /// With words that depend on the case.
    pub fn saying(mut self, message: String) -> Fault {
        self.message = Cow::Owned(message);
        self
    }
}

impl From<Fault> for Reply {
    fn from(fault: Fault) -> Reply {
        let content = match fault.reason {
            Some(reason) => serde_json::json!({ "reason": reason }),
            None => serde_json::Value::Null,
        };
        Reply::error(fault.code, fault.message).with(content)
    }
}
