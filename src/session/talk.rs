//! What a user whom we know asks for, and what is answered.

use std::collections::{HashMap, HashSet};

use super::host::{Counted, Host, Speaker};
use super::ticket::{Answering, Ticket, Wait};
use super::{Context, Phase, Session};
use crate::inbox::records::{Author, Entry, EntryBody, Text};
use crate::inbox::service::Request;
use crate::inbox::{Accept, GroupAccept, GroupChange};
use crate::protocol::away::{self, CLUSTER_DOWN, Elsewhere, Errand, Heard};
use crate::protocol::envelope::MessageId;
use crate::protocol::identity::{Identity, is_id};
use crate::protocol::inbound::{About, Ask, Inbound};
use crate::protocol::limits::Limit;
use crate::protocol::order::{
    ChatText, Deliveries, Done, Fault, FileType, GroupOrder, MSGID_BYTES_MAX, Order,
};
use crate::protocol::outbound;

/// The permission that a token must grant for the route of the same name.
const PUSH: &str = "message/send";

const NOT_SERVED: Fault = Fault::new(404, "this is not served here");
const NOT_GRANTED: Fault = Fault::new(403, "the token does not grant this").because("permission");
const NO_USER_ID: Fault = Fault::new(400, "toMessageId is not a user id");
const BAD_MSGID: Fault = Fault::new(400, "a msgid has 1 to 256 bytes");
const CLUSTER_BUSY: Fault =
    Fault::new(503, "the way to the other nodes is full, not sent there").because("busy");
const CODE_WITH_MSGID: Fault = Fault::new(400, "with a msgid, only user ids are receivers");

