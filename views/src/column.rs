//! Columns and their types.

/// A column of a view.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The type that the view says, by FHIR's name, without the url before it.
    pub declared: Option<String>,
    /// The types that its path may find, by FHIR's names; empty names for what is not known.
    pub found: Vec<&'static str>,
    /// Whether its cells are lists.
    pub collection: bool,
    /// The type of the tag `ansi/type`.
    pub ansi: Option<String>,
    /// Its place in the view: `select[0].column[2]`.
    pub element: String,
}

/// The type of a column for SQL and for files of typed columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlType {
    /// `boolean`
    Boolean,
    /// 32 bits.
    Integer,
    /// 64 bits.
    BigInt,
    /// A moment, in UTC.
    Timestamptz,
    /// Bytes, of base64.
    Binary,
    /// Text: also decimals, dates and times, which have a precision.
    Text,
    /// Structures and lists.
    Json,
    /// What the tag `ansi/type` says.
    Ansi(String),
}

impl Column {
    /// Its type, by SQL on FHIR's table: the tag first, then the declared type, then what the path finds.
    pub fn sql_type(&self) -> SqlType {
        if let Some(ansi) = &self.ansi {
            return SqlType::Ansi(ansi.clone());
        }
        if self.collection {
            return SqlType::Json;
        }
        let of_name = |name: &str| match name {
            "boolean" => SqlType::Boolean,
            "integer" | "positiveInt" | "unsignedInt" => SqlType::Integer,
            "integer64" => SqlType::BigInt,
            "instant" => SqlType::Timestamptz,
            "base64Binary" => SqlType::Binary,
            name if name.starts_with(|c: char| c.is_ascii_uppercase()) => SqlType::Json,
            _ => SqlType::Text,
        };
        match (&self.declared, self.found.as_slice()) {
            (Some(name), _) => of_name(name),
            (None, [first, rest @ ..]) => {
                let first = of_name(first);
                if rest.iter().all(|name| of_name(name) == first) { first } else { SqlType::Text }
            }
            (None, []) => SqlType::Text,
        }
    }
}
