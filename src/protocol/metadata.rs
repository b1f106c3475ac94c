//! What a client says of its connection in the upgrade's query: pairs of text that selectors
//! name, and the name of the device.
//!
//! Owns: the rules for both. Nothing in here is proven: a client may say what it likes.
//! Invariants: keys are sorted, differ, and are not empty. A connection that says nothing has
//! no allocation.

use std::borrow::Cow;

use serde::ser::{Serialize, Serializer};

/// Bytes of a device's name at most.
pub const DEVICE_BYTES_MAX: usize = 64;

/// The device of connections that name none: saying it is saying nothing.
pub const ANONYMOUS: &str = "default";

/// True for the name of a device: 1 to 64 of `[A-Za-z0-9_.-]`.
pub fn is_device(name: &str) -> bool {
    (1..=DEVICE_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// The pairs of one connection. Fixed when it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(Box<[(Box<str>, Box<str>)]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuchMetadata {
    #[error("more pairs of metadata than a connection may have")]
    Pairs,
    #[error("more bytes of metadata than a connection may have")]
    Bytes,
}

impl Metadata {
    /// From decoded parameters, without those that mean something to the server itself. Of a
    /// repeated key the first counts; what is passed over (that, and an empty key) is not counted.
    ///
    /// Errors: more than `pairs_max` pairs, or `bytes_max` bytes of keys and values together.
    pub fn collect<'a>(
        pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
        pairs_max: usize,
        bytes_max: usize,
    ) -> Result<Metadata, TooMuchMetadata> {
        let mut kept: Vec<(Box<str>, Box<str>)> = Vec::new();
        let mut bytes = 0;
        for (key, value) in pairs {
            let Err(at) = place(&kept, &key) else {
                continue;
            };
            if key.is_empty() {
                continue;
            }
            bytes += key.len() + value.len();
            if bytes > bytes_max {
                return Err(TooMuchMetadata::Bytes);
            }
            if kept.len() == pairs_max {
                return Err(TooMuchMetadata::Pairs);
            }
            kept.insert(at, (key.into(), value.into()));
        }
        Ok(Metadata(kept.into()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values, sorted by key.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// True if every pair of `selector` is here. An empty selector asks for nothing.
    pub fn matches<S: AsRef<str>>(&self, selector: &[(S, S)]) -> bool {
        selector.iter().all(|(key, value)| {
            place(&self.0, key.as_ref()).is_ok_and(|at| &*self.0[at].1 == value.as_ref())
        })
    }
}

/// Where `key` is, or where it would be.
fn place(pairs: &[(Box<str>, Box<str>)], key: &str) -> Result<usize, usize> {
    pairs.binary_search_by(|(other, _)| (**other).cmp(key))
}

/// One JSON object.
impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.pairs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(
        pairs: &[(&str, &str)],
        pairs_max: usize,
        bytes_max: usize,
    ) -> Result<Metadata, TooMuchMetadata> {
        let pairs = pairs
            .iter()
            .map(|&(key, value)| (Cow::Borrowed(key), Cow::Borrowed(value)));
        Metadata::collect(pairs, pairs_max, bytes_max)
    }

    const NONE: &[(&str, &str)] = &[];

    #[test]
    fn the_first_of_a_key_counts_and_an_empty_key_does_not() {
        let said = [
            ("os", "ios"),
            ("app", ""),
            ("os", "windows"),
            ("", "x"),
            ("zone", "é\""),
        ];
        let metadata = collect(&said, 3, 16).unwrap();
        let pairs: Vec<_> = metadata.pairs().collect();
        assert_eq!(pairs, [("app", ""), ("os", "ios"), ("zone", "é\"")]);
        assert_eq!(
            serde_json::to_string(&metadata).unwrap(),
            r#"{"app":"","os":"ios","zone":"é\""}"#
        );
    }

    #[test]
    fn pairs_and_bytes_are_limited_to_the_last_one() {
        let said = [("a", "12"), ("b", "34")];
        assert_eq!(collect(&said, 1, 6), Err(TooMuchMetadata::Pairs));
        assert!(collect(&said, 2, 6).is_ok());
        assert!(collect(&said, 3, 7).is_ok());
        assert_eq!(collect(&said, 2, 5), Err(TooMuchMetadata::Bytes));
        assert!(collect(&[("é", "")], 1, 2).is_ok());
        assert_eq!(collect(&[("é", "")], 1, 1), Err(TooMuchMetadata::Bytes));
        assert_eq!(collect(&[("a", "")], 0, 9), Err(TooMuchMetadata::Pairs));
        assert!(collect(&[("", "long enough")], 0, 0).unwrap().is_empty());
    }

    #[test]
    fn a_selector_matches_if_all_of_it_is_there() {
        let metadata = collect(&[("os", "ios"), ("app", "chat"), ("beta", "")], 8, 64).unwrap();
        assert!(metadata.matches(&[("os", "ios")]));
        assert!(metadata.matches(&[("beta", ""), ("os", "ios"), ("app", "chat")]));
        assert!(metadata.matches(&[("os".to_owned(), "ios".to_owned())]));
        assert!(!metadata.matches(&[("os", "ios"), ("app", "mail")]));
        assert!(!metadata.matches(&[("os", "ios"), ("os", "windows")]));
        assert!(!metadata.matches(&[("zone", "")]));
        assert!(metadata.matches(NONE));
        assert!(Metadata::default().matches(NONE));
        assert!(!Metadata::default().matches(&[("os", "ios")]));
    }

    #[test]
    fn the_name_of_a_device_keeps_to_its_alphabet_and_length() {
        assert!(is_device("a") && is_device("iPhone-15_pro.2") && is_device(&"a".repeat(64)));
        for bad in ["", &"a".repeat(65), "a b", "a@b", "a:b", "é", "a/b"] {
            assert!(!is_device(bad), "{bad:?}");
        }
    }
}
