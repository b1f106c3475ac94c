//! Broadcast frames that some connections of a reactor have not been handed yet.
//!
//! Owns: the frames, oldest first, and a cursor that goes round the slots. A connection keeps
//! the number of the frame it is due next, so one visit hands it everything since, in one write.
//! Invariants: a frame leaves when the cursor has been at every slot that was there when it came.

use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Default)]
pub struct Ring {
    frames: VecDeque<Entry>,
    /// Number of the oldest frame; the numbers wrap.
    first: u32,
    lap: u64,
    cursor: usize,
}

struct Entry {
    frame: Arc<[u8]>,
    /// Lap and slot at which everybody has it.
    done: (u64, usize),
}

impl Ring {
    /// The number of the next frame to come: where a newcomer starts.
    pub fn head(&self) -> u32 {
        self.first.wrapping_add(self.frames.len() as u32)
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub fn push(&mut self, frame: Arc<[u8]>) {
        self.frames.push_back(Entry {
            frame,
            done: (self.lap + 1, self.cursor),
        });
    }

    /// The slot to visit next, of `slots` (which never become fewer). None when there is nothing to hand out.
    pub fn visit(&mut self, slots: usize) -> Option<usize> {
        if self.frames.is_empty() {
            return None;
        }
        if slots == 0 {
            return None;
        }
        let slot = self.cursor;
        self.cursor += 1;
        if self.cursor >= slots {
            self.cursor = 0;
            self.lap += 1;
        }
        Some(slot)
    }

    /// Frames that a connection at `position` is due, oldest first.
    pub fn due(&self, position: u32) -> impl ExactSizeIterator<Item = &Arc<[u8]>> {
        let from = position.wrapping_sub(self.first) as usize;
        self.frames
            .range(from.min(self.frames.len())..)
            .map(|entry| &entry.frame)
    }

    /// Drops what everybody has, and returns its bytes.
    pub fn trim(&mut self, slots: usize) -> usize {
        let here = (self.lap, self.cursor);
        let mut bytes = 0;
        while let Some(entry) = self.frames.front() {
            if slots > 0 && here < entry.done {
                break;
            }
            bytes += entry.frame.len();
            self.frames.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: u8) -> Arc<[u8]> {
        Arc::from([n])
    }

    #[test]
    fn everybody_gets_every_frame_once_and_late_frames_share_a_visit() {
        const SLOTS: usize = 10;
        let mut ring = Ring::default();
        let mut positions = [ring.head(); SLOTS];
        let mut got = vec![Vec::new(); SLOTS];
        let mut visits = 0;
        ring.push(frame(1));
        let mut pending = vec![frame(3), frame(2)];
        while let Some(slot) = ring.visit(SLOTS) {
            visits += 1;
            got[slot].extend(ring.due(positions[slot]).map(|f| f[0]));
            positions[slot] = ring.head();
            ring.trim(SLOTS);
            if visits % 3 == 0
                && let Some(next) = pending.pop()
            {
                ring.push(next);
            }
        }
        assert!(got.iter().all(|frames| frames == &[1, 2, 3]), "{got:?}");
        assert_eq!(
            visits,
            SLOTS + 6,
            "one lap from the arrival of the last frame"
        );
        assert!(ring.is_empty());
    }

    #[test]
    fn nobody_there_means_that_everybody_has_it() {
        let mut ring = Ring::default();
        ring.push(frame(1));
        assert_eq!(ring.visit(0), None);
        assert_eq!(ring.trim(0), 1);
        assert!(ring.is_empty());
    }
}
