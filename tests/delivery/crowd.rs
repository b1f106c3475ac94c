//! Everybody who talks: devices and a backend, what they share, and what is said of it in the end.
//!
//! Owns: their threads and the history. Nodes are doors here, and come and go.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use throng_history::{Class, Kind, Report, Sent, What};

use crate::backend;
use crate::device::{Device, Manner, Strings};
use crate::random::Random;
use crate::scribe::Scribe;
use crate::support::{eventually, http};

/// Everybody is in it.
pub const GROUP: &str = "team";
/// A device of this name says nothing: whatever its user sends comes from the others.
pub const LISTENER: &str = "watch";
/// The key of the API of all nodes. Nobody else listens to it, so a port that another test took
/// over does no harm.
pub const KEY: &str = "the-key-of-a-run-of-deliveries-0123456789";
/// Everything has come by then, if it ever does.
const SETTLING: Duration = Duration::from_secs(60);

/// Who talks, on which device, and how.
pub const DEVICES: [(&str, &str, Manner); 7] = [
    ("alice", "phone", Manner::Acks),
    ("alice", "tablet", Manner::Cursors),
    ("bob", "phone", Manner::Acks),
    ("bob", "laptop", Manner::Pongs),
    ("carol", "phone", Manner::Cursors),
    ("dave", "box", Manner::Pongs),
    ("eve", "phone", Manner::Acks),
];
/// What they send: chats twice as often as the others.
pub const CLASSES: [Class; 4] = [Class::Single, Class::Single, Class::Group, Class::Push];

/// A node: its endpoint and its API.
#[derive(Clone, Copy)]
pub struct Door {
    pub ws: SocketAddr,
    pub api: SocketAddr,
}

/// What all threads of a run share.
pub struct Shared {
    pub scribe: Scribe,
    pub users: Vec<String>,
    /// The longest pause between two messages of one device.
    pub pause_ms: u64,
    /// What devices send, one as often as another.
    pub classes: &'static [Class],
    pub key_field: String,
    /// The nodes that there are now.
    doors: Mutex<Vec<Door>>,
    refusals: Mutex<BTreeMap<String, u64>>,
    confirmed: AtomicU64,
    repetitions: AtomicU64,
    is_talking: AtomicBool,
    is_over: AtomicBool,
    is_backend_calm: AtomicBool,
    connections: AtomicU64,
    messages: AtomicU64,
    run: u64,
}

impl Shared {
    /// Any of the nodes; none while there is none.
    pub fn door(&self, random: &mut Random) -> Option<Door> {
        let doors = self.doors.lock().unwrap();
        doors.get(random.below(doors.len())).copied()
    }

    pub fn set_doors(&self, doors: Vec<Door>) {
        *self.doors.lock().unwrap() = doors;
    }

    pub fn is_talking(&self) -> bool {
        self.is_talking.load(Relaxed)
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    pub fn set_backend_calm(&self, is_calm: bool) {
        self.is_backend_calm.store(is_calm, Relaxed);
    }

    pub fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Relaxed) + 1
    }

    pub fn next_msgid(&self) -> String {
        format!("{:x}-{}", self.run, self.messages.fetch_add(1, Relaxed))
    }

    /// A message was stored, and perhaps it had been before.
    pub fn confirm(&self, sent: Sent, message_id: String, dup: bool) {
        self.confirmed.fetch_add(1, Relaxed);
        self.repetitions.fetch_add(u64::from(dup), Relaxed);
        self.scribe.tell(What::Confirmed {
            sent,
            message_id,
            dup,
        });
    }

    pub fn note_refusal(&self, reason: &Value) {
        let reason = reason.as_str().unwrap_or("no reason").to_owned();
        *self.refusals.lock().unwrap().entry(reason).or_default() += 1;
    }
}

