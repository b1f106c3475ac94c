//! Messages from backends: to everybody who is here, to those of a list who are, or into the
//! inboxes of users.

use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use serde_json::json;

use super::answer::{Answer, read_body};
use super::users::At;
use super::{Shared, circumstances};
use crate::hub::post::Carrier;
use crate::hub::push;
use crate::inbox::Cancelled;
use crate::inbox::service::{Outcome, Request};
use crate::protocol::envelope::MessageId;
use crate::protocol::order::Done;
use crate::session::flow::stored_reply;

pub async fn send(State(desk): Shared, request: HttpRequest) -> Result<Answer, Answer> {
    let body = read_body(request).await?;
    let live = desk.live.get();
    let cx = circumstances(&live);
    let now_ms = cx.now_ms;
    let done = push::carry_out(&desk.services.post, &body, None, cx, &mut desk.courier());
    let push = match done {
        Done::Push(push) => push,
        done => return desk.finish(done).await,
    };
    let to = push.to.clone();
    let request = Request::of_push(*push, now_ms, || desk.courier().message_id());
    match desk.ask(request).await? {
        Outcome::AllAccepted(all) => Ok(stored_reply(&to, &all).into()),
        other => Err(unexpected(&other)),
    }
}

/// Takes back a message that is not due yet.
pub async fn cancel(State(desk): Shared, At(id): At<String>) -> Result<Answer, Answer> {
    let id =
        MessageId::from_hex(&id).ok_or_else(|| Answer::bad("a messageId has 32 hex digits"))?;
    match desk.ask(Request::Cancel(id)).await? {
        Outcome::Cancelled(Cancelled::Yes) => Ok(Answer::ok(json!({"cancelled": id.to_string()}))),
        Outcome::Cancelled(Cancelled::TooLate) => Err(Answer::error(
            StatusCode::CONFLICT,
            "it was due already, and is on its way",
        )),
        Outcome::Cancelled(Cancelled::Unknown) => Err(Answer::error(
            StatusCode::NOT_FOUND,
            "no message with this id waits for its time",
        )),
        other => Err(unexpected(&other)),
    }
}

/// The store answered another question: a fault of ours.
pub fn unexpected(outcome: &Outcome) -> Answer {
    tracing::error!(?outcome, "the store answered something else");
    Answer::error(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the store answered something else",
    )
}
