//! One connection to Redis: proven when it begins, then pipelines.
//!
//! Owns: what is demanded of a server, and what an error of it means.
//! Invariant: of each command of a pipeline it is said whether it was answered, refused (nothing
//! of it happened), or whether nobody knows.

use redis::{Cmd, Connection, RedisError, ServerError, Value};

use super::address::Address;
use super::scripts::Script;

/// XTRIM MINID.
const OLDEST: (u32, u32) = (6, 2);

/// Why a server is not used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("cannot reach Redis at {0}: {1}. Start it, or correct the address or the user")]
    Unreachable(String, RedisError),
    #[error(
        "the user for Redis at {0} may not do what is needed: {1}. Give it the rights in \
         throng.acl"
    )]
    Forbidden(String, String),
    #[error("Redis at {0} is version {1}: 6.2 is the oldest that will do. Update it")]
    TooOld(String, String),
    #[error(
        "Redis at {0} drops keys when its memory is full (maxmemory-policy {1}): messages would \
         be lost in silence. Set maxmemory-policy noeviction"
    )]
    Evicts(String, String),
    #[error("Redis at {0} is a replica, which takes no messages. Name its master, or sentinels")]
    Replica(String),
    #[error("Redis at {0} is still loading what it holds. It serves when it has done so")]
    Loading(String),
    #[error("what listens at {0} does not say of itself what Redis does. Correct the address")]
    Stranger(String),
}

/// What came of one command.
#[derive(Debug)]
pub enum Answer {
    Value(Value),
    /// Redis did not do it, and said why.
    Refused(String),
    /// It knows no such script.
    NoScript,
    /// It was begun, and failed within.
    Failed(String),
    /// The connection ended before the answer came.
    Unknown(String),
}

pub struct Link {
    connection: Connection,
    /// Another one in each life of each server.
    run: String,
}

impl Link {
    /// Connects, demands what is needed, and brings the scripts.
    pub fn open(address: &Address, prefix: &str) -> Result<Link, LinkError> {
        let place = || address.to_string();
        let unreachable = |error: RedisError| match error.code() {
            Some("NOPERM") => LinkError::Forbidden(place(), error.to_string()),
            _ => LinkError::Unreachable(place(), error),
        };
        let mut connection = address.connect().map_err(unreachable)?;
        let info: String = redis::cmd("INFO")
            .query(&mut connection)
            .map_err(unreachable)?;
        let run = prove(&info, place)?;
        for script in Script::ALL {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script.text());
            load.query::<()>(&mut connection).map_err(unreachable)?;
        }
        let mut link = Link { connection, run };
        link.prove_rights(prefix)
            .map_err(|why| LinkError::Forbidden(place(), why))?;
        Ok(link)
    }

    /// A script that fails for want of a right has done half of its work, so none may be missing.
    fn prove_rights(&mut self, prefix: &str) -> Result<(), String> {
        let mut probe = redis::cmd("EVALSHA");
        probe.arg(Script::Probe.sha()).arg(0).arg(prefix);
        match self.ask(&[probe]).0.pop() {
            Some(Answer::Failed(why)) => Err(why),
            Some(Answer::Refused(why)) if why.starts_with("NOPERM") => Err(why),
            // Whatever else is wrong now is told to those who ask for something.
            _ => Ok(()),
        }
    }

    pub fn run(&self) -> &str {
        &self.run
    }

    /// Sends all commands and reads what is answered to each. Scripts that the server has
    /// forgotten it gets anew. What came from there on is asked again, unless somebody else
    /// brought the scripts in between: then some of it is done, and the rest must not come behind
    /// it. False: the connection is of no use any more.
    pub fn ask(&mut self, commands: &[Cmd]) -> (Vec<Answer>, bool) {
        let (mut answers, is_alive) = self.pipeline(commands.iter());
        let first = answers.iter().position(is_forgotten);
        let Some(first) = first.filter(|_| is_alive) else {
            return (answers, is_alive);
        };
        let is_undone = is_undone(&commands[first..], &answers[first..]);
        let load = |script: &Script| {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script.text());
            load
        };
        let loads: Vec<_> = Script::ALL.iter().map(load).collect();
        let repeated = if is_undone { &commands[first..] } else { &[] };
        let (again, is_alive) = self.pipeline(loads.iter().chain(repeated));
        if is_undone {
            answers.splice(first.., again.into_iter().skip(loads.len()));
        }
        (answers, is_alive)
    }

    fn pipeline<'c>(&mut self, commands: impl Iterator<Item = &'c Cmd>) -> (Vec<Answer>, bool) {
        let (mut bytes, mut count) = (Vec::new(), 0);
        for command in commands {
            command.write_packed_command(&mut bytes);
            count += 1;
        }
        let mut failure = self.connection.send_packed_command(&bytes).err();
        let mut answers = Vec::with_capacity(count);
        while answers.len() < count {
            answers.push(match &failure {
                Some(error) => Answer::Unknown(error.to_string()),
                None => match self.connection.recv_response() {
                    Ok(Value::ServerError(error)) => refusal(&error),
                    Ok(value) => Answer::Value(value),
                    Err(error) => {
                        failure = Some(error);
                        continue;
                    }
                },
            });
        }
        (answers, failure.is_none())
    }
}

