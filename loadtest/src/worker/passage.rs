//! A worker's clients that connect again: those who have lost a connection, and those who come and
//! go by themselves.

use std::time::Instant;

use crate::churn::{Churn, Manners, Move};
use crate::counts::Failure;
use crate::opening::BURST_MAX;
use crate::schedule::Schedule;
use crate::seat::{End, Seat};

use super::Worker;

impl Worker {
    /// Has those connect again whose time it is, as many in one turn as leave time for others.
    pub(super) fn bring_back(&mut self) {
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
            self.seats[place].reset();
            self.desk.ended(index, None);
        }
        if let Some(returns) = &mut self.desk.returns {
            returns.begin(index, now);
        }
        self.connect(place, now);
    }

    fn connect(&mut self, place: usize, now: Instant) {
        let index = self.first + place as u32;
        self.desk.counts.attempted += 1;
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

    /// Gives each client an empty seat, and has them come and go from now on.
    pub(super) fn begin_churn(&mut self, manners: Manners, schedule: Schedule) {
        let (plan, presence) = (self.plan.clone(), self.presence.clone());
        let share = self.first..self.first + self.clients as u32;
        self.seats.resize_with(self.clients, || Seat::new(None));
        let churn = Churn::new(plan, presence, share, manners, schedule);
        self.desk.churn = Some(Box::new(churn));
    }

    /// Has those come, leave or give up whose time it is.
    pub(super) fn come_and_go(&mut self) {
        let now = Instant::now();
        for _ in 0..BURST_MAX {
            let churn = self.desk.churn.as_mut();
            let Some((place, what)) = churn.and_then(|churn| churn.next_to_move(now)) else {
                break;
            };
            match what {
                Move::SayGoodbye => self.say_goodbye(place),
                Move::Reset => self.seats[place].cut(self.first + place as u32, &mut self.desk),
                Move::GiveUp => self.bury(place, Some(Failure::NoGoodbye)),
            }
        }
        for _ in 0..BURST_MAX {
            let churn = self.desk.churn.as_mut();
            let Some(place) = churn.and_then(|churn| churn.next_to_come(now)) else {
                return;
            };
            // The server has closed the connection before, and does not end it.
            self.seats[place].reset();
            self.connect(place, now);
        }
    }

    fn say_goodbye(&mut self, place: usize) {
        let index = self.first + place as u32;
        if let Err(End(failure)) = self.seats[place].say_goodbye(index, &mut self.desk) {
            self.bury(place, failure);
        }
    }
}
