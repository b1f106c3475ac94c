//! One client and its socket: what the one says goes out by the other.
//!
//! Owns: the client's socket, while there is one.
//! Invariants: when [`Seat::serve`] was well, everything that the socket had is read.

use std::io::{self, Read, Write};
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;

use crate::client::{Client, Desk, Phase};
use crate::counts::Failure;

pub struct Seat {
    stream: Option<TcpStream>,
    pub client: Client,
}

// Eight bytes less where mio checks nothing.
const _: () = assert!(size_of::<Seat>() <= 56);

/// The connection is over: by this failure, or by the peer's orderly end.
pub struct End(pub Option<Failure>);

impl From<&io::Error> for End {
    fn from(error: &io::Error) -> End {
        End(Some(Failure::from(error)))
    }
}

impl Seat {
    pub fn new(stream: Option<TcpStream>) -> Seat {
        let client = Client::new();
        Seat { stream, client }
    }

    pub fn is_empty(&self) -> bool {
        self.stream.is_none()
    }

    pub fn take(&mut self) -> Option<TcpStream> {
        self.stream.take()
    }

    /// Ends the connection at once, and its port is free.
    pub fn reset(&mut self) {
        if let Some(stream) = self.take() {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// A registered client has had enough, and ends the connection by a reset.
    pub fn cut(&mut self, index: u32, desk: &mut Desk) {
        self.client.cut(index, desk);
        self.reset();
    }

    /// A registered client has had enough, and says so.
    pub fn say_goodbye(&mut self, index: u32, desk: &mut Desk) -> Result<(), End> {
        self.client.say_goodbye(index, desk);
        self.flush(desk)
    }

    /// True for a registered client that may talk.
    pub fn can_talk(&self) -> bool {
        self.stream.is_some() && self.client.phase() == Phase::Ready
    }

    /// Does what the event calls for.
    pub fn serve(
        &mut self,
        event: &Event,
        index: u32,
        buffer: &mut [u8],
        desk: &mut Desk,
    ) -> Result<(), End> {
        if self.client.phase() == Phase::Dialing {
            self.finish_dialing(index, desk)?;
        }
        if event.is_readable() {
            self.hear(event.is_read_closed(), index, buffer, desk)?;
        }
        Ok(())
    }

    /// Reads everything that has come while nobody read.
    pub fn catch_up(&mut self, index: u32, buffer: &mut [u8], desk: &mut Desk) -> Result<(), End> {
        self.hear(true, index, buffer, desk)
    }

    fn finish_dialing(&mut self, index: u32, desk: &mut Desk) -> Result<(), End> {
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        match stream.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Err(End::from(&error)),
        }
        if stream.peer_addr().is_err() {
            return Ok(());
        }
        self.client.dialed(index, desk);
        self.flush(desk)
    }

    /// Reads what there is. A short read has emptied the socket, so the next bytes are a new
    /// event; not so the end that came with this one.
    fn hear(
        &mut self,
        has_ended: bool,
        index: u32,
        buffer: &mut [u8],
        desk: &mut Desk,
    ) -> Result<(), End> {
        while let Some(stream) = &mut self.stream {
            match stream.read(buffer) {
                Ok(0) => return Err(End(None)),
                Ok(length) => {
                    let received = self.client.receive(&buffer[..length], index, desk);
                    self.flush(desk)?;
                    received.map_err(|failure| End(Some(failure)))?;
                    if length < buffer.len() && !has_ended {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(End::from(&error)),
            }
        }
        Ok(())
    }

    /// Sends what stands in `desk.out`, which is little: where that finds no room at once, the
    /// server has stopped reading.
    pub fn flush(&mut self, desk: &mut Desk) -> Result<(), End> {
        let Some(stream) = self.stream.as_mut().filter(|_| !desk.out.is_empty()) else {
            return Ok(());
        };
        let written = stream.write(&desk.out);
        let length = desk.out.len();
        desk.out.clear();
        match written {
            Ok(n) if n == length => Ok(()),
            Ok(_) => Err(End(Some(Failure::SendBlocked))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(End(Some(Failure::SendBlocked)))
            }
            Err(error) => Err(End::from(&error)),
        }
    }
}
