//! Unicast across two nodes: those who send are on the one, those who receive on the other, and a
//! message leaves when one has arrived. One thread, and the same client for every server.
//!
//! Owns: the connections. Those of senders come first; sender i writes to receiver i.
//! Invariants: each message is counted once, by its number; what has not arrived after a while is
//! lost, and another one leaves instead.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use throng_loadtest::frame::{self, Keys, Torn};
use throng_loadtest::message::{self, Direct, Text, Upgrade};

use super::dialect::{Dialect, Entry};
use crate::Failed;

const ENTER_PATIENCE: Duration = Duration::from_secs(60);
/// What has not arrived by then will not.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const BUFFER_BYTES: usize = 64 << 10;
const LATENCY_MAX_NANOS: u64 = 60_000_000_000;
/// Handshakes under way at once.
const WINDOW: usize = 64;

pub struct Callers {
    dialect: Dialect,
    poll: Poll,
    links: Vec<Link>,
    pairs: usize,
    ready: usize,
    keys: Keys,
    speaker: usize,
    buffer: Box<[u8]>,
    /// The number of the next message, of all volleys.
    number: u32,
}

struct Link {
    stream: TcpStream,
    torn: Torn,
    user: String,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Upgrading,
    Entering,
    In,
}

/// How a volley went.
pub struct Talked {
    pub sent: u64,
    pub received: u64,
    /// From the first that was sent to the last that arrived.
    pub took: Duration,
    /// Sender to receiver, in nanoseconds.
    pub latency: Histogram<u64>,
}

/// What one volley has so far.
struct Volley {
    began: Instant,
    last: Instant,
    due: usize,
    in_flight: HashSet<u32>,
    /// When each was sent, in that order; also those that have arrived.
    sent: VecDeque<(u32, Instant)>,
    talked: Talked,
}

impl Callers {
    /// Connects all of them, the senders to `from` and the receivers to `to`.
    pub fn gather(
        dialect: Dialect,
        from: SocketAddr,
        to: SocketAddr,
        pairs: usize,
    ) -> Result<Callers, Failed> {
        let mut callers = Callers {
            dialect,
            poll: Poll::new()?,
            links: Vec::new(),
            pairs,
            ready: 0,
            keys: Keys::new(1),
            speaker: 0,
            buffer: vec![0; BUFFER_BYTES].into(),
            number: 0,
        };
        let deadline = Instant::now() + ENTER_PATIENCE;
        let mut events = Events::with_capacity(1024);
        for place in 0..2 * pairs {
            let at = if place < pairs { from } else { to };
            callers.dial(place, at)?;
            while callers.links.len() - callers.ready >= WINDOW {
                callers.enter(&mut events, deadline)?;
            }
        }
        while callers.ready < 2 * pairs {
            callers.enter(&mut events, deadline)?;
        }
        Ok(callers)
    }

