//! The report of the run, as Markdown: what was measured, beside what was aimed at.

use std::fmt::Write as _;

use super::Million;
use super::stages::{Arrival, Beyond, Held, Idle, Results};

/// What one connection may take of user space, and the idle crowd of CPU.
const BYTES_MAX: f64 = 256.0;
const IDLE_RATIO_MAX: f64 = 1.3;
const CALM_CPU_MAX: f64 = 0.01;
const TURN_MS_MAX: f64 = 50.0;

const CACHES_SHOWN: usize = 8;

/// Rows of one table.
struct Sheet(String);

impl Sheet {
    fn row(&mut self, what: &str, value: String, aim: &str) {
        let _ = writeln!(self.0, "| {what} | {value} | {aim} |");
    }
}

pub fn markdown(million: &Million, results: &Results) -> String {
    let mut text = format!(
        "# {} connections on one machine\n\n{}.\n\nOne server process, one client process, both on this machine and on the same cores, over \
         loopback.\nAll connections are authenticated (signed tokens), registered, and pinged after {} s of silence.\n",
        thousands(u64::from(million.connections)),
        results.machine,
        million.ping_secs
    );
    if let Some(error) = &results.ended_by {
        let _ = writeln!(text, "\n**The run ended before its end: {error}.**");
    }
    if results.throng.is_some() {
        text += &crowd(million, results);
    }
    if let Some(beyond) = &results.beyond {
        text += &further(million, beyond);
    }
    let missed = misses(results);
    match missed.is_empty() {
        true => text.push_str("\nAll targets that were measured are reached.\n"),
        false => {
            let _ = writeln!(text, "\nShort of its target: {}.", missed.join("; "));
        }
    }
    if !results.troubles.is_empty() {
        let _ = writeln!(
            text,
            "\nTroubles of the clients: {}.",
            results.troubles.join("; ")
        );
    }
    text += "\nThe host's settings during the run:\n\n";
    for (name, value) in &results.settings.0 {
        let _ = writeln!(text, "- `{}` {value}", name.replace('/', "."));
    }
    text
}

fn crowd(million: &Million, results: &Results) -> String {
    let mut sheet = Sheet("\n| | measured | target |\n| --- | --- | --- |\n".to_owned());
    if let Some(held) = &results.throng {
        held_rows(&mut sheet, held);
    }
    if let Some(idle) = &results.idle {
        let floor = results.floor_idle.as_ref();
        sheet.row(
            &format!("idle for {:.0} s, with pings", idle.secs),
            format!(
                "{:.1} % of a core, {} pings and pongs, {:.1} us each; {} still connected",
                idle.cpu * 100.0,
                thousands(idle.pings),
                micros_each(idle),
                thousands(idle.open)
            ),
            "",
        );
        if let Some(floor) = floor {
            sheet.row(
                "the same on the floor",
                format!(
                    "{:.1} % of a core, {:.1} us each",
                    floor.cpu * 100.0,
                    micros_each(floor)
                ),
                "",
            );
            let ratio = micros_each(idle) / micros_each(floor);
            sheet.row("ratio", format!("{ratio:.2}"), "<= 1.3");
        }
    }
    if let Some(calm) = &results.calm {
        sheet.row(
            &format!("idle for {:.0} s, without pings", calm.secs),
            format!("{:.2} % of a core", calm.cpu * 100.0),
            "< 1 %",
        );
    }
    if let Some((reached, micros)) = &results.broadcast {
        sheet.row(
            "a broadcast to all",
            format!(
                "reached {} of {}: the first after {:.1} ms, the last after {:.2} s; {:.1} us of server CPU each",
                thousands(reached.delivered),
                thousands(reached.expected),
                reached.first_ms,
                reached.last_ms / 1e3,
                micros / reached.delivered.max(1) as f64
            ),
            "all",
        );
    }
    if let Some((chats, micros)) = &results.chats {
        sheet.row(
            &format!(
                "{} chats a second among them, six packets each",
                million.chat_rate
            ),
            format!(
                "{} due, {} stored, {} delivered, {} told of; {:.0} us of server CPU each",
                thousands(chats.issued),
                thousands(chats.confirmed),
                thousands(chats.delivered),
                thousands(chats.noticed),
                micros / chats.issued.max(1) as f64
            ),
            "all",
        );
        for (name, [p50, p99, p999, max]) in [
            ("stored (0)", chats.stored),
            ("received (2)", chats.received),
            ("told (17)", chats.told),
        ] {
            sheet.row(
                &format!("due → {name}"),
                format!("p50 {p50:.1} ms, p99 {p99:.1} ms, p99.9 {p999:.1} ms, max {max:.1} ms"),
                "",
            );
        }
    }
    if let Some(kill) = &results.kill {
        sheet.row(
            "all clients killed (-9)",
            format!(
                "the server had nobody left after {:.1} s; {:.1} us of CPU each; {} of user space remain",
                kill.gone_secs,
                kill.server_micros_each,
                mebibytes(kill.left_bytes)
            ),
            "",
        );
    }
    if let Some(again) = &results.again {
        sheet.row("everybody comes back", arrival(again), "all");
    }
    let turns: Vec<String> = results
        .worst_turns
        .iter()
        .map(|(after, ms)| format!("{ms:.1} ms after \"{after}\""))
        .collect();
    sheet.row(
        "a reactor's worst turn so far, in thread CPU time",
        turns.join(", "),
        "< 50 ms",
    );
    if let Some(floor) = &results.floor {
        sheet.row("the floor: everybody comes", arrival(&floor.arrival), "");
    }
    sheet.0
}

