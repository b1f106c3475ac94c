//! Nodes: how loaded they are, where the next client is best sent, and letting all clients of this
//! one go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::answer::{Answer, read_body};
use super::{Desk, Shared};
use crate::protocol::body;

/// Without a rate this part of the connections is closed a second, or `RATE_MIN`.
const PART_PER_SEC: usize = 20;
const RATE_MIN: usize = 500;
/// Closings a second that may be wished for.
const RATE_MAX: u32 = 1_000_000;

/// What the API has wished for, in closings a second; 0 while it has not wished for a drain.
type Pace = Extension<Arc<AtomicU32>>;

#[derive(Default, Deserialize)]
struct Wish {
    #[serde(default, deserialize_with = "body::whole")]
    rate: Option<u32>,
}

/// The body of a POST that may say nothing. It must still call itself JSON: a page from elsewhere
/// cannot do that, and so cannot give orders to a node that listens on its visitor's machine.
pub async fn read_wish<T: DeserializeOwned + Default>(request: Request) -> Result<T, Answer> {
    let body = read_body(request).await?;
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    body::read(&body).map_err(Answer::bad)
}

pub async fn list(State(desk): Shared) -> Answer {
    let services = &desk.services;
    let node = &services.node;
    let (users, sessions) = services.post.roster.counts();
    let others = services.post.others.as_ref().map(|others| others.all());
    let others = others.iter().flat_map(|others| others.iter()).map(|other| {
        json!({
            "node": other.name,
            "url": other.public_url,
            "wsUrl": other.ws_url,
            "connections": other.connections,
            "maxConnections": other.max_connections,
            "users": other.users,
            "sessions": other.sessions,
            "draining": other.is_draining,
        })
    });
    let this = json!({
        "node": node.name,
        "url": node.public_url,
        "wsUrl": node.ws_url,
        "connections": node.connections(),
        "maxConnections": node.max_connections,
        "users": users,
        "sessions": sessions,
        "draining": node.is_draining(),
        "uptimeSecs": services.started.elapsed().as_secs(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    Answer::ok(std::iter::once(this).chain(others).collect())
}

pub async fn least_loaded(State(desk): Shared) -> Result<Answer, Answer> {
    let services = &desk.services;
    let node = &services.node;
    let here = room(&desk);
    let own_room = here.as_ref().map_or(0, |room| *room);
    let others = services.post.others.as_ref().map(|others| others.all());
    let others = others.iter().flat_map(|others| others.iter());
    let roomiest = others.max_by_key(|other| other.room());
    if let Some(other) = roomiest.filter(|other| other.room() > own_room) {
        return Ok(Answer::ok(json!({
            "node": other.name,
            "url": other.public_url.as_ref().unwrap_or(&other.ws_url),
            "room": other.room(),
        })));
    }
    Ok(Answer::ok(json!({
        "node": node.name,
        "url": node.public_url.as_ref().unwrap_or(&node.ws_url),
        "room": here?,
    })))
}

/// How many clients may still come; where none may, why.
pub fn room(desk: &Desk) -> Result<usize, Answer> {
    let node = &desk.services.node;
    let no_room = |reason: &str, msg: &str| {
        Answer::error(StatusCode::SERVICE_UNAVAILABLE, msg).with(json!({ "reason": reason }))
    };
    if node.is_draining() {
        return Err(no_room("draining", "this node is letting its clients go"));
    }
    // The count runs ahead of the cap for a moment whenever one too many is turned away.
    let room = node.max_connections.saturating_sub(node.connections());
    if room == 0 {
        return Err(no_room("full", "no node has room for one more client"));
    }
    Ok(room)
}

/// Starts a drain, and tells how far it is.
pub fn drain() -> MethodRouter<Arc<Desk>> {
    let pace: Pace = Extension(Arc::default());
    get(progress).post(start).layer(pace)
}

async fn progress(State(desk): Shared, Extension(pace): Pace) -> Answer {
    tell(&desk, &pace)
}

async fn start(
    State(desk): Shared,
    Extension(pace): Pace,
    request: Request,
) -> Result<Answer, Answer> {
    let wish: Wish = read_wish(request).await?;
    if wish
        .rate
        .is_some_and(|rate| !(1..=RATE_MAX).contains(&rate))
    {
        let msg = format!("rate is 1 to {RATE_MAX} closings a second");
        return Err(Answer::bad(msg));
    }
    let node = &desk.services.node;
    let usual = (node.connections() / PART_PER_SEC).max(RATE_MIN);
    let usual = u32::try_from(usual).map_or(RATE_MAX, |rate| rate.min(RATE_MAX));
    let rate = wish.rate.unwrap_or(usual);
    // The first wish counts, also in the moment before the node has heard of it.
    if node.is_draining() || pace.compare_exchange(0, rate, Relaxed, Relaxed).is_err() {
        return Ok(tell(&desk, &pace));
    }
    if desk.services.drain.try_send(rate).is_err() {
        pace.store(0, Relaxed);
        let msg = "the node does not take this now, try again";
        return Err(
            Answer::error(StatusCode::SERVICE_UNAVAILABLE, msg).with(json!({"reason": "busy"}))
        );
    }
    Ok(tell(&desk, &pace))
}

/// A drain that a signal has started has no rate that anybody asked for.
fn tell(desk: &Desk, pace: &AtomicU32) -> Answer {
    let node = &desk.services.node;
    let rate = Some(pace.load(Relaxed)).filter(|rate| *rate > 0);
    Answer::ok(json!({
        "draining": rate.is_some() || node.is_draining(),
        "connections": node.connections(),
        "rate": rate,
    }))
}
