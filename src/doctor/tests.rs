//! Staged hosts, and what is said of them.

use super::finding::{Finding, Status};
use super::host::Share;
use super::*;

const GIB: u64 = 1 << 30;
const MILLION: u64 = 1_000_000;

/// A machine that holds a million without a warning.
fn large() -> Host {
    Host {
        answers: Answers {
            cores: 8,
            way_to_private_tables: Some("unshare"),
            now_secs: 1_800_000_000,
            clock_is_kept: Some(true),
        },
        nofile: (1024, 1_048_576),
        may_raise_nofile: true,
        is_container: false,
        nr_open: Some(1_048_576),
        file_max: 4_194_304,
        files_open: 1200,
        epoll_watches_max: Some(7_000_000),
        somaxconn: Some(65_535),
        syn_cookies: Some(1),
        syn_backlog: Some(4096),
        port_range: Some((32_768, 60_999)),
        reserved_ports: Vec::new(),
        tracked: None,
        tcp_mem: Some([380_000, 510_000, 760_000]),
        tcp_pages_used: 100,
        memory: vec![host_memory(32 * GIB)],
        threads: vec![threads("kernel.threads-max", 250_000)],
    }
}

/// What one rents first.
fn small() -> Host {
    Host {
        answers: Answers {
            cores: 2,
            ..large().answers
        },
        nofile: (1024, 1024),
        file_max: 190_000,
        somaxconn: Some(128),
        tcp_mem: Some([21_000, 28_000, 42_000]),
        memory: vec![host_memory(2 * GIB)],
        ..large()
    }
}

fn host_memory(limit: u64) -> Share {
    Share {
        name: "MemAvailable".to_owned(),
        is_of_group: false,
        limit,
        used: GIB / 2,
    }
}

fn threads(name: &str, limit: u64) -> Share {
    Share {
        name: name.to_owned(),
        is_of_group: name == "pids.max",
        limit,
        used: 100,
    }
}

fn wanting(connections: u64) -> DoctorArgs {
    DoctorArgs {
        connections: Some(connections),
        ..DoctorArgs::default()
    }
}

fn ask(host: &Host, connections: u64) -> Report {
    examine(host, &Config::default(), &wanting(connections))
}

/// What is not good.
fn troubles(report: &Report) -> Vec<(&'static str, Status)> {
    let all = report.findings.iter();
    let bad = all.filter(|finding| finding.status != Status::Ok);
    bad.map(|finding| (finding.name, finding.status)).collect()
}

fn named<'a>(report: &'a Report, name: &str) -> &'a Finding {
    let mut all = report.findings.iter();
    all.find(|finding| finding.name == name).unwrap()
}

fn commands(report: &Report, name: &str) -> Vec<String> {
    let mends = named(report, name).mend.iter();
    mends.map(|mend| mend.command.clone()).collect()
}

#[test]
fn a_large_machine_is_ready_for_a_million() {
    let report = ask(&large(), MILLION);
    assert_eq!(troubles(&report), []);
    assert!(report.is_ready());
    let text = report.to_string();
    let last = "This host is ready for 1000000 connections.\n";
    assert!(text.ends_with(last), "{text}");
}

#[test]
fn a_small_machine_is_ready_for_a_thousand() {
    let report = ask(&small(), 1000);
    assert_eq!(troubles(&report), [("net.core.somaxconn", Status::Warn)]);
    assert!(report.is_ready());
    assert!(report.to_string().contains("connections. 1 warning.\n"));
}

