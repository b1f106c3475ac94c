//! The inbox of a session's user, as far as it reaches this session: what is sent of it, and what
//! the store's answers come to.

use super::host::Host;
use super::ticket::{Answering, Greeting, Then, Ticket, Wait};
use super::wire::{Wire, attach, envelope};
use super::{Context, Phase, Session};
use crate::inbox::pump::{Pump, Rung};
use crate::inbox::service::{Outcome, Request};
use crate::inbox::{Accepted, Acknowledged, Cursor, GroupAccepted, GroupError, Page, Reach};
use crate::parts::time::Tick;
use crate::protocol::envelope::MessageId;
use crate::protocol::identity::not_an_id;
use crate::protocol::inbound::{About, Got};
use crate::protocol::order::{Fault, Reply, STORE_DOWN};
use crate::protocol::outbound::{self, Place, Receipt};
use crate::protocol::violation::Violation;

/// Entries of a page that a client asks for, where it does not say how many, and at most.
const PULL_DEFAULT: usize = 100;
const PULL_MAX: usize = 300;

pub(super) const BAD_CURSOR: Fault = Fault::new(400, "a cursor is <epoch>:<seq>");
const REUSED: Fault =
    Fault::new(409, "another message was sent under this msgid").because("msgid_reused");
const INBOX_FULL: Fault = Fault::new(503, "the receiver's inbox is full").because("inbox_full");

