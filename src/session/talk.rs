//! What a user whom we know asks for, and what is answered.

use super::host::{Counted, Host, Speaker};
use super::{Context, Phase, Session};
use crate::protocol::identity::is_id;
use crate::protocol::inbound::{About, Ask, Inbound};
use crate::protocol::order::{Deliveries, Done, Fault, Order};
use crate::protocol::outbound::{self, Receipt};

/// The permission that a token must grant for the route of the same name.
const PUSH: &str = "message/send";

const NOT_SERVED: Fault = Fault::new(404, "this is not served here");
const NOT_GRANTED: Fault = Fault::new(403, "the token does not grant this").because("permission");
const CODE_WITH_MSGID: Fault = Fault::new(400, "with a msgid, only user ids are receivers");

impl Session {
    /// A message of somebody whom we know.
    pub(super) fn act<H: Host>(&mut self, inbound: &Inbound<'_>, cx: &mut Context<'_, H>) {
        let about = &inbound.about;
        let now_ms = cx.now.wall_ms;
        let answer = match &inbound.ask {
            Ask::Heartbeat => {
                outbound::heartbeat(about, now_ms, cx.host.out());
                Ok(())
            }
            Ask::Connect(who) => self.reconnect(about, who, cx),
            Ask::Register { who, is_online } => self.register(who, *is_online, cx),
            Ask::Renew { token } => self.renew_token(about, *token, cx),
            Ask::Acknowledge => {
                outbound::ack_unknown(about, now_ms, cx.host.out());
                Ok(())
            }
            Ask::Order(order) => self.order(about, order, cx),
            Ask::Unknown => Err(NOT_SERVED),
        };
        if let Err(fault) = answer
            && self.phase == Phase::Open
        {
            self.fail(about, &fault, cx);
        }
    }

    /// Answers with an error, in the family of what it answers.
    pub(super) fn fail<H: Host>(
        &mut self,
        about: &About<'_>,
        fault: &Fault,
        cx: &mut Context<'_, H>,
    ) {
        cx.host.count(Counted::Error(fault.code));
        self.trace(cx, "error", || format!("{} {}", fault.code, fault.message));
        outbound::error(about, fault, cx.host.out());
    }

    /// Something that concerns others.
    fn order<H: Host>(
        &mut self,
        about: &About<'_>,
        order: &Order<'_>,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        match order {
            Order::Push { .. } if !cx.host.is_granted(PUSH) => return Err(NOT_GRANTED),
            Order::Send { to, .. } if about.msgid.is_some() && !to.iter().all(|id| is_id(id)) => {
                return Err(CODE_WITH_MSGID);
            }
            _ => {}
        }
        let speaker = Speaker {
            identity,
            is_online: self.is_online,
            request_id: about.request_id,
            now_ms: cx.now.wall_ms,
            rules: cx.rules,
        };
        match (cx.host.carry_out(order, speaker)?, order) {
            (Done::Sent(deliveries), Order::Send { to, msg }) => {
                return self.report(about, &deliveries, to.len(), msg, cx);
            }
            (Done::Accepted(message_id), Order::Chat { text, .. })
            | (Done::Accepted(message_id), Order::GroupChat { text, .. }) => {
                let receipt = Receipt {
                    now_ms: cx.now.wall_ms,
                    message_id,
                    message: text.message,
                    to_user: None,
                };
                outbound::receipt(about, &receipt, cx.host.out());
            }
            (Done::Group(view), _) => outbound::group_result(about, &view, cx.host.out()),
            (Done::Reply(reply), _) => outbound::route_reply(about, &reply, cx.host.out()),
            (Done::Sent(_) | Done::Accepted(_), _) => {}
        }
        Ok(())
    }

    /// Direct frames: receipts where a `msgid` asks for them, and errors for who was not reached.
    fn report<H: Host>(
        &mut self,
        about: &About<'_>,
        deliveries: &Deliveries<'_>,
        named: usize,
        message: &str,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        if about.msgid.is_some() {
            for (uid, message_id) in &deliveries.accepted {
                let receipt = Receipt {
                    now_ms: cx.now.wall_ms,
                    message_id: *message_id,
                    message,
                    to_user: (named > 1).then_some(uid),
                };
                outbound::receipt(about, &receipt, cx.host.out());
            }
        }
        if !deliveries.missing.is_empty() {
            let names = deliveries.missing.join(",");
            let fault = Fault::new(404, "").saying(format!("nobody is there: {names}"));
            self.fail(about, &fault, cx);
        }
        if deliveries.refused.is_empty() {
            Ok(())
        } else {
            let names = deliveries.refused.join(",");
            let fault = Fault::new(503, "").because("busy");
            Err(fault.saying(format!("the node is busy, not sent to: {names}")))
        }
    }

    /// Tells a trace of this user what happened, if there is one.
    pub(super) fn trace<H: Host>(
        &self,
        cx: &mut Context<'_, H>,
        what: &'static str,
        detail: impl FnOnce() -> String,
    ) {
        if cx.host.is_tracing()
            && let Some(session) = self.id(cx.rules)
        {
            cx.host.trace(session, cx.now.wall_ms, what, detail());
        }
    }
}
