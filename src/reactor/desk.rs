//! What a session's requests come to: the reactor's side of [`Host`].
//!
//! Owns: the bytes that one call into a session brought forth, and what only some connections
//! have: a device, metadata, permissions. The reactor takes the bytes when the call is over and
//! the session is no longer borrowed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Shared;
use super::courier::Courier;
use crate::command::{Bye, HeardBy, Letter, Parting, ReplyTo};
use crate::hub::post::{Carrier, Circumstances, Sender};
use crate::hub::roster::{Extra, Policy, Sessions};
use crate::hub::selectors::Selectors;
use crate::inbox::records::Origin;
use crate::inbox::service::Request;
use crate::inbox::{Cursor, GroupError};
use crate::parts::key::Key;
use crate::parts::time::Tick;
use crate::protocol::away::{DirectoryEntry, Elsewhere, Errand};
use crate::protocol::envelope::MessageId;
use crate::protocol::forwarded::client_of;
use crate::protocol::identity::Identity;
use crate::protocol::limits::{Limit, Limits};
use crate::protocol::metadata::{ANONYMOUS, Metadata};
use crate::protocol::order::{Done, Fault, GroupView, Order};
use crate::protocol::outbound;
use crate::protocol::upgrade::Refusal;
use crate::session::auth::TokenError;
use crate::session::host::{Binding, Counted, Host, Speaker};
use crate::session::rules::{Rules, SessionPolicy};
use crate::session::ticket::Ticket;

/// A surplus or drained client comes back after this long, and up to `RETRY_SPREAD_MS` later.
const RETRY_MS: u32 = 1000;
const RETRY_SPREAD_MS: u64 = 9000;
/// Who goes to another node need not wait for this one to restart.
const RETRY_ELSEWHERE_MS: u32 = 200;
const RETRY_SPREAD_MIN_MS: u64 = 1000;
/// Where the other nodes have no room for all of them, or there are many.
const RETRY_SPREAD_MAX_MS: u64 = 60_000;
/// Newcomers that the other nodes take in a second without being slow for those whom they have.
const NEWCOMERS_PER_SEC: u64 = 2000;

pub struct Desk {
    shared: Arc<Shared>,
    pub courier: Courier,
    /// Bytes for the connection whose session is running.
    pub out: Vec<u8>,
    /// Bytes that it is owed already.
    pub owed: usize,
    /// It entered the roster in this call.
    pub has_bound: bool,
    /// Whom it belonged to until it left the roster in this call, if a limit had struck before.
    pub struck_user: Option<Identity>,
    /// Its token was refused in this call.
    pub refused_token: Option<TokenError>,
    /// Sessions that lost their place and could not be told yet: their mailbox was full.
    pub byes: Vec<(Key, Bye)>,
    /// What some connections have beside their session.
    belongings: HashMap<Key, Belongings, RandomState>,
    pub selectors: Selectors,
    /// What the store is asked in this turn. They leave together: the store is woken once.
    pub letters: Vec<Letter>,
    /// Goodbyes for which the store had no room.
    pub unbinds: Vec<Request>,
}

#[derive(Default)]
struct Belongings {
    extra: Option<Arc<Extra>>,
    perms: Vec<String>,
    /// Until the store has heard it.
    cursor: Option<Cursor>,
    /// Kept where a proxy speaks for it, or limits by address are on.
    client: Option<Client>,
}

/// Who is at the other end, as far as addresses tell.
#[derive(Clone, Copy)]
struct Client {
    ip: IpAddr,
    /// The peer is a proxy that is believed.
    is_proxied: bool,
    /// It counts against the limits of its address, and as a stranger there.
    is_counted: bool,
    is_stranger: bool,
}

impl Desk {
    pub fn new(shared: Arc<Shared>, courier: Courier) -> Desk {
        Desk {
            shared,
            courier,
            out: Vec::new(),
            owed: 0,
            has_bound: false,
            struck_user: None,
            refused_token: None,
            byes: Vec::new(),
            belongings: HashMap::default(),
            selectors: Selectors::default(),
            letters: Vec::new(),
            unbinds: Vec::new(),
        }
    }

    /// The connection is gone, and so is all that it had.
    pub fn forget(&mut self, key: Key) {
        if self.belongings.is_empty() {
            return;
        }
        let Some(belongings) = self.belongings.remove(&key) else {
            return;
        };
        if let Some(extra) = belongings.extra {
            self.selectors.remove(key, &extra.metadata);
        }
        if let Some(client) = belongings.client.filter(|client| client.is_counted) {
            self.shared.addresses.leave(client.ip, client.is_stranger);
        }
        if self.belongings.is_empty() {
            self.belongings.shrink_to_fit();
        }
    }

