//! Plain HTTP/1.1, one request a connection.

use std::net::SocketAddr;

use serde_json::Value;

use super::client::{Client, dial, status};

/// An answer. `head` has the status line and the fields.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    /// What a good answer carries.
    pub fn content(&self) -> Value {
        let value = self.json();
        assert_eq!(
            (self.status, &value["success"]),
            (200, &true.into()),
            "{value}"
        );
        value["content"].clone()
    }

    /// The value of a field, by its name in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends a request; `fields` are whole lines, and replace the Host where they name one.
pub fn call(addr: SocketAddr, method: &str, path: &str, fields: &[&str], body: &str) -> Answer {
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !fields.iter().any(|field| field.starts_with("Host:")) {
        text.push_str(&format!("Host: {addr}\r\n"));
    }
    if !body.is_empty() {
        let length = body.len();
        text.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {length}\r\n"
        ));
    }
    for field in fields {
        text.push_str(field);
        text.push_str("\r\n");
    }
    let mut client = Client::over(dial(addr));
    client.write(format!("{text}\r\n{body}").as_bytes());
    let head = client.read_head();
    let body = client.read_to_end();
    Answer {
        status: status(&head),
        head,
        body,
    }
}
