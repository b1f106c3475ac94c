//! A client's text message, held against serde_json: what we take, it takes, and it finds the
//! same `msg`, receivers and names in it. The parser's memory is reused from one to the next.

#![no_main]

use std::cell::RefCell;
use std::fmt;

use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use throng::protocol::assembler::PADDING;
use throng::protocol::inbound::{self, Ask, Scratch};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new(32));
}

fuzz_target!(|data: &[u8]| {
    // The reader of frames lets nothing else through.
    if std::str::from_utf8(data).is_err() {
        return;
    }
    let first = SCRATCH.with_borrow_mut(|scratch| check(data, b'"', scratch));
    let again = SCRATCH.with_borrow_mut(|scratch| check(data, b'7', scratch));
    let fresh = check(data, 0, &mut Scratch::new(32));
    assert_eq!(first, again, "what lies behind a message matters");
    assert_eq!(first, fresh, "what was parsed before matters");
});

/// The outcome in words.
fn check(data: &[u8], behind: u8, scratch: &mut Scratch) -> String {
    let mut buffer = data.to_vec();
    buffer.resize(data.len() + PADDING, behind);
    let parsed = inbound::parse(scratch, &mut buffer, data.len());
    let Ok(inbound) = &parsed else {
        return format!("{parsed:?}");
    };
    let Last(raw_msg) = serde_json::from_slice(data).expect("serde_json refuses what we take");
    let fields = match serde_json::from_slice::<Value>(data) {
        Ok(fields) => fields,
        // We pass on numbers that a double cannot hold.
        Err(error) if error.to_string().contains("number out of range") => {
            return format!("{parsed:?}");
        }
        Err(error) => panic!("serde_json refuses what we take: {error}"),
    };
    assert_eq!(inbound.request_id, fields["requestId"].as_str());
    if let Ask::Send { to, msg } = &inbound.ask {
        assert_eq!(Some(*msg), raw_msg.map(RawValue::get));
        assert_eq!(to.to_vec(), receivers(&fields["to"]));
        assert_eq!(fields["msgid"], Value::Null);
    }
    if !inbound.path.is_empty() {
        assert_eq!(Some(inbound.path), fields["path"].as_str());
    }
    format!("{parsed:?}")
}

fn receivers(to: &Value) -> Vec<&str> {
    match to {
        Value::String(list) => list
            .split(',')
            .map(str::trim)
            .filter(|id| !id.is_empty())
            .collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        other => panic!("no receivers in {other}"),
    }
}

/// The text of the last `msg` of an object.
struct Last<'a>(Option<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Last<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Last<'a>, D::Error> {
        deserializer.deserialize_map(Finder).map(Last)
    }
}

struct Finder;

impl<'de> Visitor<'de> for Finder {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut last = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "msg" {
                last = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(last)
    }
}