/// Who is to talk, and of what.
pub struct Cast {
    /// Of the test: a history that breaks a promise is kept under it.
    pub name: &'static str,
    pub seed: u64,
    pub devices: &'static [(&'static str, &'static str, Manner)],
    /// The longest pause between two messages of one device.
    pub pause_ms: u64,
    pub classes: &'static [Class],
}

pub struct Crowd {
    cast: Cast,
    pub shared: Arc<Shared>,
    strings: Vec<(String, Arc<Strings>)>,
    threads: Vec<JoinHandle<()>>,
    pub random: Random,
}

impl Crowd {
    /// Nobody talks yet.
    pub fn new(cast: Cast) -> Crowd {
        let mut users: Vec<String> = cast.devices.iter().map(|d| d.0.to_owned()).collect();
        users.dedup();
        let shared = Arc::new(Shared {
            scribe: Scribe::new(),
            users,
            pause_ms: cast.pause_ms,
            classes: cast.classes,
            key_field: format!("Authorization: Bearer {KEY}"),
            doors: Mutex::default(),
            refusals: Mutex::default(),
            confirmed: AtomicU64::new(0),
            repetitions: AtomicU64::new(0),
            is_talking: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_backend_calm: AtomicBool::new(true),
            connections: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            run: cast.seed,
        });
        Crowd {
            shared,
            strings: Vec::new(),
            threads: Vec::new(),
            random: Random::new(cast.seed),
            cast,
        }
    }

    /// Everybody connects at the doors that there are, and talks.
    pub fn begin(&mut self) {
        self.make_group();
        for (number, &who) in (1..).zip(self.cast.devices) {
            let token = self.token(who.0);
            let own = Random::new(self.cast.seed + number);
            let device = Device::new(who, token, self.shared.clone(), own);
            let strings = device.strings.clone();
            self.strings.push((device.user.clone(), strings));
            self.threads.push(spawn(move || device.live()));
        }
        let own = Random::new(self.cast.seed + 1000 + self.random.below(1000) as u64);
        let backend = self.shared.clone();
        self.threads
            .push(spawn(move || backend::live(&backend, own)));
        // A device that is not known yet is owed nothing.
        self.await_calm();
        self.talk();
    }

    pub fn talk(&self) {
        self.shared.is_talking.store(true, Relaxed);
    }

    /// Nobody begins anything new, and what was begun is confirmed and acknowledged.
    pub fn fall_silent(&self) {
        self.shared.is_talking.store(false, Relaxed);
        self.await_calm();
    }

    pub fn begin_fault(&self, fault: &str) {
        let fault = fault.to_owned();
        self.shared.scribe.tell(What::FaultStart { fault });
    }

    pub fn end_fault(&self, fault: &str) {
        let fault = fault.to_owned();
        self.shared.scribe.tell(What::FaultStop { fault });
    }

    /// All devices of a user.
    pub fn strings(&self, user: &str) -> impl Iterator<Item = &Strings> {
        let of_user = move |(of, _): &&(String, Arc<Strings>)| of == user;
        self.strings
            .iter()
            .filter(of_user)
            .map(|(_, strings)| &**strings)
    }

    pub fn all_strings(&self) -> impl Iterator<Item = &Strings> {
        self.strings.iter().map(|(_, strings)| &**strings)
    }

    /// Lets them talk until so many more messages are confirmed.
    pub fn await_confirmed(&self, more: u64) {
        let confirmed = || self.shared.confirmed.load(Relaxed);
        let goal = confirmed() + more;
        eventually("messages are confirmed", || confirmed() >= goal);
    }

    /// How many messages were said to have been stored before.
    pub fn repetitions(&self) -> u64 {
        self.shared.repetitions.load(Relaxed)
    }

    pub fn refusals(&self, reason: &str) -> u64 {
        let refusals = self.shared.refusals.lock().unwrap();
        refusals.get(reason).copied().unwrap_or(0)
    }