impl Session {
    /// A message of somebody whom we know.
    pub(super) fn act<H: Host>(&mut self, inbound: &Inbound<'_>, cx: &mut Context<'_, H>) {
        let about = &inbound.about;
        let now_ms = cx.now.wall_ms;
        let answer = match &inbound.ask {
            Ask::Heartbeat => {
                let head_seq = self.pump.place().map(|(_, head_seq)| head_seq);
                outbound::heartbeat(about, now_ms, head_seq, cx.host.out());
                Ok(())
            }
            Ask::Connect(who) => self.reconnect(about, who, cx),
            Ask::Register { who, is_online } => self.register(about, who, *is_online, cx),
            Ask::Renew { token } => self.renew_token(about, *token, cx),
            Ask::Acknowledge(got) => self.acknowledge(about, got, cx),
            Ask::Pull { after, limit } => self.pull(about, *after, *limit, cx),
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
        if about
            .msgid
            .is_some_and(|id| !(1..=MSGID_BYTES_MAX).contains(&id.len()))
        {
            return Err(BAD_MSGID);
        }
        if let Some((request, wait)) = self.for_store(about, order, identity, cx)? {
            return self.ask(about, request, wait, cx);
        }
        if matches!(order, Order::Push { .. }) && !cx.host.is_granted(PUSH) {
            return Err(NOT_GRANTED);
        }
        let speaker = Speaker {
            identity,
            request_id: about.request_id,
            now_ms: cx.now.wall_ms,
            rules: cx.rules,
        };
        match (cx.host.carry_out(order, speaker)?, order) {
            (Done::Sent(deliveries), _) => return self.report(about, deliveries, cx),
            (Done::Away(errand, unheard), _) => {
                return self.send_away(about, errand, Wait::Others(*unheard), cx);
            }
            (Done::Reply(reply), _) => outbound::route_reply(about, &reply, cx.host.out()),
            (Done::Push(push), _) => {
                let to = push.to.clone();
                let request = Request::of_push(*push, cx.now.wall_ms, || cx.host.message_id());
                return self.ask(about, request, Wait::Push { to }, cx);
            }
        }
        Ok(())
    }

    /// What the store is to do for an order, if it is one for the store.
    fn for_store<H: Host>(
        &self,
        about: &About<'_>,
        order: &Order<'_>,
        identity: &Identity,
        cx: &mut Context<'_, H>,
    ) -> Result<Option<(Request, Wait)>, Fault> {
        let now_ms = cx.now.wall_ms;
        let sender = identity.uid().to_owned();
        let author = || Author {
            name: identity.name().to_owned(),
            is_online: self.is_online,
        };
        let entry = |id: MessageId, body| Entry {
            id: id.at(now_ms),
            at_ms: now_ms,
            from: identity.uid().to_owned(),
            request_id: about.request_id.map(str::to_owned),
            is_http: false,
            body,
        };
        let msgid = || about.msgid.map(str::to_owned);
        Ok(Some(match order {
            Order::Chat { to, .. } if !is_id(to) => return Err(NO_USER_ID),
            Order::Chat { to, text } => {
                let body = EntryBody::Chat {
                    from: author(),
                    text: kept(text),
                };
                let accept = Accept {
                    to: (*to).to_owned(),
                    sender,
                    msgid: msgid(),
                    entry: entry(cx.host.message_id(), body),
                };
                let message = text.message.to_owned();
                (Request::Accept(Box::new(accept)), Wait::Chat { message })
            }
            Order::GroupChat { group, text } => {
                let body = EntryBody::GroupChat {
                    from: author(),
                    group: (*group).to_owned(),
                    text: kept(text),
                };
                let accept = GroupAccept {
                    group: (*group).to_owned(),
                    sender,
                    msgid: msgid(),
                    entry: entry(cx.host.message_id(), body),
                    origin: Some(cx.host.origin()),
                };
                let message = text.message.to_owned();
                let request = Request::AcceptForGroup(Box::new(accept));
                (request, Wait::Chat { message })
            }
            Order::Send { to, msg } if about.msgid.is_some() => {
                if !to.iter().all(|id| is_id(id)) {
                    return Err(CODE_WITH_MSGID);
                }
                if to.len() > cx.rules.limits.targets_max {
                    cx.host.strike(Limit::Targets);
                    let max = cx.rules.limits.targets_max;
                    let words = format!("more than {max} users are named");
                    return Err(Fault::new(400, "").saying(words));
                }
                let mut seen = HashSet::new();
                let targets: Vec<String> = to
                    .iter()
                    .filter(|uid| seen.insert(**uid))
                    .map(|uid| (*uid).to_owned())
                    .collect();
                let accepts = targets.iter().map(|uid| {
                    let msg = (*msg).to_owned();
                    Accept {
                        to: uid.clone(),
                        sender: sender.clone(),
                        msgid: msgid(),
                        entry: entry(cx.host.message_id(), EntryBody::Raw { msg }),
                    }
                });
                let request = Request::AcceptAll(accepts.collect());
                let message = (*msg).to_owned();
                (
                    request,
                    Wait::Send {
                        to: targets,
                        message,
                    },
                )
            }
            Order::Group(order) => {
                let (id, change) = match order {
                    GroupOrder::Create { id, members } => (
                        id,
                        GroupChange::Create {
                            members: owned(members),
                        },
                    ),
                    GroupOrder::Join { id, members } => (
                        id,
                        GroupChange::Join {
                            members: owned(members),
                        },
                    ),
                    GroupOrder::Leave { id } => (
                        id,
                        GroupChange::Leave {
                            uid: sender.clone(),
                        },
                    ),
                    GroupOrder::Members { id } => (id, GroupChange::Look),
                };
                let is_change = change != GroupChange::Look;
                let id = (*id).to_owned();
                let request = Request::Group {
                    id: id.clone(),
                    by: Some(sender),
                    change,
                    rules: cx.rules.group_rules(),
                };
                (request, Wait::Group { id, is_change })
            }
            Order::Send { .. } | Order::Online { .. } | Order::Push { .. } => return Ok(None),
        }))
    }

    /// Direct frames that are not stored: errors for who was not reached.
    fn report<H: Host>(
        &mut self,
        about: &About<'_>,
        deliveries: Deliveries<'_>,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        let Deliveries {
            missing,
            refused,
            away,
            ..
        } = deliveries;
        self.report_missing(about, &missing, cx);
        if !refused.is_empty() {
            let fault = Fault::new(503, "").because("busy");
            let names = refused.join(",");
            let fault = fault.saying(format!("the node is busy, not sent to: {names}"));
            self.fail(about, &fault, cx);
        }
        if away.is_empty() {
            return Ok(());
        }
        let (parcels, missing) = away
            .into_iter()
            .map(|(parcel, missing)| (parcel, missing.map(str::to_owned)))
            .unzip();
        self.send_away(about, Errand::Carry(parcels), Wait::Carried { missing }, cx)
    }

