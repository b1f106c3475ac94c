//! The order of acceptance, once everything is known: whoever was answered before another began
//! stands before it in a receiver's inbox, and so do messages that one connection sent one after
//! the other.

use std::collections::HashMap;

use super::Judge;
use super::ledger::Message;
use crate::report::Kind;

impl Judge {
    pub(super) fn judge_orders(&mut self) {
        let messages = &self.ledger.messages;
        let at = |number: u32| &messages[number as usize];
        let mut stored: Vec<u32> = (0..messages.len() as u32)
            .filter(|&number| at(number).place.is_some())
            // What the store may have forgotten took its place when it was repeated.
            .filter(|&number| at(number).attempts == 1 || !self.may_be_forgotten(number))
            .collect();
        stored.sort_unstable_by_key(|&number| (at(number).to, at(number).place));
        let mut wrong = Vec::new();
        for inbox in stored.chunk_by(|&a, &b| log(at(a)) == log(at(b))) {
            find_wrong(messages, inbox, &mut wrong);
        }
        for (before, after) in wrong {
            let text = format!(
                "{} stands behind {}, which was accepted after it",
                self.describe(before),
                self.describe(after)
            );
            self.report.add(Kind::Reordered, 0, || text);
        }
    }
}

/// The log in which a message stands.
fn log(message: &Message) -> (u32, Option<u32>) {
    (message.to, message.place.map(|(epoch, _)| epoch))
}

/// Goes through one inbox from its end; what is found are pairs in their true order.
fn find_wrong(messages: &[Message], inbox: &[u32], wrong: &mut Vec<(u32, u32)>) {
    let mut answered_first: Option<(u64, u32)> = None;
    let mut sent_first: HashMap<u64, (u64, u32)> = HashMap::new();
    for &number in inbox.iter().rev() {
        let message = &messages[number as usize];
        if let Some((line, other)) = answered_first
            && line < message.sent_line
        {
            wrong.push((other, number));
        } else if let Some(connection) = message.connection
            && message.attempts == 1
        {
            // One that was repeated took its place at some attempt or other.
            let first = sent_first.entry(connection);
            let first = first.or_insert((message.sent_line, number));
            if first.0 < message.sent_line {
                wrong.push((first.1, number));
            } else {
                *first = (message.sent_line, number);
            }
        }
        if message.confirmed > 0
            && answered_first.is_none_or(|(line, _)| message.confirmed_line < line)
        {
            answered_first = Some((message.confirmed_line, number));
        }
    }
}
