//! Rows of a view over a table, or over given resources. What takes them may pause: between two resources, or within one that
//! has very many rows. Such a resource is kept, and its rows are made again up to where it paused.

use super::errors;
use super::given::{self, Given};
use super::options::Selection;
use crate::settings;
use crate::store::{self, Changed, Filter, Live, ResourceTable, ResourceType};
use crate::stream::More;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::cursor::Calling;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use fhir_bulk_views::{Cell, Resources, Rows, View};
use std::ops::ControlFlow::{self, Break, Continue};
use std::rc::Rc;

/// When to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// At once.
    No,
    /// Later; the rows of this resource may come before.
    Soon,
    /// Later: no more rows before.
    Now,
}

/// Takes a row.
pub type Take<'t> = dyn FnMut(&Resource<'_>, &[Cell<'_>]) -> Result<Pause> + 't;

/// Rows that are being read.
pub struct Source {
    resources: Resources,
    from: From,
    /// A resource of which only some rows were taken, and how many.
    kept: Option<(Given, u64)>,
    /// How many rows may still be taken.
    left: Option<u64>,
}

enum From {
    Table(Live),
    Given(std::vec::IntoIter<Given>),
}

impl Source {
    /// Opens the table of a view's type for the current role, or takes the given resources.
    ///
    /// # Errors
    /// 42P01 for a type without a table; 22023 for given resources that are none. PostgreSQL raises its own errors.
    pub fn open(view: Rc<View>, selection: Selection) -> Result<Source> {
        let Selection { patients, since, limit, resources } = selection;
        let resource_type =
            ResourceType::new(view.resource_type()).map_err(|_| store::unknown(view.resource_type()))?;
        let filter = patients.map(|patients| Filter::of_patients(None, resource_type.canonical(), Some(patients)));
        let from = match resources {
            Some(given) => {
                let mut found = given::of_type(given, view.resource_type())?;
                found.retain(|given| {
                    let resource = given.resource();
                    let is_new = since.is_none_or(|since| resource.last_updated.is_some_and(|at| at >= since));
                    is_new && filter.as_ref().is_none_or(|filter| filter.matches(resource))
                });
                From::Given(found.into_iter())
            }
            None => {
                let table = ResourceTable::lock_to_read(&resource_type)?;
                let changed = Changed::Within { from: since, until: None };
                let rows = since.map_or(store::Rows::All, |_| store::Rows::Changed(changed));
                From::Table(Live::open(&table, resource_type.canonical(), rows, filter)?)
            }
        };
        let resources = Resources::new(view, settings::base_urls(), session::check_for_interrupts);
        Ok(Source { resources, from, kept: None, left: limit })
    }

    /// Ends the query when the calling statement ends.
    pub fn close_with_statement(&self, calling: Calling) {
        if let From::Table(live) = &self.from {
            live.close_with_statement(calling);
        }
    }

    /// Ends the query, of which no more rows are wanted.
    pub fn close(&mut self) {
        if let From::Table(live) = &mut self.from {
            live.close();
        }
    }

    /// Passes rows until `take` pauses, or there are no more. Then the query is closed, also if it has more: who is told that
    /// there are no more rows lets go of what the statement's end would close.
    ///
    /// # Errors
    /// Those of `take`, of a resource under the view, and of the query that is read.
    pub fn read(&mut self, take: &mut Take<'_>) -> Result<More> {
        let more = if self.left == Some(0) { More::No } else { self.read_on(take)? };
        // A limit ends a query that would go on. After its last row the function has no memory in which it could be ended.
        if more == More::No {
            self.close();
        }
        Ok(more)
    }

    fn read_on(&mut self, take: &mut Take<'_>) -> Result<More> {
        let Source { resources, from, kept, left } = self;
        let mut passing = Passing { take, left, skip: 0, passed: 0, pause: Pause::No, error: None };
        if let Some((given, passed)) = kept.take() {
            passing.skip = passed;
            passing.resource(resources, &given.resource(), kept)?;
        }
        if passing.pause != Pause::No {
            return Ok(passing.more());
        }
        let more = match from {
            From::Table(live) => live.each(|resource, _| {
                passing.resource(resources, &resource, kept)?;
                Ok(if passing.pause == Pause::No { Continue(()) } else { Break(()) })
            })?,
            From::Given(given) => loop {
                let Some(given) = given.next() else { break More::No };
                passing.resource(resources, &given.resource(), kept)?;
                if passing.pause != Pause::No {
                    break More::Yes;
                }
            },
        };
        Ok(if more == More::No { More::No } else { passing.more() })
    }
}

/// Passes the rows of one resource after the other.
struct Passing<'p, 't> {
    take: &'p mut Take<'t>,
    left: &'p mut Option<u64>,
    /// Rows of a resource that were taken before.
    skip: u64,
    /// Rows of a resource so far.
    passed: u64,
    pause: Pause,
    error: Option<Error>,
}

impl Passing<'_, '_> {
    fn resource(
        &mut self,
        resources: &mut Resources,
        resource: &Resource<'_>,
        kept: &mut Option<(Given, u64)>,
    ) -> Result<()> {
        self.passed = 0;
        let done = resources.rows(*resource, self);
        self.skip = 0;
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let done = done.map_err(|error| errors::of_row(error, resource))?;
        if done.is_break() && *self.left != Some(0) {
            *kept = Some((Given::copy(resource), self.passed));
        }
        Ok(())
    }

    fn more(&self) -> More {
        if *self.left == Some(0) { More::No } else { More::Yes }
    }
}

impl Rows for Passing<'_, '_> {
    fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>]) -> ControlFlow<()> {
        self.passed += 1;
        if self.passed <= self.skip {
            return Continue(());
        }
        match (self.take)(resource, cells) {
            Ok(pause) if pause != Pause::No => self.pause = pause,
            Ok(_) => {}
            Err(error) => {
                self.error = Some(error);
                return Break(());
            }
        }
        if let Some(left) = self.left {
            *left -= 1;
            if *left == 0 {
                self.pause = Pause::Now;
            }
        }
        if self.pause == Pause::Now { Break(()) } else { Continue(()) }
    }
}
