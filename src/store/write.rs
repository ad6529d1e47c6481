//! Resources into their table: new ones, and new versions of known ones.

use super::ResourceTable;
use super::table::sql;
use crate::error::{Error, Result};
use crate::pg::catalog::{self, Table};
use crate::pg::datum::{Value, Values};
use crate::pg::insert::HeapInsert;
use crate::pg::session;
use crate::pg::spi::{self, Parameter};
use fhir_bulk_codec::LineError;
use fhir_bulk_codec::resource::Encoded;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::collections::HashSet;
use std::ffi::CString;

/// A batch is full at so many rows or so many bytes, whichever comes first.
const BATCH_ROWS: usize = 1000;
const BATCH_BYTES: usize = 512 << 10;
/// Memory that a huge resource took beyond this is given back.
const KEEP_BYTES: usize = 4 << 20;
/// From one known row in so many on, the next batch asks for the known ones before it inserts.
const PROBE_SHARE: usize = 16;

/// What all rows of a load share.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The load's number of `transaction_id_seq`.
    pub txid: i64,
    /// `now()`.
    pub ts: i64,
}

/// Writes the resources of one type.
pub struct TableWriter {
    table: Table,
    sql_name: String,
    stamp: Stamp,
    insert: HeapInsert,
    has_cts: bool,
    status_created: pg_sys::Datum,
    /// What all batches share.
    constants: Values,
    resource_type: Value,
    values: Values,
    rows: Vec<NewRow>,
    /// Ask which ids are known before inserting; else find out by inserting.
    probe: bool,
    upsert: CString,
}

#[derive(Clone, Copy)]
struct NewRow {
    id: Value,
    cts: Option<i64>,
    resource: Value,
}

