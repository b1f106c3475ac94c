//! Pushes over the HTTP API, on one kept-alive connection.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use memchr::memmem;

const PATIENCE: Duration = Duration::from_secs(30);
/// A server may close a connection that has been idle for some seconds. A push is not repeated,
/// as nobody could say whether it was done; so an idle connection is not used again.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// More than any answer to a push.
const ANSWER_BYTES_MAX: usize = 1 << 20;

pub struct Api {
    stream: TcpStream,
    last_used: Instant,
    address: SocketAddr,
    host: String,
    key: Option<String>,
    received: Vec<u8>,
}

impl Api {
    /// `url`: `http://HOST:PORT`. `key`: the API key, where one is set.
    pub fn connect(url: &str, key: Option<String>) -> io::Result<Api> {
        let host = url
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'))
            .ok_or_else(|| invalid(format!("{url} is not http://HOST:PORT")))?;
        let address = host
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| invalid(format!("{host} has no address")))?;
        Ok(Api {
            stream: dial(&address)?,
            last_used: Instant::now(),
            address,
            host: host.to_owned(),
            key,
            received: Vec::new(),
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// Pushes each of `bodies` (`msg` objects) to everybody. They leave in one write, so the
    /// server has the last before everybody has heard the first.
    pub fn send_to_all(&mut self, bodies: &[String]) -> io::Result<()> {
        let mut requests = String::new();
        for body in bodies {
            self.write_request(
                &format!("{{\"sendToAll\":true,\"msg\":{body}}}"),
                &mut requests,
            );
        }
        self.ask(&requests, bodies.len())?;
        Ok(())
    }

    /// Pushes `body` (a `msg` object) to these users, to be stored.
    pub fn store_for(&mut self, users: &[String], body: &str) -> io::Result<()> {
        let mut request = String::new();
        let names = users.join("\",\"");
        self.write_request(
            &format!("{{\"to\":[\"{names}\"],\"msg\":{body}}}"),
            &mut request,
        );
        self.ask(&request, 1).map(drop)
    }

    /// What `path` says, a text for people or for monitors.
    pub fn text(&mut self, path: &str) -> io::Result<String> {
        let mut request = String::new();
        self.write_head(&format!("GET {path}"), &mut request);
        request.push_str("\r\n");
        self.send(&request)?;
        let answer = self.read_answer()?;
        self.last_used = Instant::now();
        let text = String::from_utf8_lossy(&answer).into_owned();
        match text.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => Err(invalid(text)),
        }
    }

    /// How many nodes the server knows, itself included.
    pub fn nodes(&mut self) -> io::Result<usize> {
        let mut request = String::new();
        self.write_head("GET /api/v1/nodes", &mut request);
        request.push_str("\r\n");
        let answer = self.ask(&request, 1)?;
        Ok(memmem::find_iter(&answer, b"\"wsUrl\":").count())
    }

    /// Sends requests, and reads as many answers. The last one, if all are good.
    fn ask(&mut self, requests: &str, count: usize) -> io::Result<Vec<u8>> {
        self.send(requests)?;
        let mut last = Vec::new();
        for _ in 0..count {
            last = self.read_answer()?;
            judge(&last)?;
        }
        self.last_used = Instant::now();
        Ok(last)
    }

    fn send(&mut self, requests: &str) -> io::Result<()> {
        if self.last_used.elapsed() > IDLE_MAX {
            self.stream = dial(&self.address)?;
        }
        self.stream.write_all(requests.as_bytes())
    }

    fn write_head(&self, what: &str, out: &mut String) {
        let _ = write!(out, "{what} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if let Some(key) = &self.key {
            let _ = write!(out, "Authorization: Bearer {key}\r\n");
        }
    }

    fn write_request(&self, body: &str, out: &mut String) {
        self.write_head("POST /api/v1/messages", out);
        let length = body.len();
        let _ = write!(
            out,
            "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
    }

    fn read_answer(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(length) = answer_length(&self.received)? {
                return Ok(self.received.drain(..length).collect());
            }
            let mut piece = [0; 4 << 10];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.received.extend_from_slice(&piece[..length]),
            }
            if self.received.len() > ANSWER_BYTES_MAX {
                return Err(invalid("the answer is too long".to_owned()));
            }
        }
    }
}

fn dial(address: &SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The length of the first answer in `bytes`, if it has arrived.
fn answer_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let body: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .ok_or_else(|| invalid("an answer without Content-Length".to_owned()))?;
    let whole = end + 4 + body;
    Ok((bytes.len() >= whole).then_some(whole))
}

fn judge(answer: &[u8]) -> io::Result<()> {
    if answer.starts_with(b"HTTP/1.1 200") && memmem::find(answer, b"\"success\":true").is_some() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(answer);
    let status = text.lines().next().unwrap_or_default();
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    Err(invalid(format!("{status}: {body}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn answers_are_read_one_by_one_and_judged() {
        let good = b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"success\":true}";
        let bad = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}";
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .write_all(&[&good[..], &good[..10]].concat())
                .unwrap();
            std::thread::sleep(Duration::from_millis(10));
            stream.write_all(&[&good[10..], &bad[..]].concat()).unwrap();
            let mut asked = String::new();
            stream.read_to_string(&mut asked).unwrap();
            asked
        });
        let mut api = Api::connect(&url, Some("k".repeat(32))).unwrap();
        let body = "{\"text\":\"hi\"}".to_owned();
        api.send_to_all(&[body.clone(), body.clone()]).unwrap();
        let error = api.send_to_all(&[body]).unwrap_err();
        assert!(error.to_string().contains("401 Unauthorized"), "{error}");
        drop(api);
        let asked = server.join().unwrap();
        assert!(asked.starts_with("POST /api/v1/messages HTTP/1.1\r\n"));
        assert!(asked.ends_with("\r\n\r\n{\"sendToAll\":true,\"msg\":{\"text\":\"hi\"}}"));
    }
}
