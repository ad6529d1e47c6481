//! Writes whole numbers as decimal digits.

/// A sign and nineteen digits.
pub(crate) const MAX_LEN: usize = 20;

/// Writes a number at the end of `text`, which has room for [`MAX_LEN`]. Returns the index of its first byte.
#[inline]
pub(crate) fn write_at_end(number: i64, text: &mut [u8]) -> usize {
    let mut at = text.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        text[at] = b'-';
    }
    at
}