impl Session {
    /// Calls into the pump of this session, if it is bound.
    fn with_pump<H: Host, T>(
        &mut self,
        cx: &mut Context<'_, H>,
        call: impl FnOnce(&mut Pump, Tick, &mut Wire<'_, H>) -> T,
    ) -> Option<T> {
        let mut pump = std::mem::take(&mut self.pump);
        let queue_bytes_max = self.limits(cx.rules).queue_soft_bytes;
        let result = match (&self.identity, self.id(cx.rules)) {
            (Some(identity), Some(session)) if self.is_online => {
                let mut wire = Wire {
                    session,
                    identity,
                    queue_bytes_max,
                    now_ms: cx.now.wall_ms,
                    host: cx.host,
                };
                Some(call(&mut pump, cx.now.tick, &mut wire))
            }
            _ => None,
        };
        self.pump = pump;
        result
    }

    /// Asks the store where this device is. The client is greeted when it has answered, or at
    /// once where it cannot be asked.
    pub(super) fn attach<H: Host>(
        &mut self,
        greeting: Greeting,
        cursor: Option<Cursor>,
        to: Answering,
        then: Then,
        cx: &mut Context<'_, H>,
    ) {
        let (Some(identity), Some(session)) = (&self.identity, self.id(cx.rules)) else {
            return;
        };
        if cursor.is_some() {
            cx.host.set_cursor(cursor);
        }
        let cursor = cx.host.cursor();
        let request = attach(session, identity, cursor, cx.host);
        if cursor.is_some() {
            self.pump.start_acknowledging();
        }
        let wait = Wait::Attach {
            greeting,
            then: then.clone(),
        };
        let ticket = Ticket {
            to: to.clone(),
            wait,
        };
        if cx.host.ask(request, ticket) {
            self.pump.attach();
        } else {
            self.pump.attach_later(cx.now.tick);
            self.begin_without_inbox(greeting, &to.about(), then, cx);
        }
    }

    /// A client whose inbox cannot be read yet is greeted all the same, once.
    fn begin_without_inbox<H: Host>(
        &mut self,
        greeting: Greeting,
        about: &About<'_>,
        then: Then,
        cx: &mut Context<'_, H>,
    ) {
        if let Greeting::Due(fingerprint) = greeting {
            self.greet(fingerprint, cx);
        }
        self.answer_then(about, then, cx);
    }

    pub(super) fn answer_then<H: Host>(
        &mut self,
        about: &About<'_>,
        then: Then,
        cx: &mut Context<'_, H>,
    ) {
        match then {
            Then::Nothing => {}
            Then::Connected => outbound::route_ok(about, "null", cx.host.out()),
            Then::Registered => self.tell_registered(cx),
            Then::Refused(fault) => self.fail(about, &fault, cx),
        }
    }

    /// Type 8.
    pub(super) fn tell_registered<H: Host>(&mut self, cx: &mut Context<'_, H>) {
        if let (Some(identity), Some(session)) = (&self.identity, self.id(cx.rules)) {
            let place = self.pump.place();
            outbound::registered(session, identity, self.is_online, place, cx.host.out());
        }
    }

    /// What came of a request to the store.
    pub fn answered<H: Host>(&mut self, ticket: Ticket, outcome: Outcome, cx: &mut Context<'_, H>) {
        if self.phase != Phase::Open {
            return;
        }
        let about = ticket.to.about();
        let outcome = match (ticket.wait, outcome) {
            (Wait::Attach { greeting, then }, outcome) => {
                return self.attached(greeting, &about, then, outcome, cx);
            }
            (Wait::Page { after }, Outcome::Page(page)) => {
                self.with_pump(cx, |pump, now, wire| pump.page(&page, after, now, wire));
                return;
            }
            (Wait::Page { .. }, _) => return self.pump.page_failed(cx.now.tick),
            (Wait::Passed, Outcome::Acknowledged(done)) => {
                self.with_pump(cx, |pump, now, wire| pump.acknowledged(&done, now, wire));
                return;
            }
            (Wait::Passed, _) => {
                self.with_pump(cx, |pump, now, wire| pump.pass_failed(now, wire));
                return;
            }
            (Wait::Acknowledged { messages }, Outcome::Acknowledged(done)) => {
                self.acknowledged(&about, &messages, &done, cx);
                Ok(())
            }
            (Wait::Look, Outcome::Page(page)) => {
                self.show(&about, &page, cx);
                Ok(())
            }
            (Wait::Chat { message }, outcome) => self.accepted(&about, &message, outcome, cx),
            (Wait::Send { to, message }, Outcome::AllAccepted(all)) => {
                self.all_accepted(&about, &to, &message, &all, cx)
            }
            (Wait::Push { to }, Outcome::AllAccepted(all)) => {
                let reply = stored_reply(&to, &all);
                outbound::route_reply(&about, &reply, cx.host.out());
                Ok(())
            }
            (Wait::Group { id, is_change }, Outcome::Group(group)) => match group {
                Ok(members) => {
                    self.group(&about, id, members, is_change, cx);
                    Ok(())
                }
                Err(error) => {
                    cx.host.group_refused(&error);
                    Err(error.into())
                }
            },
            _ => Err(STORE_DOWN),
        };
        if let Err(fault) = outcome {
            self.fail(&about, &fault, cx);
        }
    }

    fn attached<H: Host>(
        &mut self,
        greeting: Greeting,
        about: &About<'_>,
        then: Then,
        outcome: Outcome,
        cx: &mut Context<'_, H>,
    ) {
        self.is_holding = false;
        let Outcome::Attached(attached) = outcome else {
            // Who has said goodbye meanwhile wants nothing of it.
            if self.is_online {
                self.pump.attach_later(cx.now.tick);
            }
            return self.begin_without_inbox(greeting, about, then, cx);
        };
        if self.is_online && self.pump.is_idle() {
            // It has gone and come back since, and its goodbye has undone this. It asks again.
            return self.begin_without_inbox(greeting, about, then, cx);
        }
        cx.host.set_cursor(None);
        if self.is_online {
            self.pump.begin(&attached, cx.now.tick);
        }
        match greeting {
            Greeting::Due(fingerprint) => self.greet(fingerprint, cx),
            Greeting::Late => self.greet(0, cx),
            Greeting::Done => {}
        }
        self.answer_then(about, then, cx);
        self.with_pump(cx, |pump, now, wire| {
            pump.page(&attached.page, 0, now, wire)
        });
    }

    /// An entry was appended to this user's inbox.
    pub fn rung<H: Host>(&mut self, rung: Rung<'_>, cx: &mut Context<'_, H>) {
        self.with_pump(cx, |pump, now, wire| pump.ring(rung, now, wire));
    }

    /// There may be something to read.
    pub fn look<H: Host>(&mut self, cx: &mut Context<'_, H>) {
        self.with_pump(cx, |pump, now, wire| pump.look(now, wire));
    }

    /// What the store holds for this user; a connection that knows of less, or of another epoch,
    /// looks into it.
    pub fn compare<H: Host>(&mut self, place: Option<(u64, u64)>, cx: &mut Context<'_, H>) {
        self.with_pump(cx, |pump, now, wire| pump.compare(place, now, wire));
    }

    pub(super) fn pong<H: Host>(&mut self, payload: &[u8], cx: &mut Context<'_, H>) {
        self.with_pump(cx, |pump, now, wire| pump.pong(payload, now, wire));
    }

    /// Does what is due for the inbox.
    pub(super) fn expire_inbox<H: Host>(&mut self, cx: &mut Context<'_, H>) {
        let is_mute = self.with_pump(cx, |pump, now, wire| pump.expire(now, wire));
        if is_mute == Some(true) {
            self.violate(Violation::NeverAcknowledges, cx);
        }
    }

    /// This client has got something.
    pub(super) fn acknowledge<H: Host>(
        &mut self,
        about: &About<'_>,
        got: &Got<'_>,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        self.pump.start_acknowledging();
        let reach = match got.up_to {
            Some(cursor) => {
                let Cursor { epoch, seq } = Cursor::parse(cursor).ok_or(BAD_CURSOR)?;
                Reach::UpTo { epoch, seq }
            }
            None => Reach::Messages(
                got.messages
                    .iter()
                    .filter_map(|id| MessageId::from_hex(id))
                    .collect(),
            ),
        };
        let named = match got.up_to {
            Some(cursor) => vec![cursor.to_owned()],
            None => got.messages.iter().map(|id| (*id).to_owned()).collect(),
        };
        let request = Request::Acknowledge {
            uid: identity.uid().to_owned(),
            device: cx.host.device(),
            reach,
        };
        self.ask(about, request, Wait::Acknowledged { messages: named }, cx)
    }

    /// A connection that is bound says how far its application has got.
    pub(super) fn pass_up_to<H: Host>(
        &mut self,
        Cursor { epoch, seq }: Cursor,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        self.pump.start_acknowledging();
        let request = Request::Acknowledge {
            uid: identity.uid().to_owned(),
            device: cx.host.device(),
            reach: Reach::UpTo { epoch, seq },
        };
        self.ask(&Answering::nobody().about(), request, Wait::Passed, cx)
    }

    /// A page of this user's inbox.
    pub(super) fn pull<H: Host>(
        &mut self,
        about: &About<'_>,
        after: u64,
        limit: usize,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        self.pump.start_acknowledging();
        let limit = match limit {
            0 => PULL_DEFAULT,
            limit => limit.min(PULL_MAX),
        };
        let request = Request::Look {
            uid: identity.uid().to_owned(),
            after,
            limit,
        };
        self.ask(about, request, Wait::Look, cx)
    }

    pub(super) fn ask<H: Host>(
        &mut self,
        about: &About<'_>,
        request: Request,
        wait: Wait,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        let to = Answering::from(about);
        if cx.host.ask(request, Ticket { to, wait }) {
            Ok(())
        } else {
            Err(STORE_BUSY)
        }
    }

    fn acknowledged<H: Host>(
        &mut self,
        about: &About<'_>,
        named: &[String],
        done: &Acknowledged,
        cx: &mut Context<'_, H>,
    ) {
        let is_known = |name: &str| match MessageId::from_hex(name) {
            Some(id) => !done.unknown.contains(&id),
            // A cursor.
            None => name.contains(':') && done.fits,
        };
        outbound::acknowledged(about, named, is_known, cx.now.wall_ms, cx.host.out());
        if let Some(cursor) = named.first().and_then(|name| Cursor::parse(name))
            && done.fits
        {
            self.pump.skip_to(cursor);
        }
        self.with_pump(cx, |pump, now, wire| pump.acknowledged(done, now, wire));
    }

    fn show<H: Host>(&mut self, about: &About<'_>, page: &Page, cx: &mut Context<'_, H>) {
        let (Some(identity), Some(session)) = (&self.identity, self.id(cx.rules)) else {
            return;
        };
        let entries = page.entries.iter().map(|(seq, entry)| {
            let place = Place {
                epoch: page.epoch,
                seq: *seq,
                is_again: false,
            };
            (place, envelope(entry))
        });
        let head_seq = page.head_seq;
        let out = cx.host.out();
        outbound::page(
            about,
            session,
            identity,
            (page.epoch, head_seq),
            entries,
            out,
        );
    }

    fn accepted<H: Host>(
        &mut self,
        about: &About<'_>,
        message: &str,
        outcome: Outcome,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        let (message_id, is_again) = match outcome {
            Outcome::Accepted(Accepted::New(id)) | Outcome::ForGroup(GroupAccepted::New(id)) => {
                (id, false)
            }
            Outcome::Accepted(Accepted::Again(id))
            | Outcome::ForGroup(GroupAccepted::Again(id)) => (id, true),
            Outcome::Accepted(Accepted::Conflict) | Outcome::ForGroup(GroupAccepted::Conflict) => {
                return Err(REUSED);
            }
            Outcome::Accepted(Accepted::Full) => return Err(INBOX_FULL),
            Outcome::ForGroup(GroupAccepted::Refused(error)) => return Err(error.into()),
            _ => return Err(STORE_DOWN),
        };
        let receipt = Receipt {
            now_ms: cx.now.wall_ms,
            message_id,
            message,
            to_user: None,
            is_again,
        };
        outbound::receipt(about, &receipt, cx.host.out());
        Ok(())
    }

    /// One receipt for each receiver, and an error for those who have none.
    fn all_accepted<H: Host>(
        &mut self,
        about: &About<'_>,
        to: &[String],
        message: &str,
        all: &[Accepted],
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        for (uid, accepted) in to.iter().zip(all) {
            let (message_id, is_again) = match *accepted {
                Accepted::New(id) => (id, false),
                Accepted::Again(id) => (id, true),
                Accepted::Conflict | Accepted::Full => {
                    let fault = match accepted {
                        Accepted::Full => INBOX_FULL,
                        _ => REUSED,
                    };
                    let words = format!("{}: {uid}", fault.message);
                    self.fail(about, &fault.saying(words), cx);
                    continue;
                }
            };
            let receipt = Receipt {
                now_ms: cx.now.wall_ms,
                message_id,
                message,
                to_user: (to.len() > 1).then_some(uid),
                is_again,
            };
            outbound::receipt(about, &receipt, cx.host.out());
        }
        Ok(())
    }
}

const STORE_BUSY: Fault = Fault::new(503, "the store is behind, try again").because("store_busy");

/// What a backend hears of a push that was stored: the message ids, and who has none.
pub fn stored_reply(to: &[String], all: &[Accepted]) -> Reply {
    let mut sent = serde_json::Map::new();
    let (mut full, mut reused) = (Vec::new(), Vec::new());
    for (uid, accepted) in to.iter().zip(all) {
        match accepted {
            Accepted::New(id) | Accepted::Again(id) => {
                sent.insert(uid.clone(), id.to_string().into());
            }
            Accepted::Full => full.push(uid.clone()),
            Accepted::Conflict => reused.push(uid.clone()),
        }
    }
    let fault = match (full.is_empty(), reused.is_empty()) {
        (true, true) => return Reply::ok(sent.into()),
        (false, _) => INBOX_FULL,
        (true, false) => REUSED,
    };
    let not_sent = [full, reused].concat();
    let content = serde_json::json!({"reason": fault.reason, "sent": sent, "notSent": not_sent});
    Reply::from(fault).with(content)
}

impl From<GroupError> for Fault {
    fn from(error: GroupError) -> Fault {
        match error {
            GroupError::Exists => Fault::new(409, "the group exists").because("group_exists"),
            GroupError::NotFound => Fault::new(404, "there is no such group"),
            GroupError::NotMember => Fault::new(403, "not a member").because("not_member"),
            GroupError::Full => {
                Fault::new(409, "the group has no room for more members").because("group_full")
            }
            GroupError::TooMany(uid) => Fault::new(409, "")
                .because("too_many_groups")
                .saying(format!("{uid} is in as many groups as a user may be")),
            GroupError::BadId => Fault::new(400, "a group id is 1 to 64 of [A-Za-z0-9_.@-]"),
            GroupError::BadUser(uid) => Fault::new(400, "").saying(not_an_id("userIdList", &uid)),
        }
    }
}
