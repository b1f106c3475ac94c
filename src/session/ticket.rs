//! What a session wants to know again when the store, or other nodes, have answered.

use crate::protocol::away::Unheard;
use crate::protocol::inbound::{About, Family};
use crate::protocol::order::Fault;

/// Goes with a request to the store or an errand, and comes back with what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticket {
    pub to: Answering,
    pub wait: Wait,
}

/// Which message is answered: [`About`], kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Answering {
    family: Family,
    path: String,
    request_id: Option<String>,
    msgid: Option<String>,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
pub enum Wait {
    /// Where the device is. Then the client is greeted, and what brought it here is answered.
    Attach { greeting: Greeting, then: Then },
    /// The next page for the client, of what lies behind `after`.
    Page { after: u64 },
    /// That the device has passed something, of which nobody hears.
    Passed,
    /// That messages are acknowledged, each to be answered.
    Acknowledged { messages: Vec<String> },
    /// A page that the client asked for.
    Look,
    /// That a chat message is accepted; its text is JSON.
    Chat { message: String },
    /// That a message for several is accepted.
    Send { to: Vec<String>, message: String },
    /// That a push is accepted.
    Push { to: Vec<String> },
    /// A group, changed or looked at.
    Group { id: String, is_change: bool },
    /// Whether those were elsewhere to whom a message went: the names of those who are not here.
    Carried { missing: Vec<Option<String>> },
    /// What is known of others elsewhere.
    Others(Unheard),
    /// Where the members of a group are elsewhere.
    Members {
        id: String,
        members: Vec<String>,
        is_change: bool,
    },
}

/// Whether the connected notice is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// It is; this tells the token apart.
    Due(u64),
    /// It was, without the place of an inbox that could not be read then: once that is known.
    Late,
    /// Who comes back by type 7 has had it.
    Done,
}

/// What is answered when the client has been greeted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    Nothing,
    /// Type 8.
    Registered,
    /// A route's success.
    Connected,
    /// The client is known now, but something else in its message was not good.
    Refused(Fault),
}

impl From<&About<'_>> for Answering {
    fn from(about: &About<'_>) -> Answering {
        Answering {
            family: about.family,
            path: about.path.to_owned(),
            request_id: about.request_id.map(str::to_owned),
            msgid: about.msgid.map(str::to_owned),
        }
    }
}

impl Answering {
    /// Nobody's message: the session asks for itself.
    pub fn nobody() -> Answering {
        Answering {
            family: Family::Command,
            path: String::new(),
            request_id: None,
            msgid: None,
        }
    }

    pub fn about(&self) -> About<'_> {
        About {
            family: self.family,
            path: &self.path,
            request_id: self.request_id.as_deref(),
            msgid: self.msgid.as_deref(),
        }
    }
}
