//! Defines the settings `fhir_bulk.…`. Each description says what the setting does and why to change it.

pub mod dumps;
pub mod export;
mod nodes;
pub mod s3;
pub mod submissions;

pub use nodes::{UseNodes, use_nodes};

use fhir_bulk_codec::fhir::Version;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::guc;
use fhir_bulk_transfer::{Authorities, Policy};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PgSqlErrorCode, PostgresGucEnum};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

/// How dumps write `meta.versionId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum VersionId {
    /// A JSON number, as Aidbox's `$dump` writes it.
    #[name = c"number"]
    Number,
    /// A JSON string, as FHIR's `id` datatype requires.
    #[name = c"string"]
    String,
}

/// The FHIR release whose definitions say which elements are choices and references.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum FhirVersion {
    /// R4
    #[name = c"4.0.1"]
    R4,
    /// R4B
    #[name = c"4.3.0"]
    R4B,
    /// R5
    #[name = c"5.0.0"]
    R5,
}

/// How loads write tables that can be written in several ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum WritePath {
    /// The fastest that the table allows.
    #[name = c"auto"]
    Auto,
    /// One `INSERT … ON CONFLICT` per batch.
    #[name = c"set"]
    Set,
    /// A temporary table, then one `INSERT … ON CONFLICT`.
    #[name = c"staged"]
    Staged,
}

/// The most workers at once that `fhir_bulk.import_workers` allows.
pub const MOST_WORKERS: u16 = 64;

static DATA_SCHEMA: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"public"));
static CREATED_AT_URL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"ex:createdAt"));
static FHIR_VERSION: GucSetting<FhirVersion> = GucSetting::<FhirVersion>::new(FhirVersion::R4);
static CONVERT_EXTENSIONS: GucSetting<bool> = GucSetting::<bool>::new(true);
static VERSION_ID: GucSetting<VersionId> = GucSetting::<VersionId>::new(VersionId::Number);
static GZIP_LEVEL: GucSetting<i32> = GucSetting::<i32>::new(1);
static MAX_LINE_BYTES: GucSetting<i32> = GucSetting::<i32>::new(256 << 20);
static ALLOWED_SOURCES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static BASE_URL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static CONNECT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static IDLE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(60_000);
static WRITE_PATH: GucSetting<WritePath> = GucSetting::<WritePath>::new(WritePath::Auto);
static IDENTIFIER_INDEX: GucSetting<bool> = GucSetting::<bool>::new(false);
static DISTRIBUTE_TABLES: GucSetting<bool> = GucSetting::<bool>::new(false);
static IMPORT_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(2);
static IMPORT_COMMIT_ROWS: GucSetting<i32> = GucSetting::<i32>::new(200_000);
static JOB_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(30 * 24 * 60);
static LAUNCHER_DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static LAUNCHER_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);
static MAX_NEW_TABLES: GucSetting<i32> = GucSetting::<i32>::new(100);

