//! What one peer is owed and its socket has not taken: made when it is needed, gone when empty.
//!
//! Owns: pieces in the order of sending, either its own bytes or a share of a frame.
//! Invariants: bytes leave in the order they came; a frame that was begun is finished.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use super::time::Tick;

/// Bytes of a recycled buffer that are worth keeping.
const KEEP_BYTES: usize = 1 << 10;
/// Own bytes that are gathered in one piece.
const PIECE_BYTES: usize = 16 << 10;

#[derive(Default)]
pub struct Outbox {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that are gone already.
    sent_of_first: usize,
    bytes: usize,
    /// When the socket last took something.
    pub moved: Tick,
}

enum Piece {
    Own(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Own(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }
}

impl Outbox {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.own().extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    /// Lets `write` append to the queue's own bytes.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let own = self.own();
        let before = own.len();
        write(own);
        let added = own.len().saturating_sub(before);
        self.bytes += added;
    }

    /// Appends the part of a shared frame that is not `sent` yet. Only the first piece may be
    /// begun, so `sent` must be 0 unless the outbox is empty.
    pub fn push_shared(&mut self, frame: Arc<[u8]>, sent: usize) {
        debug_assert!(sent == 0 || self.is_empty());
        if self.is_empty() {
            self.pieces.clear();
            self.sent_of_first = sent;
        }
        self.bytes += frame.len() - sent;
        self.pieces.push_back(Piece::Shared(frame));
    }

    fn own(&mut self) -> &mut Vec<u8> {
        // Past a piece's size a new one is begun, so that what was sent is let go.
        if !matches!(self.pieces.back(), Some(Piece::Own(own)) if own.len() < PIECE_BYTES) {
            self.pieces.push_back(Piece::Own(Vec::new()));
        }
        match self.pieces.back_mut() {
            Some(Piece::Own(bytes)) => bytes,
            _ => unreachable!("an own piece was just made"),
        }
    }

    /// Fills `slices` with what comes next and returns how many it filled.
    pub fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.sent_of_first;
        let mut filled = 0;
        for piece in &self.pieces {
            let bytes = &piece.bytes()[skip..];
            skip = 0;
            if bytes.is_empty() {
                continue;
            }
            let Some(slice) = slices.get_mut(filled) else {
                break;
            };
            *slice = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    /// `count` bytes were taken by the socket.
    pub fn advance(&mut self, count: usize) {
        debug_assert!(count <= self.bytes);
        self.bytes -= count;
        let mut left = self.sent_of_first + count;
        while let Some(first) = self.pieces.front() {
            let length = first.bytes().len();
            if left < length {
                break;
            }
            left -= length;
            if self.pieces.len() == 1 && matches!(first, Piece::Own(_)) {
                break;
            }
            self.pieces.pop_front();
        }
        self.sent_of_first = left;
        if self.bytes == 0 {
            self.sent_of_first = 0;
            if let Some(Piece::Own(own)) = self.pieces.front_mut() {
                own.clear();
            }
        }
    }

    /// Drops everything but the rest of a frame that was begun: what is pushed next follows it
    /// as a frame of its own. `frame_len` tells the length of the frame at the start of bytes.
    pub fn drop_unbegun(&mut self, frame_len: impl Fn(&[u8]) -> usize) {
        if self.is_empty() {
            return;
        }
        let skip = self.sent_of_first;
        let Some(first) = self.pieces.pop_front() else {
            return;
        };
        let bytes = first.bytes();
        let mut end = 0;
        while end < skip {
            end += frame_len(&bytes[end..]).max(1);
        }
        let rest = bytes[skip..end.clamp(skip, bytes.len())].to_vec();
        self.pieces.clear();
        self.bytes = rest.len();
        self.sent_of_first = 0;
        self.pieces.push_back(Piece::Own(rest));
    }

    /// Ready for another connection.
    pub fn recycle(&mut self) {
        debug_assert!(self.is_empty());
        self.pieces.truncate(1);
        if !matches!(self.pieces.front(), Some(Piece::Own(own)) if own.capacity() <= KEEP_BYTES) {
            self.pieces.clear();
        }
        self.pieces.shrink_to(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = outbox.gather(&mut slices);
        slices[..filled].iter().flat_map(|s| s.to_vec()).collect()
    }

    #[test]
    fn short_writes_of_any_length_keep_the_order() {
        for step in 1..9 {
            let mut outbox = Outbox::default();
            let mut expected: Vec<u8> = Vec::new();
            let mut sent: Vec<u8> = Vec::new();
            for round in 0..20u8 {
                outbox.push(&[round; 3]);
                outbox.push_shared(Arc::from([round + 100; 5]), 0);
                expected.extend([round; 3]);
                expected.extend([round + 100; 5]);
                let taken = all(&outbox);
                let count = taken.len().min(step);
                sent.extend(&taken[..count]);
                outbox.advance(count);
            }
            while !outbox.is_empty() {
                let taken = all(&outbox);
                let count = taken.len().min(step);
                sent.extend(&taken[..count]);
                outbox.advance(count);
            }
            assert_eq!(sent, expected);
            outbox.recycle();
            assert_eq!(outbox.len(), 0);
        }
    }

    #[test]
    fn a_begun_frame_is_finished_when_the_rest_is_dropped() {
        // Frames of the length that their first byte says.
        let frame_len = |bytes: &[u8]| bytes[0] as usize;
        let mut outbox = Outbox::default();
        outbox.push(&[3, 1, 1]);
        outbox.push(&[4, 2, 2, 2]);
        outbox.push(&[2, 9]);
        outbox.advance(5);
        outbox.drop_unbegun(frame_len);
        outbox.push(&[7]);
        assert_eq!(all(&outbox), [2, 2, 7]);

        let mut outbox = Outbox::default();
        outbox.push(&[3, 1, 1]);
        outbox.push_shared(Arc::from([2, 2]), 0);
        outbox.drop_unbegun(frame_len);
        assert!(outbox.is_empty(), "nothing was begun");
    }

    #[test]
    fn a_frame_begun_elsewhere_goes_on_from_there() {
        let mut outbox = Outbox::default();
        outbox.push_shared(Arc::from([1, 2, 3, 4]), 3);
        outbox.push(&[5]);
        assert_eq!((all(&outbox), outbox.len()), (vec![4, 5], 2));
    }
}
