//! What a crowd does for a given time: holding, chats, pushes, coming and going.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use throng_history::What;

use crate::api::Api;
use crate::chat::ChatTally;
use crate::chats::{Chats, run_number};
use crate::churn::{ChurnTally, Manners};
use crate::post::{PostTally, Series};
use crate::presence::Sample;
use crate::pusher::{Lane, PushTally, Pushing, To};
use crate::returns::ReturnTally;
use crate::schedule::{Flow, SLICE, Schedule};
use crate::worker::{Command, Part, Report};

use super::{Chatted, Churned, Crowd, CrowdError, Pushed, Returned, Weathered};

/// Between two looks at how many are connected.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at what the workers have done so far.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Crowd {
    /// Opens all connections and holds them; who loses one comes back, and nobody does anything
    /// else. Ends when the time is over, or sooner when it is told to.
    pub fn weather(
        &mut self,
        lasts: Duration,
        should_stop: &AtomicBool,
    ) -> Result<Weathered, CrowdError> {
        let began = Instant::now();
        self.begin_opening(self.plan.clients)?;
        let mut all_open = None;
        while began.elapsed() < lasts && !should_stop.load(Relaxed) {
            self.keep_watch()?;
            if all_open.is_none() && self.is_everybody_here() {
                all_open = Some(began.elapsed());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let parts = self.collect()?;
        Ok(Weathered {
            all_open,
            limit: parts.iter().filter_map(|part| part.limit).min(),
            returned: self.returned(&parts)?,
        })
    }

    /// Looks how many are connected, if it is time for that.
    fn sample(&mut self) {
        let is_due = |last: &Sample| {
            let secs = self.presence.began.elapsed().as_secs_f64();
            secs >= last.secs + SAMPLE_EVERY.as_secs_f64()
        };
        if self.over_time.last().is_none_or(is_due) {
            self.over_time
                .push(self.presence.sample(&self.plan.targets));
        }
    }

    /// The same, and whether a worker has died.
    fn keep_watch(&mut self) -> Result<(), CrowdError> {
        self.sample();
        while let Ok(report) = self.reports.try_recv() {
            if let Report::Died(error) = report {
                return Err(CrowdError::Worker(error));
            }
        }
        Ok(())
    }

    /// True if all are connected that have not been sent away for good.
    fn is_everybody_here(&self) -> bool {
        let open = self.presence.sample(&self.plan.targets).open;
        open + self.presence.stopped() >= self.plan.clients as u64
    }

    fn returned(&mut self, parts: &[Part]) -> Result<Returned, CrowdError> {
        let mut tally = ReturnTally::default();
        for part in parts.iter().filter_map(|part| part.returns.as_ref()) {
            tally.add(part).map_err(|_| CrowdError::Stuck)?;
        }
        let last = self.presence.sample(&self.plan.targets);
        let open = last.open;
        self.over_time.push(last);
        let targets = self.plan.targets.all();
        let by_target = targets.iter().map(|target| {
            let (open, registered) = (target.open.load(Relaxed), target.registered.load(Relaxed));
            (target.url.clone(), open, registered)
        });
        Ok(Returned {
            tally,
            over_time: self.over_time.clone(),
            open,
            arriving_max: self.presence.arriving_max(),
            by_target: by_target.collect(),
        })
    }

    /// Has those who talk chat with their partners, so much of it; then waits until each message
    /// has come through and everybody is connected, at most for `patience`.
    pub fn chat(
        &mut self,
        flow: Flow,
        lasts: Duration,
        patience: Duration,
    ) -> Result<Chatted, CrowdError> {
        let chats = self.plan.chats.clone().ok_or(CrowdError::NoChats)?;
        let from = Instant::now();
        chats.begin(self.workers.len());
        for (number, worker) in self.workers.iter().enumerate() {
            let (pairs, share) = (self.plan.pairs(), self.plan.share(number));
            let talkers = pairs.talkers_before(share.end) - pairs.talkers_before(share.start);
            let schedule = Schedule::new(from, lasts, flow.part(talkers, pairs.talkers));
            worker.send(Command::Chat { schedule })?;
        }
        self.beat_time(&chats, from + lasts, from + lasts + patience)?;
        let took = from.elapsed();
        chats.tell(|| What::Drained {});
        chats.flush().map_err(CrowdError::History)?;
        let mut tally = ChatTally::default();
        let parts = self.collect()?;
        for part in parts.iter().filter_map(|part| part.chat.as_ref()) {
            tally.add(part).map_err(|_| CrowdError::Stuck)?;
        }
        Ok(Chatted {
            returned: self.returned(&parts)?,
            issued: chats.issued(),
            is_settled: chats.are_settled(),
            took,
            tally,
        })
    }

    /// Wakes the workers at each slice of the schedule: a poll sleeps too long for that.
    fn beat_time(
        &mut self,
        chats: &Chats,
        until: Instant,
        deadline: Instant,
    ) -> Result<(), CrowdError> {
        const FLUSH_EVERY: u32 = 100;
        let mut beat = Instant::now();
        for count in 0_u32.. {
            let now = Instant::now();
            let is_settled = now >= until && chats.are_settled();
            let is_over = now >= deadline || self.should_stop.load(Relaxed);
            if is_over || (is_settled && self.is_everybody_here()) {
                break;
            }
            self.ring();
            if count.is_multiple_of(FLUSH_EVERY) {
                chats.flush().map_err(CrowdError::History)?;
                self.keep_watch()?;
            }
            // Slices that were slept through are made up for in the next one.
            beat = (beat + SLICE).max(now);
            std::thread::sleep(beat.saturating_duration_since(now));
        }
        Ok(())
    }

    fn ring(&self) {
        self.workers.iter().for_each(|worker| worker.bell.ring());
    }

    /// Pushes over the HTTP API to those who are connected, and waits until they have heard all
    /// that was accepted. Slow clients may stall meanwhile.
    pub fn push(&mut self, pushing: &Pushing) -> Result<Pushed, CrowdError> {
        if self.counts()?.open == 0 {
            return Err(CrowdError::Nobody);
        }
        let mut apis = Vec::new();
        for url in &pushing.apis {
            let api = Api::connect(url, pushing.key.clone());
            let url = url.clone();
            apis.push(api.map_err(|source| CrowdError::Api { url, source })?);
        }
        let clients = self.plan.clients as u32;
        let block = match pushing.to {
            To::Everybody => clients,
            To::Users { count, .. } => count,
        };
        let rounds = pushing.count().div_ceil(pushing.blocks(clients));
        let first = self.waves + 1;
        self.waves += rounds;
        let (last, stalls_for) = (self.waves, pushing.stalls_for);
        let series = Arc::new(Series::new(run_number(), block, first, last, stalls_for));
        for worker in &self.workers {
            let series = series.clone();
            worker.send(Command::Listen { series })?;
        }
        self.wait_ready()?;
        let said = self.push_over(&mut apis, pushing, &series)?;
        let heard = self.wait_heard(pushing, &series, &said)?;
        Ok(Pushed {
            due: u64::from(pushing.count()),
            took: series.began.elapsed(),
            said,
            heard,
        })
    }

    fn push_over(
        &self,
        apis: &mut [Api],
        pushing: &Pushing,
        series: &Series,
    ) -> Result<PushTally, CrowdError> {
        let (plan, should_stop) = (&*self.plan, &*self.should_stop);
        std::thread::scope(|scope| {
            let lanes = (0..).zip(apis).map(|(number, api)| {
                let lane = Lane {
                    plan,
                    pushing,
                    series,
                    number,
                    should_stop,
                };
                scope.spawn(move || lane.run(api))
            });
            let lanes: Vec<_> = lanes.collect();
            let mut said = PushTally::default();
            for lane in lanes {
                let part = lane.join().map_err(|_| CrowdError::Stuck)?;
                said.add(&part).map_err(|_| CrowdError::Stuck)?;
            }
            Ok(said)
        })
    }

    /// Waits until all is heard that is to be, and collects it.
    fn wait_heard(
        &mut self,
        pushing: &Pushing,
        series: &Series,
        said: &PushTally,
    ) -> Result<PostTally, CrowdError> {
        let mut heard = self.heard()?;
        let expected = match pushing.to {
            To::Everybody => said.accepted * heard.listeners,
            To::Users { .. } => said.promised,
        };
        let stalled_until = series.began + pushing.stalls_for.max(pushing.lasts);
        let deadline = stalled_until.max(Instant::now()) + pushing.patience;
        let is_settled = || series.delivered() >= expected && series.slow_done() >= heard.slow;
        while !is_settled() && Instant::now() < deadline && !self.should_stop.load(Relaxed) {
            std::thread::sleep(LOOK_EVERY);
        }
        heard = self.heard()?;
        Ok(heard)
    }

    fn heard(&mut self) -> Result<PostTally, CrowdError> {
        let mut heard = PostTally::default();
        for part in self
            .collect()?
            .iter()
            .filter_map(|part| part.posts.as_ref())
        {
            heard.add(part).map_err(|_| CrowdError::Stuck)?;
        }
        Ok(heard)
    }

    /// Has clients come and go, so many a second, of whom nobody is connected at the beginning.
    pub fn churn(
        &mut self,
        per_sec: f64,
        lasts: Duration,
        manners: Manners,
    ) -> Result<Churned, CrowdError> {
        const WATCH_EVERY: u32 = 100;
        let (from, task) = (Instant::now(), self.next_task());
        for (number, worker) in self.workers.iter().enumerate() {
            let share = self.plan.share(number).len() as f64 / self.plan.clients.max(1) as f64;
            let schedule = Schedule::new(from, lasts, Flow::PerSec(per_sec * share));
            worker.send(Command::Churn {
                task,
                manners,
                schedule,
            })?;
        }
        // The last ones have the time that they are allowed to take.
        let deadline = from + lasts + self.plan.handshake_patience * 2;
        let mut done = 0;
        let mut beat = from;
        for count in 0_u32.. {
            let now = Instant::now();
            if done == self.workers.len() || now >= deadline || self.should_stop.load(Relaxed) {
                break;
            }
            self.ring();
            if count.is_multiple_of(WATCH_EVERY) {
                self.sample();
            }
            while let Ok(report) = self.reports.try_recv() {
                match report {
                    Report::Done { task: of } if of == task => done += 1,
                    Report::Died(error) => return Err(CrowdError::Worker(error)),
                    _ => {}
                }
            }
            beat = (beat + SLICE).max(now);
            std::thread::sleep(beat.saturating_duration_since(now));
        }
        let took = from.elapsed();
        let mut tally = ChurnTally::default();
        for part in self
            .collect()?
            .iter()
            .filter_map(|part| part.churn.as_ref())
        {
            tally.add(part).map_err(|_| CrowdError::Stuck)?;
        }
        Ok(Churned {
            took,
            tally,
            over_time: self.over_time.clone(),
        })
    }
}
