//! The columns of a resource table that a load writes.

use fhir_bulk_pg::catalog::Table;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::{PgSqlErrorCode, pg_sys};

/// Numbers and types of the columns.
pub(super) struct Columns {
    pub id: i16,
    pub txid: i16,
    pub ts: i16,
    pub status: i16,
    pub cts: Option<i16>,
    pub status_type: pg_sys::Oid,
    pub resource_type: i16,
    pub resource: i16,
}

impl Columns {
    /// # Errors
    /// 42703 for a missing column, 42804 for a column of another type.
    pub fn of(table: &Table) -> Result<Columns> {
        let columns = table.columns();
        let find = |name: &str| columns.iter().find(|c| c.name.to_bytes() == name.as_bytes());
        let typed = |name: &str, type_oid: pg_sys::Oid, type_name: &str| match find(name) {
            Some(column) if column.type_oid == type_oid => Ok(column.number),
            Some(_) => Err(Error::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("column {name} of table \"{}\" is not of type {type_name}", table.name()),
            )
            .hint("bulk_create_table() creates a table with the columns of a resource table.")),
            None => Err(missing(table, name)),
        };
        let status = find("status").ok_or_else(|| missing(table, "status"))?;
        Ok(Columns {
            id: typed("id", pg_sys::TEXTOID, "text")?,
            txid: typed("txid", pg_sys::INT8OID, "bigint")?,
            ts: typed("ts", pg_sys::TIMESTAMPTZOID, "timestamptz")?,
            resource_type: typed("resource_type", pg_sys::TEXTOID, "text")?,
            status: status.number,
            resource: typed("resource", pg_sys::JSONBOID, "jsonb")?,
            cts: find("cts").map(|_| typed("cts", pg_sys::TIMESTAMPTZOID, "timestamptz")).transpose()?,
            status_type: status.type_oid,
        })
    }

    /// `id, txid, ts, resource_type, status, resource` and, if it exists, `cts`: in the order of
    /// [`super::batch::Batch::row_values`].
    pub fn inserted(&self) -> Vec<i16> {
        [self.id].into_iter().chain(self.updated()).collect()
    }

    /// The same without `id`: the columns that a new version replaces, in the order of [`super::batch::Batch::new_version`].
    pub fn updated(&self) -> Vec<i16> {
        let Columns { txid, ts, resource_type, status, resource, cts, .. } = *self;
        [txid, ts, resource_type, status, resource].into_iter().chain(cts).collect()
    }

    /// The columns that are read to know whether a row has a resource already.
    pub fn compared(&self) -> Vec<i16> {
        vec![self.id, self.resource_type, self.status, self.resource]
    }

    /// The columns that are read to replace a row.
    pub fn selected(&self) -> Vec<i16> {
        [self.id, self.txid, self.ts, self.status].into_iter().chain(self.cts).collect()
    }
}

fn missing(table: &Table, column: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!("table \"{}\" has no column {column}, so it is not a resource table", table.name()),
    )
    .hint("bulk_create_table() creates a table with the columns of a resource table.")
}