    /// A newcomer's address, where it matters. Who speaks for itself is counted at once; whom a
    /// proxy speaks for is known with the request.
    pub fn meet(
        &mut self,
        key: Key,
        ip: IpAddr,
        is_proxied: bool,
        now: Tick,
        limits: &Limits,
    ) -> Result<(), Limit> {
        let mut client = Client {
            ip,
            is_proxied,
            is_counted: false,
            is_stranger: true,
        };
        if !is_proxied {
            self.shared.addresses.enter(ip, now, limits)?;
            client.is_counted = true;
        }
        self.belongings.entry(key).or_default().client = Some(client);
        Ok(())
    }

    /// The client's address, where a proxy has told it or it is counted.
    pub fn client_ip(&self, key: Key) -> Option<IpAddr> {
        Some(self.belongings.get(&key)?.client?.ip)
    }

    fn client(&mut self) -> Option<&mut Client> {
        self.belongings.get_mut(&self.courier.key)?.client.as_mut()
    }

    /// Tells those who lost their place, as far as their mailboxes have room.
    pub fn say_byes(&mut self) {
        self.shared.switchboard.close_all(&mut self.byes);
    }

    /// Tells the store of sessions that have ended, as far as it has room.
    pub fn say_unbinds(&mut self) {
        let room = self.shared.store.room().saturating_sub(self.letters.len());
        let said = self.unbinds.drain(..room.min(self.unbinds.len()));
        self.letters.extend(said.map(|request| Letter {
            request,
            reply: ReplyTo::Nobody,
        }));
    }

    fn unbind_everywhere(&mut self, session: outbound::SessionId<'_>, uid: &str) {
        if self.shared.post.has_directory() {
            self.unbinds.push(Request::Unbind {
                uid: uid.to_owned(),
                session: session.to_string(),
            });
            self.say_unbinds();
        }
    }

    fn close_replaced(&mut self, replaced: Sessions) {
        let byes = replaced.into_iter().map(|key| (key, Bye::Replaced));
        self.byes.extend(byes);
        self.say_byes();
    }

    /// What is known of the connection, with the device that it named after its upgrade.
    fn extra(&mut self, device: Option<&str>) -> Option<Arc<Extra>> {
        let key = self.courier.key;
        let known = self.belongings.get(&key).and_then(|of| of.extra.clone());
        if device.is_none() {
            return known;
        }
        let metadata = known.map_or_else(Metadata::default, |extra| extra.metadata.clone());
        let extra = Some(Arc::new(Extra {
            device: device.map(Box::from),
            metadata,
        }));
        self.belongings.entry(key).or_default().extra = extra.clone();
        extra
    }
}

impl Host for Desk {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn message_id(&mut self) -> MessageId {
        self.courier.ids.message_id()
    }

    fn proxied(&mut self, client: Option<IpAddr>) {
        if let Some(known) = self.client() {
            known.ip = client.unwrap_or(known.ip);
        }
    }

    fn admit(&mut self, forwarded_for: &[&str], now: Tick, rules: &Rules) -> Result<(), Refusal> {
        let addresses = &self.shared.addresses;
        let belongings = self.belongings.get_mut(&self.courier.key);
        let Some(client) = belongings.and_then(|of| of.client.as_mut()) else {
            return Ok(());
        };
        if client.is_proxied {
            let is_trusted = |ip: IpAddr| rules.trusts(ip);
            client.ip = client_of(forwarded_for.iter().copied(), client.ip, is_trusted);
        }
        if !client.is_counted && rules.limits.count_addresses() {
            let entered = addresses.enter(client.ip, now, &rules.limits);
            entered.map_err(Refusal::of_address)?;
            client.is_counted = true;
        }
        Ok(())
    }

    fn arrive(&mut self, device: Option<&str>, metadata: Metadata, cursor: Option<Cursor>) {
        let device = device.filter(|device| *device != ANONYMOUS).map(Box::from);
        let belongings = self.belongings.entry(self.courier.key).or_default();
        belongings.cursor = cursor;
        belongings.extra = Some(Arc::new(Extra { device, metadata }));
    }

