//! What each scenario has the crowd do, one after the other, and what of it is reported. A part of
//! the program, not of the library.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use throng_loadtest::{Api, Chats, Chatted, Crowd, Flow, Plan};

use crate::Failed;
use crate::args::{Common, Talk, What};
use crate::report::Report;

pub fn run(what: What) -> Result<Report, Failed> {
    match what {
        What::Idle { common, pace } => {
            let (mut crowd, mut report) = gather(common.plan(pace.rate, "load-")?)?;
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
            let mut api = Api::connect(&api, std::env::var("THRONG_API_KEY").ok())
                .map_err(|e| format!("cannot reach the API at {api}: {e}"))?;
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
            let talked = crowd.talk(messages, in_flight, common.patience())?;
            report.talked(&talked, messages, in_flight);
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
    let mut plan = common.plan(talk.connect_rate, &format!("chat-{:08x}-", chats.run))?;
    plan.talkers = talkers as usize;
    plan.chats = Some(Arc::new(chats));
    let (mut crowd, mut report) = gather(plan)?;
    let drain = Duration::from_secs(talk.drain_secs);
    let chatted = crowd.chat(Flow::PerSec(talk.rate), common.patience(), drain)?;
    report.chatted(&chatted, talk.rate, u64::from(common.connections));
    finish(&mut crowd, &mut report)?;
    Ok((report, chatted))
}

fn storm(common: &Common, rate: Option<f64>) -> Result<Report, Failed> {
    let should_stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The first one ends the run, and if that takes too long the second one the program.
        flag::register_conditional_default(signal, should_stop.clone())?;
        flag::register(signal, should_stop.clone())?;
    }
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

fn gather(plan: Plan) -> Result<(Crowd, Report), Failed> {
    let clients = plan.clients;
    // At the slowest: as long as the rate takes, or 200 a second, and a handshake's time.
    let slowest = clients as f64 / plan.rate.unwrap_or(200.0).max(0.001);
    let patience = Duration::from_secs_f64(slowest.min(1e6) * 1.1) + plan.handshake_patience;
    let mut crowd = Crowd::gather(plan)?;
    let opened = crowd.open(clients, patience)?;
    let mut report = Report::new();
    report.opened(&opened, clients as u64);
    report.counts = Some(crowd.counts()?);
    Ok((crowd, report))
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
    report.is_complete &= left == 0 && delivered == expected;
    Ok(())
}

fn finish(crowd: &mut Crowd, report: &mut Report) -> Result<(), Failed> {
    report.counted(crowd.counts()?);
    Ok(())
}
