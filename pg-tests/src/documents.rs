//! JSON texts of any kind, of a seed: valid ones, and damaged ones.

/// Numbers that look random and are the same for the same seed.
pub struct Random(pub u64);

/// Names and texts that jsonb's order, its escapes or its blocks of 16 bytes make special.
const TEXTS: [&str; 22] = [
    "",
    "a",
    "b",
    "ab",
    "code",
    "c\\u006fde",
    "valueCode",
    "valueCoda",
    "\\\"",
    "\\\\",
    "\\/",
    "\\b\\f\\n\\r\\t",
    "\\u001f",
    "\\u007f",
    "é",
    "\\u00e9",
    "\\ud83d\\ude00",
    "😀",
    "123456789012345",
    "1234567890123456",
    "12345678901234567\\n",
    "123456789012345678901234567890123",
];
/// Numbers at the edges of numeric's forms.
const NUMBERS: [&str; 26] = [
    "0",
    "-0",
    "-0.0",
    "0.00",
    "1.10",
    "10000",
    "0.0001",
    "9999.9999",
    "1e4",
    "1E-22",
    "0e-7",
    "100e-2",
    "1e131071",
    "1e131072",
    "1e-16383",
    "1e-16384",
    "-1e256",
    "1e252",
    "1e-64",
    "1e-63",
    "0e400000",
    "12345678901234567890.000000000000000000000001",
    "1e1073741823",
    "1e99999999999999999999",
    "9999999999999999",
    "99999999999999999",
];
/// What is no JSON, or may be none.
const DAMAGE: [&[u8]; 26] = [
    b"\"",
    b"\\",
    b"\\u",
    b"\\ud800",
    b"\\udc00\\ud800",
    b"\\u0000",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"-",
    b".",
    b"e",
    b"0",
    b"\x1f",
    b"\x0b",
    b"nul",
    b"truex",
    b"//",
    b"\xef\xbb\xbf",
];

impl Random {
    /// The next number (SplitMix64).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A JSON text, which in most cases is a value.
    pub fn document(&mut self) -> Vec<u8> {
        let mut text = match self.below(40) {
            // Some hundred levels, and some more than we take.
            0 => {
                let depth = self.pick(&[100, 500, 990, 999, 1000, 1200]);
                let (open, close) = self.pick(&[("[", "]"), ("{\"a\":", "}")]);
                format!("{}1{}", open.repeat(depth), close.repeat(depth))
            }
            1 => self.wide(),
            _ => self.value(5),
        }
        .into_bytes();
        if self.below(3) == 0 {
            for _ in 0..=self.below(3) {
                self.damage(&mut text);
            }
        }
        text
    }

    fn damage(&mut self, text: &mut Vec<u8>) {
        let at = self.below(text.len() + 1);
        match self.below(4) {
            0 if at < text.len() => drop(text.remove(at)),
            1 if at < text.len() => text[at] = self.next() as u8,
            2 => text.truncate(at),
            _ => drop(text.splice(at..at, self.pick(&DAMAGE).iter().copied())),
        }
    }

    fn value(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 3 } else { 6 }) {
            0 => self.text(),
            1 => self.number(),
            2 => self.pick(&["true", "false", "null", "{}", "[]"]).to_owned(),
            3 => {
                let elements: Vec<String> = (0..self.below(5)).map(|_| self.value(depth - 1)).collect();
                format!("[{}]", elements.join(self.pick(&[",", ", ", " ,\t", ",\r"])))
            }
            _ => {
                let members: Vec<String> = (0..self.below(6))
                    .map(|_| format!("{}{}{}", self.text(), self.pick(&[":", " : "]), self.value(depth - 1)))
                    .collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }

    /// Containers of many items hold offsets among the lengths.
    fn wide(&mut self) -> String {
        let count = self.pick(&[31, 32, 33, 63, 64, 65, 130]);
        if self.below(2) == 0 {
            let elements: Vec<String> = (0..count).map(|_| self.value(0)).collect();
            return format!("[{}]", elements.join(","));
        }
        let names = self.pick(&[20, 1000]);
        let members: Vec<String> =
            (0..count).map(|_| format!("\"k{}\":{}", self.below(names), self.value(0))).collect();
        format!("{{{}}}", members.join(","))
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.below(3) {
            text.push_str(self.pick(&TEXTS));
        }
        // Names of 255 bytes and more sort by other rules of ours.
        if self.below(30) == 0 {
            text.push_str(&"n".repeat(self.pick(&[240, 254, 255, 256, 300])));
            text.push(self.pick(&['x', 'y']));
        }
        format!("\"{text}\"")
    }

    /// A JSON number.
    pub fn number(&mut self) -> String {
        let digits = |random: &mut Random, most: usize| -> String {
            (0..=random.below(most)).map(|_| random.pick(&['0', '0', '1', '5', '9'])).collect()
        };
        match self.below(4) {
            0 => self.pick(&NUMBERS).to_owned(),
            1 => self.below(100_000).to_string(),
            _ => {
                let most = self.pick(&[3, 9, 20, 80]);
                let sign = self.pick(&["", "-"]);
                let whole = digits(self, most);
                let whole = if whole.trim_start_matches('0').is_empty() { "0" } else { whole.trim_start_matches('0') };
                let fraction = if self.below(2) == 0 { format!(".{}", digits(self, most)) } else { String::new() };
                let exponent = match self.below(3) {
                    0 => format!("{}{}{}", self.pick(&["e", "E"]), self.pick(&["", "+", "-"]), self.below(300)),
                    _ => String::new(),
                };
                format!("{sign}{whole}{fraction}{exponent}")
            }
        }
    }
}
