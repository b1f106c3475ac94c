//! What an operator can do wrong, and what is said then.

use super::keys::{File, LimitKeys};
use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn flags(line: &str) -> ServeArgs {
    use clap::Parser;
    Cli::try_parse_from(format!("throng {line}").split_whitespace())
        .unwrap()
        .serve
}

fn load(line: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Config::load(
        &flags(line),
        &Environment(environment.iter().map(own).collect()),
    )
}

fn from_text(text: &str) -> Result<Config, ConfigErrors> {
    Config::from_text(text, &Environment::default())
}

/// The only problem of this file.
fn problem(text: &str) -> String {
    let Err(ConfigErrors(mut problems)) = from_text(text) else {
        panic!("{text} is good")
    };
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn nothing_set_means_the_defaults() {
    assert!(load("", &[]).unwrap() == Config::default());
}

#[test]
fn the_example_file_is_the_defaults_and_names_every_key() {
    let manual = include_str!("../../throng.toml");
    assert!(
        from_text(manual).unwrap() == Config::default(),
        "as it is, it equals no file"
    );
    let defaults: Vec<&str> = manual
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
        .filter(|line| !line.starts_with("e.g. "))
        .collect();
    assert!(from_text(&defaults.join("\n")).unwrap() == Config::default());
    let examples: Vec<&str> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("#e.g. "))
        .collect();
    for example in &examples {
        // Secrets' files do not exist here: that they cannot be read shows that the key is known.
        let problems = from_text(example)
            .err()
            .map(|e| e.0.join(""))
            .unwrap_or_default();
        assert!(
            problems.is_empty() || example.contains("_file"),
            "{example}: {problems}"
        );
        assert!(!problems.contains("unknown"), "{problems}");
    }
    for (key, _) in File::KEYS.iter().chain(LimitKeys::KEYS) {
        let sets =
            |line: &&str| line.starts_with(&format!("{key} = ")) || **line == format!("[{key}]");
        let count = defaults
            .iter()
            .chain(&examples)
            .filter(|line| sets(line))
            .count();
        assert_eq!(count, 1, "throng.toml must explain {key} once");
    }
}

