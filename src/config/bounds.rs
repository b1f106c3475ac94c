//! The checks of the limits: each within its bounds, and no two at odds.

use super::Config;
use super::checks::Prover;
use super::room::CONNECTIONS_MAX;
use crate::protocol::limits::Limits;
use crate::protocol::upgrade::HEADERS_MAX;

const MIB: usize = 1 << 20;
const MESSAGE_BYTES_MAX: usize = 16 * MIB;
/// Parsers go no deeper.
const JSON_DEPTH_MAX: usize = 128;
/// One slow reader must not take the node's memory.
const QUEUE_BYTES_MAX: usize = 1024 * MIB;
/// No host has more memory than that for queues.
const NODE_QUEUE_BYTES_MAX: usize = MIB * MIB;
/// Where users and groups multiply each other.
const CROWD_MAX: usize = 10_000;
const USER_SESSIONS_MAX: usize = 1000;
/// User ids and what is shown of them are kept for each connection.
const NAME_BYTES_MAX: usize = 64;
const METADATA_PAIRS_MAX: usize = 64;
const METADATA_BYTES_MAX: usize = 4096;
/// An inbox is read and dropped in pieces, but each is walked over in one go.
const INBOX_ENTRIES_MAX: u32 = 100_000;
const INBOX_TTL_SECS_MAX: u32 = 366 * 24 * 3600;

impl Prover {
    pub fn limits(&mut self, config: &mut Config) {
        let limits = &mut config.limits;
        let file = &mut self.layers.file;
        file.limits.take().unwrap_or_default().apply(limits);
        let (auth, ping, idle) = (file.auth_timeout_secs, file.ping_secs, file.idle_secs);
        self.secs("auth_timeout_secs", auth, 1, &mut limits.auth_timeout_secs);
        self.secs("ping_secs", ping, 0, &mut limits.ping_secs);
        self.secs("idle_secs", idle, 0, &mut limits.idle_secs);
        self.sizes(limits);
        self.times(limits);
        self.crowds(limits);
        self.people(limits);
        self.inboxes(limits);
        self.order(limits);
    }

    fn sizes(&mut self, limits: &Limits) {
        let why = "with less nobody could connect or speak, with more one could hold the node";
        let mut check = |key: &str, value: usize, range| {
            self.in_range(&format!("limits.{key}"), Some(value), range, why);
        };
        check(
            "request_line_bytes_max",
            limits.request_line_bytes_max,
            64..=MIB,
        );
        check("header_bytes_max", limits.header_bytes_max, 256..=MIB);
        check("headers_max", limits.headers_max, 8..=HEADERS_MAX);
        check(
            "preauth_frame_bytes_max",
            limits.preauth_frame_bytes_max,
            1..=MESSAGE_BYTES_MAX,
        );
        check(
            "preauth_bytes_max",
            limits.preauth_bytes_max,
            1..=MESSAGE_BYTES_MAX,
        );
        check(
            "message_bytes_max",
            limits.message_bytes_max,
            1..=MESSAGE_BYTES_MAX,
        );
        check(
            "fragments_max",
            limits.fragments_max as usize,
            1..=u32::MAX as usize,
        );
        check("strikes_max", limits.strikes_max.into(), 1..=u8::MAX.into());
        check("json_depth_max", limits.json_depth_max, 1..=JSON_DEPTH_MAX);
        check(
            "queue_soft_bytes",
            limits.queue_soft_bytes,
            1..=QUEUE_BYTES_MAX,
        );
        check(
            "queue_hard_bytes",
            limits.queue_hard_bytes,
            1..=QUEUE_BYTES_MAX,
        );
        check(
            "http_body_bytes_max",
            limits.http_body_bytes_max,
            1024..=MESSAGE_BYTES_MAX,
        );
    }

    /// What many take together.
    fn crowds(&mut self, limits: &Limits) {
        let why = "the node could not hold so much, and 0 means the usual";
        let mut check = |key: &str, value: usize, most| {
            self.in_range(&format!("limits.{key}"), Some(value), 0..=most, why);
        };
        check(
            "node_queue_bytes_max",
            limits.node_queue_bytes_max,
            NODE_QUEUE_BYTES_MAX,
        );
        check(
            "address_connections_max",
            limits.address_connections_max,
            CONNECTIONS_MAX,
        );
        check(
            "address_strangers_max",
            limits.address_strangers_max,
            CONNECTIONS_MAX,
        );
        let why = "with less nobody could come who has yet to say who it is, and there are no \
             more places than all";
        let percent = Some(limits.strangers_percent_max);
        self.in_range("limits.strangers_percent_max", percent, 1..=100, why);
    }

