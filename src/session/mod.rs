//! One connection's life: handshake → open → leaving → over. Pure: bytes and ticks in, frames
//! and requests to the [`Host`] out. No socket, thread, clock or log.
//!
//! Owns: a connection's protocol state. Nothing else knows in which phase a connection is.
//! Invariants: any split of the same bytes has the same outcome; what was said after our close
//! frame is dropped; whoever is in the roster is taken out before the session is over.

pub mod auth;
pub mod flow;
pub mod host;
mod meter;
mod open;
pub mod rules;
mod talk;
pub mod ticket;
mod who;
mod wire;

use crate::inbox::Cursor;
use crate::inbox::pump::Pump;
use crate::inbox::service::Request;
use crate::parts::time::{Now, TICK_MS, TICKS_PER_SEC, Tick};
use crate::protocol::assembler::{Assembler, Input};
use crate::protocol::identity::Identity;
use crate::protocol::inbound::Scratch;
use crate::protocol::limits::{Limit, Limits};
use crate::protocol::metadata::{Metadata, is_device};
use crate::protocol::outbound::SessionId;
use crate::protocol::proxy::{self, Beginning};
use crate::protocol::upgrade::{self, Refusal};
use crate::protocol::violation::Violation;
use crate::protocol::{close, frame};
use host::{Counted, Host};
use meter::Meter;
use rules::Rules;
use ticket::{Answering, Greeting, Then, Ticket, Wait};

/// How long the answer to an upgrade waits for the store, which says what stands behind it.
const HOLD_TICKS: u32 = 2;
/// Query parameters that have a meaning of their own; all others are metadata.
const RESERVED: [&str; 5] = ["token", "device", "cursor", "ack", "openid"];
/// How long a refused or full peer is told to stay away, in seconds.
const RETRY_SECS: u32 = 5;
/// A close frame that a peer's full window keeps from leaving waits so long at most, in seconds.
const LAST_WORDS_SECS: u32 = 10;

/// What surrounds a call into a session.
pub struct Context<'a, H> {
    pub now: Now,
    pub rules: &'a Rules,
    pub host: &'a mut H,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The request head is awaited.
    Handshake,
    /// Frames flow.
    Open,
    /// The last word is written, perhaps not sent; what the peer says is dropped.
    Leaving,
    /// The last word is sent, the peer's end is awaited.
    Lingering,
    /// Nothing more to do: the socket may be dropped.
    Over,
}

/// What a newcomer is, as far as the acceptor knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newcomer {
    Admitted,
    /// Beyond the cap: upgraded, told where to go, closed.
    Surplus,
}

pub struct Session {
    assembler: Assembler,
    identity: Option<Identity>,
    pump: Pump,
    /// When the phase began: the start of its absolute deadline.
    phase_since: Tick,
    heard: Tick,
    /// The last ping.
    pinged: Tick,
    /// Unix time at which the token ends; 0: never.
    expires_secs: u32,
    /// Unix time of the first binding.
    since_secs: u32,
    meter: Meter,
    ordinal: u16,
    preauth_bytes: u16,
    strikes: u8,
    /// This connection's part of the time over which heartbeats are spread.
    spread: u8,
    phase: Phase,
    newcomer: Newcomer,
    is_echo: bool,
    is_online: bool,
    /// The answer to the upgrade waits for the connected notice: both leave in one packet.
    is_holding: bool,
    /// The peer is a trusted proxy, which may say for whom it speaks before the request.
    is_behind_proxy: bool,
}

impl Session {
    /// `spread`: any number; sessions of different ones ping at different times.
    pub fn new(now: Tick, newcomer: Newcomer, spread: u8) -> Session {
        Session {
            assembler: Assembler::default(),
            identity: None,
            pump: Pump::default(),
            phase_since: now,
            heard: now,
            pinged: now,
            expires_secs: 0,
            since_secs: 0,
            meter: Meter::default(),
            ordinal: 0,
            preauth_bytes: 0,
            strikes: 0,
            spread,
            phase: Phase::Handshake,
            newcomer,
            is_echo: false,
            is_online: false,
            is_holding: false,
            is_behind_proxy: false,
        }
    }

