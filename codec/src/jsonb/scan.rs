//! Finds the end of a plain run inside a JSON string, 16 bytes at a time.

use wide::u8x16;

/// Whether a byte ends a plain run: a quote, a backslash or a control character.
#[inline]
pub(crate) fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Bit `i` is set when byte `i` [`is_special`].
#[inline]
pub(crate) fn special_bits(block: &[u8; 16]) -> u32 {
    let block = u8x16::new(*block);
    let quote = block.simd_eq(u8x16::splat(b'"'));
    let backslash = block.simd_eq(u8x16::splat(b'\\'));
    let control = block.min(u8x16::splat(0x1F)).simd_eq(block);
    (quote | backslash | control).to_bitmask()
}

/// The index, at or after `from`, of the first byte that [`is_special`]; `bytes.len()` when there is none.
#[inline]
pub(crate) fn find_special(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let found = special_bits(block);
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += 16;
    }
    while at < bytes.len() && !is_special(bytes[at]) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_of_every_special_byte_is_found() {
        for special in (0..=0x1F).chain([b'"', b'\\']) {
            for length in 0..70 {
                for position in 0..length {
                    let mut bytes = vec![0xC3; length];
                    bytes[position] = special;
                    assert_eq!(find_special(&bytes, 0), position);
                    assert_eq!(find_special(&bytes, position + 1), length);
                }
            }
        }
    }

    #[test]
    fn other_bytes_are_plain() {
        for byte in (0x20..=0xFF).filter(|b| *b != b'"' && *b != b'\\') {
            assert_eq!(find_special(&[byte; 40], 0), 40);
        }
    }
}
