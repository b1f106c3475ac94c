//! The figures of all servers → Markdown, JSON and charts.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

use super::kinds::Kind;
use crate::measure::{Figures, IN_FLIGHT, Pair, QUEUED};
use crate::plot::{Bar, Chart, Scale, Tone, grouped};
use crate::table::Spread;

const FLOOR: &str = "the floor";
const OWN: &str = "Throng";

/// A server, and what came of it beside the floor, run by run.
pub struct Measured {
    pub kind: &'static Kind,
    pub name: &'static str,
    version: String,
    pub pairs: Vec<Pair>,
}

/// What was not measured.
#[derive(serde::Serialize)]
pub struct Missing {
    name: &'static str,
    reason: String,
}

/// All of them.
pub struct Peered {
    /// Where and with what it was measured.
    pub head: String,
    pub measured: Vec<Measured>,
    pub missing: Vec<Missing>,
}

/// A figure, and the one of the floor that it is compared with.
struct Column {
    name: &'static str,
    unit: &'static str,
    digits: usize,
    figure: fn(&Figures) -> f64,
    base: Option<fn(&Figures) -> f64>,
}

const SLOPE: Column = Column {
    name: "memory, slope",
    unit: "bytes/connection",
    digits: 0,
    figure: |f| f.bytes_slope,
    base: None,
};
const MEMORY: Column = Column {
    name: "memory, (full - empty) / N",
    unit: "bytes/connection",
    digits: 0,
    figure: |f| f.bytes_mean,
    base: None,
};
const CONNECT: Column = Column {
    name: "connect",
    unit: "us/connection",
    digits: 1,
    figure: |f| f.connect,
    base: Some(|f| f.connect),
};
const BROADCAST: Column = Column {
    name: "broadcast, one at a time",
    unit: "us/delivery",
    digits: 2,
    figure: |f| f.broadcast,
    base: Some(|f| f.broadcast),
};
const EIGHT: Column = Column {
    name: "broadcast, 8 queued",
    unit: "us/delivery",
    digits: 2,
    figure: |f| f.queued,
    base: Some(|f| f.broadcast),
};
const _: () = assert!(QUEUED == 8 && IN_FLIGHT == 64);
const UNICAST: Column = Column {
    name: "unicast, 64 in flight",
    unit: "us/message",
    digits: 2,
    figure: |f| f.unicast,
    base: Some(|f| f.unicast),
};
const P50: Column = Column {
    name: "unicast, p50",
    unit: "us",
    digits: 0,
    figure: |f| f.unicast_p50,
    base: None,
};
const P99: Column = Column {
    name: "unicast, p99",
    unit: "us",
    digits: 0,
    figure: |f| f.unicast_p99,
    base: None,
};
const COLUMNS: [Column; 8] = [SLOPE, MEMORY, CONNECT, BROADCAST, EIGHT, UNICAST, P50, P99];

impl Column {
    fn of(&self, pairs: &[Pair]) -> Spread {
        Spread::of(pairs.iter().map(|pair| (self.figure)(&pair.server)))
    }

    /// To the floor, run by run.
    fn ratio(&self, pairs: &[Pair]) -> Option<Spread> {
        let base = self.base?;
        let ratio = |pair: &Pair| (self.figure)(&pair.server) / base(&pair.floor);
        Some(Spread::of(pairs.iter().map(ratio)))
    }
}

impl Measured {
    pub fn new(kind: &'static Kind, version: String) -> Measured {
        Measured {
            kind,
            name: kind.name,
            version,
            pairs: Vec::new(),
        }
    }
}

impl Missing {
    pub fn new(kind: &Kind, reason: String) -> Missing {
        Missing {
            name: kind.name,
            reason,
        }
    }

    pub fn in_run(kind: &Kind, run: u32, error: &dyn std::error::Error) -> Missing {
        Missing::new(kind, format!("run {run} failed: {error}"))
    }
}

impl Peered {
    /// Those of whom there are figures.
    fn servers(&self) -> impl Iterator<Item = &Measured> {
        self.measured
            .iter()
            .filter(|server| !server.pairs.is_empty())
    }

    fn floor(&self, column: &Column) -> Spread {
        let pairs = self.measured.iter().flat_map(|server| &server.pairs);
        Spread::of(pairs.map(|pair| (column.figure)(&pair.floor)))
    }

