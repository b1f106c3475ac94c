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

use mio::event::Event;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use throng::sys::{self, EventFd};

use crate::chat::{self, Chat};
use crate::client::Desk;
use crate::counts::Failure;
use crate::message::{self, Direct};
use crate::opening::{self, HostLimit, Opening};
use crate::plan::Plan;
use crate::post::Posts;
use crate::presence::Presence;
use crate::pulse::Latency;
use crate::returns::Returns;
use crate::seat::{End, Seat};
use crate::tally::{Volley, Waves};

pub use command::{Command, Part, Report};

mod command;
mod passage;

const BELL: Token = Token(usize::MAX);
const EVENTS: usize = 1024;
const BUFFER_BYTES: usize = 64 << 10;

pub struct Worker {
    poll: Poll,
    bell: Arc<EventFd>,
    commands: Receiver<Command>,
    reports: Sender<Report>,
    plan: Arc<Plan>,
    /// Index of the first seat, and how many there will be.
    first: u32,
    clients: usize,
    seats: Vec<Seat>,
    opening: Opening,
    desk: Desk,
    presence: Arc<Presence>,
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
            let chat = Chat::new(plan.clone(), shared, presence.clone(), share.clone());
            desk.chat = Some(Box::new(chat));
        }
        if plan.comes_back || plan.follows_hints || plan.chats.is_some() {
            let returns = Returns::new(plan.clone(), presence.clone(), share.clone());
            desk.returns = Some(Box::new(returns));
        }
        Ok(Worker {
            poll,
            bell,
            commands,
            reports,
            first: share.start,
            clients: share.len(),
            seats: Vec::with_capacity(share.len()),
            opening: Opening::new(&plan, share.start),
            desk,
            plan,
            presence,
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
            self.come_and_go();
            self.end_stall();
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
        let waves = self.desk.waves.as_ref();
        let late = waves.and_then(|waves| waves.patience(now));
        let posts = self.desk.posts.as_ref();
        let stall = posts.and_then(|posts| posts.patience(now));
        let news = self.desk.vitals.patience(now);
        let waits = [look, opening, comeback, late, stall, news];
        waits.into_iter().flatten().min()
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
                Command::Listen { series } => {
                    let first = self.first;
                    let seats = (first..)
                        .zip(&self.seats)
                        .filter(|(_, seat)| seat.can_talk());
                    let connected = seats.map(|(index, _)| index);
                    let posts = Posts::new(self.plan.clone(), series, connected);
                    self.desk.posts = Some(Box::new(posts));
                    self.report(Report::Ready);
                }
                Command::Churn {
                    task,
                    manners,
                    schedule,
                } => {
                    self.task = Some(task);
                    self.begin_churn(manners, schedule);
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
            posts: self.desk.posts.as_ref().map(|posts| {
                let mut tally = posts.tally.clone();
                tally.caught_up = self.caught_up(posts);
                Box::new(tally)
            }),
            churn: self
                .desk
                .churn
                .as_ref()
                .map(|churn| Box::new(churn.tally())),
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
        self.seats.iter_mut().for_each(Seat::reset);
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
        self.desk.with_chat(|chat, _| chat.join(index));
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
            let churn = self.desk.churn.as_ref();
            let is_overdue = returns.is_none_or(|r| r.is_overdue(place, patience, now))
                && churn.is_none_or(|c| c.is_overdue(place, patience, now));
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
        let posts = self.desk.posts.as_ref();
        if !was_arriving && posts.is_some_and(|posts| posts.is_stalled(index)) {
            return;
        }
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
        let index = self.first + place as u32;
        let failure = seat.client.gone(index, failure, &mut self.desk);
        self.desk.ended(index, failure);
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

    /// Has those read again who were slow.
    fn end_stall(&mut self) {
        let posts = self.desk.posts.as_mut();
        if !posts.is_some_and(|posts| posts.ends_stall(Instant::now())) {
            return;
        }
        for place in 0..self.seats.len() {
            let index = self.first + place as u32;
            let seat = &mut self.seats[place];
            if self.plan.is_slow(index) && !seat.is_empty() {
                let caught_up = seat.catch_up(index, &mut self.buffer, &mut self.desk);
                if let Err(End(failure)) = caught_up {
                    self.bury(place, failure);
                }
            }
        }
    }

    /// Slow clients that are there and have heard everything.
    fn caught_up(&self, posts: &Posts) -> u64 {
        let seats = (self.first..).zip(&self.seats);
        let here = seats.filter(|(_, seat)| seat.can_talk());
        let caught_up = here.filter(|(index, s)| posts.is_caught_up(*index, s.client.heard_last()));
        caught_up.count() as u64
    }

    fn tell_if_done(&mut self) {
        let Some(task) = self.task else { return };
        let now = Instant::now();
        let returns = self.desk.returns.as_ref();
        let is_done = match (&self.desk.waves, &self.desk.volley, &self.desk.churn) {
            (Some(waves), ..) => waves.is_complete(now),
            (_, Some(volley), _) => volley.shared.is_complete(),
            (.., Some(churn)) => churn.is_done(now),
            // Whoever follows a hint is still on the way.
            _ => self.opening.is_done() && !returns.is_some_and(|returns| returns.awaits()),
        };
        if is_done {
            self.task = None;
            self.report(Report::Done { task });
        }
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
