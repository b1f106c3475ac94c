//! A backend that pushes to users over HTTP, and repeats what nobody has confirmed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use throng_history::{Class, Sent, What};

use crate::crowd::Shared;
use crate::random::Random;

const PATIENCE: Duration = Duration::from_secs(15);
/// Whose pushes these are.
const SENDER: &str = "system";

pub fn live(shared: &Arc<Shared>, mut random: Random) {
    let mut open: Vec<Sent> = Vec::new();
    while !shared.is_over() {
        if open.is_empty() && shared.is_talking() {
            open = begin(shared, &mut random);
        }
        if let Some(door) = shared.door(&mut random)
            && !open.is_empty()
        {
            open = push(shared, door.api, open);
        }
        shared.set_backend_calm(open.is_empty());
        sleep(random.millis(2, 30));
    }
}

/// One message to one or two users.
fn begin(shared: &Shared, random: &mut Random) -> Vec<Sent> {
    let mut users = shared.users.clone();
    random.shuffle(&mut users);
    users.truncate(1 + random.below(2));
    let msgid = shared.next_msgid();
    let to = |to: String| Sent {
        class: Class::Push,
        sender: SENDER.to_owned(),
        msgid: msgid.clone(),
        to,
    };
    users.into_iter().map(to).collect()
}

/// Tries once, and returns what is not confirmed.
fn push(shared: &Shared, api: SocketAddr, open: Vec<Sent>) -> Vec<Sent> {
    for sent in &open {
        let sent = sent.clone();
        let connection = None;
        shared.scribe.tell(What::Send { sent, connection });
    }
    let answer = call(shared, api, &order(&open));
    let left = open.into_iter().filter_map(|sent| {
        let (status, content) = match &answer {
            Ok((status, json)) => (*status, &json["content"]),
            Err(_) => (0, &Value::Null),
        };
        let found = [&content[&sent.to], &content["sent"][&sent.to]];
        let message_id = found.iter().find_map(|id| id.as_str());
        if let Some(message_id) = message_id {
            shared.confirm(sent, message_id.to_owned(), false);
            return None;
        }
        shared.scribe.tell(match status {
            503 => What::Failed {
                sent: sent.clone(),
                definite: true,
                code: status,
            },
            _ => What::Unknown { sent: sent.clone() },
        });
        Some(sent)
    });
    left.collect()
}

/// All of them are one message, to several users.
fn order(open: &[Sent]) -> Value {
    let to: Vec<&str> = open.iter().map(|sent| sent.to.as_str()).collect();
    // A repetition to fewer users has to be the same message.
    let sent = Sent {
        to: String::new(),
        ..open[0].clone()
    };
    let text = serde_json::to_string(&sent).unwrap();
    json!({"to": to, "msg": {"sent": text}, "uniqueMsgid": sent.msgid, "store": true})
}

/// The status and the body of the answer, if a whole one came.
fn call(shared: &Shared, api: SocketAddr, body: &Value) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect_timeout(&api, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = body.to_string();
    let request = format!(
        "POST /api/v1/messages HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\n{}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        shared.key_field,
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status: u16 = status.ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, serde_json::from_str(body)?))
}
