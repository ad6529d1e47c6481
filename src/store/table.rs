//! Finds and creates resource tables. New tables belong to the caller, and not to the extension.

use super::ResourceType;
use super::keys::Keys;
use super::statement::{qualified, sql};
use crate::citus::{self, Node};
use crate::{extension, settings};
use fhir_bulk_pg::catalog;
use fhir_bulk_pg::cursor;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::guc;
use fhir_bulk_pg::lock::Key;
use fhir_bulk_pg::spi::{self, Parameter};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::borrow::Cow;
use std::ffi::{CStr, CString};

/// A table of resources.
#[derive(Clone, Debug)]
pub struct ResourceTable {
    /// The table.
    pub oid: pg_sys::Oid,
    /// `schema.table`, quoted.
    pub sql_name: String,
    schema: CString,
    name: CString,
}

/// The columns that a resource is read from; `cts` may be missing.
pub(super) const RESOURCE_COLUMNS: &str = "id,txid,cts,ts,resource_type,status,resource";

impl ResourceTable {
    fn new(oid: pg_sys::Oid, schema: CString, name: CString) -> ResourceTable {
        ResourceTable { oid, sql_name: qualified(&schema, &name), schema, name }
    }

    /// A relation of any schema, which the caller has locked.
    ///
    /// # Errors
    /// 42809 if it lacks columns of a resource table.
    pub fn at(oid: pg_sys::Oid) -> Result<ResourceTable> {
        let (schema, name) = catalog::full_name(oid);
        let table = ResourceTable::new(oid, schema, name);
        let missing = RESOURCE_COLUMNS
            .split(',')
            .filter(|name| *name != "cts")
            .find(|name| !table.has_column(&CString::new(*name).expect("no NUL")));
        match missing {
            None => Ok(table),
            Some(column) => Err(Error::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("{} is not a resource table", table.sql_name),
            )
            .detail(format!("It has no column \"{column}\"."))
            .hint("A resource table has the columns id, txid, cts, ts, resource_type, status and resource.")),
        }
    }

    /// Its schema.
    pub(super) fn schema(&self) -> &CStr {
        &self.schema
    }

    /// Its name, without the schema.
    pub fn name(&self) -> Cow<'_, str> {
        self.name.to_string_lossy()
    }

    /// The table of a type, if there is one in `fhir_bulk.data_schema`.
    ///
    /// # Errors
    /// 3F000 if that schema does not exist.
    pub fn find(resource_type: &ResourceType) -> Result<Option<ResourceTable>> {
        let schema = settings::data_schema()?;
        let schema_oid = schema_oid(&schema)?;
        let name = resource_type.table_name();
        Ok(catalog::relation(&name, schema_oid).map(|oid| ResourceTable::new(oid, schema, name)))
    }

    /// Locks the table of a type for writing, if there is one. Until the transaction ends, its name and definition do not
    /// change.
    ///
    /// # Errors
    /// 3F000.
    pub fn find_to_write(resource_type: &ResourceType) -> Result<Option<ResourceTable>> {
        let schema = settings::data_schema()?;
        schema_oid(&schema)?;
        let name = resource_type.table_name();
        let oid = catalog::lock_for_insert(&name, &schema);
        Ok(oid.map(|oid| ResourceTable::new(oid, schema, name)))
    }

    /// Locks the table of a type for reading. Until the transaction ends, its name and definition do not change, and its
    /// rows stay in their blocks.
    ///
    /// # Errors
    /// 42P01 if there is none; 3F000.
    pub fn lock_to_read(resource_type: &ResourceType) -> Result<ResourceTable> {
        let schema = settings::data_schema()?;
        schema_oid(&schema)?;
        let name = resource_type.table_name();
        let oid = catalog::lock_for_select(&name, &schema).ok_or_else(|| unknown(resource_type.as_str()))?;
        Ok(ResourceTable::new(oid, schema, name))
    }

    /// Locks everything that the current role reads with the table, and the history table, until the transaction ends.
    /// Writers need not wait.
    ///
    /// # Errors
    /// 3F000.
    pub fn lock_reads(&self, resource_type: &ResourceType) -> Result<()> {
        // SELECT *: the planner would leave out a view's tables that the selected columns do not need.
        cursor::lock_reads(&sql(format!("SELECT * FROM {}", self.sql_name)));
        if let Some(history) = ResourceTable::find_history(resource_type)? {
            cursor::lock_reads(&sql(format!("SELECT * FROM {}", history.sql_name)));
        }
        Ok(())
    }

    /// A table that this transaction has locked, but its snapshot shows as empty, because it was created, truncated or
    /// rewritten after the snapshot. There is none if all locks came before the snapshot.
    pub fn younger_than_snapshot() -> Option<String> {
        // Under the caller's search_path, so that the name is as the caller writes it.
        let query = c"SELECT l.relation::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_locks l \
            LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.relation \
            WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.locktype OPERATOR(pg_catalog.=) 'relation' \
            AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d \
                WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) \
            AND (c.oid IS NULL OR c.relfilenode OPERATOR(pg_catalog.<>) 0 \
                AND c.relfilenode OPERATOR(pg_catalog.<>) pg_catalog.pg_relation_filenode(l.relation)) LIMIT 1";
        spi::texts(query, &[]).into_iter().next()
    }

    /// The table of a type.
    ///
    /// # Errors
    /// 42P01 if there is none; 3F000.
    pub fn get(resource_type: &ResourceType) -> Result<ResourceTable> {
        ResourceTable::find(resource_type)?.ok_or_else(|| unknown(resource_type.as_str()))
    }

    /// The table of a type's older versions, if there is one.
    ///
    /// # Errors
    /// 3F000.
    pub fn find_history(resource_type: &ResourceType) -> Result<Option<ResourceTable>> {
        let schema = settings::data_schema()?;
        let name = resource_type.history_name();
        let oid = catalog::relation(&name, schema_oid(&schema)?);
        Ok(oid.map(|oid| ResourceTable::new(oid, schema, name)))
    }

    /// Locks the table of a type's older versions for reading, if there is one.
    ///
    /// # Errors
    /// 3F000.
    pub fn lock_history_to_read(resource_type: &ResourceType) -> Result<Option<ResourceTable>> {
        let schema = settings::data_schema()?;
        schema_oid(&schema)?;
        let name = resource_type.history_name();
        let oid = catalog::lock_for_select(&name, &schema);
        Ok(oid.map(|oid| ResourceTable::new(oid, schema, name)))
    }

    /// Its history table: in its own schema, else in `fhir_bulk.data_schema`.
    ///
    /// # Errors
    /// 42P01 if there is none; 3F000.
    pub fn history(&self) -> Result<ResourceTable> {
        let name = CString::new([self.name.as_bytes(), b"_history"].concat()).expect("two C strings");
        for schema in [self.schema.clone(), settings::data_schema()?] {
            if let Some(oid) = catalog::relation(&name, schema_oid(&schema)?) {
                return Ok(ResourceTable::new(oid, schema, name));
            }
        }
        let sql_name = qualified(&self.schema, &name);
        let message = format!("there is no history table {sql_name} to keep replaced versions in");
        Err(Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, message)
            .hint("Create it with the columns of the resource table and primary key (id, txid)."))
    }

    /// The table of a type. Creates it and its history table if they do not exist.
    ///
    /// # Errors
    /// 3F000. PostgreSQL raises the errors of `CREATE TABLE`.
    pub fn get_or_create(resource_type: &ResourceType) -> Result<ResourceTable> {
        ResourceTable::make(resource_type, false)?;
        create_history(resource_type)?;
        ResourceTable::get(resource_type)
    }

    /// Creates the table of a type and its history table, if it does not exist, for rows that follow at once. Returns the
    /// table's keys if the caller must create them after the rows.
    ///
    /// # Errors
    /// As for [`ResourceTable::get_or_create`].
    pub fn make_for_rows(resource_type: &ResourceType, keys_may_wait: bool) -> Result<Option<Keys>> {
        // Citus distributes a table with its key.
        let keys_wait = keys_may_wait && !settings::distribute_tables() && Keys::may_wait();
        ResourceTable::make(resource_type, keys_wait)
    }

    fn make(resource_type: &ResourceType, keys_wait: bool) -> Result<Option<Keys>> {
        if ResourceTable::find(resource_type)?.is_some() {
            return Ok(None);
        }
        if let Some(coordinator) = citus::coordinator_of_worker()? {
            make_on(&coordinator, resource_type)?;
            return Ok(None);
        }
        // First what all tables share: so two sessions wait for each other in the same order.
        let schema = settings::data_schema()?;
        let schema_oid = schema_oid(&schema)?;
        let status = qualified(&schema, c"resource_status");
        if !type_exists(&status) {
            wait_for_others(schema_oid, COMMON);
            if !type_exists(&status) {
                let labels = "'created', 'updated', 'deleted', 'recreated'";
                spi::execute(&sql(format!("CREATE TYPE {status} AS ENUM ({labels})")), &[]);
            }
        }
        wait_for_others(schema_oid, number_of(resource_type));
        if ResourceTable::find(resource_type)?.is_some() {
            return Ok(None);
        }
        create(resource_type, keys_wait)
    }

    /// Whether the current role may SELECT the columns of a resource.
    ///
    /// # Errors
    /// 3F000.
    pub fn is_readable(&self) -> Result<bool> {
        let schema = schema_oid(&settings::data_schema()?)?;
        let query = sql(format!(
            "SELECT 'yes' WHERE has_schema_privilege($1, 'USAGE') AND NOT EXISTS \
             (SELECT FROM pg_attribute a WHERE a.attrelid = $2 AND a.attname = ANY ('{{{RESOURCE_COLUMNS}}}') \
             AND NOT has_column_privilege(a.attrelid, a.attnum, 'SELECT'))"
        ));
        Ok(!spi::catalog_texts(&query, &[Parameter::oid(schema), Parameter::oid(self.oid)]).is_empty())
    }

    /// Whether the current role sees all rows of the table.
    pub fn is_open(&self) -> bool {
        let query = c"SELECT 'yes' WHERE has_table_privilege($1, 'SELECT') AND NOT row_security_active($1)";
        !spi::catalog_texts(query, &[Parameter::oid(self.oid)]).is_empty()
    }

    /// Whether a row that the current role does not see is none: it is a table of this server, without policies for the role.
    pub fn shows_all_rows(&self) -> bool {
        let query =
            c"SELECT 'yes' FROM pg_class WHERE oid = $1 AND relkind IN ('r', 'p') AND NOT row_security_active(oid)";
        !spi::catalog_texts(query, &[Parameter::oid(self.oid)]).is_empty()
    }

    /// The size of a table that can be read without running other code: an ordinary table or materialized view, without
    /// policies for the current role, and not distributed by Citus, which reads nothing in parallel mode. `None` for others.
    pub fn plain_bytes(&self) -> Option<u64> {
        if citus::is_distributed(self.oid) {
            return None;
        }
        let query = c"SELECT pg_table_size(oid) FROM pg_class \
            WHERE oid = $1 AND relkind IN ('r', 'm') AND NOT row_security_active(oid)";
        spi::catalog_texts(query, &[Parameter::oid(self.oid)]).first().and_then(|bytes| bytes.parse().ok())
    }

    /// About how many bytes it has, with its partitions and child tables; of what is no table nobody knows, and it counts as
    /// 1 GB.
    pub fn bytes(&self) -> u64 {
        if let Some(bytes) = citus::bytes(self.oid) {
            return bytes;
        }
        let query = c"WITH RECURSIVE parts (oid) AS (SELECT $1 UNION SELECT i.inhrelid FROM parts p \
                JOIN pg_inherits i ON i.inhparent = p.oid) \
            SELECT sum(CASE WHEN c.relkind IN ('r', 'm', 'p') THEN pg_table_size(c.oid) ELSE 1 << 30 END) \
            FROM parts p JOIN pg_class c ON c.oid = p.oid";
        let sum = spi::catalog_texts(query, &[Parameter::oid(self.oid)]);
        sum.first().and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
    }

    /// How many blocks a table has, if it can be read by ranges of blocks: if it is a single heap.
    pub fn blocks(&self) -> Option<u32> {
        let query = c"SELECT pg_relation_size(oid) / current_setting('block_size')::int8 FROM pg_class \
            WHERE oid = $1 AND NOT relhassubclass AND relam = (SELECT oid FROM pg_am WHERE amname = 'heap')";
        spi::catalog_texts(query, &[Parameter::oid(self.oid)]).first().and_then(|blocks| blocks.parse().ok())
    }

    /// The expression for its `status` in a statement, after `prefix`. A domain is compared as text, because domains over
    /// enumerations have no operators.
    pub fn status(&self, prefix: &str) -> String {
        let is_domain = catalog::column(self.oid, c"status")
            .is_some_and(|column| catalog::is_domain(catalog::type_of_column(self.oid, column)));
        format!("{prefix}status{}", if is_domain { "::pg_catalog.text" } else { "" })
    }

    /// Whether the table has a column.
    pub fn has_column(&self, name: &CStr) -> bool {
        catalog::column(self.oid, name).is_some()
    }
}

