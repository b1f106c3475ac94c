//! What clients say: messages, their repetitions, acknowledgements, and what bad clients try.

use throng_history::{Class, Sent, What};

use crate::book::{self, Book};
use crate::client::{Client, Manner};
use crate::rig::feed::Chance;

/// How long an answer is waited for.
const PATIENCE_MS: u64 = 8_000;
/// How often a message is repeated that was refused.
const TRIES_MAX: u32 = 4;

/// A message on its way.
pub struct Sending {
    pub sent: Sent,
    frame: String,
    /// Since when an answer is awaited; none: it is to be sent.
    pub waits_since: Option<u64>,
    tries: u32,
}

impl Sending {
    /// No answer will come, or nobody waits for it any longer.
    pub fn give_up_waiting(&mut self, book: &mut Book) {
        if self.waits_since.take().is_some() {
            book.write(What::Unknown {
                sent: self.sent.clone(),
            });
        }
    }

    /// The judge has to know the connection on which a group's message will be missing.
    fn may_go(&self, is_open: bool) -> bool {
        is_open || self.sent.class != Class::Group
    }

    /// It was refused, and is worth another try.
    pub fn wants_again(&self) -> bool {
        self.tries < TRIES_MAX
    }
}

fn frame(sent: &Sent, is_other: bool) -> String {
    let Sent {
        class, msgid, to, ..
    } = sent;
    let mut text = book::name(sent);
    if is_other {
        text += " other";
    }
    match class {
        Class::Push => format!(r#"{{"to":"{to}","msg":"{text}","msgType":1,"msgid":"{msgid}"}}"#),
        Class::Single | Class::Group => {
            let kind = if *class == Class::Single { 1 } else { 9 };
            format!(
                r#"{{"type":{kind},"params":{{"toMessageId":"{to}","message":"{text}","fileType":0,"msgid":"{msgid}"}}}}"#
            )
        }
    }
}

impl Client {
    /// Has something to say.
    pub fn compose(&mut self, class: Class, to: &str) {
        self.next_msgid += 1;
        let sent = Sent {
            class,
            sender: self.user.clone(),
            msgid: format!("{}-{}", self.device_name(), self.next_msgid),
            to: to.to_owned(),
        };
        self.outbox.push(Sending {
            frame: frame(&sent, false),
            sent,
            waits_since: None,
            tries: 0,
        });
    }

    /// Another body under a msgid that is taken.
    pub fn compose_other(&mut self, sent: &Sent) {
        let is_under_way = self.outbox.iter().any(|one| one.sent.msgid == sent.msgid);
        if !is_under_way {
            self.outbox.push(Sending {
                frame: frame(sent, true),
                sent: sent.clone(),
                waits_since: None,
                tries: TRIES_MAX,
            });
        }
    }

    /// Puts the next message on its way that is to be sent, or sent again, and says which.
    pub fn send_next(&mut self, book: &mut Book, masks: &mut Chance) -> Option<Sent> {
        let line = self.line.as_mut()?;
        let is_open = line.is_open;
        let may_go = |one: &&mut Sending| one.waits_since.is_none() && one.may_go(is_open);
        let sending = self.outbox.iter_mut().find(may_go)?;
        sending.waits_since = Some(book.ms);
        sending.tries += 1;
        let sent = sending.sent.clone();
        line.up
            .extend(crate::rig::wire::Frame::text(sending.frame.clone()).encode(masks));
        Some(sent)
    }

    /// Nothing is to be sent any more that may be, and everything is answered.
    pub fn has_said_all(&self) -> bool {
        let is_open = self.line.as_ref().is_some_and(|line| line.is_open);
        let mut left = self.outbox.iter();
        left.all(|one| one.waits_since.is_none() && !one.may_go(is_open))
    }

    /// Gives up what was not answered in time.
    pub fn lose_patience(&mut self, book: &mut Book) {
        let now = book.ms;
        for sending in &mut self.outbox {
            if sending
                .waits_since
                .is_some_and(|since| since + PATIENCE_MS <= now)
            {
                sending.give_up_waiting(book);
            }
        }
    }

    pub fn connection(&self) -> Option<u64> {
        self.line.as_ref().map(|line| line.link.connection)
    }

    /// Acknowledges something of what was processed.
    pub fn acknowledge(&mut self, book: &mut Book, chance: &mut Chance) {
        let is_open = self.line.as_ref().is_some_and(|line| line.is_open);
        if !is_open || self.unacked.is_empty() {
            return;
        }
        let count = self.unacked.len() as u64;
        let mut ids = Vec::new();
        match self.manner {
            Manner::Plain | Manner::Mute => return,
            Manner::Singly => ids.push(self.unacked[chance.below(count) as usize].id.clone()),
            Manner::Together => {
                let some = 1 + chance.below(count.min(20)) as usize;
                ids.extend(self.unacked[..some].iter().map(|known| known.id.clone()));
            }
            Manner::UpTo => return self.acknowledge_up_to(book, chance),
        }
        self.acknowledge_ids(&ids, book, chance);
    }

    fn acknowledge_up_to(&mut self, book: &mut Book, chance: &mut Chance) {
        let Some(epoch) = self.unacked.last().map(|last| last.place.epoch.clone()) else {
            return;
        };
        let places = self.unacked.iter().map(|known| &known.place);
        let of_epoch: Vec<_> = places.filter(|place| place.epoch == epoch).collect();
        let place = of_epoch[chance.below(of_epoch.len() as u64) as usize].clone();
        book.write(What::Pass {
            user: self.user.clone(),
            device: self.device_name().to_owned(),
            place: place.clone(),
        });
        let cursor = format!("{}:{}", place.epoch, place.seq);
        let text = match chance.below(2) {
            0 => format!(r#"{{"type":15,"params":{{"from":"client","upTo":"{cursor}"}}}}"#),
            _ => {
                format!(r#"{{"path":"message/ack","body":{{"upTo":"{cursor}"}},"requestId":"a"}}"#)
            }
        };
        self.say(&text, chance);
    }

    /// Acknowledges messages by their ids, of its own inbox or not.
    pub fn acknowledge_ids(&mut self, ids: &[String], book: &mut Book, chance: &mut Chance) {
        let Some(line) = self.line.as_ref().filter(|line| line.is_open) else {
            return;
        };
        if self.manner == Manner::Plain {
            // Who has done so once is one who acknowledges.
            self.manner = Manner::Singly;
        }
        for id in ids {
            book.write(What::Ack {
                on: line.link.clone(),
                message_id: id.clone(),
            });
        }
        let text = match (ids, chance.below(3)) {
            ([id], 0) => format!(r#"{{"msgType":2,"messageId":"{id}"}}"#),
            ([id], 1) => format!(r#"{{"type":15,"params":{{"from":"client","msgid":"{id}"}}}}"#),
            _ => {
                let ids = serde_json::to_string(ids).unwrap();
                format!(r#"{{"type":15,"params":{{"from":"client","msgids":{ids}}}}}"#)
            }
        };
        self.say(&text, chance);
    }
}
