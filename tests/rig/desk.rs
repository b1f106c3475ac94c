//! The node as a session sees it: the reactor's desk, without a reactor.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use throng::hub::code::UserCodes;
use throng::hub::node::Node;
use throng::hub::post::{self, Carrier, Circumstances, Jammed, Post, Selector, Sender};
use throng::hub::roster::{Extra, OnPresence, Policy, Roster};
use throng::hub::selectors::Selectors;
use throng::hub::watches::Watches;
use throng::inbox::records::Origin;
use throng::inbox::service::Request;
use throng::inbox::{Cursor, GroupError};
use throng::parts::key::Key;
use throng::parts::time::Tick;
use throng::protocol::away::{DirectoryEntry, Elsewhere, Errand};
use throng::protocol::envelope::{Head, MessageId};
use throng::protocol::identity::Identity;
use throng::protocol::limits::Limit;
use throng::protocol::metadata::{ANONYMOUS, Metadata};
use throng::protocol::order::{Done, Fault, GroupView, Order};
use throng::protocol::outbound::{self, SessionId};
use throng::protocol::upgrade::Refusal;
use throng::session::auth::TokenError;
use throng::session::host::{Binding, Counted, Host, Speaker};
use throng::session::rules::{Rules, SessionPolicy};
use throng::session::ticket::{Answering, Ticket, Wait};

use super::store::Store;

pub struct Desk {
    pub post: Post,
    pub courier: Courier,
    /// Bytes for the connection whose session is running.
    pub out: Vec<u8>,
    pub is_draining: bool,
    pub counted: Vec<Counted>,
    /// Sessions whose place was taken, to be closed when the call is over.
    pub replaced: Vec<Key>,
    pub selectors: Selectors,
    /// For whom proxies said that they speak.
    pub proxied: Vec<Option<IpAddr>>,
    pub store: Store,
    /// Why tokens were refused.
    pub refused_tokens: Vec<TokenError>,
    /// What a trace of everybody shows, once it is on.
    pub is_tracing: bool,
    pub traced: Vec<(&'static str, String)>,
    /// Different for each node whose rows are kept in one store: see [`Desk::mark`].
    pub life: u64,
    /// Goodbyes that the store has no room for.
    unbinds: Vec<Request>,
    belongings: HashMap<Key, Belongings>,
    told: Told,
}

/// What watchers are told, in its order.
type Told = Arc<Mutex<Vec<(Key, Vec<u8>)>>>;

/// What some connections have beside their session.
#[derive(Default)]
struct Belongings {
    extra: Option<Arc<Extra>>,
    perms: Vec<String>,
    cursor: Option<Cursor>,
}

/// Writes down what is brought to others.
pub struct Courier {
    /// The connection whose session is running.
    pub key: Key,
    /// Messages for others, in the order in which they were sent.
    pub mail: Vec<(Key, Head, Vec<u8>)>,
    /// Frames for everybody.
    pub broadcasts: Vec<(Vec<u8>, Option<Selector>)>,
    /// The way to everybody is full.
    pub is_jammed: bool,
    pub struck: Vec<Limit>,
    /// The last id that was given to a message.
    pub next_id: u128,
}

impl Default for Desk {
    fn default() -> Desk {
        let node = Node::new("10.0.0.7:8084".into(), "ws://x".into(), None, 100);
        let (watches, told) = (Arc::new(Watches::default()), Told::default());
        let on_presence = teller(watches.clone(), told.clone());
        Desk {
            post: Post {
                roster: Roster::default().observed_by(on_presence),
                watches,
                codes: UserCodes::new(&[7; 32]),
                node: Arc::new(node),
                others: None,
            },
            courier: Courier {
                key: Key::new(0, 0, 0),
                mail: Vec::new(),
                broadcasts: Vec::new(),
                is_jammed: false,
                struck: Vec::new(),
                next_id: 0,
            },
            out: Vec::new(),
            is_draining: false,
            counted: Vec::new(),
            replaced: Vec::new(),
            selectors: Selectors::default(),
            proxied: Vec::new(),
            store: Store::default(),
            refused_tokens: Vec::new(),
            is_tracing: false,
            traced: Vec::new(),
            life: 0,
            unbinds: Vec::new(),
            belongings: HashMap::new(),
            told,
        }
    }
}

fn teller(watches: Arc<Watches>, told: Told) -> OnPresence {
    Arc::new(move |uid, is_online| {
        let mut tail = Vec::new();
        post::write_presence(uid, is_online, MessageId([9; 16]), 0, &mut tail);
        let watchers = watches.watchers(uid);
        let mut told = told.lock().unwrap();
        told.extend(watchers.into_iter().map(|key| (key, tail.clone())));
    })
}

impl Desk {
    /// What watchers are told and were not yet.
    pub fn notices(&mut self) -> Vec<(Key, Vec<u8>)> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    /// What a connection is called in rows that several nodes share. A node draws what tells it
    /// from others; here it is set, so that a seed decides all.
    pub fn mark(&self, key: Key) -> u64 {
        key.bits() ^ self.life
    }

