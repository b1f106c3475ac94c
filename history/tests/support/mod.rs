//! A history as one writes it by hand: each line is a call.

#![allow(dead_code, clippy::unwrap_used)]

pub mod simulator;

use throng_history::{Class, Entry, Event, Judge, Kind, Link, Place, Report, Sent, What};

pub fn link(user: &str, connection: u64) -> Link {
    Link {
        user: user.to_owned(),
        device: "phone".to_owned(),
        connection,
    }
}

pub fn place(seq: u64) -> Place {
    place_of("e1", seq)
}

pub fn place_of(epoch: &str, seq: u64) -> Place {
    Place {
        epoch: epoch.to_owned(),
        seq,
    }
}

pub fn entry(place: Place, message_id: &str) -> Entry {
    Entry {
        place,
        message_id: message_id.to_owned(),
        redelivered: false,
    }
}

/// `single("alice", "m1", "bob")`
pub fn single(sender: &str, msgid: &str, to: &str) -> Sent {
    sent(Class::Single, sender, msgid, to)
}

pub fn sent(class: Class, sender: &str, msgid: &str, to: &str) -> Sent {
    Sent {
        class,
        sender: sender.to_owned(),
        msgid: msgid.to_owned(),
        to: to.to_owned(),
    }
}

#[derive(Default)]
pub struct Story {
    pub now: u64,
    pub events: Vec<Event>,
}

/// Alice is connected on 1 and bob on 2.
pub fn alice_and_bob() -> Story {
    let mut story = Story::default();
    story.open("alice", 1, None);
    story.open("bob", 2, None);
    story
}

impl Story {
    pub fn add(&mut self, what: What) -> &mut Story {
        self.now += 1;
        self.events.push(Event { at: self.now, what });
        self
    }

    pub fn pass_secs(&mut self, secs: u64) -> &mut Story {
        self.now += secs * 1000;
        self
    }

    pub fn open(&mut self, user: &str, connection: u64, cursor: Option<Place>) -> &mut Story {
        let on = link(user, connection);
        self.add(What::Open { on, cursor })
    }

    pub fn close(&mut self, user: &str, connection: u64) -> &mut Story {
        let on = link(user, connection);
        self.add(What::Close { on })
    }

    pub fn send(&mut self, sent: &Sent) -> &mut Story {
        let (sent, connection) = (sent.clone(), Some(1));
        self.add(What::Send { sent, connection })
    }

    pub fn confirm(&mut self, sent: &Sent, id: &str) -> &mut Story {
        self.confirmed(sent, id, false)
    }

    pub fn confirmed(&mut self, sent: &Sent, id: &str, dup: bool) -> &mut Story {
        self.add(What::Confirmed {
            sent: sent.clone(),
            message_id: id.to_owned(),
            dup,
        })
    }

    pub fn refuse(&mut self, sent: &Sent) -> &mut Story {
        self.add(What::Failed {
            sent: sent.clone(),
            definite: true,
            code: 503,
        })
    }

    /// It comes over the wire, and no further.
    pub fn receive(&mut self, user: &str, connection: u64, place: Place, id: &str) -> &mut Story {
        self.add(What::Receive {
            on: link(user, connection),
            entry: entry(place, id),
        })
    }

    /// It comes over the wire and reaches the application.
    pub fn get(
        &mut self,
        user: &str,
        connection: u64,
        place: Place,
        id: &str,
        sent: &Sent,
    ) -> &mut Story {
        self.receive(user, connection, place.clone(), id);
        self.add(What::Deliver {
            on: link(user, connection),
            entry: entry(place, id),
            sent: sent.clone(),
        })
    }

    pub fn ack(&mut self, user: &str, connection: u64, id: &str) -> &mut Story {
        self.add(What::Ack {
            on: link(user, connection),
            message_id: id.to_owned(),
        })
    }

    pub fn answer(&mut self, user: &str, connection: u64, id: &str) -> &mut Story {
        self.add(What::Answered {
            on: link(user, connection),
            message_id: id.to_owned(),
            status: 200,
        })
    }

    pub fn notify(
        &mut self,
        user: &str,
        connection: u64,
        place: Place,
        id: &str,
        by: &str,
    ) -> &mut Story {
        self.add(What::Notify {
            on: link(user, connection),
            entry: entry(place, id),
            by: by.to_owned(),
        })
    }

    pub fn gap(&mut self, user: &str, connection: u64) -> &mut Story {
        self.add(What::Gap {
            on: link(user, connection),
            epoch: "e1".to_owned(),
            head_seq: 9,
            from: 1,
        })
    }

    /// All six packets of message number `n` from alice to bob, with its places.
    pub fn exchange(&mut self, n: u64) -> &mut Story {
        let (sent, id) = (single("alice", &format!("m{n}"), "bob"), format!("id{n}"));
        self.send(&sent)
            .confirm(&sent, &id)
            .get("bob", 2, place(n), &id, &sent)
            .ack("bob", 2, &id)
            .answer("bob", 2, &id)
            .notify("alice", 1, place(n), &id, "bob")
    }

    pub fn drained(&mut self) -> Report {
        self.add(What::Drained {});
        self.judged()
    }

    pub fn judged(&self) -> Report {
        judged(&self.events)
    }

    /// The kinds of violations that the drained story shows.
    pub fn kinds(&mut self) -> Vec<Kind> {
        self.drained().kinds.keys().copied().collect()
    }
}

pub fn judged(events: &[Event]) -> Report {
    let mut judge = Judge::new();
    for (line, event) in (1..).zip(events) {
        judge.see(line, event);
    }
    judge.finish()
}
