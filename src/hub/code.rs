//! User codes: an opaque name for one session, that only nodes which share a secret can make.
//!
//! b64url of token fingerprint (8 bytes), channel id (the connection's mark, 8 bytes), user id,
//! and a MAC of these (32 bytes). It is always longer than any user id (64 characters).

use base64::Engine;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::protocol::b64::B64URL;

const MAC_BYTES: usize = 32;
const BYTES_MAX: usize = 8 + 8 + 64 + MAC_BYTES;

pub struct UserCodes(Hmac<Sha256>);

impl UserCodes {
    pub fn new(key: &[u8; 32]) -> UserCodes {
        UserCodes(Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    /// Appends the code of the session `mark` of `uid` to `out`.
    pub fn write(&self, fingerprint: u64, mark: u64, uid: &str, out: &mut String) {
        let mut bytes = [0; BYTES_MAX];
        let signed = 16 + uid.len().min(64);
        bytes[..8].copy_from_slice(&fingerprint.to_be_bytes());
        bytes[8..16].copy_from_slice(&mark.to_be_bytes());
        bytes[16..signed].copy_from_slice(&uid.as_bytes()[..signed - 16]);
        let mac = self
            .0
            .clone()
            .chain_update(&bytes[..signed])
            .finalize()
            .into_bytes();
        bytes[signed..signed + MAC_BYTES].copy_from_slice(&mac);
        B64URL.encode_string(&bytes[..signed + MAC_BYTES], out);
    }

    /// The mark and the user that `code` names, if one of these nodes made it.
    pub fn read(&self, code: &str) -> Option<(u64, String)> {
        let mut bytes = [0; BYTES_MAX + 2];
        let length = B64URL.decode_slice(code, &mut bytes).ok()?;
        let (signed, mac) = bytes[..length].split_at(length.checked_sub(MAC_BYTES)?);
        self.0.clone().chain_update(signed).verify_slice(mac).ok()?;
        let mark = u64::from_be_bytes(signed.get(8..16)?.try_into().ok()?);
        let uid = std::str::from_utf8(signed.get(16..)?).ok()?;
        Some((mark, uid.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_names_its_session_and_cannot_be_made_up() {
        let codes = UserCodes::new(&[7; 32]);
        let mut code = String::new();
        codes.write(99, 1 << 60, "b", &mut code);
        assert!(code.len() > 64, "longer than any user id");
        assert_eq!(codes.read(&code), Some((1 << 60, "b".to_owned())));
        assert_eq!(UserCodes::new(&[8; 32]).read(&code), None);
        assert_eq!(codes.read("bob"), None);
        assert_eq!(codes.read(&"A".repeat(200)), None);
    }
}
