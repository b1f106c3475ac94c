//! An open session: frames, messages, and who the client says it is.

use std::collections::HashSet;

use super::auth::{self, Auth, Claims};
use super::meter::Pace;
use super::{Context, Counted, Host, Phase, Sent, Session};
use crate::parts::time::Tick;
use crate::protocol::assembler::{Bounds, Event, Input, PADDING};
use crate::protocol::envelope::{Envelope, Trigger};
use crate::protocol::frame::{self, Opcode};
use crate::protocol::identity::Identity;
use crate::protocol::inbound::{self, Ask, Credentials, Inbound, Malformed, Scratch, Targets};
use crate::protocol::limits::Limits;
use crate::protocol::outbound::{self, Fault};
use crate::protocol::violation::Violation;
use crate::protocol::{close, identity};

/// Receivers of one message at most.
const TARGETS_MAX: usize = 1000;

const fn fault(code: u16, message: &'static str) -> Fault<'static> {
    Fault {
        code,
        message,
        reason: None,
    }
}

const FOREIGN_OPENID: Fault<'static> = fault(403, "openid is not the token's user");

impl Session {
    pub(super) fn receive_frames<H: Host>(
        &mut self,
        input: &mut Input<'_>,
        scratch: &mut Scratch,
        cx: &mut Context<'_, H>,
    ) {
        let limits = self.limits(cx.rules);
        while self.phase == Phase::Open {
            let is_known = self.identity.is_some() || self.is_echo;
            let message_bytes_max = if is_known {
                limits.message_bytes_max
            } else {
                limits.preauth_frame_bytes_max
            };
            let bounds = Bounds {
                message_bytes_max,
                fragments_max: limits.fragments_max,
            };
            let event = if is_known {
                self.assembler.next(input, &bounds, cx.now.tick)
            } else {
                self.next_preauth(input, &bounds, limits, cx.now.tick)
            };
            match event {
                Ok(None) => break,
                Ok(Some(event)) => self.take(event, input, limits, scratch, cx),
                Err(violation) => self.violate(violation, cx),
            }
        }
    }

    /// Before authentication little is heard: what lies past the limit is not looked at, so that
    /// it does not matter how the bytes arrive.
    fn next_preauth(
        &mut self,
        input: &mut Input<'_>,
        bounds: &Bounds,
        limits: &Limits,
        now: Tick,
    ) -> Result<Option<Event>, Violation> {
        let (start, filled) = (input.at, input.filled);
        let bytes_max = limits.preauth_bytes_max.min(u16::MAX.into()) as u16;
        let left = usize::from(bytes_max.saturating_sub(self.preauth_bytes));
        input.filled = filled.min(start + left);
        let event = self.assembler.next(input, bounds, now);
        input.filled = filled;
        self.preauth_bytes += (input.at - start) as u16;
        match event {
            Ok(None) if input.at < filled => Err(Violation::Unauthenticated),
            Err(Violation::TooBig) => Err(Violation::Unauthenticated),
            event => event,
        }
    }

    fn take<H: Host>(
        &mut self,
        event: Event,
        input: &mut Input<'_>,
        limits: &Limits,
        scratch: &mut Scratch,
        cx: &mut Context<'_, H>,
    ) {
        cx.host.count(Counted::Frame);
        match event {
            Event::Control(opcode, payload) => self.control(opcode, &payload, limits, cx),
            Event::InPlace(opcode, range) => {
                let length = range.len();
                self.message(
                    opcode,
                    &mut input.buffer[range.start..],
                    length,
                    limits,
                    scratch,
                    cx,
                );
            }
            Event::Assembled(opcode, mut body) => {
                let length = body.len() - PADDING;
                self.message(opcode, &mut body, length, limits, scratch, cx);
            }
        }
    }

    fn control<H: Host>(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        limits: &Limits,
        cx: &mut Context<'_, H>,
    ) {
        if opcode == Opcode::Close {
            match close::parse(payload) {
                Ok(code) => {
                    close::append(code, "", cx.host.out());
                    cx.host.count(Counted::Close(code.unwrap_or(1000)));
                    self.leave(cx);
                }
                Err(violation) => self.violate(violation, cx),
            }
        } else if !self.meter.control(cx.now.tick, limits) {
            self.violate(Violation::ControlFlood, cx);
        } else if opcode == Opcode::Ping {
            let out = cx.host.out();
            frame::write_header(Opcode::Pong, payload.len(), out);
            out.extend_from_slice(payload);
        }
        // A pong was heard: that was its use.
    }

    /// A whole message: `buffer[..length]`, padding behind it.
    fn message<H: Host>(
        &mut self,
        opcode: Opcode,
        buffer: &mut [u8],
        length: usize,
        limits: &Limits,
        scratch: &mut Scratch,
        cx: &mut Context<'_, H>,
    ) {
        if self.is_echo {
            let out = cx.host.out();
            frame::write_header(opcode, length, out);
            out.extend_from_slice(&buffer[..length]);
            return;
        }
        if opcode == Opcode::Binary {
            return self.violate(Violation::Binary, cx);
        }
        let pace = self.meter.message(length, cx.now.tick, limits);
        if pace == Pace::Flood {
            return self.violate(Violation::Rate, cx);
        }
        match inbound::parse(scratch, buffer, length) {
            Ok(inbound) if pace == Pace::Over => {
                outbound::error(&inbound, fault(429, "too many messages"), cx.host.out());
            }
            Ok(inbound) if self.identity.is_some() => self.act(&inbound, cx),
            Ok(inbound) => self.act_unknown(&inbound, cx),
            Err(Malformed { family, why }) => {
                let about = Inbound {
                    family,
                    path: "",
                    request_id: None,
                    msgid: None,
                    ask: Ask::Unknown,
                };
                outbound::error(&about, fault(400, why), cx.host.out());
                self.strike(Violation::Malformed, cx);
            }
        }
    }

    /// A fault that is forgiven twice.
    fn strike<H: Host>(&mut self, violation: Violation, cx: &mut Context<'_, H>) {
        self.strikes = self.strikes.saturating_add(1);
        if self.strikes >= cx.rules.limits.strikes_max {
            self.violate(violation, cx);
        }
    }

    /// A message of somebody whom we know.
    fn act<H: Host>(&mut self, inbound: &Inbound<'_>, cx: &mut Context<'_, H>) {
        let answer = match &inbound.ask {
            Ask::Heartbeat => {
                outbound::heartbeat(inbound, cx.now.wall_ms, cx.host.out());
                Ok(())
            }
            Ask::Connect(who) => self.renew(who, cx).map(|()| {
                outbound::route_ok(inbound, "null", cx.host.out());
            }),
            Ask::Register { who, is_online } => self.register(who, *is_online, cx),
            Ask::Send { to, msg } => self.send(inbound, to, msg, cx),
            Ask::Stored => Err(Fault {
                code: 503,
                message: "this node has no store for messages",
                reason: Some("store_down"),
            }),
            Ask::StoredForSession => Err(fault(400, "with a msgid, only user ids are receivers")),
            Ask::Unknown => Err(fault(404, "this is not served here")),
        };
        if let Err(fault) = answer
            && self.phase == Phase::Open
        {
            outbound::error(inbound, fault, cx.host.out());
        }
    }

    /// A message of somebody whom we do not know yet.
    fn act_unknown<H: Host>(&mut self, inbound: &Inbound<'_>, cx: &mut Context<'_, H>) {
        let (who, is_online) = match &inbound.ask {
            Ask::Heartbeat => return outbound::heartbeat(inbound, cx.now.wall_ms, cx.host.out()),
            Ask::Connect(who) => (who, true),
            Ask::Register { who, is_online } => (who, *is_online),
            _ => return self.refuse_unknown(inbound, fault(401, "authenticate first"), cx),
        };
        let claims = match credentials(who, cx) {
            Ok(Some(claims)) if !is_openid(who, claims.identity.uid()) => {
                return self.refuse_unknown(inbound, FOREIGN_OPENID, cx);
            }
            Ok(Some(claims)) => claims,
            Ok(None) => return self.refuse_unknown(inbound, fault(401, "authenticate first"), cx),
            Err(fault) if fault.code == 401 => {
                outbound::error(inbound, fault, cx.host.out());
                return self.violate(Violation::TokenBad, cx);
            }
            Err(fault) => return self.refuse_unknown(inbound, fault, cx),
        };
        let fingerprint = who.token.map_or(0, auth::fingerprint);
        self.bind(claims.identity, claims.expires_ms, fingerprint, cx);
        match &inbound.ask {
            Ask::Connect(_) => outbound::route_ok(inbound, "null", cx.host.out()),
            _ => {
                if let Err(fault) = self.register(
                    &Credentials {
                        token: None,
                        ..*who
                    },
                    is_online,
                    cx,
                ) {
                    outbound::error(inbound, fault, cx.host.out());
                }
            }
        }
    }

    fn refuse_unknown<H: Host>(
        &mut self,
        inbound: &Inbound<'_>,
        fault: Fault<'_>,
        cx: &mut Context<'_, H>,
    ) {
        outbound::error(inbound, fault, cx.host.out());
        self.strike(Violation::Unauthenticated, cx);
    }

    /// The identity is known: into the roster, and the connected notice.
    pub(super) fn bind<H: Host>(
        &mut self,
        identity: Identity,
        expires_ms: u64,
        fingerprint: u64,
        cx: &mut Context<'_, H>,
    ) {
        self.expires_secs = to_secs(expires_ms);
        self.since_secs = cx.now.wall_secs();
        self.strikes = 0;
        let (identity, ordinal) = cx.host.bind(identity, self.since_secs);
        self.ordinal = ordinal;
        self.is_online = true;
        self.identity = Some(identity);
        self.greet(fingerprint, cx);
    }

    fn greet<H: Host>(&mut self, fingerprint: u64, cx: &mut Context<'_, H>) {
        let (Some(identity), Some(session)) = (&self.identity, self.id(cx.rules)) else {
            return;
        };
        let code = cx.host.user_code(fingerprint, identity);
        let id = cx.host.message_id();
        outbound::connected(session, identity, &code, id, cx.now.wall_ms, cx.host.out());
    }

    /// Type 7: name and status of a session that is bound.
    fn register<H: Host>(
        &mut self,
        who: &Credentials<'_>,
        is_online: bool,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault<'static>> {
        self.renew(who, cx)?;
        let Some(current) = &self.identity else {
            return Ok(());
        };
        if let Some(name) = who.name.filter(|name| *name != current.name()) {
            let renamed = Identity::new(current.uid(), name)
                .map_err(|_| fault(400, "userName is longer than 64 bytes"))?;
            cx.host.rename(&renamed);
            self.identity = Some(renamed);
        }
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        if is_online != self.is_online {
            cx.host.set_online(identity, is_online);
            self.is_online = is_online;
            if is_online {
                self.greet(0, cx);
            }
        }
        if let (Some(identity), Some(session)) = (&self.identity, self.id(cx.rules)) {
            outbound::registered(session, identity, is_online, cx.host.out());
        }
        Ok(())
    }

    /// Credentials on a session that has an identity: they must be of the same user.
    fn renew<H: Host>(
        &mut self,
        who: &Credentials<'_>,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault<'static>> {
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        let is_own = is_openid(who, identity.uid());
        if let Some(claims) = credentials(who, cx)? {
            if claims.identity.uid() != identity.uid() {
                self.violate(Violation::SecondIdentity, cx);
                return Err(fault(403, "this connection belongs to another user"));
            }
            if is_own {
                self.expires_secs = to_secs(claims.expires_ms);
            }
        }
        if is_own { Ok(()) } else { Err(FOREIGN_OPENID) }
    }

    fn send<H: Host>(
        &mut self,
        inbound: &Inbound<'_>,
        to: &Targets<'_>,
        msg: &str,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault<'static>> {
        if to.len() > TARGETS_MAX {
            return Err(fault(400, "more than 1000 receivers"));
        }
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        let mut is_refused = false;
        let mut missing: Targets<'_> = Targets::new();
        // Named twice is meant once, or one frame could fill somebody's queue.
        let mut seen = HashSet::new();
        for target in to {
            if to.len() > 1 && !seen.insert(*target) {
                continue;
            }
            let envelope = Envelope {
                active_ms: cx.now.wall_ms,
                from: identity.uid(),
                message_id: cx.host.message_id(),
                msg,
                msg_type: 1,
                request_id: inbound.request_id,
                trigger: Trigger::WebSocket,
            };
            match cx.host.send(target, &envelope) {
                Sent::ToSomebody => {}
                Sent::NobodyThere => missing.push(target),
                Sent::Refused => is_refused = true,
            }
        }
        if !missing.is_empty() {
            let message = format!("nobody is there: {}", missing.join(","));
            let fault = Fault {
                code: 404,
                message: &message,
                reason: None,
            };
            outbound::error(inbound, fault, cx.host.out());
        }
        if is_refused {
            Err(fault(503, "the node is busy, try again"))
        } else {
            Ok(())
        }
    }
}

fn to_secs(millis: u64) -> u32 {
    millis.div_ceil(1000).min(u64::from(u32::MAX)) as u32
}

/// True unless it names somebody else.
fn is_openid(who: &Credentials<'_>, uid: &str) -> bool {
    who.openid.is_none_or(|openid| openid == uid)
}

/// Who a message says it comes from, proven as the node's mode asks; none if it does not say.
fn credentials<H: Host>(
    who: &Credentials<'_>,
    cx: &Context<'_, H>,
) -> Result<Option<Claims>, Fault<'static>> {
    match &*cx.rules.auth {
        Auth::Hmac(keys) => {
            let Some(token) = who.token else {
                return Ok(None);
            };
            let claims = keys
                .verify(token, cx.now.wall_ms)
                .map_err(|_| fault(401, "the token is refused"))?;
            Ok(Some(claims))
        }
        Auth::None => {
            let Some(openid) = who.openid else {
                return Ok(None);
            };
            let identity = Identity::new(openid, who.name.unwrap_or_default()).map_err(
                |error| match error {
                    identity::BadIdentity::Id => fault(400, "openid is not a user id"),
                    identity::BadIdentity::Name => fault(400, "userName is longer than 64 bytes"),
                },
            )?;
            Ok(Some(Claims {
                identity,
                expires_ms: 0,
                perms: Vec::new(),
            }))
        }
    }
}
