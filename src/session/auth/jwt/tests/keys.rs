//! What an operator may give for keys.

use super::*;

const CERTIFICATE: &str = include_str!("../../../../../tests/data/jwt/certificate.pem");
const P256_COMPRESSED: &str = include_str!("../../../../../tests/data/jwt/p256-compressed.pem");
const P384: &str = include_str!("../../../../../tests/data/jwt/p384.pem");
const RSA_1024: &str = include_str!("../../../../../tests/data/jwt/rsa-1024.pem");
const RSA_PKCS1: &str = include_str!("../../../../../tests/data/jwt/rsa-pkcs1.pem");

use JwtAlgorithm::{Es256, Hs256, Rs256};

fn refused(algorithm: JwtAlgorithm, keys: &str) -> JwtKeyError {
    JwtKeys::parse(algorithm, keys, None, None).err().unwrap()
}

#[test]
fn a_public_key_may_stand_among_notes_and_in_either_of_its_forms() {
    let token = Provider::rs256(RSA_PRIVATE).token(&good().to_string());
    let noted = format!("from the provider, in May:\r\n\r\n{RSA}\nand the next:\n{RSA_NEXT}");
    for text in [
        RSA_PKCS1,
        &noted,
        &RSA.replace('\n', "\r\n"),
        RSA.trim_end(),
    ] {
        let keys = JwtKeys::parse(Rs256, text, None, None).unwrap();
        assert!(keys.verify(&token, NOW_MS).is_ok(), "{text}");
    }
}

#[test]
fn secrets_are_one_a_line_and_long() {
    assert_eq!(refused(Hs256, ""), JwtKeyError::Empty);
    assert_eq!(refused(Hs256, " \n\n"), JwtKeyError::Empty);
    assert_eq!(
        refused(Hs256, &format!("{SECRET}\n\n{}", &SECRET[1..])),
        JwtKeyError::TooShort { line: 3, bytes: 31 }
    );
}

#[test]
fn a_public_key_is_never_a_secret() {
    for pem in [RSA, P256, CERTIFICATE] {
        assert_eq!(refused(Hs256, pem), JwtKeyError::PemForHs256);
    }
}

#[test]
fn a_private_key_is_refused_without_a_word_of_it() {
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB";
    let among_others = format!("{RSA}{RSA_NEXT_PRIVATE}");
    for algorithm in [Hs256, Rs256, Es256] {
        for text in [RSA_PRIVATE, P256_PRIVATE, encrypted, &among_others] {
            let error = refused(algorithm, text);
            assert_eq!(error, JwtKeyError::Private);
            let sentence = error.to_string();
            let quoted = text.lines().find(|line| sentence.contains(line));
            assert_eq!(quoted, None);
        }
    }
}

#[test]
fn only_whole_keys_of_the_algorithm_are_taken() {
    let (torn, after) = (&RSA[..RSA.len() / 2], format!("{RSA}{}", &RSA_NEXT[..90]));
    let spoiled = RSA.replacen("MII", "M*I", 1);
    let short = format!("{}\n-----END PUBLIC KEY-----", &P256[..79]);
    for (what, error, algorithm, text) in [
        ("nothing", JwtKeyError::Empty, Rs256, "\n"),
        ("a secret", JwtKeyError::NoPem, Rs256, SECRET),
        (
            "a key without its lines",
            JwtKeyError::NoPem,
            Es256,
            "MFkwEwYHKoZIzj0CAQ",
        ),
        ("half a key", JwtKeyError::Damaged, Rs256, torn),
        ("half a second key", JwtKeyError::Damaged, Rs256, &after),
        ("what is not base64", JwtKeyError::Damaged, Rs256, &spoiled),
        (
            "a certificate",
            JwtKeyError::Certificate(1),
            Es256,
            CERTIFICATE,
        ),
        ("P-256 for RS256", JwtKeyError::NotRsa(1), Rs256, P256),
        ("RSA for ES256", JwtKeyError::NotP256(1), Es256, RSA),
        ("another curve", JwtKeyError::NotP256(1), Es256, P384),
        (
            "a compressed point",
            JwtKeyError::NotP256(1),
            Es256,
            P256_COMPRESSED,
        ),
        ("a short point", JwtKeyError::NotP256(1), Es256, &short),
        (
            "one bad of two",
            JwtKeyError::NotRsa(2),
            Rs256,
            &format!("{RSA}{P256}"),
        ),
        (
            "1024 bits",
            JwtKeyError::RsaBits {
                number: 2,
                bits: 1024,
            },
            Rs256,
            &format!("{RSA}{RSA_1024}"),
        ),
    ] {
        assert_eq!(refused(algorithm, text), error, "{what}");
    }
}
