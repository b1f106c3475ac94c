//! A parsed JSON text, as far as messages need it: a view of simd-json's tape, and the text of a
//! value that is passed through as it came.

use simd_json::{Node, StaticNode};

/// A JSON value as far as it matters here.
#[derive(Clone, Copy)]
pub enum Value<'t, 'a> {
    Text(&'a str),
    Int(i64),
    Bool(bool),
    Object(Object<'t, 'a>),
    Array(Array<'t, 'a>),
    Null,
    /// A number that is not whole, or too large for one.
    Number,
}

/// Up to here every whole number is a double of its own, so that one is no other's rounding.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl Value<'_, '_> {
    /// A number, or a string that holds one.
    pub fn as_int(self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(n),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
    }
}

/// Takes the value at the start of `nodes`, and what follows it.
fn split_value<'t, 'a>(nodes: &'t [Node<'a>]) -> Option<(Value<'t, 'a>, &'t [Node<'a>])> {
    let (first, rest) = nodes.split_first()?;
    Some(match first {
        Node::String(text) => (Value::Text(text), rest),
        Node::Object { count, .. } => {
            let (inner, rest) = rest.split_at_checked(*count)?;
            (Value::Object(Object(inner)), rest)
        }
        Node::Array { count, .. } => {
            let (inner, rest) = rest.split_at_checked(*count)?;
            (Value::Array(Array(inner)), rest)
        }
        Node::Static(StaticNode::I64(n)) => (Value::Int(*n), rest),
        Node::Static(StaticNode::U64(n)) => {
            (i64::try_from(*n).map_or(Value::Number, Value::Int), rest)
        }
        Node::Static(StaticNode::Bool(is_true)) => (Value::Bool(*is_true), rest),
        Node::Static(StaticNode::Null) => (Value::Null, rest),
        Node::Static(StaticNode::F64(n)) => (whole(*n).map_or(Value::Number, Value::Int), rest),
    })
}

/// `11.0` is 11.
pub(super) fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < EXACT_MAX).then_some(number as i64)
}

/// Whether `text` (valid JSON) is taken from a client as well: its parser asks for numbers that a
/// double holds, and for surrogates in pairs.
pub fn is_taken_from_clients(text: &str) -> bool {
    simd_json::to_tape(&mut text.as_bytes().to_vec()).is_ok()
}

#[derive(Clone, Copy)]
pub struct Object<'t, 'a>(&'t [Node<'a>]);

impl<'t, 'a> Object<'t, 'a> {
    /// The object that a whole text is; none if it is anything else.
    pub fn root(nodes: &'t [Node<'a>]) -> Option<Object<'t, 'a>> {
        match split_value(nodes)?.0 {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }
}

impl<'t, 'a> Iterator for Object<'t, 'a> {
    type Item = (&'a str, Value<'t, 'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (first, rest) = self.0.split_first()?;
        let Node::String(key) = first else {
            return None;
        };
        let (value, rest) = split_value(rest)?;
        self.0 = rest;
        Some((key, value))
    }
}

#[derive(Clone, Copy)]
pub struct Array<'t, 'a>(&'t [Node<'a>]);

impl<'t, 'a> Iterator for Array<'t, 'a> {
    type Item = Value<'t, 'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (value, rest) = split_value(self.0)?;
        self.0 = rest;
        Some(value)
    }
}

/// The text of the value whose key's first character stands at `key` in the valid JSON `raw`.
pub fn value_after(raw: &[u8], key: usize) -> Option<&str> {
    let after_key = string_end(raw, key)?;
    let colon = after_key + raw[after_key..].iter().position(|&b| b == b':')? + 1;
    let start = colon + raw[colon..].iter().position(|b| !b.is_ascii_whitespace())?;
    let end = value_end(raw, start)?;
    std::str::from_utf8(&raw[start..end]).ok()
}

/// Behind the closing quote of the string whose first character is at `at`.
fn string_end(raw: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', raw.get(at..)?)?;
        if raw[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

fn value_end(raw: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0;
    let mut at = start;
    loop {
        match *raw.get(at)? {
            b'"' => {
                at = string_end(raw, at + 1)?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            b',' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return Some(at),
            _ => {}
        }
        at += 1;
    }
}
