//! Rounds: what is put right when something was lost on the way, a page at a time, paced.
//!
//! - **compare**: the heads of the inboxes of everybody here, with what their connections know;
//!   once a minute, and after every gap of the bus. A connection that knows less looks. Whoever is
//!   not in the directory is written down anew, or has lost its place and was not told.
//! - **return**: Redis was away, or is another one. Everybody here is written down anew and
//!   looks, and what is written down of those who have left meanwhile goes.
//! - **clean**: what a dead node wrote down goes, and what an earlier life of this one did.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::{Cmd, Value};

use super::keeper::Keeper;
use crate::command::{Bye, InboxHead};
use crate::hub::roster::{Place, SessionView};
use crate::protocol::away::DirectoryEntry;
use crate::protocol::metadata::ANONYMOUS;
use crate::store::redis::ask::{self, bytes, items, number};
use crate::store::redis::names::{self, CLIENT, LEASE, SERVER_CLIENTS, SERVERS, SESSION};
use crate::store::redis::{self, Bound, Cleaned, Doorbell, Word};

const COMPARE_EVERY: Duration = Duration::from_secs(60);
/// Sessions in one pipeline, and the time between two.
const PAGE: usize = 500;
const PACE: Duration = Duration::from_millis(20);
/// Users in one step of cleaning.
const CLEAN_PAGE: usize = 200;

pub struct Rounds {
    /// The life of Redis under which everybody looked last.
    run: String,
    /// Gaps of the bus that a comparison has answered.
    gaps: u64,
    compare_at: Instant,
    /// How far the round through the roster has come.
    at: Option<Round>,
    next_page: Instant,
    cleaning: VecDeque<Cleaning>,
}

struct Round {
    place: Place,
    /// Everybody is written down anew.
    is_return: bool,
    /// Everybody looks, whatever the heads are.
    looks: bool,
    /// Users whose watching is still to be written down anew.
    watched: Vec<Arc<str>>,
}

/// How far the cleaning after a node has come.
struct Cleaning {
    node: String,
    /// Of `SSCAN`; none before the first step.
    cursor: Option<String>,
}

impl Rounds {
    pub fn new(run: String, now: Instant) -> Rounds {
        Rounds {
            run,
            gaps: 0,
            compare_at: now + COMPARE_EVERY,
            at: None,
            next_page: now,
            cleaning: VecDeque::new(),
        }
    }

    /// `run`: the life of the Redis that is there now.
    pub fn begin_return(&mut self, run: &str, watched: Vec<Arc<str>>) {
        // One that is not over yet may have begun under yet another life.
        let looks = self.run != run || self.at.as_ref().is_some_and(|round| round.looks);
        self.run = run.to_owned();
        self.at = Some(Round {
            place: Place::default(),
            is_return: true,
            looks,
            watched,
        });
    }

    pub fn clean_after(&mut self, nodes: Vec<String>) {
        for node in nodes {
            if self.cleaning.iter().all(|of| of.node != node) {
                self.cleaning.push_back(Cleaning { node, cursor: None });
            }
        }
    }

    pub fn patience(&self, now: Instant) -> Duration {
        let until = |at: Instant| at.saturating_duration_since(now);
        if self.at.is_some() || !self.cleaning.is_empty() {
            return until(self.next_page);
        }
        until(self.compare_at)
    }
}

impl Keeper {
    /// One step of whatever round is due.
    pub(super) fn go_round(&mut self, now: Instant) {
        let gaps = self.around.stats.gaps.get();
        let others = self.around.others.clone();
        let has_directory = others.has_directory;
        let rounds = &mut self.rounds;
        if rounds.at.is_none() {
            // The store could not write down, or strike out, who is here.
            let is_return = others.take_doubt();
            if rounds.gaps != gaps || rounds.compare_at <= now || is_return {
                rounds.gaps = gaps;
                rounds.compare_at = now + COMPARE_EVERY;
                rounds.at = Some(Round {
                    place: Place::default(),
                    is_return,
                    looks: false,
                    watched: Vec::new(),
                });
            }
        }
        if now < self.rounds.next_page {
            return;
        }
        self.rounds.next_page = now + PACE;
        if let Some(mut round) = self.rounds.at.take() {
            if self.page(&mut round).is_some() {
                self.rounds.at = Some(round);
            } else if round.is_return && has_directory && self.is_up() {
                let own = self.options.name.clone();
                self.rounds.clean_after(vec![own]);
            }
        }
        if let Some(mut cleaning) = self.rounds.cleaning.pop_front()
            && self.clean(&mut cleaning).is_some()
        {
            self.rounds.cleaning.push_front(cleaning);
        }
    }

