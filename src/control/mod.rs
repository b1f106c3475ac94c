//! The HTTP API: messages and tokens for backends, metrics and a status page for operators.
//!
//! Owns: one thread with a small runtime of its own, its listener and its connections.
//! Invariants: every answer has one shape and an agreeing HTTP status; nothing but `/health` and
//! `/ready` is told to a stranger; no request can hold the thread or its memory for long.
//! Neighbours: it reads the roster and the reactors' numbers, and reaches clients by mail only.

mod answer;
mod guard;
mod json;
mod messages;
mod metrics;
mod page;
mod serve;
pub mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use serde_json::json;

use crate::hub::node::Node;
use crate::hub::roster::Roster;
use crate::mailbox::Switchboard;
use crate::session::auth::Auth;
use crate::stats::ReactorStats;
use answer::Answer;
pub use serve::{Control, bind, serve};

/// What this part is told at its start.
#[derive(Clone)]
pub struct Options {
    pub listen: SocketAddr,
    /// Without one, only this machine is heard.
    pub api_key: Option<String>,
    pub body_bytes_max: usize,
    /// Targets of one message.
    pub batch_max: usize,
    /// Nesting of a message's JSON.
    pub json_depth_max: usize,
}

impl Options {
    pub fn new(listen: SocketAddr, api_key: Option<String>) -> Options {
        let json_depth_max = crate::protocol::limits::Limits::default().json_depth_max;
        Options {
            listen,
            api_key,
            body_bytes_max: 1 << 20,
            batch_max: 1000,
            json_depth_max,
        }
    }
}

/// The node, as far as this part sees it.
pub struct Services {
    pub node: Arc<Node>,
    pub roster: Arc<Roster>,
    pub switchboard: Switchboard,
    pub stats: Arc<[Arc<ReactorStats>]>,
    pub auth: Arc<Auth>,
    /// When the node's clock began.
    pub started: Instant,
}

/// What the handlers share.
struct Desk {
    options: Options,
    services: Arc<Services>,
    key: Option<guard::KeyCheck>,
    metrics: metrics::Metrics,
    page: page::Page,
}

type Shared = State<Arc<Desk>>;

fn router(options: Options, services: Services) -> Router {
    let services = Arc::new(services);
    let body_bytes_max = options.body_bytes_max;
    let desk = Arc::new(Desk {
        key: options.api_key.as_deref().map(guard::KeyCheck::new),
        metrics: metrics::Metrics::new(services.clone()),
        page: page::Page::new(),
        options,
        services,
    });
    Router::new()
        .route("/", get(page::show))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics::show))
        .route("/api/v1/online", get(online))
        .route("/api/v1/tokens", post(tokens::issue))
        .route("/api/v1/messages", post(messages::send))
        .route("/rocketmq/mqmessage/message/send", post(messages::send))
        .fallback(async || Answer::error(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Answer::error(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path takes another method: see Allow",
            )
        })
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(from_fn_with_state(desk.clone(), guard::receive))
        .with_state(desk)
}

/// The process is alive, and wants clients.
async fn health(State(desk): Shared) -> Answer {
    unless_draining(&desk, "healthy")
}

/// This part starts when all reactors listen, so only leaving makes a node unready.
async fn ready(State(desk): Shared) -> Answer {
    unless_draining(&desk, "ready")
}

fn unless_draining(desk: &Desk, word: &str) -> Answer {
    if desk.services.node.is_draining() {
        let reason = json!({"reason": "draining"});
        return Answer::error(
            StatusCode::SERVICE_UNAVAILABLE,
            "this node is letting its clients go",
        )
        .with(reason);
    }
    Answer::ok(json!(word))
}

async fn online(State(desk): Shared) -> Answer {
    let Services { node, roster, .. } = &*desk.services;
    let (users, sessions) = roster.counts();
    Answer::ok(
        json!({"onlineNum": sessions, "users": users, "nodes": {node.name.as_str(): sessions}}),
    )
}

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
mod tests;