fn is_forgotten(answer: &Answer) -> bool {
    matches!(answer, Answer::NoScript)
}

/// No script of these commands has run. What is no script only looks.
fn is_undone(commands: &[Cmd], answers: &[Answer]) -> bool {
    let is_script = |command: &Cmd| {
        let name = command.args_iter().next();
        matches!(name, Some(redis::Arg::Simple(b"EVALSHA")))
    };
    let mut both = commands.iter().zip(answers);
    both.all(|(command, answer)| is_forgotten(answer) || !is_script(command))
}

/// What an error says of the command that it answers. Redis proves these before a script has
/// written anything; within a script that has, none of them stops it but NOPERM.
fn refusal(error: &ServerError) -> Answer {
    let detail = error.details().unwrap_or_default();
    let text = format!("{} {detail}", error.code());
    match error.code() {
        "NOSCRIPT" => Answer::NoScript,
        "NOPERM" if detail.contains("script") => Answer::Failed(text),
        "READONLY" | "LOADING" | "MISCONF" | "OOM" | "NOPERM" | "NOAUTH" | "MASTERDOWN"
        | "NOREPLICAS" | "BUSY" | "CLUSTERDOWN" | "MOVED" | "ASK" | "TRYAGAIN" | "CROSSSLOT" => {
            Answer::Refused(text)
        }
        _ => Answer::Failed(text),
    }
}

/// The name of a server's life, if it is one that will do.
fn prove(info: &str, place: impl Fn() -> String) -> Result<String, LinkError> {
    let line = |name: &str| {
        let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.to_owned());
        info.lines().find_map(value)
    };
    let version = line("redis_version").ok_or_else(|| LinkError::Stranger(place()))?;
    let mut numbers = version.split('.').map_while(|part| part.parse().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < OLDEST {
        return Err(LinkError::TooOld(place(), version));
    }
    if line("loading").is_some_and(|loading| loading != "0") {
        return Err(LinkError::Loading(place()));
    }
    if line("role").is_some_and(|role| role != "master") {
        return Err(LinkError::Replica(place()));
    }
    let policy = line("maxmemory_policy").ok_or_else(|| LinkError::Stranger(place()))?;
    if policy != "noeviction" {
        return Err(LinkError::Evicts(place(), policy));
    }
    line("run_id").ok_or_else(|| LinkError::Stranger(place()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\nloading:0\r\n\
                        maxmemory_policy:noeviction\r\nrole:master\r\n";

    fn proven(info: &str) -> Result<String, String> {
        prove(info, || "here".to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_that_will_do_has_a_name_for_its_life() {
        assert_eq!(proven(GOOD), Ok("abc".to_owned()));
    }

    #[test]
    fn what_was_forgotten_is_repeated_only_if_nothing_behind_it_has_run() {
        let script = || redis::cmd("EVALSHA");
        let commands = [script(), redis::cmd("ZRANGE"), script()];
        let done = || Answer::Value(Value::Nil);
        assert!(is_undone(
            &commands,
            &[Answer::NoScript, done(), Answer::NoScript]
        ));
        assert!(!is_undone(&commands, &[Answer::NoScript, done(), done()]));
    }

    #[test]
    fn a_server_that_will_not_do_is_told_with_what_to_change() {
        for (from, to, says) in [
            ("7.0.15", "6.0.16", "version 6.0.16"),
            ("7.0.15", "5", "oldest"),
            ("noeviction", "allkeys-lru", "allkeys-lru"),
            ("master", "slave", "replica"),
            ("loading:0", "loading:1", "loading"),
            ("redis_version", "other_version", "Correct the address"),
        ] {
            let error = proven(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(says) && error.contains("here"), "{error}");
        }
    }
}