    /// Tells the store of sessions that have ended, if it takes anything.
    pub fn say_unbinds(&mut self) {
        while let Some(request) = self.unbinds.first() {
            let ticket = Ticket {
                to: Answering::nobody(),
                wait: Wait::Passed,
            };
            if !self.store.ask(self.courier.key, request.clone(), ticket) {
                return;
            }
            self.unbinds.remove(0);
        }
    }

    fn unbind_everywhere(&mut self, session: SessionId<'_>, uid: &str) {
        if self.post.has_directory() {
            self.unbinds.push(Request::Unbind {
                uid: uid.to_owned(),
                session: session.to_string(),
            });
            self.say_unbinds();
        }
    }

    /// The connection is gone, and so is all that it had.
    pub fn forget(&mut self, key: Key) {
        if let Some(extra) = self.belongings.remove(&key).and_then(|of| of.extra) {
            self.selectors.remove(key, &extra.metadata);
        }
    }
}

impl Carrier for Courier {
    fn message_id(&mut self) -> MessageId {
        // Counted, not drawn as a node does it: the bit that tells a notice from its message is
        // left alone.
        self.next_id += 1;
        self.next_id += self.next_id & 0x80;
        MessageId(self.next_id.to_be_bytes())
    }

    fn carry(
        &mut self,
        to: &[Key],
        head: Head,
        write: &dyn Fn(&mut Vec<u8>),
    ) -> Result<(), Jammed> {
        if self.is_jammed {
            return Err(Jammed);
        }
        let mut tail = Vec::new();
        write(&mut tail);
        self.mail
            .extend(to.iter().map(|key| (*key, head, tail.clone())));
        Ok(())
    }

    fn broadcast(&mut self, frame: Vec<u8>, selector: Option<Selector>) -> Result<(), Jammed> {
        if self.is_jammed {
            return Err(Jammed);
        }
        self.broadcasts.push((frame, selector));
        Ok(())
    }

    fn send_away(&mut self, _: Errand) {}

    fn strike(&mut self, limit: Limit) {
        self.struck.push(limit);
    }
}

impl Host for Desk {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn message_id(&mut self) -> MessageId {
        self.courier.message_id()
    }

    fn proxied(&mut self, client: Option<IpAddr>) {
        self.proxied.push(client);
    }

    fn admit(&mut self, _: &[&str], _: Tick, _: &Rules) -> Result<(), Refusal> {
        Ok(())
    }

    fn arrive(&mut self, device: Option<&str>, metadata: Metadata, cursor: Option<Cursor>) {
        let device = device.map(Box::from);
        let belongings = self.belongings.entry(self.courier.key).or_default();
        belongings.extra = Some(Arc::new(Extra { device, metadata }));
        belongings.cursor = cursor;
    }

