//! One thread of the crowd: thousands of connections in one poll, with a file table of its own.
//!
//! Owns: its share of the clients, by index, for the whole life of the crowd: a place is used
//! again by its own client only, and between two polls, so no event finds another connection.
//! Neighbours: the crowd sends commands and rings the bell; reports go back over a channel.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use throng::sys::{self, EventFd};

use crate::chat::{self, Chat, ChatTally, Schedule};
use crate::client::Desk;
use crate::counts::{Counts, Failure};
use crate::message::{self, Direct};
use crate::opening::{self, BURST_MAX, HostLimit, Opening};
use crate::plan::Plan;
use crate::presence::Presence;
use crate::pulse::Latency;
use crate::returns::{ReturnTally, Returns};
use crate::seat::{End, Seat};
use crate::tally::{Shared, Tally, Volley, Waves};

const BELL: Token = Token(usize::MAX);
const EVENTS: usize = 1024;
const BUFFER_BYTES: usize = 64 << 10;

/// What the crowd asks of a worker. Each task is answered with [`Report::Done`] of its number.
pub enum Command {
    /// Opens clients up to this index.
    Open { task: u32, until: u32 },
    /// Waits for broadcasts; answered at once with [`Report::Ready`].
    Hear { task: u32, first: u32, count: u32 },
    /// Takes part in a volley; done when the whole volley is.
    Talk {
        task: u32,
        shared: Arc<Shared>,
        in_flight: u32,
    },
    /// Has the clients talk; whoever asks looks at what all of them share to see how far it is.
    Chat { schedule: Schedule },
    /// Ends the task, whether done or not; answered with [`Report::Part`].
    Collect,
    /// Resets all connections and ends.
    Leave,
}

pub enum Report {
    Ready,
    Done { task: u32 },
    Part(Box<Part>),
    Died(io::Error),
}

/// What a worker has to tell of its task, and of everything so far.
pub struct Part {
    pub counts: Counts,
    pub limit: Option<HostLimit>,
    pub listeners: u64,
    pub tallies: Vec<Tally>,
    pub talk: Option<(u64, Histogram<u64>)>,
    pub chat: Option<Box<ChatTally>>,
    pub returns: Option<Box<ReturnTally>>,
}

pub struct Worker {
    poll: Poll,
    bell: Arc<EventFd>,
    commands: Receiver<Command>,
    reports: Sender<Report>,
    plan: Arc<Plan>,
    /// Index of the first seat.
    first: u32,
    seats: Vec<Seat>,
    opening: Opening,
    desk: Desk,
    buffer: Box<[u8]>,
    /// The task that is not done yet.
    task: Option<u32>,
    /// The seat that speaks next in a volley.
    speaker: usize,
    is_leaving: bool,
}

/// A worker's life; to be called in a thread of its own.
pub fn run(
    number: usize,
    plan: Arc<Plan>,
    presence: Arc<Presence>,
    bell: Arc<EventFd>,
    commands: Receiver<Command>,
    reports: Sender<Report>,
) {
    let outcome = Worker::new(number, plan, presence, bell, commands, reports.clone())
        .and_then(|mut worker| worker.work());
    if let Err(error) = outcome {
        // Nobody listens any more where the crowd itself has gone.
        let _ = reports.send(Report::Died(error));
    }
}

