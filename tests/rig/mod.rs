//! A node without sockets, threads or clocks: real sessions over one real roster, a script for a
//! network, and time that passes when a test says so.
//!
//! Owns: the peers, each with what the node said to it; virtual time; a chance whose seed is
//! printed wherever it decides something.
//! Invariants: a session is treated as the reactor treats it: it is called again when its
//! deadline comes and not before, its envelopes go to the others when the call is over, and
//! bytes leave in order. Whatever the node says is read strictly: see [`wire::Reader`].

// Each test program uses a part of it.
#![allow(dead_code)]

pub mod desk;
pub mod feed;
mod store;
mod turn;
pub mod wire;

use std::sync::Arc;

use serde_json::Value;
use throng::parts::outbox::Outbox;
use throng::parts::time::{Now, TICK_MS, TICKS_PER_SEC, Tick};
use throng::parts::wheel::Wheel;
use throng::protocol::assembler::{Input, PADDING};
use throng::protocol::identity::Identity;
use throng::protocol::inbound::Scratch;
use throng::protocol::limits::Limits;
use throng::session::auth::{Auth, TokenKeys};
use throng::session::rules::{Origins, Rules, SessionPolicy};
use throng::session::{Context, Newcomer, Phase, Session};

use desk::Desk;
use feed::{Chance, Feed};
use turn::key;
use wire::{Frame, Heard, Reader};

/// Tue Jan 02 2024 02:28:12 UTC.
pub const START_MS: u64 = 1_704_162_492_000;
pub const NODE: &str = "10.0.0.1:8084";
pub const SECRET: &str = "a secret of the rig, long enough to sign";
/// Bytes that one read of the reactor takes at most.
const READ_BYTES: usize = 128 << 10;
/// A session that wants to be woken more often than this in one tick makes no progress.
const WAKES_PER_TICK_MAX: u32 = 8;

/// One connection, by the order of its coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub usize);

pub struct Rig {
    pub rules: Rules,
    pub now: Now,
    /// How what a peer says is cut into reads.
    pub feed: Feed,
    /// Bytes that a socket takes in one turn; none: all.
    pub takes: Option<(Chance, u64)>,
    pub desk: Desk,
    ends: Vec<End>,
    wheel: Wheel,
    scratch: Scratch,
    masks: Chance,
}

/// Both ends of a connection.
struct End {
    session: Session,
    outbox: Outbox,
    reader: Reader,
    wakes: (Tick, u32),
    is_gone: bool,
    /// The peer reads nothing.
    is_stalled: bool,
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(|_| {})
    }

    /// A node that asks for tokens, with other rules than the usual ones.
    pub fn with(change: impl FnOnce(&mut Rules)) -> Rig {
        let limits = Limits::default();
        let keys = TokenKeys::parse(SECRET).unwrap();
        let mut rules = Rules {
            echo_limits: limits.echo(),
            limits,
            path: "/websocket".to_owned(),
            echo_path: Some("/echo".to_owned()),
            origins: Origins::Any,
            trusted_proxies: Vec::new(),
            auth: Arc::new(Auth::Hmac(keys)),
            session_policy: SessionPolicy::Multi,
            groups_are_open: false,
            node_name: NODE.to_owned(),
        };
        change(&mut rules);
        let now = Now {
            tick: Tick(1000),
            wall_ms: START_MS,
        };
        Rig {
            scratch: Scratch::new(rules.limits.json_depth_max),
            rules,
            now,
            feed: Feed::Whole,
            takes: None,
            desk: Desk::default(),
            ends: Vec::new(),
            wheel: Wheel::new(now.tick),
            masks: Chance(7),
        }
    }

    /// A node that believes what its clients call themselves.
    pub fn without_tokens() -> Rig {
        Rig::with(|rules| {
            rules.auth = Arc::new(Auth::None);
            rules.origins = Origins::LocalOr(Vec::new());
        })
    }

    /// A token of this node, good for an hour.
    pub fn token(&self, uid: &str) -> String {
        self.token_until(uid, "", self.now.wall_ms + 3_600_000)
    }

    pub fn token_until(&self, uid: &str, name: &str, expires_ms: u64) -> String {
        self.sign(uid, name, expires_ms, &[])
    }

    /// A token that grants `perms`, good for an hour.
    pub fn token_with(&self, uid: &str, perms: &[&str]) -> String {
        let perms: Vec<String> = perms.iter().map(ToString::to_string).collect();
        self.sign(uid, "", self.now.wall_ms + 3_600_000, &perms)
    }

    fn sign(&self, uid: &str, name: &str, expires_ms: u64, perms: &[String]) -> String {
        let identity = Identity::new(uid, name).unwrap();
        let keys = TokenKeys::parse(SECRET).unwrap();
        keys.sign(&identity, expires_ms, perms)
    }
}

