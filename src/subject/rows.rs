//! A subject, and its rows as `dump_view` and `dump_sql` make them.

use crate::sql_dump;
use crate::stream::{Divisible, Division, Lines, More};
use crate::views;
use fhir_bulk_pg::cursor::Calling;
use fhir_bulk_pg::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A view, or a query with what it needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Subject {
    /// A ViewDefinition.
    View(Value),
    Query(Query),
}

/// A query.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Query {
    pub text: String,
    /// What it sees as tables, by their labels, as `dump_sql` takes them.
    pub views: Map<String, Value>,
    /// The values of its placeholders by their names, as `dump_sql` takes them; `None` if it has no placeholders.
    pub parameters: Option<Map<String, Value>>,
}

impl Subject {
    /// Starts to read. `options` are those of the format, and those that choose resources: `patient`, `group`, `since`, `limit`;
    /// for a view also `resources`.
    ///
    /// # Errors
    /// Those of `dump_view_chunks` and `dump_sql_chunks`.
    pub fn open(&self, format: &str, mut options: Map<String, Value>) -> Result<Body> {
        match self {
            Subject::View(view) => views::open(view, format, options.into()).map(|reader| Body::View(Box::new(reader))),
            Subject::Query(Query { text, views, parameters }) => {
                options.insert("views".to_owned(), views.clone().into());
                if let Some(parameters) = parameters {
                    options.insert("parameters".to_owned(), parameters.clone().into());
                }
                sql_dump::open(text, format, options.into()).map(Body::Query)
            }
        }
    }

    /// Locks what a query reads until the transaction ends, also what its views and policies read. The table of a view is the
    /// caller's to lock. Takes no snapshot.
    ///
    /// # Errors
    /// As for [`Subject::open`].
    pub fn lock_reads(&self) -> Result<()> {
        match self {
            Subject::View(_) => Ok(()),
            Subject::Query(Query { text, views, parameters }) => {
                sql_dump::lock_reads(text, views.clone(), parameters.clone())
            }
        }
    }

    /// Checks that resources are chosen, by `patient`, `group` or `_since`, only if there is a view of them.
    ///
    /// # Errors
    /// 22023 for a query that sees no view.
    pub fn check_chosen(&self, chosen: &[(&str, bool)]) -> Result<()> {
        let Subject::Query(query) = self else { return Ok(()) };
        match chosen.iter().find(|(_, is_chosen)| *is_chosen && query.views.is_empty()) {
            None => Ok(()),
            Some((name, _)) => Err(Error::invalid_argument(format!("{name} is for views, and the query has none"))
                .hint("A query itself says which rows it reads.")),
        }
    }

    /// The types of its views, as they write them; of a query also those that its views see.
    pub fn types(&self) -> Vec<String> {
        let mut types = Vec::new();
        match self {
            Subject::View(view) => add_type(view, &mut types),
            Subject::Query(query) => query.views.values().for_each(|view| add_types(view, &mut types)),
        }
        types
    }
}

/// Adds the types of what `dump_sql` takes as a view: a ViewDefinition, or a query with views of its own.
fn add_types(view: &Value, types: &mut Vec<String>) {
    match view.get("query") {
        None => add_type(view, types),
        Some(_) => {
            let inner = view.get("views").and_then(Value::as_object);
            inner.into_iter().flat_map(Map::values).for_each(|view| add_types(view, types));
        }
    }
}

fn add_type(view: &Value, types: &mut Vec<String>) {
    types.extend(view.get("resource").and_then(Value::as_str).map(str::to_owned));
}

/// A subject that is read.
pub enum Body {
    View(Box<views::Reader>),
    Query(sql_dump::Reader),
}

impl Body {
    /// Ends the query when the calling statement ends.
    pub fn close_with_statement(&self, calling: Calling) {
        match self {
            Body::View(reader) => reader.close_with_statement(calling),
            Body::Query(reader) => reader.close_with_statement(calling),
        }
    }

    /// Ends the query, of which no more rows are wanted.
    pub fn close(&mut self) {
        match self {
            Body::View(reader) => reader.close(),
            Body::Query(reader) => reader.close(),
        }
    }
}

impl Lines for Body {
    fn has_lines(&self) -> bool {
        match self {
            Body::View(reader) => reader.has_lines(),
            Body::Query(reader) => reader.has_lines(),
        }
    }

    fn read(&mut self, out: &mut Vec<u8>, pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More> {
        match self {
            Body::View(reader) => reader.read(out, pause),
            Body::Query(reader) => reader.read(out, pause),
        }
    }
}

impl Divisible for Body {
    fn division(&mut self) -> &mut Division {
        match self {
            Body::View(reader) => reader.division(),
            Body::Query(reader) => reader.division(),
        }
    }
}
