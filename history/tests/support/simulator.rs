//! A correct system with everything that may happen to it: connections that break, answers that
//! get lost, refusals, repetitions, members who come and go, a store that loses and says so.
//!
//! It is written down as clients would see it. The same seed gives the same history.

use std::collections::{BTreeMap, BTreeSet};

use throng_history::{Class, Entry, Event, Link, Place, Sent, What};

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }

    fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }
}

#[derive(Clone)]
enum Body {
    Message { sent: Sent, origin: u64 },
    Notice { by: String },
}

#[derive(Clone)]
struct Stored {
    id: String,
    body: Body,
    is_dropped: bool,
}

#[derive(Default)]
struct Device {
    name: String,
    connection: Option<u64>,
    /// How many entries the application has processed, and in which epoch it believes to be.
    cursor: Option<Place>,
    /// The entry that comes next on this connection.
    next: usize,
    needs_resync: bool,
    has: BTreeSet<String>,
    /// Acknowledgements that the gateway has not read yet.
    acks: Vec<String>,
}

#[derive(Default)]
struct User {
    name: String,
    epoch: u64,
    log: Vec<Stored>,
    devices: Vec<Device>,
    /// Messages whose sender has been told.
    told: BTreeSet<String>,
}

struct Pending {
    sent: Sent,
    /// Its connection while an answer may still come.
    asked_on: Option<u64>,
}

pub struct World {
    random: Random,
    now: u64,
    pub events: Vec<Event>,
    users: Vec<User>,
    members: BTreeSet<usize>,
    accepted: BTreeMap<(usize, String, String), String>,
    pending: Vec<Pending>,
    number: u64,
}

