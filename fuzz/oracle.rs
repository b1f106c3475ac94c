//! What more than one target holds the node against: JSON as serde_json reads it, and frames as
//! a strict client does.
//!
//! Values are compared as text: numbers are passed on that no double holds.

// Each target uses a part of it.
#![allow(dead_code)]

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of an object in their order, repeated ones too.
pub struct Fields<'a>(pub Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// None where `text` is anything but one object.
    pub fn of(text: &'a str) -> Option<Fields<'a>> {
        serde_json::from_str(text).ok()
    }

    /// The text of the last value of `key`.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        let mut values = self.0.iter().rev();
        let (_, value) = values.find(|(name, _)| name == key)?;
        Some(value.get())
    }
}

/// The text of the value at the end of `path`, of repeated keys the last; none if it is null.
pub fn field<'a>(object: &'a str, path: &[&str]) -> Option<&'a str> {
    let step = |object: Option<&'a str>, key: &&str| Fields::of(object?)?.get(key);
    path.iter()
        .fold(Some(object), step)
        .filter(|value| *value != "null")
}

/// The string at the end of `path`.
pub fn string(object: &str, path: &[&str]) -> Option<String> {
    serde_json::from_str(field(object, path)?).ok()
}

/// True for one JSON value.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The text of the object in one whole text frame.
pub fn object_in(frame: &[u8]) -> &str {
    let text = text_in(frame);
    check_object(text);
    text
}

/// One object as the node writes them: no key twice.
pub fn check_object(text: &str) {
    let Some(Fields(fields)) = Fields::of(text) else {
        panic!("not an object: {text}");
    };
    let keys: HashSet<&String> = fields.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), fields.len(), "a key stands there twice: {text}");
}

fn text_in(frame: &[u8]) -> &str {
    let (length, payload) = match *frame {
        [0x81, 126, a, b, ref payload @ ..] => (u16::from_be_bytes([a, b]).into(), payload),
        [0x81, 127, ref rest @ ..] => match rest.split_first_chunk() {
            Some((length, payload)) => (u64::from_be_bytes(*length), payload),
            None => panic!("a frame without its length"),
        },
        [0x81, length @ ..=125, ref payload @ ..] => (length.into(), payload),
        _ => panic!("not a text frame: {frame:?}"),
    };
    assert_eq!(payload.len() as u64, length, "more or less than one frame");
    match std::str::from_utf8(payload) {
        Ok(text) => text,
        Err(error) => panic!("{error}: {payload:?}"),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields<'a>, D::Error> {
        deserializer.deserialize_map(Collector).map(Fields)
    }
}

struct Collector;

impl<'de> Visitor<'de> for Collector {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(fields)
    }
}
