//! How each server is spoken to: Throng, Socket.IO and Nchan. Pure.
//!
//! Owns: what a client sends to be let in, how a message is said, and what is answered so that
//! the connection stays.

use std::fmt::Write as _;

use throng::protocol::identity::Identity;
use throng::session::auth::TokenKeys;
use throng_loadtest::Dialect as Spoken;
use throng_loadtest::message::{self, Direct};

use crate::Failed;
use crate::server::SECRET;

/// A bench is over long before that, in the year 2100.
const EXPIRES_MS: u64 = 4_102_444_800_000;

pub enum Dialect {
    Throng(TokenKeys),
    /// Over a bare WebSocket: Engine.IO 4. Each receiver has a room of the name of its user.
    SocketIo,
    /// Each receiver has a channel; whoever sends holds a publisher's WebSocket to it.
    Nchan,
}

/// What a client does with what it hears before it is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Wait,
    /// Says what stands in the text.
    Say,
    Done,
}

impl Dialect {
    pub fn throng() -> Result<Dialect, Failed> {
        Ok(Dialect::Throng(TokenKeys::parse(SECRET)?))
    }

    /// What is asked for in the upgrade: path and query. `own` is the client's user, `to` the one
    /// that it writes to, if it does.
    pub fn place(&self, own: &str, to: Option<&str>) -> Result<(&'static str, String), Failed> {
        Ok(match (self, to) {
            (Dialect::Throng(keys), _) => {
                let token = keys.sign(&Identity::new(own, "")?, EXPIRES_MS, &[]);
                ("/websocket", format!("token={token}"))
            }
            (Dialect::SocketIo, _) => (
                "/socket.io/",
                format!("EIO=4&transport=websocket&user={own}"),
            ),
            (Dialect::Nchan, Some(to)) => ("/publish", format!("channel={to}")),
            (Dialect::Nchan, None) => ("/subscribe", format!("channel={own}")),
        })
    }

    /// True if whoever has its 101 is in.
    pub fn is_in_at_once(&self) -> bool {
        matches!(self, Dialect::Nchan)
    }

    /// A text that comes before the client is in.
    pub fn enter(&self, text: &[u8], own: &str, out: &mut String) -> Entry {
        match self {
            Dialect::Throng(_) if message::is_registered(text) => Entry::Done,
            Dialect::Throng(_) if message::is_notice(text) => {
                message::write_register(out, own);
                Entry::Say
            }
            Dialect::SocketIo if text.starts_with(b"40{") => Entry::Done,
            _ => Entry::Wait,
        }
    }

    /// A message for the user `to`.
    pub fn say(&self, to: &str, direct: Direct, out: &mut String) {
        match self {
            Dialect::Throng(_) => message::write_direct(out, to, direct),
            Dialect::SocketIo => {
                let _ = write!(out, "42[\"say\",\"{to}\",\"");
                message::write_direct_body(out, direct);
                out.push_str("\"]");
            }
            Dialect::Nchan => message::write_direct_body(out, direct),
        }
    }

    /// What a text asks to be answered, beside the pings of WebSocket.
    pub fn answer(&self, text: &[u8]) -> Option<&'static str> {
        match self {
            Dialect::SocketIo => Spoken::SocketIo.reply(text),
            Dialect::Throng(_) | Dialect::Nchan => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use throng_loadtest::message::{BODY_BYTES, Text};

    use super::*;

    #[test]
    fn a_message_has_the_same_body_in_every_dialect() {
        let direct = Direct {
            number: 7,
            sent_nanos: 8,
            receiver: 9,
        };
        for (dialect, around) in [
            (Dialect::throng().unwrap(), 33),
            (Dialect::SocketIo, 18),
            (Dialect::Nchan, 0),
        ] {
            let mut text = String::new();
            dialect.say("bob", direct, &mut text);
            assert_eq!(text.len(), BODY_BYTES + around, "{text}");
            assert_eq!(message::read(text.as_bytes()), Text::Direct(direct));
        }
    }

    #[test]
    fn a_client_of_socket_io_enters_in_two_steps_and_answers_its_pings() {
        let (dialect, mut out) = (Dialect::SocketIo, String::new());
        let greeting = br#"0{"sid":"x","upgrades":[],"pingInterval":25000}"#;
        assert_eq!(dialect.answer(greeting), Some("40"));
        assert_eq!(dialect.enter(greeting, "bob", &mut out), Entry::Wait);
        let done = br#"40{"sid":"y"}"#;
        assert_eq!(dialect.enter(done, "bob", &mut out), Entry::Done);
        assert_eq!(
            (dialect.answer(b"2"), dialect.answer(b"42")),
            (Some("3"), None)
        );
        assert_eq!(Dialect::Nchan.answer(b"2"), None);
    }
}
