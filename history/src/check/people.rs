//! The book of those who send and receive: users, their devices, connections and groups.
//!
//! Owns: for each device what it has seen of its inbox, in a size that does not grow while
//! entries come in order. A connection is forgotten when it is closed.

use std::collections::{HashMap, HashSet};

use super::names::{Names, Ranges};
use crate::event::{Link, Place};

#[derive(Default)]
pub struct User {
    pub devices: Vec<u32>,
    /// The furthest seq that a device has acknowledged everything up to. A new epoch goes on
    /// counting where the old one was, so one number is enough.
    pub passed: u64,
}

#[derive(Default)]
pub struct Device {
    pub user: u32,
    /// Its number among the user's devices.
    pub seat: u32,
    pub opened_line: u64,
    /// The last line at which it was told that something may be missing.
    pub gap_line: u64,
    /// Connections that it has now.
    pub links: u32,
    /// It was connected when the history was drained.
    pub is_live: bool,
    /// The furthest place that the application got something from.
    pub delivered: Option<(u32, u64)>,
    /// A place that is known to have come out of order.
    pub out_of_order: Option<(u32, u64)>,
    /// Places that may be missing: of messages to groups that it sent itself, and does not get.
    pub own_places: u64,
    seen: Vec<(u32, Ranges)>,
}

impl Device {
    /// The places that came in this epoch, or are known to be its own.
    pub fn seen(&mut self, epoch: u32) -> &mut Ranges {
        let at = match self.seen.iter().position(|(of, _)| *of == epoch) {
            Some(at) => at,
            None => {
                self.seen.push((epoch, Ranges::default()));
                self.seen.len() - 1
            }
        };
        &mut self.seen[at].1
    }
}

pub struct Connection {
    pub device: u32,
    pub opened_ms: u64,
    /// The last place that came, or the cursor.
    pub last: Option<(u32, u64)>,
    /// Since then it was told that something may be missing.
    pub is_told: bool,
    /// The head of its inbox when it was last told so: any place up to there may be missing, not
    /// only the first ones, because of notices the oldest are dropped wherever they stand.
    pub told_head: Option<(u32, u64)>,
    /// Places that were left out, and may still come.
    pub holes: Vec<Hole>,
    /// Acknowledgements that are not answered.
    pub acks: u64,
}

#[derive(Clone, Copy)]
pub struct Hole {
    pub epoch: u32,
    pub from: u64,
    pub until: u64,
    pub line: u64,
}

#[derive(Default)]
pub struct Group {
    /// The members, as they were one after the other.
    versions: Vec<HashSet<u32>>,
    seats: HashMap<u32, u32>,
    /// Of the messages that a device has: the line on which the latest was sent.
    pub latest: HashMap<u32, u64>,
}

impl Group {
    pub fn version(&self) -> u32 {
        self.versions.len().saturating_sub(1) as u32
    }

    pub fn change(&mut self, members: HashSet<u32>) {
        self.versions.push(members);
    }

    /// Who was in it all the time between two versions.
    pub fn members_throughout(&self, from: u32, to: u32) -> Vec<u32> {
        let versions = self.versions.get(from as usize..=to as usize);
        let Some((first, rest)) = versions.and_then(<[_]>::split_first) else {
            return Vec::new();
        };
        let stays = |user: &&u32| rest.iter().all(|members| members.contains(*user));
        let mut members: Vec<u32> = first.iter().filter(stays).copied().collect();
        members.sort_unstable();
        members
    }

    /// The seat of a device whose user was in it at some time since.
    pub fn seat_since(&mut self, version: u32, user: u32, device: u32) -> Option<u32> {
        let since = self.versions.get(version as usize..)?;
        if !since.iter().any(|members| members.contains(&user)) {
            return None;
        }
        let next = self.seats.len() as u32;
        Some(*self.seats.entry(device).or_insert(next))
    }

    pub fn seat(&self, device: u32) -> Option<u32> {
        self.seats.get(&device).copied()
    }
}

#[derive(Default)]
pub struct People {
    pub user_names: Names,
    pub users: Vec<User>,
    pub device_names: Names,
    pub devices: Vec<Device>,
    pub connections: HashMap<u64, Connection>,
    pub group_names: Names,
    pub groups: Vec<Group>,
    pub epochs: Names,
    scratch: String,
}

impl People {
    pub fn user(&mut self, name: &str) -> u32 {
        let user = self.user_names.number(name);
        if user as usize == self.users.len() {
            self.users.push(User::default());
        }
        user
    }

    pub fn group(&mut self, name: &str) -> u32 {
        let group = self.group_names.number(name);
        if group as usize == self.groups.len() {
            self.groups.push(Group::default());
        }
        group
    }

    pub fn device(&mut self, user: &str, device: &str, line: u64) -> u32 {
        let user = self.user(user);
        self.scratch.clear();
        self.scratch += self.user_names.name(user);
        // A user's name has no such character.
        self.scratch.push('/');
        self.scratch += device;
        let number = self.device_names.number(&self.scratch);
        if number as usize == self.devices.len() {
            let devices = &mut self.users[user as usize].devices;
            self.devices.push(Device {
                user,
                seat: devices.len() as u32,
                opened_line: line,
                ..Device::default()
            });
            devices.push(number);
        }
        number
    }

    /// The device of a connection that is open, and is what it says.
    pub fn linked(&self, on: &Link) -> Option<u32> {
        let device = self.connections.get(&on.connection)?.device;
        let name = self.device_names.name(device);
        let of_user = name.strip_prefix(on.user.as_str())?;
        (of_user.strip_prefix('/') == Some(on.device.as_str())).then_some(device)
    }

    /// A message to a group was sent on this connection, whose device does not get it.
    pub fn note_own(&mut self, connection: Option<u64>) {
        let found = connection.and_then(|number| self.connections.get(&number));
        if let Some(Connection { device, .. }) = found {
            self.devices[*device as usize].own_places += 1;
        }
    }

    pub fn place(&mut self, place: &Place) -> (u32, u64) {
        (self.epochs.number(&place.epoch), place.seq)
    }

    pub fn pass(&mut self, user: u32, seq: u64) {
        let passed = &mut self.users[user as usize].passed;
        *passed = seq.max(*passed);
    }

    /// The user's live devices that are owed what was sent at this line: those that were there,
    /// and the user's first, for whom everything is kept until it comes.
    pub fn owed(&self, user: u32, sent_line: u64) -> impl Iterator<Item = (u32, &Device)> {
        let devices = &self.users[user as usize].devices;
        devices
            .iter()
            .map(|&number| (number, &self.devices[number as usize]))
            .filter(move |(_, d)| d.is_live && (d.opened_line < sent_line || d.seat == 0))
    }
}
