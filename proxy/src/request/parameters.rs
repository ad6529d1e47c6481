//! A request's parameters: the part of its URL after the `?`.

use percent_encoding::percent_decode_str;

use crate::error::{Problem, Result};

/// The parameters after the `?`. A parameter that no handler takes is an error.
#[derive(Default)]
pub struct Parameters {
    /// Names, and values as they were sent.
    left: Vec<(String, String)>,
    taken: Vec<String>,
}

impl Parameters {
    /// Splits a query string. Values are decoded when they are taken.
    pub fn parse(query: &str) -> Parameters {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let left = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Parameters { left: left.map(|(name, value)| (form(name), value.to_owned())).collect(), taken: Vec::new() }
    }

    /// Takes a parameter's text, in which `+` is a space.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.raw(name).map(|value| form(&value))
    }

    /// Takes the texts of a parameter that may be repeated, in order.
    pub fn texts(&mut self, name: &str) -> Vec<String> {
        std::iter::from_fn(|| self.text(name)).collect()
    }

    /// Takes a search query, without its outer percent-encoding. Times in it have a `+`, so a `+` is one if somebody wrote
    /// the query by hand. Forms encode it and write `+` for spaces; they also encode each `=` of the query.
    ///
    /// # Errors
    /// 400 for one that is empty or not UTF-8: without it the response would not be what the caller wants.
    pub fn query(&mut self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let value = if value.contains('=') { value } else { value.replace('+', " ") };
        let query = percent_decode_str(&value).decode_utf8();
        match query.map_err(|_| Problem::parameter(name, "is not UTF-8"))?.as_ref() {
            "" => Err(Problem::parameter(name, "is empty")),
            query => Ok(Some(query.to_owned())),
        }
    }

    /// Takes the queries of a parameter that may be repeated, in order.
    ///
    /// # Errors
    /// 400, as for one.
    pub fn queries(&mut self, name: &str) -> Result<Vec<String>> {
        std::iter::from_fn(|| self.query(name).transpose()).collect()
    }

    fn raw(&mut self, name: &str) -> Option<String> {
        let at = self.left.iter().position(|(given, _)| given == name)?;
        self.taken.push(name.to_owned());
        Some(self.left.remove(at).1)
    }

    /// Takes a parameter that is `true` or `false`; false if it is missing.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn flag(&mut self, name: &str) -> Result<bool> {
        match self.text(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::parameter(name, "is neither true nor false")),
        }
    }

    /// Takes a point in time, as a text that PostgreSQL reads.
    ///
    /// # Errors
    /// 400 if it is not an ISO 8601 date or instant. PostgreSQL itself refuses dates such as 30 February.
    pub fn instant(&mut self, name: &str) -> Result<Option<String>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || Problem::parameter(name, &format!("is not an ISO 8601 date or instant: {text}"));
        instant(&text).map(Some).ok_or_else(wrong)
    }

    /// The same, but a text that is no point in time is taken as it is.
    pub fn instant_or_text(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        Some(instant(&text).unwrap_or(text))
    }

    /// Takes all that are left, with the texts of each.
    pub fn rest(&mut self) -> Vec<(String, Vec<String>)> {
        let mut rest: Vec<(String, Vec<String>)> = Vec::new();
        for (name, value) in std::mem::take(&mut self.left) {
            match rest.iter_mut().find(|(known, _)| *known == name) {
                Some((_, texts)) => texts.push(form(&value)),
                None => rest.push((name, vec![form(&value)])),
            }
        }
        rest
    }

    /// Checks that no parameter is left.
    ///
    /// # Errors
    /// 400 with the name of one that is left: if it were ignored, the response would not be what the caller wants.
    pub fn finish(self) -> Result<()> {
        match self.left.first() {
            Some((name, _)) if self.taken.contains(name) => Err(Problem::parameter(name, "is given twice")),
            Some((name, _)) => Err(Problem::bad_request(format!("unknown parameter {name}")).at(name)),
            None => Ok(()),
        }
    }
}