/// Coming and going.
impl Rig {
    /// A socket that has said nothing yet.
    pub fn knock(&mut self, newcomer: Newcomer) -> Peer {
        let peer = Peer(self.ends.len());
        let spread = (peer.0 as u8).wrapping_mul(157);
        self.ends.push(End {
            session: Session::new(self.now.tick, newcomer, spread),
            outbox: Outbox::default(),
            reader: Reader::default(),
            wakes: (self.now.tick, 0),
            is_gone: false,
            is_stalled: false,
        });
        self.watch(peer);
        peer
    }

    /// The peer, which has said nothing yet, is a proxy that is believed.
    pub fn trust(&mut self, peer: Peer) {
        self.ends[peer.0].session.expect_proxy_header();
    }

    /// Asks for an upgrade of `target`; the answer is the first thing heard.
    pub fn connect(&mut self, target: &str) -> Peer {
        self.connect_with(target, "")
    }

    /// The same, with further header fields, each with its line end.
    pub fn connect_with(&mut self, target: &str, fields: &str) -> Peer {
        let peer = self.knock(Newcomer::Admitted);
        self.say_bytes(peer, wire::head(target, fields).as_bytes());
        peer
    }

    /// A user who is connected and has been told so.
    pub fn user(&mut self, uid: &str) -> Peer {
        let target = format!("/websocket?token={}", self.token(uid));
        let peer = self.connect(&target);
        let heard = self.heard(peer);
        assert!(
            matches!(heard[..], [Heard::Http(101, _), Heard::Text(_)]),
            "{heard:?}"
        );
        peer
    }

    /// Somebody upgraded whom nobody knows yet.
    pub fn guest(&mut self) -> Peer {
        self.upgraded("/websocket")
    }

    /// A client of the echo endpoint.
    pub fn echo(&mut self) -> Peer {
        self.upgraded("/echo")
    }

    fn upgraded(&mut self, target: &str) -> Peer {
        let peer = self.connect(target);
        let heard = self.heard(peer);
        assert!(matches!(heard[..], [Heard::Http(101, _)]), "{heard:?}");
        peer
    }

    /// The peer's socket is gone.
    pub fn hang_up(&mut self, peer: Peer) {
        self.call(peer, |session, cx| session.abandon(cx));
    }

    /// The peer reads nothing, or reads again.
    pub fn stall(&mut self, peer: Peer, is_stalled: bool) {
        self.ends[peer.0].is_stalled = is_stalled;
        self.flush(peer);
    }

    /// Of what is on its way to the peer, only the first `count` bytes arrive.
    pub fn lose_all_but(&mut self, peer: Peer, count: usize) {
        self.ends[peer.0].reader.truncate(count);
    }

    /// What has reached the peer, whatever else is under way.
    pub fn heard_so_far(&mut self, peer: Peer) -> Vec<Heard> {
        self.ends[peer.0].reader.take()
    }

    /// The node takes leave of one, as it does of all when it drains.
    pub fn dismiss(&mut self, peer: Peer, code: u16) {
        self.call(peer, |session, cx| {
            let reason = throng::session::host::Host::come_back(cx.host);
            session.close(code, &reason, cx);
        });
    }

    pub fn phase(&self, peer: Peer) -> Phase {
        self.ends[peer.0].session.phase()
    }

    /// The node has dropped the socket.
    pub fn is_gone(&self, peer: Peer) -> bool {
        self.ends[peer.0].is_gone
    }

    pub fn is_online(&self, peer: Peer) -> bool {
        self.ends[peer.0].session.is_online()
    }

    /// Known by name, online or not.
    pub fn is_bound(&self, peer: Peer) -> bool {
        self.ends[peer.0].session.identity().is_some()
    }

    /// A client of the echo endpoint: it hears what it says.
    pub fn is_echo(&self, peer: Peer) -> bool {
        let limits = self.ends[peer.0].session.limits(&self.rules);
        std::ptr::eq(limits, &self.rules.echo_limits)
    }

    /// A user code of the peer; of one who is nobody, a code that reaches nobody.
    pub fn code(&self, peer: Peer) -> String {
        let identity = self.ends[peer.0].session.identity();
        let uid = identity.map_or("nobody", Identity::uid);
        let mut code = String::new();
        let mark = self.desk.post.node.mark(key(peer));
        self.desk.post.codes.write(7, mark, uid, &mut code);
        code
    }

    pub fn peers(&self) -> impl Iterator<Item = Peer> + use<> {
        (0..self.ends.len()).map(Peer)
    }

