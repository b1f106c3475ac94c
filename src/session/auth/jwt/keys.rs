//! The keys that an identity provider's tokens are verified with, read from an operator's text.
//!
//! Invariants: a key that is kept is of the chosen algorithm and strong enough for it; no error
//! holds any part of a key.

use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use pem::Pem;

use super::JwtAlgorithm;
use crate::session::auth::{SECRET_BYTES_MIN, SecretError, secrets};

/// What signatures are verified with: longer keys are refused, if only because they are slow.
const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;

/// The DER of a P-256 public key up to its coordinates (RFC 5480): the algorithm, the curve, and
/// a bit string with an uncompressed point.
const P256_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// Both coordinates of a point on P-256.
const P256_POINT_BYTES: usize = 64;

/// Why keys are refused, and what to do. Keys are counted from 1, as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtKeyError {
    #[error("there is no key: give what the identity provider's tokens are verified with")]
    Empty,
    #[error(
        "the secret in line {line} has {bytes} bytes, at least {SECRET_BYTES_MIN} are needed: let \
         the identity provider sign with a longer one"
    )]
    TooShort { line: usize, bytes: usize },
    #[error(
        "HS256 takes secrets, and a key in PEM may be known to anybody: choose RS256 or ES256 for \
         a public key"
    )]
    PemForHs256,
    #[error(
        "there is a private key, which only the identity provider may have: give the public one \
         (`openssl pkey -pubout`), and have the pair replaced if others may have read it"
    )]
    Private,
    #[error(
        "there is no PEM: give a public key, from -----BEGIN PUBLIC KEY----- to -----END PUBLIC \
         KEY-----"
    )]
    NoPem,
    #[error("the PEM is damaged: copy it again, with its first and last line")]
    Damaged,
    #[error("key {0} is a certificate: give the public key in it (`openssl x509 -pubkey -noout`)")]
    Certificate(usize),
    #[error(
        "key {0} is not an RSA public key, which RS256 asks for: give another, or choose the \
         algorithm that the identity provider signs with"
    )]
    NotRsa(usize),
    #[error(
        "key {number} is an RSA key of {bits} bits: have the identity provider sign with one of \
         {RSA_BITS_MIN} to {RSA_BITS_MAX}"
    )]
    RsaBits { number: usize, bits: usize },
    #[error(
        "key {0} is not an uncompressed public key on P-256, which ES256 asks for: give another, \
         or choose the algorithm that the identity provider signs with"
    )]
    NotP256(usize),
}

/// All keys in `text`, one at least.
pub fn parse(algorithm: JwtAlgorithm, text: &str) -> Result<Vec<DecodingKey>, JwtKeyError> {
    let blocks = text.matches("-----BEGIN ").count();
    match algorithm {
        _ if text.trim().is_empty() => Err(JwtKeyError::Empty),
        _ if blocks > 0 && text.contains("PRIVATE KEY") => Err(JwtKeyError::Private),
        // Each line of it would be long enough for a secret, and everybody could sign.
        JwtAlgorithm::Hs256 if blocks > 0 => Err(JwtKeyError::PemForHs256),
        JwtAlgorithm::Hs256 => hs256(text),
        _ if blocks == 0 => Err(JwtKeyError::NoPem),
        JwtAlgorithm::Rs256 => each(text, blocks, rsa),
        JwtAlgorithm::Es256 => each(text, blocks, p256),
    }
}

fn hs256(text: &str) -> Result<Vec<DecodingKey>, JwtKeyError> {
    let secrets = secrets(text).map_err(|error| match error {
        SecretError::TooShort { line, bytes } => JwtKeyError::TooShort { line, bytes },
        SecretError::Empty => JwtKeyError::Empty,
    })?;
    let key = |secret: &str| DecodingKey::from_secret(secret.as_bytes());
    Ok(secrets.into_iter().map(key).collect())
}

/// Every block of PEM must be a key: one that was passed over would be missed much later.
fn each(
    text: &str,
    blocks: usize,
    key: fn(usize, &Pem) -> Result<DecodingKey, JwtKeyError>,
) -> Result<Vec<DecodingKey>, JwtKeyError> {
    let found = pem::parse_many(text).map_err(|_| JwtKeyError::Damaged)?;
    if found.len() != blocks {
        return Err(JwtKeyError::Damaged);
    }
    let numbered = (1..).zip(&found);
    numbered
        .map(|(number, pem)| match pem.tag() {
            "CERTIFICATE" => Err(JwtKeyError::Certificate(number)),
            _ => key(number, pem),
        })
        .collect()
}

fn rsa(number: usize, pem: &Pem) -> Result<DecodingKey, JwtKeyError> {
    let components = DEFAULT_PROVIDER
        .key_utils
        .rsa_pub_components_from_public_key;
    let (modulus, exponent) =
        components(pem.contents()).map_err(|_| JwtKeyError::NotRsa(number))?;
    let zeros = modulus.first().map_or(0, |first| first.leading_zeros());
    let bits = modulus.len() * 8 - zeros as usize;
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        return Err(JwtKeyError::RsaBits { number, bits });
    }
    Ok(DecodingKey::from_rsa_raw_components(&modulus, &exponent))
}

fn p256(number: usize, pem: &Pem) -> Result<DecodingKey, JwtKeyError> {
    let der = pem.contents();
    match der.strip_prefix(&P256_PREFIX) {
        // The point begins with the form that it is in, the prefix's last byte.
        Some(point) if point.len() == P256_POINT_BYTES => {
            Ok(DecodingKey::from_ec_der(&der[P256_PREFIX.len() - 1..]))
        }
        _ => Err(JwtKeyError::NotP256(number)),
    }
}
