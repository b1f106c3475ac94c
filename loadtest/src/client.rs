//! One client's life: dial, upgrade, notice, registration, messages, close. Pure.
//!
//! Owns: the phase and a torn unit. What all clients of a worker share (counts, the output
//! buffer, tallies) is lent to it as a [`Desk`].
//! Invariants: any split of the same bytes does the same.

use std::sync::Arc;
use std::time::Instant;

use crate::chat::Chat;
use crate::churn::Churn;
use crate::counts::{Counts, Failure};
use crate::frame::{self, Frame, Keys, Torn};
use crate::message::{self, Text, Upgrade};
use crate::order::Order;
use crate::plan::Plan;
use crate::post::Posts;
use crate::pulse::{Latency, Vitals};
use crate::returns::Returns;
use crate::tally::{Hearing, Volley, Waves};
use crate::target::Target;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The TCP handshake is under way.
    Dialing,
    /// The upgrade request is sent.
    Upgrading,
    /// The 101 has come; the connected notice has not.
    Greeted,
    /// The type 7 is sent; the type 8 has not come.
    Registering,
    Ready,
    /// We said goodbye, and the server has not answered.
    Leaving,
    /// Both have said goodbye.
    Closing,
}

pub struct Client {
    phase: Phase,
    heard: Heard,
    torn: Torn,
}

/// What a client remembers of the numbers that it has heard.
#[derive(Default)]
struct Heard {
    /// Broadcasts, or pushes to its block of users.
    order: Order,
    /// The direct message that it expects next, or a later one.
    next_direct: u32,
}

// The kernel needs some four thousand bytes for a connection; the crowd is not to add to it.
const _: () = assert!(size_of::<Client>() <= 40);

/// What a worker's clients share.
pub struct Desk {
    pub plan: Arc<Plan>,
    pub counts: Counts,
    /// What the client that was just called wants to be sent.
    pub out: Vec<u8>,
    pub text: String,
    pub keys: Keys,
    pub waves: Option<Waves>,
    pub volley: Option<Volley>,
    pub posts: Option<Box<Posts>>,
    pub chat: Option<Box<Chat>>,
    /// Where clients come back.
    pub returns: Option<Box<Returns>>,
    /// Where clients come and go.
    pub churn: Option<Box<Churn>>,
    pub vitals: Vitals,
}

impl Desk {
    pub fn new(plan: Arc<Plan>, seed: u64) -> Desk {
        Desk {
            vitals: Vitals::new(plan.pulse.clone()),
            plan,
            counts: Counts::default(),
            out: Vec::with_capacity(4 << 10),
            text: String::with_capacity(4 << 10),
            keys: Keys::new(seed),
            waves: None,
            volley: None,
            posts: None,
            chat: None,
            returns: None,
            churn: None,
        }
    }

    /// Lets the chats of this worker, if there are any, use the rest of the desk.
    pub fn with_chat<T>(&mut self, act: impl FnOnce(&mut Chat, &mut Desk) -> T) -> Option<T> {
        let mut chat = self.chat.take()?;
        let result = act(&mut chat, self);
        self.chat = Some(chat);
        Some(result)
    }

    /// Where this client connects to.
    pub fn target(&self, index: u32) -> Arc<Target> {
        let returns = self.returns.as_ref();
        let chosen = returns.and_then(|returns| returns.target(index));
        chosen.unwrap_or_else(|| self.plan.targets.get(self.plan.pairs().target(index)))
    }

    /// The client is registered.
    fn arrived(&mut self, index: u32) {
        let now = Instant::now();
        if let Some(returns) = &mut self.returns {
            returns.registered(index, now);
        }
        if let Some(churn) = &mut self.churn {
            churn.registered(index, now);
        }
    }

    /// The client's connection is over, or none came about.
    pub fn ended(&mut self, index: u32, failure: Option<Failure>) {
        if let Some(returns) = &mut self.returns {
            returns.ended(index, failure, Instant::now());
        }
        if let Some(churn) = &mut self.churn {
            churn.ended(index, failure, Instant::now());
        }
        self.with_chat(|chat, _| chat.ended(index));
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) {
        let key = self.keys.draw();
        frame::write_masked(&mut self.out, opcode, payload, key);
    }

