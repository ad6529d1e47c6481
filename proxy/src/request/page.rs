//! Pages of lists: how many rows the caller wants, and after which one they begin.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::error::{Problem, Result};
use crate::request::parameters::Parameters;

/// How many rows a page has, and the most that it may have.
const USUAL: u32 = 50;
const MOST: u32 = 100;

/// The number of rows on a page, which is `limit` of a request.
///
/// # Errors
/// 400 if it is not a number up to 100.
pub fn limit(parameters: &mut Parameters) -> Result<u32> {
    let limit = parameters.text("limit").map_or(Ok(USUAL), |text| text.parse());
    let limit = limit.ok().filter(|limit| (1..=MOST).contains(limit));
    limit.ok_or_else(|| Problem::parameter("limit", &format!("is not a number from 1 to {MOST}")))
}

/// A word of a list, if a parameter has one.
///
/// # Errors
/// 400 for another word.
pub fn word(parameters: &mut Parameters, name: &str, known: &[&str]) -> Result<Option<String>> {
    let Some(text) = parameters.text(name) else { return Ok(None) };
    match text.split(',').find(|word| !known.contains(word)) {
        None => Ok(Some(text)),
        Some(_) => Err(Problem::parameter(name, &format!("is none of {}", known.join(", ")))),
    }
}

/// A page of rows that are sorted by a time, the latest first, and then by what else they have. The place where the next one
/// begins is the time of the last row, and how many rows of that time there were already: rows that come or go meanwhile move
/// no others, unless they are of that very time.
pub struct Page {
    /// How many rows it has.
    pub limit: u32,
    /// No row is later; `None` on the first page.
    pub from: Option<String>,
    /// How many rows of exactly that time come before it.
    pub skipped: i64,
}

impl Page {
    /// What `limit` and `after` of a request say.
    ///
    /// # Errors
    /// 400 if they say nothing that a link had.
    pub fn of(parameters: &mut Parameters) -> Result<Page> {
        let limit = limit(parameters)?;
        let Some(text) = parameters.text("after") else { return Ok(Page { limit, from: None, skipped: 0 }) };
        let (from, skipped) =
            place(&text).ok_or_else(|| Problem::parameter("after", "is none that a page has given"))?;
        Ok(Page { limit, from: Some(from), skipped })
    }

    /// How many rows to ask for: one more than it shows, which says whether there is another page.
    pub fn wanted(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Takes away what is not on the page; the `after` of the next one, if there is one. `time` is the member that rows are
    /// sorted by.
    pub fn cut(&self, rows: &mut Vec<Value>, time: &str) -> Option<String> {
        if rows.len() <= self.limit as usize {
            return None;
        }
        rows.truncate(self.limit as usize);
        let last = rows.last()?[time].as_str()?.to_owned();
        let of_it = rows.iter().rev().take_while(|row| row[time] == *last).count() as i64;
        let before = if self.from.as_deref() == Some(&last) { self.skipped } else { 0 };
        Some(BASE64_URL_SAFE_NO_PAD.encode(format!("{last} {}", before + of_it)))
    }
}

/// The time and the number in an `after`.
fn place(text: &str) -> Option<(String, i64)> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (time, skipped) = text.split_once(' ')?;
    let skipped = skipped.parse().ok().filter(|number| *number >= 0)?;
    let is_part = |byte: u8| byte.is_ascii_digit() || b"-:.TZ+".contains(&byte);
    (!time.is_empty() && time.bytes().all(is_part)).then(|| (time.to_owned(), skipped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pages_have_every_row_once_also_where_many_are_of_one_time() {
        let times = ["2026-03-01T00:00:03+00:00"; 1].iter().chain(&["2026-03-01T00:00:02+00:00"; 7]);
        let rows: Vec<Value> = times
            .chain(&["2026-03-01T00:00:01+00:00"; 2])
            .enumerate()
            .map(|(n, time)| json!({"n": n, "at": time}))
            .collect();
        for limit in 1..=11 {
            let (mut seen, mut query) = (Vec::new(), format!("limit={limit}"));
            loop {
                let page = Page::of(&mut Parameters::parse(&query)).unwrap();
                let no_later = |row: &&Value| page.from.as_deref().is_none_or(|from| row["at"].as_str() <= Some(from));
                let asked = rows.iter().filter(no_later).skip(page.skipped as usize).take(page.wanted() as usize);
                let mut asked: Vec<Value> = asked.cloned().collect();
                let next = page.cut(&mut asked, "at");
                seen.extend(asked);
                let Some(next) = next else { break };
                query = format!("limit={limit}&after={next}");
            }
            assert_eq!(seen, rows, "{limit}");
        }
    }

    #[test]
    fn what_no_page_has_given_is_refused() {
        let made = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let wrong = ["", "x", "====", &made(""), &made("2026"), &made("now 1"), &made("2026 -1"), &made("2026 x")];
        for after in wrong {
            assert!(Page::of(&mut Parameters::parse(&format!("after={after}"))).is_err(), "{after}");
        }
        for limit in ["0", "101", "-1", "x", ""] {
            assert!(Page::of(&mut Parameters::parse(&format!("limit={limit}"))).is_err(), "{limit}");
        }
    }
}
