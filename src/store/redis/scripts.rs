//! The contract as scripts: their texts, put together once from pieces that they share.
//!
//! A text is constant for a version of the gateway; whatever differs from call to call, the
//! prefix of all names too, comes as an argument.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sha1::{Digest, Sha1};

use super::names;

const BASE: &str = include_str!("lua/base.lua");
const RING: &str = include_str!("lua/ring.lua");
const HEAD: &str = include_str!("lua/head.lua");
const DIRECTORY: &str = include_str!("lua/directory.lua");
const ENTER: &str = include_str!("lua/enter.lua");
const LOG: &str = include_str!("lua/log.lua");
const SEEN: &str = include_str!("lua/seen.lua");
const PASS: &str = include_str!("lua/pass.lua");
const PAGE: &str = include_str!("lua/page.lua");
const MEMBERS: &str = include_str!("lua/members.lua");

macro_rules! scripts {
    ($($name:ident = [$($piece:expr),*] $file:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Script { $($name),* }

        impl Script {
            pub const ALL: &[Script] = &[$(Script::$name),*];

            fn pieces(self) -> &'static [&'static str] {
                match self {
                    $(Script::$name => &[BASE, $($piece,)* include_str!(concat!("lua/", $file))]),*
                }
            }
        }
    };
}

scripts! {
    Accept = [RING, HEAD, LOG, SEEN] "accept.lua";
    Schedule = [RING, HEAD, LOG, SEEN] "schedule.lua";
    Cancel = [SEEN] "cancel.lua";
    Due = [RING, HEAD, LOG, SEEN] "due.lua";
    Acknowledge = [RING, HEAD, LOG, SEEN, PASS] "acknowledge.lua";
    Attach = [RING, HEAD, DIRECTORY, ENTER, LOG, SEEN, PASS, PAGE] "attach.lua";
    Pull = [RING, HEAD, LOG, PAGE] "pull.lua";
    Look = [RING, HEAD, LOG, PAGE] "look.lua";
    Remember = [RING, HEAD, LOG] "remember.lua";
    GroupAccept = [RING, HEAD, LOG, SEEN] "group_accept.lua";
    GroupChange = [RING, HEAD, LOG, SEEN, PASS, MEMBERS] "group_change.lua";
    GroupWork = [RING, HEAD, LOG, SEEN, PASS, MEMBERS] "group_work.lua";
    TakeOver = [] "take_over.lua";
    Expire = [RING, HEAD, LOG, SEEN, PASS] "expire.lua";
    Bind = [RING, HEAD, DIRECTORY, ENTER] "bind.lua";
    Unbind = [RING, HEAD, DIRECTORY] "unbind.lua";
    Clean = [RING, HEAD, DIRECTORY] "clean.lua";
    Lease = [] "lease.lua";
    Probe = [] "probe.lua";
}

struct Text {
    text: String,
    /// The name under which Redis knows it.
    sha: String,
}

static TEXTS: LazyLock<Vec<Text>> = LazyLock::new(|| {
    let values = names::in_lua();
    let whole = |script: &Script| {
        let text = with_values(&script.pieces().concat(), &values);
        let digest = Sha1::digest(text.as_bytes());
        let sha = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Text { text, sha }
    };
    Script::ALL.iter().map(whole).collect()
});

/// Puts values where a text names them, and leaves out comments. Constants of Lua itself would be
/// made anew with each call, and with each function that uses them.
fn with_values(text: &str, values: &BTreeMap<&str, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = match first {
            '"' => rest[1..].find('"').map(|at| at + 2),
            '-' if rest.starts_with("--") => rest.find('\n'),
            c if is_word(c) => rest.find(|c| !is_word(c)),
            c => Some(c.len_utf8()),
        };
        let (token, behind) = rest.split_at(end.unwrap_or(rest.len()));
        if !token.starts_with("--") {
            result.push_str(values.get(token).map_or(token, String::as_str));
        }
        rest = behind;
    }
    result
}

impl Script {
    pub fn text(self) -> &'static str {
        &TEXTS[self as usize].text
    }

    pub fn sha(self) -> &'static str {
        &TEXTS[self as usize].sha
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::store::redis::ACL;

    #[test]
    fn the_user_may_do_what_is_done_and_nothing_else() {
        // A script cannot subscribe, and who ends a subscription ends all kinds of them.
        let plain = "evalsha info script|load select subscribe unsubscribe punsubscribe";
        let mut done: BTreeSet<String> = plain.split(' ').map(str::to_owned).collect();
        for script in Script::ALL {
            let calls = script.text().split("call(\"").skip(1);
            let names = calls.filter_map(|rest| rest.split('"').next());
            done.extend(names.map(str::to_lowercase));
        }
        let rights = ACL
            .split_whitespace()
            .filter_map(|word| word.strip_prefix('+'));
        assert_eq!(rights.map(str::to_owned).collect::<BTreeSet<_>>(), done);
    }

    #[test]
    fn values_stand_where_names_stood_but_not_in_texts() {
        let values = BTreeMap::from([("SET", "7".to_owned())]);
        let text = "-- SET\ncall(\"SET\", SET, SETS) -- SET";
        assert_eq!(with_values(text, &values), "\ncall(\"SET\", 7, SETS) ");
    }

    #[test]
    fn every_script_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Script::ALL.iter().map(|script| script.sha()).collect();
        assert_eq!(names.len(), Script::ALL.len());
        assert!(names.iter().all(|name| name.len() == 40));
    }
}
