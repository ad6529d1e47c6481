//! The formats of a view's rows.

use super::parquet::ParquetRows;
use super::reader::Writer;
use crate::arguments::{Options, quoted_name};
use fhir_bulk_codec::rows::csv::Csv;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_views::View;
use fhir_bulk_views::rows::{CsvRows, JsonRows, ObjectRows, SqlRows};

const KNOWN: &str = "csv, tsv, ndjson, json, sql, parquet";
const ROWS_PER_INSERT: u64 = 100;
const MAX_ROWS_PER_INSERT: u64 = 1_000_000;

/// A format with its checked options.
pub struct Format {
    name: &'static str,
    kind: Kind,
}

enum Kind {
    Csv { csv: Csv, header: bool },
    Ndjson,
    Json,
    Sql { table: String, rows_per_insert: usize },
    Parquet,
}

impl Format {
    /// Takes the options that are the format's own.
    ///
    /// # Errors
    /// 22023 for an unknown format, and for an option that is missing or of the wrong type.
    pub fn parse(name: &str, options: &mut Options) -> Result<Format> {
        let (name, kind) = match name {
            "csv" => ("csv", csv(options, ",")?),
            "tsv" => ("tsv", csv(options, "\t")?),
            "ndjson" => ("ndjson", Kind::Ndjson),
            "json" => ("json", Kind::Json),
            "sql" => ("sql", sql(options)?),
            "parquet" => ("parquet", Kind::Parquet),
            _ => {
                return Err(Error::invalid_argument(format!("unknown format \"{name}\""))
                    .hint(format!("The formats are {KNOWN}.")));
            }
        };
        Ok(Format { name, kind })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// All options that may go with it.
    pub fn known_options(&self) -> String {
        let own = match self.kind {
            Kind::Csv { .. } => "header, delimiter, null, ",
            Kind::Sql { .. } => "table, rows_per_insert, ",
            Kind::Ndjson | Kind::Json | Kind::Parquet => "",
        };
        format!("{own}{}", super::options::KNOWN)
    }

    /// Whether it has lines; otherwise it is binary, and compressed in itself.
    pub fn has_lines(&self) -> bool {
        !matches!(self.kind, Kind::Parquet)
    }

    /// Makes the writer of a view's rows.
    ///
    /// # Errors
    /// 22023 for a type that a column of a file cannot have.
    pub fn writer(self, view: &View) -> Result<Writer> {
        Ok(Writer::Lines(match self.kind {
            Kind::Csv { csv, header } => Box::new(CsvRows::new(view, csv, header)),
            Kind::Ndjson => Box::new(ObjectRows::new(view)),
            Kind::Json => Box::new(JsonRows::new(view)),
            Kind::Sql { table, rows_per_insert } => Box::new(SqlRows::new(view, &table, rows_per_insert)),
            Kind::Parquet => return Ok(Writer::Parquet(Box::new(ParquetRows::new(view)?))),
        }))
    }
}

fn csv(options: &mut Options, delimiter: &str) -> Result<Kind> {
    let header = options.flag("header")?;
    let delimiter = options.string("delimiter")?.unwrap_or_else(|| delimiter.to_owned());
    let null = options.string("null")?.unwrap_or_default();
    let csv = Csv::new(&delimiter, &null).map_err(|reason| Error::invalid_argument(format!("option {reason}")))?;
    Ok(Kind::Csv { csv, header })
}

fn sql(options: &mut Options) -> Result<Kind> {
    let name = options.needed("table", "format sql", r#"{"table": "public.patient_flat"}"#)?;
    let rows = options.count("rows_per_insert", 1..=MAX_ROWS_PER_INSERT)?.unwrap_or(ROWS_PER_INSERT);
    Ok(Kind::Sql { table: quoted_name("option table", &name)?, rows_per_insert: rows as usize })
}
