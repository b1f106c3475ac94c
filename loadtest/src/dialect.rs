//! How the crowd's messages are said to a server that does not speak as Throng does. Pure.
//!
//! Owns: what stands around a message on its way, and what is answered so that a connection stays.
//! The marks by which messages are known again are the same in every dialect.

/// As Throng speaks, and every server that imitates it; or otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    #[default]
    Throng,
    /// Over a bare WebSocket: packets of Engine.IO 4 with events of Socket.IO in them.
    SocketIo,
    /// A channel for each user: its client publishes to the channel of whom it talks to. Nobody
    /// greets, and nobody registers.
    Nchan,
}

impl Dialect {
    /// True if whoever has its 101 is in.
    pub fn is_in_at_once(self) -> bool {
        self == Dialect::Nchan
    }

    /// What a text asks to be answered before anything else, beside the pings of WebSocket.
    pub fn reply(self, text: &[u8]) -> Option<&'static str> {
        match (self, text) {
            (Dialect::SocketIo, [b'0', b'{', ..]) => Some("40"),
            (Dialect::SocketIo, b"2") => Some("3"),
            _ => None,
        }
    }

    /// A registration, written by `write`.
    pub fn register(self, out: &mut String, write: impl FnOnce(&mut String)) {
        self.event("register", out, write);
    }

    /// A direct message, written by `write`.
    pub fn direct(self, out: &mut String, write: impl FnOnce(&mut String)) {
        self.event("direct", out, write);
    }

    fn event(self, name: &str, out: &mut String, write: impl FnOnce(&mut String)) {
        if self != Dialect::SocketIo {
            return write(out);
        }
        out.extend(["42[\"", name, "\","]);
        write(out);
        out.push(']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_socket_io_enters_and_answers_its_pings_and_the_others_say_nothing_of_themselves()
    {
        let greeting = br#"0{"sid":"x","upgrades":[],"pingInterval":25000}"#;
        let texts: [&[u8]; 4] = [greeting, b"2", br#"40{"sid":"y"}"#, br#"42["message",{}]"#];
        let replies = |dialect: Dialect| texts.map(|text| dialect.reply(text));
        assert_eq!(
            replies(Dialect::SocketIo),
            [Some("40"), Some("3"), None, None]
        );
        assert_eq!(replies(Dialect::Throng), [None; 4]);
        assert_eq!(replies(Dialect::Nchan), [None; 4]);
    }

    #[test]
    fn a_message_is_an_event_where_there_are_such() {
        let said = |dialect: Dialect| {
            let mut out = String::new();
            dialect.direct(&mut out, |out| out.push_str("{\"to\":\"bob\"}"));
            out
        };
        assert_eq!(said(Dialect::Throng), r#"{"to":"bob"}"#);
        assert_eq!(said(Dialect::Nchan), r#"{"to":"bob"}"#);
        assert_eq!(said(Dialect::SocketIo), r#"42["direct",{"to":"bob"}]"#);
    }
}
