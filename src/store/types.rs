//! Which resource types there are.

use super::ResourceType;
use super::table::{RESOURCE_COLUMNS, schema_oid, sql};
use crate::error::Result;
use crate::pg::spi::{self, Parameter};
use crate::settings;

/// The types with a table in `fhir_bulk.data_schema` that the current role may read, by name.
///
/// # Errors
/// 3F000 when there is no such schema.
pub fn readable_types() -> Result<Vec<ResourceType>> {
    let schema = schema_oid(&settings::data_schema()?)?;
    // A table's name is in lower case; how a type of one's own is spelt, the default of its column says.
    let query = sql(format!(
        "SELECT pg_catalog.concat(c.relname, ' ', pg_catalog.pg_get_expr(d.adbin, d.adrelid)) \
         FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_attribute t ON t.attrelid OPERATOR(pg_catalog.=) c.oid \
         AND t.attname OPERATOR(pg_catalog.=) 'resource_type' AND NOT t.attisdropped \
         LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid OPERATOR(pg_catalog.=) c.oid \
         AND d.adnum OPERATOR(pg_catalog.=) t.attnum \
         WHERE c.relnamespace OPERATOR(pg_catalog.=) $1 AND NOT c.relispartition \
         AND c.relkind OPERATOR(pg_catalog.=) ANY ('{{r,p,v,m,f}}'::pg_catalog.\"char\"[]) \
         AND pg_catalog.has_schema_privilege($1, 'USAGE') \
         AND (SELECT pg_catalog.count(*) FILTER (WHERE a.attname OPERATOR(pg_catalog.<>) 'cts') OPERATOR(pg_catalog.=) 6 \
         AND pg_catalog.bool_and(pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT')) \
         FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND NOT a.attisdropped \
         AND a.attname OPERATOR(pg_catalog.=) ANY ('{{{RESOURCE_COLUMNS}}}'::pg_catalog.name[])) \
         ORDER BY c.relname"
    ));
    let rows = spi::texts(&query, &[Parameter::oid(schema)]);
    Ok(rows.iter().filter_map(|row| named(row)).collect())
}

/// The type of a table `name` whose column `resource_type` has a default such as `'Patient'::text`. None for a table
/// whose name can be no type's, `patient_history` among them.
fn named(row: &str) -> Option<ResourceType> {
    let (table, default) = row.split_once(' ')?;
    let of_table =
        ResourceType::new(table).ok().filter(|of_table| of_table.table_name().to_bytes() == table.as_bytes())?;
    let spelt = default.strip_prefix('\'').and_then(|text| text.split('\'').next());
    let spelt = spelt.filter(|spelt| spelt.eq_ignore_ascii_case(table)).and_then(|spelt| ResourceType::new(spelt).ok());
    ResourceType::new(spelt.as_ref().unwrap_or(&of_table).canonical()).ok()
}
