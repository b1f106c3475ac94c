//! What each scenario has the crowd do, one after the other, and what of it is reported. A part of
//! the program, not of the library.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use throng_loadtest::chats::run_number;
use throng_loadtest::process::own_bytes;
use throng_loadtest::{Api, Chats, Chatted, Crowd, Flow, Groups, Manners, Plan, Pushing, To};

use crate::Failed;
use crate::args::{Common, Pushes, Talk, What};
use crate::report::Report;

pub fn run(what: What) -> Result<Report, Failed> {
    match what {
        What::Idle { common, pace } => {
            let (mut crowd, mut report) = gather(common.plan(pace.rate, "load-")?)?;
            if is_nobody_here(&report) {
                finish(&mut crowd, &mut report)?;
                return Ok(report);
            }
            let open = |report: &Report| report.counts.as_ref().map(|counts| counts.open);
            let opened = open(&report);
            std::thread::sleep(common.patience());
            finish(&mut crowd, &mut report)?;
            report.is_complete &= open(&report) == opened;
            Ok(report)
        }
        What::Broadcast {
            common,
            pace,
            api,
            messages,
            at_once,
        } => {
            let mut api = connect(&api)?;
            let (mut crowd, mut report) = gather(common.plan(pace.rate, "load-")?)?;
            broadcast(
                &mut crowd,
                &mut api,
                messages,
                at_once,
                common.patience(),
                &mut report,
            )?;
            finish(&mut crowd, &mut report)?;
            Ok(report)
        }
        What::Unicast {
            common,
            pace,
            messages,
            in_flight,
        } => {
            let (mut crowd, mut report) = gather(common.plan(pace.rate, "load-")?)?;
            if is_nobody_here(&report) {
                finish(&mut crowd, &mut report)?;
                return Ok(report);
            }
            let talked = crowd.talk(messages, in_flight, common.patience())?;
            report.talked(&talked, messages, in_flight);
            report.is_complete &= !crowd.counts()?.has_faults();
            finish(&mut crowd, &mut report)?;
            Ok(report)
        }
        What::Chat {
            common,
            talk,
            history,
        } => {
            let (report, _) = chat(&common, &talk, common.connections, history.as_deref())?;
            Ok(report)
        }
        What::Storm { common, pace } => storm(&common, pace.rate),
        What::Rolling {
            common,
            talk,
            talkers,
            history,
        } => {
            let talkers = talkers.unwrap_or(common.connections);
            let (mut report, chatted) = chat(&common, &talk, talkers, Some(&history))?;
            report.returned(&chatted.returned, u64::from(common.connections));
            report.judged(&judge(&history)?);
            Ok(report)
        }
        What::Push {
            common,
            flow,
            batch,
            lanes,
            store,
        } => {
            let to = To::Users {
                count: batch,
                store,
            };
            let plan = common.plan(flow.connect_rate, &fresh_prefix("push-", run_number()))?;
            let (mut crowd, mut report) = gather(plan)?;
            let pushing = pushing(&common, &flow, to, lanes);
            if is_nobody_here(&report) {
                finish(&mut crowd, &mut report)?;
                return Ok(report);
            }
            let pushed = crowd.push(&pushing)?;
            let counts = crowd.counts()?;
            report.pushed(&pushed, &counts, flow.rate);
            finish(&mut crowd, &mut report)?;
            Ok(report)
        }
        What::Slow {
            common,
            flow,
            slow,
            stall_secs,
        } => {
            let mut plan = common.plan(flow.connect_rate, "load-")?;
            plan.slow_share = slow;
            let (mut crowd, mut report) = gather(plan)?;
            let pushing = Pushing {
                stalls_for: Duration::from_secs(stall_secs),
                ..pushing(&common, &flow, To::Everybody, 1)
            };
            if is_nobody_here(&report) {
                finish(&mut crowd, &mut report)?;
                return Ok(report);
            }
            let pushed = crowd.push(&pushing)?;
            let counts = crowd.counts()?;
            report.stalled(&pushed, &counts, flow.rate, stall_secs);
            finish(&mut crowd, &mut report)?;
            Ok(report)
        }
        What::Group {
            common,
            talk,
            api,
            size,
        } => group(&common, &talk, &api, size),
        What::Churn {
            common,
            rate,
            stay_secs,
            reset,
        } => churn(&common, rate, stay_secs, reset),
        What::Check { history, .. } => {
            let mut report = Report::new();
            report.judged(&judge(&history)?);
            Ok(report)
        }
    }
}

