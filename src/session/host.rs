//! What a session may ask of the node that it lives on.

use std::collections::HashMap;
use std::net::IpAddr;

use super::ticket::Ticket;
use crate::inbox::records::Origin;
use crate::inbox::service::Request;
use crate::inbox::{Cursor, GroupError};
use crate::parts::time::Tick;
use crate::protocol::away::{DirectoryEntry, Elsewhere, Errand};
use crate::protocol::envelope::MessageId;
use crate::protocol::identity::Identity;
use crate::protocol::limits::Limit;
use crate::protocol::metadata::Metadata;
use crate::protocol::order::{Done, Fault, GroupView, Order};
use crate::protocol::outbound::SessionId;
use crate::protocol::upgrade::Refusal;
use crate::session::auth::TokenError;
use crate::session::rules::Rules;

/// The node as a session sees it. The reactor implements it, and a recorder in tests.
pub trait Host {
    /// Takes bytes for this peer, in order.
    fn out(&mut self) -> &mut Vec<u8>;
    fn message_id(&mut self) -> MessageId;
    /// A trusted proxy has said in front of the request for whom it speaks; none: for itself.
    fn proxied(&mut self, client: Option<IpAddr>);
    /// Whether the client's address may have one more connection. `forwarded_for`: the fields of
    /// that name, the last one last; they are believed from a trusted proxy only.
    fn admit(&mut self, forwarded_for: &[&str], now: Tick, rules: &Rules) -> Result<(), Refusal>;
    /// Keeps what the upgrade says of the connection until it is bound.
    fn arrive(&mut self, device: Option<&str>, metadata: Metadata, cursor: Option<Cursor>);
    /// Enters this connection in the roster, and closes those whose place it takes. The identity
    /// is then shared with equal ones, and the number tells apart sessions of one second.
    fn bind(&mut self, identity: Identity, binding: Binding<'_>) -> (Identity, u16);
    /// Replaces what the token allows.
    fn grant(&mut self, perms: Vec<String>);
    fn is_granted(&self, perm: &str) -> bool;
    fn rename(&mut self, identity: &Identity);
    /// Who comes online again attaches next.
    fn set_online(&mut self, session: SessionId<'_>, identity: &Identity, is_online: bool);
    fn unbind(&mut self, session: SessionId<'_>, identity: &Identity);
    /// This session's user code.
    fn user_code(&mut self, fingerprint: u64, identity: &Identity) -> String;
    /// Does what this session's user wants of others.
    fn carry_out<'a>(&mut self, order: &Order<'a>, speaker: Speaker<'_>)
    -> Result<Done<'a>, Fault>;
    /// Hands a request to the store; what comes of it comes back with `ticket`. False: the store
    /// takes nothing now.
    fn ask(&mut self, request: Request, ticket: Ticket) -> bool;
    /// Sends an errand to other nodes; what comes of it comes back with `ticket`. False: they are
    /// too far behind.
    fn send_away(&mut self, errand: Errand, ticket: Ticket) -> bool;
    /// Other nodes know where users are, and can be asked.
    fn has_directory(&self) -> bool;
    /// This session, as other nodes are to know it; none where there is no directory.
    fn entry(&self, session: SessionId<'_>, identity: &Identity) -> Option<Box<DirectoryEntry>>;
    /// Sessions that a user may have.
    fn sessions_max(&self) -> usize;
    /// The device of this connection.
    fn device(&self) -> String;
    /// This connection, as where a message comes from.
    fn origin(&self) -> Origin;
    /// The cursor that the client came with, until the store has heard it.
    fn cursor(&self) -> Option<Cursor>;
    fn set_cursor(&mut self, cursor: Option<Cursor>);
    /// Bytes that this peer is owed.
    fn owed(&self) -> usize;
    /// A group as its members see it. Those that are online are told if it was changed.
    fn group(
        &mut self,
        id: &str,
        members: &[String],
        is_change: bool,
        elsewhere: &HashMap<String, Vec<Elsewhere>>,
    ) -> GroupView;
    /// A group was not changed.
    fn group_refused(&mut self, error: &GroupError);
    fn is_draining(&self) -> bool;
    /// The reason of 1012 and 1013.
    fn come_back(&mut self) -> String;
    fn count(&mut self, event: Counted);
    /// A limit has struck.
    fn strike(&mut self, limit: Limit);
    /// A token was not good. The client hears no more than that; this is for the log.
    fn token_refused(&mut self, why: TokenError);
    /// Whether anybody is traced: if not, nothing need be told.
    fn is_tracing(&self) -> bool;
    /// Something happened to this session, told in a few words without any secret.
    fn trace(&mut self, session: SessionId<'_>, now_ms: u64, what: &'static str, detail: String);
}

/// What a connection is bound with.
pub struct Binding<'a> {
    /// Unix time.
    pub since_secs: u32,
    /// Named after the upgrade; none: what the upgrade said.
    pub device: Option<&'a str>,
    pub perms: Vec<String>,
    pub rules: &'a Rules,
}

/// Whose order it is.
#[derive(Clone, Copy)]
pub struct Speaker<'a> {
    pub identity: &'a Identity,
    pub request_id: Option<&'a str>,
    /// Unix milliseconds.
    pub now_ms: u64,
    pub rules: &'a Rules,
}

/// Events that only the session sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    Frame,
    Ping,
    Refusal(u16),
    Close(u16),
    Farewell,
    /// An entry of the inbox was sent.
    Delivery,
    /// An error that did not end the connection, by its code.
    Error(u16),
}
