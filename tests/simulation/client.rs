//! One device of one user, as a good client is, or a bad one: it comes back with what it has
//! processed, tells its application each message once, acknowledges in its own manner, and
//! repeats under the same msgid whatever it does not know the end of.
//!
//! Owns: what outlives a connection (cursor, known messages, what is not acknowledged, what is to
//! be sent), and the bytes that are on their way to the node.

use std::collections::HashSet;

use serde_json::Value;
use throng::session::Newcomer;
use throng_history::{Class, Entry, Link, Place, Sent, What};

use crate::book::{self, Book};
use crate::node::Node;
use crate::rig::Peer;
use crate::rig::feed::Chance;
use crate::rig::wire::{self, Frame, Heard};
use crate::traffic::Sending;

/// What a client calls its device where it has no name.
pub const ANONYMOUS: &str = "default";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Never says that it acknowledges: it answers pings.
    Plain,
    /// One at a time, in any order.
    Singly,
    /// Several by their ids.
    Together,
    /// Everything up to a place.
    UpTo,
    /// Says that it acknowledges, and does not.
    Mute,
}

pub struct Client {
    pub user: String,
    /// None: anonymous.
    pub device: Option<String>,
    pub manner: Manner,
    pub uses_cursor: bool,
    pub line: Option<Line>,
    pub outbox: Vec<Sending>,
    pub next_msgid: u32,
    /// What was processed and is not known to be acknowledged.
    pub unacked: Vec<Unacked>,
    cursor: Option<Place>,
    /// The epoch of its inbox, as it last heard it.
    epoch: Option<String>,
    seen: HashSet<String>,
}

pub struct Unacked {
    pub id: String,
    pub place: Place,
    pub class: Class,
}

/// A connection, from the client's end.
pub struct Line {
    pub peer: Peer,
    pub link: Link,
    /// Bytes that have not reached the node.
    pub up: Vec<u8>,
    pub is_stalled: bool,
    /// It has said that it goes, and is still connected.
    pub is_out: bool,
    /// The judge knows of it: the inbox knows this device from then on, whatever becomes of it.
    pub is_open: bool,
    cursor: Option<Place>,
}

impl Client {
    pub fn new(user: &str, device: Option<&str>, manner: Manner, uses_cursor: bool) -> Client {
        Client {
            user: user.to_owned(),
            device: device.map(str::to_owned),
            manner,
            uses_cursor: uses_cursor && manner != Manner::Plain,
            line: None,
            outbox: Vec::new(),
            next_msgid: 0,
            unacked: Vec::new(),
            cursor: None,
            epoch: None,
            seen: HashSet::new(),
        }
    }

    pub fn device_name(&self) -> &str {
        self.device.as_deref().unwrap_or(ANONYMOUS)
    }

    pub fn connect(&mut self, number: u64, node: &mut Node, book: &mut Book) {
        let mut target = format!("/websocket?openid={}", self.user);
        if let Some(device) = &self.device {
            target += &format!("&device={device}");
        }
        let cursor = self.cursor.clone().filter(|_| self.uses_cursor);
        if let Some(Place { epoch, seq }) = &cursor {
            target += &format!("&cursor={epoch}:{seq}");
        }
        if self.manner != Manner::Plain {
            target += "&ack=1";
        }
        if let Some(place) = cursor.clone() {
            // The node may take it to heart, and this client never hear so.
            book.write(What::Pass {
                user: self.user.clone(),
                device: self.device_name().to_owned(),
                place,
            });
        }
        let peer = node.rig.knock(Newcomer::Admitted);
        book.note(|| {
            format!(
                "{}/{} knocks as {number}: {target}",
                self.user,
                self.device_name()
            )
        });
        self.line = Some(Line {
            peer,
            link: Link {
                user: self.user.clone(),
                device: self.device_name().to_owned(),
                connection: number,
            },
            up: wire::head(&target, "").into_bytes(),
            is_stalled: false,
            is_out: false,
            is_open: false,
            cursor,
        });
    }

    /// Puts a message on its way to the node. False if there is no connection.
    pub fn say(&mut self, text: &str, masks: &mut Chance) -> bool {
        let Some(line) = &mut self.line else {
            return false;
        };
        line.up.extend(Frame::text(text).encode(masks));
        true
    }