    /// Sends what stands in `self.text`.
    pub fn send_text(&mut self) {
        let key = self.keys.draw();
        frame::write_masked(&mut self.out, frame::TEXT, self.text.as_bytes(), key);
        self.text.clear();
    }

    /// One message that a client has read, known again by its mark.
    fn hear(&mut self, text: Text, index: u32, heard: &mut Heard) {
        let now = Instant::now();
        let (hearing, count) = match text {
            Text::Wave(wave) => {
                let waves = self.waves.as_mut();
                let hearing = waves.map(|waves| waves.hear(wave, &mut heard.order, now));
                if hearing.is_some_and(Hearing::is_first) {
                    self.vitals.heard(now);
                }
                (hearing, &mut self.counts.broadcasts)
            }
            Text::Direct(direct) if direct.receiver != index => {
                (Some(Hearing::Misrouted), &mut self.counts.directs)
            }
            Text::Direct(direct) => {
                let hearing = self.volley.as_mut().map(|volley| {
                    let hearing = volley.hear(direct, &mut heard.next_direct, now);
                    if hearing.is_first() {
                        self.vitals.took(Latency::Unicast, volley.took(direct, now));
                    }
                    hearing
                });
                (hearing, &mut self.counts.directs)
            }
            Text::Post(mark) => {
                let hearing = self.posts.as_mut().map(|posts| {
                    let hearing = posts.hear(mark, index, &mut heard.order, now);
                    if hearing.is_first() {
                        self.vitals.took(Latency::Pushed, posts.took(mark, now));
                    }
                    hearing
                });
                (hearing, &mut self.counts.pushes)
            }
            Text::Refusal => {
                self.counts.refusals += 1;
                if let Some(volley) = &mut self.volley {
                    volley.lose_one();
                }
                return;
            }
            Text::Other => {
                self.counts.other += 1;
                return;
            }
        };
        match hearing.unwrap_or(Hearing::Stray) {
            Hearing::New => *count += 1,
            Hearing::Late => {
                *count += 1;
                self.counts.out_of_order += 1;
            }
            Hearing::Repeated => self.counts.repeated += 1,
            Hearing::Stray => self.counts.stray += 1,
            Hearing::Misrouted => self.counts.misrouted += 1,
        }
    }
}

