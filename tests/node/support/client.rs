//! A client that does nothing by itself: it answers no ping and no close unless it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::PATIENCE;
use super::frame::{self, Frame, Opcode};

/// The key of RFC 6455 section 1.3, and the answer that proves that it was understood.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub struct Client {
    pub stream: TcpStream,
    /// The head of the answer to the upgrade.
    pub head: String,
    pending: Vec<u8>,
}

/// What comes from a server.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Frame(Frame),
    /// The orderly end.
    End,
    /// The connection was torn.
    Reset,
}

/// A server's close frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    pub code: u16,
    pub reason: String,
}

/// An upgrade request for `target`; `fields` are whole lines.
pub fn request(target: &str, fields: &[&str]) -> String {
    let mut text = format!(
        "GET {target} HTTP/1.1\r\nHost: node.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
    );
    for field in fields {
        text.push_str(field);
        text.push_str("\r\n");
    }
    text + "\r\n"
}

/// A TCP connection that sends at once and never waits forever.
pub fn dial(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
    prepare(&stream);
    stream
}

/// The same from a local address.
pub fn dial_from(source: &str, addr: SocketAddr) -> TcpStream {
    let source: IpAddr = source.parse().unwrap();
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    socket.connect(&addr.into()).unwrap();
    let stream = TcpStream::from(socket);
    prepare(&stream);
    stream
}

pub fn prepare(stream: &TcpStream) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

/// The status of an HTTP answer's head.
pub fn status(head: &str) -> u16 {
    let rest = head.strip_prefix("HTTP/1.1 ").expect(head);
    rest[..3].parse().unwrap()
}

impl Client {
    /// A raw connection.
    pub fn over(stream: TcpStream) -> Client {
        Client {
            stream,
            head: String::new(),
            pending: Vec::new(),
        }
    }

    /// Asks for the upgrade; the error is the whole answer of a server that refuses.
    pub fn open(addr: SocketAddr, target: &str, fields: &[&str]) -> Result<Client, String> {
        let mut client = Client::over(dial(addr));
        client.write(request(target, fields).as_bytes());
        client.expect_upgrade().map(|()| client)
    }

    /// Reads the answer to an upgrade that was asked for.
    pub fn expect_upgrade(&mut self) -> Result<(), String> {
        self.head = self.read_head();
        if status(&self.head) == 101 {
            let line = format!("\r\nSec-WebSocket-Accept: {ACCEPT}\r\n");
            assert!(self.head.contains(&line), "{}", self.head);
            return Ok(());
        }
        Err(std::mem::take(&mut self.head) + &self.read_to_end())
    }

    /// Reads up to and with an empty line.
    pub fn read_head(&mut self) -> String {
        loop {
            if let Some(end) = self.pending.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.pending.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            let got = self.read_more();
            assert!(got == Ok(true), "no answer but {:?}", self.pending);
        }
    }

    /// Everything until the orderly end, as text.
    pub fn read_to_end(&mut self) -> String {
        while self.read_more() == Ok(true) {}
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    /// False at the end, an error where the connection is torn.
    fn read_more(&mut self) -> Result<bool, Event> {
        let mut chunk = [0; 64 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.pending.extend(&chunk[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(Event::Reset),
            // A signal: a read with a time limit is not taken up again by itself.
            Err(error) if error.kind() == ErrorKind::Interrupted => self.read_more(),
            Err(error) => panic!("nothing came: {error}"),
        }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        self.write(&frame::whole(opcode, payload));
    }

    /// A text message; the fault of a server that has gone is not the caller's.
    pub fn say(&mut self, message: &Value) {
        self.send(Opcode::Text, message.to_string().as_bytes());
    }

    /// A close frame with a code and no reason.
    pub fn say_goodbye(&mut self, code: u16) {
        self.send(Opcode::Close, &code.to_be_bytes());
    }

    /// The next thing that comes.
    pub fn next(&mut self) -> Event {
        loop {
            if let Some(frame) = frame::take(&mut self.pending) {
                return Event::Frame(frame);
            }
            match self.read_more() {
                Ok(true) => {}
                Ok(false) => {
                    assert!(self.pending.is_empty(), "the end came within a frame");
                    return Event::End;
                }
                Err(reset) => return reset,
            }
        }
    }

    /// The next frame.
    pub fn frame(&mut self) -> Frame {
        match self.next() {
            Event::Frame(frame) => frame,
            other => panic!("{other:?} instead of a frame"),
        }
    }

    /// The next message, as JSON. Pings on the way are answered.
    pub fn hear(&mut self) -> Value {
        loop {
            let frame = self.frame();
            match frame.opcode {
                Opcode::Text => return serde_json::from_slice(&frame.payload).unwrap(),
                Opcode::Ping => self.send(Opcode::Pong, &frame.payload),
                _ => panic!("{:?} instead of a message", Self::read_frame(&frame)),
            }
        }
    }

    fn read_frame(frame: &Frame) -> (Opcode, String) {
        let text = String::from_utf8_lossy(&frame.payload).into_owned();
        (frame.opcode, text)
    }

    /// Waits for the server's close frame; whatever comes before is passed over.
    pub fn closed(&mut self) -> Closed {
        loop {
            let frame = self.frame();
            if frame.opcode == Opcode::Close {
                let code = frame.payload.first_chunk().expect("no code");
                return Closed {
                    code: u16::from_be_bytes(*code),
                    reason: String::from_utf8(frame.payload[2..].to_vec()).unwrap(),
                };
            }
        }
    }

    /// Waits for a close frame of this code and then for the orderly end.
    pub fn expect_close(&mut self, code: u16) -> String {
        let closed = self.closed();
        assert_eq!(closed.code, code, "{}", closed.reason);
        assert_eq!(self.next(), Event::End, "behind the close frame");
        closed.reason
    }

    /// Ends with a close handshake of its own.
    pub fn leave(mut self) {
        self.say_goodbye(1000);
        self.expect_close(1000);
    }

    /// Ends without a word, so that the server sees a reset.
    pub fn vanish(self) {
        reset(self.stream);
    }

    /// Proves that the server answers, and returns what came before its answer.
    pub fn is_heard(&mut self) -> Vec<Value> {
        let mark = format!("mark-{:p}", self);
        self.say(&serde_json::json!({"path": "ping", "requestId": mark}));
        let mut before = Vec::new();
        loop {
            let message = self.hear();
            if message["requestId"] == *mark {
                assert_eq!(message["content"], "pong");
                return before;
            }
            before.push(message);
        }
    }
}

/// Tears a connection: the peer gets a reset instead of an end.
pub fn reset(stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}