fn chat(
    common: &Common,
    talk: &Talk,
    talkers: u32,
    history: Option<&Path>,
) -> Result<(Report, Chatted), Failed> {
    if !talkers.is_multiple_of(2) || talkers > common.connections {
        return Err("pairs chat: those who talk must be an even number, of all clients".into());
    }
    let chats = Chats::new(history).map_err(|e| format!("cannot write the history: {e}"))?;
    let mut plan = common.plan(talk.connect_rate, &fresh_prefix("chat-", chats.run))?;
    plan.talkers = talkers as usize;
    plan.chats = Some(Arc::new(chats));
    let (mut crowd, mut report) = gather(plan)?;
    let drain = Duration::from_secs(talk.drain_secs);
    let chatted = crowd.chat(Flow::PerSec(talk.rate), common.patience(), drain)?;
    report.chatted(&chatted, talk.rate, u64::from(common.connections));
    finish(&mut crowd, &mut report)?;
    Ok((report, chatted))
}

/// Users whom no store remembers.
fn fresh_prefix(word: &str, run: u32) -> String {
    format!("{word}{run:08x}-")
}

fn api_key() -> Option<String> {
    std::env::var("THRONG_API_KEY").ok()
}

fn pushing(common: &Common, flow: &Pushes, to: To, lanes: u32) -> Pushing {
    let apis = flow.api.iter().cycle().take(lanes as usize);
    Pushing {
        apis: apis.cloned().collect(),
        key: api_key(),
        rate: flow.rate,
        lasts: common.patience(),
        patience: Duration::from_secs(flow.drain_secs),
        to,
        bytes: flow.bytes as usize,
        stalls_for: Duration::ZERO,
    }
}

fn group(common: &Common, talk: &Talk, url: &str, size: u32) -> Result<Report, Failed> {
    if !common.connections.is_multiple_of(size) {
        return Err(format!("--connections must be a multiple of --size {size}").into());
    }
    let should_stop = stop_flag()?;
    let chats = Chats::in_groups_of(size);
    let mut plan = common.plan(talk.connect_rate, &fresh_prefix("group-", chats.run))?;
    let groups = Groups {
        prefix: fresh_prefix("load-", chats.run),
        size,
    };
    plan.chats = Some(Arc::new(chats));
    plan.groups = Some(groups.clone());
    let mut made = Made::new(url, groups)?;
    for number in 0..common.connections / size {
        if should_stop.load(Relaxed) {
            return Err("interrupted while groups were made".into());
        }
        made.make(number, &plan)?;
    }
    let (mut crowd, mut report) = gather(plan)?;
    crowd.stop_when(should_stop);
    let drain = Duration::from_secs(talk.drain_secs);
    let chatted = crowd.chat(Flow::PerSec(talk.rate), common.patience(), drain)?;
    report.grouped(&chatted, talk.rate, size, u64::from(common.connections));
    finish(&mut crowd, &mut report)?;
    drop(crowd);
    made.end()?;
    Ok(report)
}

/// Groups that were made, and are ended whatever happens.
struct Made {
    api: Api,
    groups: Groups,
    numbers: Range<u32>,
}

impl Made {
    fn new(url: &str, groups: Groups) -> Result<Made, Failed> {
        Ok(Made {
            api: connect(url)?,
            groups,
            numbers: 0..0,
        })
    }

    fn make(&mut self, number: u32, plan: &Plan) -> Result<(), Failed> {
        let id = self.groups.id(number);
        let members: Vec<String> = self.groups.members(number).map(|i| plan.uid(i)).collect();
        // Nobody knows whether one is there whose making was not answered.
        self.numbers.end = number + 1;
        let made = self.api.make_group(&id, &members);
        Ok(made.map_err(|e| format!("cannot make a group: {e}"))?)
    }

    /// Ends all of them; the first error, if there is one.
    fn end(&mut self) -> Result<(), Failed> {
        let mut ended = Ok(());
        for number in std::mem::take(&mut self.numbers) {
            let end = self.api.end_group(&self.groups.id(number));
            ended = ended.and(end);
        }
        Ok(ended.map_err(|e| format!("cannot end a group: {e}"))?)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Where the run has failed, that is what is told.
        let _ = self.end();
    }
}

fn churn(common: &Common, rate: f64, stay_secs: f64, reset: f64) -> Result<Report, Failed> {
    let at_once = rate * stay_secs;
    if at_once * 1.2 > f64::from(common.connections) {
        return Err(format!(
            "{rate} a second who stay for {stay_secs} s are {at_once:.0} at once: --connections must \
             be a fifth more at least"
        )
        .into());
    }
    let plan = common.plan(None, "load-")?;
    let mut crowd = Crowd::gather(plan)?;
    crowd.stop_when(stop_flag()?);
    let manners = Manners {
        stay: Duration::from_secs_f64(stay_secs),
        reset_share: reset,
    };
    let churned = crowd.churn(rate, common.patience(), manners)?;
    let mut report = Report::new();
    report.churned(&churned, rate, at_once);
    finish(&mut crowd, &mut report)?;
    Ok(report)
}

