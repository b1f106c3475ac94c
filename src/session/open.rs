//! An open session: from bytes to frames, and from frames to messages.

use super::host::{Counted, Host};
use super::meter::Pace;
use super::{Context, Phase, Session};
use crate::parts::time::Tick;
use crate::protocol::assembler::{Bounds, Event, Input, PADDING};
use crate::protocol::close;
use crate::protocol::frame::{self, Opcode};
use crate::protocol::inbound::{self, Scratch};
use crate::protocol::limits::{Limit, Limits};
use crate::protocol::order::Fault;
use crate::protocol::violation::Violation;

const TOO_MANY: Fault = Fault::new(429, "too many messages");

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
            Ok(None) if input.at < filled => Err(Violation::LongIntroduction),
            Err(Violation::TooBig) => Err(Violation::LongIntroduction),
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
                    let code = code.unwrap_or(1000);
                    cx.host.count(Counted::Close(code));
                    self.trace(cx, "closed", || format!("{code} by the client"));
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
        } else {
            self.pong(payload, cx);
        }
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
        if let Pace::Flood(limit) = pace {
            let violation = match limit {
                Limit::Bytes => Violation::ByteRate,
                _ => Violation::Rate,
            };
            return self.violate(violation, cx);
        }
        match inbound::parse(scratch, buffer, length) {
            Ok(inbound) => {
                self.trace(cx, "message", || inbound.name(length));
                if let Pace::Over(limit) = pace {
                    cx.host.strike(limit);
                    self.fail(&inbound.about, &TOO_MANY, cx);
                } else if self.identity.is_some() {
                    self.act(&inbound, cx);
                } else {
                    self.act_unknown(&inbound, cx);
                }
            }
            Err(malformed) => {
                if malformed.is_too_deep {
                    cx.host.strike(Limit::JsonDepth);
                }
                self.fail(&malformed.about, &Fault::new(400, malformed.why), cx);
                self.strike(Violation::Malformed, cx);
            }
        }
    }

    /// A fault that is forgiven twice.
    pub(super) fn strike<H: Host>(&mut self, violation: Violation, cx: &mut Context<'_, H>) {
        self.strikes = self.strikes.saturating_add(1);
        if self.strikes >= cx.rules.limits.strikes_max {
            self.violate(violation, cx);
        }
    }
}
