//! Tokens for clients, made for backends over HTTP and for people by `throng token`.

use axum::extract::{Request, State};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Answer, read_json};
use super::{Shared, now_ms};
use crate::protocol::body;
use crate::protocol::identity::Identity;
use crate::session::auth::{Auth, TokenKeys};

/// Ten years.
const TTL_SECS_MAX: u64 = 10 * 365 * 24 * 3600;
/// With the rest of an upgrade's request line it stays within that line's limit.
const TOKEN_BYTES_MAX: usize = 3 << 10;

/// Why there are none where others sign.
pub const NOT_OURS: &str = "with auth = \"jwt\" tokens come from the identity provider that \
                            holds the keys: ask it for one";

/// Whom a token is for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    pub user_id: String,
    /// Empty: the id.
    pub user_name: Option<String>,
    #[serde(default, deserialize_with = "body::whole")]
    pub ttl_secs: Option<u64>,
    pub perms: Option<Vec<String>>,
}

/// A token, and when it ends (Unix milliseconds).
#[derive(Debug)]
pub struct Token {
    pub text: String,
    pub expires_ms: u64,
}

/// Errors: a sentence about what is wrong with the order.
pub fn make(keys: &TokenKeys, order: &Order, now_ms: u64) -> Result<Token, String> {
    let name = order.user_name.as_deref().unwrap_or_default();
    let identity = Identity::new(&order.user_id, name).map_err(|error| error.to_string())?;
    let ttl_secs = order.ttl_secs.unwrap_or(3600);
    if !(1..=TTL_SECS_MAX).contains(&ttl_secs) {
        return Err(format!("a token lives for 1 to {TTL_SECS_MAX} seconds"));
    }
    let perms = order.perms.as_deref().unwrap_or_default();
    let is_bad = |perm: &String| {
        perm.is_empty() || perm.contains([':', ',']) || perm.chars().any(char::is_control)
    };
    if perms.iter().any(is_bad) {
        return Err(
            "a permission is not empty and has no colon, comma or control character".to_owned(),
        );
    }
    let expires_ms = now_ms + ttl_secs * 1000;
    let text = keys.sign(&identity, expires_ms, perms);
    if text.len() > TOKEN_BYTES_MAX {
        return Err("these permissions are more than a token can carry".to_owned());
    }
    Ok(Token { text, expires_ms })
}

pub(super) async fn issue(State(desk): Shared, request: Request) -> Result<Answer, Answer> {
    let order: Order = read_json(request).await?;
    let live = desk.live.get();
    let keys = match &*live.rules.auth {
        Auth::Hmac(keys) => keys,
        Auth::Jwt(_) => return Err(Answer::bad(NOT_OURS)),
        Auth::None => {
            let msg = "this node runs with auth = \"none\", where tokens mean nothing: clients \
                    name themselves";
            return Err(Answer::bad(msg));
        }
    };
    let token = make(keys, &order, now_ms()).map_err(Answer::bad)?;
    let node = &desk.services.node;
    let url = node.public_url.as_deref().unwrap_or(&node.ws_url);
    let joint = if url.contains('?') { '&' } else { '?' };
    Ok(Answer::ok(json!({
        "wsToken": token.text,
        "expiresAt": token.expires_ms,
        "url": format!("{url}{joint}token={}", token.text),
    })))
}
