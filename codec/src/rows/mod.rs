//! Writes rows of any query as text in each format. The caller knows a value's text and type; these functions quote it.

pub mod bulk;
pub mod csv;
pub mod json;
pub mod sql;

use crate::decimal;

/// Appends a whole number.
pub fn write_integer(number: i64, out: &mut Vec<u8>) {
    let mut text = [0; decimal::MAX_LEN];
    let start = decimal::write_at_end(number, &mut text);
    out.extend_from_slice(&text[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that `write` appends.
    pub(super) fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"x".to_vec();
        write(&mut out);
        String::from_utf8(out).unwrap().strip_prefix('x').unwrap().to_owned()
    }

    #[test]
    fn whole_numbers_are_written_as_rust_writes_them() {
        for number in [0, 1, -1, 9, 10, -10, 12_345, i64::MAX, i64::MIN] {
            assert_eq!(written(|out| write_integer(number, out)), number.to_string());
        }
    }
}
