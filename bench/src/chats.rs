//! Chats with all six packets over a node with each store, and a store of a million entries that
//! is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use smallvec::SmallVec;
use throng::inbox::batch::Store;
use throng::inbox::records::{Entry, EntryBody};
use throng::inbox::{Accept, Books, InboxRules, Presence};
use throng::protocol::envelope::MessageId;
use throng::store::Disk;
use throng_loadtest::{Chats, Crowd, Flow};

use crate::server::{Scratch, Server, build_throng};
use crate::{Failed, machine};
use throng_loadtest::process::CpuSample;

const SETTLES: Duration = Duration::from_millis(500);
const OPEN_PATIENCE: Duration = Duration::from_secs(60);
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);
/// Entries that are written in one transaction, and that stand in one inbox.
const BATCH: u64 = 1000;
const EACH: u64 = 200;

#[derive(Args)]
pub struct Chat {
    /// Users that chat in pairs, a connection each.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    connections: u32,
    /// Messages a second that are due, whatever becomes of those before; may be repeated.
    #[arg(long, default_values_t = [5000.0, 10_000.0, 15_000.0])]
    rate: Vec<f64>,
    /// How long they talk.
    #[arg(long, default_value_t = 10)]
    secs: u64,
    /// Where the node keeps messages; may be repeated.
    #[arg(long, default_values_t = ["memory".to_owned(), "disk".to_owned()])]
    store: Vec<String>,
    /// Reactors of the node. One leaves the clients a core of their own on a machine of two.
    #[arg(long, default_value_t = 1)]
    reactors: usize,
    /// The gateway's binary; built where it is not given.
    #[arg(long)]
    throng: Option<PathBuf>,
}

/// True if all that was said was stored, delivered and told of.
pub fn chat(chat: Chat) -> Result<bool, Failed> {
    let binary = chat.throng.clone().map_or_else(build_throng, Ok)?;
    println!(
        "{}; {} connections, reactors: {}, {} s each\n",
        machine::line(),
        chat.connections,
        chat.reactors,
        chat.secs
    );
    println!(
        "| store | due a second | stored a second | CPU of the server for each | send → type 0, p50 | p99 | send → type 17, p50 | p99 |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut is_complete = true;
    for store in &chat.store {
        for &rate in &chat.rate {
            is_complete &= row(&binary, &chat, store, rate)?;
        }
    }
    Ok(is_complete)
}

fn row(binary: &Path, chat: &Chat, store: &str, rate: f64) -> Result<bool, Failed> {
    let server = Server::throng(binary, chat.reactors, &["--store", store])?;
    let mut plan = server.plan(chat.connections as usize)?;
    plan.chats = Some(Arc::new(Chats::new(None)?));
    let mut crowd = Crowd::gather(plan)?;
    let opened = crowd.open(chat.connections as usize, OPEN_PATIENCE)?;
    if opened.open != u64::from(chat.connections) {
        return Err(format!("{} of {} connected", opened.open, chat.connections).into());
    }
    std::thread::sleep(SETTLES);
    let before = CpuSample::take(server.pid())?;
    let chatted = crowd.chat(
        Flow::PerSec(rate),
        Duration::from_secs(chat.secs),
        DRAIN_PATIENCE,
    )?;
    let used = before.used_until(&CpuSample::take(server.pid())?);
    let tally = &chatted.tally;
    let millis = |nanos: u64| nanos as f64 / 1e6;
    println!(
        "| {store} | {rate:.0} | {:.0} | {:.1} us | {:.2} ms | {:.2} ms | {:.2} ms | {:.2} ms |",
        tally.confirmed as f64 / chatted.took.as_secs_f64(),
        used.nanos as f64 / 1e3 / tally.confirmed.max(1) as f64,
        millis(tally.to_stored.value_at_quantile(0.5)),
        millis(tally.to_stored.value_at_quantile(0.99)),
        millis(tally.to_noticed.value_at_quantile(0.5)),
        millis(tally.to_noticed.value_at_quantile(0.99)),
    );
    crowd.leave()?;
    let all = chatted.issued;
    let is_complete = [tally.confirmed, tally.delivered, tally.noticed] == [all; 3];
    if !is_complete {
        eprintln!(
            "of {all}: {} stored, {} delivered, {} told of",
            tally.confirmed, tally.delivered, tally.noticed
        );
    }
    Ok(is_complete)
}

#[derive(Args)]
pub struct OpenStore {
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// The gateway's binary; built where it is not given.
    #[arg(long)]
    throng: Option<PathBuf>,
}

/// Fills a store, has a node open it, kills that, and has another open it.
pub fn open_store(open: OpenStore) -> Result<bool, Failed> {
    let binary = open.throng.map_or_else(build_throng, Ok)?;
    let data = Scratch::new("store")?;
    println!("{}", machine::line());
    let began = Instant::now();
    fill(&data.0, open.entries)?;
    println!(
        "filled       {} entries of {EACH} for each user, in {:.1} s",
        open.entries,
        began.elapsed().as_secs_f64()
    );
    for how in ["closed in order", "killed while it was written to"] {
        let (server, took) = Server::on_data(&binary, &data.0)?;
        println!(
            "ready        after {:.0} ms, on a store that was {how}",
            took.as_secs_f64() * 1e3
        );
        let mut plan = server.plan(100)?;
        plan.chats = Some(Arc::new(Chats::new(None)?));
        let mut crowd = Crowd::gather(plan)?;
        crowd.open(100, OPEN_PATIENCE)?;
        let flow = Flow::PerSec(1000.0);
        crowd.chat(flow, Duration::from_secs(2), DRAIN_PATIENCE)?;
    }
    Ok(true)
}

struct Nobody;

impl Presence for Nobody {
    fn devices(&self, _: &str) -> SmallVec<[String; 2]> {
        SmallVec::new()
    }
}

/// Chats of some hundred bytes, for users who are away.
fn fill(data: &Path, entries: u64) -> Result<(), Failed> {
    let mut store = Disk::open(data)?;
    let epoch = store.epoch();
    let rules = InboxRules {
        entries_max: 1000,
        bytes_max: 8 << 20,
        notices_max: 1000,
        devices_max: 8,
        ttl_ms: 7 * 24 * 3_600_000,
        seen_ms: 24 * 3_600_000,
        seen_max: 10_000,
    };
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_millis() as u64;
    for first in (0..entries).step_by(BATCH as usize) {
        store.run(&mut |rows| {
            let mut rings = Vec::new();
            let mut books = Books {
                rows,
                presence: &Nobody,
                rules: &rules,
                now_ms,
                epoch,
                rings: &mut rings,
            };
            for n in first..entries.min(first + BATCH) {
                let msg = format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(100));
                books.accept(&Accept {
                    to: format!("user-{:08}", n / EACH),
                    sender: "system".to_owned(),
                    msgid: Some(format!("m{n}")),
                    entry: Entry {
                        id: MessageId(u128::from(n).to_be_bytes()).at(now_ms),
                        at_ms: now_ms,
                        from: "system".to_owned(),
                        request_id: None,
                        is_http: true,
                        body: EntryBody::Raw { msg },
                    },
                })?;
            }
            Ok(())
        })?;
    }
    Ok(())
}
