//! Tokens of an identity provider: bytes that are no token are none, a good token that was
//! touched is good no more, and of claims that the provider did sign only those that the rules
//! allow are believed, as serde_json reads them.
//!
//! Input: a byte that says what the rest is: a token, edits of the good one (three bytes each:
//! what, where, a byte), or claims to be signed.

#![no_main]

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use throng::protocol::identity::is_id;
use throng::session::auth::{Claims, JwtAlgorithm, JwtKeys, TokenError};

const SECRET: &str = "a secret that every fuzzer may know";
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const CLAIMS: &str = r#"{"sub":"rose","name":"Rose","exp":1800000001,"nbf":7,"perms":["a","b/c"]}"#;
const NOW_MS: u64 = 1_800_000_000_000;

static GOOD: LazyLock<String> = LazyLock::new(|| signed(CLAIMS.as_bytes()));
static KEYS: LazyLock<[JwtKeys; 3]> = LazyLock::new(|| {
    [
        (JwtAlgorithm::Hs256, SECRET),
        (
            JwtAlgorithm::Rs256,
            include_str!("../../tests/data/jwt/rsa.pem"),
        ),
        (
            JwtAlgorithm::Es256,
            include_str!("../../tests/data/jwt/p256.pem"),
        ),
    ]
    .map(|(algorithm, keys)| {
        let keys = JwtKeys::parse(algorithm, keys, None, None);
        keys.unwrap_or_else(|error| panic!("{error}"))
    })
});

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => check(&String::from_utf8_lossy(rest)),
        1 => check(&String::from_utf8_lossy(&edited(rest))),
        _ => check_claims(rest),
    }
});

fn verify(token: &str) -> Result<Claims, TokenError> {
    KEYS[0].verify(token, NOW_MS)
}

/// Nothing is a token but the good one.
fn check(token: &str) {
    assert_eq!(verify(token).is_ok(), token == *GOOD, "{token}");
    for keys in &KEYS[1..] {
        assert!(keys.verify(token, NOW_MS).is_err(), "{token}");
    }
}

/// The good token with bytes replaced, put in, taken out, flipped, or its end cut off.
fn edited(edits: &[u8]) -> Vec<u8> {
    let mut token = GOOD.clone().into_bytes();
    for edit in edits.chunks_exact(3) {
        if token.is_empty() {
            break;
        }
        let (at, byte) = (usize::from(edit[1]) % token.len(), edit[2]);
        match edit[0] % 5 {
            0 => token[at] = byte,
            1 => token.insert(at, byte),
            2 => drop(token.remove(at)),
            3 => token[at] ^= 1 << (byte % 8),
            _ => token.truncate(at),
        }
    }
    token
}

fn check_claims(payload: &[u8]) {
    let Ok(claims) = verify(&signed(payload)) else {
        return;
    };
    let Ok(Value::Object(read)) = serde_json::from_slice(payload) else {
        panic!("these are no claims");
    };
    let uid = claims.identity.uid();
    let name = Some(claims.identity.name()).filter(|&name| name != uid);
    assert!(is_id(uid) && read["sub"] == uid);
    assert!(name.map_or("", |name| name).len() <= 64);
    let said = read["name"].as_str();
    assert!(name.is_none_or(|name| said == Some(name)), "another name");
    let exp_ms = read["exp"].as_u64().map(|secs| secs * 1000);
    assert_eq!(exp_ms, Some(claims.expires_ms));
    assert!(claims.expires_ms > NOW_MS);
    let is_past = |nbf: &Value| nbf.as_u64().is_some_and(|nbf| nbf * 1000 <= NOW_MS);
    assert!(read.get("nbf").is_none_or(is_past));
    match read.get("perms") {
        None => assert!(claims.perms.is_empty()),
        Some(Value::String(list)) => assert!(claims.perms.iter().all(|perm| list.contains(perm))),
        Some(list) => assert_eq!(*list, Value::from(claims.perms)),
    }
}

/// A token of the provider's for any payload.
fn signed(payload: &[u8]) -> String {
    let part = |bytes| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", part(HEADER.as_bytes()), part(payload));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    match sign(message.as_bytes(), &key, Algorithm::HS256) {
        Ok(signature) => format!("{message}.{signature}"),
        Err(error) => panic!("{error}"),
    }
}
