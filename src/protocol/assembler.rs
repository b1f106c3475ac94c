//! Bytes of a client → messages and control frames (RFC 6455 sections 5 and 6.2).
//!
//! Owns: nothing while frames arrive whole, which is unmasked and handed on where it lies; a
//! boxed [`Torn`] while a frame or a message is incomplete.
//! Invariants: any split of the same bytes gives the same events; UTF-8 fails at the exact byte;
//! memory grows only as bytes arrive; every limit is checked before anything is kept.

use std::ops::Range;

use smallvec::SmallVec;

use super::frame::{CONTROL_BYTES_MAX, HEADER_BYTES_MAX, Header, Opcode};
use super::mask;
use super::utf8::Utf8;
use super::violation::Violation;
use crate::parts::time::Tick;

/// Readable bytes that must follow what was read: the JSON parser looks ahead.
pub const PADDING: usize = 64;

/// Reads frames off a buffer; lives in the connection.
#[derive(Default)]
pub struct Assembler {
    torn: Option<Box<Torn>>,
}

/// What is limited here. Sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub message_bytes_max: usize,
    pub fragments_max: u32,
}

/// The bytes of one read, of which `at..filled` are still to be taken; [`PADDING`] readable
/// bytes follow.
pub struct Input<'a> {
    pub buffer: &'a mut [u8],
    pub at: usize,
    pub filled: usize,
}

impl Input<'_> {
    fn rest(&self) -> &[u8] {
        &self.buffer[self.at..self.filled]
    }

    fn take(&mut self, count: usize) -> Range<usize> {
        let start = self.at;
        self.at += count;
        start..self.at
    }
}

/// Something whole that the client sent.
#[derive(Debug)]
pub enum Event {
    /// A text or binary message that lies in the buffer.
    InPlace(Opcode, Range<usize>),
    /// A message that arrived in pieces, with [`PADDING`] bytes behind it.
    Assembled(Opcode, Vec<u8>),
    Control(Opcode, SmallVec<[u8; 16]>),
}

/// A frame or message that is not complete.
struct Torn {
    since: Tick,
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    frame: Option<Partial>,
    control: SmallVec<[u8; 16]>,
    /// The message that was begun: its opcode, fragments so far, text state and bytes.
    message: Option<Opcode>,
    fragments: u32,
    utf8: Utf8,
    body: Vec<u8>,
}

struct Partial {
    header: Header,
    /// Payload bytes that came.
    done: u64,
}

impl Assembler {
    /// Since when something is incomplete.
    pub fn torn_since(&self) -> Option<Tick> {
        self.torn.as_ref().map(|torn| torn.since)
    }

    /// Keeps the start of a request head: before the upgrade there are no frames to keep.
    pub fn keep_head(&mut self, head: Vec<u8>, now: Tick) {
        self.torn = Some(Box::new(Torn {
            body: head,
            ..Torn::new(now)
        }));
    }

    pub fn take_head(&mut self) -> Option<Vec<u8>> {
        self.torn.take().map(|torn| torn.body)
    }

    /// The next event; `None` when the input is used up.
    pub fn next(
        &mut self,
        input: &mut Input<'_>,
        bounds: &Bounds,
        now: Tick,
    ) -> Result<Option<Event>, Violation> {
        if self.torn.is_none() {
            if input.at == input.filled {
                return Ok(None);
            }
            if let Some(event) = whole_frame(input, bounds)? {
                return Ok(Some(event));
            }
        }
        let torn = self.torn.get_or_insert_with(|| Box::new(Torn::new(now)));
        let event = torn.next(input, bounds)?;
        if torn.is_idle() {
            self.torn = None;
        }
        Ok(event)
    }
}

/// The fast path: one unfragmented frame that lies whole in the buffer, unmasked in place.
fn whole_frame(input: &mut Input<'_>, bounds: &Bounds) -> Result<Option<Event>, Violation> {
    let Some(header) = Header::parse(input.rest())? else {
        return Ok(None);
    };
    check(&header, None, 0, bounds)?;
    let is_here = header.length <= (input.rest().len() - header.size) as u64;
    if !is_here || !header.is_final {
        return Ok(None);
    }
    input.take(header.size);
    let range = input.take(header.length as usize);
    let payload = &mut input.buffer[range.clone()];
    mask::apply(payload, header.mask, 0);
    if header.opcode.is_control() {
        return Ok(Some(Event::Control(
            header.opcode,
            SmallVec::from_slice(payload),
        )));
    }
    if header.opcode == Opcode::Text && simdutf8::basic::from_utf8(payload).is_err() {
        return Err(Violation::BadUtf8);
    }
    Ok(Some(Event::InPlace(header.opcode, range)))
}

