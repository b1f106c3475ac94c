//! JSON text that passes through: made compact, and measured, but not understood.

/// The text nests deeper than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDeep;

/// `text` (valid JSON) without the space between its tokens. Numbers and strings stay as they
/// were written.
pub fn compact(text: &str, depth_max: usize) -> Result<String, TooDeep> {
    let mut out = Vec::with_capacity(text.len());
    let mut depth = 0;
    let mut is_string = false;
    let mut is_escaped = false;
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            _ if is_string => {}
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        if depth > depth_max {
            return Err(TooDeep);
        }
        out.push(byte);
    }
    Ok(String::from_utf8(out).expect("only ASCII was taken out of UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_goes_where_it_means_nothing() {
        let text = " {\n  \"a b\" : [ 1.0e5 ,\t\"\\\" \\\\\" , \" é \" ] }\r\n";
        assert_eq!(
            compact(text, 2).unwrap(),
            r#"{"a b":[1.0e5,"\" \\"," é "]}"#
        );
        assert_eq!(compact(text, 1), Err(TooDeep));
        assert_eq!(compact("\"[[[{\"", 0).unwrap(), "\"[[[{\"");
        assert_eq!(compact("[[],[]]", 2).unwrap(), "[[],[]]");
    }
}