/// Checks the shape `2021-04-02` or `2021-04-02T16:03:31.057462+03:00`; seconds, their fraction and the offset are optional.
/// A `+` that was sent unescaped has become a space; this makes it a `+` again.
fn instant(text: &str) -> Option<String> {
    let (date, time) = match text.split_once(['T', 't']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    if !has_shape(date, "0000-00-00") {
        return None;
    }
    let Some(time) = time else { return Some(date.to_owned()) };
    let (clock, offset) = match time.find(['Z', 'z', '+', '-', ' ']) {
        Some(at) => time.split_at(at),
        None => (time, ""),
    };
    let (whole, fraction) = clock.split_once('.').map_or((clock, None), |(whole, fraction)| (whole, Some(fraction)));
    let clock_is_good = match fraction {
        None => has_shape(whole, "00:00") || has_shape(whole, "00:00:00"),
        Some(digits) => {
            has_shape(whole, "00:00:00") && !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
        }
    };
    let offset = match offset.strip_prefix(' ') {
        Some(rest) => format!("+{rest}"),
        None => offset.to_uppercase(),
    };
    let offset_is_good = offset.is_empty()
        || offset == "Z"
        || offset.strip_prefix(['+', '-']).is_some_and(|o| ["00:00", "0000", "00"].iter().any(|s| has_shape(o, s)));
    (clock_is_good && offset_is_good).then(|| format!("{date}T{clock}{offset}"))
}

/// Whether `text` has a digit wherever `shape` has one, and the same characters elsewhere.
fn has_shape(text: &str, shape: &str) -> bool {
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(t, s)| if s == b'0' { t.is_ascii_digit() } else { t == s })
}

/// The names and values of a form, in order.
pub fn form_values(text: &str) -> impl Iterator<Item = (String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (form(name), form(value)))
}

/// A text of a form, in which `+` is a space.
fn form(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_as_forms_encode_them() {
        let mut parameters = Parameters::parse("a=1+2%2B3&&b&%61=%zz%C3%A4=&c=%ff");
        assert_eq!(parameters.texts("a"), ["1 2+3", "%zzä="]);
        assert_eq!(parameters.text("b").as_deref(), Some(""));
        assert_eq!(parameters.text("c").as_deref(), Some("\u{fffd}"));
        assert_eq!(parameters.text("d"), None);
        assert!(parameters.finish().is_ok());
    }

    #[test]
    fn a_search_query_is_decoded_once_and_keeps_its_own_encoding_and_commas() {
        let of = |query: &str| Parameters::parse(query).queries("f").map_err(|problem| problem.message);
        for (sent, query) in [
            // As forms encode it.
            ("f=code%3Da%252Cb%2Cc%26name%3DAnna+Maria%2B", "code=a%2Cb,c&name=Anna Maria+"),
            // As somebody writes it.
            (
                "f=date=ge2024-01-01T00:00:00+01:00,le2025%26code=a%2525",
                "date=ge2024-01-01T00:00:00+01:00,le2025&code=a%25",
            ),
            ("f=%zz%", "%zz%"),
        ] {
            assert_eq!(of(sent).unwrap(), [query]);
        }
        assert_eq!(of("f=a%3D1,2&g=3&f=b%3D4").unwrap(), ["a=1,2", "b=4"]);
        assert_eq!(of("g=1").unwrap(), [""; 0]);
        for wrong in ["f", "f=", "f=a%3D1&f=", "f=a%3D%ff"] {
            assert!(of(wrong).unwrap_err().starts_with("the parameter f is "), "{wrong}");
        }
    }

    #[test]
    fn a_plus_that_became_a_space_is_a_plus_again() {
        assert_eq!(instant("2021-04-02T16:03:31.057 03:00").as_deref(), Some("2021-04-02T16:03:31.057+03:00"));
        assert_eq!(instant("2021-04-02T16:03:31-03").as_deref(), Some("2021-04-02T16:03:31-03"));
        assert_eq!(instant("2021-04-02t16:03z").as_deref(), Some("2021-04-02T16:03Z"));
        assert_eq!(instant("2021-04-02").as_deref(), Some("2021-04-02"));
    }

    #[test]
    fn words_that_only_postgresql_takes_for_times_are_refused() {
        for text in [
            "now",
            "yesterday",
            "infinity",
            "epoch",
            "",
            "2021",
            "2021-04",
            "02.04.2021",
            "2021-04-02 16:03",
            "2021-04-02T",
            "2021-04-02T16",
            "2021-04-02T16:03:31.",
            "2021-04-02T16:03:31+3",
            "2021-04-02T16:03.5Z",
            "2021-04-02T16:03:31Z BC",
            "2021-04-02T16:03:31 Europe/Berlin",
            "٢٠٢١-04-02",
        ] {
            assert_eq!(instant(text), None, "{text}");
        }
    }
}
