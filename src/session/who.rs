//! Who a session belongs to: from the first word about it to the last.

use super::auth::{self, Auth, Claims};
use super::flow::BAD_CURSOR;
use super::host::{Binding, Host};
use super::ticket::{Answering, Greeting, Then};
use super::{Context, Session};
use crate::inbox::Cursor;
use crate::protocol::identity::{BadIdentity, Identity};
use crate::protocol::inbound::{About, Ask, Credentials, Inbound};
use crate::protocol::limits::Limit;
use crate::protocol::metadata::is_device;
use crate::protocol::order::{Fault, Reply};
use crate::protocol::outbound;
use crate::protocol::upgrade::{Refusal, Request};
use crate::protocol::violation::Violation;

const AUTHENTICATE_FIRST: Fault = Fault::new(401, "authenticate first");
const FOREIGN_OPENID: Fault = Fault::new(403, "openid is not the token's user");
const SECOND_IDENTITY: Fault = Fault::new(403, "this connection belongs to another user");
const LONG_NAME: Fault = Fault::new(400, "userName is too long");
const BAD_DEVICE: Fault = Fault::new(400, "device is not 1 to 64 of [A-Za-z0-9_.-]");

/// Whom a connection is bound to, and how that was proven.
pub(super) struct Proof {
    claims: Claims,
    /// Tells this token from others of the same user.
    fingerprint: u64,
}

/// Who asks for an upgrade; none if the request does not say.
pub(super) fn of_request<H: Host>(
    request: &Request<'_>,
    cx: &mut Context<'_, H>,
) -> Result<Option<Proof>, Refusal> {
    let claims = match &*cx.rules.auth {
        Auth::None => {
            let Some(openid) = request.parameter("openid") else {
                return Ok(None);
            };
            let identity = Identity::new(&openid, "").map_err(|_| Refusal::BAD_OPENID)?;
            return Ok(Some(Proof::of(identity)));
        }
        auth => match request.token() {
            None => return Ok(None),
            Some(token) => auth
                .verify(&token, cx.now.wall_ms)
                .map(|claims| Proof {
                    claims,
                    fingerprint: auth::fingerprint(&token),
                })
                .map_err(|why| {
                    cx.host.token_refused(why);
                    Refusal::BAD_TOKEN
                })?,
        },
    };
    if claims.claims.identity.name().len() > cx.rules.limits.name_bytes_max {
        cx.host.strike(Limit::Name);
        return Err(Refusal::BAD_TOKEN);
    }
    Ok(Some(claims))
}

/// Who a message says it comes from, proven as the node's mode asks; none if it does not say.
fn of_message<H: Host>(
    who: &Credentials<'_>,
    cx: &mut Context<'_, H>,
) -> Result<Option<Proof>, Fault> {
    if who.device.is_some_and(|device| !is_device(device)) {
        return Err(BAD_DEVICE);
    }
    cursor_of(who)?;
    let proof = match &*cx.rules.auth {
        Auth::None => {
            let Some(openid) = who.openid else {
                return Ok(None);
            };
            let name = who.name.unwrap_or_default();
            let identity = Identity::new(openid, name).map_err(|error| match error {
                BadIdentity::Id => Fault::new(400, "openid is not a user id"),
                BadIdentity::Name => LONG_NAME,
            })?;
            Proof::of(identity)
        }
        auth => {
            let Some(token) = who.token else {
                return Ok(None);
            };
            let claims = auth.verify(token, cx.now.wall_ms);
            let claims = claims.map_err(|why| {
                cx.host.token_refused(why);
                Fault::new(401, "the token is refused")
            });
            Proof {
                claims: claims?,
                fingerprint: auth::fingerprint(token),
            }
        }
    };
    check_name(proof.claims.identity.name(), cx)?;
    Ok(Some(proof))
}

fn check_name<H: Host>(name: &str, cx: &mut Context<'_, H>) -> Result<(), Fault> {
    if name.len() <= cx.rules.limits.name_bytes_max {
        return Ok(());
    }
    cx.host.strike(Limit::Name);
    Err(LONG_NAME)
}

