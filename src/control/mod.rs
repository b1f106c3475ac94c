//! The HTTP API: messages and tokens for backends, metrics and a status page for operators.
//!
//! Owns: one thread with a small runtime of its own, its listener and its connections.
//! Invariants: every answer has one shape and an agreeing HTTP status; nothing but `/health` and
//! `/ready` is told to a stranger; no request can hold the thread or its memory for long.
//! Neighbours: it reads the roster and the reactors' numbers, and reaches clients by mail only.

mod answer;
mod courier;
mod groups;
mod guard;
mod messages;
mod metrics;
mod nodes;
mod page;
mod serve;
pub mod tokens;
mod trace;
mod users;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};
use crossbeam_channel::Sender;
use serde_json::json;

use crate::command::{HeardBy, Letter, Parting, ReplyTo};
use crate::hub::ids::MessageIds;
use crate::hub::node::Node;
use crate::hub::post::{Circumstances, Post};
use crate::hub::traces::Traces;
use crate::inbox::service::{Outcome, Request};
use crate::mailbox::{AwayBox, StoreBox, Switchboard};
use crate::parts::gate::Gate;
use crate::parts::time::{TICK_MS, Tick};
use crate::protocol::away::{CLUSTER_DOWN, Elsewhere, Errand, Heard};
use crate::protocol::limits::Limit;
use crate::protocol::order::Done;
use crate::session::rules::Rules;
use crate::stats::{ClusterStats, ReactorStats, StoreStats, Strikes};
use answer::Answer;
use courier::Courier;
pub use serve::{Control, bind, serve};

/// What this part goes by, until it is told otherwise.
pub struct Live {
    pub rules: Arc<Rules>,
    /// Without one, only this machine is heard.
    pub api_key: Option<String>,
}

/// Whoever looks twice within a request may see two.
#[derive(Clone)]
struct Present(Arc<RwLock<Arc<Live>>>);

impl Present {
    fn new(live: Live) -> Present {
        Present(Arc::new(RwLock::new(Arc::new(live))))
    }

    fn get(&self) -> Arc<Live> {
        // Nobody can leave it half written: it is one pointer.
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, live: Live) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }
}

/// The node, as far as this part sees it.
pub struct Services {
    pub node: Arc<Node>,
    pub post: Arc<Post>,
    pub traces: Arc<Traces>,
    pub switchboard: Switchboard,
    pub store: StoreBox,
    pub away: AwayBox,
    /// Of a node that is alone nobody looks at them.
    pub cluster: Arc<ClusterStats>,
    /// Whether the store does what it is asked.
    pub store_stats: Arc<StoreStats>,
    pub stats: Arc<[Arc<ReactorStats>]>,
    /// Takes a wish to drain: closings a second.
    pub drain: Sender<u32>,
    /// When the node's clock began.
    pub started: Instant,
    /// Seeds of the message ids, from the system's random source.
    pub seed: [u64; 2],
}

/// What the handlers share.
struct Desk {
    live: Present,
    services: Arc<Services>,
    metrics: metrics::Metrics,
    page: page::Page,
    ids: Mutex<MessageIds>,
    strikes: Arc<Strikes>,
    gate: Mutex<Gate<{ Limit::ALL.len() }>>,
}

impl Desk {
    fn new(live: Present, services: Services) -> Desk {
        let services = Arc::new(services);
        let strikes = Arc::new(Strikes::default());
        Desk {
            live,
            ids: Mutex::new(MessageIds::new(services.seed)),
            metrics: metrics::Metrics::new(services.clone(), strikes.clone()),
            page: page::Page::new(),
            strikes,
            gate: Mutex::default(),
            services,
        }
    }

