//! Our own tokens, signed with a secret that backends may share.
//!
//! A token is `b64url(uid:uname:expiryMillis[:perm,perm…])`, a dot, and
//! `b64url(HMAC-SHA256 of the part before the dot)`. The name is percent-encoded.

use base64::Engine;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;

use super::{Claims, SecretError, TOKEN_BYTES_MAX, TokenError, listed, secrets};
use crate::protocol::b64::B64URL;
use crate::protocol::identity::Identity;

/// The secrets of a node, with the key schedules done: the first signs, all verify.
pub struct TokenKeys {
    keys: Vec<Hmac<Sha256>>,
}

impl TokenKeys {
    /// `secret`: one secret a line, the newest first; blank lines are skipped.
    pub fn parse(secret: &str) -> Result<TokenKeys, SecretError> {
        let key = |secret: &str| {
            let key = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
            key.expect("HMAC takes a key of any length")
        };
        let keys = secrets(secret)?.into_iter().map(key).collect();
        Ok(TokenKeys { keys })
    }

    /// A token for `identity` until `expires_ms` (Unix milliseconds).
    pub fn sign(&self, identity: &Identity, expires_ms: u64, perms: &[String]) -> String {
        let name = if identity.name() == identity.uid() {
            ""
        } else {
            identity.name()
        };
        let mut text = format!(
            "{}:{}:{expires_ms}",
            identity.uid(),
            utf8_percent_encode(name, NON_ALPHANUMERIC)
        );
        if !perms.is_empty() {
            text.push(':');
            text.push_str(&perms.join(","));
        }
        let mut token = B64URL.encode(text);
        let mac = self.keys[0].clone().chain_update(&token).finalize();
        token.push('.');
        B64URL.encode_string(mac.into_bytes(), &mut token);
        token
    }

    /// The claims of `token` if one of the secrets signed it and it has not expired at `now_ms`.
    pub fn verify(&self, token: &str, now_ms: u64) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, mac) = token.split_once('.').ok_or(TokenError::Malformed)?;
        let text = B64URL.decode(signed).map_err(|_| TokenError::Malformed)?;
        let text = text.as_slice();
        let mut given = [0; 34];
        let length = B64URL
            .decode_slice(mac, &mut given)
            .map_err(|_| TokenError::Malformed)?;
        let given = &given[..length];
        // Other issuers may sign the text rather than its encoding. Neither can be taken for
        // the other: the text holds colons, which base64url does not.
        let by = |key: &Hmac<Sha256>, of: &[u8]| {
            key.clone().chain_update(of).verify_slice(given).is_ok()
        };
        if !self
            .keys
            .iter()
            .any(|key| by(key, signed.as_bytes()) || by(key, text))
        {
            return Err(TokenError::Signature);
        }
        let claims = parse(text).ok_or(TokenError::Malformed)?;
        if claims.expires_ms <= now_ms {
            Err(TokenError::Expired)
        } else {
            Ok(claims)
        }
    }

    /// A key for another purpose, derived from the signing secret.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        self.keys[0]
            .clone()
            .chain_update(purpose)
            .finalize()
            .into_bytes()
            .into()
    }
}

fn parse(text: &[u8]) -> Option<Claims> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parts = text.split(':');
    let (uid, name, expiry) = (parts.next()?, parts.next()?, parts.next()?);
    let perms = parts.next();
    if parts.next().is_some() || expiry.is_empty() || !expiry.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let name = percent_decode_str(name).decode_utf8().ok()?;
    Some(Claims {
        identity: Identity::new(uid, &name).ok()?,
        expires_ms: expiry.parse().ok()?,
        perms: perms.map(listed).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "an old secret that is long enough, yes";
    const NEW: &str = "a new secret that is long enough, too!";

    fn rose() -> Identity {
        Identity::new("1879878-NKCNO", "rosé :%").unwrap()
    }

    #[test]
    fn a_token_says_what_was_signed_until_it_expires() {
        let keys = TokenKeys::parse(NEW).unwrap();
        let perms = vec!["message/send".to_owned(), "order/new".to_owned()];
        let token = keys.sign(&rose(), 1000, &perms);
        assert_eq!(
            keys.verify(&token, 999).unwrap(),
            Claims {
                identity: rose(),
                expires_ms: 1000,
                perms
            }
        );
        assert_eq!(keys.verify(&token, 1000), Err(TokenError::Expired));
    }

    #[test]
    fn the_first_secret_signs_and_all_verify() {
        let old = TokenKeys::parse(OLD).unwrap();
        let both = TokenKeys::parse(&format!("{NEW}\n\n  {OLD}\r\n")).unwrap();
        assert!(both.verify(&old.sign(&rose(), 9, &[]), 1).is_ok());
        assert_eq!(
            old.verify(&both.sign(&rose(), 9, &[]), 1),
            Err(TokenError::Signature)
        );
    }

    #[test]
    fn a_signature_over_the_text_itself_is_good_too() {
        let keys = TokenKeys::parse(NEW).unwrap();
        let text = "bob:Bob:4000";
        let mac = keys.keys[0]
            .clone()
            .chain_update(text)
            .finalize()
            .into_bytes();
        let token = format!("{}.{}", B64URL.encode(text), B64URL.encode(mac));
        assert_eq!(keys.verify(&token, 1).unwrap().identity.name(), "Bob");
    }

    #[test]
    fn no_flipped_bit_is_accepted() {
        let keys = TokenKeys::parse(NEW).unwrap();
        let token = keys.sign(&rose(), u64::MAX, &[]);
        for at in 0..token.len() {
            for bit in 0..7 {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let forged = String::from_utf8(bytes).unwrap();
                assert!(keys.verify(&forged, 1).is_err(), "{forged}");
            }
        }
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let keys = TokenKeys::parse(NEW).unwrap();
        let long = "a".repeat(5000);
        for bad in [
            "",
            ".",
            "a.b",
            "....",
            "bm90LWEtdG9rZW4",
            long.as_str(),
            "é.é",
        ] {
            assert!(keys.verify(bad, 1).is_err(), "{bad}");
        }
        let signed = |text: &str| {
            let mac = keys.keys[0]
                .clone()
                .chain_update(text)
                .finalize()
                .into_bytes();
            format!("{}.{}", B64URL.encode(text), B64URL.encode(mac))
        };
        for bad in [
            "a:b",
            "a:b:",
            "a:b:-1",
            "a:b:+9",
            "a:b:9e9",
            ":b:9999",
            "a b:c:9999",
            "a:b:99999999999999999999999",
            "a:b:9999:p:q",
            "a:%ff:9999",
        ] {
            assert_eq!(
                keys.verify(&signed(bad), 1),
                Err(TokenError::Malformed),
                "{bad}"
            );
        }
    }
}