impl TableWriter {
    /// Opens a table for writing: checks privileges, and that rows may go in directly.
    ///
    /// # Errors
    /// 0A000 for a table that cannot be written directly, 42P10 for one without a unique index on `id`, 42703 and
    /// 42804 for columns that are missing or of another type. PostgreSQL's own (42501) are raised.
    pub fn open(table: &ResourceTable, resource_type: &str, stamp: Stamp) -> Result<TableWriter> {
        let open = Table::open_for_insert(table.oid);
        let columns = Columns::of(&open)?;
        let mut insert = HeapInsert::new(open, columns.numbers());
        if let Some(reason) = not_direct(&open) {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("cannot load into {}: {reason}", table.sql_name),
            )
            .detail("Loads write plain tables only: no triggers, rules, row level security, generated columns or partitions.")
            .hint("Load into a plain table and copy from there with INSERT … SELECT."));
        }
        if !insert.set_key(columns.id) {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_INVALID_COLUMN_REFERENCE,
                format!("table {} has no unique index on id", table.sql_name),
            )
            .hint(format!("ALTER TABLE {} ADD PRIMARY KEY (id);", table.sql_name)));
        }
        let mut constants = Values::default();
        let resource_type = push_text(&mut constants, resource_type);
        Ok(TableWriter {
            table: open,
            sql_name: table.sql_name.clone(),
            stamp,
            insert,
            has_cts: columns.cts.is_some(),
            status_created: catalog::input(columns.status_type, c"created"),
            constants,
            resource_type,
            values: Values::default(),
            rows: Vec::new(),
            probe: false,
            upsert: upsert_statement(&table.sql_name, columns.cts.is_some()),
        })
    }

    /// Takes one resource; writes a batch when it is full.
    ///
    /// # Errors
    /// The line's own, when its jsonb would be too large. Those of writing are raised.
    pub fn push(&mut self, resource: &Encoded<'_>, created_at: Option<i64>) -> std::result::Result<(), LineError> {
        let id = push_text(&mut self.values, resource.id());
        let value = self.values.push(|out| resource.write(out))?;
        self.rows.push(NewRow { id, cts: created_at, resource: value });
        if self.rows.len() == BATCH_ROWS || self.values.len() >= BATCH_BYTES {
            self.flush();
        }
        Ok(())
    }

    /// Writes what is left and closes the table.
    pub fn finish(mut self) {
        self.flush();
        self.insert.close();
        self.table.close();
    }

    fn flush(&mut self) {
        session::check_for_interrupts();
        if self.rows.is_empty() {
            return;
        }
        let (new, mut known) = if self.probe { self.split_known() } else { (self.all(), Vec::new()) };
        let conflicts = self.insert_new(&new);
        known.extend(conflicts.into_iter().map(|at| new[at]));
        // Rows of this batch must be seen by the statements after it.
        session::advance_command();
        self.probe = known.len() * PROBE_SHARE > self.rows.len();
        if !known.is_empty() {
            self.replace_known(known);
        }
        self.rows.clear();
        self.values.clear(KEEP_BYTES);
    }

    fn all(&self) -> Vec<usize> {
        (0..self.rows.len()).collect()
    }

    /// Which rows of the batch the table does not have yet, and which it has.
    fn split_known(&self) -> (Vec<usize>, Vec<usize>) {
        let query =
            sql(format!("SELECT id::pg_catalog.text FROM {} WHERE id OPERATOR(pg_catalog.=) ANY ($1)", self.sql_name));
        let mut ids: Vec<_> = self.rows.iter().map(|row| self.values.datum(row.id)).collect();
        let known: HashSet<String> = spi::texts(&query, &[Parameter::texts(&mut ids)]).into_iter().collect();
        self.all().into_iter().partition(|at| !known.contains(self.id(*at)))
    }

    fn id(&self, row: usize) -> &str {
        // It was pushed as a str.
        str::from_utf8(self.values.bytes(self.rows[row].id)).unwrap_or_default()
    }

    /// Inserts these rows of the batch; the places, among them, of those that the table has already.
    fn insert_new(&mut self, new: &[usize]) -> Vec<usize> {
        let TableWriter { insert, values, constants, rows, stamp, status_created, has_cts, resource_type, .. } = self;
        insert.insert(new.len(), |at, row| {
            let NewRow { id, cts, resource } = rows[new[at]];
            row.push(values.datum(id));
            row.push(stamp.txid.into());
            row.push(stamp.ts.into());
            row.push(constants.datum(*resource_type));
            row.push(*status_created);
            row.push(values.datum(resource));
            if *has_cts {
                row.push(cts.unwrap_or(stamp.ts).into());
            }
        })
    }

    /// New versions of rows that the table has, in one statement. Of an id that comes twice the last row counts.
    fn replace_known(&self, mut known: Vec<usize>) {
        // In the order of ids, so that two loads wait for each other's rows in the same order.
        known.sort_by(|a, b| self.id(*a).cmp(self.id(*b)).then(a.cmp(b)));
        let last_of_id = |pair: &[usize]| pair.len() == 1 || self.id(pair[0]) != self.id(pair[1]);
        let last: Vec<_> = (0..known.len())
            .filter(|at| last_of_id(&known[*at..known.len().min(at + 2)]))
            .map(|at| self.rows[known[at]])
            .collect();
        let mut ids: Vec<_> = last.iter().map(|row| self.values.datum(row.id)).collect();
        let mut resources: Vec<_> = last.iter().map(|row| self.values.datum(row.resource)).collect();
        let created: Vec<_> = last.iter().map(|row| row.cts).collect();
        let mut parameters = vec![
            Parameter::texts(&mut ids),
            Parameter::jsonbs(&mut resources),
            Parameter::int8(self.stamp.txid),
            Parameter::timestamptz(self.stamp.ts),
            Parameter::text(self.constants.datum(self.resource_type)),
        ];
        if self.has_cts {
            parameters.push(Parameter::timestamptzs(&created));
        }
        spi::execute(&self.upsert, &parameters);
    }
}

