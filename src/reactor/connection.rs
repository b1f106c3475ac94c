//! A socket, its session, and what its peer is still owed.

use std::io::{self, IoSlice, Write};

use mio::net::TcpStream;

use crate::parts::outbox::Outbox;
use crate::parts::ring::Ring;
use crate::parts::time::Tick;
use crate::session::Session;

/// Pieces that one write carries at most.
const SLICES_MAX: usize = 16;

pub struct Connection {
    pub stream: TcpStream,
    pub session: Session,
    /// Only while something is owed.
    pub outbox: Option<Box<Outbox>>,
    /// The number of the next broadcast frame that is due here.
    pub position: u32,
    /// It stands in the reactor's list of those to flush.
    pub is_dirty: bool,
    /// The socket said that it is full, and has not said otherwise.
    pub is_blocked: bool,
    /// The poll tells when the socket has room again: asked for when it was full first.
    pub is_watched_for_room: bool,
    /// Reading was put off because too much is owed.
    pub is_paused: bool,
    /// It is counted among those who have not said who they are.
    pub is_stranger: bool,
}

// Density is a promise: this is what one connection takes of the slab.
const _: () = assert!(size_of::<Connection>() <= if cfg!(debug_assertions) { 144 } else { 120 });

/// What a flush wrote.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flushed {
    pub bytes: usize,
    pub writes: u64,
    pub broadcasts: u64,
}

impl Connection {
    pub fn new(stream: TcpStream, session: Session, position: u32) -> Connection {
        Connection {
            stream,
            session,
            outbox: None,
            position,
            is_dirty: false,
            is_blocked: false,
            is_watched_for_room: false,
            is_paused: false,
            is_stranger: false,
        }
    }

    /// Bytes owed, broadcasts that it has not been handed aside.
    pub fn owed(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.len())
    }

    /// Writes what is owed and, to who is online, the broadcasts that are due: as much as the
    /// socket takes, one vectored write for all of it. What it does not take is owed from then
    /// on; the frames themselves stay shared.
    ///
    /// Errors: the socket is dead.
    pub fn flush(
        &mut self,
        ring: &Ring,
        now: Tick,
        fresh: &mut impl FnMut() -> Box<Outbox>,
    ) -> io::Result<Flushed> {
        let mut flushed = Flushed::default();
        let is_online = self.session.is_online();
        if !is_online {
            self.position = ring.head();
        }
        while !self.is_blocked {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let owed = self
                .outbox
                .as_ref()
                .map_or(0, |outbox| outbox.gather(&mut slices));
            let mut filled = owed;
            let is_all_owed = owed < SLICES_MAX;
            if is_all_owed {
                for frame in ring.due(self.position).take(SLICES_MAX - filled) {
                    slices[filled] = IoSlice::new(frame);
                    filled += 1;
                }
            }
            let written = match &slices[..filled] {
                [] => return Ok(flushed),
                [one] => (&self.stream).write(one),
                several => (&self.stream).write_vectored(several),
            };
            let written = match written {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    0
                }
                Err(error) => return Err(error),
            };
            let wanted: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            self.is_blocked |= written < wanted;
            flushed.writes += 1;
            flushed.bytes += written;
            flushed.broadcasts += self.account(written, ring, now, fresh);
        }
        // What cannot be written now is owed: the ring lets go of a frame after one round.
        flushed.broadcasts += self.owe_due(ring, now, fresh);
        Ok(flushed)
    }

    /// Moves the broadcasts that are due to what is owed, and returns how many there were: what
    /// is owed from now on comes after them.
    pub fn owe_due(
        &mut self,
        ring: &Ring,
        now: Tick,
        fresh: &mut impl FnMut() -> Box<Outbox>,
    ) -> u64 {
        let due = ring.due(self.position);
        let count = due.len() as u64;
        if count > 0 {
            let outbox = self.outbox.get_or_insert_with(fresh);
            if outbox.is_empty() {
                outbox.moved = now;
            }
            due.for_each(|frame| outbox.push_shared(frame.clone(), 0));
            self.position = ring.head();
        }
        count
    }

    /// Takes `written` bytes off what is owed, then off the broadcasts due; returns how many of
    /// these were begun.
    fn account(
        &mut self,
        mut written: usize,
        ring: &Ring,
        now: Tick,
        fresh: &mut impl FnMut() -> Box<Outbox>,
    ) -> u64 {
        if let Some(outbox) = &mut self.outbox {
            let of_outbox = written.min(outbox.len());
            outbox.advance(of_outbox);
            written -= of_outbox;
            if of_outbox > 0 {
                outbox.moved = now;
            }
        }
        let mut begun = 0;
        while written > 0 {
            let Some(frame) = ring.due(self.position).next() else {
                break;
            };
            self.position = self.position.wrapping_add(1);
            begun += 1;
            if written < frame.len() {
                let outbox = self.outbox.get_or_insert_with(&mut *fresh);
                outbox.push_shared(frame.clone(), written);
                outbox.moved = now;
            }
            written -= written.min(frame.len());
        }
        begun
    }
}
