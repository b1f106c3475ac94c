//! Errands to other nodes: first it is read where users are, then it is published to the nodes
//! where they are. Each step is one pipeline for all errands that waited.
//!
//! Where nobody writes down who is where, everything goes to all nodes, and nobody is known to
//! be missing.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Cmd, Value};

use super::keeper::{Found, Keeper};
use super::word::Voice;
use crate::command::{Bye, HeardBy, Parting, ToReactor};
use crate::hub::others::NodeView;
use crate::protocol::away::{Elsewhere, Errand, Heard, Parcel};
use crate::store::redis::ask::{bytes, number, pairs};
use crate::store::redis::names::{self, ALL, CLIENT, FORMAT, NODE, WATCHER};
use crate::store::redis::{Placed, read_session};

/// What is published for an errand, and how its outcome is made of how many heard it.
enum Sent {
    Carried {
        /// For each parcel: which of the publications are its own.
        parcels: Vec<Vec<usize>>,
    },
    Nothing(Heard),
}

impl Keeper {
    /// Runs errands, and tells what came of them.
    pub(super) fn run_errands(&mut self, partings: Vec<Parting>) {
        let stats = self.around.stats.clone();
        for parting in &partings {
            if let Errand::Rename(uid) = &parting.errand
                && self.around.others.has_directory
            {
                // Where that fails, Redis is away, and everybody is written down when it is back.
                let sessions = self.around.post.roster.sessions(uid);
                let _ = self.rebind(&sessions);
            }
        }
        let places = self.places(&partings);
        let Some(places) = places else {
            stats.errands_lost.add(partings.len() as u64);
            for parting in partings {
                self.tell(parting.reply, Heard::Lost);
            }
            return;
        };
        let mut places = places.into_iter();
        let (mut commands, mut sent) = (Vec::new(), Vec::new());
        for parting in &partings {
            sent.push(self.publish(&parting.errand, &mut places, &mut commands));
        }
        stats.words_out.add(commands.len() as u64);
        let answers = self.ask(&commands);
        for (parting, sent) in partings.into_iter().zip(sent) {
            let heard = match (&answers, sent) {
                (None, _) => Heard::Lost,
                (Some(_), Sent::Nothing(heard)) => heard,
                (Some(answers), Sent::Carried { parcels }) => {
                    let hears = |at: &usize| answers.get(*at).is_some_and(hears);
                    let heard = parcels.iter().map(|of_it| of_it.iter().any(hears));
                    Heard::Carried(heard.collect())
                }
            };
            let is_lost = heard == Heard::Lost;
            stats.errands.add(u64::from(!is_lost));
            stats.errands_lost.add(u64::from(is_lost));
            self.tell(parting.reply, heard);
        }
    }

    /// For each user that the errands name, in order, the sessions elsewhere. None: Redis does
    /// not say.
    fn places(&mut self, partings: &[Parting]) -> Option<Vec<Vec<Placed>>> {
        if !self.around.others.has_directory {
            return self.is_up().then(Vec::new);
        }
        let uids = partings.iter().flat_map(|parting| match &parting.errand {
            Errand::Carry(parcels) => parcels.iter().map(|parcel| parcel.uid.as_str()).collect(),
            Errand::Find(uids) => uids.iter().map(String::as_str).collect(),
            Errand::Kick { uid, .. } => vec![uid.as_str()],
            Errand::Broadcast { .. } | Errand::Watch(_) | Errand::Rename(_) => Vec::new(),
        });
        let look = |uid: &str| {
            let mut cmd = redis::cmd("HGETALL");
            cmd.arg(names::key(&self.options.prefix, CLIENT, uid));
            cmd
        };
        let commands: Vec<Cmd> = uids.map(look).collect();
        let answers = self.ask(&commands)?;
        let found = answers.into_iter().map(|answer| self.read_places(answer));
        let mut found: Vec<Vec<Placed>> = found.collect::<Option<_>>()?;
        self.learn(&found)?;
        let nodes = self.around.others.all();
        for places in &mut found {
            places.retain(|place| is_alive(place, &nodes));
        }
        Some(found)
    }

    fn read_places(&self, answer: Value) -> Option<Vec<Placed>> {
        let places = pairs(answer)?.into_iter().filter_map(|(field, value)| {
            let field = std::str::from_utf8(bytes(&field)?).ok()?;
            read_session(field, bytes(&value)?)
        });
        Some(
            places
                .filter(|place| place.node != self.options.name)
                .collect(),
        )
    }

    /// Reads the leases of nodes that are named and not known, or by another epoch: they may have
    /// come since the table was read.
    fn learn(&mut self, found: &[Vec<Placed>]) -> Option<()> {
        let nodes = self.around.others.all();
        let unknown: BTreeSet<&str> = found
            .iter()
            .flatten()
            .filter(|place| !is_alive(place, &nodes))
            .map(|place| place.node.as_str())
            .collect();
        if unknown.is_empty() {
            return Some(());
        }
        let mut table: BTreeMap<String, NodeView> = nodes
            .iter()
            .map(|node| (node.name.clone(), node.clone()))
            .collect();
        let with_url = |name: &str| {
            let known = table.get(name);
            (
                name.to_owned(),
                known.map_or_else(String::new, |node| node.ws_url.clone()),
            )
        };
        let servers: Vec<_> = unknown.into_iter().map(with_url).collect();
        let leases = self.leases(&servers)?;
        for ((name, _), found) in servers.into_iter().zip(leases) {
            match found {
                Found::Node(node) => table.insert(name, node),
                Found::Nothing | Found::Unread => table.remove(&name),
            };
        }
        self.around.others.set(table.into_values().collect());
        Some(())
    }

