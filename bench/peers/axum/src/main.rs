//! A gateway on axum: greets, registers, passes on what is said to a user, and tells everybody
//! what is pushed. `--read-buffer BYTES` sets what axum calls `read_buffer_size`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};

const EPOCH: &str = "0123456789abcdef";
/// Broadcasts that may wait for a client.
const WAITING_MAX: usize = 100;

type Users = HashMap<String, mpsc::UnboundedSender<Utf8Bytes>>;

struct Gateway {
    users: Mutex<Users>,
    everybody: broadcast::Sender<Utf8Bytes>,
    count: AtomicU64,
    read_buffer: Option<usize>,
}

#[derive(Deserialize)]
struct Who {
    openid: String,
}

/// A registration has the type 7; what has none is for another user.
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type", default)]
    kind: u32,
    #[serde(default)]
    to: String,
    #[serde(default)]
    msg: Value,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--read-buffer");
    let gateway = Arc::new(Gateway {
        users: Mutex::default(),
        everybody: broadcast::channel(WAITING_MAX).0,
        count: AtomicU64::new(0),
        read_buffer: arguments.nth(1).and_then(|bytes| bytes.parse().ok()),
    });
    let app = Router::new()
        .route("/websocket", get(upgrade))
        .route("/push", post(push))
        .with_state(gateway);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("ready ws=ws://{}/websocket", listener.local_addr()?);
    axum::serve(listener, app).await
}

async fn upgrade(
    upgrade: WebSocketUpgrade,
    Query(who): Query<Who>,
    State(gateway): State<Arc<Gateway>>,
) -> Response {
    let upgrade = match gateway.read_buffer {
        Some(bytes) => upgrade.read_buffer_size(bytes),
        None => upgrade,
    };
    upgrade.on_upgrade(|socket| async move {
        // Whoever has gone is no news.
        let _ = serve(socket, &who.openid, &gateway).await;
        gateway.users().remove(&who.openid);
    })
}

async fn push(State(gateway): State<Arc<Gateway>>, Json(messages): Json<Vec<Value>>) {
    for message in messages {
        // Nobody may be there to hear it.
        let _ = gateway.everybody.send(gateway.broadcast(&message));
    }
}

async fn serve(mut socket: WebSocket, uid: &str, gateway: &Gateway) -> Result<(), axum::Error> {
    let mut pushed = gateway.everybody.subscribe();
    let (said, mut heard) = mpsc::unbounded_channel();
    socket.send(Message::Text(gateway.notice(uid))).await?;
    loop {
        tokio::select! {
            Some(text) = heard.recv() => socket.send(Message::Text(text)).await?,
            Ok(text) = pushed.recv() => socket.send(Message::Text(text)).await?,
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    let Said { kind, to, msg } = serde_json::from_str(&text).map_err(axum::Error::new)?;
                    if kind == 7 {
                        gateway.users().insert(uid.to_owned(), said.clone());
                        socket.send(Message::Text(registered(uid))).await?;
                    } else {
                        let text = gateway.direct(uid, &to, &msg);
                        if let Some(receiver) = gateway.users().get(&to) {
                            let _ = receiver.send(text);
                        }
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        }
    }
}

/// The texts, as long as those of Throng.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a, M> {
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    to: [&'a str; 1],
    msg: M,
    active_time: u64,
    from: &'a str,
    message_id: String,
    msg_type: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    trigger: u8,
}

impl Gateway {
    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notice(&self, uid: &str) -> Utf8Bytes {
        let code = "c".repeat(118);
        let msg = json!({
            "userCode": code, "userId": uid, "userName": uid, "epoch": EPOCH, "headSeq": 0,
        });
        text(&Envelope {
            session_id: Some(session_id(uid)),
            to: [uid],
            msg,
            active_time: now_ms(),
            from: "system",
            message_id: self.message_id(),
            msg_type: 0,
            request_id: None,
            trigger: 2,
        })
    }

    fn direct(&self, from: &str, to: &str, msg: &Value) -> Utf8Bytes {
        text(&Envelope {
            session_id: Some(session_id(to)),
            to: [to],
            msg,
            active_time: now_ms(),
            from,
            message_id: self.message_id(),
            msg_type: 1,
            request_id: None,
            trigger: 2,
        })
    }

    fn broadcast(&self, msg: &Value) -> Utf8Bytes {
        text(&Envelope {
            session_id: None,
            to: ["*"],
            msg,
            active_time: now_ms(),
            from: "system",
            message_id: self.message_id(),
            msg_type: 1,
            request_id: Some("0123456789abcdef0123456789abcdef"),
            trigger: 1,
        })
    }

    fn message_id(&self) -> String {
        format!("{:032}", self.count.fetch_add(1, Ordering::Relaxed))
    }
}

fn registered(uid: &str) -> Utf8Bytes {
    let params = json!({
        "openid": uid, "userName": uid, "loginStatus": "1", "sessionId": session_id(uid),
        "epoch": EPOCH, "headSeq": 0,
    });
    text(&json!({ "type": 8, "status": 200, "params": params }))
}

fn text(value: &impl Serialize) -> Utf8Bytes {
    // What stands here has text for keys, so that it is always JSON.
    serde_json::to_string(value).unwrap_or_default().into()
}

fn session_id(uid: &str) -> String {
    format!("127.0.0.1:8084_{uid}_20261121091500")
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
