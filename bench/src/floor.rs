//! The floor: a server of nothing but system calls, with canned bytes.
//!
//! It makes the calls that a perfect gateway would make for the crowd's traffic, and no others:
//! accept, epoll_ctl, recv, send (101 and notice), recv, send (type 8); one send for each
//! connection and broadcast, or for all that are queued together; for a direct message
//! epoll_wait, recv, send; for a heartbeat a send and a recv. It parses nothing that it does not
//! have to: what stands at a fixed place is taken from there. Threads, listeners and file tables
//! are as the gateway's.
//!
//! Owns: its reactors' sockets; the directory (client number → reactor and slot).
//! Neighbours: the bench pushes broadcasts through the trigger connection ([`push`]).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};
use throng::parts::time::TICK_MS;
use throng::protocol::mask;
use throng::sys::{self, EventFd};
use throng_loadtest::message::{self, BODY_BYTES, Text};

use crate::canned;

const LISTENER: Token = Token(usize::MAX);
const BELL: Token = Token(usize::MAX - 1);
/// A ping without payload.
const PING: [u8; 2] = [0x89, 0];
/// Between two looks at who is to be pinged: a tick of the gateway's wheel.
const TICK: Duration = Duration::from_millis(TICK_MS);
/// Clients that the directory has room for.
const CLIENTS_MAX: usize = 1 << 20;
/// Where the user id stands in a registration, and the body in a direct frame.
const REGISTER_UID: usize = r#"{"type":7,"params":{"openid":""#.len();
const DIRECT_BODY: usize = r#"{"to":""#.len() + UID_CHARS + r#"","msg":""#.len();
const UID_CHARS: usize = throng_loadtest::plan::UID_CHARS;

/// What one reactor asks of another.
enum Mail {
    Broadcast(Arc<[u8]>),
    Deliver { slot: u32, body: [u8; BODY_BYTES] },
}

struct Mailbox {
    queue: Mutex<Vec<Mail>>,
    is_woken: AtomicBool,
    bell: EventFd,
}

impl Mailbox {
    fn send(&self, mail: Mail) {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(mail);
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.bell.ring();
        }
    }

    fn take(&self) -> Vec<Mail> {
        self.is_woken.store(false, Ordering::Release);
        std::mem::take(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Shared {
    address: SocketAddr,
    mailboxes: Vec<Mailbox>,
    /// Each connection is pinged so often, if at all.
    ping_every: Option<Duration>,
    /// Reactor (high half) and slot of each client, plus one.
    directory: Box<[AtomicU64]>,
}

/// Serves until it is killed. Says where it listens and where it takes triggers.
/// Each connection is pinged every `ping_secs` seconds, 0 for never.
pub fn serve(listen: SocketAddr, reactors: usize, ping_secs: u32) -> io::Result<()> {
    sys::raise_descriptor_limit()?;
    let mailbox = || {
        let (queue, is_woken) = (Mutex::default(), AtomicBool::new(false));
        Ok::<_, io::Error>(Mailbox {
            queue,
            is_woken,
            bell: EventFd::new()?,
        })
    };
    let mailboxes = (0..reactors)
        .map(|_| mailbox())
        .collect::<io::Result<Vec<_>>>()?;
    // It holds the port, which may have been picked, until all have bound it.
    let holder = bind(listen)?;
    let shared = Arc::new(Shared {
        address: holder
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::AddrNotAvailable)?,
        mailboxes,
        ping_every: (ping_secs > 0).then(|| Duration::from_secs(ping_secs.into())),
        directory: (0..CLIENTS_MAX).map(|_| AtomicU64::new(0)).collect(),
    });
    let (ready, all_ready) = mpsc::channel();
    for number in 0..reactors {
        let (shared, ready) = (shared.clone(), ready.clone());
        std::thread::Builder::new()
            .name(format!("floor-{number}"))
            .spawn(move || {
                let failed = Reactor::new(number, shared).and_then(|mut reactor| {
                    // Whoever waits for it has gone only when the process ends.
                    let _ = ready.send(());
                    reactor.run()
                });
                eprintln!("floor: reactor {number} stopped: {:?}", failed.err());
                std::process::exit(1);
            })?;
    }
    for _ in 0..reactors {
        all_ready.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
    }
    drop(holder);
    let trigger = StdListener::bind("127.0.0.1:0")?;
    println!(
        "ready ws=ws://{}/websocket trigger={}",
        shared.address,
        trigger.local_addr()?
    );
    loop {
        let (stream, _) = trigger.accept()?;
        match take_triggers(stream, &shared) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        }
    }
}