    fn dial(&mut self, place: usize, at: SocketAddr) -> Result<(), Failed> {
        let user = user(place, self.pairs);
        let receiver = (place < self.pairs).then(|| self::user(place + self.pairs, self.pairs));
        let (path, query) = self.dialect.place(&user, receiver.as_deref())?;
        let mut request = String::new();
        message::write_upgrade(&mut request, &at.to_string(), path, &query);
        let mut stream = std::net::TcpStream::connect(at)?;
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes())?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll
            .registry()
            .register(&mut stream, Token(place), Interest::READABLE)?;
        self.links.push(Link {
            stream,
            torn: Torn::default(),
            user,
            phase: Phase::Upgrading,
        });
        Ok(())
    }

    fn enter(&mut self, events: &mut Events, deadline: Instant) -> Result<(), Failed> {
        if Instant::now() > deadline {
            let (ready, all) = (self.ready, 2 * self.pairs);
            return Err(format!("{ready} of {all} clients were let in").into());
        }
        self.poll(events)?;
        for event in events.iter() {
            self.serve(event, &mut Volley::new(0)?)?;
        }
        Ok(())
    }

    fn poll(&mut self, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, Some(LOOK_EVERY)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Has them talk for so long, `in_flight` messages at a time, and waits for the last.
    pub fn talk(&mut self, lasts: Duration, in_flight: usize) -> Result<Talked, Failed> {
        let mut volley = Volley::new(in_flight)?;
        let mut events = Events::with_capacity(1024);
        loop {
            let now = Instant::now();
            volley.give_up(now);
            if now >= volley.began + lasts {
                volley.due = 0;
            }
            if volley.due == 0 && volley.in_flight.is_empty() {
                volley.talked.took = volley.last - volley.began;
                return Ok(volley.talked);
            }
            self.speak(&mut volley)?;
            self.poll(&mut events)?;
            for event in events.iter() {
                self.serve(event, &mut volley)?;
            }
        }
    }

    fn speak(&mut self, volley: &mut Volley) -> Result<(), Failed> {
        while volley.due > 0 {
            volley.due -= 1;
            let place = self.speaker;
            self.speaker = (place + 1) % self.pairs;
            let receiver = place + self.pairs;
            let now = Instant::now();
            let direct = Direct {
                number: self.number,
                sent_nanos: (now - volley.began).as_nanos() as u64,
                receiver: receiver as u32,
            };
            let (mut text, mut wire) = (String::new(), Vec::new());
            self.dialect
                .say(&self.links[receiver].user, direct, &mut text);
            let key = self.keys.draw();
            frame::write_masked(&mut wire, frame::TEXT, text.as_bytes(), key);
            volley.in_flight.insert(self.number);
            volley.sent.push_back((self.number, now));
            volley.talked.sent += 1;
            self.number = self.number.wrapping_add(1);
            send(&mut self.links[place].stream, &wire)?;
        }
        Ok(())
    }

    fn serve(&mut self, event: &Event, volley: &mut Volley) -> Result<(), Failed> {
        let place = event.token().0;
        loop {
            let read = self.links[place].stream.read(&mut self.buffer);
            let length = match read {
                Ok(0) => return Err("a server has closed a connection".into()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let buffer = std::mem::take(&mut self.buffer);
            let mut torn = std::mem::take(&mut self.links[place].torn);
            let fed = torn.feed(&buffer[..length], |rest| self.unit(rest, place, volley));
            self.links[place].torn = torn;
            self.buffer = buffer;
            fed?;
            // A short read has emptied the socket.
            if length < BUFFER_BYTES {
                return Ok(());
            }
        }
    }

    fn unit(&mut self, rest: &[u8], place: usize, volley: &mut Volley) -> Result<usize, Failed> {
        if self.links[place].phase == Phase::Upgrading {
            return match message::read_upgrade(rest) {
                Upgrade::Torn => Ok(0),
                Upgrade::Switched(length) => {
                    self.links[place].phase = Phase::Entering;
                    if self.dialect.is_in_at_once() {
                        self.let_in(place);
                    }
                    Ok(length)
                }
                refused => Err(format!("a server refused an upgrade: {refused:?}").into()),
            };
        }
        let Some((frame, length)) = frame::parse(rest)? else {
            return Ok(0);
        };
        match frame.opcode {
            frame::TEXT => self.text(frame.payload, place, volley)?,
            frame::PING => self.answer(place, frame::PONG, frame.payload)?,
            frame::CLOSE => return Err("a server said goodbye".into()),
            _ => {}
        }
        Ok(length)
    }

    fn text(&mut self, text: &[u8], place: usize, volley: &mut Volley) -> Result<(), Failed> {
        if let Some(answer) = self.dialect.answer(text) {
            return self.answer(place, frame::TEXT, answer.as_bytes());
        }
        if self.links[place].phase == Phase::Entering {
            let mut say = String::new();
            match self.dialect.enter(text, &self.links[place].user, &mut say) {
                Entry::Wait => {}
                Entry::Say => self.answer(place, frame::TEXT, say.as_bytes())?,
                Entry::Done => self.let_in(place),
            }
            return Ok(());
        }
        match message::read(text) {
            Text::Direct(direct) if direct.receiver as usize == place => volley.hear(direct),
            Text::Refusal => {
                let said = String::from_utf8_lossy(text);
                return Err(format!("a message was refused: {said}").into());
            }
            _ => {}
        }
        Ok(())
    }

    fn let_in(&mut self, place: usize) {
        self.links[place].phase = Phase::In;
        self.ready += 1;
    }

    fn answer(&mut self, place: usize, opcode: u8, payload: &[u8]) -> Result<(), Failed> {
        let mut wire = Vec::new();
        frame::write_masked(&mut wire, opcode, payload, self.keys.draw());
        send(&mut self.links[place].stream, &wire)
    }
}

impl Volley {
    fn new(in_flight: usize) -> Result<Volley, Failed> {
        let began = Instant::now();
        Ok(Volley {
            began,
            last: began,
            due: in_flight,
            in_flight: HashSet::new(),
            sent: VecDeque::new(),
            talked: Talked {
                sent: 0,
                received: 0,
                took: Duration::ZERO,
                latency: Histogram::new_with_max(LATENCY_MAX_NANOS, 3)?,
            },
        })
    }

    /// What was sent too long ago is lost.
    fn give_up(&mut self, now: Instant) {
        while let Some(&(number, at)) = self.sent.front() {
            let is_on_its_way = self.in_flight.contains(&number);
            if is_on_its_way && now < at + PATIENCE {
                return;
            }
            self.sent.pop_front();
            if is_on_its_way {
                self.in_flight.remove(&number);
                self.due += 1;
            }
        }
    }

    fn hear(&mut self, direct: Direct) {
        if !self.in_flight.remove(&direct.number) {
            return;
        }
        self.last = Instant::now();
        let took = (self.last - self.began).as_nanos() as u64;
        let took = took.saturating_sub(direct.sent_nanos);
        self.talked.latency.saturating_record(took);
        self.talked.received += 1;
        self.due += 1;
    }
}

/// An id as long as those of the crowd.
fn user(place: usize, pairs: usize) -> String {
    let role = if place < pairs { "send" } else { "hear" };
    format!("{role}-{place:027}")
}

/// What is sent is little: where it finds no room at once, the server has stopped reading.
fn send(stream: &mut TcpStream, wire: &[u8]) -> Result<(), Failed> {
    match stream.write(wire)? {
        length if length == wire.len() => Ok(()),
        _ => Err("a server has stopped reading".into()),
    }
}
