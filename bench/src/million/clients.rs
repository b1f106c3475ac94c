//! The clients of the million: a process of their own, which does what its standard input says.
//!
//! Owns: two crowds, those who only listen and those who chat, so that the inboxes of the latter
//! cost the former nothing.
//! Neighbours: [`Child`] is the other end, in the process that measures.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use throng_loadtest::{Chats, Crowd, Flow, Plan, Who};

use crate::Failed;
use crate::server::{Pusher, SECRET, Server};
use throng_loadtest::process::anonymous_bytes;

/// Handshakes under way at once, in all threads of a crowd.
const WINDOW: usize = 512;
const BROADCAST_PATIENCE: Duration = Duration::from_secs(180);
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Clients {
    #[arg(long)]
    url: String,
    /// Where broadcasts are pushed.
    #[arg(long)]
    door: String,
    #[arg(long)]
    listeners: usize,
    #[arg(long)]
    chatters: usize,
    /// Source addresses that are left to clients before these: their ports are in TIME_WAIT.
    #[arg(long, default_value_t = 0)]
    sources_from: u32,
}

#[derive(Serialize, Deserialize)]
enum Order {
    /// Opens connections until there are so many listeners, and all chatters.
    Open {
        listeners: usize,
    },
    Counts,
    Broadcast,
    Chat {
        rate: f64,
        secs: u64,
    },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counted {
    pub open: u64,
    pub pings_answered: u64,
    /// Failures and close frames, by cause.
    pub troubles: Vec<String>,
    /// Of the client process: RssAnon.
    pub own_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arrived {
    pub open: u64,
    pub secs: f64,
    pub limit: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reached {
    pub expected: u64,
    pub delivered: u64,
    pub first_ms: f64,
    pub last_ms: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chatted {
    pub issued: u64,
    pub confirmed: u64,
    pub delivered: u64,
    pub noticed: u64,
    pub secs: f64,
    /// p50, p99, p99.9 and the most, in milliseconds since the message was due.
    pub stored: [f64; 4],
    pub received: [f64; 4],
    pub told: [f64; 4],
}

/// Obeys until standard input ends. An answer is one line of JSON, an error one that says so.
pub fn serve(clients: Clients) -> Result<bool, Failed> {
    let mut crowds = Crowds::gather(&clients)?;
    for line in io::stdin().lock().lines() {
        let order = serde_json::from_str(&line?)?;
        let answer = crowds.obey(order).map_err(|error| error.to_string());
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(true)
}

struct Crowds {
    listeners: Crowd,
    chatters: Option<Crowd>,
    pusher: Pusher,
    chatters_count: usize,
}

impl Crowds {
    fn gather(clients: &Clients) -> Result<Crowds, Failed> {
        let plan = |prefix: &str, count: usize| -> Result<Plan, Failed> {
            let mut plan = Plan::new(&clients.url, Who::signed(SECRET)?, prefix, count)?;
            plan.window = WINDOW.max(plan.threads);
            plan.handshake_patience = Duration::from_secs(60);
            for source in &mut plan.sources {
                if let IpAddr::V4(address) = source {
                    *address = Ipv4Addr::from_bits(address.to_bits() + clients.sources_from);
                }
            }
            Ok(plan)
        };
        let chatters = match clients.chatters {
            0 => None,
            count => {
                let chats = Chats::new(None)?;
                let mut plan = plan(&format!("chat-{:08x}-", chats.run), count)?;
                plan.chats = Some(Arc::new(chats));
                Some(Crowd::gather(plan)?)
            }
        };
        Ok(Crowds {
            listeners: Crowd::gather(plan("load-", clients.listeners)?)?,
            chatters,
            pusher: Pusher::open(&clients.door)?,
            chatters_count: clients.chatters,
        })
    }

    fn obey(&mut self, order: Order) -> Result<serde_json::Value, Failed> {
        Ok(match order {
            Order::Open { listeners } => serde_json::to_value(self.open(listeners)?)?,
            Order::Counts => serde_json::to_value(self.counts()?)?,
            Order::Broadcast => serde_json::to_value(self.broadcast()?)?,
            Order::Chat { rate, secs } => serde_json::to_value(self.chat(rate, secs)?)?,
        })
    }

    fn open(&mut self, listeners: usize) -> Result<Arrived, Failed> {
        let began = Instant::now();
        let patience = Duration::from_secs(120 + listeners as u64 / 2000);
        let mut limit = None;
        if let Some(chatters) = &mut self.chatters {
            limit = chatters.open(self.chatters_count, patience)?.limit;
        }
        let opened = self.listeners.open(listeners, patience)?;
        Ok(Arrived {
            open: self.counts()?.open,
            secs: began.elapsed().as_secs_f64(),
            limit: limit.or(opened.limit).map(|limit| limit.to_string()),
        })
    }

    fn counts(&mut self) -> Result<Counted, Failed> {
        let mut counts = self.listeners.counts()?;
        if let Some(chatters) = &mut self.chatters {
            counts.add(&chatters.counts()?);
        }
        let refused = counts.refused.iter().map(|(s, n)| format!("{n}: HTTP {s}"));
        let closes = counts
            .closes
            .iter()
            .map(|(c, n)| format!("{n}: closed with {c}"));
        let errors = counts.errors.iter().map(|(e, n)| format!("{n}: {e}"));
        Ok(Counted {
            open: counts.open,
            pings_answered: counts.pings_answered,
            troubles: refused.chain(closes).chain(errors).collect(),
            own_bytes: anonymous_bytes(std::process::id())?,
        })
    }

    /// One broadcast, which those who chat hear without being counted.
    fn broadcast(&mut self) -> Result<Reached, Failed> {
        let pusher = &mut self.pusher;
        let push = |bodies: &[String]| pusher.push(bodies);
        let heard = self.listeners.hear(1, BROADCAST_PATIENCE, push)?;
        let millis = |time: Option<Duration>| time.map_or(f64::NAN, |t| t.as_secs_f64() * 1e3);
        Ok(Reached {
            expected: heard.expected(),
            delivered: heard.delivered,
            first_ms: millis(heard.first),
            last_ms: millis(heard.last),
        })
    }

    fn chat(&mut self, rate: f64, secs: u64) -> Result<Chatted, Failed> {
        let crowd = self.chatters.as_mut().ok_or("nobody chats")?;
        let lasts = Duration::from_secs(secs);
        let chatted = crowd.chat(Flow::PerSec(rate), lasts, DRAIN_PATIENCE)?;
        let tally = &chatted.tally;
        Ok(Chatted {
            issued: chatted.issued,
            confirmed: tally.confirmed,
            delivered: tally.delivered,
            noticed: tally.noticed,
            secs: chatted.took.as_secs_f64(),
            stored: quantiles(&tally.to_stored),
            received: quantiles(&tally.to_delivered),
            told: quantiles(&tally.to_noticed),
        })
    }
}

fn quantiles(nanos: &Histogram<u64>) -> [f64; 4] {
    let at = |quantile| nanos.value_at_quantile(quantile) as f64 / 1e6;
    [at(0.5), at(0.99), at(0.999), nanos.max() as f64 / 1e6]
}

/// A client process, and the way to tell it what to do.
pub struct Child {
    child: std::process::Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Child {
    pub fn start(
        server: &Server,
        listeners: usize,
        chatters: usize,
        sources_from: u32,
    ) -> Result<Child, Failed> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["clients", "--url", server.ws(), "--door", &server.door()?])
            .args(["--listeners", &listeners.to_string()])
            .args(["--chatters", &chatters.to_string()])
            .args(["--sources-from", &sources_from.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().ok_or("the clients take no orders")?;
        let answers = child.stdout.take().ok_or("the clients do not answer")?;
        Ok(Child {
            child,
            orders,
            answers: BufReader::new(answers),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn open(&mut self, listeners: usize) -> Result<Arrived, Failed> {
        self.ask(&Order::Open { listeners })
    }

    pub fn counts(&mut self) -> Result<Counted, Failed> {
        self.ask(&Order::Counts)
    }

    pub fn broadcast(&mut self) -> Result<Reached, Failed> {
        self.ask(&Order::Broadcast)
    }

    pub fn chat(&mut self, rate: f64, secs: u64) -> Result<Chatted, Failed> {
        self.ask(&Order::Chat { rate, secs })
    }

    fn ask<T: serde::de::DeserializeOwned>(&mut self, order: &Order) -> Result<T, Failed> {
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        self.orders.write_all(line.as_bytes())?;
        line.clear();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("the clients have ended".into());
        }
        Ok(serde_json::from_str::<Result<T, String>>(&line)??)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // All its connections end at once, without a word.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
