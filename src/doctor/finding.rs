//! One thing that was judged: how it is, how it should be, why, and what mends it.

use serde::Serialize;

/// Where settings of the kernel last.
const SYSCTL_FILE: &str = "/etc/sysctl.d/99-throng.conf";
/// Where limits of the service last.
const SERVICE_FILE: &str = "/etc/systemd/system/throng.service.d/limits.conf";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// It works, and hurts at times.
    Warn,
    /// The wanted number cannot be held.
    Fail,
}

#[derive(Debug, Serialize)]
pub struct Finding {
    pub name: &'static str,
    pub status: Status,
    pub now: String,
    pub needed: String,
    pub why: &'static str,
    /// Ways to mend it: one of them is enough.
    pub mend: Vec<Mend>,
}

/// What to do now, and what to write where so that it lasts.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Mend {
    pub command: String,
    pub lasts: Option<Lasting>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Lasting {
    pub file: String,
    pub lines: String,
}

impl Finding {
    /// Something that is good as it is, until [`Finding::unless`] says otherwise.
    pub fn new(name: &'static str, now: impl ToString, needed: impl ToString) -> Finding {
        Finding {
            name,
            status: Status::Ok,
            now: now.to_string(),
            needed: needed.to_string(),
            why: "",
            mend: Vec::new(),
        }
    }

    pub fn because(mut self, why: &'static str) -> Finding {
        self.why = why;
        self
    }

    /// Unless `is_good`, it has this status and may be mended so.
    pub fn unless(
        mut self,
        is_good: bool,
        status: Status,
        mend: impl IntoIterator<Item = Mend>,
    ) -> Finding {
        if !is_good {
            self.status = status;
            self.mend = mend.into_iter().collect();
        }
        self
    }
}

impl Mend {
    /// What lasts by itself, or is nothing to type.
    pub fn once(command: impl ToString) -> Mend {
        let command = command.to_string();
        Mend {
            command,
            lasts: None,
        }
    }

    fn lasting(command: String, file: &str, lines: String) -> Mend {
        let file = file.to_owned();
        Mend {
            command,
            lasts: Some(Lasting { file, lines }),
        }
    }

    /// A setting of the kernel.
    pub fn sysctl(key: &str, value: impl std::fmt::Display) -> Mend {
        let command = format!("sysctl -w {key}=\"{value}\"");
        Mend::lasting(command, SYSCTL_FILE, format!("{key} = {value}"))
    }

    /// A key of the node's configuration.
    pub fn key(file: &str, key: &str, value: impl std::fmt::Display) -> Mend {
        let command = format!("throng --{} {value}", key.replace('_', "-"));
        Mend::lasting(command, file, format!("{key} = {value}"))
    }

    /// A limit of the service, by a command that makes it true at once.
    pub fn service(command: String, key: &str, value: impl std::fmt::Display) -> Mend {
        let lines = format!("[Service]\n{key}={value}");
        Mend::lasting(command, SERVICE_FILE, lines)
    }
}
