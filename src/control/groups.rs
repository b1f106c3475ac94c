//! Groups as operators and backends see and change them: any group, without being a member.

use axum::extract::{Request, State};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Answer, read_json};
use super::users::{At, items, parameter, user_id};
use super::{Desk, Shared, circumstances};
use crate::protocol::identity::{is_id, not_an_id};
use crate::protocol::order::{GroupOrder, GroupView, Targets};

/// Ids of groups in one answer at most.
const IDS_MAX: usize = 1000;

/// A new group.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Creation {
    group_id: String,
    user_id_list: Names,
}

/// New members of a group.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Addition {
    user_id_list: Names,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "userIdList is an array of user ids, or a text of them with commas"
)]
enum Names {
    List(Vec<String>),
    Text(String),
}

impl Names {
    /// Errors: nobody is named, or something that is no user id.
    fn targets(&self) -> Result<Targets<'_>, Answer> {
        let targets: Targets<'_> = match self {
            Names::List(list) => list.iter().map(String::as_str).collect(),
            Names::Text(text) => items(text).collect(),
        };
        if targets.is_empty() {
            return Err(Answer::bad("userIdList names nobody"));
        }
        if let Some(uid) = targets.iter().find(|uid| !is_id(uid)) {
            return Err(Answer::bad(not_an_id("userIdList", uid)));
        }
        Ok(targets)
    }
}

/// The groups of a user, or a page of all ids.
pub async fn list(State(desk): Shared, request: Request) -> Result<Answer, Answer> {
    let groups = &desk.services.post.groups;
    if let Some(uid) = parameter(&request, "user") {
        let uid = user_id(uid)?;
        return Ok(Answer::ok(json!({"groups": groups.of_user(&uid)})));
    }
    let after = parameter(&request, "after").unwrap_or_default();
    let ids = groups.ids(&after, IDS_MAX);
    let (total, _) = groups.counts();
    Ok(Answer::ok(json!({"groups": ids, "total": total})))
}

pub async fn create(State(desk): Shared, request: Request) -> Result<Answer, Answer> {
    let creation: Creation = read_json(request).await?;
    let members = creation.user_id_list.targets()?;
    let id = creation.group_id.as_str();
    carry_out(&desk, &GroupOrder::Create { id, members })
}

pub async fn show(State(desk): Shared, At(id): At<String>) -> Result<Answer, Answer> {
    carry_out(&desk, &GroupOrder::Members { id: &id })
}

pub async fn end(State(desk): Shared, At(id): At<String>) -> Result<Answer, Answer> {
    let view = desk.services.post.end_group(&id, &mut desk.courier())?;
    Ok(answer(&view))
}

pub async fn add(
    State(desk): Shared,
    At(id): At<String>,
    request: Request,
) -> Result<Answer, Answer> {
    let addition: Addition = read_json(request).await?;
    let members = addition.user_id_list.targets()?;
    carry_out(&desk, &GroupOrder::Join { id: &id, members })
}

pub async fn take_out(
    State(desk): Shared,
    At((id, uid)): At<(String, String)>,
) -> Result<Answer, Answer> {
    let uid = user_id(uid)?;
    let post = &desk.services.post;
    let view = post.take_out(&id, &uid, &mut desk.courier())?;
    Ok(answer(&view))
}

/// As nobody's session: the operator needs no membership.
fn carry_out(desk: &Desk, order: &GroupOrder<'_>) -> Result<Answer, Answer> {
    let live = desk.live.get();
    let cx = circumstances(&live);
    let post = &desk.services.post;
    let view = post.group(order, None, cx, &mut desk.courier())?;
    Ok(answer(&view))
}

fn answer(view: &GroupView) -> Answer {
    Answer::ok(json!(view))
}
