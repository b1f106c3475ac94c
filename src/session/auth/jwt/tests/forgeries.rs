//! Tokens that must be refused, each by what is wrong with it and what we say of it. Whatever
//! is not the point of a line is as good as a provider makes it.

use std::collections::BTreeSet;

use TokenError::{Algorithm as Alg, Claim, Expired, Malformed, NotYet, Signature};

use super::*;

type Forgery = (String, String, TokenError);

/// Who is asked to believe a forgery.
fn believers() -> [JwtKeys; 3] {
    all().map(|(keys, ..)| keys)
}

fn check(forgeries: Vec<Forgery>, keys: &JwtKeys) -> usize {
    let names: BTreeSet<_> = forgeries.iter().map(|(what, ..)| what).collect();
    assert_eq!(names.len(), forgeries.len(), "a forgery is there twice");
    for (what, token, error) in &forgeries {
        assert_eq!(keys.verify(token, NOW_MS), Err(*error), "{what}: {token}");
        let sentence = error.to_string();
        let parts = token.split('.').filter(|part| part.len() > 8);
        assert!(!parts.into_iter().any(|part| sentence.contains(part)));
    }
    forgeries.len()
}

fn forgery(what: &str, token: String, error: TokenError) -> Forgery {
    (what.to_owned(), token, error)
}

#[test]
fn an_algorithm_that_was_not_chosen_is_refused_whoever_signs() {
    let [hs256, rs256, es256] = believers();
    let payload = good().to_string();
    let mut count = 0;
    for (keys, own, signer) in [
        (&hs256, "HS256", Provider::hs256(SECRET)),
        (&rs256, "RS256", Provider::rs256(RSA_PRIVATE)),
        (&es256, "ES256", Provider::es256(P256_PRIVATE)),
    ] {
        let mut forgeries = Vec::new();
        for alg in [
            "none", "None", "NONE", "nOnE", " none", "", "HS256", "HS384", "HS512", "hs256",
            "HS256 ", "RS256", "RS384", "RS512", "PS256", "rs256", "ES256", "ES384", "ES256K",
            "es256", "EdDSA", "HS256\0",
        ] {
            if alg == own {
                continue;
            }
            let header = json!({"alg": alg, "typ": "JWT"}).to_string();
            let signed = signer.sign(&header, &payload);
            let bare = format!("{}.{}.", b64(&header), b64(&payload));
            forgeries.push((format!("{alg:?}, signed"), signed, Alg));
            forgeries.push((format!("{alg:?}, no signature"), bare, Alg));
        }
        count += check(forgeries, keys);
    }
    assert!(count >= 120);
}

#[test]
fn a_public_key_is_no_secret_to_sign_with() {
    let payload = good().to_string();
    let [_, rs256, es256] = believers();
    for (keys, pem, own) in [(&rs256, RSA, "RS256"), (&es256, P256, "ES256")] {
        let der = pem::parse(pem).unwrap();
        let mut secrets = vec![pem.as_bytes(), pem.trim_end().as_bytes(), der.contents()];
        secrets.extend(pem.lines().map(str::as_bytes));
        for secret in secrets {
            let forger = Provider {
                algorithm: Algorithm::HS256,
                key: EncodingKey::from_secret(secret),
            };
            assert_eq!(keys.verify(&forger.token(&payload), NOW_MS), Err(Alg));
            let header = json!({"alg": own, "typ": "JWT"}).to_string();
            let token = forger.sign(&header, &payload);
            assert_eq!(keys.verify(&token, NOW_MS), Err(Signature));
        }
    }
}

