//! What tokens of an identity provider must be, and what they must not be.

mod forgeries;
mod keys;

use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

use super::*;
use crate::session::auth::{Auth, TokenKeys};

const SECRET: &str = "what we share with the provider!";
const NEXT_SECRET: &str = "what we will share with them soon";
/// Now, in seconds: what is good until here is good no more.
const NOW: u64 = 1_800_000_000;
const NOW_MS: u64 = NOW * 1000;

const RSA: &str = include_str!("../../../../tests/data/jwt/rsa.pem");
const RSA_NEXT: &str = include_str!("../../../../tests/data/jwt/rsa-next.pem");
const P256: &str = include_str!("../../../../tests/data/jwt/p256.pem");
const P256_NEXT: &str = include_str!("../../../../tests/data/jwt/p256-next.pem");
const RSA_PRIVATE: &str = include_str!("../../../../tests/data/jwt/rsa-private.pem");
const RSA_NEXT_PRIVATE: &str = include_str!("../../../../tests/data/jwt/rsa-next-private.pem");
const P256_PRIVATE: &str = include_str!("../../../../tests/data/jwt/p256-private.pem");
const P256_NEXT_PRIVATE: &str = include_str!("../../../../tests/data/jwt/p256-next-private.pem");

/// An identity provider: it signs what it is told to, good or bad.
struct Provider {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Provider {
    fn hs256(secret: &str) -> Provider {
        Provider {
            algorithm: Algorithm::HS256,
            key: EncodingKey::from_secret(secret.as_bytes()),
        }
    }

    fn rs256(pem: &str) -> Provider {
        Provider {
            algorithm: Algorithm::RS256,
            key: EncodingKey::from_rsa_der(pem::parse(pem).unwrap().contents()),
        }
    }

    fn es256(pem: &str) -> Provider {
        Provider {
            algorithm: Algorithm::ES256,
            key: EncodingKey::from_ec_der(pem::parse(pem).unwrap().contents()),
        }
    }

    /// A token of two parts as they are.
    fn seal(&self, header: &str, payload: &str) -> String {
        let signature = sign(
            format!("{header}.{payload}").as_bytes(),
            &self.key,
            self.algorithm,
        );
        format!("{header}.{payload}.{}", signature.unwrap())
    }

    fn sign(&self, header: &str, payload: &str) -> String {
        self.seal(&b64(header), &b64(payload))
    }