/// The error for a resource type without a table; never an empty success.
pub fn unknown(resource_type: &str) -> Error {
    let schema = settings::data_schema().unwrap_or_default();
    let shown: String = resource_type.chars().take(80).collect();
    Error::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
        format!("there is no table for resource type \"{shown}\" in schema \"{}\"", schema.to_string_lossy()),
    )
    .hint("Load resources of this type first, or set fhir_bulk.data_schema to the schema of your resource tables.")
}

pub(super) fn schema_oid(schema: &CStr) -> Result<pg_sys::Oid> {
    catalog::schema(schema).ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_INVALID_SCHEMA_NAME,
            format!("schema \"{}\" does not exist", schema.to_string_lossy()),
        )
        .hint("Setting fhir_bulk.data_schema names it. Create the schema or change the setting.")
    })
}

/// Has the coordinator of Citus make the tables of a type, which then are on all nodes, in a transaction of its own: a worker
/// cannot distribute tables.
fn make_on(coordinator: &Node, resource_type: &ResourceType) -> Result<()> {
    if !settings::distribute_tables() {
        return Err(unknown(resource_type.as_str())
            .detail(format!(
                "This is a worker of Citus. A table that it made would be here alone, and not on {coordinator}, the coordinator."
            ))
            .hint("Load resources of this type on the coordinator, or turn fhir_bulk.distribute_tables on here, too."));
    }
    let call = format!("{}.bulk_create_table({})", extension::schema(), citus::literal(resource_type.as_str()));
    let given = |name: &CStr| (name.to_string_lossy().into_owned(), guc::get(name).unwrap_or_default());
    let settings = [c"fhir_bulk.data_schema", c"fhir_bulk.distribute_tables", c"fhir_bulk.identifier_index"].map(given);
    let settings = settings.map(|(name, value)| (name, value.to_string_lossy().into_owned()));
    coordinator.ask(&settings, &call)?;
    catalog::accept_changes();
    Ok(())
}

