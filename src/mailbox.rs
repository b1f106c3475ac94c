//! The ways between threads: into a reactor, a bounded queue and a bell that is rung once a nap;
//! into the store, or to the other nodes, a bounded queue.
//!
//! Owns: the queue's two ends. The bell is an eventfd made before the file tables split, so
//! that any thread can ring it by its number.
//! Invariants: whoever finds a command in the queue was woken for it, or was awake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::command::{
    Bye, HeardBy, InboxHead, Letter, Parting, ReplyTo, RungOut, Shared, ToReactor,
};
use crate::hub::post::Selector;
use crate::hub::roster::Sessions;
use crate::parts::key::Key;
use crate::protocol::away::Errand;
use crate::protocol::envelope::Head;
use crate::sys::EventFd;

/// Commands that wait for one reactor at most.
pub const MAIL_MAX: usize = 16 << 10;
/// Bytes of broadcast frames that wait in one reactor at most; more are refused.
pub const BROADCAST_BYTES_MAX: usize = 4 << 20;

/// A queue is full: the sender decides what that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reactor's mailbox is full")]
pub struct MailboxFull;

struct Inner {
    bell: EventFd,
    is_woken: AtomicBool,
    broadcast_bytes: AtomicUsize,
}

/// The sending end for one reactor.
#[derive(Clone)]
pub struct Mailbox {
    queue: Sender<ToReactor>,
    inner: Arc<Inner>,
}

/// The reading end, which the reactor owns.
pub struct Inbox {
    queue: Receiver<ToReactor>,
    inner: Arc<Inner>,
}

pub fn mailbox() -> std::io::Result<(Mailbox, Inbox)> {
    let (sender, receiver) = bounded(MAIL_MAX);
    let inner = Arc::new(Inner {
        bell: EventFd::new()?,
        is_woken: AtomicBool::new(false),
        broadcast_bytes: AtomicUsize::new(0),
    });
    Ok((
        Mailbox {
            queue: sender,
            inner: inner.clone(),
        },
        Inbox {
            queue: receiver,
            inner,
        },
    ))
}

impl Mailbox {
    pub fn send(&self, command: ToReactor) -> Result<(), MailboxFull> {
        self.offer(command).map(drop)
    }

    /// The same, and the command comes back where there is no room for it.
    fn give(&self, command: ToReactor) -> Result<(), ToReactor> {
        match self.queue.try_send(command) {
            Err(TrySendError::Full(command)) => return Err(command),
            Err(TrySendError::Disconnected(_)) => return Ok(()),
            Ok(()) => {}
        }
        self.wake();
        Ok(())
    }

    /// False where the reactor has drained: nobody is left there to be reached.
    fn offer(&self, command: ToReactor) -> Result<bool, MailboxFull> {
        match self.queue.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(MailboxFull),
            Err(TrySendError::Disconnected(_)) => return Ok(false),
        }
        self.wake();
        Ok(true)
    }

    fn wake(&self) {
        if !self.inner.is_woken.swap(true, Ordering::AcqRel) {
            self.inner.bell.ring();
        }
    }

    fn has_room_for_broadcast(&self, bytes: usize) -> bool {
        self.inner.broadcast_bytes.load(Ordering::Relaxed) + bytes <= BROADCAST_BYTES_MAX
    }

    /// `command` carries `bytes` for many.
    fn broadcast(&self, bytes: usize, command: ToReactor) -> Result<(), MailboxFull> {
        self.inner
            .broadcast_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        let offered = self.offer(command);
        if offered != Ok(true) {
            self.inner
                .broadcast_bytes
                .fetch_sub(bytes, Ordering::Relaxed);
        }
        offered.map(drop)
    }
}

impl Inbox {
    pub fn bell(&self) -> &EventFd {
        &self.inner.bell
    }

    /// To be called when awake, before reading: a later send rings again.
    pub fn open(&self) {
        self.inner.is_woken.swap(false, Ordering::AcqRel);
    }