    fn courier(&self) -> Courier<'_> {
        Courier(self)
    }

    /// Asks the store. Errors: it takes nothing, or nobody knows what came of it.
    async fn ask(&self, request: Request) -> Result<Outcome, Answer> {
        let (sender, answered) = tokio::sync::oneshot::channel();
        let reply = ReplyTo::Call(Box::new(move |outcome| {
            // Whoever asked may have gone.
            let _ = sender.send(outcome);
        }));
        if self.services.store.send(Letter { request, reply }).is_err() {
            let msg = "the store is behind: try again in a moment";
            let busy = Answer::error(StatusCode::SERVICE_UNAVAILABLE, msg);
            return Err(busy.with(json!({"reason": "store_busy"})));
        }
        match tokio::time::timeout(STORE_PATIENCE, answered).await {
            Ok(Ok(Outcome::Down)) => {
                let msg = "the store does not answer, nothing was done";
                let down = Answer::error(StatusCode::SERVICE_UNAVAILABLE, msg);
                Err(down.with(json!({"reason": "store_down"})))
            }
            Ok(Ok(outcome)) => Ok(outcome),
            _ => Err(Answer::error(
                StatusCode::GATEWAY_TIMEOUT,
                "it is not known whether it was done: repeat it with the same uniqueMsgid",
            )),
        }
    }

    /// Sends an errand to the other nodes, and waits for what comes of it.
    async fn send_away(&self, errand: Errand) -> Heard {
        let (sender, answered) = tokio::sync::oneshot::channel();
        let reply = HeardBy::Call(Box::new(move |heard| {
            // Whoever asked may have gone.
            let _ = sender.send(heard);
        }));
        if self.services.away.send(Parting { errand, reply }).is_err() {
            return Heard::Lost;
        }
        match tokio::time::timeout(STORE_PATIENCE, answered).await {
            Ok(Ok(heard)) => heard,
            _ => Heard::Lost,
        }
    }

    /// Where users have sessions elsewhere. Errors: that cannot be asked now.
    async fn find(&self, uids: Vec<String>) -> Result<Vec<Vec<Elsewhere>>, Answer> {
        if !self.services.post.has_directory() {
            return Ok(vec![Vec::new(); uids.len()]);
        }
        match self.send_away(Errand::Find(uids)).await {
            Heard::Found(found) => Ok(found),
            _ => Err(CLUSTER_DOWN.into()),
        }
    }

    /// What is answered, if need be when other nodes have been heard.
    async fn finish(&self, done: Done<'_>) -> Result<Answer, Answer> {
        match done {
            Done::Reply(reply) => Ok(reply.into()),
            Done::Away(errand, unheard) => Ok(unheard.reply(self.send_away(errand).await).into()),
            Done::Sent(_) | Done::Push(_) => Err(Answer::bad("this is no push")),
        }
    }

    /// A limit has struck: counted, and logged once in a while.
    fn note_strike(&self, limit: Limit) {
        self.strikes.count(limit);
        let millis = self.services.started.elapsed().as_millis() as u64;
        let now = Tick((millis / TICK_MS) as u32);
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(withheld) = gate.pass(limit as usize, now) {
            tracing::warn!(limit = limit.key(), withheld, "a limit has struck");
        }
    }
}

/// How long the store has for an answer.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// What surrounds an order that comes over HTTP.
fn circumstances(live: &Live) -> Circumstances<'_> {
    Circumstances {
        now_ms: now_ms(),
        limits: &live.rules.limits,
        request_id: None,
    }
}

type Shared = State<Arc<Desk>>;

fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/", get(page::show))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics::show))
        .route("/api/v1/online", get(users::online))
        .route("/api/v1/users/{uid}", get(users::show))
        .route("/api/v1/users/{uid}/sessions", delete(users::close_all))
        .route("/api/v1/sessions/{id}", delete(users::close_one))
        .route(
            "/api/v1/users/{uid}/trace",
            get(trace::show).post(trace::start).delete(trace::stop),
        )
        .route("/api/v1/groups", get(groups::list).post(groups::create))
        .route("/api/v1/groups/{id}", get(groups::show).delete(groups::end))
        .route("/api/v1/groups/{id}/members", post(groups::add))
        .route(
            "/api/v1/groups/{id}/members/{uid}",
            delete(groups::take_out),
        )
        .route("/api/v1/nodes", get(nodes::list))
        .route("/api/v1/nodes/least-loaded", get(nodes::least_loaded))
        .route("/api/v1/drain", nodes::drain())
        .route("/api/v1/tokens", post(tokens::issue))
        .route("/api/v1/messages", post(messages::send))
        .route("/api/v1/messages/{id}", delete(messages::cancel))
        .route("/rocketmq/mqmessage/message/send", post(messages::send))
        .fallback(async || Answer::error(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Answer::error(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path takes another method: see Allow",
            )
        })
        .layer(from_fn_with_state(desk.clone(), guard::receive))
        .with_state(desk)
}

/// The process is alive, and wants clients.
async fn health(State(desk): Shared) -> Answer {
    if desk.services.node.is_draining() {
        let reason = json!({"reason": "draining"});
        return Answer::error(
            StatusCode::SERVICE_UNAVAILABLE,
            "this node is letting its clients go",
        )
        .with(reason);
    }
    Answer::ok(json!("healthy"))
}

/// This part starts when all reactors listen, so leaving, being full, or not hearing the other
/// nodes makes a node unready.
async fn ready(State(desk): Shared) -> Result<Answer, Answer> {
    nodes::room(&desk)?;
    let cluster = &desk.services.cluster;
    if desk.services.post.others.is_some() && !cluster.is_whole() {
        return Err(CLUSTER_DOWN.into());
    }
    Ok(Answer::ok(json!("ready")))
}

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
mod tests;
