//! What an export reads, in the worker and in its helpers.

use super::kickoff::Kickoff;
use super::span::Span;
use super::target::Target;
use super::units::Unit;
use crate::settings;
use crate::store::{Filter, Patients, Reader, ResourceTable, ResourceType, Rows, foreign_code_of};
use fhir_bulk_codec::resource::{Form, Selection, Writer};
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};

/// What the worker and its helpers need to know.
#[derive(Clone, Serialize, Deserialize)]
pub struct Work {
    /// Where its files go.
    pub target: Target,
    /// The request.
    pub kickoff: Kickoff,
    /// The patients whose resources are exported, once the snapshot is taken; `None` for all.
    pub patients: Option<Patients>,
    /// Those of them whose older resources are exported, too.
    pub new_members: Option<Patients>,
}

impl Work {
    /// What is exported: the first span has all patients of the export.
    pub fn spans(&self) -> Vec<Span> {
        Span::of(&self.kickoff, self.patients.as_ref(), self.new_members.as_ref())
    }

    /// Reads what is exported of a unit.
    ///
    /// # Errors
    /// 40001 if reading the table would now run another role's code; the errors of the filter and of the table.
    pub fn reader(&self, unit: &Unit, span: &Span) -> Result<Reader> {
        self.reader_with(unit, span, span.filter(&self.kickoff, &unit.resource_type)?)
    }

    /// Reads of a unit what a filter lets through.
    ///
    /// # Errors
    /// As for [`Work::reader`].
    pub fn reader_with(&self, unit: &Unit, span: &Span, filter: Option<Filter>) -> Result<Reader> {
        let rows = unit.blocks.map_or(Rows::Changed(span.changed), Rows::Within);
        self.open(&unit.resource_type, rows, filter)
    }

    /// Reads rows of a type.
    ///
    /// # Errors
    /// As for [`Work::reader`].
    pub fn open(&self, name: &str, rows: Rows<'_>, filter: Option<Filter>) -> Result<Reader> {
        let table = ResourceTable::get(&ResourceType::new(name)?)?;
        self.check_code(&[&table], name)?;
        self.open_checked(&table, name, rows, filter)
    }

    /// Reads rows of a type in tables that have some of them, one after another. All are planned now, right after they were
    /// looked at together.
    ///
    /// # Errors
    /// As for [`Work::reader`].
    pub fn open_all(
        &self,
        tables: &[&ResourceTable],
        name: &str,
        rows: Rows<'_>,
        filter: impl Fn() -> Result<Option<Filter>>,
    ) -> Result<Vec<Reader>> {
        self.check_code(tables, name)?;
        tables.iter().map(|table| self.open_checked(table, name, rows, filter()?)).collect()
    }

    /// Another role may have created an index or a cast since. Then the export starts again and leaves the type out.
    fn check_code(&self, tables: &[&ResourceTable], name: &str) -> Result<()> {
        if !self.kickoff.trusts(name)
            && let Some(what) = foreign_code_of(tables.iter().copied())
        {
            let message = format!("reading {name} would now run code of another role: {what}");
            return Err(Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, message));
        }
        Ok(())
    }

    fn open_checked(
        &self,
        table: &ResourceTable,
        name: &str,
        rows: Rows<'_>,
        filter: Option<Filter>,
    ) -> Result<Reader> {
        let resource_type = ResourceType::new(name)?;
        let mut writer = Writer::new(Form::Fhir(settings::fhir_version()), &settings::created_at_url(), true);
        let elements = self.kickoff.elements_of(name);
        if !elements.is_empty() {
            let elements = Some(elements.into_iter().map(str::to_owned).collect());
            let type_member = "resourceType";
            writer = writer.select(Selection { elements, id: true, meta: true, type_member, subsetted: true });
        }
        Reader::open(table, resource_type.canonical(), rows, filter, writer)?.in_utc().of_one_moment()
    }
}