const KEY: &str = ", PRIMARY KEY (id)";
const HISTORY_KEY: &str = ", PRIMARY KEY (id, txid)";

fn create(resource_type: &ResourceType, keys_wait: bool) -> Result<Option<Keys>> {
    // A session that does not use our locks may create the table meanwhile. That is fine, unless only this transaction may
    // see the table.
    let (if_missing, key) = if keys_wait { ("", "") } else { ("IF NOT EXISTS", KEY) };
    create_one(resource_type, &resource_type.table_name(), if_missing, key)?;
    let name = qualified(&settings::data_schema()?, &resource_type.table_name());
    if settings::distribute_tables() {
        citus::distribute(&name, None)?;
    }
    create_history(resource_type)?;
    let keys = Keys::of(name);
    if keys_wait {
        return Ok(Some(keys));
    }
    keys.index_identifiers();
    Ok(None)
}

/// Creates the history table if it does not exist. If Citus distributes the resource table by id, it is distributed beside it.
fn create_history(resource_type: &ResourceType) -> Result<()> {
    if ResourceTable::find_history(resource_type)?.is_some() {
        return Ok(());
    }
    create_one(resource_type, &resource_type.history_name(), "IF NOT EXISTS", HISTORY_KEY)?;
    let table = ResourceTable::get(resource_type)?;
    if citus::distribution_column(table.oid).is_some_and(|column| column == "id") {
        let history = qualified(&settings::data_schema()?, &resource_type.history_name());
        citus::distribute(&history, Some(&table.sql_name))?;
    }
    Ok(())
}

