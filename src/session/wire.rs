//! The way from an inbox to its client and to the store: what a pump asks for, as frames and
//! requests.

use super::host::{Counted, Host};
use super::ticket::{Answering, Greeting, Then, Ticket, Wait};
use crate::inbox::pump::Outlet;
use crate::inbox::records::{Entry, EntryBody, Text};
use crate::inbox::service::Request;
use crate::inbox::{Attach, Cursor, Reach};
use crate::protocol::envelope::{Body, Envelope, Party, Trigger};
use crate::protocol::frame::{self, Opcode};
use crate::protocol::identity::Identity;
use crate::protocol::order::{ChatText, FileType};
use crate::protocol::outbound::{self, Place, SessionId};

/// Entries that are read with the first look: as many as an acknowledging client is sent.
const FIRST_PAGE: usize = 64;

/// The way from a pump to its client and to the store.
pub(super) struct Wire<'a, H> {
    pub session: SessionId<'a>,
    pub identity: &'a Identity,
    /// No more is sent where the write queue is longer.
    pub queue_bytes_max: usize,
    pub now_ms: u64,
    pub host: &'a mut H,
}

impl<H: Host> Outlet for Wire<'_, H> {
    fn entry(&mut self, epoch: u64, seq: u64, entry: &Entry, is_again: bool) {
        let place = Place {
            epoch,
            seq,
            is_again,
        };
        let envelope = envelope(entry);
        outbound::entry(
            self.session,
            self.identity,
            place,
            &envelope,
            self.host.out(),
        );
        self.host.count(Counted::Delivery);
    }

    fn resync(&mut self, epoch: u64, head_seq: u64, from: u64) {
        let (id, place) = (self.host.message_id(), (epoch, head_seq));
        let out = self.host.out();
        outbound::resync(self.session, id, self.now_ms, place, from, out);
    }

    fn ping(&mut self, payload: &[u8]) {
        let out = self.host.out();
        frame::write_header(Opcode::Ping, payload.len(), out);
        out.extend_from_slice(payload);
        self.host.count(Counted::Ping);
    }

    fn has_room(&self) -> bool {
        self.host.owed() <= self.queue_bytes_max
    }

    fn pull(&mut self, after: u64, limit: usize) -> bool {
        let request = Request::Pull {
            uid: self.identity.uid().to_owned(),
            device: self.host.device(),
            after,
            limit,
        };
        self.ask(request, Wait::Page { after })
    }

    fn pass(&mut self, seq: u64) -> bool {
        let request = Request::Acknowledge {
            uid: self.identity.uid().to_owned(),
            device: self.host.device(),
            reach: Reach::Silently { seq },
        };
        self.ask(request, Wait::Passed)
    }

    fn attach(&mut self) -> bool {
        let request = attach(self.session, self.identity, self.host.cursor(), self.host);
        let wait = Wait::Attach {
            greeting: Greeting::Late,
            then: Then::Nothing,
        };
        self.ask(request, wait)
    }
}

impl<H: Host> Wire<'_, H> {
    fn ask(&mut self, request: Request, wait: Wait) -> bool {
        let to = Answering::nobody();
        self.host.ask(request, Ticket { to, wait })
    }
}

pub(super) fn attach<H: Host>(
    session: SessionId<'_>,
    identity: &Identity,
    cursor: Option<Cursor>,
    host: &H,
) -> Request {
    Request::Attach(Box::new(Attach {
        entry: host.entry(session, identity),
        sessions_max: host.sessions_max(),
        uid: identity.uid().to_owned(),
        device: host.device(),
        cursor,
        page: FIRST_PAGE,
    }))
}

fn said(text: &Text) -> ChatText<'_> {
    ChatText {
        message: &text.message,
        file_type: FileType::Text(&text.file_type),
    }
}

/// An entry as its receivers see it.
pub(super) fn envelope(entry: &Entry) -> Envelope<'_> {
    let (from, body) = match &entry.body {
        EntryBody::Raw { msg } => (entry.from.as_str(), Body::Raw(msg)),
        EntryBody::Chat { from, text } => {
            let from = Party {
                uid: &entry.from,
                name: &from.name,
                is_online: from.is_online,
            };
            (
                "system",
                Body::Chat {
                    from,
                    text: said(text),
                },
            )
        }
        EntryBody::GroupChat { from, group, text } => {
            let from = Party {
                uid: &entry.from,
                name: &from.name,
                is_online: from.is_online,
            };
            let text = said(text);
            ("system", Body::GroupChat { from, group, text })
        }
        EntryBody::Delivered { msgid, message, to } => {
            let msgid = msgid.as_deref();
            let message = *message;
            ("system", Body::Delivered { msgid, message, to })
        }
    };
    Envelope {
        active_ms: entry.at_ms,
        from,
        message_id: entry.id,
        body,
        msg_type: 1,
        request_id: entry.request_id.as_deref(),
        trigger: match entry.is_http {
            true => Trigger::Http,
            false => Trigger::WebSocket,
        },
    }
}