impl Proof {
    /// Nobody's word but the client's.
    fn of(identity: Identity) -> Proof {
        Proof {
            claims: Claims {
                identity,
                expires_ms: 0,
                perms: Vec::new(),
            },
            fingerprint: 0,
        }
    }
}

impl Session {
    /// A message of somebody whom we do not know yet.
    pub(super) fn act_unknown<H: Host>(&mut self, inbound: &Inbound<'_>, cx: &mut Context<'_, H>) {
        let about = &inbound.about;
        let (who, is_online) = match &inbound.ask {
            Ask::Heartbeat => {
                return outbound::heartbeat(about, cx.now.wall_ms, None, cx.host.out());
            }
            Ask::Connect(who) => (who, true),
            Ask::Register { who, is_online } => (who, *is_online),
            _ => return self.refuse_unknown(about, AUTHENTICATE_FIRST, cx),
        };
        let proof = match of_message(who, cx) {
            Ok(Some(proof)) if !is_openid(who, proof.claims.identity.uid()) => {
                return self.refuse_unknown(about, FOREIGN_OPENID, cx);
            }
            Ok(Some(proof)) => proof,
            Ok(None) => return self.refuse_unknown(about, AUTHENTICATE_FIRST, cx),
            Err(fault) if fault.code == 401 => {
                self.fail(about, &fault, cx);
                return self.violate(Violation::TokenBad, cx);
            }
            Err(fault) => return self.refuse_unknown(about, fault, cx),
        };
        let fingerprint = self.bind(proof, who.device, cx);
        let named = self.set_name(who.name, cx);
        let (cursor, then) = match (named.and(cursor_of(who)), &inbound.ask) {
            (Err(fault), _) => (None, Then::Refused(fault)),
            (Ok(cursor), Ask::Register { .. }) => (cursor, Then::Registered),
            (Ok(cursor), _) => (cursor, Then::Connected),
        };
        let greeting = Greeting::Due(fingerprint);
        self.attach(greeting, cursor, Answering::from(about), then, cx);
        if !is_online {
            self.set_online(false, cx);
        }
    }

    fn refuse_unknown<H: Host>(
        &mut self,
        about: &About<'_>,
        fault: Fault,
        cx: &mut Context<'_, H>,
    ) {
        self.fail(about, &fault, cx);
        self.strike(Violation::Unauthenticated, cx);
    }

    /// The identity is known: into the roster. Returns what tells the token apart.
    pub(super) fn bind<H: Host>(
        &mut self,
        proof: Proof,
        device: Option<&str>,
        cx: &mut Context<'_, H>,
    ) -> u64 {
        let Proof {
            claims,
            fingerprint,
        } = proof;
        self.expires_secs = to_secs(claims.expires_ms);
        self.since_secs = cx.now.wall_secs();
        self.strikes = 0;
        let binding = Binding {
            since_secs: self.since_secs,
            device,
            perms: claims.perms,
            rules: cx.rules,
        };
        let (identity, ordinal) = cx.host.bind(claims.identity, binding);
        self.ordinal = ordinal;
        self.is_online = true;
        self.identity = Some(identity);
        self.trace(cx, "bound", String::new);
        fingerprint
    }

    /// The connected notice.
    pub(super) fn greet<H: Host>(&mut self, fingerprint: u64, cx: &mut Context<'_, H>) {
        let (Some(identity), Some(session)) = (&self.identity, self.id(cx.rules)) else {
            return;
        };
        let code = cx.host.user_code(fingerprint, identity);
        let id = cx.host.message_id();
        let (now_ms, place) = (cx.now.wall_ms, self.pump.place());
        outbound::connected(session, identity, &code, id, now_ms, place, cx.host.out());
    }

    /// `connet` on a session that is bound: a newer token, another name, and online again.
    pub(super) fn reconnect<H: Host>(
        &mut self,
        about: &About<'_>,
        who: &Credentials<'_>,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        self.renew(who, cx)?;
        self.set_name(who.name, cx)?;
        if let Some(cursor) = cursor_of(who)? {
            self.pass_up_to(cursor, cx)?;
        }
        self.come_or_go(about, true, Then::Connected, cx);
        Ok(())
    }

