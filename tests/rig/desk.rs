//! The node as a session sees it: the reactor's desk, without a reactor.

use throng::hub::code::UserCodes;
use throng::hub::roster::{Roster, Sessions};
use throng::parts::key::Key;
use throng::protocol::envelope::{Envelope, MessageId};
use throng::protocol::identity::{self, Identity};
use throng::protocol::outbound;
use throng::session::{Counted, Host, Sent};

pub struct Desk {
    pub roster: Roster,
    codes: UserCodes,
    /// The connection whose session is running.
    pub key: Key,
    /// Bytes for that connection.
    pub out: Vec<u8>,
    /// Envelopes for others, in the order in which they were sent.
    pub mail: Vec<(Key, Vec<u8>)>,
    pub is_draining: bool,
    /// The way to everybody is full.
    pub is_jammed: bool,
    pub counted: Vec<Counted>,
    next_id: u128,
}

impl Default for Desk {
    fn default() -> Desk {
        Desk {
            roster: Roster::default(),
            codes: UserCodes::new(&[7; 32]),
            key: Key::new(0, 0, 0),
            out: Vec::new(),
            mail: Vec::new(),
            is_draining: false,
            is_jammed: false,
            counted: Vec::new(),
            next_id: 0,
        }
    }
}

impl Desk {
    fn find(&self, target: &str) -> Sessions {
        if identity::is_id(target) {
            return self.roster.find(target);
        }
        let Some((key, uid)) = self.codes.read(target) else {
            return Sessions::default();
        };
        let mut sessions = self.roster.find(&uid);
        sessions.retain(|session| *session == key);
        sessions
    }
}

impl Host for Desk {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn message_id(&mut self) -> MessageId {
        self.next_id += 1;
        MessageId(self.next_id.to_be_bytes())
    }

    fn bind(&mut self, identity: Identity, since_secs: u32) -> (Identity, u16) {
        let bound = self.roster.bind(identity, self.key, since_secs);
        (bound.identity, bound.ordinal)
    }

    fn rename(&mut self, identity: &Identity) {
        self.roster.rename(identity, self.key);
    }

    fn set_online(&mut self, identity: &Identity, is_online: bool) {
        self.roster.set_online(identity.uid(), self.key, is_online);
    }

    fn unbind(&mut self, identity: &Identity) {
        self.roster.unbind(identity.uid(), self.key);
    }

    fn user_code(&mut self, fingerprint: u64, identity: &Identity) -> String {
        let mut code = String::new();
        self.codes
            .write(fingerprint, self.key, identity.uid(), &mut code);
        code
    }

    fn send(&mut self, target: &str, envelope: &Envelope<'_>) -> Sent {
        let sessions = self.find(target);
        if sessions.is_empty() {
            return Sent::NobodyThere;
        }
        if self.is_jammed {
            return Sent::Refused;
        }
        let mut tail = Vec::new();
        envelope.write_tail(&mut tail);
        self.mail
            .extend(sessions.into_iter().map(|key| (key, tail.clone())));
        Sent::ToSomebody
    }

    fn is_draining(&self) -> bool {
        self.is_draining
    }

    fn come_back(&mut self) -> String {
        outbound::come_back(2250, Some("wss://ws2.example.org/websocket"))
    }

    fn count(&mut self, event: Counted) {
        self.counted.push(event);
    }
}