    /// What happened beside, run by run.
    fn notes(&self) -> impl Iterator<Item = String> {
        self.servers().flat_map(|server| {
            (1..).zip(&server.pairs).flat_map(move |(run, pair)| {
                let note = move |who: &'static str| {
                    move |note: &String| format!("{who}, run {run}: {note}")
                };
                let floor = pair.floor.notes.iter().map(note(FLOOR));
                floor.chain(pair.server.notes.iter().map(note(server.name)))
            })
        })
    }

    /// The medians, for a page where there is little room.
    pub fn short(&self) -> String {
        let columns = [&MEMORY, &CONNECT, &BROADCAST, &UNICAST];
        let mut text = String::from(
            "| | memory of a connection | connect | broadcast, a delivery | a direct message |\n\
             | --- | --- | --- | --- | --- |\n",
        );
        let unit = |column: &Column| column.unit.split('/').next().unwrap_or_default();
        let floor = columns.map(|column| {
            let digits = column.digits;
            format!("{:.digits$} {}", self.floor(column).median, unit(column))
        });
        text += &format!("| {FLOOR} | {} |\n", floor.join(" | "));
        for server in self.servers() {
            let cells = columns.map(|column| {
                let digits = column.digits;
                let median = column.of(&server.pairs).median;
                let ratio = column.ratio(&server.pairs);
                let ratio = ratio.map(|ratio| format!(", {:.1} x", ratio.median));
                let ratio = ratio.unwrap_or_default();
                format!("{median:.digits$} {}{ratio}", unit(column))
            });
            let name = match server.name {
                OWN => format!("**{OWN}**"),
                name => name.to_owned(),
            };
            text += &format!("| {name} | {} |\n", cells.join(" | "));
        }
        for Missing { name, reason } in &self.missing {
            text += &format!("\n{name}: not measured ({reason}).\n");
        }
        text
    }

    pub fn json(&self) -> Value {
        let servers = self.servers().map(|server| {
            let columns = COLUMNS.iter().map(|column| {
                let cell = json!({
                    "unit": column.unit,
                    "is": column.of(&server.pairs).json(),
                    "ratio": column.ratio(&server.pairs).map(Spread::json),
                });
                (column.name.to_owned(), cell)
            });
            json!({
                "name": server.name,
                "version": server.version,
                "form": server.kind.form,
                "table": columns.collect::<serde_json::Map<_, _>>(),
                "runs": server.pairs,
            })
        });
        json!({
            "head": self.head,
            "servers": servers.collect::<Vec<_>>(),
            "missing": self.missing,
        })
    }

    /// With the names of their files.
    pub fn charts(&self) -> [(&'static str, Chart); 4] {
        let chart = |title: &str, column: &Column, scale| Chart {
            title: title.to_owned(),
            unit: column.unit.replace('/', " for each "),
            scale,
            bars: self.bars(column),
        };
        [
            (
                "memory",
                chart(
                    "User-space memory of an idle connection",
                    &MEMORY,
                    Scale::Log,
                ),
            ),
            (
                "connect",
                chart(
                    "CPU of the server: connect and register",
                    &CONNECT,
                    Scale::Linear,
                ),
            ),
            (
                "broadcast",
                chart(
                    "CPU of the server: a broadcast, one at a time",
                    &BROADCAST,
                    Scale::Linear,
                ),
            ),
            (
                "unicast",
                chart(
                    "CPU of the server: a direct message",
                    &UNICAST,
                    Scale::Linear,
                ),
            ),
        ]
    }

    /// The least first.
    fn bars(&self, column: &Column) -> Vec<Bar> {
        let unit = column.unit.split('/').next().unwrap_or_default();
        let digits = column.digits;
        let bar = |name: &str, value: f64, ratio: Option<Spread>, tone| Bar {
            name: name.to_owned(),
            value,
            label: match ratio {
                Some(ratio) => format!("{value:.digits$} {unit}, {:.1} x", ratio.median),
                None if digits == 0 => format!("{} {unit}", grouped(value.round())),
                None => format!("{value:.digits$} {unit}"),
            },
            tone,
        };
        let floor = bar(FLOOR, self.floor(column).median, None, Tone::Floor);
        let servers = self.servers().map(|server| {
            let tone = match server.name {
                OWN => Tone::Own,
                _ => Tone::Other,
            };
            let ratio = column.ratio(&server.pairs);
            bar(server.name, column.of(&server.pairs).median, ratio, tone)
        });
        let mut bars: Vec<Bar> = std::iter::once(floor).chain(servers).collect();
        bars.sort_by(|a, b| a.value.total_cmp(&b.value));
        bars
    }
}

