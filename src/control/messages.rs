//! Messages from backends: to everybody who is here, or to those of a list who are.

use axum::extract::{Request, State};

use super::answer::{Answer, read_body};
use super::{Shared, circumstances};
use crate::hub::push;

pub async fn send(State(desk): Shared, request: Request) -> Result<Answer, Answer> {
    let body = read_body(request).await?;
    let live = desk.live.get();
    let cx = circumstances(&live);
    let reply = push::carry_out(&desk.services.post, &body, None, cx, &mut desk.courier());
    Ok(reply.into())
}
