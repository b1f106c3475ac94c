//! A slab that grows by pages: nothing moves when it grows, and a page is filled before the
//! next one is made, so its slack is a page and never half of everything.
//!
//! Owns: its values, in pages of `slab::Slab`.
//! Invariants: an index stays with its value until that is removed.

use slab::Slab;

/// Bytes of a page: a size that the allocator neither rounds up nor pads.
pub const PAGE_BYTES: usize = 12 << 10;

pub struct Pages<T, const BYTES: usize = PAGE_BYTES> {
    pages: Vec<Slab<T>>,
    /// Pages that have room, each once.
    roomy: Vec<u32>,
    len: usize,
}

impl<T, const BYTES: usize> Default for Pages<T, BYTES> {
    fn default() -> Pages<T, BYTES> {
        Pages {
            pages: Vec::new(),
            roomy: Vec::new(),
            len: 0,
        }
    }
}

/// Laid out as slab's own entries are, to know their size.
#[expect(dead_code, reason = "only its size is asked for")]
enum Entry<T> {
    Vacant(usize),
    Occupied(T),
}

impl<T, const BYTES: usize> Pages<T, BYTES> {
    const PAGE: usize = BYTES / size_of::<Entry<T>>();

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Slots that exist, in use or not: every index is below.
    pub fn slots(&self) -> usize {
        self.pages.len() * Self::PAGE
    }

    pub fn get(&self, index: usize) -> Option<&T> {
        self.pages.get(index / Self::PAGE)?.get(index % Self::PAGE)
    }

    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.pages
            .get_mut(index / Self::PAGE)?
            .get_mut(index % Self::PAGE)
    }

    /// Puts `value` into a free slot and returns its index.
    pub fn insert(&mut self, value: T) -> usize {
        if self.roomy.is_empty() {
            self.roomy.push(self.pages.len() as u32);
            self.pages.push(Slab::with_capacity(Self::PAGE));
        }
        let number = self.roomy[self.roomy.len() - 1];
        let page = &mut self.pages[number as usize];
        let index = page.insert(value);
        if page.len() == Self::PAGE {
            self.roomy.pop();
        }
        self.len += 1;
        number as usize * Self::PAGE + index
    }

    pub fn remove(&mut self, index: usize) -> Option<T> {
        let page = self.pages.get_mut(index / Self::PAGE)?;
        let value = page.try_remove(index % Self::PAGE)?;
        if page.len() == Self::PAGE - 1 {
            self.roomy.push((index / Self::PAGE) as u32);
        }
        self.len -= 1;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_stay_and_freed_slots_are_used_again() {
        let mut pages: Pages<usize, 2048> = Pages::default();
        let page = 2048 / size_of::<Entry<usize>>();
        let indices: Vec<usize> = (0..2000).map(|n| pages.insert(n)).collect();
        assert_eq!(
            (pages.len(), pages.slots()),
            (2000, 2000usize.div_ceil(page) * page)
        );
        for (n, &index) in indices.iter().enumerate() {
            assert_eq!(pages.get(index), Some(&n));
        }
        for &index in indices.iter().step_by(3) {
            assert!(pages.remove(index).is_some());
            assert_eq!(pages.remove(index), None);
        }
        for n in 0..667 {
            pages.insert(n);
        }
        assert_eq!(
            (pages.len(), pages.slots()),
            (2000, 2000usize.div_ceil(page) * page)
        );
        assert_eq!(pages.get(5000), None);
    }
}
