//! UTF-8 that arrives in pieces and fails at the exact byte.

use super::violation::Violation;

/// The start of a character whose rest has not come.
#[derive(Default)]
pub struct Utf8 {
    begun: [u8; 4],
    len: usize,
}

impl Utf8 {
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while self.len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                return Ok(());
            };
            bytes = rest;
            self.begun[self.len] = byte;
            self.len += 1;
            match std::str::from_utf8(&self.begun[..self.len]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Violation::BadUtf8),
            }
        }
        let Err(error) = simdutf8::compat::from_utf8(bytes) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(Violation::BadUtf8);
        }
        let begun = &bytes[error.valid_up_to()..];
        self.begun[..begun.len()].copy_from_slice(begun);
        self.len = begun.len();
        Ok(())
    }

    /// Nothing more comes: a begun character is an error.
    pub fn finish(self) -> Result<(), Violation> {
        if self.len == 0 {
            Ok(())
        } else {
            Err(Violation::BadUtf8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Index of the byte at which it fails, fed byte by byte; the length if it fails at the end.
    fn fails_at(bytes: &[u8]) -> Option<usize> {
        let mut utf8 = Utf8::default();
        for (at, byte) in bytes.iter().enumerate() {
            if utf8.feed(&[*byte]).is_err() {
                return Some(at);
            }
        }
        utf8.finish().err().map(|_| bytes.len())
    }

    #[test]
    fn it_fails_at_the_exact_byte() {
        assert_eq!(fails_at("κόσμε 🎈 €".as_bytes()), None);
        assert_eq!(fails_at(b"ab\xffcd"), Some(2));
        assert_eq!(
            fails_at(b"\xce\xba\xf4\x90\x80\x80"),
            Some(3),
            "above U+10FFFF"
        );
        assert_eq!(fails_at(b"\xed\xa0\x80"), Some(1), "a surrogate");
        assert_eq!(fails_at(b"\xc0\xaf"), Some(0), "overlong");
        assert_eq!(fails_at(b"\xe2\x82"), Some(2), "cut off");
    }

    #[test]
    fn any_split_of_good_text_is_good() {
        let text = "aé€🎈".repeat(5);
        for cut in 0..=text.len() {
            let mut utf8 = Utf8::default();
            utf8.feed(&text.as_bytes()[..cut]).unwrap();
            utf8.feed(&text.as_bytes()[cut..]).unwrap();
            utf8.finish().unwrap();
        }
    }
}
