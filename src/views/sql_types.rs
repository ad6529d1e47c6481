//! The types of a view's columns in SQL.

use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_views::{Column, SqlType};

/// A type by its name in SQL, and how the text of a cell becomes one.
pub struct ColumnType {
    /// The name, in PostgreSQL's spelling.
    pub name: String,
    /// Whether the text is base64.
    pub is_base64: bool,
}

/// Names of the tag `ansi/type` and PostgreSQL's for them: SQL's own words, or with their schema.
const ANSI: [(&str, &str); 26] = [
    ("BOOLEAN", "boolean"),
    ("SMALLINT", "smallint"),
    ("INT", "integer"),
    ("INTEGER", "integer"),
    ("BIGINT", "bigint"),
    ("REAL", "real"),
    ("FLOAT", "double precision"),
    ("DOUBLE", "double precision"),
    ("DOUBLE PRECISION", "double precision"),
    ("NUMERIC", "numeric"),
    ("DECIMAL", "numeric"),
    ("CHAR", "character"),
    ("CHARACTER", "character"),
    ("VARCHAR", "character varying"),
    ("CHARACTER VARYING", "character varying"),
    ("STRING", "pg_catalog.text"),
    ("TEXT", "pg_catalog.text"),
    ("DATE", "pg_catalog.date"),
    ("TIME", "time without time zone"),
    ("TIMESTAMP", "timestamp without time zone"),
    ("TIMESTAMP WITH TIME ZONE", "timestamp with time zone"),
    ("TIMESTAMPTZ", "timestamp with time zone"),
    ("JSON", "pg_catalog.jsonb"),
    ("BINARY", "pg_catalog.bytea"),
    ("VARBINARY", "pg_catalog.bytea"),
    ("BINARY VARYING", "pg_catalog.bytea"),
];
/// Those that may have a length, or a precision and a scale.
const SIZED: [&str; 3] = ["numeric", "character", "character varying"];

impl ColumnType {
    /// The type of a column.
    ///
    /// # Errors
    /// 22023 for an `ansi/type` that is not known.
    pub fn of(column: &Column) -> Result<ColumnType> {
        let plain = |name: &str| ColumnType { name: format!("pg_catalog.{name}"), is_base64: false };
        Ok(match column.sql_type() {
            SqlType::Boolean => plain("bool"),
            SqlType::Integer => plain("int4"),
            SqlType::BigInt => plain("int8"),
            SqlType::Timestamptz => plain("timestamptz"),
            SqlType::Binary => ColumnType { is_base64: true, ..plain("bytea") },
            SqlType::Text => plain("text"),
            SqlType::Json => plain("jsonb"),
            SqlType::Ansi(text) => ansi(&text).ok_or_else(|| {
                let names: Vec<&str> = ANSI.iter().map(|(name, _)| *name).collect();
                let shown: String = text.chars().take(80).collect();
                Error::invalid_argument(format!("invalid view: ansi/type \"{shown}\" is not known"))
                    .detail(format!("It is about {}.tag.", column.element))
                    .hint(format!("The types are {}; some may have a length or a precision.", names.join(", ")))
            })?,
        })
    }
}

/// `NAME`, `NAME(n)` or `NAME(n, n)`. Nothing but known names and digits is passed on.
fn ansi(text: &str) -> Option<ColumnType> {
    let (name, size) = match text.trim().split_once('(') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(')')?)),
        None => (text, None),
    };
    let name = name.split_ascii_whitespace().collect::<Vec<_>>().join(" ").to_ascii_uppercase();
    let found = ANSI.iter().find(|(known, _)| *known == name)?.1;
    let mut type_name = found.to_owned();
    if let Some(size) = size {
        let numbers: Vec<u16> = size.split(',').map(|number| number.trim().parse().ok()).collect::<Option<_>>()?;
        let most = if found == "numeric" { 2 } else { 1 };
        if !SIZED.contains(&found) || numbers.len() > most {
            return None;
        }
        let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
        type_name = format!("{found}({})", numbers.join(","));
    }
    Some(ColumnType { name: type_name, is_base64: found == "pg_catalog.bytea" })
}

#[cfg(test)]
mod tests {
    use super::ansi;

    #[test]
    fn only_types_are_passed_on() {
        let name = |text| ansi(text).map(|found| found.name);
        assert_eq!(name("character  varying(10)").as_deref(), Some("character varying(10)"));
        assert_eq!(name("DECIMAL(10, 2)").as_deref(), Some("numeric(10,2)"));
        assert_eq!(name("VARBINARY").as_deref(), Some("pg_catalog.bytea"));
        for text in ["", "INT(3)", "INT; DROP TABLE t", "NUMERIC(1,2,3)", "NUMERIC(x)", "public.mine", "VARCHAR(10"] {
            assert_eq!(name(text), None, "{text}");
        }
    }
}