impl Display for Peered {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Beside others\n\n{}.\n", self.head)?;
        writeln!(f, "| server | version | form |\n| --- | --- | --- |")?;
        writeln!(
            f,
            "| {FLOOR} | this commit | 1 reactor; checks nothing, keeps nothing |"
        )?;
        for server in self.servers() {
            writeln!(
                f,
                "| {} | {} | {} |",
                server.name, server.version, server.kind.form
            )?;
        }
        let names = COLUMNS.map(|column| format!("{}, {}", column.name, column.unit));
        writeln!(
            f,
            "\n| | {} |\n| {}",
            names.join(" | "),
            "--- | ".repeat(9).trim_end()
        )?;
        let floor = COLUMNS.map(|column| format!("{:.*}", column.digits, self.floor(&column)));
        writeln!(f, "| {FLOOR} | {} |", floor.join(" | "))?;
        for server in self.servers() {
            let cells =
                COLUMNS.map(|column| format!("{:.*}", column.digits, column.of(&server.pairs)));
            writeln!(f, "| {} | {} |", server.name, cells.join(" | "))?;
        }
        let compared = [&CONNECT, &BROADCAST, &EIGHT, &UNICAST];
        let names = compared.map(|column| column.name);
        writeln!(
            f,
            "\n| times the floor | {} |\n| --- | --- | --- | --- | --- |",
            names.join(" | ")
        )?;
        for server in self.servers() {
            let ratios = compared.map(|column| column.ratio(&server.pairs));
            let ratios = ratios.map(|ratio| ratio.map_or("-".to_owned(), |r| format!("{r:.2}")));
            writeln!(f, "| {} | {} |", server.name, ratios.join(" | "))?;
        }
        writeln!(
            f,
            "\nMedians over the runs, with the range; ratios are taken run by run, that of {QUEUED} queued broadcasts to the\n\
             floor's cost of one at a time.\n"
        )?;
        for (name, chart) in self.charts() {
            writeln!(f, "![{}](peers-{name}.svg)\n", chart.title)?;
        }
        for Missing { name, reason } in &self.missing {
            writeln!(f, "- {name}: not measured ({reason}).")?;
        }
        for note in self.notes() {
            writeln!(f, "- {}", note.replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::KINDS;
    use super::*;

    fn figures(cost: f64) -> Figures {
        Figures {
            bytes_slope: 100.0 * cost,
            bytes_mean: 110.0 * cost,
            connect: cost,
            broadcast: cost,
            queued: cost / 8.0,
            unicast: cost,
            ..Figures::default()
        }
    }

    /// Throng and one other, twice; the machine was twice as slow the second time. A third one was
    /// never measured.
    fn peered() -> Peered {
        let pair = |floor: f64, ratio: f64| Pair {
            floor: figures(floor),
            server: figures(ratio * floor),
        };
        let server = |at: usize, ratio: f64| Measured {
            pairs: vec![pair(10.0, ratio), pair(20.0, ratio)],
            ..Measured::new(&KINDS[at], "1.2".to_owned())
        };
        Peered {
            head: "2 cores".to_owned(),
            measured: vec![
                server(1, 3.0),
                server(0, 1.2),
                Measured::new(&KINDS[2], String::new()),
            ],
            missing: vec![
                Missing::new(&KINDS[2], "there is no npm".to_owned()),
                Missing::in_run(&KINDS[1], 3, &std::fmt::Error),
            ],
        }
    }

    #[test]
    fn the_table_has_ratios_run_by_run_and_names_whoever_is_not_in_it() {
        let text = peered().to_string();
        for line in [
            "| Bun | 3.00 | 3.00 | 0.38 | 3.00 |",
            "| Throng | 1.20 | 1.20 | 0.15 | 1.20 |",
            "- ws on Node: not measured (there is no npm).",
        ] {
            assert!(
                text.lines().any(|is| is == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(
            text.contains("| the floor | 1500 (1000-2000) | 1650 (1100-2200) | 15.0 (10.0-20.0) |")
        );
        assert!(text.contains("- Bun: not measured (run 3 failed: "));
        let columns = |line: &str| line.matches('|').count();
        let table: Vec<_> = text.lines().filter(|line| columns(line) > 6).collect();
        assert!(
            table.len() == 5 && table.iter().all(|line| columns(line) == 10),
            "{text}"
        );
    }

    #[test]
    fn the_short_table_has_medians_and_names_whoever_is_not_in_it() {
        let text = peered().short();
        assert!(
            text.contains("| **Throng** | 1980 bytes | 18.0 us, 1.2 x | 18.00 us, 1.2 x |"),
            "{text}"
        );
        assert!(
            text.contains("\nws on Node: not measured (there is no npm).\n"),
            "{text}"
        );
    }

    #[test]
    fn charts_begin_with_the_least() {
        let [(name, memory), ..] = peered().charts();
        let names: Vec<_> = memory.bars.iter().map(|bar| bar.name.as_str()).collect();
        assert_eq!((name, names), ("memory", vec![FLOOR, OWN, "Bun"]));
        assert_eq!(memory.bars[1].label, "1 980 bytes");
    }
}
