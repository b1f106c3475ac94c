//! The figures of all cases → Markdown.

use std::fmt::{self, Display, Formatter};

use super::crowds::{Broadcast, Directory};
use super::{median, stored, unicast};

/// Direct messages across two nodes: a second at least, and milliseconds of p99 at most.
const PER_SEC_MIN: f64 = 20_000.0;
const P99_MS_MAX: f64 = 10.0;

/// Direct messages, by server.
pub struct Unicasts<'a>(pub &'a [(&'static str, Vec<unicast::Figures>)]);

impl Unicasts<'_> {
    /// What Throng's target lacks, if anything.
    pub fn shortfall(&self) -> Option<String> {
        let (_, runs) = self.0.iter().find(|(name, _)| *name == "Throng")?;
        let per_sec = median(runs.iter().map(|run| run.per_sec).collect());
        let p99 = median(runs.iter().map(|run| run.p99_us / 1e3).collect());
        let is_reached = per_sec >= PER_SEC_MIN && p99 <= P99_MS_MAX;
        (!is_reached).then(|| {
            format!(
                "direct messages: {per_sec:.0} a second at p99 {p99:.1} ms, the target is \
                 {PER_SEC_MIN:.0} at {P99_MS_MAX:.0} ms"
            )
        })
    }
}

impl Display for Unicasts<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| direct messages | a second | p50 | p99 | CPU each: sender's node | receiver's node | Redis | in all | lost |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        )?;
        for (name, runs) in self.0 {
            let of =
                |figure: fn(&unicast::Figures) -> f64| Spread(runs.iter().map(figure).collect());
            let lost: u64 = runs.iter().map(|run| run.sent - run.received).sum();
            let sent: u64 = runs.iter().map(|run| run.sent).sum();
            writeln!(
                f,
                "| {name} | {:.0} | {:.2} ms | {:.2} ms | {:.1} us | {:.1} us | {:.1} us | {:.1} us | {lost} of {sent} |",
                of(|run| run.per_sec),
                of(|run| run.p50_us / 1e3),
                of(|run| run.p99_us / 1e3),
                of(|run| run.senders_node),
                of(|run| run.receivers_node),
                of(|run| run.redis),
                of(unicast::Figures::servers),
            )?;
        }
        Ok(())
    }
}

/// What each message costs Throng's threads.
pub struct Threads<'a>(pub &'a [unicast::Figures]);

impl Display for Threads<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const WORTH_TELLING: f64 = 0.05;
        writeln!(f, "| thread | CPU for each direct message |\n| --- | --- |")?;
        let names = self
            .0
            .first()
            .into_iter()
            .flat_map(|run| run.threads.keys());
        for name in names {
            let of = |run: &unicast::Figures| run.threads.get(name).copied();
            let spread = Spread(self.0.iter().filter_map(of).collect());
            if median(spread.0.clone()) >= WORTH_TELLING {
                writeln!(f, "| {name} | {spread:.1} us |")?;
            }
        }
        Ok(())
    }
}

pub struct Chats<'a>(pub &'a [stored::Figures]);

impl Display for Chats<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| chats | stored a second | send → type 0, p50 | p99 | send → type 17, p50 | p99 | CPU each: both nodes | Redis |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- |"
        )?;
        for row in self.0 {
            writeln!(
                f,
                "| {} | {:.0} | {:.2} ms | {:.2} ms | {:.2} ms | {:.2} ms | {:.1} us | {:.1} us |",
                row.flow,
                row.per_sec,
                row.stored_p50_ms,
                row.stored_p99_ms,
                row.noticed_p50_ms,
                row.noticed_p99_ms,
                row.nodes,
                row.redis,
            )?;
        }
        Ok(())
    }
}

impl Display for Directory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Directory {
            users,
            connected,
            with_device,
            message,
            away,
        } = self;
        writeln!(
            f,
            "| in Redis, {users} users | bytes each |\n| --- | --- |\n\
             | a user who is connected, idle | {connected:.0} |\n\
             | the same, of whom a device is known | {with_device:.0} |\n\
             | one stored message more, not passed yet | {message:.0} |\n\
             | a user who has never come, with one stored message | {away:.0} |"
        )
    }
}

impl Display for Broadcast {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Broadcast {
            nodes,
            clients,
            first_ms,
            last_ms,
            nodes_us,
            redis_us,
        } = self;
        writeln!(
            f,
            "| broadcast over {nodes} nodes to {clients} | |\n| --- | --- |\n\
             | first delivery | {first_ms:.1} ms after the push |\n\
             | last delivery | {last_ms:.1} ms |\n\
             | CPU of all nodes for each delivery | {nodes_us:.2} us |\n\
             | CPU of Redis for each delivery | {redis_us:.4} us |"
        )
    }
}

/// Median, and the range where there is one.
struct Spread(Vec<f64>);

impl Display for Spread {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        write!(f, "{:.digits$}", median(self.0.clone()))?;
        if self.0.len() > 1 {
            write!(f, " ({least:.digits$}-{most:.digits$})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_show_median_and_range_and_a_missed_target_is_named() {
        let run = |per_sec| unicast::Figures {
            sent: 10,
            received: 9,
            per_sec,
            p99_us: 2000.0,
            ..unicast::Figures::default()
        };
        let all = |rates: [f64; 3]| [("Throng", rates.map(run).to_vec())];
        let good = all([19_000.0, 22_000.0, 21_000.0]);
        assert_eq!(Unicasts(&good).shortfall(), None);
        let text = Unicasts(&good).to_string();
        assert!(text.contains("| 21000 (19000-22000) |") && text.contains("| 3 of 30 |"));
        let slow = all([19_000.0; 3]);
        let short = Unicasts(&slow).shortfall();
        assert!(short.is_some_and(|text| text.starts_with("direct messages: 19000 a second")));
    }
}
