//! Fetches a manifest's files in a worker: their lines are checked, and wait until the submission is completed.

use super::kept::{self, File};
use super::key::Key;
use super::manifest;
use super::oauth;
use super::outcome::{self, Head, Place};
use super::request::Input;
use super::stage::Staging;
use crate::jobs::{Reached, Task, Tries};
use crate::load::{self, Form, Lines, OnError, Options, Position};
use crate::settings;
use crate::source::{self, Terms, here, shown};
use crate::store::ResourceType;
use fhir_bulk_codec::ndjson::{self, ReadError};
use fhir_bulk_feed::{Failure, Item, Row};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::progress::Copying;
use pgrx::PgSqlErrorCode;
use serde::Deserialize;
use serde_json::json;
use std::io::Read;
use std::time::{Duration, Instant};

/// After this time a batch commits what a slow source has sent so far.
const COMMIT_AFTER: Duration = Duration::from_secs(10);
/// How many lines pass between two looks at the clock.
const LINES_PER_LOOK: u64 = 256;
/// When there are so many outcomes, or bytes of them, they are stored.
const MOST_OUTCOMES: i32 = 1000;
const MOST_OUTCOME_BYTES: usize = 256 << 10;
/// The member of a task's result that says that its manifest is left out.
pub const LEFT_OUT: &str = "leftOut";

/// Fetches a manifest. If that fails for good, the manifest is left out, with an outcome: the task has not failed then.
pub fn run(task: &Task, input: &Input) -> std::result::Result<(), String> {
    let mut tries = Tries::default();
    loop {
        let Err(error) = fetch(task, input, &mut tries) else { return Ok(()) };
        if task.is_over() {
            return Ok(());
        }
        if !tries.wait(&error, &format!("{} begins again: {}", task.title(), error.message())) {
            return leave_out(task, input, error.message()).map_err(|error| error.message().to_owned());
        }
    }
}

/// 1. read what is staged already: an earlier worker may have ended
/// 2. read the manifest, if no earlier worker has
/// 3. stage its files, one after the other
/// 4. delete the headers
fn fetch(task: &Task, input: &Input, tries: &mut Tries) -> Result<()> {
    let key = key(task);
    let gone = || Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, format!("{} was cancelled", task.title()));
    let (kept, [terms, with_token]) = task.transaction(|| {
        let kept = kept::manifest(key)?.ok_or_else(gone)?;
        let terms = input.terms(kept.headers.as_deref().unwrap_or_default())?;
        let submitter = Key::of(&task.row().request).submitter;
        let tokens = input.token_endpoint.as_ref().map(|endpoint| oauth::tokens(&submitter, endpoint)).transpose()?;
        let with_token = Terms { tokens, ..terms.clone() };
        Ok((kept, [terms, with_token]))
    })?;
    let files = match kept.files {
        Some(files) => files,
        None => manifest::read(task, &input.url, &with_token)?,
    };
    task.transaction(|| {
        task.hold(0, None)?;
        kept::set_files(key, &files)?;
        kept::forget_files(key, kept.done)
    })?;
    let done = usize::try_from(kept.done).unwrap_or(0);
    for (file, number) in files.iter().zip(1..).skip(done) {
        let fetched =
            Fetched { task, input, file, number, staging: Staging::new(), pieces: 0, outcomes: Outcomes::new() };
        let terms = if file.needs_token { &with_token } else { &terms };
        if file.deletes {
            fetched.deletions(terms)?
        } else {
            fetched.resources(terms)?
        }
        tries.renew();
    }
    task.transaction(|| {
        task.finish(0, &json!({}))?;
        kept::end_manifest(key)
    })
}

/// Leaves a manifest out: nothing of it stays but the reason.
fn leave_out(task: &Task, input: &Input, reason: &str) -> Result<()> {
    let key = key(task);
    task.transaction(|| {
        task.finish(0, &json!({LEFT_OUT: true}))?;
        kept::forget_files(key, -1)?;
        kept::add_outcomes(key, 0, 1, 1, &outcome::of_manifest(&shown(&input.url), reason))?;
        kept::end_manifest(key)
    })
}

fn key(task: &Task) -> (i64, i32) {
    (task.row().job, task.row().number)
}

/// Outcomes that are not stored yet.
struct Outcomes {
    lines: String,
    count: i32,
    /// How many times some were stored.
    stored: i32,
}

impl Outcomes {
    fn new() -> Outcomes {
        Outcomes { lines: String::new(), count: 0, stored: 0 }
    }

    fn add(&mut self, line: &str) {
        self.lines.push_str(line);
        self.count += 1;
    }

