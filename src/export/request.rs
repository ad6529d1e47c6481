//! Reads the members of an export's request, a JSON object.

use super::ignored::{self, Ignored};
use fhir_bulk_codec::resource::elements;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde_json::{Map, Value};

/// A request's members. The caller takes them one by one.
pub struct Request {
    members: Map<String, Value>,
    /// Whether it goes on without what is refused.
    pub lenient: bool,
    /// What it goes on without.
    pub ignored: Vec<Ignored>,
}

impl Request {
    /// # Errors
    /// 22023 if it is not an object.
    pub fn new(request: Value) -> Result<Request> {
        match request {
            Value::Object(members) => Ok(Request { members, lenient: false, ignored: Vec::new() }),
            _ => Err(Error::invalid_argument("the request is not a JSON object")),
        }
    }

    /// Reads a parameter. A lenient request goes on without one that is refused.
    ///
    /// # Errors
    /// The errors of `read`, unless the request is lenient.
    pub fn leniently<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Request, &str) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        match read(self, name) {
            Err(error) if self.lenient => {
                self.ignored.push(Ignored::new(name, "The parameter was ignored", &error));
                Ok(None)
            }
            read => read,
        }
    }

    /// Whether there is a member with this name that is not null.
    pub fn has(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|value| !value.is_null())
    }

    /// Takes a string.
    ///
    /// # Errors
    /// 22023 for anything else.
    pub fn string(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "a string")),
        }
    }

    /// Takes an array of strings.
    ///
    /// # Errors
    /// 22023 for anything else.
    pub fn strings(&mut self, name: &str) -> Result<Option<Vec<String>>> {
        let wrong = || wrong(name, "an array of strings");
        let strings = |values: Vec<Value>| {
            let texts = values.into_iter().map(|value| match value {
                Value::String(text) => Ok(text),
                _ => Err(wrong()),
            });
            texts.collect::<Result<Vec<_>>>()
        };
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(values)) => strings(values).map(Some),
            Some(_) => Err(wrong()),
        }
    }

    /// Takes an array.
    ///
    /// # Errors
    /// 22023 for anything else.
    pub fn array(&mut self, name: &str) -> Result<Option<Vec<Value>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(_) => Err(wrong(name, "an array")),
        }
    }

    /// Takes an array of strings, or a string instead of an array of one.
    ///
    /// # Errors
    /// 22023 for anything else.
    pub fn string_or_strings(&mut self, name: &str) -> Result<Option<Vec<String>>> {
        match self.members.get(name) {
            Some(Value::String(_)) => Ok(self.string(name)?.map(|one| vec![one])),
            _ => self.strings(name),
        }
    }

    /// Takes true or false.
    ///
    /// # Errors
    /// 22023 for anything else.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(wrong(name, "true or false")),
        }
    }

    /// Takes a whole number above 0.
    ///
    /// # Errors
    /// 22023 for anything else.
    pub fn positive(&mut self, name: &str) -> Result<Option<u64>> {
        match self.take(name).map(|value| value.as_u64().filter(|number| *number > 0)) {
            None => Ok(None),
            Some(Some(number)) => Ok(Some(number)),
            Some(None) => Err(wrong(name, "a whole number above 0")),
        }
    }

    /// Takes names: a comma-separated string, or an array of such strings, which repeated parameters of a URL become.
    ///
    /// # Errors
    /// 22023 for anything else.
    pub fn names(&mut self, name: &str) -> Result<Option<Vec<String>>> {
        let lists = self.string_or_strings(name)?;
        Ok(lists.map(|lists| lists.iter().flat_map(|list| elements(list)).map(str::to_owned).collect()))
    }

    /// Checks that no member is left. A lenient request goes on without those that are. Returns what it goes on without.
    ///
    /// # Errors
    /// 22023 for a member that was not taken, with the `known` ones as HINT; 54000 if too much would be ignored.
    pub fn end(mut self, known: &str) -> Result<Vec<Ignored>> {
        if self.lenient {
            let left = self.members.iter().filter(|(_, value)| !value.is_null());
            self.ignored.extend(left.map(|(name, _)| Ignored::unknown(name)));
            return not_too_much(&self.ignored).map(|()| self.ignored);
        }
        match self.members.keys().next() {
            None => Ok(self.ignored),
            Some(name) => Err(Error::invalid_argument(format!("the request has the unknown member \"{name}\""))
                .hint(format!("Its members are {known}."))),
        }
    }

    /// Takes a member. A null counts as missing.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }
}

/// Checks that a lenient request does not ask for too much in vain: each costs a line, and a place in the queue.
///
/// # Errors
/// 54000.
pub fn not_too_much(ignored: &[Ignored]) -> Result<()> {
    if ignored.len() <= ignored::MOST {
        return Ok(());
    }
    let message = format!("the request has {} parameters or values that would be ignored", ignored.len());
    Err(Error::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message)
        .detail(format!("At most {} are.", ignored::MOST)))
}

/// The error for a required member that is missing.
pub fn missing(name: &str) -> Error {
    Error::invalid_argument(format!("the request has no \"{name}\""))
}

fn wrong(name: &str, expected: &str) -> Error {
    Error::invalid_argument(format!("\"{name}\" of the request is not {expected}"))
}
