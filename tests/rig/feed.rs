//! How bytes arrive: whole, one by one, or in pieces that a seed decides.

/// A sequence that its seed decides (splitmix64).
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 up to, not with, `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }
}

#[derive(Clone, Debug)]
pub enum Feed {
    Whole,
    ByteByByte,
    /// Pieces of any length, mostly short ones. The seed is kept for whoever reads a failure.
    Split {
        seed: u64,
        chance: Chance,
    },
    /// Pieces of these lengths in turn, then the rest.
    Cuts(Vec<usize>),
}

impl Feed {
    pub fn split(seed: u64) -> Feed {
        Feed::Split {
            seed,
            chance: Chance(seed),
        }
    }

    /// All the ways in which a case is fed.
    pub fn all() -> impl Iterator<Item = Feed> {
        let seeds = (1..=6).map(Feed::split);
        [Feed::Whole, Feed::ByteByByte].into_iter().chain(seeds)
    }

    /// Length of the next piece of `left` bytes, 1 at least.
    pub fn piece(&mut self, left: usize) -> usize {
        let length = match self {
            Feed::Whole => left,
            Feed::ByteByByte => 1,
            Feed::Split { chance, .. } => {
                let scale = 1 << chance.below(16);
                1 + chance.below(scale) as usize
            }
            Feed::Cuts(lengths) if lengths.is_empty() => left,
            Feed::Cuts(lengths) => lengths.remove(0),
        };
        length.clamp(1, left.max(1))
    }
}

/// Splits what a fuzzer made into a feed and the rest: a count, and so many lengths of pieces.
pub fn cuts(data: &[u8]) -> (Feed, &[u8]) {
    let Some((&count, rest)) = data.split_first() else {
        return (Feed::Whole, data);
    };
    let (lengths, rest) = rest.split_at(rest.len().min(usize::from(count % 32)));
    let lengths = lengths.iter().map(|&length| usize::from(length)).collect();
    (Feed::Cuts(lengths), rest)
}
