//! The figures of all runs → a table with ratios, and what fell short.

use std::fmt;

use serde_json::{Value, json};

use crate::measure::{Figures, IN_FLIGHT, Pair, QUEUED};
use crate::parse;

/// User space for one connection, at most.
pub const BYTES_MAX: f64 = 256.0;
/// So many are a crowd.
const CROWD: usize = 100_000;

/// A figure over all runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().saturating_sub(1);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Spread {
            median: (at(last / 2) + at(last.div_ceil(2))) / 2.0,
            least: at(0),
            most: at(last),
        }
    }

    pub fn json(self) -> Value {
        json!({ "median": self.median, "min": self.least, "max": self.most })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let Spread {
            median,
            least,
            most,
        } = self;
        if least == most {
            return write!(f, "{median:.digits$}");
        }
        write!(f, "{median:.digits$} ({least:.digits$}-{most:.digits$})")
    }
}

/// What a row is judged by.
enum Target {
    Bytes(f64),
    Ratio(f64),
    None,
}

struct Row {
    name: String,
    unit: &'static str,
    digits: usize,
    floor: Spread,
    throng: Spread,
    ratio: Option<Spread>,
    target: Target,
}

impl Row {
    fn short_by(&self) -> Option<String> {
        let (is, target) = match (&self.target, self.ratio) {
            (Target::Bytes(target), _) => (self.throng.median, *target),
            (Target::Ratio(target), Some(ratio)) => (ratio.median, *target),
            _ => return None,
        };
        // What cannot be compared was not reached.
        let is_reached = is <= target;
        (!is_reached).then(|| format!("{} is {is:.3}, the target is {target}", self.name))
    }
}

pub struct Table(Vec<Row>);

impl Table {
    /// `connections` of each server.
    pub fn new(pairs: &[Pair], connections: usize) -> Table {
        let bytes = |name: &str, figure: fn(&Figures) -> f64, target| Row {
            name: name.to_owned(),
            unit: "bytes/connection",
            digits: 0,
            floor: Spread::of(pairs.iter().map(|pair| figure(&pair.floor))),
            throng: Spread::of(pairs.iter().map(|pair| figure(&pair.server))),
            ratio: None,
            target,
        };
        let micros = |name: String,
                      unit,
                      figure: fn(&Figures) -> f64,
                      floor: fn(&Figures) -> f64,
                      target| Row {
            name,
            unit,
            digits: 2,
            floor: Spread::of(pairs.iter().map(|pair| figure(&pair.floor))),
            throng: Spread::of(pairs.iter().map(|pair| figure(&pair.server))),
            ratio: Some(Spread::of(
                pairs.iter().map(|p| figure(&p.server) / floor(&p.floor)),
            )),
            target,
        };
        // What a server makes once (buffers, tables) is lost in a crowd, and not among a few.
        let mean_target = match connections {
            CROWD.. => Target::Bytes(BYTES_MAX),
            _ => Target::None,
        };
        Table(vec![
            bytes(
                "density, slope of the second half",
                |f| f.bytes_slope,
                Target::Bytes(BYTES_MAX),
            ),
            bytes("density, (full - empty) / N", |f| f.bytes_mean, mean_target),
            micros(
                "connect".into(),
                "us/connection",
                |f| f.connect,
                |f| f.connect,
                Target::Ratio(1.3),
            ),
            micros(
                "broadcast, one at a time".into(),
                "us/delivery",
                |f| f.broadcast,
                |f| f.broadcast,
                Target::Ratio(1.05),
            ),
            micros(
                format!("broadcast, {QUEUED} queued *"),
                "us/delivery",
                |f| f.queued,
                |f| f.broadcast,
                Target::Ratio(0.2),
            ),
            micros(
                format!("unicast, {IN_FLIGHT} in flight"),
                "us/message",
                |f| f.unicast,
                |f| f.unicast,
                Target::Ratio(1.15),
            ),
            micros(
                "unicast, p50".into(),
                "us",
                |f| f.unicast_p50,
                |f| f.unicast_p50,
                Target::None,
            ),
            micros(
                "unicast, p99".into(),
                "us",
                |f| f.unicast_p99,
                |f| f.unicast_p99,
                Target::None,
            ),
        ])
    }

