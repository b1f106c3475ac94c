//! The one group of a world, as the judge is to know it: who is in it for sure, and who may be.

use throng::inbox::records::{Group as Record, decode};
use throng::inbox::rows::{self, Rows};
use throng_history::{Sent, What};

use crate::book::Book;
use crate::client::Client;
use crate::rig::feed::Chance;

pub const NAME: &str = "team";

#[derive(Default)]
pub struct Group {
    /// None: nobody knows yet that there is one.
    members: Vec<String>,
    change: Option<Change>,
}

/// A change that was asked for, until it is done or never will be.
struct Change {
    /// Whose membership is open; none where the group is made.
    of: Option<String>,
    /// Which client asked, on which connection.
    client: usize,
    connection: u64,
}

impl Group {
    pub fn has(&self, user: &str) -> bool {
        self.members.iter().any(|member| member == user)
    }

    pub fn is_made(&self) -> bool {
        !self.members.is_empty()
    }

    pub fn is_changing(&self) -> bool {
        self.change.is_some()
    }

    /// A message is about to be sent. Whoever comes or goes meanwhile may get it and need not.
    pub fn write_send(&self, sent: Sent, connection: Option<u64>, book: &mut Book) {
        let send = What::Send { sent, connection };
        let Some(of) = self.change.as_ref().and_then(|change| change.of.clone()) else {
            return book.write(send);
        };
        let mut without = self.members.clone();
        without.retain(|member| *member != of);
        let with = [without.clone(), vec![of]].concat();
        write(with, book);
        book.write(send);
        write(without, book);
    }

    /// Asks for a change through `client`, the `at`-th one: makes the group, or takes a user in,
    /// or lets the client's own go.
    pub fn ask(
        &mut self,
        at: usize,
        client: &mut Client,
        everybody: &[String],
        kept: &dyn Rows,
        book: &mut Book,
        chance: &mut Chance,
    ) {
        let Some(connection) = client.connection() else {
            return;
        };
        let (text, of) = if !self.is_made() {
            let all = everybody.join(",");
            let text = format!(
                r#"{{"type":3,"params":{{"groupId":"{NAME}","userIdList":"{all}"}},"requestId":"group"}}"#
            );
            (text, None)
        } else if !self.has(&client.user) || has_work(kept) {
            // What was accepted for who leaves has come to its inbox before.
            return;
        } else if let Some(absent) = everybody.iter().find(|user| !self.has(user)) {
            let text = format!(
                r#"{{"type":14,"params":{{"groupId":"{NAME}","userIdList":"{absent}"}},"requestId":"group"}}"#
            );
            (text, Some(absent.clone()))
        } else {
            let text = format!(
                r#"{{"type":14,"params":{{"groupId":"{NAME}","leave":true}},"requestId":"group"}}"#
            );
            (text, Some(client.user.clone()))
        };
        if let Some(of) = &of {
            // What is not confirmed by now need not come to who leaves.
            let mut without = self.members.clone();
            without.retain(|member| member != of);
            write(without, book);
            write([self.members.clone(), vec![of.clone()]].concat(), book);
        }
        client.say(&text, chance);
        self.change = Some(Change {
            of,
            client: at,
            connection,
        });
    }

    /// Looks whether the change is done, or never will be, and who is in the group then.
    /// `is_under_way`: a node has not got an answer from its store.
    pub fn settle(
        &mut self,
        clients: &[Client],
        is_under_way: bool,
        kept: &dyn Rows,
        book: &mut Book,
    ) {
        let Some(change) = &self.change else {
            return;
        };
        let line = clients[change.client].line.as_ref();
        let line = line.filter(|line| line.link.connection == change.connection);
        let is_on_its_way = line.is_some_and(|line| !line.up.is_empty());
        if is_on_its_way || is_under_way {
            return;
        }
        self.change = None;
        self.read(kept, book);
    }

    /// The group is as the store has it.
    pub fn read(&mut self, kept: &dyn Rows, book: &mut Book) {
        let row = kept.get(&rows::group(NAME)).unwrap();
        let record = row.map(|row| decode::<Record>("group", &row).unwrap());
        self.members = record.map(|record| record.members).unwrap_or_default();
        write(self.members.clone(), book);
    }
}

fn has_work(kept: &dyn Rows) -> bool {
    let from = rows::work_of(NAME);
    let mut has_work = false;
    kept.scan(&from, &rows::end_of(from.clone()), &mut |_, _| {
        has_work = true;
        false
    })
    .unwrap();
    has_work
}

fn write(members: Vec<String>, book: &mut Book) {
    let group = NAME.to_owned();
    book.write(What::Group { group, members });
}