#[test]
fn a_header_that_is_not_a_jwts_is_refused() {
    let (keys, provider) = hs256();
    let payload = good().to_string();
    let cases = [
        ("no algorithm", r#"{"typ":"JWT"}"#, Alg),
        ("an algorithm null", r#"{"alg":null}"#, Alg),
        ("an algorithm in a list", r#"{"alg":["HS256"]}"#, Alg),
        ("an algorithm as a number", r#"{"alg":256}"#, Alg),
        ("its key in capitals", r#"{"ALG":"HS256"}"#, Alg),
        (
            "two algorithms",
            r#"{"alg":"none","alg":"HS256"}"#,
            Malformed,
        ),
        (
            "two, one escaped",
            r#"{"alg":"HS256","\u0061lg":"none"}"#,
            Malformed,
        ),
        ("another type", r#"{"alg":"HS256","typ":"JWE"}"#, Malformed),
        ("an empty type", r#"{"alg":"HS256","typ":""}"#, Malformed),
        ("a type null", r#"{"alg":"HS256","typ":null}"#, Malformed),
        (
            "a type in a list",
            r#"{"alg":"HS256","typ":["JWT"]}"#,
            Malformed,
        ),
        ("crit", r#"{"alg":"HS256","crit":["exp"]}"#, Malformed),
        (
            "crit of b64",
            r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
            Malformed,
        ),
        ("an empty crit", r#"{"alg":"HS256","crit":[]}"#, Malformed),
        ("a crit null", r#"{"alg":"HS256","crit":null}"#, Malformed),
        ("a list", r#"[{"alg":"HS256"}]"#, Malformed),
        ("a string", r#""HS256""#, Malformed),
        ("null", "null", Malformed),
        ("nothing", "", Malformed),
        ("half an object", r#"{"alg":"HS256""#, Malformed),
        ("two objects", r#"{"alg":"HS256"}{}"#, Malformed),
        ("a comment", r#"{"alg":"HS256"}//"#, Malformed),
        (
            "a byte order mark",
            "\u{feff}{\"alg\":\"HS256\"}",
            Malformed,
        ),
    ];
    let forge = |(what, header, error)| forgery(what, provider.sign(header, &payload), error);
    check(cases.map(forge).into(), &keys);
}

#[test]
fn text_that_is_not_exactly_a_token_is_refused() {
    let (keys, provider) = hs256();
    let token = provider.token(&good().to_string());
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        panic!("{token}");
    };
    let join =
        |header: &str, payload: &str, signature: &str| format!("{header}.{payload}.{signature}");
    let other = provider.token(&but("sub", json!("bob")));
    let (other_signed, other_signature) = other.rsplit_once('.').unwrap();
    let stranger = Provider::hs256("a secret of somebody else, a long one");
    let standard = |part: &str| part.replace('-', "+").replace('_', "/");
    // Characters that both alphabets have would prove nothing.
    let odd = provider.token(&but("name", json!("???>>>")));
    let (_, odd_payload) = odd.rsplit_once('.').unwrap().0.split_once('.').unwrap();
    for part in odd.split('.').skip(1) {
        assert_ne!(standard(part), part);
    }
    // The last character of a part carries bits that nothing reads.
    let stray = {
        let last = signature.chars().last().unwrap();
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let next = alphabet
            .chars()
            .nth(alphabet.find(last).unwrap() + 1)
            .unwrap();
        format!("{}{next}", &token[..token.len() - 1])
    };
    let huge = provider.token(&but("name", json!("n".repeat(4096))));
    let zeros = URL_SAFE_NO_PAD.encode([0; 32]);
    let longer = URL_SAFE_NO_PAD.encode(decode(signature).unwrap().repeat(2));
    let resealed = |header: &str, payload: &str| provider.seal(header, payload);
    check(
        vec![
            forgery("nothing", String::new(), Malformed),
            forgery("dots alone", "..".to_owned(), Malformed),
            forgery("one part", header.to_owned(), Malformed),
            forgery("two parts", format!("{header}.{payload}"), Malformed),
            forgery("a dot before", format!(".{token}"), Malformed),
            forgery("a dot behind", format!("{token}."), Signature),
            forgery("four parts", format!("{token}.{signature}"), Signature),
            forgery("a token twice", format!("{token}.{token}"), Signature),
            forgery("two dots", token.replacen('.', "..", 1), Signature),
            forgery(
                "four parts, signed",
                resealed(header, &format!("{payload}.")),
                Malformed,
            ),
            forgery("no header", format!(".{payload}.{signature}"), Malformed),
            forgery("no payload", format!("{header}..{signature}"), Signature),
            forgery("no payload, signed", resealed(header, ""), Malformed),
            forgery("no signature", format!("{header}.{payload}."), Signature),
            forgery(
                "no signature but padding",
                join(header, payload, "="),
                Malformed,
            ),
            forgery(
                "a signature of zeros",
                join(header, payload, &zeros),
                Signature,
            ),
            forgery(
                "a signature and more",
                join(header, payload, &longer),
                Signature,
            ),
            forgery(
                "half a signature",
                join(header, payload, &signature[..20]),
                Signature,
            ),
            forgery("parts exchanged", join(payload, header, signature), Alg),
            forgery(
                "another's signature",
                join(header, payload, other_signature),
                Signature,
            ),
            forgery(
                "another's claims",
                format!("{other_signed}.{signature}"),
                Signature,
            ),
            forgery(
                "a wrong key",
                stranger.token(&good().to_string()),
                Signature,
            ),
            forgery("stray bits in the signature", stray, Malformed),
            forgery("a padded signature", format!("{token}="), Malformed),
            forgery(
                "a padded header",
                resealed(&format!("{header}="), payload),
                Malformed,
            ),
            forgery(
                "a padded payload",
                resealed(header, &format!("{payload}==")),
                Malformed,
            ),
            forgery(
                "a signature in the standard alphabet",
                standard(&odd),
                Malformed,
            ),
            forgery(
                "a payload in the standard alphabet",
                resealed(header, &standard(odd_payload)),
                Malformed,
            ),
            forgery("a space before", format!(" {token}"), Malformed),
            forgery("a space behind", format!("{token} "), Malformed),
            forgery("a line's end", format!("{token}\n"), Malformed),
            forgery(
                "a space in the payload",
                resealed(header, &format!(" {payload}")),
                Malformed,
            ),
            forgery(
                "a folded payload",
                resealed(header, &format!("{payload}\r\n")),
                Malformed,
            ),
            forgery("a zero byte", format!("{token}\0"), Malformed),
            forgery("a scheme", format!("Bearer {token}"), Malformed),
            forgery("no base64url", join(header, payload, "$$$$"), Malformed),
            forgery(
                "letters of elsewhere",
                join(header, payload, "éééé"),
                Malformed,
            ),
            forgery("escaped dots", token.replace('.', "%2e"), Malformed),
            forgery("JSON itself", good().to_string(), Malformed),
            forgery(
                "JWS as JSON",
                json!({"payload": payload}).to_string(),
                Malformed,
            ),
            forgery(
                "five parts, as encrypted",
                format!("{token}.a.b"),
                Malformed,
            ),
            forgery("too long", huge, Malformed),
            forgery("much too long", "a.".repeat(1 << 20), Malformed),
        ],
        &keys,
    );
}

#[test]
fn claims_that_break_a_rule_are_refused_whoever_signs() {
    let (keys, provider) = hs256();
    let mut forgeries = Vec::new();
    let mut add = |what: String, payload: String, error| {
        forgeries.push((what, provider.token(&payload), error));
    };
    for name in ["sub", "name", "exp"] {
        add(format!("no {name}"), without(name), Claim(name));
    }
    for (name, bad) in [
        ("sub", json!([null, 7, true, ["rose"], {"id": "rose"}])),
        ("name", json!([null, 7, false, ["Rosé"], {"first": "Rosé"}])),
        (
            "exp",
            json!([null, true, [NOW + 1], {"at": NOW + 1}, (NOW + 1).to_string(), ""]),
        ),
        (
            "exp",
            json!([
                -1,
                i64::MIN,
                u64::MAX,
                u64::MAX / 1000 + 1,
                1.0e10,
                1.5,
                -0.0
            ]),
        ),
        (
            "nbf",
            json!([
                null,
                true,
                [NOW],
                NOW.to_string(),
                "",
                -1,
                0.5,
                1e300,
                u64::MAX
            ]),
        ),
        (
            "perms",
            json!([null, 7, true, {"a": true}, [["a"]], ["a", 7], ["a", null], [{}]]),
        ),
    ] {
        for bad in bad.as_array().unwrap() {
            add(format!("{name} {bad}"), but(name, bad.clone()), Claim(name));
        }
    }
    for sub in [
        "", " ", "a b", "rose ", "ro:se", "ro/se", "ro,se", "ro\0se", "ro\nse", "ro\"se", "rosé",
        "роза", "*", "#", "a+b", "a%62",
    ] {
        add(format!("sub {sub:?}"), but("sub", json!(sub)), Claim("sub"));
    }
    let long = "n".repeat(65);
    add(
        "a long sub".to_owned(),
        but("sub", json!(long)),
        Claim("sub"),
    );
    add(
        "a long name".to_owned(),
        but("name", json!(long)),
        Claim("name"),
    );
    add(
        "a name of 33 letters, 66 bytes".to_owned(),
        but("name", json!("é".repeat(33))),
        Claim("name"),
    );
    for past in [0, 1, NOW - 1, NOW] {
        add(format!("exp {past}"), but("exp", json!(past)), Expired);
    }
    for later in [NOW + 1, NOW_MS, u64::MAX / 1000] {
        add(format!("nbf {later}"), but("nbf", json!(later)), NotYet);
    }
    assert!(forgeries.len() >= 60);
    check(forgeries, &keys);
}

#[test]
fn a_payload_that_readers_could_differ_on_is_refused() {
    let (keys, provider) = hs256();
    let plain = r#""sub":"rose","name":"","exp":1800000001"#;
    let verify = |payload: &str| keys.verify(&provider.token(payload), NOW_MS);
    assert!(verify(&format!("{{{plain}}}")).is_ok());
    let deep = format!("{{{plain},\"x\":{}1{}}}", "[".repeat(500), "]".repeat(500));
    let cases = [
        ("sub twice", format!(r#"{{{plain},"sub":"root"}}"#)),
        ("sub twice, alike", format!(r#"{{{plain},"sub":"rose"}}"#)),
        (
            "sub twice, one escaped",
            format!(r#"{{{plain},"s\u0075b":"root"}}"#),
        ),
        ("exp twice", format!(r#"{{"exp":1,{plain}}}"#)),
        (
            "perms twice",
            format!(r#"{{{plain},"perms":[],"perms":["a"]}}"#),
        ),
        (
            "what nobody reads, twice",
            format!(r#"{{{plain},"x":1,"x":2}}"#),
        ),
        ("a list", format!(r#"[{{{plain}}}]"#)),
        ("a list of values", r#"["rose","",1800000001]"#.to_owned()),
        ("a string", r#""rose""#.to_owned()),
        ("null", "null".to_owned()),
        ("a number", "1800000001".to_owned()),
        ("two objects", format!("{{{plain}}}{{{plain}}}")),
        ("half an object", format!("{{{plain}")),
        ("a comma too many", format!("{{{plain},}}")),
        ("a comment", format!("{{{plain}/**/}}")),
        ("single quotes", format!("{{{plain}}}").replace('"', "'")),
        ("a bare key", format!("{{{plain},iat:1}}")),
        ("not a number", format!(r#"{{{plain},"nbf":NaN}}"#)),
        (
            "an exp in hexadecimal",
            plain.replace("1800000001", "0x7fffffff"),
        ),
        (
            "an exp with a plus",
            format!("{{{}}}", plain.replace(":18", ":+18")),
        ),
        (
            "an exp with a zero before it",
            format!("{{{}}}", plain.replace(":18", ":018")),
        ),
        (
            "an exp beyond all numbers",
            format!("{{{}}}", plain.replace(":18", ":1e999")),
        ),
        ("a lone surrogate", format!(r#"{{{plain},"x":"\ud800"}}"#)),
        (
            "a raw control character",
            format!("{{{plain},\"x\":\"\u{1}\"}}"),
        ),
        ("a zero byte behind", format!("{{{plain}}}\0")),
        ("too deep", deep),
        ("another token", provider.token(&good().to_string())),
    ];
    let forge =
        |(what, payload): (&str, String)| forgery(what, provider.token(&payload), Malformed);
    check(cases.map(forge).into(), &keys);
    let bytes = [b"{\"sub\":\"\xff\",".as_slice(), plain.as_bytes(), b"}"].concat();
    let header = b64(r#"{"alg":"HS256"}"#);
    let token = provider.seal(&header, &URL_SAFE_NO_PAD.encode(bytes));
    assert_eq!(keys.verify(&token, NOW_MS), Err(Malformed), "not UTF-8");
    for exp in [
        "1800000001.0",
        "18e8",
        "1800000001e0",
        "18446744073709551616",
    ] {
        let payload = format!("{{{}}}", plain.replace("1800000001", exp));
        assert_eq!(verify(&payload), Err(Claim("exp")), "{exp}");
    }
}