    /// Type 7 on a session that is bound.
    pub(super) fn register<H: Host>(
        &mut self,
        about: &About<'_>,
        who: &Credentials<'_>,
        is_online: bool,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        self.renew(who, cx)?;
        self.set_status(about, who.name, is_online, cx)
    }

    /// `token/renew`: until when this connection may live.
    pub(super) fn renew_token<H: Host>(
        &mut self,
        about: &About<'_>,
        token: Option<&str>,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        if matches!(&*cx.rules.auth, Auth::None) {
            return Err(Fault::new(400, "this node asks for no tokens"));
        }
        let who = Credentials {
            token: Some(token.ok_or(Fault::new(400, "token is missing"))?),
            ..Credentials::default()
        };
        self.renew(&who, cx)?;
        let expires_at = u64::from(self.expires_secs) * 1000;
        let reply = Reply::ok(serde_json::json!({ "expiresAt": expires_at }));
        outbound::route_reply(about, &reply, cx.host.out());
        Ok(())
    }

    /// Name and status, and type 8.
    fn set_status<H: Host>(
        &mut self,
        about: &About<'_>,
        name: Option<&str>,
        is_online: bool,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        self.set_name(name, cx)?;
        self.come_or_go(about, is_online, Then::Registered, cx);
        Ok(())
    }

    fn set_name<H: Host>(
        &mut self,
        name: Option<&str>,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        let Some(current) = &self.identity else {
            return Ok(());
        };
        if let Some(name) = name.filter(|name| *name != current.name()) {
            check_name(name, cx)?;
            let renamed = Identity::new(current.uid(), name).map_err(|_| LONG_NAME)?;
            cx.host.rename(&renamed);
            self.identity = Some(renamed);
        }
        Ok(())
    }

    /// Who comes back begins as a new connection does, and is answered then.
    fn come_or_go<H: Host>(
        &mut self,
        about: &About<'_>,
        is_online: bool,
        then: Then,
        cx: &mut Context<'_, H>,
    ) {
        let comes = is_online && !self.is_online;
        self.set_online(is_online, cx);
        if comes {
            self.attach(Greeting::Done, None, Answering::from(about), then, cx);
        } else {
            self.answer_then(about, then, cx);
        }
    }

    fn set_online<H: Host>(&mut self, is_online: bool, cx: &mut Context<'_, H>) {
        let (Some(identity), Some(session)) = (&self.identity, self.id(cx.rules)) else {
            return;
        };
        if is_online == self.is_online {
            return;
        }
        cx.host.set_online(session, identity, is_online);
        self.is_online = is_online;
        if !is_online {
            self.pump.detach();
        }
    }

    /// Credentials on a session that has an identity: they must be of the same user.
    fn renew<H: Host>(
        &mut self,
        who: &Credentials<'_>,
        cx: &mut Context<'_, H>,
    ) -> Result<(), Fault> {
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        let is_own = is_openid(who, identity.uid());
        if let Some(Proof { claims, .. }) = of_message(who, cx)? {
            if claims.identity.uid() != identity.uid() {
                self.violate(Violation::SecondIdentity, cx);
                return Err(SECOND_IDENTITY);
            }
            if is_own {
                self.expires_secs = to_secs(claims.expires_ms);
                cx.host.grant(claims.perms);
            }
        }
        if is_own { Ok(()) } else { Err(FOREIGN_OPENID) }
    }
}

fn to_secs(millis: u64) -> u32 {
    millis.div_ceil(1000).min(u64::from(u32::MAX)) as u32
}

fn cursor_of(who: &Credentials<'_>) -> Result<Option<Cursor>, Fault> {
    let parse = |text| Cursor::parse(text).ok_or(BAD_CURSOR);
    who.cursor.map(parse).transpose()
}

/// True unless it names somebody else.
fn is_openid(who: &Credentials<'_>, uid: &str) -> bool {
    who.openid.is_none_or(|openid| openid == uid)
}
