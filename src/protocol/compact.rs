//! JSON text that passes through: made compact, and measured, but not understood.

/// Why a text does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It nests deeper than allowed.
    TooDeep,
    /// An escape in a string is half a character: not every parser takes that.
    HalfCharacter,
}

/// `text` (valid JSON) without the space between its tokens. Numbers and strings stay as they
/// were written.
pub fn compact(text: &str, depth_max: usize) -> Result<String, Unfit> {
    if !has_whole_characters(text.as_bytes()) {
        return Err(Unfit::HalfCharacter);
    }
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
            return Err(Unfit::TooDeep);
        }
        out.push(byte);
    }
    Ok(String::from_utf8(out).expect("only ASCII was taken out of UTF-8"))
}

/// True if each escape of a high surrogate is followed at once by one of a low surrogate, and no
/// other low one is there. In valid JSON a backslash always begins an escape in a string.
fn has_whole_characters(json: &[u8]) -> bool {
    let mut at = 0;
    let mut is_half = false;
    while let Some(gap) = memchr::memchr(b'\\', &json[at..]) {
        let escape = &json[at + gap + 1..];
        let (unit, length) = match escape {
            [b'u', digits @ ..] => (utf16_unit(digits), 6),
            _ => (0, 2),
        };
        let is_low = (0xdc00..0xe000).contains(&unit);
        if is_low != is_half || (is_half && gap > 0) {
            return false;
        }
        is_half = (0xd800..0xdc00).contains(&unit);
        at = (at + gap + length).min(json.len());
    }
    !is_half
}

/// The number that four hexadecimal digits write.
fn utf16_unit(digits: &[u8]) -> u32 {
    let digits = digits.iter().take(4);
    digits.fold(0, |unit, &digit| {
        unit << 4 | char::from(digit).to_digit(16).unwrap_or_default()
    })
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
        assert_eq!(compact(text, 1), Err(Unfit::TooDeep));
        assert_eq!(compact("\"[[[{\"", 0).unwrap(), "\"[[[{\"");
        assert_eq!(compact("[[],[]]", 2).unwrap(), "[[],[]]");
    }

    #[test]
    fn half_a_character_does_not_pass() {
        for good in [
            r#""\\ud83d""#,
            r#""\\\ud83d\uDE00\n\ud83d\ude00""#,
            r#""\ud7ff\ue000\u0000""#,
            r#"{"\ud83d\ude00":"\"\\"}"#,
        ] {
            assert_eq!(compact(good, 9).unwrap(), good);
        }
        for bad in [
            r#""\ud800""#,
            r#""\uDFFF""#,
            r#""\ud83d\ud83d\ude00""#,
            r#""\ude00\ud83d""#,
            r#""\ud83d\n""#,
            r#""\ud83d.\ude00""#,
            r#"["\ud83d","\ude00"]"#,
            r#"{"\udbff":1}"#,
        ] {
            assert_eq!(compact(bad, 9), Err(Unfit::HalfCharacter), "{bad}");
        }
    }
}