fn create_one(resource_type: &ResourceType, name: &CStr, if_missing: &str, key: &str) -> Result<()> {
    let schema = settings::data_schema()?;
    let (table, status) = (qualified(&schema, name), qualified(&schema, c"resource_status"));
    // lz4 if the server has it: dumps decompress it much faster than pglz.
    let has_lz4 = c"SELECT 'yes' FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)";
    let compression = if spi::catalog_texts(has_lz4, &[]).is_empty() { "" } else { " COMPRESSION lz4" };
    // Types need their schema: the caller's search_path could name another type.
    let now = "pg_catalog.timestamptz DEFAULT CURRENT_TIMESTAMP";
    spi::execute(
        &sql(format!(
            "CREATE TABLE {if_missing} {table} (id pg_catalog.text NOT NULL, txid pg_catalog.int8 NOT NULL, \
             cts {now}, ts {now}, resource_type pg_catalog.text DEFAULT '{}', status {status} NOT NULL, \
             resource pg_catalog.jsonb{compression} NOT NULL{key})",
            resource_type.canonical()
        )),
        &[],
    );
    Ok(())
}

fn type_exists(sql_name: &str) -> bool {
    let literal = sql_name.replace('\'', "''");
    !spi::texts(&sql(format!("SELECT pg_catalog.to_regtype('{literal}')::pg_catalog.text")), &[]).is_empty()
}

/// If two sessions want to create the same thing in a schema, the second waits here, and then finds that of the first.
pub(super) fn wait_for_others(schema: pg_sys::Oid, what: u32) {
    Key { class: schema, object: what, part: 0 }.wait_in_transaction();
    catalog::accept_changes();
}

/// The number of what all tables of a schema share.
pub(super) const COMMON: u32 = 0;

/// A number for a table, the same in all sessions, and never [`COMMON`].
fn number_of(resource_type: &ResourceType) -> u32 {
    let name = resource_type.table_name();
    name.to_bytes().iter().fold(17, |number: u32, byte| number.wrapping_mul(31).wrapping_add(u32::from(*byte))).max(1)
}
