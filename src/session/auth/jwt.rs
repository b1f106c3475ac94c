//! Tokens of an identity provider: JSON Web Tokens (RFC 7519), signed with one algorithm that the
//! operator chose.
//!
//! Invariants: no key is tried for a token that names another algorithm, no claim is read before
//! the signature is good, and what a header says of keys (`kid`, `jwk`, `jku`, `x5u`) is not
//! even looked at.

mod keys;
mod object;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::{Claims, TOKEN_BYTES_MAX, TokenError, listed};
use crate::protocol::identity::{BadIdentity, Identity};
pub use keys::JwtKeyError;
use object::Object;

/// What an identity provider signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256, by a shared secret.
    Hs256,
    /// RSA (PKCS #1 v1.5) with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl JwtAlgorithm {
    /// As headers name it: no other spelling means it.
    fn name(self) -> &'static str {
        match self {
            JwtAlgorithm::Hs256 => "HS256",
            JwtAlgorithm::Rs256 => "RS256",
            JwtAlgorithm::Es256 => "ES256",
        }
    }

    fn id(self) -> Algorithm {
        match self {
            JwtAlgorithm::Hs256 => Algorithm::HS256,
            JwtAlgorithm::Rs256 => Algorithm::RS256,
            JwtAlgorithm::Es256 => Algorithm::ES256,
        }
    }
}

/// What tokens must be signed with, and whose and for whom they must be.
pub struct JwtKeys {
    algorithm: JwtAlgorithm,
    keys: Vec<DecodingKey>,
    issuer: Option<String>,
    audience: Option<String>,
}

impl JwtKeys {
    /// `keys`: for HS256 secrets, one a line; else public keys in PEM, one after the other. A
    /// token may be signed with any of them, so that they can be changed without a gap.
    /// `issuer` and `audience`: what `iss` and `aud` must say, if anything.
    pub fn parse(
        algorithm: JwtAlgorithm,
        keys: &str,
        issuer: Option<&str>,
        audience: Option<&str>,
    ) -> Result<JwtKeys, JwtKeyError> {
        Ok(JwtKeys {
            algorithm,
            keys: keys::parse(algorithm, keys)?,
            issuer: issuer.map(str::to_owned),
            audience: audience.map(str::to_owned),
        })
    }

    /// The claims of `token` if one of the keys signed it and it is valid at `now_ms`.
    pub fn verify(&self, token: &str, now_ms: u64) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        // A dot too many is found in the payload, where base64url has none.
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        self.check_header(&Object::decode(header)?)?;
        if !self.is_signed(signed, &decode(signature)?) {
            return Err(TokenError::Signature);
        }
        self.claims(&Object::decode(payload)?, now_ms)
    }

    fn check_header(&self, header: &Object) -> Result<(), TokenError> {
        if header.get("alg").and_then(Value::as_str) != Some(self.algorithm.name()) {
            return Err(TokenError::Algorithm);
        }
        let is_jwt = |typ: &Value| typ.as_str().is_some_and(|t| t.eq_ignore_ascii_case("jwt"));
        // `crit` lists what a reader must understand; we understand none of it.
        if !header.get("typ").is_none_or(is_jwt) || header.get("crit").is_some() {
            return Err(TokenError::Malformed);
        }
        Ok(())
    }

    fn is_signed(&self, signed: &str, signature: &Vec<u8>) -> bool {
        self.keys.iter().any(|key| {
            (DEFAULT_PROVIDER.verifier_factory)(&self.algorithm.id(), key)
                .is_ok_and(|verifier| verifier.verify(signed.as_bytes(), signature).is_ok())
        })
    }

    fn claims(&self, payload: &Object, now_ms: u64) -> Result<Claims, TokenError> {
        let text = |name| {
            let text = payload.get(name).and_then(Value::as_str);
            text.ok_or(TokenError::Claim(name))
        };
        let expires_ms = millis(payload, "exp")?.ok_or(TokenError::Claim("exp"))?;
        if expires_ms <= now_ms {
            return Err(TokenError::Expired);
        }
        if millis(payload, "nbf")?.is_some_and(|from_ms| from_ms > now_ms) {
            return Err(TokenError::NotYet);
        }
        self.check_parties(payload)?;
        let identity = Identity::new(text("sub")?, text("name")?);
        Ok(Claims {
            identity: identity.map_err(|error| match error {
                BadIdentity::Id => TokenError::Claim("sub"),
                BadIdentity::Name => TokenError::Claim("name"),
            })?,
            expires_ms,
            perms: perms(payload.get("perms"))?,
        })
    }

    fn check_parties(&self, payload: &Object) -> Result<(), TokenError> {
        let iss = payload.get("iss").and_then(Value::as_str);
        let is_issuer = |issuer: &String| iss == Some(issuer);
        let is_meant = |audience: &String| names(payload.get("aud"), audience);
        if !self.issuer.as_ref().is_none_or(is_issuer) {
            Err(TokenError::Issuer)
        } else if !self.audience.as_ref().is_none_or(is_meant) {
            Err(TokenError::Audience)
        } else {
            Ok(())
        }
    }
}

/// Base64url as JWTs have it: no padding, no stray bits, so that a token has one spelling.
fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Malformed)
}

/// A claim that is a Unix time, a whole number of seconds; none where it is missing.
fn millis(payload: &Object, name: &'static str) -> Result<Option<u64>, TokenError> {
    let millis = |secs: &Value| secs.as_u64()?.checked_mul(1000);
    let claim = payload.get(name);
    claim
        .map(|secs| millis(secs).ok_or(TokenError::Claim(name)))
        .transpose()
}

/// Whether `aud`, a string or an array of strings, names `audience`.
fn names(aud: Option<&Value>, audience: &str) -> bool {
    match aud {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(many)) => {
            many.iter().all(Value::is_string) && many.iter().any(|one| one == audience)
        }
        _ => false,
    }
}

/// `perms`: an array of strings, or one string with commas.
fn perms(claim: Option<&Value>) -> Result<Vec<String>, TokenError> {
    let refused = TokenError::Claim("perms");
    match claim {
        None => Ok(Vec::new()),
        Some(Value::String(list)) => Ok(listed(list)),
        Some(Value::Array(perms)) => perms
            .iter()
            .map(|perm| perm.as_str().map(str::to_owned).ok_or(refused))
            .collect(),
        Some(_) => Err(refused),
    }
}

#[cfg(test)]
mod tests;
