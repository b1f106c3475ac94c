//! What a peer can do wrong, and the close code it gets. Data, not an error of ours.

use super::limits::Limit;

/// A peer's fault that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    ReservedBits,
    ReservedOpcode,
    Unmasked,
    FragmentedControl,
    LongControl,
    BadLength,
    /// A continuation of nothing, or a new message within another.
    BadSequence,
    BadClose,
    BadUtf8,
    Binary,
    TooBig,
    TooManyFragments,
    TooSlow,
    ControlFlood,
    /// Something said before authentication that needs it, once too often.
    Unauthenticated,
    /// More bytes before authentication than it may take.
    LongIntroduction,
    Malformed,
    SecondIdentity,
    TokenBad,
    TokenExpired,
    NotAuthenticatedInTime,
    HeartbeatTimeout,
    SlowConsumer,
    /// Its write queue does not move.
    Stalled,
    /// Its write queue is among the largest of a node that has too much in them.
    Shed,
    /// The oldest of too many who have not said who they are.
    TooManyStrangers,
    /// Too many messages a second.
    Rate,
    /// Too many bytes a second.
    ByteRate,
    /// It said that it acknowledges, and does not.
    NeverAcknowledges,
}

impl Violation {
    /// RFC 6455 section 7.4.1, and our own codes from 4400 on.
    pub fn close_code(self) -> u16 {
        match self {
            Violation::ReservedBits
            | Violation::ReservedOpcode
            | Violation::Unmasked
            | Violation::FragmentedControl
            | Violation::LongControl
            | Violation::BadLength
            | Violation::BadSequence
            | Violation::BadClose => 1002,
            Violation::Binary => 1003,
            Violation::BadUtf8 => 1007,
            Violation::TooManyFragments
            | Violation::TooSlow
            | Violation::ControlFlood
            | Violation::Unauthenticated
            | Violation::LongIntroduction
            | Violation::TooManyStrangers
            | Violation::Malformed
            | Violation::SecondIdentity => 1008,
            Violation::TooBig => 1009,
            Violation::TokenBad | Violation::TokenExpired | Violation::NotAuthenticatedInTime => {
                4401
            }
            Violation::HeartbeatTimeout => 4408,
            Violation::SlowConsumer | Violation::Stalled | Violation::Shed => 4413,
            Violation::Rate | Violation::ByteRate => 4429,
            Violation::NeverAcknowledges => 4431,
        }
    }

    /// The reason in the close frame.
    pub fn reason(self) -> &'static str {
        match self {
            Violation::ReservedBits => "reserved bits are set",
            Violation::ReservedOpcode => "reserved opcode",
            Violation::Unmasked => "frame is not masked",
            Violation::FragmentedControl => "fragmented control frame",
            Violation::LongControl => "control frame over 125 bytes",
            Violation::BadLength => "length is not in its shortest form",
            Violation::BadSequence => "fragments out of sequence",
            Violation::BadClose => "invalid close frame",
            Violation::Binary => "binary messages are not accepted",
            Violation::BadUtf8 => "invalid UTF-8",
            Violation::TooManyFragments => "too many fragments",
            Violation::TooSlow => "message took too long",
            Violation::ControlFlood => "too many control frames",
            Violation::Unauthenticated | Violation::LongIntroduction => "authenticate first",
            Violation::Malformed => "malformed messages",
            Violation::SecondIdentity => "connection belongs to another user",
            Violation::TooBig => "message too big",
            Violation::TokenBad => "token refused",
            Violation::TokenExpired => "token expired",
            Violation::NotAuthenticatedInTime => "not authenticated in time",
            Violation::HeartbeatTimeout => "heartbeat timeout",
            Violation::SlowConsumer => "slow consumer",
            Violation::Stalled => "slow consumer: nothing was read for too long",
            Violation::Shed => "slow consumer: the node needs the room",
            Violation::TooManyStrangers => "authenticate first: others need the place",
            Violation::Rate | Violation::ByteRate => "rate limit",
            Violation::NeverAcknowledges => "an entry was not acknowledged in time",
        }
    }

    /// The limit that it is past, where it is one.
    pub fn limit(self) -> Option<Limit> {
        Some(match self {
            Violation::TooBig => Limit::Message,
            Violation::TooManyFragments => Limit::Fragments,
            Violation::TooSlow => Limit::MessageTime,
            Violation::ControlFlood => Limit::ControlFrames,
            Violation::LongIntroduction => Limit::Preauth,
            Violation::TooManyStrangers => Limit::Strangers,
            Violation::Unauthenticated | Violation::Malformed => Limit::Strikes,
            Violation::NotAuthenticatedInTime => Limit::AuthTimeout,
            Violation::HeartbeatTimeout => Limit::Idle,
            Violation::SlowConsumer => Limit::QueueHard,
            Violation::Stalled => Limit::QueueStalled,
            Violation::Shed => Limit::NodeQueue,
            Violation::Rate => Limit::Frames,
            Violation::ByteRate => Limit::Bytes,
            _ => return None,
        })
    }
}