fn connect(url: &str) -> Result<Api, Failed> {
    let api = Api::connect(url, api_key());
    Ok(api.map_err(|e| format!("cannot reach the API at {url}: {e}"))?)
}

/// Set by SIGINT and SIGTERM. The first one ends the run, and if that takes too long the second one
/// the program.
fn stop_flag() -> Result<Arc<AtomicBool>, Failed> {
    let should_stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, should_stop.clone())?;
        flag::register(signal, should_stop.clone())?;
    }
    Ok(should_stop)
}

fn storm(common: &Common, rate: Option<f64>) -> Result<Report, Failed> {
    let should_stop = stop_flag()?;
    let mut plan = common.plan(rate, "load-")?;
    plan.comes_back = true;
    let mut crowd = Crowd::gather(plan)?;
    let weathered = crowd.weather(common.patience(), &should_stop)?;
    let mut report = Report::new();
    report.weathered(&weathered, u64::from(common.connections));
    finish(&mut crowd, &mut report)?;
    Ok(report)
}

fn judge(history: &Path) -> Result<throng_history::Report, Failed> {
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", history.display());
    let file = File::open(history).map_err(|e| told(&e))?;
    let lines = BufReader::with_capacity(1 << 20, file);
    Ok(throng_history::judge(lines).map_err(|e| told(&e))?)
}

fn gather(mut plan: Plan) -> Result<(Crowd, Report), Failed> {
    plan.follows_hints = true;
    let clients = plan.clients;
    // At the slowest: as long as the rate takes, or 200 a second, and a handshake's time.
    let slowest = clients as f64 / plan.rate.unwrap_or(200.0).max(0.001);
    let patience = Duration::from_secs_f64(slowest.min(1e6) * 1.1) + plan.handshake_patience;
    let mut crowd = Crowd::gather(plan)?;
    crowd.counts()?;
    let empty = own_bytes();
    let opened = crowd.open(clients, patience)?;
    let mut report = Report::new();
    report.opened(&opened, clients as u64);
    report.followed(&opened);
    if let (Some(empty), Some(full)) = (empty, own_bytes()) {
        report.own_memory(full.saturating_sub(empty), clients as u64);
    }
    report.counts = Some(crowd.counts()?);
    Ok((crowd, report))
}

/// Why, the counts say: there is nothing else to report then.
fn is_nobody_here(report: &Report) -> bool {
    report.counts.as_ref().is_none_or(|counts| counts.open == 0)
}

fn broadcast(
    crowd: &mut Crowd,
    api: &mut Api,
    messages: u32,
    at_once: u32,
    patience: Duration,
    report: &mut Report,
) -> Result<(), Failed> {
    let began = Instant::now();
    let (mut delivered, mut expected, mut left) = (0, 0, messages);
    let (mut first_worst, mut last_worst) = (Duration::ZERO, Duration::ZERO);
    while left > 0 && began.elapsed() < patience {
        let count = left.min(at_once);
        let remaining = patience.saturating_sub(began.elapsed());
        let heard = crowd.hear(count, remaining, |bodies| api.send_to_all(bodies))?;
        delivered += heard.delivered;
        expected += heard.expected();
        first_worst = first_worst.max(heard.first.unwrap_or(remaining));
        last_worst = last_worst.max(heard.last.unwrap_or(remaining));
        left -= count;
    }
    let secs = began.elapsed().as_secs_f64();
    let (first, last) = (
        first_worst.as_secs_f64() * 1e3,
        last_worst.as_secs_f64() * 1e3,
    );
    report.text += &format!(
        "broadcast    {delivered} of {expected} deliveries of {} messages in {secs:.2} s, {at_once} at once\n\
         slowest      first delivery after {first:.1} ms, last after {last:.1} ms\n",
        messages - left
    );
    report.fields["broadcast"] = json!({
        "messages": messages - left, "delivered": delivered, "expected": expected, "secs": secs,
        "first_ms": first, "last_ms": last,
    });
    let is_good = !crowd.counts()?.has_faults();
    report.is_complete &= left == 0 && delivered == expected && is_good;
    Ok(())
}

fn finish(crowd: &mut Crowd, report: &mut Report) -> Result<(), Failed> {
    report.counted(crowd.counts()?);
    Ok(())
}
