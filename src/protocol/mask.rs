//! Masking of client frames (RFC 6455 section 5.3), eight bytes at a time.

/// XORs `bytes` with the repeated `mask`, whose first byte applied falls at `offset` of the
/// payload (so that a payload may be unmasked in pieces). Its own inverse.
pub fn apply(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut mask = mask;
    mask.rotate_left(offset % 4);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_length_unmask_as_the_whole_does() {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let plain: Vec<u8> = (0..101).collect();
        let expected: Vec<u8> = plain
            .iter()
            .enumerate()
            .map(|(i, b)| b ^ mask[i % 4])
            .collect();
        for cut in 0..plain.len() {
            let mut bytes = plain.clone();
            let (head, tail) = bytes.split_at_mut(cut);
            apply(head, mask, 0);
            apply(tail, mask, cut);
            assert_eq!(bytes, expected);
        }
    }
}