    pub fn next(&self) -> Option<ToReactor> {
        self.queue.try_recv().ok()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// A broadcast of so many bytes has reached everybody.
    pub fn broadcast_done(&self, bytes: usize) {
        self.inner
            .broadcast_bytes
            .fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Requests that wait for the store at most; more are refused.
pub const LETTERS_MAX: usize = 64 << 10;

/// The way to the store.
#[derive(Clone)]
pub struct StoreBox(Sender<Letter>);

/// Where the store takes requests from.
pub type Letters = Receiver<Letter>;

pub fn store_box() -> (StoreBox, Letters) {
    let (sender, receiver) = bounded(LETTERS_MAX);
    (StoreBox(sender), receiver)
}

impl StoreBox {
    /// Never waits: a store that is behind is an error for whoever asks, who comes back.
    pub fn send(&self, letter: Letter) -> Result<(), ReplyTo> {
        let sent = self.0.try_send(letter);
        sent.map_err(|refused| refused.into_inner().reply)
    }

    /// Letters that it takes at present.
    pub fn room(&self) -> usize {
        LETTERS_MAX.saturating_sub(self.0.len())
    }
}

/// Errands that wait for other nodes at most, and the bytes that they carry; more are refused.
pub const PARTINGS_MAX: usize = 64 << 10;
pub const PARTING_BYTES_MAX: usize = 64 << 20;

/// The way to the other nodes; for a node that is alone, to nowhere.
#[derive(Clone, Default)]
pub struct AwayBox(Option<Away>);

#[derive(Clone)]
struct Away {
    queue: Sender<Parting>,
    bytes: Arc<AtomicUsize>,
}

/// Where errands are taken from.
pub struct Partings {
    queue: Receiver<Parting>,
    bytes: Arc<AtomicUsize>,
}

pub fn away_box() -> (AwayBox, Partings) {
    let (sender, queue) = bounded(PARTINGS_MAX);
    let bytes = Arc::new(AtomicUsize::new(0));
    let away = Away {
        queue: sender,
        bytes: bytes.clone(),
    };
    (AwayBox(Some(away)), Partings { queue, bytes })
}

impl AwayBox {
    /// An errand of which nothing is to be heard. Where there is no room, or nobody else, it is
    /// lost.
    pub fn send_quietly(&self, errand: Errand) {
        let reply = HeardBy::Nobody;
        let _ = self.send(Parting { errand, reply });
    }

    /// Never waits.
    pub fn send(&self, parting: Parting) -> Result<(), HeardBy> {
        let Some(Away { queue, bytes }) = &self.0 else {
            return Err(parting.reply);
        };
        let size = parting.errand.bytes();
        if bytes.fetch_add(size, Ordering::Relaxed) + size > PARTING_BYTES_MAX {
            bytes.fetch_sub(size, Ordering::Relaxed);
            return Err(parting.reply);
        }
        queue.try_send(parting).map_err(|refused| {
            bytes.fetch_sub(size, Ordering::Relaxed);
            refused.into_inner().reply
        })
    }
}

impl Partings {
    /// What waits, `max` at most; where nothing does, waits for it for so long. None: nobody is
    /// left who could send anything.
    pub fn take(&self, max: usize, patience: Duration) -> Option<Vec<Parting>> {
        let mut taken = Vec::new();
        match self.queue.recv_timeout(patience) {
            Ok(parting) => taken.push(parting),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        taken.extend(self.queue.try_iter().take(max - taken.len()));
        let size: usize = taken.iter().map(|parting| parting.errand.bytes()).sum();
        self.bytes.fetch_sub(size, Ordering::Relaxed);
        Some(taken)
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// All mailboxes of a node, by reactor number.
#[derive(Clone)]
pub struct Switchboard(Arc<[Mailbox]>);

impl Switchboard {
    pub fn new(mailboxes: Vec<Mailbox>) -> Switchboard {
        Switchboard(mailboxes.into())
    }

    pub fn reactors(&self) -> usize {
        self.0.len()
    }

    /// A message for `to`, wherever they live: `tail` behind each receiver's own `head`. Each
    /// reactor gets its part as one command.
    ///
    /// Errors: not all of them will get it.
    pub fn deliver(&self, to: &[Key], head: Head, tail: &Shared) -> Result<(), MailboxFull> {
        let mut outcome = Ok(());
        if let [to] = *to {
            let tail = tail.clone();
            return self.send(to.reactor(), ToReactor::Deliver { to, head, tail });
        }
        for reactor in 0..self.reactors() {
            let of_it = to.iter().copied().filter(|key| key.reactor() == reactor);
            let to: Box<[Key]> = of_it.collect();
            let tail = tail.clone();
            if !to.is_empty() {
                let sent = self.send(reactor, ToReactor::DeliverAll { to, head, tail });
                outcome = outcome.and(sent);
            }
        }
        outcome
    }

    /// The end of the session `to`.
    pub fn close(&self, to: Key, why: Bye) -> Result<(), MailboxFull> {
        self.send(to.reactor(), ToReactor::Close { to, why })
    }

    /// The end of several. Those whose mailbox is full stay in the list, to be told later.
    pub fn close_all(&self, byes: &mut Vec<(Key, Bye)>) {
        byes.retain(|(key, why)| self.close(*key, *why).is_err());
    }

    /// An order for one reactor.
    pub fn send(&self, reactor: usize, command: ToReactor) -> Result<(), MailboxFull> {
        match self.0.get(reactor) {
            Some(mailbox) => mailbox.send(command),
            None => Ok(()),
        }
    }

    /// An order that must not be lost: it comes back where the mailbox is full.
    pub fn offer(&self, reactor: usize, command: ToReactor) -> Result<(), ToReactor> {
        match self.0.get(reactor) {
            Some(mailbox) => mailbox.give(command),
            None => Ok(()),
        }
    }

    /// An entry for all of a user's sessions. Errors: not all of them will hear of it.
    pub fn ring(&self, to: &Sessions, rung: &Arc<RungOut>) -> Result<(), MailboxFull> {
        self.split(to, |to| ToReactor::Ring {
            to,
            rung: rung.clone(),
        })
    }

    /// What the store says of inboxes. What finds no room is lost.
    pub fn compare(&self, heads: &[InboxHead]) {
        for reactor in 0..self.reactors() {
            let of_it = heads.iter().filter(|head| head.to.reactor() == reactor);
            let of_it: Box<[InboxHead]> = of_it.copied().collect();
            if !of_it.is_empty() {
                let _ = self.send(reactor, ToReactor::Heads(of_it));
            }
        }
    }

    /// All of a user's sessions are to look into the inbox.
    pub fn look(&self, to: &Sessions) -> Result<(), MailboxFull> {
        self.split(to, |to| ToReactor::Look { to })
    }

    /// One order for each reactor that has some of the sessions.
    fn split(
        &self,
        to: &Sessions,
        command: impl Fn(Sessions) -> ToReactor,
    ) -> Result<(), MailboxFull> {
        if let [only] = to.as_slice() {
            return self.send(only.reactor(), command(to.clone()));
        }
        let mut outcome = Ok(());
        for reactor in 0..self.reactors() {
            let of_it = to.iter().copied().filter(|key| key.reactor() == reactor);
            let of_it: Sessions = of_it.collect();
            if !of_it.is_empty() {
                outcome = outcome.and(self.send(reactor, command(of_it)));
            }
        }
        outcome
    }

    /// One frame for every bound connection of the node, or those that `selector` matches.
    /// Refused as a whole where a reactor is so far behind that its queue of broadcasts is full.
    pub fn broadcast(&self, frame: &Shared, selector: Option<Selector>) -> Result<(), MailboxFull> {
        if !self.0.iter().all(|m| m.has_room_for_broadcast(frame.len())) {
            return Err(MailboxFull);
        }
        let selector = selector.map(Arc::new);
        self.0.iter().try_for_each(|mailbox| {
            let frame = frame.clone();
            let bytes = frame.len();
            let command = match selector.clone() {
                None => ToReactor::Broadcast { frame },
                Some(selector) => ToReactor::Select { frame, selector },
            };
            mailbox.broadcast(bytes, command)
        })
    }

    /// Lets every reactor have a turn.
    pub fn wake(&self) {
        for mailbox in self.0.iter() {
            mailbox.wake();
        }
    }

    /// The same order for every reactor.
    pub fn all(&self, command: impl Fn() -> ToReactor) -> Result<(), MailboxFull> {
        self.0
            .iter()
            .try_for_each(|mailbox| mailbox.send(command()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_says_so_and_keeps_what_it_has() {
        let (mailbox, inbox) = mailbox().unwrap();
        let mail = || ToReactor::Deliver {
            to: Key::new(0, 0, 0),
            head: Head::Envelope,
            tail: Arc::from(&b"x"[..]),
        };
        for _ in 0..MAIL_MAX {
            mailbox.send(mail()).unwrap();
        }
        assert_eq!(mailbox.send(mail()), Err(MailboxFull));
        let mut count = 0;
        while inbox.next().is_some() {
            count += 1;
        }
        assert_eq!(count, MAIL_MAX);
    }

    #[test]
    fn broadcasts_that_nobody_has_delivered_are_bounded_by_their_bytes() {
        let (mailbox, inbox) = mailbox().unwrap();
        let board = Switchboard::new(vec![mailbox]);
        let frame: Shared = vec![0; BROADCAST_BYTES_MAX / 4].into();
        for _ in 0..4 {
            board.broadcast(&frame, None).unwrap();
        }
        assert_eq!(board.broadcast(&frame, None), Err(MailboxFull));
        inbox.broadcast_done(frame.len());
        board.broadcast(&frame, None).unwrap();
    }

    #[test]
    fn a_reactor_that_has_drained_refuses_nothing_and_keeps_nothing() {
        let (gone, inbox) = mailbox().unwrap();
        let (here, other) = mailbox().unwrap();
        drop(inbox);
        let board = Switchboard::new(vec![gone, here]);
        let frame: Shared = vec![0; BROADCAST_BYTES_MAX].into();
        board.broadcast(&frame, None).unwrap();
        assert!(other.next().is_some());
        other.broadcast_done(frame.len());
        board.broadcast(&frame, None).unwrap();
        let gone = Key::new(0, 0, 0);
        board.deliver(&[gone], Head::Envelope, &frame).unwrap();
    }

    #[test]
    fn errands_are_bounded_by_what_they_carry() {
        let (away, partings) = away_box();
        let send = |bytes: usize| {
            let frame = vec![0; bytes].into();
            let errand = Errand::Broadcast {
                frame,
                selector: None,
            };
            let reply = HeardBy::Nobody;
            away.send(Parting { errand, reply }).is_ok()
        };
        assert!(send(PARTING_BYTES_MAX - 1) && send(1) && !send(1));
        assert_eq!(
            partings.take(1, Duration::ZERO).map(|taken| taken.len()),
            Some(1)
        );
        assert!(send(1) && !partings.is_empty());
        assert!(
            AwayBox::default()
                .send(Parting {
                    errand: Errand::Find(Vec::new()),
                    reply: HeardBy::Nobody,
                })
                .is_err(),
            "a node that is alone has no others"
        );
    }
}
