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
    /// The statements that make those of its partitions again, first.
    pub before: Vec<String>,
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
fn definition() -> String {
    let parts = made_by("x", "xi", "xr", "xn");
    format!(
        "jsonb_build_object('name', c.relname, 'drop', format('DROP INDEX %I.%I', n.nspname, c.relname), \
            'statements', to_jsonb({own}), 'tablespace', coalesce(s.spcname, ''), \
            'before', coalesce((SELECT jsonb_agg(p.statement ORDER BY t.level DESC, t.relid, p.number) \
                FROM pg_partition_tree(c.oid) t JOIN pg_class x ON x.oid = t.relid \
                JOIN pg_index xi ON xi.indexrelid = x.oid JOIN pg_class xr ON xr.oid = xi.indrelid \
                JOIN pg_namespace xn ON xn.oid = x.relnamespace LEFT JOIN pg_tablespace xs ON xs.oid = x.reltablespace, \
                unnest(ARRAY[format('SELECT pg_catalog.set_config(''default_tablespace'', %L, true)', \
                    coalesce(xs.spcname, ''))] || {parts}) WITH ORDINALITY p (statement, number) \
                WHERE t.level > 0), '[]'))",
        own = made_by("c", "i", "r", "n"),
    )
}

/// The statements that make one index again, by the names of its rows in `pg_class` and `pg_index`, of its table's and of its
/// schema's. That of a partitioned table is said to be `ON ONLY` it, but shall be one of all partitions: those of theirs that
/// are there already become parts of it.
fn made_by(index: &str, details: &str, table: &str, schema: &str) -> String {
    format!(
        "array_remove(ARRAY[CASE {index}.relkind WHEN 'I' \
            THEN format('CREATE INDEX %I ON ', {index}.relname) || substr(pg_get_indexdef({index}.oid), \
                length(format('CREATE INDEX %I ON ONLY ', {index}.relname)) + 1) \
            ELSE pg_get_indexdef({index}.oid) END, \
        CASE WHEN obj_description({index}.oid, 'pg_class') IS NOT NULL THEN format('COMMENT ON INDEX %I.%I IS %L', \
            {schema}.nspname, {index}.relname, obj_description({index}.oid, 'pg_class')) END, \
        CASE WHEN {details}.indisclustered THEN format('ALTER TABLE %I.%I CLUSTER ON %I', \
            {schema}.nspname, {table}.relname, {index}.relname) END] \
        || ARRAY(SELECT format('ALTER INDEX %I.%I ALTER COLUMN %s SET STATISTICS %s', {schema}.nspname, {index}.relname, \
            a.attnum, a.attstattarget) FROM pg_attribute a \
            WHERE a.attrelid = {index}.oid AND a.attstattarget >= 0 ORDER BY a.attnum), NULL)"
    )
}

/// As [`Named`].
const NAME: &str = "jsonb_build_object('name', c.relname, 'may_make', has_schema_privilege(n.oid, 'CREATE') \
    AND (s.oid IS NULL OR has_tablespace_privilege(s.oid, 'CREATE')) \
    AND NOT EXISTS (SELECT FROM pg_partition_tree(c.oid) t JOIN pg_class x ON x.oid = t.relid \
        WHERE NOT has_schema_privilege(x.relnamespace, 'CREATE') \
            OR x.reltablespace <> 0 AND NOT has_tablespace_privilege(x.reltablespace, 'CREATE')))";

/// Indexes of a table that no constraint, replica identity, extension or other object relies on, but their own partitions.
const SECONDARY: &str = "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_class r ON r.oid = i.indrelid LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace \
    WHERE i.indrelid = $1 AND r.relkind IN ('r', 'p') AND c.relkind IN ('i', 'I') AND NOT c.relispartition \
    AND NOT i.indisunique AND NOT i.indisprimary AND NOT i.indisexclusion AND NOT i.indisreplident \
    AND i.indisvalid AND i.indisready AND i.indislive \
    AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid) \
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid \
        AND d.deptype IN ('e', 'x')) \
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid \
        AND d.deptype NOT IN ('P', 'S')) \
    ORDER BY c.relname";

impl ResourceTable {
    /// Checks that the current role may disable the table's indexes.
    ///
    /// # Errors
    /// 42501 if it does not own the table and its partitions, or could not make an index again.
    pub fn check_disables_indexes(&self) -> Result<()> {
        // With its partitions, whose indexes go and come with its own.
        let owned = c"SELECT 'yes' FROM pg_class WHERE oid = $1 AND pg_has_role(relowner, 'USAGE') \
            AND NOT EXISTS (SELECT FROM pg_partition_tree($1::oid::regclass) t JOIN pg_class p ON p.oid = t.relid \
                WHERE NOT pg_has_role(p.relowner, 'USAGE'))";
        let denied = |message: String| Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message);
        if spi::catalog_texts(owned, &[Parameter::oid(self.oid)]).is_empty() {
            let message = format!("must be owner of table {} and its partitions to disable its indexes", self.sql_name);
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
        spi::execute(&lock(self.oid, &self.sql_name, "ACCESS EXCLUSIVE"), &[]);
        // Another session may have dropped them, or made others, before the lock was there.
        self.check_disables_indexes()?;
        for index in self.secondary_indexes::<SecondaryIndex>(&definition()) {
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

/// The statement that locks a table, with its partitions if it has such.
fn lock(table: pg_sys::Oid, sql_name: &str, mode: &str) -> CString {
    let is_partitioned = c"SELECT 'yes' FROM pg_class WHERE oid = $1 AND relkind = 'p'";
    let only = if spi::catalog_texts(is_partitioned, &[Parameter::oid(table)]).is_empty() { "ONLY " } else { "" };
    sql(format!("LOCK TABLE {only}{sql_name} IN {mode} MODE"))
}

/// Makes an index of a table again, with the rights of the role that has dropped it or, if it has lost them, of the table's
/// owner: by the statements for its partitions, then its own. Does nothing if the table is gone, or has an index of that name. PostgreSQL raises its errors.
pub fn make_index(table: pg_sys::Oid, dropped_by: pg_sys::Oid, name: &str, made_by: [&[String]; 2], tablespace: &str) {
    let about = c"SELECT concat(CASE WHEN NOT EXISTS (SELECT FROM pg_roles WHERE oid = $2) THEN r.relowner \
            WHEN pg_has_role($2, r.relowner, 'USAGE') THEN $2 ELSE r.relowner END, ' ', format('%I.%I', n.nspname, r.relname)) \
        FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace WHERE r.oid = $1";
    let found = spi::catalog_texts(about, &[Parameter::oid(table), Parameter::oid(dropped_by)]);
    let Some((maker, sql_name)) = found.first().and_then(|row| row.split_once(' ')) else { return };
    let Ok(maker) = maker.parse::<u32>() else { return };
    let tablespace = CString::new(tablespace).unwrap_or_default();
    session::as_role(maker.into(), || {
        // Whoever made one of that name in the meantime has committed then.
        spi::execute(&lock(table, sql_name, "SHARE"), &[]);
        let there = c"SELECT 'yes' FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
            WHERE i.indrelid = $1 AND c.relname = $2";
        if !spi::catalog_texts(there, &[Parameter::oid(table), Parameter::string(name)]).is_empty() {
            return;
        }
        for statements in made_by {
            // Statements of partitions choose their own.
            guc::with(&[(c"default_tablespace", tablespace.as_c_str())], Changes::Undo, || {
                for statement in statements {
                    spi::execute(&sql(statement.clone()), &[]);
                }
            });
        }
    });
}
