//! The payload of a close frame (RFC 6455 sections 5.5.1 and 7.4).

use tungstenite::protocol::frame::coding::CloseCode;

use super::frame::{self, CONTROL_BYTES_MAX, Opcode};
use super::violation::Violation;

/// Bytes of a reason at most: a control payload less the code.
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// The code of a peer's close frame, none where it gave none.
///
/// Errors: one byte, a code that may not be on the wire, a reason that is no UTF-8.
pub fn parse(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::BadClose),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !CloseCode::from(code).is_allowed() {
                return Err(Violation::BadClose);
            }
            std::str::from_utf8(reason).map_err(|_| Violation::BadUtf8)?;
            Ok(Some(code))
        }
    }
}

/// Appends a close frame; a reason that does not fit is cut between characters.
pub fn append(code: Option<u16>, reason: &str, out: &mut Vec<u8>) {
    frame::append(Opcode::Close, out, |out| {
        if let Some(code) = code {
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(
                &reason.as_bytes()[..reason.floor_char_boundary(REASON_BYTES_MAX)],
            );
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_that_may_be_on_the_wire_are_accepted() {
        let of = |code: u16| parse(&code.to_be_bytes());
        for code in [
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
        ] {
            assert_eq!(of(code), Ok(Some(code)));
        }
        for code in [
            0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ] {
            assert_eq!(of(code), Err(Violation::BadClose), "{code}");
        }
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[3]), Err(Violation::BadClose));
        assert_eq!(parse(&[3, 232, 0xff]), Err(Violation::BadUtf8));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut out = Vec::new();
        append(Some(1008), &"é".repeat(100), &mut out);
        assert_eq!(out.len(), 2 + 2 + 122);
        assert_eq!(parse(&out[2..]), Ok(Some(1008)));
    }
}
