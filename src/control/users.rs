//! Users and their sessions on all nodes: who is where, and who has to go.

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
use crate::protocol::away::{CLUSTER_DOWN, Elsewhere, Errand, Heard};
use crate::protocol::identity::is_id;
use crate::protocol::metadata::{ANONYMOUS, Metadata};
use crate::protocol::outbound::SessionId;

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
    let done = desk.services.post.online(&uids, cx, &mut desk.courier())?;
    desk.finish(done).await
}

pub async fn show(State(desk): Shared, At(uid): At<String>) -> Result<Answer, Answer> {
    let uid = user_id(uid)?;
    let found = desk.find(vec![uid.clone()]).await?;
    let mut sessions: Vec<Shown> = found.into_iter().flatten().map(Shown::from).collect();
    let here = desk.services.post.roster.sessions(&uid);
    sessions.extend(here.iter().map(|session| Shown::of(&desk, session)));
    sessions.sort_by_key(|shown| shown.age);
    // Called by the newest that is online, as everywhere; who is not here is called by the id.
    let newest = sessions.iter().rfind(|shown| shown.is_online);
    let name = newest.or(sessions.last()).map(|shown| &shown.name);
    let name = name.filter(|name| !name.is_empty()).unwrap_or(&uid);
    let views: Vec<&Value> = sessions.iter().map(|shown| &shown.view).collect();
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
    let kicked = kick(&desk, &uid, None).await?;
    let sessions = desk.services.post.roster.sessions(&uid);
    Ok(close(&desk, &sessions, kicked))
}

/// Ends one session.
pub async fn close_one(State(desk): Shared, At(id): At<String>) -> Result<Answer, Answer> {
    let post = &desk.services.post;
    let nowhere = || Answer::error(StatusCode::NOT_FOUND, "there is no such session here");
    let names = post.others.as_ref().map(|others| others.all());
    let others = names.iter().flat_map(|others| others.iter());
    let names = others.map(|node| node.name.as_str());
    let uid = SessionId::uid_in(&id, &post.node.name);
    if let Some(uid) = uid {
        let mut sessions = post.roster.sessions(uid);
        sessions.retain(|session| post.name_of(session) == id);
        if sessions.is_empty() {
            return Err(nowhere());
        }
        return Ok(close(&desk, &sessions, Vec::new()));
    }
    let mut elsewhere = names.map(|node| SessionId::uid_in(&id, node));
    let uid = elsewhere.find_map(|uid| uid).ok_or_else(nowhere)?;
    match kick(&desk, uid, Some(id.clone())).await? {
        kicked if kicked.is_empty() => Err(nowhere()),
        kicked => Ok(close(&desk, &[], kicked)),
    }
}

/// Ends a user's sessions on other nodes, or one of them. Returns their names.
async fn kick(desk: &Desk, uid: &str, session: Option<String>) -> Result<Vec<String>, Answer> {
    if !desk.services.post.has_directory() {
        return Ok(Vec::new());
    }
    let uid = uid.to_owned();
    match desk.send_away(Errand::Kick { uid, session }).await {
        Heard::Kicked(kicked) => Ok(kicked),
        _ => Err(CLUSTER_DOWN.into()),
    }
}

/// Ends sessions here. `closed`: those that were told to end elsewhere.
fn close(desk: &Desk, sessions: &[SessionView], mut closed: Vec<String>) -> Answer {
    let switchboard = &desk.services.switchboard;
    let all = closed.len() + sessions.len();
    for session in sessions {
        // One reactor that is behind does not spare the sessions of the others.
        if switchboard.close(session.key, Bye::Kicked).is_ok() {
            closed.push(desk.services.post.name_of(session));
        }
    }
    if closed.len() < all {
        let msg = "the node is busy, try again";
        return Answer::error(StatusCode::SERVICE_UNAVAILABLE, msg)
            .with(json!({"reason": "busy", "closed": closed}));
    }
    Answer::ok(json!({ "closed": closed }))
}

/// A session on whatever node.
struct Shown {
    age: (u32, u16),
    name: String,
    is_online: bool,
    view: Value,
}

impl Shown {
    fn of(desk: &Desk, session: &SessionView) -> Shown {
        let extra = session.extra.as_deref();
        let device = extra.and_then(|extra| extra.device.as_deref());
        let nothing = Metadata::default();
        let node = &desk.services.node.name;
        Shown {
            age: (session.since_secs, session.ordinal),
            name: session.identity.name().to_owned(),
            is_online: session.is_online,
            view: json!({
                "sessionId": desk.services.post.name_of(session),
                "node": node,
                "device": device.unwrap_or(ANONYMOUS),
                "since": u64::from(session.since_secs) * 1000,
                "online": session.is_online,
                "metadata": extra.map_or(&nothing, |extra| &extra.metadata),
            }),
        }
    }
}

impl From<Elsewhere> for Shown {
    fn from(Elsewhere { node, entry }: Elsewhere) -> Shown {
        Shown {
            age: (entry.since_secs, entry.ordinal),
            is_online: true,
            view: json!({
                "sessionId": entry.session,
                "node": node,
                "device": entry.device,
                "since": u64::from(entry.since_secs) * 1000,
                "online": true,
            }),
            name: entry.uname,
        }
    }
}
