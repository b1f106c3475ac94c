//! The keys of the configuration file: their names and types.
//!
//! Owns: the list of keys, each written once. Proving the values is the parent's work.
//! Invariants: every field of `Limits` has a key, here or (where it is also a flag) above.

use serde::Deserialize;

use crate::protocol::limits::Limits;

macro_rules! keys {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Deserialize, Default)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $(pub $key: Option<$type>,)* }

        impl $name {
            /// Names and types.
            pub const KEYS: &[(&str, &str)] = &[$((stringify!($key), stringify!($type)),)*];
        }
    };
}

keys! {
    /// The keys outside of any table.
    File {
        listen: String,
        path: String,
        echo_path: String,
        allowed_origins: Vec<String>,
        trusted_proxies: Vec<String>,
        max_connections: usize,
        overflow: String,
        public_url: String,
        backlog: u32,
        api: String,
        api_key: String,
        api_key_file: String,
        advertise: String,
        auth: String,
        auth_none_anywhere: bool,
        token_secret: String,
        token_secret_file: String,
        jwt_algorithm: String,
        jwt_key: String,
        jwt_key_file: String,
        jwt_issuer: String,
        jwt_audience: String,
        auth_timeout_secs: u32,
        session_policy: String,
        group_join: String,
        store: String,
        redis: String,
        redis_password: String,
        redis_password_file: String,
        redis_ca_file: String,
        redis_prefix: String,
        routing: String,
        data_dir: String,
        reactors: usize,
        ping_secs: u32,
        idle_secs: u32,
        drain_secs: u32,
        watchdog_secs: u32,
        log_level: String,
        log_format: String,
        limits: LimitKeys,
    }
}

macro_rules! limit_keys {
    ($($key:ident: $type:ty,)*) => {
        keys! {
            /// The keys of the table `[limits]`.
            LimitKeys { $($key: $type,)* }
        }

        impl LimitKeys {
            /// Replaces what was set.
            pub fn apply(&self, limits: &mut Limits) {
                // Taken apart without `..`: a new limit that has no key does not compile.
                let Limits { $($key,)* auth_timeout_secs: _, ping_secs: _, idle_secs: _ } = limits;
                $(if let Some(value) = self.$key { *$key = value; })*
            }

            /// The keys of the limits that are not the same in both.
            pub fn differing(one: &Limits, other: &Limits) -> Vec<&'static str> {
                let Limits { $($key,)* auth_timeout_secs, ping_secs, idle_secs } = one;
                [
                    $((concat!("limits.", stringify!($key)), *$key != other.$key),)*
                    ("auth_timeout_secs", *auth_timeout_secs != other.auth_timeout_secs),
                    ("ping_secs", *ping_secs != other.ping_secs),
                    ("idle_secs", *idle_secs != other.idle_secs),
                ]
                .into_iter()
                .filter_map(|(key, differs)| differs.then_some(key))
                .collect()
            }
        }
    };
}

limit_keys! {
    request_line_bytes_max: usize,
    header_bytes_max: usize,
    headers_max: usize,
    handshake_secs: u32,
    preauth_frame_bytes_max: usize,
    preauth_bytes_max: usize,
    message_bytes_max: usize,
    fragments_max: u32,
    message_secs: u32,
    control_frames_per_sec: u32,
    frames_per_sec: u32,
    bytes_per_sec: u32,
    strikes_max: u8,
    json_depth_max: usize,
    queue_soft_bytes: usize,
    queue_hard_bytes: usize,
    queue_stalled_secs: u32,
    close_secs: u32,
    node_queue_bytes_max: usize,
    user_sessions_max: usize,
    address_connections_max: usize,
    address_strangers_max: usize,
    address_handshakes_per_sec: u32,
    handshakes_per_sec: u32,
    strangers_percent_max: u32,
    groups_per_user_max: usize,
    group_members_max: usize,
    inbox_entries_max: u32,
    inbox_bytes_max: usize,
    inbox_ttl_secs: u32,
    watches_max: usize,
    name_bytes_max: usize,
    metadata_pairs_max: usize,
    metadata_bytes_max: usize,
    targets_max: usize,
    http_body_bytes_max: usize,
    http_header_secs: u32,
}

/// What a value of this type looks like.
pub fn wanted(type_name: &str) -> &'static str {
    match type_name {
        "String" => "text in quotes",
        "bool" => "true or false",
        "u8" => "a whole number from 0 to 255",
        "u32" => "a whole number from 0 to 4294967295",
        "usize" => "a whole number, 0 or more",
        "LimitKeys" => "a table of limits",
        _ => "a list of texts, as in [\"a\", \"b\"]",
    }
}
