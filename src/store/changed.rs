//! Conditions on when rows were last changed.

use fhir_bulk_pg::spi::Parameter;

/// When rows were last changed, in microseconds since 2000-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug)]
pub enum Changed {
    /// At or after `from`, and before `until`.
    Within { from: Option<i64>, until: Option<i64> },
    /// Not at or after `since`, or nobody knows when; and before `until`.
    Earlier { since: i64, until: Option<i64> },
}

impl Changed {
    /// Adds the condition to a statement's WHERE.
    pub(super) fn narrow(self, query: &mut String, parameters: &mut Vec<Parameter>) {
        let mut add = |at: Option<i64>, condition: &dyn Fn(usize) -> String| {
            if let Some(at) = at {
                parameters.push(Parameter::timestamptz(at));
                query.push_str(&condition(parameters.len()));
            }
        };
        let until = match self {
            Changed::Within { from, until } => {
                add(from, &|number| format!(" AND ts OPERATOR(pg_catalog.>=) ${number}"));
                until
            }
            Changed::Earlier { since, until } => {
                add(Some(since), &|number| format!(" AND (ts OPERATOR(pg_catalog.>=) ${number}) IS NOT TRUE"));
                until
            }
        };
        add(until, &|number| format!(" AND ts OPERATOR(pg_catalog.<) ${number}"));
    }
}
