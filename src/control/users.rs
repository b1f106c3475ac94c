//! Users and their sessions on this node: who is here, and who has to go.

use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answer::Answer;
use super::{Desk, Shared, circumstances};
use crate::command::Bye;
use crate::hub::roster::SessionView;
use crate::protocol::identity::is_id;
use crate::protocol::metadata::Metadata;
use crate::protocol::outbound::SessionId;

/// The device of a session that has named none.
const DEVICE_DEFAULT: &str = "default";

/// What the path names, decoded.
pub struct At<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<At<T>, Answer> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(names)) => Ok(At(names)),
            Err(_) => Err(Answer::bad("the path holds something that is not UTF-8")),
        }
    }
}

/// A user id from a path or a query.
pub fn user_id(uid: String) -> Result<String, Answer> {
    if !is_id(&uid) {
        return Err(Answer::bad("a user id is 1 to 64 of [A-Za-z0-9_.@-]"));
    }
    Ok(uid)
}

/// A parameter of the query, decoded; of a repeated one the first counts.
pub fn parameter(request: &Request, name: &str) -> Option<String> {
    let pairs = request.uri().query()?.split('&');
    let mut named = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(key, _)| *key == name);
    let (_, value) = named.next()?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

/// The items of a comma text.
pub fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|id| !id.is_empty())
}

/// Who of those named is online; where nobody is named, how many are.
pub async fn online(State(desk): Shared, request: Request) -> Result<Answer, Answer> {
    let list = parameter(&request, "uids").unwrap_or_default();
    let uids: Vec<&str> = items(&list).collect();
    let live = desk.live.get();
    let cx = circumstances(&live);
    let reply = desk.services.post.online(&uids, cx, &mut desk.courier())?;
    Ok(reply.into())
}

pub async fn show(State(desk): Shared, At(uid): At<String>) -> Result<Answer, Answer> {
    let uid = user_id(uid)?;
    let sessions = desk.services.post.roster.sessions(&uid);
    // Called by the newest that is online, as everywhere; who is not here is called by the id.
    let newest = sessions.iter().rfind(|session| session.is_online);
    let name = newest
        .or(sessions.last())
        .map_or(uid.as_str(), |session| session.identity.name());
    let views: Vec<Value> = sessions
        .iter()
        .map(|session| view(&desk, &uid, session))
        .collect();
    Ok(Answer::ok(json!({
        "userId": uid,
        "userName": name,
        "online": newest.is_some(),
        "sessions": views,
    })))
}

/// Ends all sessions of a user, those that said goodbye among them.
pub async fn close_all(State(desk): Shared, At(uid): At<String>) -> Result<Answer, Answer> {
    let uid = user_id(uid)?;
    let sessions = desk.services.post.roster.sessions(&uid);
    Ok(close(&desk, &uid, &sessions))
}

/// Ends one session.
pub async fn close_one(State(desk): Shared, At(id): At<String>) -> Result<Answer, Answer> {
    let services = &desk.services;
    let nowhere = || Answer::error(StatusCode::NOT_FOUND, "there is no such session here");
    let uid = SessionId::uid_in(&id, &services.node.name).ok_or_else(nowhere)?;
    let mut sessions = services.post.roster.sessions(uid);
    sessions.retain(|session| session_id(&desk, uid, session) == id);
    if sessions.is_empty() {
        return Err(nowhere());
    }
    Ok(close(&desk, uid, &sessions))
}

fn close(desk: &Desk, uid: &str, sessions: &[SessionView]) -> Answer {
    let switchboard = &desk.services.switchboard;
    let mut closed = Vec::with_capacity(sessions.len());
    for session in sessions {
        // One reactor that is behind does not spare the sessions of the others.
        if switchboard.close(session.key, Bye::Kicked).is_ok() {
            closed.push(session_id(desk, uid, session));
        }
    }
    if closed.len() < sessions.len() {
        let msg = "the node is busy, try again";
        return Answer::error(StatusCode::SERVICE_UNAVAILABLE, msg)
            .with(json!({"reason": "busy", "closed": closed}));
    }
    Answer::ok(json!({ "closed": closed }))
}

fn view(desk: &Desk, uid: &str, session: &SessionView) -> Value {
    let extra = session.extra.as_deref();
    let device = extra.and_then(|extra| extra.device.as_deref());
    let nothing = Metadata::default();
    json!({
        "sessionId": session_id(desk, uid, session),
        "device": device.unwrap_or(DEVICE_DEFAULT),
        "since": u64::from(session.since_secs) * 1000,
        "online": session.is_online,
        "metadata": extra.map_or(&nothing, |extra| &extra.metadata),
    })
}

fn session_id(desk: &Desk, uid: &str, session: &SessionView) -> String {
    SessionId {
        node: &desk.services.node.name,
        uid,
        since_secs: session.since_secs,
        ordinal: session.ordinal,
    }
    .to_string()
}