    fn post(&mut self, path: &str, body: &Value) -> Value {
        let door = self.shared.door(&mut self.random).expect("there is a node");
        let field = self.shared.key_field.clone();
        http::call(door.api, "POST", path, &[&field], &body.to_string()).content()
    }

    fn token(&mut self, user: &str) -> String {
        let order = json!({"userId": user, "ttlSecs": 86_400});
        let content = self.post("/api/v1/tokens", &order);
        content["wsToken"].as_str().unwrap().to_owned()
    }

    fn make_group(&mut self) {
        let members = self.shared.users.clone();
        let order = json!({"groupId": GROUP, "userIdList": members});
        self.post("/api/v1/groups", &order);
        let group = GROUP.to_owned();
        self.shared.scribe.tell(What::Group { group, members });
    }

    pub fn is_calm(&self) -> bool {
        self.shared.is_backend_calm.load(Relaxed) && self.all_strings().all(Strings::is_calm)
    }

    fn await_calm(&self) {
        eventually("all are connected and all is confirmed", || self.is_calm());
    }

    /// Ends all talk, waits until everything has come, has everybody come back once more, and
    /// ends the run.
    fn settle(&mut self, patience: Duration, is_enough: fn(&Report) -> bool) -> Report {
        self.shared.is_talking.store(false, Relaxed);
        self.shared.scribe.tell(What::Heal {});
        self.await_arrival(patience, is_enough);
        // What comes again though it was acknowledged shows now.
        self.all_strings().for_each(Strings::tear);
        self.await_arrival(patience, is_enough);
        let report = self.shared.scribe.judged_so_far();
        self.shared.is_over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("whoever talks has a fault");
        }
        report
    }

    /// Waits until nothing that is owed is missing, or something is wrong that no waiting mends.
    fn await_arrival(&self, patience: Duration, is_enough: fn(&Report) -> bool) {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            sleep(Duration::from_millis(50));
            if !self.is_calm() {
                continue;
            }
            let report = self.shared.scribe.judged_so_far();
            let mends = |kind: &Kind| matches!(kind, Kind::Lost | Kind::LostNotice);
            if is_enough(&report) || !report.kinds.keys().all(mends) {
                return;
            }
        }
    }

    /// The end of a run that must have kept every promise. Prints what that proves.
    pub fn ends_clean(&mut self, kills: u32) -> Report {
        self.ends(kills, Report::is_clean)
    }

    /// The same, and nothing is missing either of which somebody was told that it might be.
    pub fn ends_whole(&mut self, kills: u32) -> Report {
        self.ends(kills, |report| {
            report.is_clean() && report.totals.excused == 0
        })
    }

    fn ends(&mut self, kills: u32, is_good: fn(&Report) -> bool) -> Report {
        let report = self.settle(SETTLING, is_good);
        let Cast { name, seed, .. } = self.cast;
        if !is_good(&report) {
            let path = self.shared.scribe.keep(name);
            panic!("{name}, seed {seed}: {}\n{report}", path.display());
        }
        let totals = &report.totals;
        let bound = report.loss_rate_below().unwrap_or(1.0);
        println!(
            "{name}: 0 of {} confirmed messages lost or doubled, {kills} kills, {} faults, seed \
             {seed}: loss below {bound:.1e}",
            totals.confirmed, totals.faults
        );
        assert!(totals.judged > 0, "nothing was proven: {report}");
        report
    }

    /// The end of a run with a node that breaks a promise in one of these ways.
    pub fn ends_broken(&mut self, kinds: &[Kind]) {
        let report = self.settle(Duration::from_secs(5), Report::is_clean);
        let Cast { name, seed, .. } = self.cast;
        assert!(
            kinds.iter().any(|kind| report.count(*kind) > 0),
            "{name}, seed {seed}: none of {kinds:?} was found\n{report}"
        );
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Also where a test has failed: nobody is to go on talking.
        self.shared.is_over.store(true, Relaxed);
    }
}