    fn report_missing<H: Host>(
        &mut self,
        about: &About<'_>,
        missing: &[&str],
        cx: &mut Context<'_, H>,
    ) {
        if !missing.is_empty() {
            let names = missing.join(",");
            let fault = Fault::new(404, "").saying(format!("nobody is there: {names}"));
            self.fail(about, &fault, cx);
        }
    }

    fn send_away<H: Host>(
        &mut self,
        about: &About<'_>,
        errand: Errand,
        wait: Wait,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        let to = Answering::from(about);
        if cx.host.send_away(errand, Ticket { to, wait }) {
            Ok(())
        } else {
            Err(CLUSTER_BUSY)
        }
    }

    /// What came of an errand to other nodes.
    pub fn heard<H: Host>(&mut self, ticket: Ticket, heard: Heard, cx: &mut Context<'_, H>) {
        if self.phase != Phase::Open {
            return;
        }
        let about = ticket.to.about();
        match (ticket.wait, heard) {
            (Wait::Carried { missing }, Heard::Carried(was_there)) => {
                let names = missing.iter().zip(was_there);
                let names: Vec<&str> = names
                    .filter(|(_, was_there)| !was_there)
                    .filter_map(|(name, _)| name.as_deref())
                    .collect();
                self.report_missing(&about, &names, cx);
            }
            // Those who are here as well have it.
            (Wait::Carried { missing }, _) if missing.iter().all(Option::is_none) => {}
            (Wait::Others(unheard), heard) => {
                outbound::route_reply(&about, &unheard.reply(heard), cx.host.out());
            }
            (
                Wait::Members {
                    id,
                    members,
                    is_change,
                },
                heard,
            ) => {
                let elsewhere = match heard {
                    Heard::Found(found) => away::by_user(&members, found),
                    _ => HashMap::new(),
                };
                self.show_group(&about, &id, &members, is_change, &elsewhere, cx);
            }
            _ => self.fail(&about, &CLUSTER_DOWN, cx),
        }
    }

    /// A group was changed or looked at: whoever asked sees it, and the other members do where
    /// it has changed.
    pub(super) fn group<H: Host>(
        &mut self,
        about: &About<'_>,
        id: String,
        members: Vec<String>,
        is_change: bool,
        cx: &mut Context<'_, H>,
    ) {
        let nowhere = HashMap::new();
        if !cx.host.has_directory() {
            return self.show_group(about, &id, &members, is_change, &nowhere, cx);
        }
        let errand = Errand::Find(members.clone());
        let wait = Wait::Members {
            id: id.clone(),
            members: members.clone(),
            is_change,
        };
        if self.send_away(about, errand, wait, cx).is_err() {
            self.show_group(about, &id, &members, is_change, &nowhere, cx);
        }
    }

    fn show_group<H: Host>(
        &mut self,
        about: &About<'_>,
        id: &str,
        members: &[String],
        is_change: bool,
        elsewhere: &HashMap<String, Vec<Elsewhere>>,
        cx: &mut Context<'_, H>,
    ) {
        let view = cx.host.group(id, members, is_change, elsewhere);
        outbound::group_result(about, &view, cx.host.out());
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

fn kept(text: &ChatText<'_>) -> Text {
    Text {
        message: text.message.to_owned(),
        file_type: match text.file_type {
            FileType::Number(number) => number.to_string(),
            FileType::Text(text) => text.to_owned(),
        },
    }
}

fn owned(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}