/// Whether a frame may follow what was begun, and fits.
fn check(
    header: &Header,
    message: Option<Opcode>,
    body_bytes: usize,
    bounds: &Bounds,
) -> Result<(), Violation> {
    if header.opcode.is_control() {
        return Ok(());
    }
    if (header.opcode == Opcode::Continuation) != message.is_some() {
        return Err(Violation::BadSequence);
    }
    if header.length > (bounds.message_bytes_max - body_bytes.min(bounds.message_bytes_max)) as u64
    {
        return Err(Violation::TooBig);
    }
    Ok(())
}

impl Torn {
    fn new(now: Tick) -> Torn {
        Torn {
            since: now,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            frame: None,
            control: SmallVec::new(),
            message: None,
            fragments: 0,
            utf8: Utf8::default(),
            body: Vec::new(),
        }
    }

    /// Nothing is begun: the state may go.
    fn is_idle(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message.is_none()
    }

    fn next(&mut self, input: &mut Input<'_>, bounds: &Bounds) -> Result<Option<Event>, Violation> {
        loop {
            if self.frame.is_none() && !self.read_header(input, bounds)? {
                return Ok(None);
            }
            if !self.read_payload(input)? {
                return Ok(None);
            }
            if let Some(event) = self.finish_frame()? {
                return Ok(Some(event));
            }
        }
    }

    /// True when a header is complete and legal; the frame is then begun.
    fn read_header(&mut self, input: &mut Input<'_>, bounds: &Bounds) -> Result<bool, Violation> {
        let header = loop {
            if let Some(header) = Header::parse(&self.header[..self.header_len])? {
                break header;
            }
            if input.at == input.filled {
                return Ok(false);
            }
            self.header[self.header_len] = input.buffer[input.at];
            self.header_len += 1;
            input.at += 1;
        };
        self.header_len = 0;
        check(&header, self.message, self.body.len(), bounds)?;
        if !header.opcode.is_control() {
            self.fragments += 1;
            if self.fragments > bounds.fragments_max {
                return Err(Violation::TooManyFragments);
            }
            if header.opcode != Opcode::Continuation {
                self.message = Some(header.opcode);
            }
        }
        self.frame = Some(Partial { header, done: 0 });
        Ok(true)
    }

    /// True when the frame's payload is complete.
    fn read_payload(&mut self, input: &mut Input<'_>) -> Result<bool, Violation> {
        let Some(Partial { header, done }) = &mut self.frame else {
            return Ok(false);
        };
        let left = header.length - *done;
        let count = left.min((input.filled - input.at) as u64) as usize;
        let range = input.take(count);
        let chunk = &mut input.buffer[range];
        mask::apply(chunk, header.mask, (*done % 4) as usize);
        *done += count as u64;
        let is_complete = *done == header.length;
        if header.opcode.is_control() {
            debug_assert!(self.control.len() + count <= CONTROL_BYTES_MAX);
            self.control.extend_from_slice(chunk);
        } else {
            if self.message == Some(Opcode::Text) {
                self.utf8.feed(chunk)?;
            }
            self.body.extend_from_slice(chunk);
        }
        Ok(is_complete)
    }

    fn finish_frame(&mut self) -> Result<Option<Event>, Violation> {
        let Some(Partial { header, .. }) = self.frame.take() else {
            return Ok(None);
        };
        if header.opcode.is_control() {
            return Ok(Some(Event::Control(
                header.opcode,
                std::mem::take(&mut self.control),
            )));
        }
        if !header.is_final {
            return Ok(None);
        }
        let Some(opcode) = self.message.take() else {
            return Ok(None);
        };
        std::mem::take(&mut self.utf8).finish()?;
        self.fragments = 0;
        let mut body = std::mem::take(&mut self.body);
        body.extend_from_slice(&[0; PADDING]);
        Ok(Some(Event::Assembled(opcode, body)))
    }
}
