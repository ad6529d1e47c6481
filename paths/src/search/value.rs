//! Values of a query: separators and escapes, prefixes, and why a query is refused.

use std::borrow::Cow;

/// Why a query is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What kind of mistake it is.
    pub problem: Problem,
    /// The parameter, as the query names it; empty for the query as a whole.
    pub parameter: String,
    /// What is wrong, without the parameter's name.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

/// The kind of a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// FHIR has it, but it is not supported here; or there is no such parameter.
    NotSupported,
    /// It is not what FHIR says.
    Invalid,
}

impl Refused {
    /// A mistake in a value; the parameter is added by [`Refused::of`].
    pub(super) fn invalid(message: impl Into<String>) -> Refused {
        Refused { problem: Problem::Invalid, parameter: String::new(), message: message.into(), hint: None }
    }

    /// What is not supported.
    pub(super) fn unsupported(message: impl Into<String>) -> Refused {
        Refused { problem: Problem::NotSupported, ..Refused::invalid(message) }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Refused {
        Refused { hint: Some(hint.into()), ..self }
    }

    pub(super) fn of(self, parameter: &str) -> Refused {
        let parameter = if self.parameter.is_empty() { shown(parameter) } else { self.parameter };
        Refused { parameter, ..self }
    }
}

/// The beginning of what a user sent, for a message.
pub(super) fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(80).collect();
    if chars.next().is_some() {
        shown.push_str("...");
    }
    shown
}

/// The parts between separators; `\` before a character takes its meaning away. Escapes stay in the parts.
pub(super) fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == separator => {
                parts.push(&text[start..at]);
                start = at + separator.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// A part without its escapes: `\,`, `\|`, `\$` and `\\`. Another backslash is itself.
pub(super) fn unescape(part: &str) -> Cow<'_, str> {
    if !part.contains('\\') {
        return Cow::Borrowed(part);
    }
    let (mut text, mut chars) = (String::with_capacity(part.len()), part.chars().peekable());
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(next) if c == '\\' && matches!(next, ',' | '|' | '$' | '\\') => {
                text.push(*next);
                chars.next();
            }
            _ => text.push(c),
        }
    }
    Cow::Owned(text)
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    StartsAfter,
    EndsBefore,
}

impl Prefix {
    /// The prefix of a value, and the rest.
    ///
    /// # Errors
    /// `ap`: how near is near enough is nowhere said.
    pub fn of(value: &str) -> Result<(Prefix, &str), Refused> {
        let known = [
            ("eq", Prefix::Equal),
            ("ne", Prefix::NotEqual),
            ("gt", Prefix::Greater),
            ("lt", Prefix::Less),
            ("ge", Prefix::GreaterOrEqual),
            ("le", Prefix::LessOrEqual),
            ("sa", Prefix::StartsAfter),
            ("eb", Prefix::EndsBefore),
        ];
        if value.starts_with("ap") {
            return Err(Refused::unsupported("the prefix ap (approximately) is not supported")
                .hint("Use ge and le with the bounds that you mean."));
        }
        let found = known.into_iter().find_map(|(text, prefix)| Some((prefix, value.strip_prefix(text)?)));
        Ok(found.unwrap_or((Prefix::Equal, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_split_unless_escaped() {
        assert_eq!(split(r"a,b\,c,,d\\,e", ','), ["a", r"b\,c", "", r"d\\", "e"]);
        assert_eq!(unescape(r"b\,c\|d\$e\\f\g\"), r"b,c|d$e\f\g\");
        assert_eq!(split("", ','), [""]);
    }
}
