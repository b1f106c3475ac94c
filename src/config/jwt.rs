//! The checks of tokens that an identity provider makes: the algorithm, its keys, what they say.

use super::checks::Prover;
use super::layers::Layer;
use super::{AuthMode, Config, JwtConfig};
use crate::session::auth::{JwtAlgorithm, JwtKeys};

const KEYS: [&str; 5] = [
    "jwt_algorithm",
    "jwt_key",
    "jwt_key_file",
    "jwt_issuer",
    "jwt_audience",
];

impl Prover {
    pub fn jwt(&mut self, config: &mut Config) {
        if config.auth != AuthMode::Jwt {
            return self.warn_of_jwt_keys();
        }
        let algorithm = self.jwt_algorithm();
        let issuer = self.layers.file.jwt_issuer.take();
        let audience = self.layers.file.jwt_audience.take();
        for (key, text) in [("jwt_issuer", &issuer), ("jwt_audience", &audience)] {
            if text.as_deref() == Some("") {
                self.problem(
                    key,
                    "is empty, and no token says that: leave it out for any",
                );
            }
        }
        let (text, path) = {
            let file = &mut self.layers.file;
            (file.jwt_key.take(), file.jwt_key_file.take())
        };
        let was_set = text.is_some() || path.is_some();
        let Some((name, keys)) = self.secret("jwt_key", text, "jwt_key_file", path) else {
            if !was_set {
                let sentence = "= \"jwt\" without keys could tell no good token from a forged \
                     one: set jwt_key_file, or with HS256 jwt_key (THRONG_JWT_KEY)";
                self.problem("auth", sentence);
            }
            return;
        };
        let Some(algorithm) = algorithm else { return };
        if name == "jwt_key" && algorithm != JwtAlgorithm::Hs256 {
            let sentence = "holds secrets, and this algorithm has public keys: put them into a \
                 file, and name it in jwt_key_file";
            return self.problem(name, sentence);
        }
        let proven = JwtKeys::parse(algorithm, &keys, issuer.as_deref(), audience.as_deref());
        if let Err(error) = proven {
            self.problem(name, format!("cannot verify: {error}"));
        }
        config.jwt = Some(JwtConfig {
            algorithm,
            keys,
            issuer,
            audience,
        });
    }

    /// The one that tokens must have: it is never the token's to choose.
    fn jwt_algorithm(&mut self) -> Option<JwtAlgorithm> {
        let Some(name) = self.layers.file.jwt_algorithm.take() else {
            let sentence = "= \"jwt\" needs jwt_algorithm, or every token could choose how it is \
                 checked: set it to what the identity provider signs with, HS256, RS256 or ES256";
            self.problem("auth", sentence);
            return None;
        };
        let choices = [
            ("HS256", JwtAlgorithm::Hs256),
            ("RS256", JwtAlgorithm::Rs256),
            ("ES256", JwtAlgorithm::Es256),
        ];
        let mut chosen = None;
        let choices = choices.map(|(name, algorithm)| (name, Some(algorithm)));
        self.choice("jwt_algorithm", &name, &choices, &mut chosen);
        chosen
    }

    /// Whoever sets one of them has a reason, and another mode does not look at them.
    fn warn_of_jwt_keys(&mut self) {
        let set: Vec<String> = KEYS
            .iter()
            .filter(|key| self.layers.origin(key) != Layer::Default)
            .map(|key| self.layers.name(key))
            .collect();
        if !set.is_empty() {
            let names = set.join(", ");
            self.layers.warnings.push(format!(
                "{names}: without auth = \"jwt\" this does nothing; set that, or leave it out"
            ));
        }
    }
}
