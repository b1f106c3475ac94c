//! How the API reaches clients: by the reactors' mailboxes only.

use std::sync::PoisonError;

use super::Desk;
use crate::command;
use crate::hub::post::{Carrier, Jammed, Selector};
use crate::parts::key::Key;
use crate::protocol::away::Errand;
use crate::protocol::envelope::{Head, MessageId};
use crate::protocol::limits::Limit;

pub struct Courier<'a>(pub(super) &'a Desk);

impl Courier<'_> {
    fn has_room(&mut self) -> Result<(), Jammed> {
        if self.0.services.node.is_out_of_room() {
            self.strike(Limit::NodeQueue);
            return Err(Jammed);
        }
        Ok(())
    }
}

impl Carrier for Courier<'_> {
    fn message_id(&mut self) -> MessageId {
        let ids = self.0.ids.lock();
        ids.unwrap_or_else(PoisonError::into_inner).message_id()
    }

    fn carry(
        &mut self,
        to: &[Key],
        head: Head,
        write: &dyn Fn(&mut Vec<u8>),
    ) -> Result<(), Jammed> {
        self.has_room()?;
        let mut tail = Vec::new();
        write(&mut tail);
        let tail: command::Shared = tail.into();
        let switchboard = &self.0.services.switchboard;
        switchboard.deliver(to, head, &tail).map_err(|_| Jammed)
    }

    fn broadcast(&mut self, frame: Vec<u8>, selector: Option<Selector>) -> Result<(), Jammed> {
        self.has_room()?;
        let switchboard = &self.0.services.switchboard;
        let frame = command::Shared::from(frame);
        let sent = switchboard.broadcast(&frame, selector.clone());
        sent.map_err(|_| Jammed)?;
        self.send_away(Errand::Broadcast { frame, selector });
        Ok(())
    }

    fn send_away(&mut self, errand: Errand) {
        self.0.services.away.send_quietly(errand);
    }

    fn strike(&mut self, limit: Limit) {
        self.0.note_strike(limit);
    }
}
