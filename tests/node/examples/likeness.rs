//! Whether an answer is what an example shows: the same keys, types and values, but for what differs
//! from one time to the next.

use std::collections::BTreeMap;

use serde_json::Value;

/// Values that depend on the machine and the day.
const DIFFERENT: [&str; 7] = [
    "epoch",
    "headSeq",
    "maxConnections",
    "room",
    "seq",
    "uptimeSecs",
    "version",
];
/// Numbers from here on are times in Unix milliseconds.
const TIMES: u64 = 1_500_000_000_000;

pub fn assert_like(shown: &Value, real: &Value) {
    if let Err(at) = compare(shown, real) {
        panic!("not as it is written, at {at}:\nwritten {shown}\nreal    {real}");
    }
}

/// The error is the place that differs.
fn compare(shown: &Value, real: &Value) -> Result<(), String> {
    let within = |key: &str, inner: Result<(), String>| inner.map_err(|at| format!("{key}.{at}"));
    let is_like = match (shown, real) {
        (Value::Object(shown), Value::Object(real)) => {
            if let Some(key) = real.keys().find(|key| !shown.contains_key(*key)) {
                return Err(format!("{key} (too much)"));
            }
            for (key, value) in shown {
                let real = real.get(key).ok_or(format!("{key} (missing)"))?;
                if !DIFFERENT.contains(&key.as_str()) {
                    within(key, compare(value, real))?;
                } else if kind(value) != kind(real) {
                    return Err(key.clone());
                }
            }
            true
        }
        (Value::Array(shown), Value::Array(real)) => {
            for (n, (shown, real)) in shown.iter().zip(real).enumerate() {
                within(&n.to_string(), compare(shown, real))?;
            }
            shown.len() == real.len()
        }
        (Value::String(shown), Value::String(real)) => is_text_like(shown, real),
        (Value::Number(shown), Value::Number(real)) => {
            let is_time = |value: Option<u64>| value.is_some_and(|value| value >= TIMES);
            shown == real || (is_time(shown.as_u64()) && is_time(real.as_u64()))
        }
        _ => shown == real,
    };
    is_like.then_some(()).ok_or(String::new())
}

/// Message ids and epochs of the examples, and what they are called here.
#[derive(Default)]
pub struct Names(BTreeMap<String, String>);

impl Names {
    /// Of two messages that are like each other.
    pub fn learn(&mut self, shown: &Value, real: &Value) {
        match (shown, real) {
            (Value::Object(shown), Value::Object(real)) => {
                for (key, shown) in shown {
                    if let (Some(shown), Some(real), "epoch") =
                        (shown.as_str(), real[key].as_str(), key.as_str())
                    {
                        self.0.insert(shown.to_owned(), real.to_owned());
                    }
                    self.learn(shown, &real[key]);
                }
            }
            (Value::Array(shown), Value::Array(real)) => {
                for (shown, real) in shown.iter().zip(real) {
                    self.learn(shown, real);
                }
            }
            (Value::String(shown), Value::String(real)) if is_message_id(shown) => {
                self.0.insert(shown.clone(), real.clone());
            }
            _ => {}
        }
    }

    /// A text of the examples as it has to be here.
    pub fn real(&self, text: &str) -> String {
        let replace = |text: String, (shown, real): (&String, &String)| text.replace(shown, real);
        self.0.iter().fold(text.to_owned(), replace)
    }
}

fn kind(value: &Value) -> std::mem::Discriminant<Value> {
    std::mem::discriminant(value)
}

/// `…` stands for something; ids, sessions of one user and dates are like each other.
pub fn is_text_like(shown: &str, real: &str) -> bool {
    if let Some((start, end)) = shown.split_once('…') {
        let rest = real.strip_prefix(start).and_then(|r| r.strip_suffix(end));
        return rest.is_some_and(|rest| !rest.is_empty());
    }
    let both = |is: fn(&str) -> bool| is(shown) && is(real);
    shown == real
        || both(is_message_id)
        || both(is_date)
        || (stem(shown).is_some() && stem(shown) == stem(real))
}

fn is_message_id(text: &str) -> bool {
    let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    text.len() == 32 && text.bytes().all(is_digit)
}

/// `EEE MMM dd HH:mm:ss zzz yyyy` in UTC.
fn is_date(text: &str) -> bool {
    let form: String = text
        .chars()
        .map(|c| match c {
            '0'..='9' => '0',
            'A'..='Z' => 'A',
            'a'..='z' => 'a',
            other => other,
        })
        .collect();
    form == "Aaa Aaa 00 00:00:00 AAA 0000" && text[20..].starts_with("UTC")
}

/// Node and user of a session's id.
pub fn stem(text: &str) -> Option<&str> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let is_moment = |text: &str| text.len() == 14 && is_number(text);
    let (before, last) = text.rsplit_once('_')?;
    if is_moment(last) {
        return Some(before);
    }
    let (before, moment) = before.rsplit_once('_')?;
    (is_number(last) && is_moment(moment)).then_some(before)
}

#[test]
fn what_differs_is_told_from_what_is_alike() {
    use serde_json::json;
    let is_like = |shown: Value, real: Value| compare(&shown, &real).is_ok();
    assert!(is_like(json!({"a": [1, "x"]}), json!({"a": [1, "x"]})));
    for (shown, real) in [
        (json!({"a": 1}), json!({"a": 2})),
        (json!({"a": 1}), json!({"a": 1, "b": 1})),
        (json!({"a": 1, "b": 1}), json!({"a": 1})),
        (json!([1]), json!([])),
        (json!(null), json!({})),
        (json!("a"), json!("b")),
        (json!("…"), json!("")),
        (json!({"room": 1}), json!({"room": "1"})),
        (
            json!("h:1_bob_20240102102737"),
            json!("h:1_eve_20240102102737"),
        ),
        (
            json!("Tue Jan 02 10:28:12 UTC 2024"),
            json!("Tue Jan 2 10:28:12 UTC 2024"),
        ),
        (json!(1_704_191_292_912u64), json!(1_704_191_292)),
    ] {
        assert!(!is_like(shown.clone(), real.clone()), "{shown} {real}");
    }
    for (shown, real) in [
        (json!({"room": 1}), json!({"room": 2})),
        (
            json!("h:1_bob_20240102102737"),
            json!("h:1_bob_20260102102737_1"),
        ),
        (
            json!("Tue Jan 02 10:28:12 UTC 2024"),
            json!("Wed Feb 03 11:29:13 UTC 2026"),
        ),
        (json!(1_704_191_292_912u64), json!(1_804_191_292_912u64)),
        (json!("a…"), json!("abc")),
    ] {
        assert!(is_like(shown.clone(), real.clone()), "{shown} {real}");
    }
}
