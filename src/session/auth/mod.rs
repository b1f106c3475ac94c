//! Who a client is: our signed tokens (`hmac`), an identity provider's (`jwt`), or nobody's word
//! at all (`none`).
//!
//! Invariants: time is an argument; an error holds no part of a token or a key.

mod hmac;
mod jwt;

use std::hash::BuildHasher;
use std::sync::LazyLock;

use foldhash::quality::RandomState;

use crate::protocol::identity::Identity;
pub use hmac::TokenKeys;
pub use jwt::{JwtAlgorithm, JwtKeyError, JwtKeys};

/// Bytes of one secret at least.
pub const SECRET_BYTES_MIN: usize = 32;
/// No honest token is longer.
const TOKEN_BYTES_MAX: usize = 4 << 10;

/// How a node learns who a client is.
pub enum Auth {
    /// Tokens signed with a shared secret, in a form of our own.
    Hmac(TokenKeys),
    /// Tokens signed by an identity provider.
    Jwt(JwtKeys),
    /// The identity is whatever the client says. Loopback only.
    None,
}

impl Auth {
    /// What `token` says if it is good at `now_ms` (Unix milliseconds). None is where there are
    /// no tokens.
    pub fn verify(&self, token: &str, now_ms: u64) -> Result<Claims, TokenError> {
        match self {
            Auth::Hmac(keys) => keys.verify(token, now_ms),
            Auth::Jwt(keys) => keys.verify(token, now_ms),
            Auth::None => Err(TokenError::NotTaken),
        }
    }
}

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub identity: Identity,
    /// Unix time in milliseconds.
    pub expires_ms: u64,
    pub perms: Vec<String>,
}

/// Why a token is refused. It never holds any part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is malformed")]
    Malformed,
    #[error("the token is signed with another algorithm than this node takes")]
    Algorithm,
    #[error("the token's signature does not match")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token is from another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    /// Missing, or not what it must be.
    #[error("the token has no good claim {0:?}")]
    Claim(&'static str),
    #[error("this node takes no tokens")]
    NotTaken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error(
        "line {line} of the token secret has {bytes} bytes, at least {SECRET_BYTES_MIN} are needed"
    )]
    TooShort { line: usize, bytes: usize },
    #[error("the token secret is empty")]
    Empty,
}

/// Eight bytes by which a token is told from others of the same user. A seeded hash of so few
/// bytes leads nowhere near the 32 of the signature.
pub fn fingerprint(token: &str) -> u64 {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    SEED.hash_one(token)
}

/// The secrets in `text`: one a line, blank lines are skipped, and there is one at least.
fn secrets(text: &str) -> Result<Vec<&str>, SecretError> {
    let mut secrets = Vec::new();
    for (number, line) in text.lines().map(str::trim).enumerate() {
        if (1..SECRET_BYTES_MIN).contains(&line.len()) {
            return Err(SecretError::TooShort {
                line: number + 1,
                bytes: line.len(),
            });
        }
        if !line.is_empty() {
            secrets.push(line);
        }
    }
    if secrets.is_empty() {
        Err(SecretError::Empty)
    } else {
        Ok(secrets)
    }
}

/// The permissions in a list with commas.
fn listed(perms: &str) -> Vec<String> {
    perms
        .split(',')
        .filter(|perm| !perm.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_no_tokens_believes_none() {
        for token in ["", "a.b", "a.b.c"] {
            assert_eq!(Auth::None.verify(token, 0), Err(TokenError::NotTaken));
        }
    }

    #[test]
    fn short_secrets_are_an_error_that_names_the_line() {
        let long = "s".repeat(SECRET_BYTES_MIN);
        let text = format!("\n {long}\r\n\n{long}2\n");
        assert_eq!(secrets(&text), Ok(vec![&*long, &*format!("{long}2")]));
        assert_eq!(
            secrets(&format!("{long}\nshort")),
            Err(SecretError::TooShort { line: 2, bytes: 5 })
        );
        assert_eq!(secrets("\n \n"), Err(SecretError::Empty));
    }
}