    /// A page of a round through the roster. None: it is over.
    fn page(&mut self, round: &mut Round) -> Option<()> {
        if !round.watched.is_empty() {
            let left = round.watched.len().saturating_sub(PAGE);
            let page = round.watched.split_off(left);
            let commands: Vec<Cmd> = page.iter().map(|uid| self.watch(uid)).collect();
            return self.ask(&commands).map(drop);
        }
        let sessions = self.around.post.roster.page(&mut round.place, PAGE);
        if sessions.is_empty() {
            return None;
        }
        if round.is_return && self.around.others.has_directory {
            self.rebind(&sessions)?;
        }
        if round.looks {
            let uids = sessions.iter().map(|session| session.identity.uid());
            self.bells.look(uids.map(str::to_owned));
            self.bells.try_again();
            return Some(());
        }
        self.compare(&sessions)
    }

    /// Mails these connections what the store says of their inboxes. Those that the directory does
    /// not have are written down first: what was accepted meanwhile rang elsewhere.
    fn compare(&mut self, sessions: &[SessionView]) -> Option<()> {
        let strays = self.mail_heads(sessions)?;
        if self.around.others.has_directory && !strays.is_empty() {
            self.rebind(&strays)?;
            self.mail_heads(&strays)?;
        }
        Some(())
    }

    /// Returns those that the directory does not have.
    fn mail_heads(&mut self, sessions: &[SessionView]) -> Option<Vec<SessionView>> {
        let post = self.around.post.clone();
        let head = |session: &SessionView| {
            let uid = session.identity.uid();
            let mut cmd = ::redis::cmd("HMGET");
            cmd.arg(names::key(&self.options.prefix, CLIENT, uid));
            cmd.arg("epoch").arg("seq");
            cmd.arg(format!("{}:{}", char::from(SESSION), post.name_of(session)));
            cmd
        };
        let commands: Vec<Cmd> = sessions.iter().map(head).collect();
        let answers = self.ask(&commands)?;
        let (mut heads, mut strays) = (Vec::new(), Vec::new());
        for (session, answer) in sessions.iter().zip(answers) {
            let Some((place, is_found)) = read_head(answer) else {
                continue;
            };
            heads.push(InboxHead {
                to: session.key,
                place,
            });
            if !is_found && session.is_online {
                strays.push(session.clone());
            }
        }
        self.around.stats.compared.add(heads.len() as u64);
        self.around.switchboard.compare(&heads);
        Some(strays)
    }

    /// Writes down these sessions.
    pub(super) fn rebind(&mut self, sessions: &[SessionView]) -> Option<()> {
        let online: Vec<&SessionView> = sessions.iter().filter(|of| of.is_online).collect();
        let prepared = self.prepare()?;
        let (scene, sessions_max) = (prepared.scene(), self.around.others.sessions_max());
        let bind = |session: &&SessionView| {
            let entry = self.entry(session);
            scene.bind(session.identity.uid(), &entry, sessions_max)
        };
        let commands: Vec<Cmd> = online.iter().map(bind).collect();
        let answers = self.ask(&commands)?;
        self.around.stats.rebound.add(answers.len() as u64);
        for (session, answer) in online.into_iter().zip(answers) {
            let Some(Bound {
                stays,
                mut replaced,
                doorbells,
            }) = redis::bound(answer)
            else {
                continue;
            };
            let (uid, name) = (session.identity.uid(), self.around.post.name_of(session));
            if !stays {
                replaced.push(name.clone());
            }
            for key in self.around.post.named(uid, &replaced) {
                // A mailbox that is full keeps a session that is too many until the next return.
                let _ = self.around.switchboard.close(key, Bye::Replaced);
            }
            if self.around.post.named(uid, &[name]).is_empty() {
                // It has left while it was written down.
                self.rounds.clean_after(vec![self.options.name.clone()]);
            }
            self.tell_presence(doorbells);
        }
        Some(())
    }