/// A whole history of so many steps.
pub fn history(seed: u64, steps: usize) -> Vec<Event> {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.settle();
    world.events
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let users = (0..3 + random.below(3)).map(|n| User {
            name: format!("user{n}"),
            epoch: 1,
            devices: (0..1 + n % 3)
                .map(|d| Device {
                    name: format!("d{d}"),
                    ..Device::default()
                })
                .collect(),
            ..User::default()
        });
        let users: Vec<User> = users.collect();
        let mut world = World {
            random,
            now: 1_000_000,
            events: Vec::new(),
            members: (0..users.len()).collect(),
            users,
            accepted: BTreeMap::new(),
            pending: Vec::new(),
            number: 0,
        };
        world.tell_members();
        // What is sent before a device is known is none of its business, so all are.
        for user in 0..world.users.len() {
            for device in 0..world.users[user].devices.len() {
                world.open(user, device);
            }
        }
        world
    }

    fn step(&mut self) {
        self.now += self.random.below(300) as u64;
        let user = self.random.below(self.users.len());
        let device = self.random.below(self.users[user].devices.len());
        match self.random.below(100) {
            0..=1 => self.close(user, device),
            2..=5 => self.open(user, device),
            6..=22 => self.send_new(user),
            23..=32 => self.repeat(),
            33..=34 => self.lose(user),
            35 => self.change_members(),
            36 => self.fault(),
            37..=60 => self.read_acks(user, device),
            _ => self.come(user, device),
        }
    }

    /// Heals, connects all, repeats what is open and waits until everything has come.
    fn settle(&mut self) {
        self.write(What::Heal {});
        for user in 0..self.users.len() {
            for device in 0..self.users[user].devices.len() {
                self.open(user, device);
            }
        }
        while !self.pending.is_empty() {
            self.repeat();
        }
        // Acknowledgements beget notices, and these come as well.
        for _ in 0..2 {
            for user in 0..self.users.len() {
                for device in 0..self.users[user].devices.len() {
                    while self.users[user].devices[device].next < self.users[user].log.len() {
                        self.come(user, device);
                    }
                    while !self.users[user].devices[device].acks.is_empty() {
                        self.read_acks(user, device);
                    }
                }
            }
        }
        self.write(What::Drained {});
    }

    fn write(&mut self, what: What) {
        let at = self.now;
        self.events.push(Event { at, what });
    }

    fn link(&self, user: usize, device: usize) -> Option<Link> {
        let (user, device) = (&self.users[user], &self.users[user].devices[device]);
        Some(Link {
            user: user.name.clone(),
            device: device.name.clone(),
            connection: device.connection?,
        })
    }

    fn open(&mut self, user: usize, device: usize) {
        if self.users[user].devices[device].connection.is_some() {
            return;
        }
        self.number += 1;
        let epoch = self.users[user].epoch.to_string();
        let found = &mut self.users[user].devices[device];
        found.connection = Some(self.number);
        let cursor = found.cursor.clone();
        let is_elsewhere = cursor.as_ref().is_some_and(|place| place.epoch != epoch);
        found.next = cursor.as_ref().map_or(0, |place| place.seq as usize);
        let needs_resync = std::mem::take(&mut found.needs_resync) || is_elsewhere;
        let Some(on) = self.link(user, device) else {
            return;
        };
        let passed = cursor.clone().filter(|_| !is_elsewhere);
        let (name, of) = (on.user.clone(), on.device.clone());
        if let Some(place) = passed {
            self.write(What::Pass {
                user: name,
                device: of,
                place: place.clone(),
            });
            self.write(What::Open { on, cursor });
            for at in 0..place.seq as usize {
                self.beget(user, at);
            }
        } else {
            self.write(What::Open { on, cursor });
        }
        if needs_resync {
            self.resync(user, device);
        }
    }

    fn resync(&mut self, user: usize, device: usize) {
        let Some(on) = self.link(user, device) else {
            return;
        };
        let (epoch, head) = (self.users[user].epoch, self.users[user].log.len() as u64);
        let from = self.users[user].devices[device].next as u64 + 1;
        self.write(What::Gap {
            on,
            epoch: epoch.to_string(),
            head_seq: head,
            from,
        });
    }

    fn close(&mut self, user: usize, device: usize) {
        let Some(on) = self.link(user, device) else {
            return;
        };
        self.users[user].devices[device].connection = None;
        self.users[user].devices[device].acks.clear();
        let mut lost = Vec::new();
        for pending in &mut self.pending {
            if pending.asked_on == Some(on.connection) {
                pending.asked_on = None;
                lost.push(pending.sent.clone());
            }
        }
        for sent in lost {
            self.write(What::Unknown { sent });
        }
        self.write(What::Close { on });
    }

    fn send_new(&mut self, user: usize) {
        self.number += 1;
        let class = [Class::Single, Class::Single, Class::Group, Class::Push][self.random.below(4)];
        if class == Class::Group && !self.members.contains(&user) {
            return;
        }
        let to = match class {
            Class::Group => "group".to_owned(),
            _ => self.users[self.random.below(self.users.len())].name.clone(),
        };
        let sender = match class {
            Class::Push => "system".to_owned(),
            _ => self.users[user].name.clone(),
        };
        let sent = Sent {
            class,
            sender,
            msgid: format!("m{}", self.number),
            to,
        };
        self.attempt(sent);
    }

    fn repeat(&mut self) {
        let open: Vec<usize> = (0..self.pending.len())
            .filter(|&n| self.pending[n].asked_on.is_none())
            .collect();
        if open.is_empty() {
            return;
        }
        let at = open[self.random.below(open.len())];
        let pending = self.pending.remove(at);
        self.attempt(pending.sent);
    }

    /// The message is sent; it is accepted or not, and the sender hears of it or not.
    fn attempt(&mut self, sent: Sent) {
        let sender = self.users.iter().position(|user| user.name == sent.sender);
        let links = sender.map(|sender| {
            let devices = &self.users[sender].devices;
            devices.iter().find_map(|device| device.connection)
        });
        let connection = match links {
            Some(None) => {
                let asked_on = None;
                return self.pending.push(Pending { sent, asked_on });
            }
            Some(Some(connection)) => Some(connection),
            None => None,
        };
        let again = sent.clone();
        self.write(What::Send {
            sent: sent.clone(),
            connection,
        });
        if self.random.percent(10) {
            let definite = self.random.percent(80);
            if !definite && self.random.percent(50) {
                self.accept(sender, &sent, connection);
            }
            self.write(What::Failed {
                sent,
                definite,
                code: 503,
            });
            return self.pending.push(Pending {
                sent: again,
                asked_on: None,
            });
        }
        if self.random.percent(10) {
            if self.random.percent(50) {
                self.accept(sender, &sent, connection);
            }
            if connection.is_none() {
                self.write(What::Unknown { sent });
            }
            self.pending.push(Pending {
                sent: again,
                asked_on: connection,
            });
            return self.break_off(connection);
        }
        let (message_id, dup) = self.accept(sender, &sent, connection);
        self.write(What::Confirmed {
            sent,
            message_id,
            dup,
        });
    }

    /// An answer that is lost takes its connection along.
    fn break_off(&mut self, connection: Option<u64>) {
        let Some(connection) = connection else { return };
        for user in 0..self.users.len() {
            for device in 0..self.users[user].devices.len() {
                if self.users[user].devices[device].connection == Some(connection) {
                    self.close(user, device);
                    self.open(user, device);
                }
            }
        }
    }

    fn accept(
        &mut self,
        sender: Option<usize>,
        sent: &Sent,
        origin: Option<u64>,
    ) -> (String, bool) {
        let key = (
            sender.map_or(0, |sender| sender + 1),
            sent.msgid.clone(),
            sent.to.clone(),
        );
        if let Some(id) = self.accepted.get(&key) {
            return (id.clone(), true);
        }
        self.number += 1;
        let id = format!("id{}", self.number);
        self.accepted.insert(key, id.clone());
        let receivers: Vec<usize> = match sent.class {
            Class::Group => self.members.iter().copied().collect(),
            _ => (0..self.users.len())
                .filter(|&n| self.users[n].name == sent.to)
                .collect(),
        };
        for receiver in receivers {
            self.users[receiver].log.push(Stored {
                id: id.clone(),
                body: Body::Message {
                    sent: sent.clone(),
                    origin: origin.filter(|_| sent.class == Class::Group).unwrap_or(0),
                },
                is_dropped: false,
            });
        }
        (id, false)
    }

    /// The next entry comes to a device.
    fn come(&mut self, user: usize, device: usize) {
        let Some(on) = self.link(user, device) else {
            return;
        };
        let at = self.users[user].devices[device].next;
        let Some(stored) = self.users[user].log.get(at).cloned() else {
            return;
        };
        self.users[user].devices[device].next += 1;
        let place = Place {
            epoch: self.users[user].epoch.to_string(),
            seq: at as u64 + 1,
        };
        let is_own =
            matches!(&stored.body, Body::Message { origin, .. } if *origin == on.connection);
        if stored.is_dropped || is_own {
            return;
        }
        let found = &mut self.users[user].devices[device];
        found.cursor = Some(place.clone());
        let entry = Entry {
            place,
            redelivered: found.has.contains(&stored.id),
            message_id: stored.id.clone(),
        };
        match stored.body {
            Body::Notice { by } => self.write(What::Notify { on, entry, by }),
            Body::Message { sent, .. } => {
                let is_new = found.has.insert(stored.id.clone());
                let acks = self.random.percent(95);
                self.write(What::Receive {
                    on: on.clone(),
                    entry: entry.clone(),
                });
                if is_new {
                    self.write(What::Deliver {
                        on: on.clone(),
                        entry,
                        sent,
                    });
                }
                if acks {
                    self.users[user].devices[device]
                        .acks
                        .push(stored.id.clone());
                    let message_id = stored.id;
                    self.write(What::Ack { on, message_id });
                }
            }
        }
    }

    /// The gateway reads one acknowledgement, in whatever order.
    fn read_acks(&mut self, user: usize, device: usize) {
        let count = self.users[user].devices[device].acks.len();
        let Some(on) = self.link(user, device).filter(|_| count > 0) else {
            return;
        };
        let at = self.random.below(count);
        let message_id = self.users[user].devices[device].acks.remove(at);
        let log = &self.users[user].log;
        let at = log.iter().position(|stored| stored.id == message_id);
        let is_held = at.is_some_and(|at| !log[at].is_dropped);
        if let Some(at) = at {
            self.beget(user, at);
        }
        self.write(What::Answered {
            on,
            message_id,
            status: if is_held { 200 } else { 404 },
        });
    }

    /// The sender of a single chat hears once that it was acknowledged.
    fn beget(&mut self, user: usize, at: usize) {
        let stored = self.users[user].log[at].clone();
        let Body::Message { sent, .. } = stored.body else {
            return;
        };
        let is_told = sent.class != Class::Single || stored.is_dropped;
        if is_told || !self.users[user].told.insert(stored.id.clone()) {
            return;
        }
        let by = self.users[user].name.clone();
        if let Some(sender) = self.users.iter_mut().find(|u| u.name == sent.sender) {
            sender.log.push(Stored {
                id: stored.id,
                body: Body::Notice { by },
                is_dropped: false,
            });
        }
    }

    /// The store loses what a user has not got yet, and says so by a new epoch.
    fn lose(&mut self, user: usize) {
        self.users[user].epoch += 1;
        let got = &self.users[user].devices;
        let processed = got
            .iter()
            .map(|device| device.cursor.as_ref().map_or(0, |c| c.seq));
        let passed = processed.min().unwrap_or(0) as usize;
        for stored in &mut self.users[user].log[passed..] {
            stored.is_dropped = true;
        }
        for device in 0..self.users[user].devices.len() {
            if self.users[user].devices[device].connection.is_some() {
                self.resync(user, device);
            } else {
                self.users[user].devices[device].needs_resync = true;
            }
        }
    }

    fn change_members(&mut self) {
        let who = self.random.below(self.users.len());
        if !self.members.remove(&who) {
            self.members.insert(who);
        }
        self.tell_members();
    }

    fn tell_members(&mut self) {
        let members = self.members.iter().map(|&n| self.users[n].name.clone());
        let members = members.collect();
        self.write(What::Group {
            group: "group".to_owned(),
            members,
        });
    }

    /// Something breaks for a while; nothing comes meanwhile.
    fn fault(&mut self) {
        let fault = "a node is killed".to_owned();
        self.write(What::FaultStart {
            fault: fault.clone(),
        });
        self.now += 200_000;
        self.write(What::FaultStop { fault });
    }
}