#[test]
fn a_small_machine_hears_all_that_keeps_it_from_a_million() {
    let report = ask(&small(), MILLION);
    let wanted = [
        ("nofile", Status::Fail),
        ("fs.file-max", Status::Fail),
        ("memory", Status::Fail),
        ("net.ipv4.tcp_mem", Status::Warn),
        ("net.core.somaxconn", Status::Warn),
    ];
    assert_eq!(troubles(&report), wanted);
    for finding in &report.findings {
        let is_bad = finding.status != Status::Ok;
        assert_eq!(is_bad, !finding.mend.is_empty(), "{finding:?}");
        assert!(!finding.why.is_empty(), "{finding:?}");
    }
    let text = report.to_string();
    assert!(text.contains("3 things to change before"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
}

#[test]
fn who_does_all_that_is_said_is_ready() {
    let mut host = small();
    host.memory = large().memory;
    let mut config = Config::default();
    for _ in 0..2 {
        let report = examine(&host, &config, &wanting(MILLION));
        let findings = report.findings.iter();
        let mends = findings.flat_map(|finding| finding.mend.iter());
        for mend in mends {
            let Some(lasts) = &mend.lasts else { continue };
            let (key, value) = lasts.lines.split_once('=').unwrap();
            let value = value.trim();
            match key.trim() {
                "reactors" => config.reactors = value.parse().ok(),
                "fs.file-max" => host.file_max = value.parse().unwrap(),
                "net.core.somaxconn" => host.somaxconn = value.parse().ok(),
                "net.ipv4.tcp_mem" => {
                    let pages = value.split(' ').map(|word| word.parse().unwrap());
                    host.tcp_mem = pages.collect::<Vec<_>>().try_into().ok();
                }
                "[Service]\nLimitNOFILE" => {}
                key => panic!("{key} is nothing to change here"),
            }
        }
    }
    // 768 descriptors of each table hold connections: so many reactors there cannot be.
    let report = examine(&host, &config, &wanting(MILLION));
    assert_eq!(troubles(&report), [("nofile", Status::Fail)]);
    host.nofile.1 = 1_048_576;
    let report = examine(&host, &config, &wanting(MILLION));
    assert_eq!(troubles(&report), []);
}

#[test]
fn a_limit_that_nobody_may_raise_is_passed_with_reactors() {
    let mut host = large();
    host.answers.cores = 2;
    host.nofile = (20_000, 20_000);
    host.may_raise_nofile = false;
    let report = ask(&host, MILLION);
    assert_eq!(commands(&report, "nofile"), ["throng --reactors 54"]);
    let lasts = named(&report, "nofile").mend[0].lasts.as_ref().unwrap();
    assert_eq!(
        (lasts.file.as_str(), lasts.lines.as_str()),
        ("throng.toml", "reactors = 54")
    );
    let config = Config {
        reactors: Some(54),
        ..Config::default()
    };
    assert_eq!(troubles(&examine(&host, &config, &wanting(MILLION))), []);
    host.may_raise_nofile = true;
    let report = ask(&host, MILLION);
    assert_eq!(
        commands(&report, "nofile"),
        [
            "prlimit --pid $$ --nofile=1048576:1048576",
            "throng --reactors 54"
        ]
    );
}

#[test]
fn without_tables_of_their_own_reactors_do_not_help() {
    let mut host = large();
    host.answers.way_to_private_tables = None;
    host.nofile = (1024, 524_288);
    let report = ask(&host, MILLION);
    assert_eq!(
        troubles(&report),
        [("nofile", Status::Fail), ("fs.nr_open", Status::Fail)]
    );
    let nofile = commands(&report, "nofile");
    assert_eq!(nofile, ["prlimit --pid $$ --nofile=2097152:2097152"]);
    assert_eq!(
        commands(&report, "fs.nr_open"),
        ["sysctl -w fs.nr_open=\"2097152\""]
    );
    host.may_raise_nofile = false;
    let helpless = commands(&ask(&host, MILLION), "nofile");
    assert!(helpless[0].starts_with("ask whoever"), "{helpless:?}");
}

#[test]
fn a_cap_below_the_wish_is_told_and_one_that_is_tight_is_warned_of() {
    let mut config = Config {
        max_connections: Some(500_000),
        ..Config::default()
    };
    let report = examine(&large(), &config, &wanting(MILLION));
    assert_eq!(troubles(&report), [("max_connections", Status::Fail)]);
    assert_eq!(
        commands(&report, "max_connections"),
        ["throng --max-connections 1000000"]
    );
    // Three tables of 20 000 hold 59 232, of which the node takes 56 259 by itself.
    let mut host = large();
    host.answers.cores = 3;
    host.nofile = (20_000, 20_000);
    config.max_connections = Some(59_000);
    let report = examine(&host, &config, &wanting(50_000));
    assert_eq!(troubles(&report), [("nofile", Status::Warn)]);
    config.max_connections = Some(60_000);
    let report = examine(&host, &config, &wanting(50_000));
    assert_eq!(troubles(&report), [("nofile", Status::Fail)]);
}

#[test]
fn who_wishes_nothing_is_told_of_what_the_node_would_take() {
    let mut host = large();
    host.answers.cores = 2;
    host.nofile = (20_000, 20_000);
    let nothing = DoctorArgs::default();
    let report = examine(&host, &Config::default(), &nothing);
    assert_eq!((report.connections, report.is_ready()), (37_506, true));
    let config = Config {
        max_connections: Some(99),
        ..Config::default()
    };
    assert_eq!(examine(&host, &config, &nothing).connections, 99);
    host.nofile = (100, 100);
    let report = examine(&host, &Config::default(), &nothing);
    assert_eq!(troubles(&report), [("nofile", Status::Fail)]);
}

#[test]
fn a_container_is_judged_by_its_own_limits() {
    let mut host = large();
    host.is_container = true;
    host.memory.push(Share {
        name: "memory.max".to_owned(),
        is_of_group: true,
        limit: 4 * GIB,
        used: GIB,
    });
    host.threads.push(threads("pids.max", 130));
    let report = ask(&host, MILLION);
    assert_eq!(
        troubles(&report),
        [("memory", Status::Fail), ("threads", Status::Fail)]
    );
    assert_eq!(
        commands(&report, "memory"),
        [
            "systemctl set-property throng.service MemoryMax=7G",
            "docker update --memory 7g CONTAINER"
        ]
    );
    assert_eq!(
        commands(&report, "threads")[1],
        "docker update --pids-limit 148 CONTAINER"
    );
    assert!(report.to_string().contains("This is a container"));
    // What would be full of connections has no room for their queues.
    host.memory[1].limit = 6 * GIB;
    host.threads.pop();
    let report = ask(&host, MILLION);
    assert_eq!(troubles(&report), [("memory", Status::Warn)]);
    host.memory[1].limit = 7 * GIB;
    assert_eq!(troubles(&ask(&host, MILLION)), []);
}

#[test]
fn clients_on_the_same_host_take_as_much_again() {
    let mut host = large();
    host.memory = vec![host_memory(8 * GIB)];
    host.file_max = 1_500_000;
    host.epoll_watches_max = Some(1_500_000);
    assert_eq!(troubles(&ask(&host, MILLION)), []);
    let args = DoctorArgs {
        with_clients: true,
        ..wanting(MILLION)
    };
    let report = examine(&host, &Config::default(), &args);
    assert_eq!(
        troubles(&report),
        [
            ("fs.file-max", Status::Fail),
            ("fs.epoll.max_user_watches", Status::Fail),
            ("memory", Status::Fail)
        ]
    );
    let ports = named(&report, "net.ipv4.ip_local_port_range");
    assert!(ports.needed.starts_with("36 source addresses"), "{ports:?}");
}

#[test]
fn what_tracks_must_have_room_unless_the_port_is_left_alone() {
    let mut host = large();
    host.tracked = Some((0, 262_144));
    assert_eq!(troubles(&ask(&host, MILLION)), [], "nothing is tracked");
    host.tracked = Some((262_144, 262_144));
    let report = ask(&host, MILLION);
    let name = "net.netfilter.nf_conntrack_max";
    assert_eq!(troubles(&report), [(name, Status::Fail)]);
    assert_eq!(
        commands(&report, name)[0],
        format!("sysctl -w {name}=\"2097152\"")
    );
    let args = DoctorArgs {
        untracked: true,
        ..wanting(MILLION)
    };
    assert_eq!(troubles(&examine(&host, &Config::default(), &args)), []);
    host.tracked = Some((262_144, 2_097_152));
    assert_eq!(troubles(&ask(&host, MILLION)), []);
}

#[test]
fn half_open_connections_are_bounded_where_cookies_are_off() {
    let mut host = large();
    host.syn_backlog = Some(512);
    assert_eq!(troubles(&ask(&host, 1000)), []);
    host.syn_cookies = Some(0);
    let name = "net.ipv4.tcp_max_syn_backlog";
    assert_eq!(troubles(&ask(&host, 1000)), [(name, Status::Warn)]);
}

#[test]
fn the_ports_of_the_node_are_reserved_and_others_stay_so() {
    let mut host = large();
    host.port_range = Some((1024, 65_535));
    host.reserved_ports = vec![(8084, 8084), (9000, 9010)];
    let report = ask(&host, 1000);
    let name = "net.ipv4.ip_local_reserved_ports";
    assert_eq!(troubles(&report), [(name, Status::Warn)]);
    assert_eq!(
        commands(&report, name),
        [format!("sysctl -w {name}=\"8084,9000-9010,8888\"")]
    );
    host.reserved_ports = vec![(8000, 9000)];
    assert_eq!(troubles(&ask(&host, 1000)), []);
}

#[test]
fn a_ping_comes_before_the_proxy_loses_patience() {
    let host = large();
    let behind = |proxy_idle_secs, ping_secs| {
        let mut config = Config::default();
        config.limits.ping_secs = ping_secs;
        let args = DoctorArgs {
            proxy_idle_secs: Some(proxy_idle_secs),
            ..wanting(1000)
        };
        let report = examine(&host, &config, &args);
        let is_good = report.findings.iter().all(|one| one.status == Status::Ok);
        (is_good, commands(&report, "ping_secs"))
    };
    let mended = vec!["throng --ping-secs 45".to_owned()];
    assert_eq!(behind(60, 60), (false, mended.clone()));
    // The last of them pings a quarter later.
    assert_eq!(behind(60, 48), (false, mended.clone()));
    assert_eq!(behind(60, 45), (true, Vec::new()));
    assert_eq!(behind(60, 0), (false, mended), "no pings at all");
    assert_eq!(behind(3600, 60), (true, Vec::new()));
}

#[test]
fn a_clock_that_nobody_keeps_is_warned_of_and_a_wrong_one_is_to_be_changed() {
    let mut host = large();
    host.answers.clock_is_kept = Some(false);
    assert_eq!(troubles(&ask(&host, 1000)), [("clock", Status::Warn)]);
    host.answers.clock_is_kept = None;
    assert_eq!(troubles(&ask(&host, 1000)), [("clock", Status::Warn)]);
    for wrong in [0, 86_400, u64::MAX] {
        host.answers.now_secs = wrong;
        let report = ask(&host, 1000);
        assert_eq!(troubles(&report), [("clock", Status::Fail)], "{wrong}");
        assert!(!report.to_string().is_empty());
    }
}

#[test]
fn heartbeats_that_take_the_cpu_are_warned_of() {
    let mut host = large();
    host.answers.cores = 1;
    let mut config = Config {
        reactors: Some(2),
        ..Config::default()
    };
    config.limits.ping_secs = 10;
    let report = examine(&host, &config, &wanting(MILLION));
    assert_eq!(troubles(&report), [("cpu", Status::Warn)]);
    assert_eq!(commands(&report, "cpu"), ["throng --ping-secs 20"]);
    config.limits.ping_secs = 0;
    let report = examine(&host, &config, &wanting(MILLION));
    assert_eq!(troubles(&report), []);
}

#[test]
fn what_a_host_does_not_say_is_not_judged() {
    let host = Host {
        nr_open: None,
        epoll_watches_max: None,
        somaxconn: None,
        syn_cookies: None,
        syn_backlog: None,
        port_range: None,
        tcp_mem: None,
        memory: Vec::new(),
        threads: Vec::new(),
        ..large()
    };
    let report = ask(&host, MILLION);
    assert_eq!(troubles(&report), []);
    let names: Vec<_> = report.findings.iter().map(|one| one.name).collect();
    assert_eq!(
        names,
        ["nofile", "fs.file-max", "cpu", "ping_secs", "clock"]
    );
}

#[test]
fn json_says_the_same() {
    let report = ask(&small(), MILLION);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["connections"], 1_000_000);
    assert_eq!(json["ready"], false);
    assert_eq!(json["container"], false);
    let findings = json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), report.findings.len());
    let file_max = findings.iter().find(|one| one["name"] == "fs.file-max");
    let file_max = file_max.unwrap();
    assert_eq!(file_max["status"], "fail");
    assert_eq!(
        file_max["mend"][0],
        serde_json::json!({
            "command": "sysctl -w fs.file-max=\"1048576\"",
            "lasts": {"file": "/etc/sysctl.d/99-throng.conf", "lines": "fs.file-max = 1048576"},
        })
    );
}
