//! The load client tells the truth: what a lying server does to messages of each kind, its report
//! shows, and it does not call that complete.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use liar::{Liar, Lie};
use serde_json::Value;

mod liar;
mod wire;

const SCENARIOS: [&str; 5] = ["broadcast", "unicast", "push", "group", "chat"];

/// What the program says of a scenario over a server that lies, and how often it was lied to.
struct Told {
    report: Value,
    lies: u64,
}

impl Told {
    fn number(&self, path: &str) -> u64 {
        let value = self.report.pointer(path);
        value
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("{path}: {}", self.report))
    }

    fn micros(&self, path: &str) -> f64 {
        let value = self.report.pointer(path);
        value
            .and_then(Value::as_f64)
            .unwrap_or_else(|| panic!("{path}: {}", self.report))
    }

    fn is_complete(&self) -> bool {
        self.report["complete"] == true
    }
}

fn run(scenario: &str, lie: Lie) -> Told {
    let liar = Liar::new(lie);
    // What never comes is waited for to the end.
    let patience = match lie {
        Lie::Drop(_) | Lie::Misroute(_) => 8,
        Lie::Double(_) | Lie::Reorder(_) | Lie::Delay(_) => 60,
    };
    let options = match scenario {
        "broadcast" => "--messages 40 --at-once 4 --secs",
        "unicast" => "--messages 600 --in-flight 100 --secs",
        "push" => "--batch 5 --lanes 3 --rate 300 --secs 1 --drain-secs",
        "group" => "--size 5 --rate 100 --secs 1 --drain-secs",
        _ => "--rate 400 --secs 1 --drain-secs",
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_throng-loadtest"));
    command.args([scenario, "--openid", "--json", "--url", &liar.url]);
    if matches!(scenario, "broadcast" | "push" | "group") {
        command.args(["--api", &liar.api]);
    }
    command.args(options.split(' ')).arg(patience.to_string());
    let output = command.args(["--connections", "20"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["complete"], output.status.success(), "{report}");
    assert_eq!(liar.groups(), 0, "groups are ended");
    let lies = liar.told();
    assert!(lies > 0, "{scenario}: nothing came to a lie");
    Told { report, lies }
}

/// All scenarios at once, in their order.
fn run_all<const N: usize>(scenarios: [&str; N], lie: Lie) -> [Told; N] {
    std::thread::scope(|scope| {
        scenarios
            .map(|scenario| scope.spawn(move || run(scenario, lie)))
            .map(|run| run.join().unwrap())
    })
}

fn shows(told: &Told, path: &str) {
    assert_eq!(told.number(path), told.lies, "{path}: {}", told.report);
    assert!(!told.is_complete(), "{}", told.report);
}

#[test]
fn what_is_dropped_is_missing() {
    let [broadcast, unicast, push, group, chat] = run_all(SCENARIOS, Lie::Drop(97));
    let least = |told: &Told, all: &str, came: &str| {
        let missing = told.number(all) - told.number(came);
        assert!(missing >= told.lies, "{}", told.report);
        assert!(!told.is_complete(), "{}", told.report);
    };
    least(&broadcast, "/broadcast/expected", "/broadcast/delivered");
    least(&unicast, "/unicast/sent", "/unicast/received");
    least(&chat, "/chat/confirmed", "/chat/delivered");
    shows(&push, "/push/missing");
    shows(&group, "/group/missing");
}

#[test]
fn what_comes_twice_is_repeated() {
    let [broadcast, unicast, push, group, chat] = run_all(SCENARIOS, Lie::Double(50));
    for told in [&broadcast, &unicast, &push] {
        shows(told, "/counts/repeated");
    }
    shows(&group, "/group/doubled");
    shows(&chat, "/chat/doubled");
}

#[test]
fn what_comes_after_a_later_one_is_out_of_order() {
    let [broadcast, unicast, push, group, chat] = run_all(SCENARIOS, Lie::Reorder(50));
    for told in [&broadcast, &unicast, &push] {
        shows(told, "/counts/out_of_order");
    }
    shows(&group, "/group/out_of_order");
    shows(&chat, "/chat/out_of_order");
}

#[test]
fn what_reaches_somebody_else_is_misrouted_and_missing() {
    let scenarios = ["unicast", "push", "group", "chat"];
    let [unicast, push, group, chat] = run_all(scenarios, Lie::Misroute(97));
    for told in [&unicast, &push] {
        shows(told, "/counts/misrouted");
    }
    shows(&push, "/push/missing");
    shows(&group, "/group/misrouted");
    shows(&group, "/group/missing");
    shows(&chat, "/chat/misrouted");
}

#[test]
fn what_comes_late_makes_the_latencies_longer_and_nothing_else() {
    const DELAY: Duration = Duration::from_millis(300);
    let [broadcast, unicast, push, group, chat] = run_all(SCENARIOS, Lie::Delay(DELAY));
    // A histogram has three digits.
    let at_least = DELAY.as_micros() as f64 * 0.999;
    assert!(broadcast.micros("/broadcast/first_ms") * 1000.0 >= at_least);
    assert!(unicast.micros("/unicast/p50_us") >= at_least);
    assert!(push.micros("/push/latency/p50_us") >= at_least);
    assert!(group.micros("/group/received/p50_us") >= at_least);
    assert!(chat.micros("/chat/latencies/received (2)/p50_us") >= at_least);
    for told in [broadcast, unicast, push, group, chat] {
        assert!(told.is_complete(), "{}", told.report);
    }
}
