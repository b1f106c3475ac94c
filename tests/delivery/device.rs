//! One device of one user: a good client, whatever happens to its connection.
//!
//! It keeps the place of the last entry that its application has processed, repeats under the same
//! msgid what nobody has confirmed, and gives each message to the application once. It lives in a
//! thread of its own until the run is over.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use throng_history::{Class, Entry, Link, Place, Sent, What};

use crate::crowd::{GROUP, LISTENER, Shared};
use crate::random::Random;
use crate::support::Opcode;
use crate::wire::Wire;

/// Messages of one device without an answer; it says nothing more until some have theirs.
const UNDER_WAY_MAX: usize = 24;
/// An answer that has not come by then will not.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
const NAP: Duration = Duration::from_millis(3);

/// How a device lets the node know what it has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// A type 15 for each message, several together in any order, and now and then for one that
    /// is none of its business; a cursor when it comes back.
    Acks,
    /// A type 15 with `upTo` now and then; a cursor when it comes back.
    Cursors,
    /// It knows nothing of inboxes, and answers pings.
    Pongs,
}

/// What a test does to a device.
#[derive(Default)]
pub struct Strings {
    /// It neither reads nor writes.
    pub is_deaf: AtomicBool,
    /// False again when that is done.
    is_to_tear: AtomicBool,
    /// It has no connection, and makes none.
    pub is_away: AtomicBool,
    /// It is greeted, has acknowledged what it got, and all that it has sent is confirmed.
    is_calm: AtomicBool,
}

impl Strings {
    /// Has its connection torn.
    pub fn tear(&self) {
        self.is_to_tear.store(true, Relaxed);
    }

    pub fn is_torn(&self) -> bool {
        !self.is_to_tear.load(Acquire)
    }

    pub fn is_calm(&self) -> bool {
        self.is_torn() && self.is_calm.load(Relaxed)
    }
}

pub struct Device {
    pub user: String,
    pub name: String,
    pub manner: Manner,
    pub token: String,
    pub shared: Arc<Shared>,
    pub strings: Arc<Strings>,
    pub random: Random,
    memory: Memory,
    line: Option<Line>,
}

/// What outlives a connection.
#[derive(Default)]
struct Memory {
    cursor: Option<Place>,
    seen: HashSet<String>,
    unconfirmed: VecDeque<Sending>,
    speaks_at: Option<Instant>,
}

struct Sending {
    sent: Sent,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    /// Refused: to be repeated then.
    Later(Instant),
    UnderWay(Instant),
}

/// A connection that has been greeted.
struct Line {
    wire: Wire,
    on: Link,
    /// Entries that are not acknowledged: their ids.
    owed: Vec<String>,
    /// So many, and they are acknowledged.
    patience: usize,
    /// A message in the inbox of somebody else, to be acknowledged all the same.
    forged: Option<String>,
}

impl Device {
    pub fn new(
        (user, name, manner): (&str, &str, Manner),
        token: String,
        shared: Arc<Shared>,
        random: Random,
    ) -> Device {
        Device {
            user: user.to_owned(),
            name: name.to_owned(),
            manner,
            token,
            shared,
            strings: Arc::default(),
            random,
            memory: Memory::default(),
            line: None,
        }
    }

    pub fn live(mut self) {
        while !self.shared.is_over() {
            // Whatever breaks is the node's end or ours: the next connection makes up for it.
            if self.take_turn().is_err() {
                self.hang_up(false);
            }
            let line = self.line.as_ref();
            let is_calm =
                line.is_some_and(|line| line.owed.is_empty()) && self.memory.unconfirmed.is_empty();
            self.strings.is_calm.store(is_calm, Relaxed);
        }
    }