    /// What one user, group or message may take.
    fn people(&mut self, limits: &Limits) {
        let why = "with less nothing of the kind could be done, with more one could hold the node";
        let mut check = |key: &str, value: usize, range| {
            self.in_range(&format!("limits.{key}"), Some(value), range, why);
        };
        check(
            "user_sessions_max",
            limits.user_sessions_max,
            1..=USER_SESSIONS_MAX,
        );
        check(
            "groups_per_user_max",
            limits.groups_per_user_max,
            1..=CROWD_MAX,
        );
        check("group_members_max", limits.group_members_max, 1..=CROWD_MAX);
        check("targets_max", limits.targets_max, 1..=CROWD_MAX);
        check("name_bytes_max", limits.name_bytes_max, 1..=NAME_BYTES_MAX);
        let why = "each connection would keep more than a node has room for; 0 allows none";
        let mut check = |key: &str, value: usize, most| {
            self.in_range(&format!("limits.{key}"), Some(value), 0..=most, why);
        };
        check("watches_max", limits.watches_max, CROWD_MAX);
        check(
            "metadata_pairs_max",
            limits.metadata_pairs_max,
            METADATA_PAIRS_MAX,
        );
        check(
            "metadata_bytes_max",
            limits.metadata_bytes_max,
            METADATA_BYTES_MAX,
        );
    }

    /// What is kept for one user.
    fn inboxes(&mut self, limits: &Limits) {
        let why = "with less nothing could be kept, with more one user could fill the disk";
        let entries = Some(limits.inbox_entries_max);
        let key = "limits.inbox_entries_max";
        self.in_range(key, entries, 1..=INBOX_ENTRIES_MAX, why);
        let bytes = Some(limits.inbox_bytes_max);
        self.in_range("limits.inbox_bytes_max", bytes, 1..=QUEUE_BYTES_MAX, why);
        let ttl = Some(limits.inbox_ttl_secs);
        let why = "it counts seconds, and the disk has an end";
        self.in_range("limits.inbox_ttl_secs", ttl, 1..=INBOX_TTL_SECS_MAX, why);
    }

    fn times(&mut self, limits: &Limits) {
        let mut check = |key, value, least| self.secs(key, Some(value), least, &mut 0);
        check("limits.handshake_secs", limits.handshake_secs, 1);
        check("limits.close_secs", limits.close_secs, 1);
        check("limits.http_header_secs", limits.http_header_secs, 1);
        check("limits.message_secs", limits.message_secs, 0);
        check("limits.queue_stalled_secs", limits.queue_stalled_secs, 0);
        let (ping, idle) = (limits.ping_secs, limits.idle_secs);
        if ping >= idle && ping != 0 && idle != 0 {
            let other = self.layers.name("idle_secs");
            let why = "or every quiet client is dropped";
            self.problem(
                "ping_secs",
                format!("= {ping} must be below {other} = {idle}, {why}"),
            );
        }
    }

    fn order(&mut self, limits: &Limits) {
        let frame = ("preauth_frame_bytes_max", limits.preauth_frame_bytes_max);
        let preauth = ("preauth_bytes_max", limits.preauth_bytes_max);
        let message = ("message_bytes_max", limits.message_bytes_max);
        let soft = ("queue_soft_bytes", limits.queue_soft_bytes);
        let hard = ("queue_hard_bytes", limits.queue_hard_bytes);
        let node = ("node_queue_bytes_max", limits.node_queue_bytes_max);
        let inbox = ("inbox_bytes_max", limits.inbox_bytes_max);
        // 0 is a part of the memory, whatever that is.
        let is_set = node.1 > 0;
        for ((lower, low), (upper, high), why) in [
            (
                hard,
                if is_set { node } else { hard },
                "or one slow reader is more than all of them may be",
            ),
            (frame, preauth, "or one allowed frame is already too much"),
            (preauth, message, "or strangers may send more than friends"),
            (
                message,
                hard,
                "or the largest message closes whoever does not read it at once",
            ),
            (
                message,
                inbox,
                "or a message that may be sent has room in no inbox",
            ),
            (
                soft,
                hard,
                "or a slow reader is closed before we stop reading from it",
            ),
        ] {
            if low > high {
                let upper = self.layers.name(&format!("limits.{upper}"));
                let sentence = format!("= {low} must not be above {upper} = {high}, {why}");
                self.problem(&format!("limits.{lower}"), sentence);
            }
        }
    }
}
