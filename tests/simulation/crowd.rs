//! Those who use a simulated gateway, whatever stands behind it: three users, each with up to
//! three devices, and the one group that they have.
//!
//! Owns: what they have in mind to say. Neighbours: a world connects them, and carries what they
//! say.

use throng::inbox::rows::Rows;
use throng_history::{Class, Sent, What};

use crate::book::Book;
use crate::client::{Client, Manner};
use crate::group::{self, Group};
use crate::rig::feed::Chance;

/// One in so many times, who has something to say has very much to say.
const BURST_IN: u64 = 500;
/// The device that comes first where a user has several.
const FIRST: &str = "phone";

pub struct Crowd {
    pub clients: Vec<Client>,
    pub users: Vec<String>,
    group: Group,
    /// Messages that were confirmed, for those who misuse them.
    confirmed: Vec<Sent>,
}

impl Crowd {
    pub fn new(chance: &mut Chance) -> Crowd {
        let users: Vec<String> = ["ann", "bob", "cid"].map(str::to_owned).into();
        Crowd {
            clients: clients_of(&users, chance),
            users,
            group: Group::default(),
            confirmed: Vec::new(),
        }
    }

    /// Nobody is anonymous: a device without a name that finds nothing is not written down.
    pub fn name_all(&mut self) {
        for client in &mut self.clients {
            client.device.get_or_insert_with(|| "tablet".to_owned());
        }
    }

    /// Of those who have several devices the first: it is the first that the gateway knows and
    /// the judge hears of. Who has one may come when it likes.
    pub fn firsts(&self) -> Vec<usize> {
        let is_first = |at: &usize| {
            let client = &self.clients[*at];
            let of_user = self
                .clients
                .iter()
                .filter(|other| other.user == client.user);
            of_user.count() > 1 && client.device.as_deref() == Some(FIRST)
        };
        (0..self.clients.len()).filter(is_first).collect()
    }

    pub fn any_client(&self, chance: &mut Chance) -> usize {
        chance.below(self.clients.len() as u64) as usize
    }

    fn any_user(&self, chance: &mut Chance) -> String {
        let at = chance.below(self.users.len() as u64) as usize;
        self.users[at].clone()
    }

    /// Looks whether a change of the group is done.
    pub fn settle(&mut self, is_under_way: bool, kept: &dyn Rows, book: &mut Book) {
        self.group.settle(&self.clients, is_under_way, kept, book);
    }

    /// The store has forgotten something: the group is as it has it.
    pub fn read_group(&mut self, kept: &dyn Rows, book: &mut Book) {
        self.group.read(kept, book);
    }

    /// Everybody is connected, has said everything, and has acknowledged what came.
    pub fn is_done(&self) -> bool {
        let is_done = |client: &Client| {
            client.line.is_some()
                && client.has_said_all()
                && (client.unacked.is_empty() || client.manner == Manner::Plain)
        };
        self.clients.iter().all(is_done)
    }

    /// A client does, in a healed world, what it has not done.
    pub fn behave(&mut self, at: usize, book: &mut Book, chance: &mut Chance) {
        let client = &mut self.clients[at];
        if client.is_out() {
            client.come_or_go(chance);
        }
        if client.manner == Manner::Mute {
            client.manner = Manner::Singly;
        }
        for _ in 0..4 {
            client.acknowledge(book, chance);
        }
        self.send(at, book, chance);
    }

    /// A client that is connected does something.
    pub fn act(&mut self, at: usize, kept: &dyn Rows, book: &mut Book, chance: &mut Chance) {
        match chance.below(21) {
            0..6 => {
                let to = self.any_user(chance);
                let class = match chance.below(4) {
                    0 => Class::Push,
                    _ => Class::Single,
                };
                // Sometimes more than a window holds.
                let count = match chance.below(BURST_IN) {
                    0 => 90,
                    _ => 1,
                };
                for _ in 0..count {
                    self.clients[at].compose(class, &to);
                    self.send(at, book, chance);
                }
            }
            6..9 if self.group.has(&self.clients[at].user) => {
                for _ in 0..1 + chance.below(4) {
                    self.clients[at].compose(Class::Group, group::NAME);
                    self.send(at, book, chance);
                }
            }
            6..=9 if !self.group.is_changing() => {
                let client = &mut self.clients[at];
                self.group.ask(at, client, &self.users, kept, book, chance);
            }
            10..12 => self.send(at, book, chance),
            12..19 => self.clients[at].acknowledge(book, chance),
            19 => self.clients[at].come_or_go(chance),
            _ => self.misbehave(at, book, chance),
        }
    }

    pub fn send(&mut self, at: usize, book: &mut Book, chance: &mut Chance) {
        let client = &mut self.clients[at];
        let Some(sent) = client.send_next(book, chance) else {
            return;
        };
        let connection = client.connection();
        if self.confirmed.len() < 8 {
            self.confirmed.push(sent.clone());
        }
        match sent.class {
            Class::Group => self.group.write_send(sent, connection, book),
            Class::Single | Class::Push => book.write(What::Send { sent, connection }),
        }
    }

    /// Acknowledges what is somebody else's, or sends something else under a msgid that is taken.
    fn misbehave(&mut self, at: usize, book: &mut Book, chance: &mut Chance) {
        let own = self.clients[at].user.clone();
        let others = self.clients.iter().filter(|other| other.user != own);
        // What was said to a group has one id for all, and may be its own as well.
        let ids: Vec<String> = others
            .flat_map(|other| &other.unacked)
            .filter(|known| known.class != Class::Group)
            .map(|known| known.id.clone())
            .collect();
        let is_own = |sent: &&Sent| sent.sender == own;
        let client = &mut self.clients[at];
        if chance.below(2) == 0 && !ids.is_empty() {
            let id = ids[chance.below(ids.len() as u64) as usize].clone();
            client.acknowledge_ids(&[id], book, chance);
        } else if let Some(sent) = self.confirmed.iter().find(is_own)
            && sent.msgid.starts_with(client.device_name())
        {
            client.compose_other(sent);
            self.send(at, book, chance);
        }
    }
}

/// Up to three devices for each user.
fn clients_of(users: &[String], chance: &mut Chance) -> Vec<Client> {
    let mut clients = Vec::new();
    for user in users {
        let count = 1 + chance.below(3) as usize;
        // One who has several is known by the first of them, which has a name.
        let anonymous = match count {
            1 => chance.below(2) as usize,
            _ => 1 + chance.below(3) as usize,
        };
        for (at, name) in [FIRST, "desk", "old"].into_iter().take(count).enumerate() {
            let device = (at != anonymous).then_some(name);
            let manner = match chance.below(12) {
                0..3 => Manner::Plain,
                3..6 => Manner::Singly,
                6..9 => Manner::Together,
                9..11 => Manner::UpTo,
                _ => Manner::Mute,
            };
            clients.push(Client::new(user, device, manner, chance.below(3) > 0));
        }
    }
    clients
}
