//! Settings of exports.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::CString;

static LOCATION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static URL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"/export"));
static FILE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1 << 20);
static WORKERS: GucSetting<i32> = GucSetting::<i32>::new(2);
static RETENTION: GucSetting<i32> = GucSetting::<i32>::new(24 * 60);

static EXTRAS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static MAX_BYTES: GucSetting<f64> = GucSetting::<f64>::new(0.0);
static GROUP_SINCE_NEW_MEMBERS: GucSetting<bool> = GucSetting::<bool>::new(false);
static MOST_PER_ROLE: GucSetting<i32> = GucSetting::<i32>::new(4);
/// The smallest allowed file size, in kilobytes: the data kept about each file must be small beside it.
const LEAST_FILE_KB: i32 = 64;
/// The largest limit of an export's bytes: all whole numbers up to it are exact.
const MOST_BYTES: f64 = (1_u64 << 53) as f64;

/// Defines the settings.
pub fn define() {
    GucRegistry::define_string_guc(
        c"fhir_bulk.export_location",
        c"Where exports are written: file:///folder/on/the/server or s3://bucket/prefix.",
        c"Without it there are no exports. The user that PostgreSQL runs as creates the folder; a bucket needs the server's key.",
        &LOCATION,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"fhir_bulk.export_url",
        c"The beginning of the URLs of exported files: the address of an HTTP server that calls bulk_export_file(url).",
        c"A proxy sets it for its sessions to its own address, so that manifests have complete URLs.",
        &URL,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"fhir_bulk.export_file_size",
        c"The size at which an exported file is full and the next one begins.",
        c"Smaller files can be downloaded in parallel; with larger ones there are fewer.",
        &FILE_SIZE,
        LEAST_FILE_KB,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"fhir_bulk.export_workers",
        c"How many processes write one export at the same time.",
        c"Each takes a core; the server's max_parallel_workers limits them, too.",
        &WORKERS,
        1,
        64,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"fhir_bulk.export_extras",
        c"The types, comma-separated, of resources that come with an export of patients because others refer to them.",
        c"For example Practitioner,Organization,Location,Medication. They belong to no patient, so without this they do not come.",
        &EXTRAS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"fhir_bulk.group_since_new_members",
        c"Whether an export of a Group since an instant has everything of who became a member after it.",
        c"Otherwise it has only what was changed since then, and a client has to ask for new members' older resources itself.",
        &GROUP_SINCE_NEW_MEMBERS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"fhir_bulk.max_exports_per_role",
        c"How many unfinished exports a role may have; 0 means no limit.",
        c"If tokens have a sub (request.jwt.claims), each sub has this limit for itself.",
        &MOST_PER_ROLE,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::default(),
    );
    // Not an integer: those end at 2 GB.
    GucRegistry::define_float_guc(
        c"fhir_bulk.export_max_bytes",
        c"How many bytes all files of an export may have; 0 means no limit.",
        c"An export that grows beyond it fails, and leaves no files.",
        &MAX_BYTES,
        0.0,
        MOST_BYTES,
        GucContext::Suset,
        GucFlags::UNIT_BYTE,
    );
    GucRegistry::define_int_guc(
        c"fhir_bulk.export_retention",
        c"How long exports and their files are kept after they end.",
        c"Until then their files can be downloaded, and take disk space.",
        &RETENTION,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MIN,
    );
}

/// `fhir_bulk.export_location`.
pub fn location() -> String {
    LOCATION.get().map_or_else(String::new, |url| url.to_string_lossy().into_owned())
}

/// `fhir_bulk.export_url`.
pub fn url() -> String {
    URL.get().map_or_else(String::new, |url| url.to_string_lossy().into_owned())
}

/// `fhir_bulk.export_file_size`, in bytes.
pub fn file_bytes() -> u64 {
    u64::from(FILE_SIZE.get().unsigned_abs()) << 10
}

/// The size of files of which none may be larger than `most` bytes: one resource more may be in a file than fits.
pub fn file_bytes_within(most: u64) -> u64 {
    file_bytes().min(most).max(u64::from(LEAST_FILE_KB.unsigned_abs()) << 10)
}

/// `fhir_bulk.export_workers`.
pub fn workers() -> usize {
    WORKERS.get().unsigned_abs() as usize
}

/// The types in `fhir_bulk.export_extras`.
pub fn extras() -> Vec<String> {
    let names = EXTRAS.get().unwrap_or_default();
    let names = names.to_string_lossy();
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// `fhir_bulk.group_since_new_members`.
pub fn group_since_new_members() -> bool {
    GROUP_SINCE_NEW_MEMBERS.get()
}

/// `fhir_bulk.max_exports_per_role`.
pub fn most_per_role() -> u32 {
    MOST_PER_ROLE.get().unsigned_abs()
}

/// `fhir_bulk.export_max_bytes`; `None` for no limit.
pub fn max_bytes() -> Option<u64> {
    let most = MAX_BYTES.get();
    // Less than a byte is a limit, too.
    (most > 0.0).then_some(most as u64)
}

/// `fhir_bulk.export_retention`.
pub fn retention_minutes() -> i32 {
    RETENTION.get()
}
