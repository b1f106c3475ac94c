//! The JSON objects of a token, header and payload.
//!
//! Invariant: none names a member twice. Of two values for one name each reader takes the one
//! it likes; the issuer and we must not differ.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::decode;
use crate::session::auth::TokenError;

pub struct Object(Map<String, Value>);

impl Object {
    /// From the part of a token that carries it.
    pub fn decode(part: &str) -> Result<Object, TokenError> {
        serde_json::from_slice(&decode(part)?).map_err(|_| TokenError::Malformed)
    }

    /// A member, `null` included.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Object, A::Error> {
        let mut object = Map::new();
        while let Some((name, value)) = members.next_entry()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member is named twice"));
            }
        }
        Ok(Object(object))
    }
}
