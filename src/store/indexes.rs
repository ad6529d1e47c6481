//! Drops the secondary indexes of a table for the time of an import, and makes them again.

use super::ResourceTable;
use super::statement::sql;
use crate::citus;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::guc::{self, Changes};
use fhir_bulk_pg::session;
use fhir_bulk_pg::spi::{self, Parameter};
use pgrx::{PgSqlErrorCode, pg_sys};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::ffi::CString;

/// An index that may be dropped, and what makes it again.
#[derive(Deserialize)]
pub struct SecondaryIndex {
    /// Its name, without schema.
    pub name: String,
    drop: String,
    /// The statements that make it again, with comment, statistics targets and CLUSTER mark.
    pub statements: Vec<String>,
    /// Its tablespace; empty for the database's.
    pub tablespace: String,
}

/// The name of such an index.
#[derive(Deserialize)]
struct Named {
    name: String,
    /// Whether the current role may make it again.
    may_make: bool,
}

/// What makes an index again. Definitions name all schemas: they are asked for under a fixed search_path. The table must be
/// locked: while another session drops an index, its definition is an error.
const DEFINITION: &str = "jsonb_build_object('name', c.relname, \
    'drop', format('DROP INDEX %I.%I', n.nspname, c.relname), \
    'statements', to_jsonb(array_remove(ARRAY[pg_get_indexdef(c.oid), \
        CASE WHEN obj_description(c.oid, 'pg_class') IS NOT NULL THEN \
            format('COMMENT ON INDEX %I.%I IS %L', n.nspname, c.relname, obj_description(c.oid, 'pg_class')) END, \
        CASE WHEN i.indisclustered THEN format('ALTER TABLE %I.%I CLUSTER ON %I', n.nspname, r.relname, c.relname) END] \
        || ARRAY(SELECT format('ALTER INDEX %I.%I ALTER COLUMN %s SET STATISTICS %s', n.nspname, c.relname, a.attnum, \
            a.attstattarget) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attstattarget >= 0 ORDER BY a.attnum), NULL)), \
    'tablespace', coalesce(s.spcname, ''))";

/// As [`Named`].
const NAME: &str = "jsonb_build_object('name', c.relname, 'may_make', has_schema_privilege(n.oid, 'CREATE') \
    AND (s.oid IS NULL OR has_tablespace_privilege(s.oid, 'CREATE')))";

/// Indexes of a plain table that no constraint, replica identity, extension or other object relies on.
const SECONDARY: &str = "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_class r ON r.oid = i.indrelid LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace \
    WHERE i.indrelid = $1 AND r.relkind = 'r' AND c.relkind = 'i' AND NOT c.relispartition \
    AND NOT i.indisunique AND NOT i.indisprimary AND NOT i.indisexclusion AND NOT i.indisreplident \
    AND i.indisvalid AND i.indisready AND i.indislive \
    AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid) \
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid \
        AND d.deptype IN ('e', 'x')) \
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid) \
    ORDER BY c.relname";

impl ResourceTable {
    /// Checks that the current role may disable the table's indexes.
    ///
    /// # Errors
    /// 42501 if it does not own the table, or could not make an index again.
    pub fn check_disables_indexes(&self) -> Result<()> {
        let owned = c"SELECT 'yes' FROM pg_class WHERE oid = $1 AND pg_has_role(relowner, 'USAGE')";
        let denied = |message: String| Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message);
        if spi::catalog_texts(owned, &[Parameter::oid(self.oid)]).is_empty() {
            let message = format!("must be owner of table {} to disable its indexes", self.sql_name);
            return Err(denied(message).hint("Leave out disableIndexes, or import as the table's owner."));
        }
        match self.secondary_indexes::<Named>(NAME).iter().find(|index| !index.may_make) {
            None => Ok(()),
            Some(index) => {
                let message =
                    format!("permission denied to make index \"{}\" of table {} again", index.name, self.sql_name);
                Err(denied(message)
                    .detail("It needs CREATE on the table's schema, and on the index's tablespace.")
                    .hint("Grant it, or leave out disableIndexes."))
            }
        }
    }

    /// Locks the table and drops its secondary indexes, if it has any, after `note` has stored each.
    ///
    /// # Errors
    /// As for [`ResourceTable::check_disables_indexes`].
    pub fn drop_indexes(&self, note: impl Fn(&SecondaryIndex)) -> Result<()> {
        self.check_disables_indexes()?;
        if self.secondary_indexes::<Named>(NAME).is_empty() {
            return Ok(());
        }
        spi::execute(&sql(format!("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE", self.sql_name)), &[]);
        // Another session may have dropped them, or made others, before the lock was there.
        self.check_disables_indexes()?;
        for index in self.secondary_indexes::<SecondaryIndex>(DEFINITION) {
            note(&index);
            spi::execute(&sql(index.drop), &[]);
        }
        Ok(())
    }

    fn secondary_indexes<T: DeserializeOwned>(&self, columns: &str) -> Vec<T> {
        if citus::is_distributed(self.oid) {
            return Vec::new();
        }
        let found = spi::catalog_texts(&sql(format!("SELECT {columns} {SECONDARY}")), &[Parameter::oid(self.oid)]);
        found.iter().map(|json| serde_json::from_str(json).expect("the shape that the query makes")).collect()
    }
}

/// Makes an index of a table again, with the rights of the role that has dropped it or, if it has lost them, of the table's
/// owner. Does nothing if the table is gone, or has an index of that name. PostgreSQL raises its errors.
pub fn make_index(table: pg_sys::Oid, dropped_by: pg_sys::Oid, name: &str, statements: &[String], tablespace: &str) {
    let about = c"SELECT concat(CASE WHEN NOT EXISTS (SELECT FROM pg_roles WHERE oid = $2) THEN r.relowner \
            WHEN pg_has_role($2, r.relowner, 'USAGE') THEN $2 ELSE r.relowner END, ' ', format('%I.%I', n.nspname, r.relname)) \
        FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace WHERE r.oid = $1";
    let found = spi::catalog_texts(about, &[Parameter::oid(table), Parameter::oid(dropped_by)]);
    let Some((maker, sql_name)) = found.first().and_then(|row| row.split_once(' ')) else { return };
    let Ok(maker) = maker.parse::<u32>() else { return };
    let tablespace = CString::new(tablespace).unwrap_or_default();
    session::as_role(maker.into(), || {
        // Whoever made one of that name in the meantime has committed then.
        spi::execute(&sql(format!("LOCK TABLE ONLY {sql_name} IN SHARE MODE")), &[]);
        let there = c"SELECT 'yes' FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
            WHERE i.indrelid = $1 AND c.relname = $2";
        if !spi::catalog_texts(there, &[Parameter::oid(table), Parameter::string(name)]).is_empty() {
            return;
        }
        guc::with(&[(c"default_tablespace", tablespace.as_c_str())], Changes::Undo, || {
            for statement in statements {
                spi::execute(&sql(statement.clone()), &[]);
            }
        });
    });
}