    /// A sentence for each target that was not reached.
    pub fn shortfalls(&self) -> Vec<String> {
        self.0.iter().filter_map(Row::short_by).collect()
    }

    pub fn json(&self) -> Value {
        self.0
            .iter()
            .map(|row| {
                json!({
                    "name": row.name.trim_end_matches(" *"),
                    "unit": row.unit,
                    "floor": row.floor.json(),
                    "throng": row.throng.json(),
                    "ratio": row.ratio.map(Spread::json),
                    "target": match row.target {
                        Target::Bytes(n) | Target::Ratio(n) => json!(n),
                        Target::None => Value::Null,
                    },
                    "reached": row.short_by().is_none(),
                })
            })
            .collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | unit | floor | Throng | ratio to floor | target |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        for Row {
            name,
            unit,
            digits,
            floor,
            throng,
            ratio,
            target,
        } in &self.0
        {
            let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            let target = match target {
                Target::Bytes(bytes) => format!("<= {bytes}"),
                Target::Ratio(ratio) => format!("<= {ratio} x"),
                Target::None => "-".to_owned(),
            };
            writeln!(
                f,
                "| {name} | {unit} | {floor:.digits$} | {throng:.digits$} | {ratio} | {target} |"
            )?;
        }
        writeln!(
            f,
            "\n\\* the ratio is to the floor's cost of a delivery one at a time"
        )
    }
}

/// The parsers side by side.
pub fn parse_table(rows: &[parse::Row]) -> String {
    let mut text = String::from(
        "| parse, direct frame of | simd-json | serde_json | ratio |\n| --- | --- | --- | --- |\n",
    );
    for parse::Row {
        bytes,
        simd_json,
        serde_json,
    } in rows
    {
        text += &format!(
            "| {bytes} bytes | {simd_json:.0} ns | {serde_json:.0} ns | {:.2} |\n",
            simd_json / serde_json
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_median_and_range() {
        let spread = Spread::of([3.0, 1.0, 2.0].into_iter());
        assert_eq!(
            spread,
            Spread {
                median: 2.0,
                least: 1.0,
                most: 3.0
            }
        );
        assert_eq!(format!("{spread:.1}"), "2.0 (1.0-3.0)");
        assert_eq!(Spread::of([1.0, 2.0].into_iter()).median, 1.5);
        assert_eq!(format!("{:.0}", Spread::of([7.0].into_iter())), "7");
    }

    #[test]
    fn ratios_are_taken_run_by_run_and_shortfalls_are_named() {
        let figures = |cost: f64| Figures {
            bytes_slope: 200.0,
            bytes_mean: 257.0,
            connect: cost,
            broadcast: cost,
            queued: cost / 8.0,
            unicast: cost,
            ..Figures::default()
        };
        // The machine was twice as slow in the second run: both ratios are the same.
        let pair = |floor: f64| Pair {
            floor: figures(floor),
            server: figures(1.2 * floor),
        };
        let table = Table::new(&[pair(10.0), pair(20.0)], CROWD);
        let shortfalls = table.shortfalls();
        assert_eq!(shortfalls.len(), 3, "{shortfalls:?}");
        assert!(shortfalls[0].starts_with("density, (full - empty) / N is 257"));
        assert!(shortfalls[1].starts_with("broadcast, one at a time is 1.200"));
        assert!(shortfalls[2].starts_with("unicast, 64 in flight is 1.200"));
        assert!(table.to_string().contains(
            "| connect | us/connection | 15.00 (10.00-20.00) | 18.00 (12.00-24.00) | 1.20 |"
        ));
    }
}
