//! A WebSocket connection that may break at any moment: everything that fails is an error, and
//! what comes is asked for in small pieces of time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client;
use crate::support::frame::{self, Frame, Opcode};

/// How long one look at the socket takes at most.
const LOOK: Duration = Duration::from_millis(4);
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Wire {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Wire {
    /// Upgrades at `target`.
    pub fn open(addr: SocketAddr, target: &str) -> io::Result<Wire> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut wire = Wire {
            stream,
            pending: Vec::new(),
        };
        wire.stream
            .write_all(client::request(target, &[]).as_bytes())?;
        let deadline = Instant::now() + PATIENCE;
        let end = loop {
            if let Some(at) = wire.pending.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            wire.read()?;
            if Instant::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
        };
        let head = String::from_utf8_lossy(&wire.pending[..end]).into_owned();
        wire.pending.drain(..end);
        match client::status(&head) {
            101 => Ok(wire),
            _ => Err(io::Error::other(head)),
        }
    }

    pub fn say(&mut self, message: &Value) -> io::Result<()> {
        self.send(Opcode::Text, message.to_string().as_bytes())
    }

    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        self.stream.write_all(&frame::whole(opcode, payload))
    }

    /// The next frame, if there is one; it does not wait for long.
    pub fn hear(&mut self) -> io::Result<Option<Frame>> {
        match frame::take(&mut self.pending) {
            Some(frame) => Ok(Some(frame)),
            None => {
                self.read()?;
                Ok(frame::take(&mut self.pending))
            }
        }
    }

    /// Tears the connection: whatever is under way is lost.
    pub fn tear(self) {
        client::reset(self.stream);
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 64 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.pending.extend(&chunk[..count]);
                Ok(())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