impl Worker {
    fn new(
        number: usize,
        plan: Arc<Plan>,
        presence: Arc<Presence>,
        bell: Arc<EventFd>,
        commands: Receiver<Command>,
        reports: Sender<Report>,
    ) -> io::Result<Worker> {
        let share = plan.share(number);
        // Where a private table is forbidden, the threads share one and its limit.
        if sys::take_private_file_table(&[bell.as_raw_fd()]).is_ok() {
            sys::grow_file_table(share.len() as u64 + 16);
        }
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut SourceFd(&bell.as_raw_fd()), BELL, Interest::READABLE)?;
        let mut desk = Desk::new(plan.clone(), u64::from(share.start) + 1);
        if let Some(shared) = plan.chats.clone() {
            desk.chat = Some(Box::new(Chat::new(shared, presence.clone(), share.start)));
        }
        if plan.comes_back || plan.chats.is_some() {
            let returns = Returns::new(plan.clone(), presence, share.start);
            desk.returns = Some(Box::new(returns));
        }
        Ok(Worker {
            poll,
            bell,
            commands,
            reports,
            first: share.start,
            seats: Vec::with_capacity(share.len()),
            opening: Opening::new(&plan, share.start),
            desk,
            plan,
            buffer: vec![0; BUFFER_BYTES].into(),
            task: None,
            speaker: 0,
            is_leaving: false,
        })
    }

    fn work(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_leaving {
            match self.poll.poll(&mut events, self.patience()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                if event.token() == BELL {
                    self.read_mail();
                } else {
                    self.serve(event);
                }
            }
            self.open_more();
            self.drop_overdue();
            self.talk();
            self.chat();
            self.bring_back();
            self.tell_if_done();
            self.tell_pulse();
        }
        Ok(())
    }

    fn patience(&self) -> Option<Duration> {
        let look = self.desk.chat.as_ref().map(|_| chat::LOOK_EVERY);
        let now = Instant::now();
        let opening = self.opening.patience(now);
        let returns = self.desk.returns.as_ref();
        let comeback = returns.and_then(|returns| returns.patience(now));
        let news = self.desk.vitals.patience(now);
        [look, opening, comeback, news].into_iter().flatten().min()
    }

    fn read_mail(&mut self) {
        self.bell.clear();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Open { task, until } => {
                    self.task = Some(task);
                    self.opening.open_until(until, Instant::now());
                }
                Command::Hear { task, first, count } => {
                    self.task = Some(task);
                    self.desk.waves = Some(Waves::new(first, count, self.desk.counts.open));
                    self.report(Report::Ready);
                }
                Command::Talk {
                    task,
                    shared,
                    in_flight,
                } => {
                    self.task = Some(task);
                    self.desk.volley = Some(Volley::new(shared, in_flight));
                }
                Command::Chat { schedule } => {
                    self.task = None;
                    self.desk.with_chat(|chat, _| chat.begin(schedule));
                }
                Command::Collect => self.hand_in(),
                Command::Leave => self.leave(),
            }
        }
    }

    fn report(&self, report: Report) {
        // The crowd may have been dropped; the next command to read will be the last.
        let _ = self.reports.send(report);
    }

    fn hand_in(&mut self) {
        self.task = None;
        let waves = self.desk.waves.take();
        let part = Part {
            counts: self.desk.counts.clone(),
            limit: self.opening.limit,
            listeners: waves.as_ref().map_or(0, Waves::listeners),
            tallies: waves.map(Waves::into_tallies).unwrap_or_default(),
            talk: self
                .desk
                .volley
                .take()
                .map(|volley| (volley.received, volley.latency)),
            chat: self
                .desk
                .chat
                .as_ref()
                .map(|chat| Box::new(chat.tally.clone())),
            returns: self
                .desk
                .returns
                .as_ref()
                .map(|returns| Box::new(returns.tally(Instant::now()))),
        };
        self.report(Report::Part(Box::new(part)));
    }

    fn tell_pulse(&mut self) {
        let (opening, counts) = (&self.opening, &self.desk.counts);
        let vitals = &mut self.desk.vitals;
        vitals.tell(Instant::now(), self.is_leaving, |beat| {
            beat.counts.clone_from(counts);
            beat.arriving = opening.arriving() as u64;
            beat.limit = opening.limit;
        });
    }

    /// Resets instead of saying goodbye: no port is left in TIME_WAIT for the next crowd.
    fn leave(&mut self) {
        self.seats.iter_mut().for_each(reset);
        self.is_leaving = true;
    }

    fn open_more(&mut self) {
        let now = Instant::now();
        for index in self.opening.due(now) {
            let stream = match self.dial(index) {
                Ok(stream) => stream,
                Err((error, limit)) => {
                    self.desk.counts.fail(Failure::from(&error));
                    if limit.is_some() {
                        self.opening.stop(limit, index);
                        return;
                    }
                    self.sit_down(index, now, None);
                    self.desk.ended(index, Some(Failure::from(&error)));
                    continue;
                }
            };
            self.sit_down(index, now, Some(stream));
            self.opening.began(index, now);
        }
    }

    fn dial(&self, index: u32) -> Result<TcpStream, (io::Error, Option<HostLimit>)> {
        let to = self.desk.target(index).address;
        let mut stream = opening::dial(&self.plan, index, to)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        let token = Token((index - self.first) as usize);
        match self.poll.registry().register(&mut stream, token, both) {
            Ok(()) => Ok(stream),
            Err(error) => Err((error, None)),
        }
    }

    fn sit_down(&mut self, index: u32, now: Instant, stream: Option<TcpStream>) {
        self.desk.counts.attempted += 1;
        self.seats.push(Seat::new(stream));
        if let Some(returns) = &mut self.desk.returns {
            returns.join(now);
        }
        self.desk
            .with_chat(|chat, desk| chat.join(index, &desk.plan));
    }

    fn drop_overdue(&mut self) {
        if self.opening.is_done() {
            return;
        }
        let now = Instant::now();
        while let Some(index) = self.opening.overdue(now) {
            let place = (index - self.first) as usize;
            // Who came back meanwhile has a later deadline behind this one.
            let patience = self.plan.handshake_patience;
            let returns = self.desk.returns.as_ref();
            let is_overdue = returns.is_none_or(|r| r.is_overdue(place, patience, now));
            let seat = &self.seats[place];
            if is_overdue && !seat.is_empty() && seat.client.is_arriving() {
                self.bury(place, Some(Failure::HandshakeTimeout));
            }
        }
    }

    fn serve(&mut self, event: &Event) {
        let place = event.token().0;
        let Some(seat) = self.seats.get_mut(place).filter(|seat| !seat.is_empty()) else {
            return;
        };
        let was_arriving = seat.client.is_arriving();
        let index = self.first + place as u32;
        let served = seat.serve(event, index, &mut self.buffer, &mut self.desk);
        if was_arriving && !seat.client.is_arriving() {
            let began = self.opening.arrived(index);
            if let Some(began) = began.filter(|_| seat.can_talk()) {
                let took = began.elapsed().as_nanos() as u64;
                self.desk.vitals.took(Latency::Connect, took);
            }
        }
        if let Err(End(failure)) = served {
            self.bury(place, failure);
        }
    }

    fn bury(&mut self, place: usize, failure: Option<Failure>) {
        let seat = &mut self.seats[place];
        drop(seat.take());
        if seat.client.is_arriving() {
            self.opening.arrived(self.first + place as u32);
        }
        seat.client.gone(failure, &mut self.desk);
        self.desk.ended(self.first + place as u32, failure);
    }

    /// Has those talk whose turn it is.
    fn chat(&mut self) {
        let now = Instant::now();
        let turn = |chat: &mut Chat, desk: &mut Desk| chat.take_turn(now, desk);
        let Some(turn) = self.desk.with_chat(turn) else {
            return;
        };
        for place in turn.unanswered {
            if !self.seats[place].is_empty() {
                self.bury(place, Some(Failure::Unanswered));
            }
        }
        for place in turn.speakers {
            if self.seats[place].can_talk() {
                let speak = |chat: &mut Chat, desk: &mut Desk| chat.speak(place, now, desk);
                self.desk.with_chat(speak);
                if let Err(End(failure)) = self.seats[place].flush(&mut self.desk) {
                    self.bury(place, failure);
                }
            }
        }
    }

    /// Has those connect again whose time it is, as many in one turn as leave time for others.
    fn bring_back(&mut self) {
        let now = Instant::now();
        for _ in 0..BURST_MAX {
            let returns = self.desk.returns.as_mut();
            let Some(place) = returns.and_then(|returns| returns.next(now)) else {
                return;
            };
            self.come_back(place, now);
        }
    }

    fn come_back(&mut self, place: usize, now: Instant) {
        let index = self.first + place as u32;
        if !self.seats[place].is_empty() {
            // The server has closed the connection, and does not end it.
            reset(&mut self.seats[place]);
            self.desk.ended(index, None);
        }
        self.desk.counts.attempted += 1;
        if let Some(returns) = &mut self.desk.returns {
            returns.begin(index, now);
        }
        match self.dial(index) {
            Ok(stream) => {
                self.seats[place] = Seat::new(Some(stream));
                self.opening.began(index, now);
            }
            Err((error, limit)) => {
                self.opening.limit = self.opening.limit.or(limit);
                self.desk.counts.fail(Failure::from(&error));
                self.desk.ended(index, Some(Failure::from(&error)));
            }
        }
    }

    /// Sends the direct messages that are due, each from the next client in turn.
    fn talk(&mut self) {
        while let Some(volley) = &mut self.desk.volley
            && volley.due > 0
        {
            let Some(place) = next_speaker(&self.seats, &mut self.speaker) else {
                return;
            };
            let shared = volley.shared.clone();
            let Some(number) = shared.issue() else {
                volley.due = 0;
                return;
            };
            volley.due -= 1;
            let receiver = self.plan.partner(self.first + place as u32);
            let mut uid = String::with_capacity(64);
            self.plan.write_uid(receiver, &mut uid);
            let sent_nanos = shared.began.elapsed().as_nanos() as u64;
            let direct = Direct {
                number,
                sent_nanos,
                receiver,
            };
            self.desk.text.clear();
            self.plan.dialect.direct(&mut self.desk.text, |out| {
                message::write_direct(out, &uid, direct);
            });
            self.desk.send_text();
            if let Err(End(failure)) = self.seats[place].flush(&mut self.desk) {
                if let Some(volley) = &mut self.desk.volley {
                    volley.lose_one();
                }
                self.bury(place, failure);
            }
        }
    }

    fn tell_if_done(&mut self) {
        let Some(task) = self.task else { return };
        let is_done = match (&self.desk.waves, &self.desk.volley) {
            (Some(waves), _) => waves.is_complete(),
            (None, Some(volley)) => volley.shared.is_complete(),
            (None, None) => self.opening.is_done(),
        };
        if is_done {
            self.task = None;
            self.report(Report::Done { task });
        }
    }
}

/// Ends the connection at once, and its port is free.
fn reset(seat: &mut Seat) {
    if let Some(stream) = seat.take() {
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

fn next_speaker(seats: &[Seat], speaker: &mut usize) -> Option<usize> {
    for _ in 0..seats.len() {
        let place = *speaker;
        *speaker = (place + 1) % seats.len();
        if seats[place].can_talk() {
            return Some(place);
        }
    }
    None
}
