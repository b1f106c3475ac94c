//! A bad configuration: told whole, and nothing is started.

use crate::support::Setup;
use crate::support::setup::Folder;

#[test]
fn every_problem_is_told_at_once_and_nothing_is_started() {
    let setup = Setup::new()
        .args(&[
            "--max-connections",
            "none",
            "--idle-secs",
            "5",
            "--ping-secs",
            "9",
        ])
        .args(&["--public-url", "http://example.com"])
        .env("THRONG_LOG_LEVEL", "loud")
        .env("THRONG_TOKEN_SECRET", "short")
        .config("pth = \"/x\"\n[limits]\nheaders_max = 0\n");
    let says = setup.fails_with(2);
    for problem in [
        "--max-connections",
        "--ping-secs = 9 must be below --idle-secs = 5",
        "--public-url",
        "THRONG_LOG_LEVEL",
        "THRONG_TOKEN_SECRET",
        "pth",
        "limits.headers_max",
    ] {
        assert!(says.contains(problem), "{problem} is missing in: {says}");
    }
    assert!(says.contains("7 problems in the configuration"), "{says}");
    assert!(
        !says.contains("short\""),
        "a secret is no part of a message"
    );
    assert!(!setup.folder.path("data").exists());
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for args in [["--auth", "http"], ["--auth", "redis"]] {
        let says = Setup::new().args(&args).fails_with(2);
        assert!(says.contains(args[0]), "{says}");
        assert!(says.contains("not built into this version"), "{says}");
    }
}

#[test]
fn bad_arguments_have_status_2() {
    for args in [&["--nonsense"][..], &["token"], &["frob"]] {
        Setup::bare(Folder::new()).args(args).fails_with(2);
    }
}

#[test]
fn a_check_proves_and_starts_nothing() {
    let good = Setup::new().args(&["--check"]);
    let output = good.run();
    assert_eq!(output.status.code(), Some(0));
    assert!(!good.folder.path("data").exists());
    let bad = Setup::new().args(&["--check", "--reactors", "0"]);
    assert!(bad.fails_with(2).contains("--reactors"));
}

#[test]
fn strangers_are_kept_from_an_open_api_and_from_a_node_without_tokens() {
    let says = Setup::new().args(&["--api", "0.0.0.0:0"]).fails_with(2);
    assert!(says.contains("key"), "{says}");
    let keys = Setup::new()
        .env("THRONG_API_KEY", "0123456789")
        .fails_with(2);
    assert!(keys.contains("THRONG_API_KEY"), "{keys}");
    assert!(!keys.contains("0123456789"), "{keys}");
    let open = Setup::new().args(&["--auth", "none", "--listen", "0.0.0.0:0"]);
    assert!(open.fails_with(2).contains("--listen"));
}

#[test]
fn a_cap_beyond_the_descriptors_names_the_reactors_that_would_do() {
    // 300 descriptors less 256 leave 44 for each reactor.
    let setup = Setup::new().descriptors(300);
    let setup = setup.args(&["--reactors", "1", "--max-connections", "100"]);
    let says = setup.fails_with(2);
    assert!(says.contains("Use --reactors 3"), "{says}");
    let says = Setup::new().descriptors(256).fails_with(2);
    assert!(says.contains("file descriptors"), "{says}");
}

#[test]
fn a_check_names_what_does_not_fit_together_with_everything_else() {
    let setup = Setup::new().descriptors(300);
    let setup = setup.args(&[
        "--check",
        "--reactors",
        "2",
        "--max-connections",
        "99999999",
    ]);
    let says = setup.fails_with(2);
    assert!(says.contains("1 problem in the configuration"), "{says}");
    assert!(
        says.contains("--max-connections = 99999999 does not fit: 2 reactors hold 88"),
        "{says}"
    );
    let says = setup.args(&["--drain-secs", "-1"]).fails_with(2);
    assert!(says.contains("2 problems in the configuration"), "{says}");
    assert!(
        says.contains("--drain-secs = \"-1\" is not a whole number"),
        "{says}"
    );
    assert!(says.contains("does not fit"), "{says}");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let setup = Setup::new()
        .config("max_connections = 11\npublic_url = \"ws://file\"\n[limits]\nstrikes_max = 9\n")
        .env("THRONG_MAX_CONNECTIONS", "12")
        .env("THRONG_PUBLIC_URL", "ws://environment")
        .args(&["--max-connections", "13", "--max-connections", "14"]);
    let node = setup.start();
    assert_eq!(node.metric("connections_max"), 14.0);
    let order = serde_json::json!({"userId": "alice"});
    let content = node.post("/api/v1/tokens", &order).content();
    let url = content["url"].as_str().unwrap();
    assert!(url.starts_with("ws://environment?token="), "{url}");
}

#[test]
fn with_an_identity_provider_tokens_are_not_made_here() {
    let with_jwt = |setup: Setup| {
        let setup = setup.env("THRONG_AUTH", "jwt");
        let setup = setup.env("THRONG_JWT_ALGORITHM", "HS256");
        setup.env("THRONG_JWT_KEY", "0123456789abcdef0123456789abcdef")
    };
    let token = Setup::bare(Folder::new()).args(&["token", "--user", "alice"]);
    let says = with_jwt(token).fails_with(2);
    assert!(says.contains("identity provider"), "{says}");
    let node = with_jwt(Setup::new()).start();
    let answer = node.post("/api/v1/tokens", &serde_json::json!({"userId": "alice"}));
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("identity provider"), "{}", answer.body);
    assert!(!node.errors().contains("demo token"));
    let refused = node.open("?token=a.b.c", &[]).err().unwrap();
    assert!(refused.contains(" 401 "), "{refused}");
    assert!(
        !node.folder.path("data/token.secret").exists(),
        "it needs no secret"
    );
}
