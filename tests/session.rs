//! What a client may rely on, proven on real sessions with no socket and no clock: who gets in,
//! who they are, what they hear, and when it ends.

#![allow(clippy::unwrap_used)]

mod rig;

#[path = "session/arriving.rs"]
mod arriving;
#[path = "session/clocks.rs"]
mod clocks;
#[path = "session/identity.rs"]
mod identity;
#[path = "session/inbox.rs"]
mod inbox;
#[path = "session/limits.rs"]
mod limits;
#[path = "session/talking.rs"]
mod talking;

use rig::wire::Heard;
use rig::{Peer, Rig};
use serde_json::Value;

/// The code of an error, in whatever family it is answered.
fn error_code(message: &Value) -> u64 {
    let route = message["success"] == false;
    let code = if route {
        &message["statusCode"]
    } else {
        &message["params"]["code"]
    };
    code.as_u64().unwrap_or_else(|| panic!("{message}"))
}

/// The status of the one answer to a request that is no upgrade.
fn status(rig: &mut Rig, peer: Peer) -> u16 {
    match &rig.heard(peer)[..] {
        [Heard::Http(status, _)] => *status,
        other => panic!("{other:?}"),
    }
}

/// The user code in the connected notice of a user who has just come.
fn joins(rig: &mut Rig, uid: &str) -> (Peer, String) {
    let target = format!("/websocket?token={}", rig.token(uid));
    let peer = rig.connect(&target);
    let heard = rig.heard(peer);
    let code = heard[1].json()["msg"]["userCode"]
        .as_str()
        .unwrap()
        .to_owned();
    (peer, code)
}