    /// What scripts would have told this node on its channel.
    fn tell_presence(&self, doorbells: Vec<Doorbell>) {
        for doorbell in doorbells {
            if let Word::Presence(change) = doorbell.word {
                (self.around.tell_presence)(&change.uid, change.is_online);
            }
        }
    }

    /// A step of the cleaning after a node. None: it is over, or has to wait for Redis.
    fn clean(&mut self, cleaning: &mut Cleaning) -> Option<()> {
        let is_own = cleaning.node == self.options.name;
        let set = format!("{}{SERVER_CLIENTS}{}", self.options.prefix, cleaning.node);
        let mut scan = ::redis::cmd("SSCAN");
        scan.arg(&set)
            .arg(cleaning.cursor.as_deref().unwrap_or("0"));
        scan.arg("COUNT").arg(CLEAN_PAGE);
        let page = self.ask(&[scan])?.pop()?;
        let [cursor, users] = items(page)?.try_into().ok()?;
        let cursor = String::from_utf8_lossy(bytes(&cursor)?).into_owned();
        let users = ask::texts(users)?;
        let prepared = self.prepare()?;
        let scene = prepared.scene();
        let present = self.lease.lives.present();
        let mut commands = Vec::new();
        for uid in &users {
            // What another life wrote down, and of our own what is here no longer.
            commands.push(scene.clean(uid, &cleaning.node, 0, &[]));
            if is_own {
                commands.push({
                    let keep = self.names_of(uid);
                    let keep: Vec<&str> = keep.iter().map(String::as_str).collect();
                    scene.clean(uid, &cleaning.node, present, &keep)
                });
            }
        }
        for answer in self.ask(&commands)? {
            if let Some(Cleaned { doorbells, .. }) = redis::cleaned(answer) {
                self.tell_presence(doorbells);
            }
        }
        if is_own {
            // Who came while that was done may have been struck out.
            let came: Vec<SessionView> = users
                .iter()
                .flat_map(|uid| self.around.post.roster.sessions(uid))
                .collect();
            self.rebind(&came)?;
            // What came while one was struck out rang nowhere.
            self.compare(&came)?;
        }
        if cursor != "0" {
            cleaning.cursor = Some(cursor);
            return Some(());
        }
        if !is_own {
            let prefix = &self.options.prefix;
            let mut lease = ::redis::cmd("EXISTS");
            lease.arg(format!("{prefix}{LEASE}{}", cleaning.node));
            let mut strike = ::redis::cmd("HDEL");
            strike.arg(format!("{prefix}{SERVERS}")).arg(&cleaning.node);
            if number(&self.ask(&[lease])?.pop()?) == Some(0) {
                self.ask(&[strike])?;
                tracing::info!(node = cleaning.node, "cleaned up after a node that is gone");
            }
        }
        None
    }

    fn names_of(&self, uid: &str) -> Vec<String> {
        let post = &self.around.post;
        let sessions = post.roster.sessions(uid);
        let online = sessions.iter().filter(|of| of.is_online);
        online.map(|session| post.name_of(session)).collect()
    }

    fn entry(&self, session: &SessionView) -> DirectoryEntry {
        let post = &self.around.post;
        let device = session.extra.as_ref().and_then(|of| of.device.as_deref());
        DirectoryEntry {
            session: post.name_of(session),
            since_secs: session.since_secs,
            ordinal: session.ordinal,
            mark: post.node.mark(session.key),
            device: device.unwrap_or(ANONYMOUS).to_owned(),
            uname: session.identity.name().to_owned(),
        }
    }
}

/// Epoch and last entry of an inbox, if there is one, and whether the directory has the session.
fn read_head(answer: Value) -> Option<(Option<(u64, u64)>, bool)> {
    let [epoch, seq, session] = items(answer)?.try_into().ok()?;
    let is_found = !matches!(session, Value::Nil);
    if matches!(epoch, Value::Nil) {
        return Some((None, is_found));
    }
    let number = |value: &Value| std::str::from_utf8(bytes(value)?).ok()?.parse().ok();
    Some((Some((number(&epoch)?, number(&seq)?)), is_found))
}
