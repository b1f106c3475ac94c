//! Nodes that follow each other on one data directory, and everybody who talks to them.
//!
//! Whatever dies is started again; nobody is told. At the end all talk ceases, everything has its
//! time to arrive, and the history is judged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
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
use crate::support::setup::Folder;
use crate::support::{Node, Setup, eventually, http};

/// Everybody is in it.
pub const GROUP: &str = "team";
/// A device of this name says nothing: whatever its user sends comes from the others.
pub const LISTENER: &str = "watch";
/// Nobody else listens to this key, so a port that another test took over does no harm.
const KEY: &str = "the-key-of-a-run-of-deliveries-0123456789";
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

/// What all threads of a run share.
pub struct Shared {
    pub scribe: Scribe,
    pub users: Vec<String>,
    /// The longest pause between two messages of one device.
    pub pause_ms: u64,
    /// What devices send, one as often as another.
    pub classes: &'static [Class],
    pub key_field: String,
    /// Where the node is, its endpoint and its API; nowhere while there is none.
    node: Mutex<Option<(SocketAddr, SocketAddr)>>,
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
    pub fn door(&self) -> Option<SocketAddr> {
        self.node.lock().unwrap().map(|(ws, _)| ws)
    }

    pub fn api(&self) -> Option<SocketAddr> {
        self.node.lock().unwrap().map(|(_, api)| api)
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

pub struct World {
    name: &'static str,
    home: Folder,
    config: &'static str,
    node: Option<Node>,
    pub shared: Arc<Shared>,
    strings: Vec<(String, Arc<Strings>)>,
    threads: Vec<JoinHandle<()>>,
    pub random: Random,
    seed: u64,
    kills: u32,
}

/// How a world is made.
pub struct Plan {
    /// Of the test: a history that breaks a promise is kept under it.
    pub name: &'static str,
    pub seed: u64,
    pub devices: &'static [(&'static str, &'static str, Manner)],
    /// The longest pause between two messages of one device.
    pub pause_ms: u64,
    pub classes: &'static [Class],
    /// Text of the node's configuration file.
    pub config: &'static str,
    /// What the first node has in its environment.
    pub env: &'static [(&'static str, &'static str)],
}

impl Plan {
    pub fn new(name: &'static str, seed: u64) -> Plan {
        Plan {
            name,
            seed,
            devices: &DEVICES,
            pause_ms: 20,
            classes: &[Class::Single, Class::Single, Class::Group, Class::Push],
            config: "",
            env: &[],
        }
    }

    /// Starts the node, and has everybody talk.
    pub fn begin(self) -> World {
        let mut random = Random::new(self.seed);
        let mut users: Vec<String> = self.devices.iter().map(|d| d.0.to_owned()).collect();
        users.dedup();
        let shared = Arc::new(Shared {
            scribe: Scribe::new(),
            users,
            pause_ms: self.pause_ms,
            classes: self.classes,
            key_field: format!("Authorization: Bearer {KEY}"),
            node: Mutex::default(),
            refusals: Mutex::default(),
            confirmed: AtomicU64::new(0),
            repetitions: AtomicU64::new(0),
            is_talking: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_backend_calm: AtomicBool::new(true),
            connections: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            run: self.seed,
        });
        let mut world = World {
            name: self.name,
            home: Folder::new(),
            config: self.config,
            node: None,
            shared: shared.clone(),
            strings: Vec::new(),
            threads: Vec::new(),
            random: random.clone(),
            seed: self.seed,
            kills: 0,
        };
        world.open(world.setup(self.env).start());
        world.make_group();
        for (number, &who) in (1..).zip(self.devices) {
            let token = world.token(who.0);
            let own = Random::new(self.seed + number);
            let device = Device::new(who, token, shared.clone(), own);
            let strings = device.strings.clone();
            world.strings.push((device.user.clone(), strings));
            world.threads.push(spawn(move || device.live()));
        }
        let own = Random::new(self.seed + 1000 + random.below(1000) as u64);
        let backend = shared.clone();
        world
            .threads
            .push(spawn(move || backend::live(&backend, own)));
        // A device that is not known yet is owed nothing.
        world.await_calm();
        shared.is_talking.store(true, Relaxed);
        world
    }
}

impl World {
    /// A node on the data directory, which nobody uses now.
    fn setup(&self, env: &[(&str, &str)]) -> Setup {
        let setup = Setup::new()
            .args(&["--data-dir", &self.data().display().to_string()])
            .env("THRONG_API_KEY", KEY)
            .config(self.config);
        env.iter()
            .fold(setup, |setup, (name, value)| setup.env(name, value))
    }

    fn open(&mut self, node: Node) {
        *self.shared.node.lock().unwrap() = Some((node.ws, node.api));
        self.node = Some(node);
    }

    pub fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("a node runs")
    }

    pub fn data(&self) -> PathBuf {
        self.home.path("data")
    }

    /// Ends the node with SIGKILL; there is none until the next start.
    pub fn kill(&mut self) {
        self.begin_fault("the node is killed");
        self.node().signal("KILL");
        self.bury();
    }

    fn bury(&mut self) {
        *self.shared.node.lock().unwrap() = None;
        let node = self.node.take().expect("a node runs");
        let (status, _, errors) = node.end();
        assert_eq!(status.code(), None, "it ended by itself: {errors}");
        self.kills += 1;
    }

    /// Another node follows the one that was killed.
    pub fn revive(&mut self, env: &[(&str, &str)]) {
        self.open(self.setup(env).start());
        self.end_fault("the node is killed");
    }

    /// Another one follows that dies by itself, perhaps before it is ready.
    #[cfg(feature = "faults")]
    pub fn revive_until_it_dies(&mut self, env: &[(&str, &str)]) {
        let Ok(node) = self.setup(env).try_start() else {
            self.kills += 1;
            return;
        };
        self.open(node);
        self.end_fault("the node is killed");
        eventually("the node dies", || !self.node().is_running());
        self.begin_fault("the node is killed");
        self.bury();
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
    #[cfg(feature = "faults")]
    pub fn repetitions(&self) -> u64 {
        self.shared.repetitions.load(Relaxed)
    }

    pub fn refusals(&self, reason: &str) -> u64 {
        let refusals = self.shared.refusals.lock().unwrap();
        refusals.get(reason).copied().unwrap_or(0)
    }

    fn post(&mut self, path: &str, body: &Value) -> Value {
        let field = self.shared.key_field.clone();
        let body = body.to_string();
        http::call(self.node().api, "POST", path, &[&field], &body).content()
    }

    fn token(&mut self, user: &str) -> String {
        let order = json!({"userId": user, "ttlSecs": 3600});
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
    fn settle(&mut self, patience: Duration) -> Report {
        self.shared.is_talking.store(false, Relaxed);
        self.shared.scribe.tell(What::Heal {});
        self.await_arrival(patience);
        // What comes again though it was acknowledged shows now.
        self.all_strings().for_each(Strings::tear);
        self.await_arrival(patience);
        let report = self.shared.scribe.judged_so_far();
        self.shared.is_over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("whoever talks has a fault");
        }
        report
    }

    /// Waits until nothing that is owed is missing, or something is wrong that no waiting mends.
    fn await_arrival(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            sleep(Duration::from_millis(50));
            if !self.is_calm() {
                continue;
            }
            let report = self.shared.scribe.judged_so_far();
            let mends = |kind: &Kind| matches!(kind, Kind::Lost | Kind::LostNotice);
            if report.is_clean() || !report.kinds.keys().all(mends) {
                return;
            }
        }
    }

    /// The end of a run that must have kept every promise. Prints what that proves.
    pub fn ends_clean(mut self) -> Report {
        let report = self.settle(SETTLING);
        let World {
            name, seed, kills, ..
        } = &self;
        if !report.is_clean() {
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
        self.end();
        report
    }

    /// Ends the node in order, and has its store checked.
    fn end(&mut self) {
        let node = self.node.take().expect("a node runs");
        node.signal("TERM");
        let (status, _, errors) = node.end();
        assert_eq!(status.code(), Some(0), "{errors}");
        let data = self.data().display().to_string();
        let check = Setup::bare(Folder::new()).args(&["store", "check", "--data-dir", &data]);
        let checked = check.run();
        assert!(checked.status.success(), "{checked:?}");
    }

    /// The end of a run with a node that breaks a promise in one of these ways.
    #[cfg(feature = "faults")]
    pub fn ends_broken(mut self, kinds: &[Kind]) {
        let report = self.settle(Duration::from_secs(5));
        assert!(
            kinds.iter().any(|kind| report.count(*kind) > 0),
            "{}, seed {}: none of {kinds:?} was found\n{report}",
            self.name,
            self.seed
        );
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Also where a test has failed: nobody is to go on talking.
        self.shared.is_over.store(true, Relaxed);
    }
}