impl Client {
    pub fn new() -> Client {
        Client {
            phase: Phase::Dialing,
            heard: Heard::default(),
            torn: Torn::default(),
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// True until the registration is answered.
    pub fn is_arriving(&self) -> bool {
        !matches!(self.phase, Phase::Ready | Phase::Leaving | Phase::Closing)
    }

    /// The number of the last broadcast or push that it heard.
    pub fn heard_last(&self) -> u32 {
        self.heard.order.last()
    }

    /// A registered client has had enough, and its connection is over with that.
    pub fn cut(&mut self, index: u32, desk: &mut Desk) {
        self.leave(index, desk, || "left".to_owned());
        self.phase = Phase::Closing;
    }

    /// A registered client has had enough. The server is to say goodbye, too.
    pub fn say_goodbye(&mut self, index: u32, desk: &mut Desk) {
        const NORMAL: u16 = 1000;
        self.leave(index, desk, || "left".to_owned());
        self.phase = Phase::Leaving;
        desk.send(frame::CLOSE, &NORMAL.to_be_bytes());
    }

    /// The TCP handshake is done: asks for the upgrade.
    pub fn dialed(&mut self, index: u32, desk: &mut Desk) {
        self.phase = Phase::Upgrading;
        let more = desk.with_chat(|chat, _| chat.dialed(index));
        desk.text.clear();
        let more = more.unwrap_or_default();
        let target = desk.target(index);
        desk.plan
            .write_upgrade(&target, index, &more, &mut desk.text);
        desk.out.extend_from_slice(desk.text.as_bytes());
        desk.text.clear();
    }

    /// Takes what the socket had. What is to be sent stands in `desk.out` afterwards.
    pub fn receive(&mut self, bytes: &[u8], index: u32, desk: &mut Desk) -> Result<(), Failure> {
        desk.counts.bytes += bytes.len() as u64;
        let mut torn = std::mem::take(&mut self.torn);
        let result = torn.feed(bytes, |rest| self.unit(rest, index, desk));
        self.torn = torn;
        result
    }

    /// The connection has ended, for this reason or because it was closed. The failure that it
    /// was, if both have not said goodbye.
    pub fn gone(
        &mut self,
        index: u32,
        failure: Option<Failure>,
        desk: &mut Desk,
    ) -> Option<Failure> {
        let failure = failure.unwrap_or(Failure::Ended);
        if self.phase == Phase::Ready {
            self.leave(index, desk, || failure.to_string());
        }
        if self.phase == Phase::Closing {
            return None;
        }
        desk.counts.fail(failure);
        Some(failure)
    }

    fn unit(&mut self, rest: &[u8], index: u32, desk: &mut Desk) -> Result<usize, Failure> {
        if self.phase == Phase::Upgrading {
            return match message::read_upgrade(rest) {
                Upgrade::Torn => Ok(0),
                Upgrade::Refused { status, retry_secs } => {
                    if let Some(returns) = &mut desk.returns {
                        returns.refused(index, status, retry_secs, Instant::now());
                    }
                    Err(Failure::Refused(status))
                }
                Upgrade::Malformed => Err(Failure::BadUpgrade),
                Upgrade::Switched(length) => {
                    self.phase = Phase::Greeted;
                    if desk.plan.dialect.is_in_at_once() {
                        self.let_in(index, desk);
                    }
                    Ok(length)
                }
            };
        }
        let Some((frame, length)) = frame::parse(rest)? else {
            return Ok(0);
        };
        desk.counts.frames += 1;
        self.frame(frame, index, desk)?;
        Ok(length)
    }

    fn frame(&mut self, frame: Frame, index: u32, desk: &mut Desk) -> Result<(), Failure> {
        match frame.opcode {
            _ if self.phase == Phase::Closing => {}
            frame::CLOSE if self.phase == Phase::Leaving => self.phase = Phase::Closing,
            _ if self.phase == Phase::Leaving => {}
            frame::TEXT if frame.is_final => return self.text(frame.payload, index, desk),
            frame::PING => {
                desk.send(frame::PONG, frame.payload);
                desk.counts.pings_answered += 1;
            }
            frame::PONG => {}
            frame::CLOSE => {
                let code = frame
                    .payload
                    .first_chunk()
                    .map_or(1005, |c| u16::from_be_bytes(*c));
                *desk.counts.closes.entry(code).or_default() += 1;
                let (echo, reason) = frame.payload.split_at(frame.payload.len().min(2));
                desk.send(frame::CLOSE, echo);
                if let Some(returns) = &mut desk.returns {
                    returns.dismissed(index, code, reason, Instant::now());
                }
                if let Some(churn) = &mut desk.churn {
                    churn.dismissed(index, code);
                }
                if self.phase == Phase::Ready {
                    self.leave(index, desk, || format!("closed with {code}"));
                }
                self.phase = Phase::Closing;
            }
            _ => desk.counts.other += 1,
        }
        Ok(())
    }

    fn text(&mut self, text: &[u8], index: u32, desk: &mut Desk) -> Result<(), Failure> {
        if let Some(reply) = desk.plan.dialect.reply(text) {
            desk.send(frame::TEXT, reply.as_bytes());
            if self.phase == Phase::Ready {
                desk.counts.pings_answered += 1;
            }
            return Ok(());
        }
        if self.phase == Phase::Greeted && message::is_notice(text) {
            self.phase = Phase::Registering;
            desk.with_chat(|chat, _| chat.opened(index));
            desk.text.clear();
            desk.plan.clone().write_register(index, &mut desk.text);
            desk.send_text();
            return Ok(());
        }
        if self.phase == Phase::Registering && message::is_registered(text) {
            self.let_in(index, desk);
            return Ok(());
        }
        if self.is_arriving() && message::read(text) == Text::Refusal {
            return Err(Failure::NotRegistered);
        }
        // An inbox flows from the notice on: a chat does not wait for the registration.
        let hears = desk.with_chat(|chat, desk| chat.hear(text, index, desk));
        if hears.is_some() {
            return Ok(());
        }
        let text = message::read(text);
        desk.hear(text, index, &mut self.heard);
        Ok(())
    }

    fn let_in(&mut self, index: u32, desk: &mut Desk) {
        self.phase = Phase::Ready;
        desk.counts.registered += 1;
        desk.counts.open += 1;
        desk.arrived(index);
    }

    /// A registered client stops being one.
    fn leave(&self, index: u32, desk: &mut Desk, cause: impl FnOnce() -> String) {
        desk.counts.open -= 1;
        if let Some(waves) = &mut desk.waves {
            waves.lose(&self.heard.order);
        }
        if let Some(posts) = &mut desk.posts {
            posts.lose(index, self.heard_last(), cause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Who;

    fn desk() -> Desk {
        let plan = Plan::new("ws://127.0.0.1:1/websocket", Who::Openid, "u", 4).unwrap();
        Desk::new(Arc::new(plan), 1)
    }

    /// What a server says to a client that comes, hears two broadcasts and a ping, and is closed.
    fn a_servers_part() -> Vec<u8> {
        let mut wire = format!(
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            message::ACCEPT
        )
        .into_bytes();
        for text in [
            r#"{"msgType":0,"msg":{"userCode":"x"}}"#.to_owned(),
            r#"{"type":8,"status":200,"params":{}}"#.to_owned(),
            format!("{{\"msg\":{}}}", message::wave(1)),
            format!("{{\"msg\":{}}}", message::wave(2)),
        ] {
            frame::write_plain(&mut wire, frame::TEXT, text.as_bytes());
        }
        frame::write_plain(&mut wire, frame::PING, b"?");
        frame::write_plain(&mut wire, frame::CLOSE, &1013_u16.to_be_bytes());
        wire
    }

    #[test]
    fn the_servers_bytes_may_arrive_in_any_pieces() {
        let wire = a_servers_part();
        let live = |size: usize| {
            let (mut desk, mut client) = (desk(), Client::new());
            desk.waves = Some(Waves::new(1, 2, 1));
            client.dialed(3, &mut desk);
            for piece in wire.chunks(size) {
                client.receive(piece, 3, &mut desk).unwrap();
            }
            assert!(
                desk.waves
                    .as_ref()
                    .is_some_and(|waves| waves.is_complete(Instant::now()))
            );
            assert_eq!(client.phase(), Phase::Closing);
            client.gone(3, None, &mut desk);
            (desk.counts, desk.out)
        };
        let (counts, out) = live(wire.len());
        assert_eq!(
            (counts.registered, counts.open, counts.broadcasts),
            (1, 0, 2)
        );
        assert_eq!((counts.pings_answered, counts.closes[&1013]), (1, 1));
        assert!(counts.errors.is_empty());
        for size in 1..wire.len() {
            assert_eq!(
                live(size),
                (counts.clone(), out.clone()),
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn a_refusal_an_early_end_and_a_bad_frame_have_different_names() {
        let mut desk = desk();
        let mut fail = |bytes: &[u8]| {
            let mut client = Client::new();
            client.dialed(0, &mut desk);
            let failure = client.receive(bytes, 0, &mut desk).err();
            client.gone(0, failure, &mut desk);
        };
        fail(b"HTTP/1.1 401 Unauthorized\r\n\r\n");
        fail(b"");
        let switched = &a_servers_part()[..a_servers_part()
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .unwrap()
            + 4];
        fail(&[switched, &[0x81, 0x80]].concat());
        fail(&[switched, b"\x81\x0c\"type\":500, "].concat());
        assert_eq!(desk.counts.refused[&401], 1);
        assert_eq!(
            desk.counts
                .errors
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>(),
            [
                "bad frame: masked frame",
                "ended without a close frame",
                "registration refused"
            ]
        );
    }
}
