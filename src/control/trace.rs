//! Traces of single users: started, read and stopped by an operator who wants to know what happens
//! to somebody's connections.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::answer::Answer;
use super::nodes::read_wish;
use super::users::{At, user_id};
use super::{Desk, Shared, now_ms};
use crate::protocol::body;

const SECS_DEFAULT: u64 = 60;
const SECS_MAX: u64 = 600;

#[derive(Default, Deserialize)]
struct Wish {
    #[serde(default, deserialize_with = "body::whole")]
    secs: Option<u64>,
}

pub async fn start(
    State(desk): Shared,
    At(uid): At<String>,
    request: Request,
) -> Result<Answer, Answer> {
    let uid = user_id(uid)?;
    let wish: Wish = read_wish(request).await?;
    let secs = wish.secs.unwrap_or(SECS_DEFAULT);
    if !(1..=SECS_MAX).contains(&secs) {
        return Err(Answer::bad(format!(
            "a trace lasts 1 to {SECS_MAX} seconds"
        )));
    }
    let now_ms = now_ms();
    let traces = &desk.services.traces;
    traces
        .start(&uid, now_ms, now_ms + secs * 1000)
        .map_err(|error| {
            Answer::error(StatusCode::CONFLICT, error.to_string())
                .with(json!({"reason": "too_many_traces"}))
        })?;
    told(&desk, &uid)
}

pub async fn show(State(desk): Shared, At(uid): At<String>) -> Result<Answer, Answer> {
    told(&desk, &user_id(uid)?)
}

/// Ends a trace, and tells what it has seen.
pub async fn stop(State(desk): Shared, At(uid): At<String>) -> Result<Answer, Answer> {
    let uid = user_id(uid)?;
    // Settled first: one whose time is over does not run.
    let trace = desk.services.traces.read(&uid, now_ms());
    if !trace.is_some_and(|trace| trace.is_running) || !desk.services.traces.stop(&uid) {
        let msg = "no trace of this user is running";
        return Err(Answer::error(StatusCode::NOT_FOUND, msg));
    }
    told(&desk, &uid)
}

fn told(desk: &Desk, uid: &str) -> Result<Answer, Answer> {
    match desk.services.traces.read(uid, now_ms()) {
        Some(trace) => Ok(Answer::ok(json!(trace))),
        None => {
            let msg = "there is no trace of this user";
            Err(Answer::error(StatusCode::NOT_FOUND, msg))
        }
    }
}
