//! Who a session belongs to: a user id and a display name, stored once and shared.

use triomphe::ThinArc;

/// Bytes of an id at most. A user code is always longer.
pub const ID_BYTES_MAX: usize = 64;
/// Bytes of a display name at most.
pub const NAME_BYTES_MAX: usize = 64;

/// True for a user or group id: 1 to 64 of `[A-Za-z0-9_.@-]`.
pub fn is_id(id: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'@' | b'-'))
}

/// What is said to whoever named `id` in the field `field`, where no user can have it.
pub fn not_an_id(field: &str, id: &str) -> String {
    let shown: String = id.chars().take(ID_BYTES_MAX).collect();
    let more = if shown.len() < id.len() { "…" } else { "" };
    format!("{field} names {shown:?}{more}, which is no user id: 1 to 64 of [A-Za-z0-9_.@-]")
}

/// A user id with a display name, in one shared allocation behind one thin pointer: the text is
/// `uid`, or `uid:name` where the name differs (an id holds no colon). A user who gave no name
/// is called by the id.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(ThinArc<(), u8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentity {
    #[error("a user id is 1 to 64 of [A-Za-z0-9_.@-]")]
    Id,
    #[error("a user name is at most 64 bytes")]
    Name,
}

impl Identity {
    /// An empty `name` means none. Errors: an id or a name outside the rules.
    pub fn new(uid: &str, name: &str) -> Result<Identity, BadIdentity> {
        if !is_id(uid) {
            return Err(BadIdentity::Id);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(BadIdentity::Name);
        }
        if name.is_empty() || name == uid {
            return Ok(Identity(ThinArc::from_header_and_slice((), uid.as_bytes())));
        }
        let mut text = [0; ID_BYTES_MAX + 1 + NAME_BYTES_MAX];
        let length = uid.len() + 1 + name.len();
        text[..uid.len()].copy_from_slice(uid.as_bytes());
        text[uid.len()] = b':';
        text[uid.len() + 1..length].copy_from_slice(name.as_bytes());
        Ok(Identity(ThinArc::from_header_and_slice(
            (),
            &text[..length],
        )))
    }

    pub fn uid(&self) -> &str {
        self.split().0
    }

    pub fn name(&self) -> &str {
        let (uid, name) = self.split();
        name.unwrap_or(uid)
    }

    /// True if this is the user `uid`: what `uid() == uid` says, without reading the text.
    pub fn is(&self, uid: &str) -> bool {
        let text = &self.0.slice;
        text.starts_with(uid.as_bytes()) && matches!(text.get(uid.len()), None | Some(b':'))
    }

    fn split(&self) -> (&str, Option<&str>) {
        // Made from two strings, so it is UTF-8; an empty id could only mean that it was not.
        let text = std::str::from_utf8(&self.0.slice).unwrap_or_default();
        match memchr::memchr(b':', text.as_bytes()) {
            Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
            None => (text, None),
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.uid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_only_where_it_differs() {
        let rose = Identity::new("u-1", "rose: the 1st").unwrap();
        assert_eq!((rose.uid(), rose.name()), ("u-1", "rose: the 1st"));
        assert!(rose.is("u-1") && !rose.is("u") && !rose.is("u-1:") && !rose.is("u-11"));
        for name in ["", "u-1"] {
            let plain = Identity::new("u-1", name).unwrap();
            assert_eq!((plain.uid(), plain.name()), ("u-1", "u-1"));
        }
        assert_eq!(size_of::<Option<Identity>>(), 8);
    }

    #[test]
    fn what_is_no_id_is_named_as_far_as_one_could_go() {
        let says = not_an_id("to", "a b");
        assert!(says.starts_with("to names \"a b\", which"), "{says}");
        let says = not_an_id("to", &"é".repeat(65));
        assert!(says.contains("é\"…,") && says.len() < 256, "{says}");
    }

    #[test]
    fn ids_and_names_keep_to_their_alphabet_and_length() {
        assert!(is_id(&"a".repeat(64)) && is_id("A.z_0@x-y"));
        for bad in ["", &"a".repeat(65), "a b", "a:b", "é", "a/b"] {
            assert_eq!(Identity::new(bad, "").unwrap_err(), BadIdentity::Id);
        }
        assert!(Identity::new("a", &"n".repeat(64)).is_ok());
        assert_eq!(
            Identity::new("a", &"n".repeat(65)).unwrap_err(),
            BadIdentity::Name
        );
    }
}