    pub fn is_out(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.is_out)
    }

    /// Says that it goes, without hanging up, or that it is back.
    pub fn come_or_go(&mut self, masks: &mut Chance) {
        let Some(line) = &mut self.line else {
            return;
        };
        line.is_out = !line.is_out;
        let (user, status) = (&self.user, if line.is_out { "0" } else { "1" });
        let text = format!(
            r#"{{"type":7,"params":{{"openid":"{user}","userName":"{user}","loginStatus":"{status}"}}}}"#
        );
        self.say(&text, masks);
    }

    /// Reads what has come. The connection may be over then.
    pub fn hear(&mut self, node: &mut Node, book: &mut Book, masks: &mut Chance) {
        let Some(peer) = self.line.as_ref().map(|line| line.peer) else {
            return;
        };
        for heard in node.rig.heard_so_far(peer) {
            match heard {
                Heard::Text(text) => {
                    let message = serde_json::from_str(&text).unwrap();
                    self.take(&message, book);
                }
                Heard::Ping(payload) => {
                    book.note(|| {
                        let name = self.device_name();
                        let payload = String::from_utf8_lossy(&payload);
                        format!("{}/{name} hears a ping: {payload:?}", self.user)
                    });
                    if let Some(line) = &mut self.line {
                        line.up.extend(Frame::pong(payload).encode(masks));
                    }
                }
                Heard::Http(101, _) | Heard::Pong(_) => {}
                Heard::Http(status, _) => {
                    assert_eq!(status, 408, "nothing else is wrong with this upgrade");
                    self.hang_up(book);
                    node.rig.hang_up(peer);
                }
                Heard::Close(code, _) => {
                    book.note(|| format!("{}/{} hears {code:?}", self.user, self.device_name()));
                    // 1008 where a message does not come to its end.
                    assert!(
                        matches!(code, Some(1008 | 4408 | 4409 | 4431)),
                        "closed {code:?}"
                    );
                    book.counts.mute += u64::from(code == Some(4431));
                    book.counts.replaced += u64::from(code == Some(4409));
                    if self.manner == Manner::Mute {
                        // It has understood.
                        self.manner = Manner::Singly;
                    }
                    self.hang_up(book);
                    node.rig.hang_up(peer);
                }
                Heard::Binary(_) => panic!("binary"),
            }
        }
        // A connection may end without a word.
        let is_it = |line: &Line| line.peer == peer;
        if self.line.as_ref().is_some_and(is_it) && node.rig.is_gone(peer) {
            self.hang_up(book);
        }
    }

    /// The connection is over, as this end sees it.
    pub fn hang_up(&mut self, book: &mut Book) {
        let Some(line) = self.line.take() else {
            return;
        };
        for sending in &mut self.outbox {
            sending.give_up_waiting(book);
        }
        if line.is_open {
            book.write(What::Close { on: line.link });
        }
    }

    fn take(&mut self, message: &Value, book: &mut Book) {
        if message.get("seq").is_some() {
            return self.take_entry(message, book);
        }
        match (message["msgType"].as_i64(), message["type"].as_i64()) {
            (Some(0), _) => self.take_notice(&message["msg"], book),
            (_, Some(0)) => self.take_receipt(&message["params"], book),
            (_, Some(4)) => {}
            (_, Some(16)) => self.take_answer(message, book),
            (_, Some(500)) => self.take_error(&message["params"], book),
            _ => self.take_route(message),
        }
    }

    /// Connected, or a gap.
    fn take_notice(&mut self, msg: &Value, book: &mut Book) {
        let (Some(epoch), Some(head_seq)) = (msg["epoch"].as_str(), msg["headSeq"].as_u64()) else {
            return;
        };
        // What it has not passed comes again under another epoch.
        self.unacked.retain(|known| known.place.epoch == epoch);
        let before = self.epoch.replace(epoch.to_owned());
        let is_resync = msg["event"] == "resync";
        // An anonymous device that finds no inbox is not written down.
        if is_resync || self.device.is_some() || head_seq > 0 {
            self.open(book);
        }
        let Some(line) = self.line.as_ref().filter(|line| line.is_open) else {
            return;
        };
        // Who comes without a cursor to a store that knows nothing any more hears it from the
        // epoch alone.
        let is_other = before.is_some_and(|before| before != epoch) && line.cursor.is_none();
        if is_resync || is_other {
            book.write(What::Gap {
                on: line.link.clone(),
                epoch: epoch.to_owned(),
                head_seq,
                from: msg["from"].as_u64().unwrap_or(head_seq + 1),
            });
        }
    }

    fn open(&mut self, book: &mut Book) {
        let Some(line) = &mut self.line else {
            return;
        };
        if !std::mem::replace(&mut line.is_open, true) {
            book.write(What::Open {
                on: line.link.clone(),
                cursor: line.cursor.clone(),
            });
        }
    }

    fn take_entry(&mut self, message: &Value, book: &mut Book) {
        self.open(book);
        let Some(on) = self.line.as_ref().map(|line| line.link.clone()) else {
            return;
        };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let place = Place {
            epoch: text(&message["epoch"]),
            seq: message["seq"].as_u64().unwrap(),
        };
        let msg = &message["msg"];
        let is_notice = msg["type"] == 17;
        let entry = Entry {
            place: place.clone(),
            message_id: match is_notice {
                true => text(&msg["params"]["messageId"]),
                false => text(&message["messageId"]),
            },
            redelivered: message["redelivered"] == true,
        };
        if is_notice {
            let by = text(&msg["params"]["toUser"]);
            book.write(What::Notify { on, entry, by });
        } else {
            self.process(on, entry, msg, book);
        }
        self.cursor = Some(place);
    }

    fn process(&mut self, on: Link, entry: Entry, msg: &Value, book: &mut Book) {
        book.write(What::Receive {
            on: on.clone(),
            entry: entry.clone(),
        });
        let said = msg.as_str().or(msg["params"]["message"].as_str());
        let mut sent = said.and_then(book::parse).unwrap();
        let id = entry.message_id.clone();
        if !self.unacked.iter().any(|known| known.id == id) {
            self.unacked.push(Unacked {
                id: id.clone(),
                place: entry.place.clone(),
                class: sent.class,
            });
        }
        if self.seen.insert(id) {
            if sent.to == book::SEVERAL {
                sent.to.clone_from(&self.user);
            }
            if self.has_said(&sent) {
                return;
            }
            match sent.class {
                Class::Group => book.counts.group_deliveries += 1,
                Class::Push => book.counts.push_deliveries += 1,
                Class::Single => {}
            }
            book.write(What::Deliver { on, entry, sent });
        }
    }

    /// Its own word to a group, which a device hears that was forgotten.
    fn has_said(&self, sent: &Sent) -> bool {
        let device = sent.msgid.split('-').next();
        sent.class == Class::Group && sent.sender == self.user && device == Some(self.device_name())
    }

    fn take_receipt(&mut self, params: &Value, book: &mut Book) {
        let id = params["messageId"].as_str().unwrap();
        let is_again = params["dup"] == true;
        if let Some(sending) = self.take_sending(&params["msgid"]) {
            book.write(What::Confirmed {
                sent: sending.sent,
                message_id: id.to_owned(),
                dup: is_again,
            });
        }
    }

    fn take_error(&mut self, params: &Value, book: &mut Book) {
        let code = params["code"].as_u64().unwrap();
        let reason = params["reason"].as_str().unwrap_or_default();
        assert!(
            // 404: the group went with what the store has lost.
            matches!(code, 503 | 409 | 403 | 404) || reason == "not_member",
            "{params}"
        );
        book.counts.inbox_full += u64::from(reason == "inbox_full");
        book.counts.conflicts += u64::from(reason == "msgid_reused");
        let Some(mut sending) = self.take_sending(&params["ref"]) else {
            return;
        };
        let is_to_repeat = code == 503 && sending.wants_again();
        book.write(What::Failed {
            sent: sending.sent.clone(),
            definite: true,
            code: code as u16,
        });
        if is_to_repeat {
            sending.waits_since = None;
            self.outbox.push(sending);
        }
    }

    /// What is answered, if it is still waited for.
    fn take_sending(&mut self, msgid: &Value) -> Option<Sending> {
        let is_it = |sending: &Sending| {
            sending.waits_since.is_some() && *msgid == sending.sent.msgid.as_str()
        };
        let at = self.outbox.iter().position(is_it)?;
        Some(self.outbox.remove(at))
    }

    fn take_answer(&mut self, message: &Value, book: &mut Book) {
        let named = message["params"]["message"].as_str().unwrap();
        let status = message["status"].as_u64().unwrap();
        if let Some((_, seq)) = named.split_once(':') {
            let seq: u64 = seq.parse().unwrap();
            return self.unacked.retain(|known| known.place.seq > seq);
        }
        self.unacked.retain(|known| known.id != named);
        if let Some(line) = &self.line
            && line.is_open
        {
            book.write(What::Answered {
                on: line.link.clone(),
                message_id: named.to_owned(),
                status: status as u16,
            });
        }
    }

    /// The answer to `message/ack`.
    fn take_route(&mut self, message: &Value) {
        let done = message["content"]["acknowledged"].as_array();
        for id in done.into_iter().flatten() {
            self.unacked.retain(|known| id != known.id.as_str());
        }
    }
}