fn push_text(values: &mut Values, text: &str) -> Value {
    let pushed = values.push::<std::convert::Infallible>(|out| {
        out.extend_from_slice(text.as_bytes());
        Ok(())
    });
    match pushed {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

/// The columns that a load writes.
struct Columns {
    id: i16,
    others: [i16; 5],
    cts: Option<i16>,
    status_type: pg_sys::Oid,
}

impl Columns {
    fn of(table: &Table) -> Result<Columns> {
        let columns = table.columns();
        let find = |name: &str| columns.iter().find(|c| c.name.to_bytes() == name.as_bytes());
        let typed = |name: &str, type_oid: pg_sys::Oid, type_name: &str| match find(name) {
            Some(column) if column.type_oid == type_oid => Ok(column.number),
            Some(_) => Err(Error::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("column {name} of table \"{}\" is not of type {type_name}", table.name()),
            )
            .hint("Resource tables have the columns that bulk_create_table gives them.")),
            None => Err(missing(table, name)),
        };
        let status = find("status").ok_or_else(|| missing(table, "status"))?;
        Ok(Columns {
            id: typed("id", pg_sys::TEXTOID, "text")?,
            others: [
                typed("txid", pg_sys::INT8OID, "bigint")?,
                typed("ts", pg_sys::TIMESTAMPTZOID, "timestamptz")?,
                typed("resource_type", pg_sys::TEXTOID, "text")?,
                status.number,
                typed("resource", pg_sys::JSONBOID, "jsonb")?,
            ],
            cts: find("cts").map(|_| typed("cts", pg_sys::TIMESTAMPTZOID, "timestamptz")).transpose()?,
            status_type: status.type_oid,
        })
    }

    /// In the order in which [`TableWriter::insert_new`] gives their values.
    fn numbers(&self) -> Vec<i16> {
        [self.id].into_iter().chain(self.others).chain(self.cts).collect()
    }
}

fn missing(table: &Table, column: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!("table \"{}\" has no column {column}, so it is not a resource table", table.name()),
    )
    .hint("Resource tables have the columns that bulk_create_table gives them.")
}

/// Why rows may not go straight into a table's pages: something of PostgreSQL's would be passed by.
fn not_direct(table: &Table) -> Option<String> {
    let reason = match table.kind() {
        b'r' if table.is_partition() => "it is a partition",
        b'r' if !table.is_heap() => "it does not use PostgreSQL's heap storage",
        b'r' if table.has_triggers() => "it has triggers or foreign keys",
        b'r' if table.has_rules() => "it has rules",
        b'r' if table.is_decoded() => "wal_level is logical",
        b'r' if table.has_row_security_for_me() => "row level security applies to the current role",
        b'r' if table.columns().iter().any(|c| c.is_generated) => "it has generated columns",
        b'r' if table.columns().iter().any(|c| catalog::is_domain(c.type_oid)) => "it has columns of domain types",
        b'r' if is_distributed(table) => "Citus spreads it over other servers",
        b'r' => return None,
        b'p' => "it is a partitioned table",
        b'f' => "it is a foreign table",
        b'v' => "it is a view",
        b'm' => "it is a materialized view",
        _ => "it is not a table",
    };
    Some(reason.to_owned())
}

/// Citus keeps a shell of the table here and its rows elsewhere; what went into the shell would be lost.
fn is_distributed(table: &Table) -> bool {
    let Some(schema) = catalog::schema(c"pg_catalog") else { return false };
    if catalog::relation(c"pg_dist_partition", schema).is_none() {
        return false;
    }
    let query = c"SELECT 'yes' FROM pg_catalog.pg_dist_partition \
        WHERE logicalrelid::pg_catalog.oid::pg_catalog.int8 OPERATOR(pg_catalog.=) $1";
    !spi::texts(query, &[Parameter::int8(i64::from(table.oid().to_u32()))]).is_empty()
}

/// A row that this very load has written (a repeated id) keeps the status and, when new, takes the last line's
/// creation time; any other keeps its creation time.
fn upsert_statement(table: &str, has_cts: bool) -> CString {
    let (column, value, from, set) = if has_cts {
        (
            ", cts",
            ", coalesce(r.cts, $4)",
            ", $6) AS r(id, resource, cts)",
            ", cts = CASE WHEN t.txid OPERATOR(pg_catalog.=) excluded.txid \
             AND t.status OPERATOR(pg_catalog.=) 'created' THEN excluded.cts ELSE t.cts END",
        )
    } else {
        ("", "", ") AS r(id, resource)", "")
    };
    sql(format!(
        "INSERT INTO {table} AS t (id, txid, ts, resource_type, status, resource{column}) \
         SELECT r.id, $3, $4, $5, 'created', r.resource{value} FROM pg_catalog.unnest($1, $2{from}) \
         ON CONFLICT (id) DO UPDATE SET txid = excluded.txid, ts = excluded.ts, \
         resource_type = excluded.resource_type, resource = excluded.resource, \
         status = CASE WHEN t.txid OPERATOR(pg_catalog.=) excluded.txid THEN t.status \
         WHEN t.status OPERATOR(pg_catalog.=) 'deleted' THEN 'recreated' ELSE 'updated' END{set}"
    ))
}
