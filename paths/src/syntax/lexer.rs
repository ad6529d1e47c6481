//! The tokens of an expression.

use super::Mistake;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// A name or keyword.
    Name(String),
    /// A name in backquotes or quotes, which is never a keyword.
    Quoted(String),
    /// `%name`
    Variable(String),
    /// `$this`, `$index`, `$total`
    Special(String),
    Text(String),
    Number(String),
    Time(String),
    /// A sign: `.`, `(`, `<=` and so on.
    Sign(&'static str),
    End,
}

/// The signs, the longer ones first.
const SIGNS: [&str; 22] =
    ["!=", "!~", "<=", ">=", ".", "(", ")", "[", "]", "{", "}", ",", "|", "=", "~", "<", ">", "+", "-", "&", "*", "/"];

/// All tokens with the bytes at which they start. The last one is [`Token::End`].
pub fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Mistake> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = |ends: fn(char) -> bool| rest[1..].find(ends).map_or(rest.len(), |length| length + 1);
        let name_ends: fn(char) -> bool = |c| !(c.is_ascii_alphanumeric() || c == '_');
        let start = at;
        let token = match first {
            _ if first.is_whitespace() => {
                at += first.len_utf8();
                continue;
            }
            '/' if rest.starts_with("//") => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            '/' if rest.starts_with("/*") => {
                at += rest.find("*/").ok_or_else(|| Mistake::at(start, "a comment does not end"))? + 2;
                continue;
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                at += length(name_ends);
                Token::Name(text[start..at].to_owned())
            }
            '\'' | '"' | '`' => {
                let (content, end) = quoted(text, start, first)?;
                at = end;
                if first == '\'' { Token::Text(content) } else { Token::Quoted(content) }
            }
            '%' if rest[1..].starts_with(['\'', '`', '"']) => {
                let quote = rest[1..].chars().next().unwrap_or('\'');
                let (content, end) = quoted(text, start + 1, quote)?;
                at = end;
                Token::Variable(content)
            }
            '%' | '$' => {
                at += length(|c| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
                let name = text[start + 1..at].to_owned();
                if name.is_empty() {
                    return Err(Mistake::at(start, format!("{first} without a name")));
                }
                if first == '%' { Token::Variable(name) } else { Token::Special(name) }
            }
            '0'..='9' => {
                at += length(|c| !c.is_ascii_digit());
                // A point that no digit follows is a path's.
                let fraction = text[at..].strip_prefix('.').unwrap_or_default();
                let digits = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
                if digits > 0 {
                    at += 1 + digits;
                }
                Token::Number(text[start..at].to_owned())
            }
            '@' => {
                at += length(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '+' | '.')));
                Token::Time(text[start + 1..at].to_owned())
            }
            _ => {
                let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
                let sign = sign.ok_or_else(|| Mistake::at(start, format!("unexpected {first:?}")))?;
                at += sign.len();
                Token::Sign(sign)
            }
        };
        found.push((start, token));
    }
    found.push((text.len(), Token::End));
    Ok(found)
}

/// The content of a quoted text that starts at `start`, and where it ends.
fn quoted(text: &str, start: usize, quote: char) -> Result<(String, usize), Mistake> {
    let mut content = String::new();
    let mut chars = text[start + 1..].char_indices();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((content, start + 1 + at + 1));
        }
        if c != '\\' {
            content.push(c);
            continue;
        }
        let unknown = || Mistake::at(start + 1 + at, "an unknown escape");
        let (_, escaped) = chars.next().ok_or_else(unknown)?;
        content.push(match escaped {
            '\'' | '"' | '`' | '\\' | '/' => escaped,
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'f' => '\u{c}',
            'u' => {
                let digits: String = chars.by_ref().take(4).map(|(_, digit)| digit).collect();
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
                code.and_then(char::from_u32).ok_or_else(unknown)?
            }
            _ => return Err(unknown()),
        });
    }
    Err(Mistake::at(start, format!("a text in {quote} does not end")))
}