fn held_rows(sheet: &mut Sheet, held: &Held) {
    let open = held.arrival.arrived.open.max(1) as f64;
    sheet.row("everybody comes", arrival(&held.arrival), "all");
    sheet.row(
        "reactors",
        format!("{}, a file table each", held.reactors),
        "",
    );
    sheet.row(
        "user space of the server",
        format!(
            "{:.0} bytes a connection; {} in all, {} of them before the first came",
            held.full_bytes.saturating_sub(held.empty_bytes) as f64 / open,
            mebibytes(held.full_bytes),
            mebibytes(held.empty_bytes)
        ),
        "<= 256 bytes",
    );
    sheet.row(
        "user space of the clients",
        format!(
            "{:.0} bytes a connection; {} in all",
            held.own_full_bytes.saturating_sub(held.own_empty_bytes) as f64 / open,
            mebibytes(held.own_full_bytes)
        ),
        "<= 300 bytes",
    );
    let slab: u64 = held.slabs.values().sum();
    sheet.row(
        "kernel (slab)",
        match slab {
            0 => "unknown: only root reads /proc/slabinfo".to_owned(),
            _ => format!(
                "{:.0} bytes a connection, both ends; {} in all",
                slab as f64 / open,
                mebibytes(slab)
            ),
        },
        "",
    );
    sheet.row(
        "everything (MemAvailable)",
        format!(
            "{:.0} bytes a connection, both ends and both processes",
            held.all_bytes as f64 / open
        ),
        "",
    );
    let mut caches: Vec<_> = held.slabs.iter().collect();
    caches.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
    let caches = caches.iter().take(CACHES_SHOWN);
    let caches: Vec<String> = caches
        .map(|(name, bytes)| format!("{name} {:.0}", **bytes as f64 / open))
        .collect();
    if !caches.is_empty() {
        sheet.row("slab caches, bytes a connection", caches.join(", "), "");
    }
}

fn further(million: &Million, beyond: &Beyond) -> String {
    let mut text = format!(
        "\n## Further, toward {}\n",
        thousands(u64::from(million.toward))
    );
    match &beyond.stopped_by {
        Some(why) => {
            let _ = writeln!(
                text,
                "\nIt ended at {}: {why}.",
                thousands(beyond.held.arrival.arrived.open)
            );
        }
        None => text.push_str("\nAll came.\n"),
    }
    let mut sheet = Sheet("\n| | measured | target |\n| --- | --- | --- |\n".to_owned());
    held_rows(&mut sheet, &beyond.held);
    sheet.row(
        &format!("idle for {:.0} s, with pings", beyond.idle.secs),
        format!(
            "{:.1} % of a core, {:.1} us a ping and pong; {} still connected",
            beyond.idle.cpu * 100.0,
            micros_each(&beyond.idle),
            thousands(beyond.idle.open)
        ),
        "",
    );
    sheet.row(
        "a broadcast to all",
        format!(
            "reached {} of {}: the first after {:.1} ms, the last after {:.2} s",
            thousands(beyond.broadcast.delivered),
            thousands(beyond.broadcast.expected),
            beyond.broadcast.first_ms,
            beyond.broadcast.last_ms / 1e3
        ),
        "all",
    );
    sheet.row(
        "memory left (MemAvailable)",
        mebibytes(beyond.available_bytes),
        "",
    );
    text + &sheet.0
}

/// What of this run falls short of its target.
fn misses(results: &Results) -> Vec<String> {
    let mut missed = Vec::new();
    if !results.is_complete() {
        missed.push("not everybody was connected, reached, served and connected again".to_owned());
    }
    if let Some(held) = &results.throng {
        let open = held.arrival.arrived.open.max(1) as f64;
        let each = held.full_bytes.saturating_sub(held.empty_bytes) as f64 / open;
        if each > BYTES_MAX {
            missed.push(format!("{each:.0} bytes of user space a connection"));
        }
    }
    if let (Some(idle), Some(floor)) = (&results.idle, &results.floor_idle) {
        let ratio = micros_each(idle) / micros_each(floor);
        if ratio > IDLE_RATIO_MAX {
            missed.push(format!("idle with pings costs {ratio:.2} x the floor"));
        }
    }
    if let Some(calm) = results
        .calm
        .as_ref()
        .filter(|calm| calm.cpu >= CALM_CPU_MAX)
    {
        missed.push(format!(
            "idle without pings takes {:.2} % of a core",
            calm.cpu * 100.0
        ));
    }
    let worst = results
        .worst_turns
        .iter()
        .map(|(_, ms)| *ms)
        .fold(0.0, f64::max);
    if worst >= TURN_MS_MAX {
        missed.push(format!("a turn took {worst:.0} ms"));
    }
    missed
}

fn arrival(arrival: &Arrival) -> String {
    let arrived = &arrival.arrived;
    let limit = arrived.limit.as_ref().map(|limit| format!("; {limit}"));
    format!(
        "{} in {:.1} s, {:.0}/s; {:.1} us of server CPU each{}",
        thousands(arrived.open),
        arrived.secs,
        arrived.open as f64 / arrived.secs,
        arrival.server_micros_each,
        limit.unwrap_or_default()
    )
}

fn micros_each(idle: &Idle) -> f64 {
    idle.cpu * idle.secs * 1e6 / idle.pings.max(1) as f64
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// With a space between groups of three digits.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(thousands),
            ["0", "999", "1 000", "1 234 567"]
        );
    }
}