    /// The peer is a trusted proxy: a header of the PROXY protocol may come first.
    pub fn expect_proxy_header(&mut self) {
        self.is_behind_proxy = true;
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// In the roster, and to be found there.
    pub fn is_online(&self) -> bool {
        self.is_online && self.phase == Phase::Open
    }

    /// The handshake is done, and no goodbye was said.
    pub fn is_established(&self) -> bool {
        self.phase == Phase::Open
    }

    /// To be closed by a node that drains: all but those whose upgrade, which will tell them
    /// so, may be on its way.
    pub fn is_to_go(&self, now: Tick) -> bool {
        match self.phase {
            Phase::Handshake => now.secs_since(self.phase_since) >= 1,
            Phase::Open => true,
            Phase::Leaving | Phase::Lingering | Phase::Over => false,
        }
    }

    /// Admitted, here, and nobody knows who it is.
    pub fn is_stranger(&self) -> bool {
        matches!(self.phase, Phase::Handshake | Phase::Open)
            && self.identity.is_none()
            && !self.is_echo
            && !self.is_surplus()
    }

    pub fn is_surplus(&self) -> bool {
        self.newcomer == Newcomer::Surplus
    }

    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The limits of this connection's queues and clocks.
    pub fn limits<'a>(&self, rules: &'a Rules) -> &'a Limits {
        if self.is_echo {
            &rules.echo_limits
        } else {
            &rules.limits
        }
    }

    /// The session's name, once it is bound.
    pub fn id<'a>(&'a self, rules: &'a Rules) -> Option<SessionId<'a>> {
        let identity = self.identity.as_ref()?;
        Some(SessionId {
            node: &rules.node_name,
            uid: identity.uid(),
            since_secs: self.since_secs,
            ordinal: self.ordinal,
        })
    }

    /// Takes what was read. Any split of the same bytes has the same outcome.
    pub fn receive<H: Host>(
        &mut self,
        input: &mut Input<'_>,
        scratch: &mut Scratch,
        cx: &mut Context<'_, H>,
    ) {
        self.heard = cx.now.tick;
        if self.phase == Phase::Handshake {
            self.receive_head(input, cx);
        }
        if self.phase == Phase::Open {
            self.receive_frames(input, scratch, cx);
        }
    }

    /// When [`Session::expire`] wants to be called next.
    pub fn deadline(&self, now: Now, rules: &Rules) -> Tick {
        let limits = self.limits(rules);
        match self.phase {
            Phase::Handshake => self.phase_since.plus_secs(limits.handshake_secs),
            Phase::Open => {
                let torn = match (self.assembler.torn_since(), limits.message_secs) {
                    (Some(since), secs @ 1..) => since.plus_secs(secs),
                    _ => Tick::NEVER,
                };
                torn.min(self.auth_deadline(rules))
                    .min(self.ping_due(limits))
                    .min(self.idle_due(limits))
                    .min(self.token_ends(now))
                    .min(self.hold_ends())
                    .min(self.pump.deadline())
            }
            Phase::Leaving => self.phase_since.plus_secs(LAST_WORDS_SECS),
            Phase::Lingering => self.phase_since.plus_secs(limits.close_secs),
            Phase::Over => now.tick,
        }
    }

    /// Does what is due now, perhaps nothing.
    pub fn expire<H: Host>(&mut self, cx: &mut Context<'_, H>) {
        let (now, rules) = (cx.now, cx.rules);
        if now.tick < self.deadline(now, rules) {
            return;
        }
        match self.phase {
            Phase::Handshake if self.assembler.torn_since().is_some() => {
                self.refuse(Refusal::TIMEOUT, cx)
            }
            Phase::Handshake => {
                cx.host.strike(Limit::Handshake);
                self.phase = Phase::Over;
            }
            Phase::Leaving | Phase::Lingering => self.phase = Phase::Over,
            Phase::Open => {
                let limits = self.limits(rules);
                if self.auth_deadline(rules) <= now.tick {
                    self.violate(Violation::NotAuthenticatedInTime, cx);
                } else if self.token_ends(now) <= now.tick {
                    self.violate(Violation::TokenExpired, cx);
                } else if self.idle_due(limits) <= now.tick {
                    self.violate(Violation::HeartbeatTimeout, cx);
                } else if self.ping_due(limits) <= now.tick {
                    self.pinged = now.tick;
                    frame::write_header(frame::Opcode::Ping, 0, cx.host.out());
                    cx.host.count(Counted::Ping);
                } else if self.hold_ends() <= now.tick {
                    self.is_holding = false;
                } else if self.pump.deadline() <= now.tick {
                    self.expire_inbox(cx);
                } else {
                    self.violate(Violation::TooSlow, cx);
                }
            }
            Phase::Over => {}
        }
    }

    /// Everything written has left, and our side of the socket is shut down.
    pub fn said(&mut self, now: Tick) {
        if self.phase == Phase::Leaving {
            self.phase = Phase::Lingering;
            self.phase_since = now;
        }
    }

    /// Ends the session with a close frame; before the handshake is done, with 503.
    pub fn close<H: Host>(&mut self, code: u16, reason: &str, cx: &mut Context<'_, H>) {
        match self.phase {
            Phase::Handshake if cx.host.is_draining() => self.refuse(Refusal::DRAINING, cx),
            Phase::Handshake => self.refuse(Refusal::UNAVAILABLE, cx),
            Phase::Open => {
                close::append(Some(code), reason, cx.host.out());
                cx.host.count(Counted::Close(code));
                self.trace(cx, "closed", || format!("{code} {reason}"));
                self.leave(cx);
            }
            Phase::Leaving | Phase::Lingering | Phase::Over => {}
        }
    }

    /// Ends the session for a peer's fault.
    pub fn violate<H: Host>(&mut self, violation: Violation, cx: &mut Context<'_, H>) {
        if let Some(limit) = violation.limit() {
            cx.host.strike(limit);
        }
        self.close(violation.close_code(), violation.reason(), cx);
    }

    /// Ends a handshake without an upgrade.
    pub fn refuse<H: Host>(&mut self, refusal: Refusal, cx: &mut Context<'_, H>) {
        cx.host.count(Counted::Refusal(refusal.status));
        if let Some(limit) = refusal.limit {
            cx.host.strike(limit);
        }
        refusal.write(RETRY_SECS, cx.host.out());
        self.leave(cx);
    }

    /// The socket is gone, or about to be: nobody must find this session any more.
    pub fn abandon<H: Host>(&mut self, cx: &mut Context<'_, H>) {
        if self.phase == Phase::Open {
            cx.host.count(Counted::Close(1006));
            self.trace(cx, "closed", || "1006 without a close frame".to_owned());
        }
        self.leave(cx);
        self.phase = Phase::Over;
    }

    fn leave<H: Host>(&mut self, cx: &mut Context<'_, H>) {
        if let Some(identity) = self.identity.take() {
            if self.pump.is_forgettable() {
                let request = Request::Remember {
                    uid: identity.uid().to_owned(),
                    device: cx.host.device(),
                };
                let ticket = Ticket {
                    to: Answering::nobody(),
                    wait: Wait::Passed,
                };
                // A store that is behind loses nothing by it but this: the device is a new one
                // when it comes back.
                let _ = cx.host.ask(request, ticket);
            }
            let session = SessionId {
                node: &cx.rules.node_name,
                uid: identity.uid(),
                since_secs: self.since_secs,
                ordinal: self.ordinal,
            };
            cx.host.unbind(session, &identity);
        }
        self.pump = Pump::default();
        self.is_online = false;
        self.assembler = Assembler::default();
        self.phase = Phase::Leaving;
        self.phase_since = cx.now.tick;
    }

    /// Takes the header of the PROXY protocol, if there is one. False where the request cannot be
    /// read yet, or never.
    fn receive_proxy_header<H: Host>(
        &mut self,
        input: &mut Input<'_>,
        cx: &mut Context<'_, H>,
    ) -> bool {
        let mut seen = self.assembler.take_head().unwrap_or_default();
        let before = seen.len();
        seen.extend_from_slice(&input.buffer[input.at..input.filled]);
        match proxy::header(&seen) {
            Ok(Beginning::Torn) => {
                input.at = input.filled;
                if !seen.is_empty() {
                    self.assembler.keep_head(seen, cx.now.tick);
                }
                return false;
            }
            Ok(Beginning::Client) => {
                seen.truncate(before);
                if !seen.is_empty() {
                    self.assembler.keep_head(seen, cx.now.tick);
                }
            }
            Ok(Beginning::Header(header)) => {
                // What was kept was torn, so the header ends in what has just come.
                input.at += header.bytes - before;
                cx.host.proxied(header.source);
            }
            Err(_) => {
                self.refuse(Refusal::BAD_PROXY_HEADER, cx);
                return false;
            }
        }
        self.is_behind_proxy = false;
        true
    }

    fn receive_head<H: Host>(&mut self, input: &mut Input<'_>, cx: &mut Context<'_, H>) {
        let was_behind_proxy = self.is_behind_proxy;
        if was_behind_proxy && !self.receive_proxy_header(input, cx) {
            return;
        }
        let limits = &cx.rules.limits;
        let fresh = &input.buffer[input.at..input.filled];
        let Some(mut head) = self.assembler.take_head() else {
            match upgrade::head_end(fresh, 0, limits) {
                Ok(Some(end)) => {
                    let start = input.at;
                    input.at += end;
                    self.answer_head(&input.buffer[start..start + end], cx);
                }
                Ok(None) if fresh.is_empty() => {}
                Ok(None) => {
                    self.assembler.keep_head(fresh.to_vec(), cx.now.tick);
                    input.at = input.filled;
                }
                Err(refusal) => self.refuse(refusal, cx),
            }
            return;
        };
        let before = head.len();
        head.extend_from_slice(fresh);
        // In what might have been a proxy's header, nobody has looked for the end of a request.
        // It may lie there: behind empty lines alone, which are no request.
        let looked_at = if was_behind_proxy { 0 } else { before };
        match upgrade::head_end(&head, looked_at, limits) {
            Ok(Some(end)) => {
                input.at += end.saturating_sub(before);
                self.answer_head(&head[..end], cx);
            }
            Ok(None) => {
                input.at = input.filled;
                self.assembler.keep_head(head, cx.now.tick);
            }
            Err(refusal) => self.refuse(refusal, cx),
        }
    }

    fn answer_head<H: Host>(&mut self, head: &[u8], cx: &mut Context<'_, H>) {
        let request = match upgrade::Request::parse(head, &cx.rules.limits) {
            Ok(request) => request,
            Err(refusal) => return self.refuse(refusal, cx),
        };
        if request.is_health_probe() {
            let is_draining = cx.host.is_draining();
            upgrade::write_health(&request, is_draining, cx.host.out());
            return self.leave(cx);
        }
        if let Err(refusal) = self.upgrade(&request, cx) {
            self.refuse(refusal, cx);
        }
    }

    fn upgrade<H: Host>(
        &mut self,
        request: &upgrade::Request<'_>,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Refusal> {
        let rules = cx.rules;
        let is_echo = rules.echo_path.as_deref() == Some(request.path);
        if request.path != rules.path && !is_echo {
            return Err(Refusal::NOT_FOUND);
        }
        let accept_key = request.accept_key()?;
        if !rules.origins.allow(request.origin()?) {
            return Err(Refusal::FORBIDDEN_ORIGIN);
        }
        if self.is_surplus() || cx.host.is_draining() {
            request.write_accept(&accept_key, cx.host.out());
            self.phase = Phase::Open;
            let code = if cx.host.is_draining() { 1012 } else { 1013 };
            let reason = cx.host.come_back();
            cx.host.count(Counted::Farewell);
            self.close(code, &reason, cx);
            return Ok(());
        }
        let proof = if is_echo {
            None
        } else {
            who::of_request(request, cx)?
        };
        cx.host
            .admit(request.forwarded_for(), cx.now.tick, cx.rules)?;
        if !is_echo && arrive(request, cx)? {
            self.pump.start_acknowledging();
        }
        request.write_accept(&accept_key, cx.host.out());
        self.phase = Phase::Open;
        self.phase_since = cx.now.tick;
        self.is_echo = is_echo;
        if let Some(proof) = proof {
            let fingerprint = self.bind(proof, None, cx);
            let greeting = Greeting::Due(fingerprint);
            self.attach(greeting, None, Answering::nobody(), Then::Nothing, cx);
            self.is_holding = self.pump.is_attaching();
        }
        Ok(())
    }

    /// What this peer is owed waits for more, for an instant.
    pub fn is_holding(&self) -> bool {
        self.is_holding && self.phase == Phase::Open
    }

    fn hold_ends(&self) -> Tick {
        match self.is_holding {
            true => self.phase_since.plus_ticks(HOLD_TICKS),
            false => Tick::NEVER,
        }
    }

    fn auth_deadline(&self, rules: &Rules) -> Tick {
        if self.identity.is_some() || self.is_echo {
            return Tick::NEVER;
        }
        self.phase_since.plus_secs(rules.limits.auth_timeout_secs)
    }

    fn ping_due(&self, limits: &Limits) -> Tick {
        if limits.ping_secs == 0 {
            return Tick::NEVER;
        }
        // Up to a quarter later, each connection at its own time: a crowd that came at once
        // does not ping at once.
        let period = limits.ping_secs.saturating_mul(TICKS_PER_SEC);
        let spread = u64::from(period / 4) * u64::from(self.spread) / 256;
        self.heard
            .max(self.pinged)
            .plus_ticks(period.saturating_add(spread as u32))
    }

    fn idle_due(&self, limits: &Limits) -> Tick {
        if limits.idle_secs == 0 {
            Tick::NEVER
        } else {
            self.heard.plus_secs(limits.idle_secs)
        }
    }

    /// The tick at which the token ends by the wall clock, which may step.
    fn token_ends(&self, now: Now) -> Tick {
        let left_ms = (u64::from(self.expires_secs) * 1000).saturating_sub(now.wall_ms);
        match (self.expires_secs, left_ms) {
            (0, _) => Tick::NEVER,
            (_, 0) => now.tick,
            _ => now
                .tick
                .plus_ticks(left_ms.div_ceil(TICK_MS).min(u64::from(u32::MAX)) as u32),
        }
    }
}

/// Takes what the query says of the connection. True: this client acknowledges.
fn arrive<H: Host>(
    request: &upgrade::Request<'_>,
    cx: &mut Context<'_, H>,
) -> Result<bool, Refusal> {
    if !request.has_parameters() {
        return Ok(false);
    }
    let limits = &cx.rules.limits;
    let device = request.parameter("device");
    if device.as_deref().is_some_and(|device| !is_device(device)) {
        return Err(Refusal::BAD_DEVICE);
    }
    let cursor = match request.parameter("cursor") {
        Some(text) => Some(Cursor::parse(&text).ok_or(Refusal::BAD_CURSOR)?),
        None => None,
    };
    let others = request.parameters_but(&RESERVED);
    let metadata = Metadata::collect(others, limits.metadata_pairs_max, limits.metadata_bytes_max);
    let metadata = metadata.map_err(Refusal::of_metadata)?;
    if device.is_some() || !metadata.is_empty() || cursor.is_some() {
        cx.host.arrive(device.as_deref(), metadata, cursor);
    }
    Ok(request.parameter("ack").as_deref() == Some("1"))
}
