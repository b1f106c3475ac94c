//! A configuration of any text, and any variables: all that is wrong is said without a secret,
//! and what is taken is sound, the same when it is read again, and sound on a running node.
//!
//! Input: the file; lines that begin with `THRONG_` are variables instead, in which `\n` ends a
//! line. Wherever the canary stands in the value of a secret, and nowhere else, nobody hears it.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use throng::config::{AuthMode, Changes, Config, Environment};
use throng::session::auth::{JwtKeys, TokenKeys};
use toml::{Table, Value};

const CANARY: &str = "hush";
const SECRETS: [&str; 3] = ["api_key", "token_secret", "jwt_key"];

fuzz_target!(|text: &str| {
    let (variables, lines): (Vec<&str>, Vec<&str>) = text
        .split_inclusive('\n')
        .partition(|line| line.starts_with("THRONG_"));
    let file = lines.concat();
    let variables = variables.into_iter().map(variable).collect();
    let environment = Environment(variables);
    let table = file.parse::<Table>().ok();
    if reads_a_file(table.as_ref(), &environment) {
        return;
    }
    let outcome = Config::from_text(&file, &environment);
    if is_hidden(table.as_ref(), &environment) {
        let said = match &outcome {
            Ok(config) => config.warnings.join("\n"),
            Err(errors) => errors.to_string(),
        };
        assert!(!said.contains(CANARY), "{said}");
    }
    let Ok(config) = outcome else {
        return;
    };
    assert!(config.auth != AuthMode::None || is_local(&config) || is_meant(text));
    check(&config);
    let again = Config::from_text(&file, &environment);
    assert!(again.is_ok_and(|again| again == config));
    let mut running = config.clone();
    assert_eq!(running.adopt(config.clone()), Changes::default());
    assert!(running == config);
    running.adopt(Config::default());
    check(&running);
    running = Config::default();
    running.adopt(config);
    check(&running);
});

fn variable(line: &str) -> (String, String) {
    let line = line.trim_end_matches(['\r', '\n']);
    let (name, value) = line.split_once('=').unwrap_or((line, ""));
    (name.to_owned(), value.replace("\\n", "\n"))
}

/// What lies on this machine is no part of the input, and some of it never ends.
fn reads_a_file(table: Option<&Table>, environment: &Environment) -> bool {
    let in_file = table.into_iter().flatten();
    let in_file = in_file.filter_map(|(key, value)| Some((key.clone(), value.as_str()?)));
    let variables = environment.0.iter();
    let variables = variables.map(|(name, value)| (name.to_lowercase(), value.as_str()));
    in_file
        .chain(variables)
        .any(|(key, value)| key.ends_with("_file") && Path::new(value).exists())
}

/// The canary stands nowhere but where a secret does.
fn is_hidden(table: Option<&Table>, environment: &Environment) -> bool {
    let is_shown = |key: &str, value: &str| {
        let is_secret = SECRETS.contains(&key.trim_start_matches("throng_"));
        key.contains(CANARY) || (!is_secret && value.contains(CANARY))
    };
    let shows = |(key, value): (&String, &Value)| is_shown(key, &value.to_string());
    let in_file = table.into_iter().flatten().any(shows);
    let in_variables = environment
        .0
        .iter()
        .any(|(name, value)| is_shown(&name.to_lowercase(), value));
    !in_file && !in_variables
}

fn is_local(config: &Config) -> bool {
    config.listen.ip().is_loopback()
}

fn is_meant(text: &str) -> bool {
    text.to_lowercase().contains("auth_none_anywhere")
}

/// What a node relies on.
fn check(config: &Config) {
    let key = config.api_key.as_deref();
    assert!(key.is_some() || config.api.ip().is_loopback());
    assert!(key.is_none_or(|key| key.len() >= 32 && key.bytes().all(|b| b.is_ascii_graphic())));
    let secret = config.token_secret.as_deref();
    assert!(secret.is_none_or(|secret| TokenKeys::parse(secret).is_ok()));
    assert_eq!(config.auth == AuthMode::Jwt, config.jwt.is_some());
    if let Some(jwt) = &config.jwt {
        let (issuer, audience) = (jwt.issuer.as_deref(), jwt.audience.as_deref());
        assert!(JwtKeys::parse(jwt.algorithm, &jwt.keys, issuer, audience).is_ok());
    }
    let ports = (config.listen.port(), config.api.port());
    let is_any = config.listen.ip().is_unspecified() || config.api.ip().is_unspecified();
    let is_same = is_any || config.listen.ip() == config.api.ip();
    assert!(ports.0 != ports.1 || ports.0 == 0 || !is_same);
    assert!(config.path.starts_with('/') && config.path != "/health");
    assert!(config.echo_path.as_ref() != Some(&config.path));
    let url = config.public_url.as_deref();
    assert!(url.is_none_or(|url| url.starts_with("ws") && url.len() <= 90));
    assert!(config.max_connections != Some(0) && config.reactors != Some(0));

    let limits = &config.limits;
    assert!((1..=128).contains(&limits.json_depth_max));
    assert!(limits.preauth_frame_bytes_max <= limits.preauth_bytes_max);
    assert!(limits.preauth_bytes_max <= limits.message_bytes_max);
    assert!(limits.message_bytes_max.max(limits.queue_soft_bytes) <= limits.queue_hard_bytes);
    let in_all = limits.node_queue_bytes_max;
    assert!(in_all == 0 || limits.queue_hard_bytes <= in_all);
    assert!(limits.ping_secs == 0 || limits.idle_secs == 0 || limits.ping_secs < limits.idle_secs);
    assert!(limits.handshake_secs > 0 && limits.auth_timeout_secs > 0 && limits.close_secs > 0);
    assert!(limits.targets_max > 0 && limits.user_sessions_max > 0 && limits.strikes_max > 0);
}