/// Defines the settings; called once when the library is loaded.
pub fn define() {
    GucRegistry::define_string_guc(
        c"fhir_bulk.data_schema",
        c"The schema that holds the resource tables.",
        c"Set it if the tables of Aidbox or fhirbase are not in public, or to keep several data sets apart.",
        &DATA_SCHEMA,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"fhir_bulk.created_at_url",
        c"The url of the meta.extension that carries a resource's creation time in FHIR form.",
        c"Set it to the url that your other systems use (Aidbox: BOX_FHIR_CREATEDAT_URL).",
        &CREATED_AT_URL,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"fhir_bulk.fhir_version",
        c"The FHIR release whose definitions are used to convert resources: 4.0.1, 4.3.0 or 5.0.0.",
        c"Set it to the release of your resources; choices and references differ between releases.",
        &FHIR_VERSION,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"fhir_bulk.convert_extensions",
        c"Whether loads store the value[x] of extensions as Aidbox's recommended format does.",
        c"Turn it off for an Aidbox with BOX_FHIR_CORRECT_AIDBOX_FORMAT=false; dumps read either.",
        &CONVERT_EXTENSIONS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"fhir_bulk.version_id",
        c"How dumps write meta.versionId: number or string.",
        c"Aidbox's $dump writes a number; FHIR's definition requires a string.",
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
        c"It limits the memory for one line; raise it for resources with large attachments.",
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
    GucRegistry::define_bool_guc(
        c"fhir_bulk.identifier_index",
        c"Whether new resource tables get an index on their identifiers.",
        c"bulk_export_identifiers finds a hundred of them in milliseconds with it; it makes loads slower.",
        &IDENTIFIER_INDEX,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"fhir_bulk.distribute_tables",
        c"Whether Citus distributes new resource tables, by id, with their history tables beside them.",
        c"Turn it on in a database of Citus before the first load; tables that are there stay as they are.",
        &DISTRIBUTE_TABLES,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"fhir_bulk.allowed_sources",
        c"The URLs that loads may read: scheme://host[:port][/prefix], *.host, networks, s3://bucket[/prefix], comma-separated.",
        c"Empty allows https to public addresses; private ones and S3 objects need an entry here.",
        &ALLOWED_SOURCES,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"fhir_bulk.base_url",
        c"The URLs of FHIR servers whose resources are in this database, comma-separated: https://example.org/fhir.",
        c"In filters, a reference to https://example.org/fhir/Patient/1 is then one to Patient/1.",
        &BASE_URL,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"fhir_bulk.ca_file",
        c"A PEM file with certificate authorities that https trusts besides the well-known ones.",
        c"Set it if servers have certificates of your own authority. A relative path starts in the data folder.",
        &CA_FILE,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"fhir_bulk.connect_timeout",
        c"How long a load waits for a connection to its source, and an export for one to its bucket.",
        c"Raise it for servers that are far away.",
        &CONNECT_TIMEOUT,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"fhir_bulk.idle_timeout",
        c"How long a load waits for the next bytes of its source, and an export for its bucket.",
        c"Raise it for servers that need time to compute what they send.",
        &IDLE_TIMEOUT,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_enum_guc(
        c"fhir_bulk.write_path",
        c"How loads write tables that can be written in several ways: auto, set or staged.",
        c"auto takes the fastest way that a table allows; the others help to find the cause of a difference.",
        &WRITE_PATH,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"fhir_bulk.import_workers",
        c"How many inputs of background jobs run at the same time in a database.",
        c"Each is a process that takes a core; max_worker_processes must leave room for them.",
        &IMPORT_WORKERS,
        1,
        MOST_WORKERS.into(),
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"fhir_bulk.import_commit_rows",
        c"The number of resources after which an import in bulk mode commits.",
        c"With fewer, resources are visible sooner and a crash repeats less work, but there are more commits.",
        &IMPORT_COMMIT_ROWS,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"fhir_bulk.job_retention",
        c"How long background jobs are kept after they end.",
        c"Until then their status can be read, and their id cannot be used again.",
        &JOB_RETENTION,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MIN,
    );
    GucRegistry::define_string_guc(
        c"fhir_bulk.launcher_databases",
        c"The databases, comma-separated, in which jobs continue by themselves when the server starts.",
        c"It needs fhir_bulk in shared_preload_libraries; otherwise jobs continue at the next call of a job function.",
        &LAUNCHER_DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"fhir_bulk.launcher_interval",
        c"How often the launcher looks for jobs without a worker.",
        c"A job has no worker if its worker was ended, or if the server had no process left for one.",
        &LAUNCHER_INTERVAL,
        1,
        i32::MAX / 1000,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    nodes::define();
    s3::define();
    export::define();
    dumps::define();
    submissions::define();
    guc::reserve_prefix(c"fhir_bulk");
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

/// `fhir_bulk.fhir_version`.
pub fn fhir_version() -> Version {
    match FHIR_VERSION.get() {
        FhirVersion::R4 => Version::R4,
        FhirVersion::R4B => Version::R4B,
        FhirVersion::R5 => Version::R5,
    }
}

/// `fhir_bulk.convert_extensions`.
pub fn convert_extensions() -> bool {
    CONVERT_EXTENSIONS.get()
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

/// The URLs in `fhir_bulk.base_url`, without a slash at the end.
pub fn base_urls() -> Vec<String> {
    let urls = BASE_URL.get().unwrap_or_default();
    let urls = urls.to_string_lossy();
    let urls = urls.split(',').map(|url| url.trim().trim_end_matches('/')).filter(|url| !url.is_empty());
    urls.map(str::to_owned).collect()
}

/// `fhir_bulk.allowed_sources`.
///
/// # Errors
/// 22023 for an entry that is not a rule; then nothing is allowed.
pub fn allowed_sources() -> Result<Policy> {
    let text = ALLOWED_SOURCES.get().unwrap_or_default();
    Policy::parse(&text.to_string_lossy())
        .map_err(|error| Error::invalid_argument(format!("fhir_bulk.allowed_sources: {error}")))
}

/// The well-known certificate authorities and those in `fhir_bulk.ca_file`.
///
/// # Errors
/// 58P01 if there is no such file, 58030 if it cannot be read, 22023 if it has no certificates.
pub fn authorities() -> Result<Authorities> {
    let name = CA_FILE.get().unwrap_or_default();
    if name.is_empty() {
        return Ok(Authorities::default());
    }
    let path = Path::new(OsStr::from_bytes(name.to_bytes()));
    let failed = |error: &io::Error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
            _ => PgSqlErrorCode::ERRCODE_IO_ERROR,
        };
        Error::new(code, format!("could not read fhir_bulk.ca_file \"{}\": {error}", path.display()))
            .hint("The file is read on the server, by the user that PostgreSQL runs as.")
    };
    // Reading a pipe would wait for its writer; reading a device might never end.
    let is_file = fs::metadata(path).map(|metadata| metadata.is_file()).map_err(|error| failed(&error))?;
    if !is_file {
        return Err(failed(&io::Error::other("it is not a regular file")));
    }
    let pem = fs::read(path).map_err(|error| failed(&error))?;
    Authorities::with_pem(&pem).map_err(|error| {
        Error::invalid_argument(format!("fhir_bulk.ca_file \"{}\": {error}", path.display()))
            .hint("It must have certificates in PEM format: -----BEGIN CERTIFICATE----- ...")
    })
}

/// `fhir_bulk.connect_timeout`.
pub fn connect_timeout() -> Duration {
    Duration::from_millis(u64::from(CONNECT_TIMEOUT.get().unsigned_abs()))
}

/// `fhir_bulk.idle_timeout`.
pub fn idle_timeout() -> Duration {
    Duration::from_millis(u64::from(IDLE_TIMEOUT.get().unsigned_abs()))
}

/// `fhir_bulk.write_path`.
pub fn write_path() -> WritePath {
    WRITE_PATH.get()
}

/// `fhir_bulk.identifier_index`.
pub fn identifier_index() -> bool {
    IDENTIFIER_INDEX.get()
}

/// `fhir_bulk.distribute_tables`.
pub fn distribute_tables() -> bool {
    DISTRIBUTE_TABLES.get()
}

/// `fhir_bulk.import_workers`.
pub fn import_workers() -> u16 {
    u16::try_from(IMPORT_WORKERS.get()).unwrap_or(1)
}

/// `fhir_bulk.import_commit_rows`.
pub fn import_commit_rows() -> u64 {
    u64::from(IMPORT_COMMIT_ROWS.get().unsigned_abs())
}

/// `fhir_bulk.job_retention`.
pub fn job_retention_minutes() -> i32 {
    JOB_RETENTION.get()
}

/// The names in `fhir_bulk.launcher_databases`.
pub fn launcher_databases() -> Vec<CString> {
    let names = LAUNCHER_DATABASES.get().unwrap_or_default();
    let names = names.to_string_lossy();
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.filter_map(|name| CString::new(name).ok()).collect()
}

/// `fhir_bulk.launcher_interval`.
pub fn launcher_interval() -> Duration {
    Duration::from_secs(u64::from(LAUNCHER_INTERVAL.get().unsigned_abs()))
}

/// `fhir_bulk.max_new_tables`.
pub fn max_new_tables() -> usize {
    MAX_NEW_TABLES.get().unsigned_abs() as usize
}