    /// Adds what is to be published for one errand.
    fn publish(
        &self,
        errand: &Errand,
        places: &mut impl Iterator<Item = Vec<Placed>>,
        commands: &mut Vec<Cmd>,
    ) -> Sent {
        let has_directory = self.around.others.has_directory;
        match errand {
            Errand::Carry(parcels) => {
                let mut of_each = Vec::with_capacity(parcels.len());
                for parcel in parcels {
                    let start = commands.len();
                    if has_directory {
                        self.publish_to(parcel, &places.next().unwrap_or_default(), commands);
                    } else {
                        commands.push(self.say(ALL, "", self.voice().live(0, parcel)));
                    }
                    of_each.push((start..commands.len()).collect());
                }
                Sent::Carried { parcels: of_each }
            }
            Errand::Broadcast { frame, selector } => {
                let word = self.voice().all(selector.as_ref(), frame);
                commands.push(self.say(ALL, "", word));
                Sent::Nothing(Heard::Carried(Vec::new()))
            }
            Errand::Find(uids) => {
                let mut found = |_| {
                    let places = places.next().unwrap_or_default();
                    let elsewhere = |Placed { node, entry, .. }| Elsewhere { node, entry };
                    places.into_iter().map(elsewhere).collect()
                };
                Sent::Nothing(Heard::Found(uids.iter().map(&mut found).collect()))
            }
            Errand::Kick { uid, session } => {
                let mut places = places.next().unwrap_or_default();
                places.retain(|place| {
                    let name = &place.entry.session;
                    session.as_ref().is_none_or(|session| session == name)
                });
                let mut names = Vec::new();
                for place in places {
                    let session = place.entry.session;
                    let code = Bye::Kicked.close_code();
                    let word = self.voice().close(place.node_epoch, uid, &session, code);
                    commands.push(self.say(NODE, &place.node, word));
                    names.push(session);
                }
                Sent::Nothing(Heard::Kicked(names))
            }
            // It is done already.
            Errand::Rename(_) => Sent::Nothing(Heard::Carried(Vec::new())),
            Errand::Watch(uids) => {
                commands.extend(uids.iter().map(|uid| self.watch(uid)));
                Sent::Nothing(Heard::Carried(Vec::new()))
            }
        }
    }

    /// One publication for each node where the user is, or where the one session is.
    fn publish_to(&self, parcel: &Parcel, places: &[Placed], commands: &mut Vec<Cmd>) {
        let is_meant = |place: &&Placed| {
            let mark = place.entry.mark;
            parcel.only.is_none_or(|only| only == mark)
        };
        let nodes: BTreeMap<&str, u64> = places
            .iter()
            .filter(is_meant)
            .map(|place| (place.node.as_str(), place.node_epoch))
            .collect();
        for (node, epoch) in nodes {
            commands.push(self.say(NODE, node, self.voice().live(epoch, parcel)));
        }
    }

    pub(super) fn voice(&self) -> Voice<'_> {
        Voice(&self.options.name)
    }

    pub(super) fn say(&self, channel: &str, name: &str, word: Vec<u8>) -> Cmd {
        let mut cmd = redis::cmd("PUBLISH");
        cmd.arg(format!("{}{channel}{name}", self.options.prefix));
        cmd.arg(word);
        cmd
    }

    /// Writes down whether anybody here watches a user.
    pub(super) fn watch(&self, uid: &str) -> Cmd {
        let key = names::key(&self.options.prefix, CLIENT, uid);
        let field = format!("{}:{}", char::from(WATCHER), self.options.name);
        if self.around.post.watches.watchers(uid).is_empty() {
            let mut cmd = redis::cmd("HDEL");
            cmd.arg(key).arg(field);
            return cmd;
        }
        let mut cmd = redis::cmd("HSET");
        let epoch = self.lease.lives.present();
        cmd.arg(key).arg(field).arg(format!("{FORMAT} {epoch}"));
        cmd
    }

    fn tell(&mut self, reply: HeardBy, heard: Heard) {
        match reply {
            HeardBy::Nobody => {}
            HeardBy::Call(call) => call(heard),
            HeardBy::Session { key, ticket } => {
                let mail = ToReactor::Heard {
                    to: key,
                    ticket,
                    heard,
                };
                // A reactor that is so far behind answers nobody now; direct messages have no
                // receipt that would be missed.
                let told = self.around.switchboard.send(key.reactor(), mail);
                self.around.stats.dropped.add(u64::from(told.is_err()));
            }
        }
    }
}

/// Somebody has heard a publication.
fn hears(answer: &Value) -> bool {
    number(answer).is_some_and(|count| count > 0)
}

/// What was written down counts if the node's lease is that of the same life.
fn is_alive(place: &Placed, nodes: &[NodeView]) -> bool {
    let node = nodes.iter().find(|node| node.name == place.node);
    node.is_some_and(|node| node.epoch == place.node_epoch)
}