    /// Users and sessions in the roster.
    pub fn counts(&self) -> (usize, usize) {
        self.desk.post.roster.counts()
    }
}

/// Talking and listening.
impl Rig {
    /// A text message in one frame.
    pub fn say(&mut self, peer: Peer, text: impl ToString) {
        self.say_frame(peer, &Frame::text(text.to_string()));
    }

    pub fn say_frame(&mut self, peer: Peer, frame: &Frame) {
        let bytes = frame.encode(&mut self.masks);
        self.say_bytes(peer, &bytes);
    }

    /// Says bytes as they are, cut as `feed` has it.
    pub fn say_bytes(&mut self, peer: Peer, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.ends[peer.0].is_gone {
            let length = self.feed.piece(rest.len()).min(READ_BYTES);
            let (piece, later) = rest.split_at(length);
            self.read(peer, piece);
            rest = later;
        }
    }

    fn read(&mut self, peer: Peer, piece: &[u8]) {
        // What lies behind a read is whatever the last one left: quotes do most harm.
        let mut buffer = vec![b'"'; piece.len() + PADDING];
        buffer[..piece.len()].copy_from_slice(piece);
        let mut input = Input {
            buffer: &mut buffer,
            at: 0,
            filled: piece.len(),
        };
        let mut cx = Context {
            now: self.now,
            rules: &self.rules,
            host: &mut self.desk,
        };
        cx.host.courier.key = key(peer);
        let session = &mut self.ends[peer.0].session;
        session.receive(&mut input, &mut self.scratch, &mut cx);
        let is_used_up = input.at == input.filled;
        assert!(
            is_used_up || !matches!(session.phase(), Phase::Handshake | Phase::Open),
            "bytes were left behind"
        );
        self.settle(peer);
    }

    /// Everything that reached the peer since it last listened.
    pub fn heard(&mut self, peer: Peer) -> Vec<Heard> {
        let is_owed = |end: &End| !end.outbox.is_empty() && !end.session.is_holding();
        while is_owed(&self.ends[peer.0]) {
            self.flush(peer);
        }
        self.ends[peer.0].reader.take()
    }

    /// The messages of [`Rig::heard`], all of which must be JSON text.
    pub fn messages(&mut self, peer: Peer) -> Vec<Value> {
        let heard = self.heard(peer);
        heard.iter().map(Heard::json).collect()
    }

    /// Says something that has exactly one answer.
    pub fn ask(&mut self, peer: Peer, text: impl ToString) -> Value {
        self.say(peer, text);
        let mut messages = self.messages(peer);
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }

    /// The same where pings may have come meanwhile.
    pub fn ask_quietly(&mut self, peer: Peer, text: impl ToString) -> Value {
        self.heard(peer);
        self.ask(peer, text)
    }

    /// The code with which a connection ended, the last thing heard.
    pub fn close_code(&mut self, peer: Peer) -> Option<u16> {
        match self.heard(peer).pop() {
            Some(Heard::Close(code, _)) => code,
            _ => None,
        }
    }
}

/// Time.
impl Rig {
    pub fn advance_secs(&mut self, secs: u32) {
        self.advance_ticks(secs * TICKS_PER_SEC);
    }

    /// Lets time pass, and wakes each session when its deadline comes, at that very tick.
    pub fn advance_ticks(&mut self, ticks: u32) {
        let end = self.now.tick.plus_ticks(ticks);
        while let Some(due) = self.wheel.next_due().filter(|&due| due <= end) {
            self.pass_until(due.max(self.now.tick));
            while let Some(index) = self.wheel.pop_due(self.now.tick) {
                self.wake(Peer(index));
            }
        }
        self.pass_until(end);
        self.wheel.pop_due(end);
    }

    fn pass_until(&mut self, tick: Tick) {
        self.now.wall_ms += u64::from(tick.0 - self.now.tick.0) * TICK_MS;
        self.now.tick = tick;
    }

    /// Sets the wall clock, which may step; the ticks do not.
    pub fn step_wall_secs(&mut self, secs: i64) {
        self.now.wall_ms = self.now.wall_ms.saturating_add_signed(secs * 1000);
    }

    fn wake(&mut self, peer: Peer) {
        let now = self.now.tick;
        let wakes = &mut self.ends[peer.0].wakes;
        *wakes = if wakes.0 == now {
            (now, wakes.1 + 1)
        } else {
            (now, 0)
        };
        assert!(
            wakes.1 < WAKES_PER_TICK_MAX,
            "{peer:?} is due again and again at {now:?}"
        );
        self.flush(peer);
        self.call(peer, |session, cx| session.expire(cx));
    }
}
