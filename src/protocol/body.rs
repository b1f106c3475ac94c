//! What backends send in JSON: one object, read into fields, and told in their words what is
//! wrong with it.

use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// The object that `body` is. The error says to whoever wrote it what is not as it should be.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    const START: &str = "the body is not as expected:";
    // An array would be taken for the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(format!("{START} it must be a JSON object"));
    }
    // Fields that are passed over are text as well, and `from_slice` would not look at them.
    let text = std::str::from_utf8(body).map_err(|_| format!("{START} it is not UTF-8"))?;
    serde_json::from_str(text).map_err(|error| {
        let text = error.to_string();
        // What was given instead is no part of it: it may be long, or a secret in a wrong place.
        match text.rsplit_once(", expected ") {
            Some((_, wanted)) if error.classify() == Category::Data => {
                let wanted =
                    wanted
                        .replacen("a map", "an object", 1)
                        .replacen("a sequence", "an array", 1);
                format!("{START} expected {wanted}")
            }
            _ => format!("{START} {text}"),
        }
    })
}

/// A field that is a whole number, `5.0` among them; none where it is null.
pub fn whole<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = Option<i64>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a whole number")
        }

        fn visit_unit<E: Error>(self) -> Result<Option<i64>, E> {
            Ok(None)
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Option<i64>, E> {
            Ok(Some(number))
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<Option<i64>, E> {
            i64::try_from(number).map(Some).map_err(|_| too_far())
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<Option<i64>, E> {
            let whole = super::json::whole(number);
            whole.map(Some).ok_or_else(|| {
                let given = serde::de::Unexpected::Float(number);
                E::invalid_type(given, &self)
            })
        }
    }

    fn too_far<E: Error>() -> E {
        E::custom("a number is too small or too large")
    }

    let number = deserializer.deserialize_any(Whole)?;
    number
        .map(|number| T::try_from(number).map_err(|_| too_far()))
        .transpose()
}

/// A field that may be any value, null among them: it is missing only where it is not there.
pub fn any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    serde::Deserialize::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Order {
        #[serde(default, deserialize_with = "whole")]
        count: Option<u32>,
        #[serde(default)]
        names: Vec<String>,
        #[serde(default)]
        pairs: serde_json::Map<String, serde_json::Value>,
        #[serde(default, deserialize_with = "any")]
        msg: Option<Box<RawValue>>,
    }

    #[test]
    fn what_is_passed_over_is_utf8_as_well() {
        let body = b"{\"count\":1,\"x\":\"\xff\"}";
        let error = read::<Order>(body).err().unwrap();
        assert!(error.ends_with("it is not UTF-8"), "{error}");
    }

    fn order(body: &str) -> Result<Order, String> {
        read(body.as_bytes())
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_json_and_without_what_was_given() {
        for (body, expected) in [
            ("", "it must be a JSON object"),
            (" [1]", "it must be a JSON object"),
            ("7", "it must be a JSON object"),
            (r#"{"names":"canary"}"#, "expected an array at line 1"),
            (r#"{"pairs":"canary"}"#, "expected an object at line 1"),
            (r#"{"names":[7]}"#, "expected a string at line 1"),
            (r#"{"count":"canary"}"#, "expected a whole number at line 1"),
            (r#"{"count":1.5}"#, "expected a whole number at line 1"),
            (r#"{"count":-1}"#, "a number is too small or too large"),
            (r#"{"count":4294967296}"#, "too small or too large"),
            (r#"{"count":1e300}"#, "expected a whole number"),
            (r#"{"count":18446744073709551615}"#, "too large"),
            (r#"{"count":1"#, "EOF while parsing an object"),
        ] {
            let error = order(body).err().expect(body);
            assert!(error.contains(expected), "{body}: {error}");
            let rust = ["canary", "u32", "i64", "map", "sequence"];
            assert!(!rust.iter().any(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn a_whole_number_may_have_a_point_and_null_is_a_value_where_any_is() {
        let count = |body: &str| order(body).unwrap().count;
        assert_eq!(count(" {\"count\":5.0}"), Some(5));
        assert_eq!(count(r#"{"count":7}"#), Some(7));
        assert_eq!((count(r#"{"count":null}"#), count("{}")), (None, None));
        let full = order(r#"{"names":["a"],"pairs":{"a":1},"msg":null}"#).unwrap();
        assert_eq!((full.names.len(), full.pairs.len()), (1, 1));
        assert_eq!(full.msg.unwrap().get(), "null");
        assert!(order("{}").unwrap().msg.is_none());
    }
}
