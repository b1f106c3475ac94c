//! Nodes that follow each other on one data directory, and everybody who talks to them.
//!
//! Whatever dies is started again; nobody is told. At the end all talk ceases, everything has its
//! time to arrive, and the history is judged.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

#[cfg(feature = "faults")]
use throng_history::Kind;
use throng_history::{Class, Report};

pub use crate::crowd::DEVICES;
use crate::crowd::{CLASSES, Cast, Crowd, Door, KEY};
use crate::device::Manner;
#[cfg(feature = "faults")]
use crate::support::eventually;
use crate::support::setup::Folder;
use crate::support::{Node, Setup};

pub struct World {
    crowd: Crowd,
    home: Folder,
    config: &'static str,
    node: Option<Node>,
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
            classes: &CLASSES,
            config: "",
            env: &[],
        }
    }

    /// Starts the node, and has everybody talk.
    pub fn begin(self) -> World {
        let mut world = World {
            crowd: Crowd::new(Cast {
                name: self.name,
                seed: self.seed,
                devices: self.devices,
                pause_ms: self.pause_ms,
                classes: self.classes,
            }),
            home: Folder::new(),
            config: self.config,
            node: None,
            kills: 0,
        };
        world.open(world.setup(self.env).start());
        world.crowd.begin();
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
        let (ws, api) = (node.ws, node.api);
        self.shared.set_doors(vec![Door { ws, api }]);
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
        self.shared.set_doors(Vec::new());
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

    /// The end of a run that must have kept every promise.
    pub fn ends_clean(mut self) -> Report {
        let kills = self.kills;
        let report = self.crowd.ends_clean(kills);
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
        self.crowd.ends_broken(kinds);
    }
}

impl Deref for World {
    type Target = Crowd;

    fn deref(&self) -> &Crowd {
        &self.crowd
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Crowd {
        &mut self.crowd
    }
}