    fn are_many(&self) -> bool {
        self.count >= MOST_OUTCOMES || self.lines.len() >= MOST_OUTCOME_BYTES
    }
}

/// A file that is being fetched.
struct Fetched<'a> {
    task: &'a Task,
    input: &'a Input,
    file: &'a File,
    /// Counted from 1 within the manifest.
    number: i32,
    staging: Staging,
    /// How many pieces are stored.
    pieces: i32,
    outcomes: Outcomes,
}

impl Fetched<'_> {
    /// Stages a file of resources.
    fn resources(mut self, terms: &Terms) -> Result<()> {
        let resource_type = self.file.resource_type.as_deref().map(ResourceType::new).transpose()?;
        let options = Options { on_error: OnError::Skip { max_errors: u64::MAX }, ..Options::default() };
        let mut lines = self.task.transaction(|| {
            let source = source::open_under(&self.file.url, terms)?;
            let form = Form {
                resource_type: resource_type.as_ref(),
                fhir: true,
                options: &options,
                share: None,
                start: Position::default(),
            };
            Lines::start(source, &form)
        })?;
        let mut count = 0;
        loop {
            let task = self.task;
            let at_end = task.transaction(|| {
                let begun = Instant::now();
                lines.pace().run_ahead(task.has_second_slot());
                let at_end = loop {
                    if !lines.has_line()? {
                        break true;
                    }
                    self.line(&lines, resource_type.as_ref())?;
                    lines.pass();
                    count += 1;
                    if self.is_full() || (count % LINES_PER_LOOK == 0 && begun.elapsed() >= COMMIT_AFTER) {
                        break false;
                    }
                    if count % LINES_PER_LOOK == 1 {
                        let read = lines.progress();
                        let copying = Copying::From { read_bytes: read.read_bytes(), all_bytes: read.total_bytes() };
                        task.show(copying, 0);
                    }
                };
                let (position, read) = (lines.position(), lines.progress());
                let reached = Reached {
                    lines: position.lines,
                    stream_bytes: position.bytes,
                    stream_checksum: position.checksum,
                    read_bytes: read.read_bytes(),
                    all_bytes: read.total_bytes(),
                    ..Reached::default()
                };
                self.commit(&reached, at_end, count, lines.name())?;
                Ok(at_end)
            })?;
            if at_end {
                return Ok(());
            }
        }
    }

    /// Stages a line, or the outcome of one that cannot be stored.
    fn line(&mut self, lines: &Lines, resource_type: Option<&ResourceType>) -> Result<()> {
        let Some((reached, item)) = lines.line() else { return Ok(()) };
        let refused = match item {
            Item::Row(row) => return self.staging.push(reached.lines, &row),
            Item::Refused(refused) => refused,
        };
        // What says whose resources come next.
        if self.file.organized && Head::of(refused.line).resource_type.as_deref() == Some("Parameters") {
            return Ok(());
        }
        let error = load::refusal(lines.name(), reached.lines, refused.why, resource_type);
        if refused.why.is_lack_of_memory() {
            return Err(error);
        }
        let base = &self.input.base;
        let place = Place { base, file: lines.name(), line: reached.lines, offset: refused.offset };
        self.outcomes.add(&outcome::of_line(&place, &error, refused.line));
        Ok(())
    }

    /// Stages a file of deletions.
    fn deletions(mut self, terms: &Terms) -> Result<()> {
        let (name, reader, most_bytes) = self.task.transaction(|| {
            let source = source::open_under(&self.file.url, terms)?;
            let name = source.name.clone();
            let reader = here::read(source).map_err(|error| unreadable(&name, ReadError::Io(error), 1))?;
            Ok((name, reader, settings::max_line_bytes()))
        })?;
        let mut lines = ndjson::Lines::new(reader, most_bytes);
        let mut count = 0;
        loop {
            let task = self.task;
            let at_end = task.transaction(|| {
                let begun = Instant::now();
                let at_end = loop {
                    if !self.deletion(&mut lines, &name)? {
                        break true;
                    }
                    count += 1;
                    if self.is_full() || begun.elapsed() >= COMMIT_AFTER {
                        break false;
                    }
                };
                let position = lines.position();
                let reached = Reached { lines: position.lines, stream_bytes: position.bytes, ..Reached::default() };
                self.commit(&reached, at_end, count, &name)?;
                Ok(at_end)
            })?;
            if at_end {
                return Ok(());
            }
        }
    }

    /// Stages the deletions of the next line, a Bundle. Returns false at the end.
    fn deletion(&mut self, lines: &mut ndjson::Lines<Box<dyn Read>>, name: &str) -> Result<bool> {
        let Input { base, .. } = self.input;
        let line = match lines.next_line() {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(false),
            Err(error) => return Err(unreadable(name, error, lines.number())),
        };
        let place = Place { base, file: name, line: line.number, offset: line.offset };
        let refused = |why: String| outcome::of_line(&place, &Error::invalid_argument(why), line.bytes);
        let entries = match serde_json::from_slice::<Bundle>(line.bytes) {
            Ok(bundle) if bundle.resource_type == "Bundle" => bundle.entry,
            Ok(_) => return Ok(self.refuse(&refused("it is not a Bundle of deletions".to_owned()))),
            Err(error) => return Ok(self.refuse(&refused(format!("it is not a Bundle of deletions: {error}")))),
        };
        for Entry { request } in entries {
            match deleted(&request, base) {
                Some((resource_type, id)) => {
                    let row = Row { resource_type, id, resource: &[], created_at: None };
                    self.staging.push(line.number, &row)?;
                }
                None => {
                    let shown: String = request.url.chars().take(200).collect();
                    let why = format!("an entry deletes no resource by its id: {} {shown}", request.method);
                    self.outcomes.add(&refused(why));
                }
            }
        }
        Ok(true)
    }

    fn refuse(&mut self, outcome: &str) -> bool {
        self.outcomes.add(outcome);
        true
    }

    fn is_full(&mut self) -> bool {
        self.staging.is_full() || self.outcomes.are_many()
    }

    /// Stores what is staged, in the current transaction.
    ///
    /// # Errors
    /// 57014 if the manifest was taken back; 22023 for a file that ends early; 53100 if too much is staged.
    fn commit(&mut self, reached: &Reached, at_end: bool, lines: u64, name: &str) -> Result<()> {
        if at_end && lines < self.file.count {
            let expected = self.file.count;
            return Err(Error::invalid_argument(format!(
                "{name} has {lines} lines, and the manifest says that it has {expected}"
            )));
        }
        // First the task: who takes it back waits for this transaction, and then finds all that it has stored.
        if at_end {
            self.task.advance(reached, false)?;
        } else {
            self.task.hold(reached.read_bytes, reached.all_bytes)?;
        }
        let key = key(self.task);
        let bytes = self.staging.take(at_end)?;
        if !bytes.is_empty() {
            self.pieces += 1;
            kept::add_piece(key, self.number, self.pieces, self.file.deletes, &bytes)?;
        }
        if self.outcomes.count > 0 {
            self.outcomes.stored += 1;
            let Outcomes { lines, count, stored } = &self.outcomes;
            kept::add_outcomes(key, self.number, *stored, *count, lines)?;
            self.outcomes = Outcomes { stored: self.outcomes.stored, ..Outcomes::new() };
        }
        kept::check_staged(key.0)?;
        if at_end { kept::end_file(key, self.number) } else { Ok(()) }
    }
}