    fn take_turn(&mut self) -> io::Result<()> {
        if self.strings.is_to_tear.load(Relaxed) {
            self.hang_up(true);
            self.strings.is_calm.store(false, Relaxed);
            self.strings.is_to_tear.store(false, Release);
        }
        if self.strings.is_away.load(Relaxed) {
            self.hang_up(false);
        }
        if self.strings.is_deaf.load(Relaxed) || self.strings.is_away.load(Relaxed) {
            sleep(NAP);
            return Ok(());
        }
        self.say_something();
        if self.line.is_none() && !self.call()? {
            sleep(NAP);
            return Ok(());
        }
        self.send_what_is_due()?;
        self.listen()?;
        self.acknowledge()?;
        self.have_patience()
    }

    /// Connects and is greeted; false where there is no node.
    fn call(&mut self) -> io::Result<bool> {
        let Some(door) = self.shared.door(&mut self.random) else {
            return Ok(false);
        };
        let cursor = self.memory.cursor.clone();
        let cursor = cursor.filter(|_| self.manner != Manner::Pongs);
        let mut target = format!("/websocket?token={}&device={}", self.token, self.name);
        if self.manner != Manner::Pongs {
            target += "&ack=1";
        }
        if let Some(Place { epoch, seq }) = &cursor {
            target += &format!("&cursor={epoch}:{seq}");
            self.pass(cursor.clone());
        }
        let wire = Wire::open(door.ws, &target);
        if wire.is_err() {
            sleep(NAP);
        }
        let mut wire = wire?;
        let deadline = Instant::now() + ANSWER_PATIENCE;
        loop {
            let frame = wire.hear()?.filter(|frame| frame.opcode == Opcode::Text);
            if let Some(frame) = frame {
                let heard: Value = serde_json::from_slice(&frame.payload)?;
                if heard["msg"]["userCode"].is_string() {
                    break;
                }
                // What is not stored may come before the greeting, and nothing else.
                assert!(heard["seq"].is_null(), "{heard}");
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        let on = Link {
            user: self.user.clone(),
            device: self.name.clone(),
            connection: self.shared.next_connection(),
        };
        let opened = What::Open {
            on: on.clone(),
            cursor,
        };
        self.shared.scribe.tell(opened);
        self.line = Some(Line {
            wire,
            on,
            owed: Vec::new(),
            patience: 1,
            forged: None,
        });
        Ok(true)
    }

    /// The connection is over: nobody knows what became of what has no answer.
    fn hang_up(&mut self, is_torn: bool) {
        for sending in &mut self.memory.unconfirmed {
            if matches!(sending.state, State::UnderWay(_)) {
                sending.state = State::Waiting;
                let sent = sending.sent.clone();
                self.shared.scribe.tell(What::Unknown { sent });
            }
        }
        if let Some(Line { wire, on, .. }) = self.line.take() {
            self.shared.scribe.tell(What::Close { on });
            if is_torn {
                wire.tear();
            }
        }
    }

    /// A new message, if it is time for one.
    fn say_something(&mut self) {
        let now = Instant::now();
        let is_due = self.memory.speaks_at.is_none_or(|at| at <= now) && self.name != LISTENER;
        if !is_due || !self.shared.is_talking() || self.memory.unconfirmed.len() >= UNDER_WAY_MAX {
            return;
        }
        self.memory.speaks_at = Some(now + self.random.millis(1, self.shared.pause_ms));
        let classes = self.shared.classes;
        let class = classes[self.random.below(classes.len())];
        let to = match class {
            Class::Group => GROUP.to_owned(),
            Class::Single | Class::Push => {
                let users = &self.shared.users;
                users[self.random.below(users.len())].clone()
            }
        };
        self.memory.unconfirmed.push_back(Sending {
            sent: Sent {
                class,
                sender: self.user.clone(),
                msgid: self.shared.next_msgid(),
                to,
            },
            state: State::Waiting,
        });
    }

    fn send_what_is_due(&mut self) -> io::Result<()> {
        let Some(line) = &mut self.line else {
            return Ok(());
        };
        let now = Instant::now();
        for sending in &mut self.memory.unconfirmed {
            let is_due = match sending.state {
                State::Waiting => true,
                State::Later(at) => at <= now,
                State::UnderWay(_) => false,
            };
            if is_due {
                sending.state = State::UnderWay(now);
                let sent = sending.sent.clone();
                let text = message(&sent);
                let connection = Some(line.on.connection);
                self.shared.scribe.tell(What::Send { sent, connection });
                line.wire.say(&text)?;
            }
        }
        Ok(())
    }

    /// Everything that has come.
    fn listen(&mut self) -> io::Result<()> {
        while let Some(line) = &mut self.line {
            let Some(frame) = line.wire.hear()? else {
                return Ok(());
            };
            match frame.opcode {
                Opcode::Text => self.hear(&serde_json::from_slice(&frame.payload)?),
                Opcode::Ping => line.wire.send(Opcode::Pong, &frame.payload)?,
                Opcode::Close => return Err(io::ErrorKind::ConnectionAborted.into()),
                other => panic!("{other:?} of {}/{}", self.user, self.name),
            }
        }
        Ok(())
    }

    fn hear(&mut self, heard: &Value) {
        let Some(line) = &mut self.line else { return };
        let (on, params) = (line.on.clone(), &heard["params"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if heard["seq"].is_u64() {
            return self.enter(heard, on);
        }
        if heard["msg"]["event"] == "resync" {
            let (epoch, from) = (text(&heard["msg"]["epoch"]), &heard["msg"]["from"]);
            let from = from.as_u64().unwrap();
            self.memory.cursor = Some(Place {
                epoch: epoch.clone(),
                seq: from - 1,
            });
            let head_seq = heard["msg"]["headSeq"].as_u64().unwrap();
            return self.shared.scribe.tell(What::Gap {
                on,
                epoch,
                head_seq,
                from,
            });
        }
        match heard["type"].as_i64() {
            Some(0) => {
                let is_dup = params["dup"] == true;
                self.confirmed(&text(&params["msgid"]), text(&params["messageId"]), is_dup);
            }
            Some(16) if !text(&params["message"]).contains(':') => {
                self.shared.scribe.tell(What::Answered {
                    on,
                    message_id: text(&params["message"]),
                    status: heard["status"].as_u64().unwrap() as u16,
                });
            }
            Some(500) => self.refused(&text(&params["ref"]), params),
            _ => {}
        }
    }

    /// An entry of the inbox.
    fn enter(&mut self, heard: &Value, on: Link) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (msg, params) = (&heard["msg"], &heard["msg"]["params"]);
        let mut entry = Entry {
            place: Place {
                epoch: text(&heard["epoch"]),
                seq: heard["seq"].as_u64().unwrap(),
            },
            message_id: text(&heard["messageId"]),
            redelivered: heard["redelivered"] == true,
        };
        self.memory.cursor = Some(entry.place.clone());
        if msg["type"] == 17 {
            entry.message_id = text(&params["messageId"]);
            let by = text(&params["toUser"]);
            return self.shared.scribe.tell(What::Notify { on, entry, by });
        }
        self.shared.scribe.tell(What::Receive {
            on: on.clone(),
            entry: entry.clone(),
        });
        if let Some(line) = &mut self.line {
            line.owed.push(entry.message_id.clone());
        }
        if self.memory.seen.insert(entry.message_id.clone()) {
            let (sent, sender) = match msg["type"].as_i64() {
                Some(2 | 10) => (text(&params["message"]), &params["fromUser"]["openid"]),
                _ => (text(&msg["sent"]), &heard["from"]),
            };
            let mut sent: Sent = serde_json::from_str(&sent).unwrap();
            // Who sent it is what the node says, not what the message says.
            sent.sender = text(sender);
            if sent.to.is_empty() {
                sent.to.clone_from(&self.user);
            }
            self.shared.scribe.tell(What::Deliver { on, entry, sent });
        }
    }

    fn confirmed(&mut self, msgid: &str, message_id: String, dup: bool) {
        let unconfirmed = &mut self.memory.unconfirmed;
        let at = unconfirmed.iter().position(|s| s.sent.msgid == msgid);
        let Some(Sending { sent, .. }) = at.and_then(|at| unconfirmed.remove(at)) else {
            return;
        };
        let is_elsewhere = sent.class == Class::Single && sent.to != self.user;
        if let Some(line) = &mut self.line
            && is_elsewhere
            && self.random.below(8) == 0
        {
            line.forged = Some(message_id.clone());
        }
        self.shared.confirm(sent, message_id, dup);
    }

    fn refused(&mut self, msgid: &str, params: &Value) {
        let code = params["code"].as_u64().unwrap() as u16;
        assert_eq!(code, 503, "{params}");
        self.shared.note_refusal(&params["reason"]);
        let again = Instant::now() + self.random.millis(20, 200);
        let mut unconfirmed = self.memory.unconfirmed.iter_mut();
        if let Some(sending) = unconfirmed.find(|s| s.sent.msgid == msgid) {
            sending.state = State::Later(again);
            self.shared.scribe.tell(What::Failed {
                sent: sending.sent.clone(),
                definite: true,
                code,
            });
        }
    }

    fn acknowledge(&mut self) -> io::Result<()> {
        let Some(line) = &mut self.line else {
            return Ok(());
        };
        if line.owed.len() < line.patience {
            // The rest is acknowledged when nothing more has come for a moment.
            line.patience = line.patience.saturating_sub(1);
            return Ok(());
        }
        line.patience = 1 + self.random.below(12);
        let mut owed = std::mem::take(&mut line.owed);
        if owed.is_empty() {
            return Ok(());
        }
        match self.manner {
            Manner::Pongs => Ok(()),
            Manner::Acks => {
                owed.extend(line.forged.take());
                self.random.shuffle(&mut owed);
                for message_id in &owed {
                    self.shared.scribe.tell(What::Ack {
                        on: line.on.clone(),
                        message_id: message_id.clone(),
                    });
                }
                line.wire
                    .say(&json!({"type": 15, "params": {"msgids": owed}}))
            }
            Manner::Cursors => {
                let place = self.memory.cursor.clone();
                let Some(Place { epoch, seq }) = &place else {
                    return Ok(());
                };
                let up_to = format!("{epoch}:{seq}");
                let said = json!({"type": 15, "params": {"upTo": up_to}});
                self.pass(place);
                self.line
                    .as_mut()
                    .map_or(Ok(()), |line| line.wire.say(&said))
            }
        }
    }

    /// Everything up to this place is about to be acknowledged.
    fn pass(&self, place: Option<Place>) {
        if let Some(place) = place {
            self.shared.scribe.tell(What::Pass {
                user: self.user.clone(),
                device: self.name.clone(),
                place,
            });
        }
    }

    /// A connection on which an answer does not come is of no use.
    fn have_patience(&self) -> io::Result<()> {
        let now = Instant::now();
        let is_overdue = |sending: &Sending| match sending.state {
            State::UnderWay(since) => since + ANSWER_PATIENCE < now,
            State::Waiting | State::Later(_) => false,
        };
        match self.memory.unconfirmed.iter().any(is_overdue) {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }
}

/// The frame that sends a message. What it was sent as stands in it.
fn message(sent: &Sent) -> Value {
    let Sent { msgid, to, .. } = sent;
    let text = serde_json::to_string(sent).unwrap();
    let kind = match sent.class {
        Class::Push => {
            return json!({"to": to, "msg": {"sent": text}, "msgType": 1, "msgid": msgid});
        }
        Class::Single => 1,
        Class::Group => 9,
    };
    let params = json!({"toMessageId": to, "message": text, "fileType": 0, "msgid": msgid});
    json!({"type": kind, "params": params})
}