#[test]
fn flags_win_over_environment_over_file() {
    let dir = std::env::temp_dir().join(format!("throng-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("t.toml");
    std::fs::write(
        &file,
        "ping_secs = 10\nidle_secs = 20\ndrain_secs = 30\ndata_dir = \"d\"\n",
    )
    .unwrap();
    let line = format!(
        "--config {} --drain-secs 32 --drain-secs 33",
        file.display()
    );
    let config = load(
        &line,
        &[("THRONG_IDLE_SECS", "21"), ("THRONG_DRAIN_SECS", "31")],
    )
    .unwrap();
    let limits = &config.limits;
    assert_eq!(
        (limits.ping_secs, limits.idle_secs, config.drain_secs),
        (10, 21, 33)
    );
    assert_eq!(config.data_dir, dir.join("d"));
    let named = load("", &[("THRONG_CONFIG", &file.display().to_string())]).unwrap();
    assert_eq!(named.drain_secs, 30);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn the_environment_speaks_every_type() {
    let config = load(
        "",
        &[
            ("THRONG_API_KEY", "01234567890123456789012345678901"),
            ("THRONG_LIMITS__MESSAGE_BYTES_MAX", "9000"),
            (
                "THRONG_ALLOWED_ORIGINS",
                "https://a.example, https://b.example",
            ),
            ("THRONG_AUTH", "none"),
            ("THRONG_AUTH_NONE_ANYWHERE", "true"),
            ("THRONG_LISTEN", "0.0.0.0:1"),
        ],
    )
    .unwrap();
    assert_eq!(
        config.api_key.as_deref(),
        Some("01234567890123456789012345678901")
    );
    assert_eq!(config.limits.message_bytes_max, 9000);
    assert_eq!(
        config.allowed_origins,
        ["https://a.example", "https://b.example"]
    );
}

#[test]
fn variables_of_others_are_a_warning() {
    let config = load(
        "",
        &[
            ("THRONG_PORT_8888_TCP", "tcp://10.0.0.1"),
            ("THRONG_LISTE", "x"),
        ],
    )
    .unwrap();
    assert_eq!(config.warnings.len(), 2);
    assert!(
        config.warnings[1].starts_with("THRONG_LISTE "),
        "{:?}",
        config.warnings
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let Err(errors) = load(
        "--listen nowhere --ping-secs 300 --reactors 0 --max-connections many --redis http://x",
        &[
            ("THRONG_API_KEY", "short"),
            ("THRONG_TOKEN_SECRET", "short"),
            ("THRONG_AUTH", "http"),
        ],
    ) else {
        panic!("no problem");
    };
    let text = errors.to_string();
    for part in [
        "--listen = \"nowhere\" is not ADDR:PORT",
        "--ping-secs = 300 must be below idle_secs = 210, or every quiet client is dropped",
        "--reactors = 0",
        "--max-connections = \"many\" is not a whole number",
        "--redis is no address of a Redis",
        "THRONG_API_KEY has 5 characters",
        "THRONG_TOKEN_SECRET cannot sign: line 1 of the token secret has 5 bytes",
        "THRONG_AUTH = \"http\" is not built",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert_eq!(errors.0.len(), 8, "{text}");
}

#[test]
fn unbuilt_parts_are_refused_wherever_they_are_asked_for() {
    for mode in ["http", "redis"] {
        assert!(problem(&format!("auth = {mode:?}")).contains("not built"));
    }
    assert!(problem("store = \"tape\"").contains("not one of"));
    let memory = load("--store memory --auth hmac", &[("THRONG_STORE", "disk")]);
    assert_eq!(memory.unwrap().store, StoreKind::Memory);
}

#[test]
fn a_redis_is_the_store_and_no_other_beside_it() {
    let config = load("--redis redis://h:1/2", &[("THRONG_ROUTING", "broadcast")]).unwrap();
    let redis = config.redis.unwrap();
    assert_eq!(
        (redis.url.as_str(), redis.prefix.as_str()),
        ("redis://h:1/2", "throng:")
    );
    assert!(!redis.has_directory);
    assert!(load("--redis redis://h --store redis", &[]).is_ok());
    let says = problem("store = \"redis\"");
    assert!(says.contains("needs to know where: set redis"), "{says}");
    let says = problem("store = \"disk\"\nredis = \"redis://h\"");
    assert!(says.contains("store = \"disk\" beside redis"), "{says}");
    let says = problem("redis = \"redis://h\"\nrouting = \"pigeon\"");
    assert!(
        says.contains("routing = \"pigeon\" is not one of"),
        "{says}"
    );
    let says = problem("redis = \"redis://h\"\nredis_prefix = \"a*\"");
    assert!(says.contains("redis_prefix"), "{says}");
    let says = problem("redis = \"redis://h\"\nredis_ca_file = \"/nowhere\"");
    assert!(
        says.contains("redis_ca_file = \"/nowhere\" cannot be read"),
        "{says}"
    );
}

#[test]
fn a_password_for_redis_is_told_to_nobody() {
    let says = problem("redis = \"redis://:hush@h:port\"");
    assert!(!says.contains("hush"), "{says}");
    let config = load("--redis redis://u:hush@h", &[]).unwrap();
    assert!(config.warnings[0].contains("THRONG_REDIS_PASSWORD"));
    assert!(!config.warnings[0].contains("hush"));
    let quiet = load("--redis redis://u@h", &[("THRONG_REDIS_PASSWORD", "hush")]).unwrap();
    assert_eq!(quiet.warnings, [""; 0]);
    assert_eq!(quiet.redis.unwrap().password.as_deref(), Some("hush"));
}

#[test]
fn unknown_and_misplaced_keys_are_named() {
    assert!(problem("lisen = \"x\"").starts_with("unknown key lisen"));
    assert!(problem("[limits]\nfoo = 1").starts_with("unknown key limits.foo"));
    assert!(problem("[limits]\nping_secs = 1").contains("above the first"));
    assert!(problem("message_secs = 1").contains("[limits]"));
    assert!(problem("[cluster]\nx = 1").starts_with("unknown key cluster"));
    assert!(problem("limits = 3").contains("a table"));
}

#[test]
fn secrets_reach_no_message() {
    for text in [
        format!("api_key = \"{KEY}\nfoo"),
        "api_key = 3141592653".to_owned(),
        "token_secret = [\"3141592653\"]".to_owned(),
        "token_secret = \"3141592653\"".to_owned(),
        format!("api_key = \"{KEY} é\""),
        "jwt_key = 3141592653".to_owned(),
        "auth = \"jwt\"\njwt_algorithm = \"HS256\"\njwt_key = \"3141592653\"".to_owned(),
        format!("auth = \"jwt\"\njwt_algorithm = \"RS256\"\njwt_key = \"{KEY}\""),
    ] {
        let message = problem(&text);
        assert!(
            !message.contains("3141592653") && !message.contains(KEY),
            "{message}"
        );
    }
}

#[test]
fn an_open_api_needs_a_key() {
    assert!(problem("api = \"0.0.0.0:8084\"").contains("without an API key"));
    assert!(from_text(&format!("api = \"0.0.0.0:8084\"\napi_key = \"{KEY}\"")).is_ok());
    assert!(
        problem("api = \"0.0.0.0:8084\"\napi_key_file = \"/nowhere/key\"")
            .contains("cannot be read")
    );
}

#[test]
fn nobody_is_believed_on_an_open_address() {
    let config = from_text("auth = \"none\"").unwrap();
    assert_eq!(config.listen, "127.0.0.1:8888".parse().unwrap());
    assert!(problem("auth = \"none\"\nlisten = \"0.0.0.0:8888\"").contains("auth_none_anywhere"));
    let forced = "auth = \"none\"\nlisten = \"0.0.0.0:8888\"\nauth_none_anywhere = true";
    assert!(from_text(forced).is_ok());
    assert!(from_text(&format!("auth = \"none\"\ntoken_secret = \"{KEY}\"")).is_ok());
}

#[test]
fn single_values_keep_their_bounds() {
    let long = "a".repeat(91 - "wss://".len());
    for bad in [
        "public_url = \"https://a.example\"",
        &format!("public_url = \"wss://{long}\""),
        "public_url = \"ws:///websocket\"",
        "path = \"websocket\"",
        "path = \"/health\"",
        "echo_path = \"/websocket\"",
        "echo_path = \"/a b\"",
        "allowed_origins = [\"https://a.example/\"]",
        "advertise = \"a:b\"",
        "advertise = \"a b\"",
        "advertise = \"a:0\"",
        "overflow = \"drop\"",
        "reactors = 1025",
        "max_connections = 0",
        "max_connections = -5",
        "backlog = 0",
        "auth_timeout_secs = 0",
        "drain_secs = 30000000",
        "log_level = \"loud\"",
        "data_dir = \"\"",
        "api = \"127.0.0.1:8888\"",
        "[limits]\nmessage_bytes_max = 16777217\nqueue_hard_bytes = 99999999\ninbox_bytes_max = 99999999",
        "[limits]\nstrikes_max = 0",
        "[limits]\nstrikes_max = 256",
        "[limits]\nhandshake_secs = 0",
        "[limits]\nqueue_soft_bytes = 1048577",
        "[limits]\npreauth_frame_bytes_max = 8193",
        "[limits]\npreauth_bytes_max = 65537",
        "[limits]\nmessage_bytes_max = 1048577",
        "[limits]\njson_depth_max = 129",
        "[limits]\nnode_queue_bytes_max = 1048575",
        "[limits]\nuser_sessions_max = 0",
        "[limits]\nuser_sessions_max = 1001",
        "[limits]\naddress_connections_max = -1",
        "[limits]\naddress_strangers_max = 99999999999999",
        "[limits]\nstrangers_percent_max = 0",
        "[limits]\nstrangers_percent_max = 101",
        "[limits]\ngroups_per_user_max = 0",
        "[limits]\ngroup_members_max = 10001",
        "[limits]\nwatches_max = 10001",
        "[limits]\ninbox_entries_max = 0",
        "[limits]\ninbox_entries_max = 100001",
        "[limits]\ninbox_bytes_max = 65535",
        "[limits]\ninbox_bytes_max = 1073741825",
        "[limits]\ninbox_ttl_secs = 0",
        "[limits]\ninbox_ttl_secs = 31622401",
        "[limits]\nname_bytes_max = 65",
        "[limits]\nmetadata_pairs_max = 65",
        "[limits]\nmetadata_bytes_max = 4097",
        "[limits]\ntargets_max = 0",
        "[limits]\nhttp_body_bytes_max = 1023",
        "[limits]\nhttp_header_secs = 0",
        "session_policy = \"double\"",
        "group_join = \"all\"",
        "trusted_proxies = [\"10.0.0/8\"]",
        "trusted_proxies = [\"proxy.example\"]",
        "trusted_proxies = [\"10.0.0.0/33\"]",
        "trusted_proxies = [\"\"]",
    ] {
        problem(bad);
    }
    for good in [
        &format!("public_url = \"wss://{}\"", &long[1..]),
        "advertise = \"[::1]:8084\"",
        "advertise = \"node-1.example\"",
        "ping_secs = 0",
        "ping_secs = 300\nidle_secs = 0",
        "listen = \"127.0.0.1:0\"\napi = \"127.0.0.1:0\"",
        "allowed_origins = [\"null\", \"https://a.example:8443\"]",
        "[limits]\nframes_per_sec = 0\nmessage_secs = 0",
        "[limits]\nnode_queue_bytes_max = 1048576",
        "[limits]\nwatches_max = 0\nmetadata_pairs_max = 0\nmetadata_bytes_max = 0",
        "[limits]\naddress_connections_max = 1\naddress_strangers_max = 1",
        "[limits]\ninbox_entries_max = 1\ninbox_bytes_max = 65536\ninbox_ttl_secs = 1",
        "[limits]\nstrangers_percent_max = 100\nuser_sessions_max = 1000",
    ] {
        assert!(from_text(good).is_ok(), "{good}");
    }
}

#[test]
fn a_secret_and_its_file_on_one_level_are_one_too_many() {
    assert!(problem(&format!("api_key = \"{KEY}\"\napi_key_file = \"x\"")).contains("keep one"));
    let dir = std::env::temp_dir().join(format!("throng-keyfile-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("api.key"), format!("{KEY}\n")).unwrap();
    let file = dir.join("t.toml");
    std::fs::write(&file, "api_key_file = \"api.key\"").unwrap();
    let line = format!("--config {}", file.display());
    assert_eq!(load(&line, &[]).unwrap().api_key.as_deref(), Some(KEY));
    let other = "f".repeat(32);
    let config = load(&line, &[("THRONG_API_KEY", &other)]).unwrap();
    assert_eq!(config.api_key, Some(other));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn users_and_groups_are_as_the_operator_wants_them() {
    let config = from_text("session_policy = \"single\"\ngroup_join = \"open\"").unwrap();
    assert_eq!(config.session_policy, SessionPolicy::Single);
    assert!(config.groups_are_open);
}

#[test]
fn proxies_are_networks_or_addresses() {
    let text = "trusted_proxies = [\"10.0.0.0/8\", \"::1\", \"192.0.2.7\", \"fd00::/8\"]";
    let proxies = from_text(text).unwrap().trusted_proxies;
    let trusts = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        proxies.iter().any(|network| network.contains(&address))
    };
    for address in ["10.255.0.1", "::1", "192.0.2.7", "fd12::1"] {
        assert!(trusts(address), "{address}");
    }
    for address in ["11.0.0.1", "::2", "192.0.2.8", "fe80::1"] {
        assert!(!trusts(address), "{address}");
    }
    let mapped = from_text("trusted_proxies = [\"::ffff:192.0.2.7\"]").unwrap();
    assert_eq!(mapped.trusted_proxies[0].to_string(), "192.0.2.7/32");
    let loose = problem("trusted_proxies = [\"10.1.2.3/8\"]");
    assert!(loose.contains("\"10.1.2.3/8\""), "{loose}");
    assert!(loose.contains("write 10.0.0.0/8"), "{loose}");
    let config = load("", &[("THRONG_TRUSTED_PROXIES", "10.0.0.0/8,0.0.0.0/0")]).unwrap();
    assert_eq!(config.trusted_proxies.len(), 2);
    let warning = &config.warnings[0];
    assert!(
        warning.starts_with("THRONG_TRUSTED_PROXIES holds \"0.0.0.0/0\""),
        "{warning}"
    );
}

#[test]
fn tokens_of_an_identity_provider_need_an_algorithm_and_keys_that_fit_it() {
    let good = format!("auth = \"jwt\"\njwt_algorithm = \"HS256\"\njwt_key = \"{KEY}\"");
    let config = from_text(&format!("{good}\njwt_issuer = \"https://id.example\"")).unwrap();
    assert_eq!(config.auth, AuthMode::Jwt);
    let jwt = config.jwt.unwrap();
    assert_eq!((jwt.keys.as_str(), jwt.audience), (KEY, None));
    assert_eq!(jwt.issuer.as_deref(), Some("https://id.example"));

    let lacks = |text: &str| problem(&format!("auth = \"jwt\"\n{text}"));
    let says = lacks(&format!("jwt_key = \"{KEY}\""));
    assert!(says.contains("needs jwt_algorithm"), "{says}");
    let says = lacks("jwt_algorithm = \"HS256\"");
    assert!(says.contains("without keys"), "{says}");
    let says = lacks(&format!("jwt_algorithm = \"none\"\njwt_key = \"{KEY}\""));
    assert!(says.contains("is not one of"), "{says}");
    let says = lacks(&format!("jwt_algorithm = \"ES256\"\njwt_key = \"{KEY}\""));
    assert!(says.contains("name it in jwt_key_file"), "{says}");
    let says = lacks("jwt_algorithm = \"RS256\"\njwt_key_file = \"/nowhere/key\"");
    assert!(says.contains("cannot be read"), "{says}");
    let says = lacks("jwt_algorithm = \"HS256\"\njwt_key = \"short\"");
    assert!(says.contains("cannot verify"), "{says}");
    let says = problem(&format!("{good}\njwt_audience = \"\""));
    assert!(says.contains("leave it out"), "{says}");
    assert!(from_text("auth = \"jwt\"").is_err_and(|errors| errors.0.len() == 2));
}

#[test]
fn keys_of_an_identity_provider_without_that_mode_are_a_warning() {
    let config = load("", &[("THRONG_JWT_KEY", KEY), ("THRONG_JWT_ISSUER", "x")]).unwrap();
    assert!(config.jwt.is_none());
    let warning = &config.warnings[0];
    assert!(
        warning.starts_with("THRONG_JWT_KEY, THRONG_JWT_ISSUER: "),
        "{warning}"
    );
    assert!(!warning.contains(KEY));
}

#[test]
fn whoever_makes_a_token_needs_no_keys_of_an_identity_provider() {
    use clap::Parser;
    let cli = Cli::try_parse_from(["throng", "token", "--user", "a"]).unwrap();
    let Some(Command::Token(args)) = cli.command else {
        panic!("not token")
    };
    let environment = Environment(vec![("THRONG_AUTH".to_owned(), "jwt".to_owned())]);
    assert_eq!(
        TokenConfig::load(&args, &environment).unwrap().auth,
        AuthMode::Jwt
    );
}
