//! The latencies as a table: a row for each, from the middle to the worst.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use throng_loadtest::pulse::Latencies;

/// The columns and their names in JSON.
pub const COLUMNS: [(&str, &str, f64); 7] = [
    ("p50", "p50_ms", 0.5),
    ("p75", "p75_ms", 0.75),
    ("p90", "p90_ms", 0.9),
    ("p95", "p95_ms", 0.95),
    ("p99", "p99_ms", 0.99),
    ("p99.9", "p999_ms", 0.999),
    ("p99.99", "p9999_ms", 0.9999),
];
/// Points of a distribution for each halving of what is left of it.
const POINTS_PER_HALF: u32 = 5;

/// The same, the largest and how many there were, as cells.
pub fn cells(histogram: &Histogram<u64>) -> Vec<String> {
    let of = |quantile| millis(histogram.value_at_quantile(quantile));
    let quantiles = COLUMNS.iter().map(|(_, _, quantile)| of(*quantile));
    let rest = [millis(histogram.max()), histogram.len().to_string()];
    quantiles.chain(rest).collect()
}

pub fn head() -> Vec<&'static str> {
    let columns = COLUMNS.iter().map(|(name, _, _)| *name);
    columns.chain(["max", "count"]).collect()
}

pub fn text(latencies: &Latencies) -> String {
    let mut text = String::new();
    if latencies.is_empty() {
        return text;
    }
    let head = head().into_iter().map(str::to_owned).collect();
    let rows = latencies
        .iter()
        .map(|(what, histogram)| (what.name(), cells(histogram)));
    for (name, cells) in std::iter::once(("latency, ms", head)).chain(rows) {
        let _ = write!(text, "{name:<12}");
        for cell in cells {
            let _ = write!(text, " {cell:>8}");
        }
        text.push('\n');
    }
    text
}

pub fn json(latencies: &Latencies) -> Value {
    let mut all = json!({});
    for (what, histogram) in latencies {
        let mut row = json!({
            "count": histogram.len(), "max_ms": histogram.max() as f64 / 1e6,
        });
        for (_, key, quantile) in COLUMNS {
            row[key] = json!(histogram.value_at_quantile(quantile) as f64 / 1e6);
        }
        all[what.name()] = row;
    }
    all
}

/// Pairs of a share and how many milliseconds that share took at most, ever denser towards the
/// worst.
pub fn distribution(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let points = histogram.iter_quantiles(POINTS_PER_HALF);
    points
        .map(|point| (point.quantile(), point.value_iterated_to() as f64 / 1e6))
        .collect()
}

/// Milliseconds with as many digits as say something.
fn millis(nanos: u64) -> String {
    let millis = nanos as f64 / 1e6;
    let digits = match millis {
        ..1.0 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{millis:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng_loadtest::pulse::Latency;

    fn latencies() -> Latencies {
        let mut histogram = Histogram::new(3).unwrap();
        for micros in 1..=10_000_u64 {
            histogram.record(micros * 1000).unwrap();
        }
        [(Latency::Connect, histogram)].into()
    }

    #[test]
    fn a_row_goes_from_the_middle_to_the_worst_in_milliseconds() {
        assert_eq!(
            text(&latencies()),
            "latency, ms       p50      p75      p90      p95      p99    p99.9   p99.99      max    count\n\
             connect          5.00     7.50     9.00     9.50     9.90     9.99     10.0     10.0    10000\n"
        );
        let json = json(&latencies());
        assert_eq!(json["connect"]["count"], 10_000);
        assert_eq!(
            json["connect"]["p999_ms"].as_f64().map(f64::round),
            Some(10.0)
        );
        assert_eq!(text(&Latencies::new()), "");
    }

    #[test]
    fn a_distribution_ends_with_the_worst() {
        let points = distribution(&latencies()[&Latency::Connect]);
        assert!(points.len() > 20);
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
        let (share, worst) = points[points.len() - 1];
        assert!(
            share == 1.0 && (9.99..10.1).contains(&worst),
            "{share} {worst}"
        );
    }

    #[test]
    fn digits_are_as_many_as_say_something() {
        let shown = [1_234, 1_234_567, 12_345_678, 123_456_789].map(millis);
        assert_eq!(shown, ["0.001", "1.23", "12.3", "123"]);
    }
}
