//! Lists the resource types that have a table.

use super::statement::sql;
use super::table::{RESOURCE_COLUMNS, schema_oid};
use super::{ResourceTable, ResourceType};
use crate::settings;
use fhir_bulk_pg::catalog;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::spi::{self, Parameter};

/// The types with a table in `fhir_bulk.data_schema` that the current role may read, sorted by name.
///
/// # Errors
/// 3F000 if there is no such schema.
pub fn readable_types() -> Result<Vec<ResourceType>> {
    types(true)
}

/// The types with a table there that the current role may not read, sorted by name.
///
/// # Errors
/// 3F000 if there is no such schema.
pub fn hidden_types() -> Result<Vec<ResourceType>> {
    types(false)
}

fn types(readable: bool) -> Result<Vec<ResourceType>> {
    let schema = schema_oid(&settings::data_schema()?)?;
    let query = sql(format!(
        "SELECT concat(c.oid, ' ', c.relname) FROM pg_class c \
         WHERE c.relnamespace = $1 AND NOT c.relispartition AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
         AND (SELECT count(*) FILTER (WHERE a.attname <> 'cts') = 6 \
         AND (has_schema_privilege($1, 'USAGE') \
         AND bool_and(has_column_privilege(a.attrelid, a.attnum, 'SELECT'))) = {readable} \
         FROM pg_attribute a \
         WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attname = ANY ('{{{RESOURCE_COLUMNS}}}')) \
         ORDER BY c.relname"
    ));
    let rows = spi::catalog_texts(&query, &[Parameter::oid(schema)]);
    Ok(rows.iter().filter_map(|row| row.split_once(' ')).filter_map(|(oid, table)| type_of(oid, table)).collect())
}

/// The type of a table; `None` if its name is not that of a type, such as `patient_history`.
fn type_of(oid: &str, table: &str) -> Option<ResourceType> {
    let of_table = ResourceType::new(table).ok().filter(|found| found.table_name().to_bytes() == table.as_bytes())?;
    if of_table.canonical() != table {
        return ResourceType::new(of_table.canonical()).ok();
    }
    // Reading the default waits for sessions that change the table, so it is read for custom types only.
    Some(default_type(oid).filter(|spelt| spelt.as_str().eq_ignore_ascii_case(table)).unwrap_or(of_table))
}

/// The type in the default of a table's `resource_type`, such as 'Individual'::text: the spelling of a custom type.
fn default_type(oid: &str) -> Option<ResourceType> {
    let query = sql(format!(
        "SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d \
         JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.attname = 'resource_type' \
         WHERE d.adrelid = {oid}"
    ));
    let default = spi::catalog_texts(&query, &[]).pop()?;
    ResourceType::new(default.strip_prefix('\'')?.split('\'').next()?).ok()
}

/// The type of the resources in a table with any name, if the current role can find it: from HL7's spelling of the table's
/// name, from a row, or from the column's default.
pub fn type_of_table(table: &ResourceTable) -> Option<ResourceType> {
    if let Some(known) = fhir_bulk_codec::fhir::resource_type(&table.name()) {
        return ResourceType::new(known).ok();
    }
    let readable = c"SELECT 'yes' WHERE has_column_privilege($1, 'resource_type', 'SELECT')";
    // A view would be run for it.
    let has_rows = matches!(catalog::kind(table.oid), b'r' | b'p' | b'f');
    if has_rows && !spi::catalog_texts(readable, &[Parameter::oid(table.oid)]).is_empty() {
        let of_row = sql(format!(
            "SELECT resource_type::pg_catalog.text FROM {} WHERE resource_type IS NOT NULL LIMIT 1",
            table.sql_name
        ));
        if let Some(name) = spi::texts(&of_row, &[]).pop() {
            return ResourceType::new(&name).ok();
        }
    }
    default_type(&table.oid.to_u32().to_string()).filter(|spelt| spelt.as_str().eq_ignore_ascii_case(&table.name()))
}
