//! Reads the arguments `format` and `options` of `dump_sql`.

use super::csv::CsvWriter;
use super::json::{BulkWriter, JsonWriter, Objects};
use super::parquet::ParquetWriter;
use super::sql::SqlWriter;
use super::writer::Writer;
use super::writer::different;
use crate::arguments::{Options, quoted_name};
use fhir_bulk_codec::rows::bulk::{Action, Actions};
use fhir_bulk_codec::rows::csv::Csv;
use fhir_bulk_codec::rows::sql::Inserts;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::query::Settings;
use fhir_bulk_pg::value::Column;
use pgrx::PgSqlErrorCode;

const KNOWN: &str = "csv, tsv, ndjson, json, sql, elastic-bulk, parquet";
const ROWS_PER_INSERT: u64 = 100;
const MAX_ROWS_PER_INSERT: u64 = 1_000_000;

/// A format with its checked options.
pub enum Format {
    /// `csv` and `tsv`.
    Csv { csv: Csv, header: bool },
    /// An object on each line.
    Ndjson,
    /// One array of objects.
    Json,
    /// `INSERT`s into `table`, a quoted name.
    Sql { table: String, rows_per_insert: usize },
    /// The body of a `_bulk` request.
    ElasticBulk { actions: Actions, id_column: Option<String> },
    /// A file of typed columns.
    Parquet,
}

impl Format {
    /// Takes the options that are the format's own.
    ///
    /// # Errors
    /// 22023 for an unknown format, and for an option that is missing or of the wrong type.
    pub fn parse(name: &str, options: &mut Options) -> Result<Format> {
        Ok(match name {
            "csv" => csv(options, ",")?,
            "tsv" => csv(options, "\t")?,
            "ndjson" => Format::Ndjson,
            "json" => Format::Json,
            "sql" => sql(options)?,
            "elastic-bulk" => elastic_bulk(options)?,
            "parquet" => Format::Parquet,
            _ => {
                return Err(Error::invalid_argument(format!("unknown format \"{name}\""))
                    .hint(format!("The formats are {KNOWN}.")));
            }
        })
    }

    /// All options that may go with it.
    pub fn known_options(&self) -> String {
        let own = match self {
            Format::Csv { .. } => "header, delimiter, null, ",
            Format::Sql { .. } => "table, rows_per_insert, ",
            Format::ElasticBulk { .. } => "index, id_column, action, ",
            Format::Ndjson | Format::Json | Format::Parquet => "",
        };
        format!("{own}{}", super::beside::KNOWN)
    }

    /// Whether it has lines; otherwise it is binary, and compressed in itself.
    pub fn has_lines(&self) -> bool {
        !matches!(self, Format::Parquet)
    }

    /// The settings under which the query runs: numbers keep all their digits, times are in ISO format. CSV prints values
    /// under the settings of the session.
    pub fn settings(&self) -> Settings {
        match self {
            Format::Csv { .. } => &[],
            Format::Ndjson | Format::Json | Format::ElasticBulk { .. } | Format::Parquet => {
                &[(c"datestyle", c"ISO"), (c"extra_float_digits", c"3")]
            }
            // As pg_dump sets them.
            Format::Sql { .. } => {
                &[(c"datestyle", c"ISO"), (c"intervalstyle", c"postgres"), (c"extra_float_digits", c"3")]
            }
        }
    }

    /// Makes the writer of rows with these columns.
    ///
    /// # Errors
    /// 42701 for a repeated column, except in CSV; 42703 for an `id_column` that the query does not have; 22023 for formats
    /// `sql` and `parquet` without columns.
    pub fn writer(self, columns: &[Column]) -> Result<Box<dyn Writer>> {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        Ok(match self {
            Format::Csv { csv, header } => Box::new(CsvWriter::new(csv, header.then_some(&names[..]))),
            Format::Ndjson => Box::new(Objects::new(&names)?),
            Format::Json => Box::new(JsonWriter::new(Objects::new(&names)?)),
            Format::Sql { table, rows_per_insert } => {
                some(&names, "sql")?;
                Box::new(SqlWriter::new(Inserts::new(&table, names.into_iter(), rows_per_insert)))
            }
            Format::ElasticBulk { actions, id_column } => {
                let id = id_column.map(|name| id_column_of(name, &names)).transpose()?;
                Box::new(BulkWriter::new(actions, id, Objects::new(&names)?))
            }
            Format::Parquet => {
                some(&names, "parquet")?;
                Box::new(ParquetWriter::new(columns)?)
            }
        })
    }
}

/// Checks that there are columns, with different names.
fn some(columns: &[&str], format: &str) -> Result<()> {
    if columns.is_empty() {
        return Err(Error::invalid_argument(format!("format {format} needs a query with columns")));
    }
    different(columns)
}

fn csv(options: &mut Options, delimiter: &str) -> Result<Format> {
    let header = options.flag("header")?;
    let delimiter = options.string("delimiter")?.unwrap_or_else(|| delimiter.to_owned());
    let null = options.string("null")?.unwrap_or_default();
    let csv = Csv::new(&delimiter, &null).map_err(|reason| Error::invalid_argument(format!("option {reason}")))?;
    Ok(Format::Csv { csv, header })
}

fn sql(options: &mut Options) -> Result<Format> {
    let name = options.needed("table", "format sql", r#"{"table": "public.patient_copy"}"#)?;
    let rows = options.count("rows_per_insert", 1..=MAX_ROWS_PER_INSERT)?.unwrap_or(ROWS_PER_INSERT);
    Ok(Format::Sql { table: quoted_name("option table", &name)?, rows_per_insert: rows as usize })
}

fn elastic_bulk(options: &mut Options) -> Result<Format> {
    let index = options.needed("index", "format elastic-bulk", r#"{"index": "patients"}"#)?;
    let action = match options.string("action")?.as_deref() {
        None | Some("index") => Action::Index,
        Some("create") => Action::Create,
        Some(_) => return Err(Error::invalid_argument("option action is not \"index\" or \"create\"")),
    };
    let actions = Actions::new(action, &index).map_err(|rule| {
        Error::invalid_argument(format!("option index is not an index name: {index}"))
            .hint(format!("An index name {rule}."))
    })?;
    Ok(Format::ElasticBulk { actions, id_column: options.string("id_column")? })
}

fn id_column_of(name: String, columns: &[&str]) -> Result<usize> {
    columns.iter().position(|column| *column == name).ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("the query has no column \"{name}\", which option id_column names"),
        )
        .hint(format!("Its columns are {}.", columns.join(", ")))
    })
}
