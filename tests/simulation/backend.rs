//! A backend that pushes: to several users at once, at once or later, and that changes its mind.

use throng::inbox::service::{Outcome, Request};
use throng::inbox::{Accepted, Cancelled};
use throng::protocol::envelope::MessageId;
use throng::protocol::order::StoredPush;
use throng_history::{Class, Sent, What};

use crate::book::{self, Book};
use crate::node::{BackendAnswers, Clocks, Node};
use crate::rig::feed::Chance;

const TRIES_MAX: u32 = 4;
/// How long what finds no room may wait for its next chances, and more.
const ROOM_MS: u64 = 25_000;
const NAME: &str = "backend";

#[derive(Default)]
pub struct Backend {
    calls: u64,
    pushes: Vec<Push>,
}

struct Push {
    msgid: String,
    to: Vec<String>,
    due_ms: Option<u64>,
    tries: u32,
    state: State,
}

enum State {
    ToSend,
    /// The call that is not answered.
    Sent(u64),
    /// It waits for its time, under this id.
    Scheduled(MessageId),
    /// The call that is to take it back.
    Cancelling(u64, MessageId),
    Done,
}

impl Push {
    fn sent(&self, to: &str) -> Sent {
        Sent {
            class: Class::Push,
            sender: NAME.to_owned(),
            msgid: self.msgid.clone(),
            to: to.to_owned(),
        }
    }

    fn write(&self, book: &mut Book, what: impl Fn(Sent) -> What) {
        for uid in &self.to {
            book.write(what(self.sent(uid)));
        }
    }
}

impl Backend {
    pub fn compose(&mut self, to: Vec<String>, due_ms: Option<u64>) {
        let msgid = format!("push-{}", self.pushes.len());
        self.pushes.push(Push {
            msgid,
            to,
            due_ms,
            tries: 0,
            state: State::ToSend,
        });
    }

    /// Everything was answered, for good or ill, and has fallen due, also where there was no
    /// room for it before the world was healed.
    pub fn is_done(&self, healed: Clocks, now: Clocks) -> bool {
        let is_done = |push: &Push| {
            let is_over = push
                .due_ms
                .is_none_or(|due| due.max(healed.wall_ms) + ROOM_MS < now.wall_ms);
            is_over && matches!(push.state, State::Done | State::Scheduled(_))
        };
        self.pushes.iter().all(is_done)
    }

    /// Sends what is to be sent, or sent again.
    pub fn send(&mut self, node: &mut Node, now: Clocks, book: &mut Book) {
        for push in &mut self.pushes {
            if !matches!(push.state, State::ToSend) {
                continue;
            }
            self.calls += 1;
            push.tries += 1;
            push.write(book, |sent| What::Send {
                sent,
                connection: None,
            });
            let stored = StoredPush {
                to: push.to.clone(),
                msg: format!("\"{}\"", book::name(&push.sent(book::SEVERAL))),
                from: NAME.to_owned(),
                request_id: "r".to_owned(),
                msgid: Some(push.msgid.clone()),
                is_http: true,
                due_ms: push.due_ms,
            };
            let request = Request::of_push(stored, now.wall_ms, || node.message_id());
            if node.ask(self.calls, request) {
                push.state = State::Sent(self.calls);
            } else {
                push.fail(book);
            }
        }
    }

    /// Takes back something that waits for its time.
    pub fn cancel(&mut self, node: &mut Node, chance: &mut Chance) {
        let scheduled = |push: &&mut Push| matches!(push.state, State::Scheduled(_));
        let mut waiting: Vec<_> = self.pushes.iter_mut().filter(scheduled).collect();
        if waiting.is_empty() {
            return;
        }
        let at = chance.below(waiting.len() as u64) as usize;
        let push = &mut waiting[at];
        self.calls += 1;
        if let State::Scheduled(id) = push.state
            && node.ask(self.calls, Request::Cancel(id))
        {
            push.state = State::Cancelling(self.calls, id);
        }
    }

    pub fn hear(&mut self, answers: BackendAnswers, book: &mut Book) {
        for (call, outcome) in answers {
            let asked = self.pushes.iter_mut().find(|push| push.is_asking(call));
            if let Some(push) = asked {
                push.hear(outcome, book);
            }
        }
    }

    /// The node has died: nothing is answered any more.
    pub fn hear_nothing(&mut self, book: &mut Book) {
        for push in &mut self.pushes {
            if matches!(push.state, State::Sent(_) | State::Cancelling(..)) {
                push.hear(None, book);
            }
        }
    }
}

impl Push {
    fn is_asking(&self, call: u64) -> bool {
        matches!(self.state, State::Sent(of) | State::Cancelling(of, _) if of == call)
    }

    fn hear(&mut self, outcome: Option<Outcome>, book: &mut Book) {
        match (&self.state, outcome) {
            (State::Sent(_), None) => {
                self.write(book, |sent| What::Unknown { sent });
                self.state = State::ToSend;
            }
            (State::Sent(_), Some(Outcome::AllAccepted(all))) => self.accepted(&all, book),
            (State::Sent(_), Some(_)) => self.fail(book),
            (State::Cancelling(..), Some(Outcome::Cancelled(Cancelled::Yes))) => {
                let sent = self.sent(&self.to[0]);
                // What has come already was not there to be taken back: the judge will see that
                // it is called refused.
                book.take_back(&sent);
                book.counts.cancelled += 1;
                book.write(What::Failed {
                    sent,
                    definite: true,
                    code: 200,
                });
                self.state = State::Done;
            }
            (State::Cancelling(..), Some(Outcome::Cancelled(_))) => self.state = State::Done,
            (State::Cancelling(_, id), Some(_)) => self.state = State::Scheduled(*id),
            (State::Cancelling(..), None) => {
                // It may be taken back, or come.
                let sent = self.sent(&self.to[0]);
                if book.take_back(&sent) {
                    book.write(What::Unknown { sent });
                }
                self.state = State::Done;
            }
            _ => {}
        }
    }

    fn accepted(&mut self, all: &[Accepted], book: &mut Book) {
        self.state = State::Done;
        for (uid, accepted) in self.to.iter().zip(all) {
            let sent = self.sent(uid);
            match *accepted {
                Accepted::New(id) | Accepted::Again(id) if self.due_ms.is_some() => {
                    book.confirm_later(&sent, id.to_string(), *accepted == Accepted::Again(id));
                    // Whoever takes back one of several would have to name each.
                    if self.to.len() == 1 {
                        self.state = State::Scheduled(id);
                    }
                }
                Accepted::New(id) | Accepted::Again(id) => book.write(What::Confirmed {
                    sent,
                    message_id: id.to_string(),
                    dup: *accepted == Accepted::Again(id),
                }),
                Accepted::Conflict | Accepted::Full => book.write(What::Failed {
                    sent,
                    definite: true,
                    code: 503,
                }),
            }
        }
    }

    /// All of it was refused.
    fn fail(&mut self, book: &mut Book) {
        self.write(book, |sent| What::Failed {
            sent,
            definite: true,
            code: 503,
        });
        self.state = match self.tries < TRIES_MAX {
            true => State::ToSend,
            false => State::Done,
        };
    }
}