    /// A token with the header that it should have.
    fn token(&self, payload: &str) -> String {
        let header = json!({"alg": format!("{:?}", self.algorithm), "typ": "JWT"});
        self.sign(&header.to_string(), payload)
    }
}

fn b64(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// The three algorithms: what verifies, who signs, and who will sign.
fn all() -> [(JwtKeys, Provider, Provider); 3] {
    let keys = |algorithm, now: &str, next: &str| {
        JwtKeys::parse(algorithm, &format!("{now}\n{next}"), None, None).unwrap()
    };
    [
        (
            keys(JwtAlgorithm::Hs256, SECRET, NEXT_SECRET),
            Provider::hs256(SECRET),
            Provider::hs256(NEXT_SECRET),
        ),
        (
            keys(JwtAlgorithm::Rs256, RSA, RSA_NEXT),
            Provider::rs256(RSA_PRIVATE),
            Provider::rs256(RSA_NEXT_PRIVATE),
        ),
        (
            keys(JwtAlgorithm::Es256, P256, P256_NEXT),
            Provider::es256(P256_PRIVATE),
            Provider::es256(P256_NEXT_PRIVATE),
        ),
    ]
}

fn hs256() -> (JwtKeys, Provider) {
    let keys = JwtKeys::parse(JwtAlgorithm::Hs256, SECRET, None, None).unwrap();
    (keys, Provider::hs256(SECRET))
}

/// Claims that are good until a second after now.
fn good() -> Value {
    json!({"sub": "rose", "name": "Rosé", "exp": NOW + 1, "perms": ["a", "b/c"]})
}

/// Good claims, but for one; `null` is a value too.
fn but(name: &str, value: Value) -> String {
    let mut claims = good();
    claims[name] = value;
    claims.to_string()
}

fn without(name: &str) -> String {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    claims.to_string()
}

#[test]
fn each_algorithm_vouches_for_a_client_until_the_token_expires() {
    for (keys, provider, next) in all() {
        let token = provider.token(&good().to_string());
        let claims = Claims {
            identity: Identity::new("rose", "Rosé").unwrap(),
            expires_ms: (NOW + 1) * 1000,
            perms: vec!["a".to_owned(), "b/c".to_owned()],
        };
        assert_eq!(keys.verify(&token, NOW_MS + 999), Ok(claims.clone()));
        assert_eq!(
            keys.verify(&token, NOW_MS + 1000),
            Err(TokenError::Expired),
            "no leeway"
        );
        let rotated = next.token(&good().to_string());
        assert_eq!(keys.verify(&rotated, NOW_MS), Ok(claims));
    }
}

#[test]
fn a_key_that_is_gone_vouches_no_more() {
    let keys = [
        JwtKeys::parse(JwtAlgorithm::Hs256, NEXT_SECRET, None, None).unwrap(),
        JwtKeys::parse(JwtAlgorithm::Rs256, RSA_NEXT, None, None).unwrap(),
        JwtKeys::parse(JwtAlgorithm::Es256, P256_NEXT, None, None).unwrap(),
    ];
    for (next, (_, provider, _)) in keys.iter().zip(all()) {
        let token = provider.token(&good().to_string());
        assert_eq!(next.verify(&token, NOW_MS), Err(TokenError::Signature));
    }
}

#[test]
fn a_header_may_say_little_or_much_of_which_nothing_is_followed() {
    let (keys, provider) = hs256();
    for header in [
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"jwt"}"#,
        r#" { "typ" : "Jwt" , "alg" : "HS256" } "#,
        r#"{"alg":"HS256","kid":"../../etc/passwd"}"#,
        r#"{"alg":"HS256","kid":7,"x5u":[],"jku":{}}"#,
        r#"{"alg":"HS256","jku":"http://127.0.0.1:1/keys","x5u":"file:///etc/passwd"}"#,
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#,
    ] {
        let token = provider.sign(header, &good().to_string());
        assert!(keys.verify(&token, NOW_MS).is_ok(), "{header}");
    }
}

#[test]
fn claims_may_take_any_form_that_is_promised() {
    let (keys, provider) = hs256();
    let verify = |payload: &str| keys.verify(&provider.token(payload), NOW_MS);
    assert_eq!(
        verify(&but("name", json!(""))).unwrap().identity.name(),
        "rose"
    );
    assert!(verify(&but("name", json!("n".repeat(64)))).is_ok());
    assert!(verify(&but("sub", json!("s".repeat(64)))).is_ok());
    assert!(verify(&but("nbf", json!(NOW))).is_ok());
    let begins = provider.token(&but("nbf", json!(NOW)));
    assert_eq!(
        keys.verify(&begins, NOW_MS - 1),
        Err(TokenError::NotYet),
        "no leeway"
    );
    assert!(verify(&but("iat", json!("any time"))).is_ok());
    assert!(verify(&but("aud", json!(["whoever"]))).is_ok());
    for (perms, expected) in [
        (json!([]), vec![]),
        (json!(""), vec![]),
        (json!("a"), vec!["a"]),
        (json!("a,b/c,,d"), vec!["a", "b/c", "d"]),
    ] {
        assert_eq!(verify(&but("perms", perms)).unwrap().perms, expected);
    }
    assert_eq!(verify(&without("perms")).unwrap().perms, [""; 0]);
    let last = u64::MAX / 1000;
    assert_eq!(
        verify(&but("exp", json!(last))).unwrap().expires_ms,
        last * 1000
    );
}

#[test]
fn issuer_and_audience_are_asked_for_where_they_are_configured() {
    let keys =
        |issuer, audience| JwtKeys::parse(JwtAlgorithm::Hs256, SECRET, issuer, audience).unwrap();
    let provider = Provider::hs256(SECRET);
    let verify = |keys: &JwtKeys, payload: &str| keys.verify(&provider.token(payload), NOW_MS);
    let issued = keys(Some("https://id.test"), None);
    assert!(verify(&issued, &but("iss", json!("https://id.test"))).is_ok());
    for bad in [
        json!("https://id.test/"),
        json!(["https://id.test"]),
        json!(null),
    ] {
        assert_eq!(verify(&issued, &but("iss", bad)), Err(TokenError::Issuer));
    }
    let meant = keys(None, Some("throng"));
    for good in [json!("throng"), json!(["other", "throng"])] {
        assert!(verify(&meant, &but("aud", good)).is_ok());
    }
    for bad in [
        json!("Throng"),
        json!("throng,other"),
        json!([]),
        json!(["other"]),
        json!([["throng"]]),
        json!(["throng", 7]),
        json!({"throng": true}),
        json!(null),
    ] {
        assert_eq!(verify(&meant, &but("aud", bad)), Err(TokenError::Audience));
    }
    assert_eq!(
        verify(&issued, &good().to_string()),
        Err(TokenError::Issuer)
    );
    assert_eq!(
        verify(&meant, &good().to_string()),
        Err(TokenError::Audience)
    );
}

#[test]
fn no_flipped_bit_is_accepted() {
    for (keys, provider, _) in all() {
        let token = provider.token(&good().to_string());
        for at in 0..token.len() {
            for bit in 0..7 {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let forged = String::from_utf8(bytes).unwrap();
                assert!(keys.verify(&forged, NOW_MS).is_err(), "{forged}");
            }
        }
    }
}

#[test]
fn no_part_of_a_token_is_a_token() {
    for (keys, provider, _) in all() {
        let token = provider.token(&good().to_string());
        for at in 1..token.len() {
            assert!(keys.verify(&token[at..], NOW_MS).is_err());
            assert!(keys.verify(&token[..at], NOW_MS).is_err());
        }
    }
}

#[test]
fn a_token_is_4_kib_long_and_not_a_byte_longer() {
    let (keys, provider) = hs256();
    let padded = |length: usize| {
        let tokens = (0..4096).map(|pad| provider.token(&but("pad", json!("p".repeat(pad)))));
        tokens.into_iter().find(|token| token.len() >= length)
    };
    let longest = padded(TOKEN_BYTES_MAX).unwrap();
    assert_eq!(longest.len(), TOKEN_BYTES_MAX);
    assert!(keys.verify(&longest, NOW_MS).is_ok());
    let longer = padded(TOKEN_BYTES_MAX + 1).unwrap();
    assert_eq!(keys.verify(&longer, NOW_MS), Err(TokenError::Malformed));
}

#[test]
fn a_token_of_one_mode_means_nothing_in_the_other() {
    // The worst case: both share their secret.
    let ours = TokenKeys::parse(SECRET).unwrap();
    let our_token = ours.sign(&Identity::new("rose", "").unwrap(), u64::MAX, &[]);
    let (keys, provider) = hs256();
    let their_token = provider.token(&good().to_string());
    let (hmac, jwt) = (Auth::Hmac(ours), Auth::Jwt(keys));
    assert!(hmac.verify(&our_token, NOW_MS).is_ok());
    assert!(jwt.verify(&their_token, NOW_MS).is_ok());
    assert_eq!(jwt.verify(&our_token, NOW_MS), Err(TokenError::Malformed));
    assert_eq!(
        hmac.verify(&their_token, NOW_MS),
        Err(TokenError::Malformed)
    );
}