    fn bind(&mut self, identity: Identity, binding: Binding<'_>) -> (Identity, u16) {
        let key = self.courier.key;
        let belongings = self.belongings.entry(key).or_default();
        if let Some(device) = binding.device {
            let known = belongings.extra.take();
            belongings.extra = Some(Arc::new(Extra {
                device: Some(device.into()),
                metadata: known.map_or_else(Metadata::default, |known| known.metadata.clone()),
            }));
        }
        if let Some(extra) = &belongings.extra {
            self.selectors.insert(key, &extra.metadata);
        }
        belongings.perms = binding.perms;
        let policy = Policy {
            is_single: binding.rules.session_policy == SessionPolicy::Single,
            sessions_max: binding.rules.limits.user_sessions_max,
        };
        let extra = belongings.extra.clone();
        let roster = &self.post.roster;
        let bound = roster.bind(identity, key, binding.since_secs, extra, policy);
        self.replaced.extend(bound.replaced);
        (bound.identity, bound.ordinal)
    }

    fn grant(&mut self, perms: Vec<String>) {
        self.belongings.entry(self.courier.key).or_default().perms = perms;
    }

    fn is_granted(&self, perm: &str) -> bool {
        let belongings = self.belongings.get(&self.courier.key);
        belongings.is_some_and(|of| of.perms.iter().any(|granted| granted == perm))
    }

    fn rename(&mut self, identity: &Identity) {
        self.post.roster.rename(identity, self.courier.key);
    }

    fn set_online(&mut self, session: SessionId<'_>, identity: &Identity, is_online: bool) {
        let roster = &self.post.roster;
        roster.set_online(identity.uid(), self.courier.key, is_online);
        if !is_online {
            self.unbind_everywhere(session, identity.uid());
        }
    }

    fn unbind(&mut self, session: SessionId<'_>, identity: &Identity) {
        self.unbind_everywhere(session, identity.uid());
        self.post.roster.unbind(identity.uid(), self.courier.key);
        self.post.watches.forget(self.courier.key);
    }

    fn user_code(&mut self, fingerprint: u64, identity: &Identity) -> String {
        let mut code = String::new();
        let codes = &self.post.codes;
        let mark = self.post.node.mark(self.courier.key);
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
        self.post.carry_out(order, sender, cx, &mut self.courier)
    }

    fn ask(&mut self, request: Request, ticket: Ticket) -> bool {
        // Nothing overtakes a goodbye.
        self.unbinds.is_empty() && self.store.ask(self.courier.key, request, ticket)
    }

    fn send_away(&mut self, _: Errand, _: Ticket) -> bool {
        false
    }

    fn has_directory(&self) -> bool {
        self.post.has_directory()
    }

    fn entry(&self, session: SessionId<'_>, who: &Identity) -> Option<Box<DirectoryEntry>> {
        self.has_directory().then(|| {
            Box::new(DirectoryEntry {
                session: session.to_string(),
                since_secs: session.since_secs,
                ordinal: session.ordinal,
                mark: self.mark(self.courier.key),
                device: self.device(),
                uname: who.name().to_owned(),
            })
        })
    }

    fn sessions_max(&self) -> usize {
        let others = self.post.others.as_ref();
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
            connection: self.mark(self.courier.key),
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
        self.out.len()
    }

    fn group(
        &mut self,
        id: &str,
        members: &[String],
        is_change: bool,
        elsewhere: &HashMap<String, Vec<Elsewhere>>,
    ) -> GroupView {
        let audience = is_change.then_some((members, Some(self.courier.key)));
        self.post
            .group(id, members, audience, elsewhere, &mut self.courier)
    }

    fn group_refused(&mut self, error: &GroupError) {
        match error {
            GroupError::Full => self.strike(Limit::GroupMembers),
            GroupError::TooMany(_) => self.strike(Limit::GroupsPerUser),
            _ => {}
        }
    }

    fn is_draining(&self) -> bool {
        self.is_draining
    }

    fn come_back(&mut self) -> String {
        outbound::come_back(2250, Some("wss://ws2.example.org/websocket"))
    }

    fn count(&mut self, event: Counted) {
        self.counted.push(event);
    }

    fn strike(&mut self, limit: Limit) {
        self.courier.struck.push(limit);
    }

    fn token_refused(&mut self, why: TokenError) {
        self.refused_tokens.push(why);
    }

    fn is_tracing(&self) -> bool {
        self.is_tracing
    }

    fn trace(&mut self, _: SessionId<'_>, _: u64, what: &'static str, detail: String) {
        self.traced.push((what, detail));
    }
}
