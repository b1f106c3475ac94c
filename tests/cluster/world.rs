//! A cluster, and a crowd of clients that talk to all of its nodes whatever breaks.
//!
//! Each break is written into the history as a fault, so that nothing is expected meanwhile.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::thread::sleep;
use std::time::Duration;

use throng_history::{Class, Report};

use crate::crowd::{CLASSES, Cast, Crowd, DEVICES, Door};
use crate::nodes::Cluster;
use crate::random::seed;
use crate::server::Server;
use crate::support::{Node, eventually};

pub const NODES: usize = 3;
/// What Redis has confirmed is on its disk.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// Nobody's inbox gets full while a node or the server stands still: what is missing is lost.
const ROOM: [(&str, &str); 2] = [
    ("THRONG_LIMITS__INBOX_ENTRIES_MAX", "50000"),
    ("THRONG_LIMITS__INBOX_BYTES_MAX", "268435456"),
];

pub struct World {
    pub cluster: Cluster,
    crowd: Crowd,
    kills: u32,
}

impl World {
    pub fn begin(name: &'static str) -> World {
        World::of(name, 20, &CLASSES)
    }

    /// `pause_ms`: the longest pause between two messages of one device.
    pub fn of(name: &'static str, pause_ms: u64, classes: &'static [Class]) -> World {
        World::with(name, pause_ms, classes, &[])
    }

    /// Three nodes with more in their environment, and everybody talks.
    pub fn with(
        name: &'static str,
        pause_ms: u64,
        classes: &'static [Class],
        env: &[(&'static str, &'static str)],
    ) -> World {
        let env = [&ROOM, env].concat();
        let mut world = World {
            cluster: Cluster::over(Server::with(&DURABLE), NODES, &env),
            crowd: Crowd::new(Cast {
                name,
                seed: seed(),
                devices: &DEVICES,
                pause_ms,
                classes,
            }),
            kills: 0,
        };
        (0..NODES).for_each(|seat| world.cluster.open(seat));
        world.tell_doors();
        world.crowd.begin();
        world
    }

    /// Clients find the nodes that there are.
    fn tell_doors(&self) {
        let door = |node: &Node| Door {
            ws: node.ws,
            api: node.api,
        };
        self.shared
            .set_doors(self.cluster.nodes().map(door).collect());
    }

    /// The number of any node.
    pub fn any_seat(&mut self) -> usize {
        self.crowd.random.below(NODES)
    }

    /// Kills a node; there is none in its seat until the next start.
    pub fn kill(&mut self, seat: usize) {
        self.begin_fault("a node is killed");
        self.cluster.kill(seat);
        self.note_death();
    }

    fn note_death(&mut self) {
        self.kills += 1;
        self.tell_doors();
    }

    pub fn revive(&mut self, seat: usize) {
        self.cluster.open(seat);
        self.tell_doors();
        self.end_fault("a node is killed");
    }

    /// A node that is told to die at a point of its program takes the seat of one that was killed.
    /// Another one is to follow it.
    pub fn revive_until_it_dies(&mut self, seat: usize, crash: &str) {
        let setup = self.cluster.setup(seat).env("THRONG_CRASH_AT", crash);
        if let Ok(node) = setup.try_start() {
            self.cluster.seat(seat, node);
            self.tell_doors();
            while self.cluster.is_running(seat) {
                // Somebody finds the way to it.
                self.tear_somebody();
            }
            self.cluster.bury(seat);
        }
        self.note_death();
    }

    /// A client loses its connection, and comes back at any door.
    pub fn tear_somebody(&mut self) {
        let count = self.all_strings().count();
        let number = self.random.below(count);
        let device = self.all_strings().nth(number).unwrap();
        device.tear();
        eventually("the connection is torn", || device.is_torn());
        sleep(self.random.millis(20, 150));
    }

    /// Ends a node in order, and another one follows it.
    pub fn restart(&mut self, seat: usize) {
        self.cluster.drain(seat);
        self.tell_doors();
        self.cluster.open(seat);
        self.tell_doors();
    }

    /// A node stands still for so long.
    pub fn stop_node(&mut self, seat: usize, during: Duration) {
        self.begin_fault("a node stands still");
        self.cluster.node(seat).signal("STOP");
        sleep(during);
        self.cluster.node(seat).signal("CONT");
        self.end_fault("a node stands still");
    }

    /// Redis stands still for so long.
    pub fn stop_redis(&mut self, during: Duration) {
        self.begin_fault("Redis stands still");
        self.cluster.redis.signal("STOP");
        sleep(during);
        self.cluster.redis.signal("CONT");
        self.end_fault("Redis stands still");
    }

    /// Redis dies, and comes back after so long with all that it had confirmed.
    pub fn kill_redis(&mut self, during: Duration) {
        self.begin_fault("Redis is killed");
        self.cluster.redis.kill();
        sleep(during);
        self.cluster.redis.restart();
        self.end_fault("Redis is killed");
    }

    /// The same, and it has lost everything.
    pub fn empty_redis(&mut self) {
        self.begin_fault("Redis is emptied");
        self.cluster.redis.kill();
        let dir = &self.cluster.redis.dir;
        // Under the name that the server's version gives it.
        let _ = fs::remove_dir_all(dir.join("appendonlydir"));
        let _ = fs::remove_file(dir.join("appendonly.aof"));
        self.cluster.redis.restart();
        self.end_fault("Redis is emptied");
    }

    /// All nodes lose the connections on which they hear each other, so many times.
    pub fn cut_the_bus(&mut self, times: u32) {
        for _ in 0..times {
            let _: u32 = self.cluster.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            sleep(self.random.millis(50, 400));
        }
    }

    /// No node hears another one, nor itself, for so long, while all else goes on.
    pub fn silence_the_bus(&mut self, during: Duration) {
        self.begin_fault("the bus is silent");
        let user = ["ACL", "SETUSER", "throng"];
        self.cluster
            .redis
            .command(&[&user[..], &["-subscribe"]].concat());
        self.cut_the_bus(1);
        sleep(during);
        self.cluster
            .redis
            .command(&[&user[..], &["+subscribe"]].concat());
        self.cut_the_bus(1);
        self.end_fault("the bus is silent");
    }

    /// The end of a run that must have kept every promise, but for what clients were told that
    /// they might miss. All nodes end in order.
    pub fn ends_clean(mut self) -> Report {
        let kills = self.kills;
        let report = self.crowd.ends_clean(kills);
        self.end();
        report
    }

    /// The same, and nothing is missing at all.
    pub fn ends_whole(mut self) -> Report {
        let kills = self.kills;
        let report = self.crowd.ends_whole(kills);
        self.end();
        report
    }

    fn end(&mut self) {
        (0..NODES).for_each(|seat| self.cluster.drain(seat));
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
