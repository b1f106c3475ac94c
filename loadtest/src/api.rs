//! The HTTP API: pushes and groups, on one kept-alive connection.

use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use memchr::memmem;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
/// A server may close a connection that has been idle for some seconds. A push is not repeated,
/// as nobody could say whether it was done; so an idle connection is not used again.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// More than any answer to a push.
const ANSWER_BYTES_MAX: usize = 1 << 20;

pub struct Api {
    /// None after an error: nobody knows what would come next on it.
    stream: Option<TcpStream>,
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
            stream: Some(dial(&address)?),
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
                "POST /api/v1/messages",
                &format!("{{\"sendToAll\":true,\"msg\":{body}}}"),
                &mut requests,
            );
        }
        self.ask(&requests, bodies.len(), judged).map(drop)
    }

    /// Pushes `body` (a `msg` object) to these users, to be stored.
    pub fn store_for(&mut self, users: &[String], body: &str) -> io::Result<()> {
        let mut request = String::new();
        let names = users.join("\",\"");
        self.write_request(
            "POST /api/v1/messages",
            &format!("{{\"to\":[\"{names}\"],\"msg\":{body}}}"),
            &mut request,
        );
        self.ask(&request, 1, judged).map(drop)
    }

    /// Posts one body, whatever the answer says.
    pub fn post(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        let mut request = String::new();
        self.write_request(&format!("POST {path}"), body, &mut request);
        let answer = self.ask(&request, 1, Ok)?;
        Answer::read(&answer)
    }

    pub fn make_group(&mut self, id: &str, users: &[String]) -> io::Result<()> {
        let mut request = String::new();
        let names = users.join("\",\"");
        self.write_request(
            "POST /api/v1/groups",
            &format!("{{\"groupId\":\"{id}\",\"userIdList\":[\"{names}\"]}}"),
            &mut request,
        );
        self.ask(&request, 1, judged).map(drop)
    }

    pub fn end_group(&mut self, id: &str) -> io::Result<()> {
        let request = self.bare(&format!("DELETE /api/v1/groups/{id}"));
        self.ask(&request, 1, judged).map(drop)
    }

    /// What `path` says, a text for people or for monitors.
    pub fn text(&mut self, path: &str) -> io::Result<String> {
        let request = self.bare(&format!("GET {path}"));
        let answer = self.ask(&request, 1, Ok)?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        match text.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => Err(invalid(text)),
        }
    }

    /// How many nodes the server knows, itself included.
    pub fn nodes(&mut self) -> io::Result<usize> {
        let request = self.bare("GET /api/v1/nodes");
        let answer = self.ask(&request, 1, judged)?;
        Ok(memmem::find_iter(&answer, b"\"wsUrl\":").count())
    }

    /// Sends requests, and reads as many answers. The last one, if all are good.
    fn ask(
        &mut self,
        requests: &str,
        count: usize,
        judge: impl Fn(Vec<u8>) -> io::Result<Vec<u8>>,
    ) -> io::Result<Vec<u8>> {
        let is_idle = self.last_used.elapsed() > IDLE_MAX;
        let mut stream = match self.stream.take().filter(|_| !is_idle) {
            Some(stream) => stream,
            None => {
                self.received.clear();
                dial(&self.address)?
            }
        };
        stream.write_all(requests.as_bytes())?;
        let mut last = Vec::new();
        for _ in 0..count {
            last = judge(self.read_answer(&mut stream)?)?;
        }
        self.last_used = Instant::now();
        self.stream = Some(stream);
        Ok(last)
    }

    fn write_head(&self, what: &str, out: &mut String) {
        let _ = write!(out, "{what} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if let Some(key) = &self.key {
            let _ = write!(out, "Authorization: Bearer {key}\r\n");
        }
    }

    /// A request without a body.
    fn bare(&self, what: &str) -> String {
        let mut request = String::new();
        self.write_head(what, &mut request);
        request.push_str("\r\n");
        request
    }

    fn write_request(&self, what: &str, body: &str, out: &mut String) {
        self.write_head(what, out);
        let length = body.len();
        let _ = write!(
            out,
            "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
    }

    fn read_answer(&mut self, stream: &mut TcpStream) -> io::Result<Vec<u8>> {
        loop {
            if let Some(length) = answer_length(&self.received)? {
                return Ok(self.received.drain(..length).collect());
            }
            let mut piece = [0; 4 << 10];
            match stream.read(&mut piece)? {
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

/// The answer, if it is a good one.
fn judged(answer: Vec<u8>) -> io::Result<Vec<u8>> {
    if answer.starts_with(b"HTTP/1.1 200") && memmem::find(&answer, b"\"success\":true").is_some() {
        return Ok(answer);
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text.lines().next().unwrap_or_default();
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    Err(invalid(format!("{status}: {body}")))
}

/// What the API says to a push.
#[derive(Clone, Debug)]
pub struct Answer {
    pub is_success: bool,
    /// As the body has it: that of HTTP, or -501.
    status: i64,
    content: Value,
}

impl Answer {
    fn read(answer: &[u8]) -> io::Result<Answer> {
        let end = memmem::find(answer, b"\r\n\r\n").unwrap_or(answer.len());
        let status = answer.get(9..12).and_then(|s| std::str::from_utf8(s).ok());
        let status = status.and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| invalid("an answer without a status".to_owned()))?;
        Answer::parse(status, answer.get(end + 4..).unwrap_or_default())
    }

    /// `status` is that of HTTP; an answer that is not JSON has no other.
    pub fn parse(status: u16, body: &[u8]) -> io::Result<Answer> {
        let mut body: Value = serde_json::from_slice(body).unwrap_or_default();
        let is_success = status == 200 && body["success"] == true;
        let named = body["statusCode"].as_i64();
        if is_success && named != Some(200) {
            return Err(invalid("a success with another status".to_owned()));
        }
        Ok(Answer {
            is_success,
            status: named.unwrap_or(status.into()),
            content: body.get_mut("content").map(Value::take).unwrap_or_default(),
        })
    }

    /// Users who are not connected.
    pub fn absent(&self) -> u64 {
        let is_told = self.status == -501;
        let users = self.content.as_array().filter(|_| is_told);
        users.map_or(0, |users| users.len() as u64)
    }

    /// Of a push that was not accepted for all its users: for so many it was.
    pub fn sent(&self) -> u64 {
        let users = self.content["sent"].as_object();
        users.map_or(0, |users| users.len() as u64)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        match self.content["reason"].as_str() {
            Some(reason) => write!(f, " {reason}"),
            None => Ok(()),
        }
    }
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
