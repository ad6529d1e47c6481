//! Settings: `SET fhir_bulk.… = …`, or in postgresql.conf. Each says what it does and why one would change it.

use crate::error::{Error, Result};
use crate::pg::compat;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use std::ffi::CString;

/// How `meta.versionId` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum VersionId {
    /// A JSON number, as Aidbox's `$dump` writes it.
    #[name = c"number"]
    Number,
    /// A JSON string, as FHIR's `id` datatype asks for.
    #[name = c"string"]
    String,
}

static DATA_SCHEMA: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"public"));
static CREATED_AT_URL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"ex:createdAt"));
static VERSION_ID: GucSetting<VersionId> = GucSetting::<VersionId>::new(VersionId::Number);
static GZIP_LEVEL: GucSetting<i32> = GucSetting::<i32>::new(1);
static MAX_LINE_BYTES: GucSetting<i32> = GucSetting::<i32>::new(256 << 20);
static MAX_NEW_TABLES: GucSetting<i32> = GucSetting::<i32>::new(100);

/// Makes the settings known; called once when the library is loaded.
pub fn define() {
    GucRegistry::define_string_guc(
        c"fhir_bulk.data_schema",
        c"The schema that holds the resource tables.",
        c"Set it where the tables of Aidbox or fhirbase are not in public, or to keep several data sets apart.",
        &DATA_SCHEMA,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"fhir_bulk.created_at_url",
        c"The url of the meta.extension that carries a resource's creation time in FHIR form.",
        c"Set it to what your other systems use (Aidbox: BOX_FHIR_CREATEDAT_URL).",
        &CREATED_AT_URL,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"fhir_bulk.version_id",
        c"How dumps write meta.versionId: number or string.",
        c"Aidbox's $dump writes a number; FHIR's own definition asks for a string.",
        &VERSION_ID,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"fhir_bulk.gzip_level",
        c"The gzip level of compressed dumps, 0 to 9.",
        c"Lower is faster: 1 compresses FHIR to about a tenth; 6 is gzip's default and takes twice as long.",
        &GZIP_LEVEL,
        0,
        9,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"fhir_bulk.max_line_bytes",
        c"The longest line that a load accepts, in bytes.",
        c"It bounds the memory that one line can take; raise it for resources with large attachments.",
        &MAX_LINE_BYTES,
        1024,
        1 << 30,
        GucContext::Userset,
        GucFlags::UNIT_BYTE,
    );
    GucRegistry::define_int_guc(
        c"fhir_bulk.max_new_tables",
        c"The most tables that one load without a resource type may create.",
        c"It keeps a file with mistyped resourceType values from filling the schema with tables.",
        &MAX_NEW_TABLES,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::default(),
    );
    compat::reserve_settings_prefix(c"fhir_bulk");
}

/// `fhir_bulk.data_schema`.
pub fn data_schema() -> Result<CString> {
    DATA_SCHEMA.get().filter(|name| !name.is_empty()).ok_or_else(|| {
        Error::invalid_argument("fhir_bulk.data_schema is empty").hint("SET fhir_bulk.data_schema = 'public';")
    })
}

/// `fhir_bulk.created_at_url`.
pub fn created_at_url() -> String {
    CREATED_AT_URL.get().map_or_else(String::new, |url| url.to_string_lossy().into_owned())
}

/// `fhir_bulk.version_id`.
pub fn version_id() -> VersionId {
    VERSION_ID.get()
}

/// `fhir_bulk.gzip_level`.
pub fn gzip_level() -> u32 {
    GZIP_LEVEL.get().unsigned_abs()
}

/// `fhir_bulk.max_line_bytes`.
pub fn max_line_bytes() -> usize {
    MAX_LINE_BYTES.get().unsigned_abs() as usize
}

/// `fhir_bulk.max_new_tables`.
pub fn max_new_tables() -> usize {
    MAX_NEW_TABLES.get().unsigned_abs() as usize
}