    fn bind(&mut self, identity: Identity, binding: Binding<'_>) -> (Identity, u16) {
        let key = self.courier.key;
        let extra = self.extra(binding.device.filter(|device| *device != ANONYMOUS));
        if let Some(extra) = &extra {
            self.selectors.insert(key, &extra.metadata);
        }
        self.grant(binding.perms);
        let policy = Policy {
            is_single: binding.rules.session_policy == SessionPolicy::Single,
            sessions_max: binding.rules.limits.user_sessions_max,
        };
        let roster = &self.shared.post.roster;
        let bound = roster.bind(identity, key, binding.since_secs, extra, policy);
        if bound.is_one_too_many {
            self.strike(Limit::UserSessions);
        }
        if !bound.replaced.is_empty() {
            self.close_replaced(bound.replaced);
        }
        if let Some(client) = self.client()
            && client.is_counted
            && std::mem::take(&mut client.is_stranger)
        {
            let ip = client.ip;
            self.shared.addresses.known(ip);
        }
        self.courier.stats.bound.add(1);
        self.has_bound = true;
        (bound.identity, bound.ordinal)
    }

    fn grant(&mut self, perms: Vec<String>) {
        let key = self.courier.key;
        if !perms.is_empty() {
            self.belongings.entry(key).or_default().perms = perms;
        } else if let Some(belongings) = self.belongings.get_mut(&key) {
            belongings.perms = perms;
        }
    }

    fn is_granted(&self, perm: &str) -> bool {
        let belongings = self.belongings.get(&self.courier.key);
        belongings.is_some_and(|of| of.perms.iter().any(|granted| granted == perm))
    }

    fn rename(&mut self, identity: &Identity) {
        self.shared.post.roster.rename(identity, self.courier.key);
        if self.shared.post.has_directory() {
            let errand = Errand::Rename(identity.uid().to_owned());
            Carrier::send_away(&mut self.courier, errand);
        }
    }

    fn set_online(
        &mut self,
        session: outbound::SessionId<'_>,
        identity: &Identity,
        is_online: bool,
    ) {
        let roster = &self.shared.post.roster;
        roster.set_online(identity.uid(), self.courier.key, is_online);
        self.has_bound |= is_online;
        if !is_online {
            self.unbind_everywhere(session, identity.uid());
        }
    }

    fn unbind(&mut self, session: outbound::SessionId<'_>, identity: &Identity) {
        let key = self.courier.key;
        self.unbind_everywhere(session, identity.uid());
        if !self.courier.struck.is_empty() {
            // What struck is the end of the session, and the log names its user.
            self.struck_user = Some(identity.clone());
        }
        self.shared.post.roster.unbind(identity.uid(), key);
        let unwatched = self.shared.post.watches.forget(key);
        if self.shared.post.has_directory() && !unwatched.is_empty() {
            let uids = unwatched.iter().map(|uid| uid.to_string());
            Carrier::send_away(&mut self.courier, Errand::Watch(uids.collect()));
        }
        let bound = &self.courier.stats.bound;
        bound.set(bound.get() - 1);
    }

    fn user_code(&mut self, fingerprint: u64, identity: &Identity) -> String {
        let mut code = String::with_capacity(112);
        let codes = &self.shared.post.codes;
        let mark = self.shared.node.mark(self.courier.key);
        codes.write(fingerprint, mark, identity.uid(), &mut code);
        code
    }

