//! The checks of the limits: each within its bounds, and no two at odds.

use super::Config;
use super::checks::Prover;
use crate::protocol::limits::Limits;
use crate::protocol::upgrade::HEADERS_MAX;

const MIB: usize = 1 << 20;
const MESSAGE_BYTES_MAX: usize = 16 * MIB;
/// Parsers go no deeper.
const JSON_DEPTH_MAX: usize = 128;
/// One slow reader must not take the node's memory.
const QUEUE_BYTES_MAX: usize = 1024 * MIB;

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
    }

    fn times(&mut self, limits: &Limits) {
        let mut check = |key, value, least| self.secs(key, Some(value), least, &mut 0);
        check("limits.handshake_secs", limits.handshake_secs, 1);
        check("limits.close_secs", limits.close_secs, 1);
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
        for ((lower, low), (upper, high), why) in [
            (frame, preauth, "or one allowed frame is already too much"),
            (preauth, message, "or strangers may send more than friends"),
            (
                message,
                hard,
                "or the largest message closes whoever does not read it at once",
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