fn unreadable(name: &str, error: ReadError, line: u64) -> Error {
    load::unreadable(name, &Failure::Source { error, line }, Position::default())
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(rename = "resourceType")]
    resource_type: String,
    #[serde(default)]
    entry: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    request: Request,
}

#[derive(Deserialize)]
struct Request {
    method: String,
    url: String,
}

/// The type and id of the resource that an entry deletes.
fn deleted<'a>(request: &'a Request, base: &str) -> Option<(&'a str, &'a str)> {
    let url = request.url.strip_prefix(base).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&request.url);
    let (name, id) = url.split_once('/').filter(|_| request.method == "DELETE")?;
    (outcome::is_id(id) && ResourceType::new(name).is_ok()).then_some((name, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_resource_by_its_id_is_deleted() {
        let of = |method: &str, url: &str| {
            let request = Request { method: method.to_owned(), url: url.to_owned() };
            deleted(&request, "https://h/fhir").map(|(name, id)| format!("{name}|{id}"))
        };
        assert_eq!(of("DELETE", "Patient/p-1").as_deref(), Some("Patient|p-1"));
        assert_eq!(of("DELETE", "https://h/fhir/Patient/p-1").as_deref(), Some("Patient|p-1"));
        for (method, url) in [
            ("PUT", "Patient/p-1"),
            ("DELETE", "Patient?identifier=1"),
            ("DELETE", "Patient"),
            ("DELETE", "Patient/p-1/_history/2"),
            ("DELETE", "https://other/fhir/Patient/p-1"),
            ("DELETE", "patient_history/p-1"),
            ("DELETE", "/Patient/p-1"),
        ] {
            assert_eq!(of(method, url), None, "{method} {url}");
        }
    }
}