    fn carry_out<'a>(
        &mut self,
        order: &Order<'a>,
        speaker: Speaker<'_>,
    ) -> Result<Done<'a>, Fault> {
        let sender = Sender {
            identity: speaker.identity,
            key: self.courier.key,
        };
        let cx = Circumstances {
            now_ms: speaker.now_ms,
            limits: &speaker.rules.limits,
            request_id: speaker.request_id,
        };
        let post = &self.shared.post;
        post.carry_out(order, sender, cx, &mut self.courier)
    }

    fn ask(&mut self, request: Request, ticket: Ticket) -> bool {
        // Nothing overtakes a goodbye.
        if !self.unbinds.is_empty() || self.letters.len() >= self.shared.store.room() {
            return false;
        }
        let reply = ReplyTo::Session {
            key: self.courier.key,
            ticket: Box::new(ticket),
        };
        self.letters.push(Letter { request, reply });
        true
    }

    fn send_away(&mut self, errand: Errand, ticket: Ticket) -> bool {
        let reply = HeardBy::Session {
            key: self.courier.key,
            ticket: Box::new(ticket),
        };
        self.courier.away.send(Parting { errand, reply }).is_ok()
    }

    fn has_directory(&self) -> bool {
        self.shared.post.has_directory()
    }

    fn entry(
        &self,
        session: outbound::SessionId<'_>,
        identity: &Identity,
    ) -> Option<Box<DirectoryEntry>> {
        let has_directory = self.shared.post.has_directory();
        has_directory.then(|| {
            Box::new(DirectoryEntry {
                session: session.to_string(),
                since_secs: session.since_secs,
                ordinal: session.ordinal,
                mark: self.shared.node.mark(self.courier.key),
                device: self.device(),
                uname: identity.name().to_owned(),
            })
        })
    }

    fn sessions_max(&self) -> usize {
        let others = self.shared.post.others.as_ref();
        others.map_or(usize::MAX, |others| others.sessions_max())
    }

    fn device(&self) -> String {
        let belongings = self.belongings.get(&self.courier.key);
        let extra = belongings.and_then(|of| of.extra.as_ref());
        let device = extra.and_then(|extra| extra.device.as_deref());
        device.unwrap_or(ANONYMOUS).to_owned()
    }

    fn origin(&self) -> Origin {
        Origin {
            device: self.device(),
            connection: self.shared.node.mark(self.courier.key),
        }
    }

    fn cursor(&self) -> Option<Cursor> {
        self.belongings.get(&self.courier.key)?.cursor
    }

    fn set_cursor(&mut self, cursor: Option<Cursor>) {
        if cursor.is_some() {
            self.belongings.entry(self.courier.key).or_default().cursor = cursor;
        } else if let Some(belongings) = self.belongings.get_mut(&self.courier.key) {
            belongings.cursor = None;
        }
    }

    fn owed(&self) -> usize {
        self.owed + self.out.len()
    }

    fn group(
        &mut self,
        id: &str,
        members: &[String],
        is_change: bool,
        elsewhere: &HashMap<String, Vec<Elsewhere>>,
    ) -> GroupView {
        let key = self.courier.key;
        let audience = is_change.then_some((members, Some(key)));
        let post = &self.shared.post;
        post.group(id, members, audience, elsewhere, &mut self.courier)
    }

    fn group_refused(&mut self, error: &GroupError) {
        match error {
            GroupError::Full => self.strike(Limit::GroupMembers),
            GroupError::TooMany(_) => self.strike(Limit::GroupsPerUser),
            _ => {}
        }
    }

    fn is_draining(&self) -> bool {
        self.shared.node.is_draining()
    }

    fn come_back(&mut self) -> String {
        let random = self.courier.ids.random();
        let node = &self.shared.node;
        let Some(others) = &self.shared.post.others else {
            let retry_ms = RETRY_MS + (random % RETRY_SPREAD_MS) as u32;
            return outbound::come_back(retry_ms, node.public_url.as_deref());
        };
        let (from_ms, spread_ms) = match node.is_draining() {
            // They are let go little by little, and all who are still here arrive elsewhere within
            // this time.
            true if others.room() >= node.connections() => {
                let arriving_ms = node.connections() as u64 * 1000 / NEWCOMERS_PER_SEC;
                let spread_ms = arriving_ms.clamp(RETRY_SPREAD_MIN_MS, RETRY_SPREAD_MAX_MS);
                (RETRY_ELSEWHERE_MS, spread_ms)
            }
            false if others.room() > 0 => (RETRY_ELSEWHERE_MS, RETRY_SPREAD_MS),
            _ => (RETRY_MS, RETRY_SPREAD_MAX_MS),
        };
        let retry_ms = from_ms + (random % spread_ms) as u32;
        let to = others.with_room(self.courier.ids.random());
        let to = to.and_then(|node| node.public_url);
        outbound::come_back(retry_ms, to.as_deref())
    }

    fn count(&mut self, event: Counted) {
        let stats = &self.courier.stats;
        match event {
            Counted::Frame => stats.frames_in.add(1),
            Counted::Ping => stats.pings.add(1),
            Counted::Refusal(status) => stats.count_refusal(status),
            Counted::Close(code) => stats.count_close(code),
            Counted::Error(code) => stats.count_error(code),
            Counted::Farewell => stats.farewells.add(1),
            Counted::Delivery => stats.deliveries.add(1),
        }
    }

    fn strike(&mut self, limit: Limit) {
        self.courier.note_strike(limit);
    }

    fn token_refused(&mut self, why: TokenError) {
        self.refused_token = Some(why);
    }

    fn is_tracing(&self) -> bool {
        self.shared.traces.is_active()
    }

    fn trace(
        &mut self,
        session: outbound::SessionId<'_>,
        now_ms: u64,
        what: &'static str,
        detail: String,
    ) {
        let traces = &self.shared.traces;
        traces.note(session.uid, now_ms, &session.to_string(), what, || detail);
    }
}