/// Pushes broadcasts, already framed and one behind the other: each connection gets them in one
/// send. Returns when they are queued.
pub fn push(trigger: &mut StdStream, wire: &[u8]) -> io::Result<()> {
    let mut message = (wire.len() as u32).to_be_bytes().to_vec();
    message.extend_from_slice(wire);
    trigger.write_all(&message)?;
    trigger.read_exact(&mut [0])
}

fn take_triggers(mut stream: StdStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut wire = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut wire)?;
        let wire: Arc<[u8]> = wire.into();
        for mailbox in &shared.mailboxes {
            mailbox.send(Mail::Broadcast(wire.clone()));
        }
        stream.write_all(&[1])?;
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // What is accepted inherits it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[derive(Clone, Copy)]
enum Phase {
    Accepted,
    Greeted,
    Registered,
}

struct Connection {
    stream: TcpStream,
    phase: Phase,
}

struct Reactor {
    number: usize,
    shared: Arc<Shared>,
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    greeting: Vec<u8>,
    registered: Vec<u8>,
    direct: Vec<u8>,
    direct_body: std::ops::Range<usize>,
    buffer: Box<[u8]>,
    /// The slot that is pinged next, and when the last ones were.
    pinged: usize,
    pinged_at: Instant,
}

impl Reactor {
    fn new(number: usize, shared: Arc<Shared>) -> io::Result<Reactor> {
        // It rings the others' bells, too.
        let bells: Vec<_> = shared
            .mailboxes
            .iter()
            .map(|m| m.bell.as_raw_fd())
            .collect();
        let bell = bells[number];
        if sys::take_private_file_table(&bells).is_ok() {
            sys::grow_file_table(20_000);
        }
        let poll = Poll::new()?;
        let socket = bind(shared.address)?;
        socket.listen(4096)?;
        let mut listener = TcpListener::from_std(socket.into());
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        poll.registry()
            .register(&mut SourceFd(&bell), BELL, Interest::READABLE)?;
        let (direct, direct_body) = canned::direct();
        Ok(Reactor {
            number,
            shared,
            poll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            greeting: canned::greeting(),
            registered: canned::registered(),
            direct,
            direct_body,
            buffer: vec![0; 64 << 10].into(),
            pinged: 0,
            pinged_at: Instant::now(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self
                .poll
                .poll(&mut events, self.shared.ping_every.map(|_| TICK))
            {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    BELL => self.read_mail()?,
                    Token(slot) => {
                        if self.serve(slot).is_err() {
                            self.connections[slot] = None;
                            self.free.push(slot);
                        }
                    }
                }
            }
            if let Some(every) = self.shared.ping_every {
                self.ping(every)?;
            }
        }
    }

    /// Pings those whose turn it is: all slots in turn, within the given time.
    fn ping(&mut self, every: Duration) -> io::Result<()> {
        let passed = self.pinged_at.elapsed();
        if passed < TICK {
            return Ok(());
        }
        self.pinged_at += passed;
        let all = self.connections.len();
        let due = (all as f64 * passed.as_secs_f64() / every.as_secs_f64()).round() as usize;
        for _ in 0..due.min(all) {
            self.pinged = (self.pinged + 1) % all;
            let connection = self.connections[self.pinged].as_mut();
            if let Some(connection) = connection.filter(|c| matches!(c.phase, Phase::Registered)) {
                send(&mut connection.stream, &PING)?;
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poll
                .registry()
                .register(&mut stream, Token(slot), Interest::READABLE)?;
            self.connections[slot] = Some(Connection {
                stream,
                phase: Phase::Accepted,
            });
        }
    }

    /// One recv: edge-triggered, and what the crowd sends is always shorter than the buffer.
    /// An error means that the connection is over.
    fn serve(&mut self, slot: usize) -> io::Result<()> {
        let Some(connection) = &mut self.connections[slot] else {
            return Ok(());
        };
        let length = match connection.stream.read(&mut self.buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => length,
        };
        match connection.phase {
            Phase::Accepted => {
                connection.phase = Phase::Greeted;
                send(&mut connection.stream, &self.greeting)
            }
            Phase::Greeted => {
                connection.phase = Phase::Registered;
                let payload = unmask(&mut self.buffer[..length])?.0;
                let uid = payload.get(REGISTER_UID..REGISTER_UID + UID_CHARS);
                let client = uid
                    .and_then(client_number)
                    .ok_or(io::ErrorKind::InvalidData)?;
                let place = ((self.number as u64) << 32) + slot as u64 + 1;
                self.shared.directory[client].store(place, Ordering::Release);
                send(&mut connection.stream, &self.registered)
            }
            Phase::Registered => self.route(length),
        }
    }

    /// Sends each direct message on; all that is read at once was sent by one client.
    fn route(&mut self, mut left: usize) -> io::Result<()> {
        let mut from = 0;
        while left > 0 {
            let (payload, length) = unmask(&mut self.buffer[from..from + left])?;
            from += length;
            left -= length;
            let Some(body) = payload.get(DIRECT_BODY..DIRECT_BODY + BODY_BYTES) else {
                continue;
            };
            let Text::Direct(direct) = message::read(body) else {
                continue;
            };
            let place = self.shared.directory[direct.receiver as usize].load(Ordering::Acquire);
            let Some(place) = place.checked_sub(1) else {
                continue;
            };
            let (reactor, slot) = ((place >> 32) as usize, place as u32);
            let body: [u8; BODY_BYTES] = body.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
            if reactor == self.number {
                self.deliver(slot as usize, &body);
            } else {
                self.shared.mailboxes[reactor].send(Mail::Deliver { slot, body });
            }
        }
        Ok(())
    }

    fn deliver(&mut self, slot: usize, body: &[u8; BODY_BYTES]) {
        self.direct[self.direct_body.clone()].copy_from_slice(body);
        if let Some(Some(receiver)) = self.connections.get_mut(slot) {
            // A receiver that has gone is found out by its own event.
            let _ = send(&mut receiver.stream, &self.direct);
        }
    }

    fn read_mail(&mut self) -> io::Result<()> {
        self.shared.mailboxes[self.number].bell.clear();
        for mail in self.shared.mailboxes[self.number].take() {
            match mail {
                Mail::Broadcast(wire) => {
                    for connection in self.connections.iter_mut().flatten() {
                        send(&mut connection.stream, &wire)?;
                    }
                }
                Mail::Deliver { slot, body } => self.deliver(slot as usize, &body),
            }
        }
        Ok(())
    }
}

/// The floor has no queue: what does not fit at once is an error of the bench.
fn send(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    match stream.write(bytes)? {
        written if written == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// The payload of the first frame, in clear, and the frame's length on the wire.
fn unmask(bytes: &mut [u8]) -> io::Result<(&[u8], usize)> {
    let torn = || io::Error::from(io::ErrorKind::InvalidData);
    let (header, length) = match *bytes.get(1).ok_or_else(torn)? & 0x7f {
        126 => match bytes.get(2..4) {
            Some(&[high, low]) => (4, usize::from(u16::from_be_bytes([high, low]))),
            _ => return Err(torn()),
        },
        length => (2, usize::from(length)),
    };
    let key = *bytes
        .get(header..)
        .and_then(<[u8]>::first_chunk)
        .ok_or_else(torn)?;
    let whole = header + 4 + length;
    let payload = bytes.get_mut(header + 4..whole).ok_or_else(torn)?;
    mask::apply(payload, key, 0);
    Ok((payload, whole))
}

fn client_number(uid: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(uid.get(UID_CHARS - 8..)?).ok()?;
    digits.parse().ok().filter(|&client| client < CLIENTS_MAX)
}
