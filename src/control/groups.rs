//! Groups as operators and backends see and change them: any group, without being a member.

use axum::extract::{Request as HttpRequest, State};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Answer, read_json};
use super::messages::unexpected;
use super::users::{At, items, parameter, user_id};
use super::{Desk, Shared};
use crate::inbox::service::{Outcome, Request};
use crate::inbox::{GroupChange, GroupError};
use crate::protocol::away::by_user;
use crate::protocol::identity::{is_id, not_an_id};
use crate::protocol::limits::Limit;
use crate::protocol::order::Fault;

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
    fn targets(&self) -> Result<Vec<String>, Answer> {
        let targets: Vec<String> = match self {
            Names::List(list) => list.clone(),
            Names::Text(text) => items(text).map(str::to_owned).collect(),
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
pub async fn list(State(desk): Shared, request: HttpRequest) -> Result<Answer, Answer> {
    let request = match parameter(&request, "user") {
        Some(uid) => Request::GroupsOf { uid: user_id(uid)? },
        None => Request::Groups {
            after: parameter(&request, "after").unwrap_or_default(),
            limit: IDS_MAX,
        },
    };
    match desk.ask(request).await? {
        Outcome::Names(groups) => Ok(Answer::ok(json!({ "groups": groups }))),
        other => Err(unexpected(&other)),
    }
}

pub async fn create(State(desk): Shared, request: HttpRequest) -> Result<Answer, Answer> {
    let creation: Creation = read_json(request).await?;
    let members = creation.user_id_list.targets()?;
    let change = GroupChange::Create { members };
    carry_out(&desk, &creation.group_id, change).await
}

pub async fn show(State(desk): Shared, At(id): At<String>) -> Result<Answer, Answer> {
    carry_out(&desk, &id, GroupChange::Look).await
}

pub async fn end(State(desk): Shared, At(id): At<String>) -> Result<Answer, Answer> {
    carry_out(&desk, &id, GroupChange::Delete).await
}

pub async fn add(
    State(desk): Shared,
    At(id): At<String>,
    request: HttpRequest,
) -> Result<Answer, Answer> {
    let addition: Addition = read_json(request).await?;
    let members = addition.user_id_list.targets()?;
    carry_out(&desk, &id, GroupChange::Join { members }).await
}

pub async fn take_out(
    State(desk): Shared,
    At((id, uid)): At<(String, String)>,
) -> Result<Answer, Answer> {
    let uid = user_id(uid)?;
    carry_out(&desk, &id, GroupChange::Leave { uid }).await
}

/// As nobody's session: the operator needs no membership.
async fn carry_out(desk: &Desk, id: &str, change: GroupChange) -> Result<Answer, Answer> {
    let (is_end, is_look) = (change == GroupChange::Delete, change == GroupChange::Look);
    let request = Request::Group {
        id: id.to_owned(),
        by: None,
        change,
        rules: desk.live.get().rules.group_rules(),
    };
    let told = match desk.ask(request).await? {
        Outcome::Group(Ok(members)) => members,
        Outcome::Group(Err(error)) => {
            match error {
                GroupError::Full => desk.note_strike(Limit::GroupMembers),
                GroupError::TooMany(_) => desk.note_strike(Limit::GroupsPerUser),
                _ => {}
            }
            return Err(Fault::from(error).into());
        }
        other => return Err(unexpected(&other)),
    };
    // The members of a group that has ended hear of one without members.
    let members = if is_end { &[][..] } else { &told[..] };
    let audience = (!is_look).then_some((&told[..], None));
    let post = &desk.services.post;
    // Where it is not known who is elsewhere, members there are called by their ids.
    let found = desk.find(told.clone()).await.unwrap_or_default();
    let elsewhere = by_user(&told, found);
    let view = post.group(id, members, audience, &elsewhere, &mut desk.courier());
    Ok(Answer::ok(json!(view)))
}
