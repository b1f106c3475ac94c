//! A long history is judged in seconds, and in memory for its messages, not for its events.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufReader, Read};
use std::time::{Duration, Instant};

use support::{alice_and_bob, entry, link, place, sent};
use throng_history::{Class, Event, Judge, Report, What, judge};

/// Lines that are made while they are read.
struct Lines<I> {
    events: I,
    text: Vec<u8>,
    read: usize,
}

impl<I: Iterator<Item = Vec<Event>>> Read for Lines<I> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.read == self.text.len() {
            self.text.clear();
            self.read = 0;
            for event in self.events.next().unwrap_or_default() {
                event.write(&mut self.text)?;
            }
        }
        let count = (&self.text[self.read..]).read(out)?;
        self.read += count;
        Ok(count)
    }
}

/// The most memory that this process ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let digits = line.and_then(|line| line.split_whitespace().nth(1));
    digits.unwrap().parse().unwrap()
}

/// Judges a long exchange, and says how much memory that took.
fn million() -> (Report, Duration, u64) {
    const MESSAGES: u64 = 143_000;
    let steps = (0..=MESSAGES + 1).map(|n| {
        let mut story = match n {
            0 => alice_and_bob(),
            _ => support::Story::default(),
        };
        story.now = n * 10;
        match n {
            0 => {}
            n if n > MESSAGES => drop(story.add(What::Drained {})),
            n => drop(story.exchange(n)),
        }
        story.events
    });
    let lines = Lines {
        events: steps,
        text: Vec::new(),
        read: 0,
    };
    let (before, began) = (peak_kib(), Instant::now());
    let report = judge(BufReader::new(lines)).unwrap();
    let took = began.elapsed();
    (report, took, peak_kib().saturating_sub(before))
}

/// 2 000 messages to 500 receivers: a million events, and half a million deliveries.
fn crowd() -> (Report, u64) {
    const MEMBERS: u64 = 250;
    const MESSAGES: u64 = 2000;
    let name = |n: u64| format!("user{n}");
    let mut judge = Judge::new();
    let (mut line, mut now) = (0, 0);
    let before = peak_kib();
    let mut see = |what: What| {
        (line, now) = (line + 1, now + 1);
        judge.see(line, &Event { at: now, what });
    };
    see(What::Group {
        group: "all".to_owned(),
        members: (0..MEMBERS).map(name).collect(),
    });
    let links: Vec<_> = (0..2 * MEMBERS)
        .map(|n| {
            let mut link = link(&name(n / 2), n);
            link.device = format!("d{}", n % 2);
            link
        })
        .collect();
    for on in &links {
        let on = on.clone();
        see(What::Open { on, cursor: None });
    }
    for n in 1..=MESSAGES {
        let (sent, id) = (
            sent(Class::Group, "user0", &format!("m{n}"), "all"),
            format!("{n:032x}"),
        );
        see(What::Send {
            sent: sent.clone(),
            connection: Some(0),
        });
        see(What::Confirmed {
            sent: sent.clone(),
            message_id: id.clone(),
            dup: false,
        });
        for on in &links[1..] {
            let (on, entry, sent) = (on.clone(), entry(place(n), &id), sent.clone());
            see(What::Receive {
                on: on.clone(),
                entry: entry.clone(),
            });
            see(What::Deliver { on, entry, sent });
        }
    }
    see(What::Drained {});
    let grown = peak_kib().saturating_sub(before);
    (judge.finish(), grown)
}

/// One test, because memory is the process's.
#[test]
fn a_million_events_are_judged_in_seconds_and_in_memory_for_their_messages() {
    // The small one first: a peak only grows.
    let (report, kib) = crowd();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.totals.owed, 2000 * 498);
    println!("{report}\n{kib} KiB");
    assert!(kib < 16 << 10, "{kib} KiB for 2000 messages");
    let (report, took, kib) = million();
    assert!(report.is_clean(), "{report}");
    assert!(report.totals.events > 1_000_000);
    println!("{report}\n{took:?}, {kib} KiB");
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(kib < 143_000, "a message takes a kilobyte: {kib} KiB");
}
