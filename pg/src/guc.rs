//! Reads and sets PostgreSQL's settings, also so that another process can work under this session's.

use super::compat;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// The settings that `wanted` names, for another process. A setting that any role may change has its current value. A
/// setting of the administrator is included only if this session or role has a value of its own: the other process gets the
/// server's value itself. Secret settings are left out.
pub fn of_session(wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for &setting in compat::settings() {
        // SAFETY: PostgreSQL's own array of live settings; GetConfigOption's result lives until its next call.
        unsafe {
            let setting = &*setting;
            let Ok(name) = CStr::from_ptr(setting.name).to_str() else { continue };
            let told = setting.context == pg_sys::GucContext::PGC_USERSET
                || setting.source > pg_sys::GucSource::PGC_S_DATABASE;
            if told && setting.flags & pg_sys::GUC_SUPERUSER_ONLY as i32 == 0 && wanted(name) {
                let value = pg_sys::GetConfigOption(setting.name, true, false);
                if !value.is_null() {
                    found.push((name.to_owned(), CStr::from_ptr(value).to_string_lossy().into_owned()));
                }
            }
        }
    }
    found
}

/// Sets a default: the value to which `RESET` returns. A rollback does not undo it. Raises PostgreSQL's error for a bad value.
pub fn set_default(name: &CStr, value: &CStr) {
    // SAFETY: C strings that are copied.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Sets a value until the transaction ends, also where only a superuser may set it. PostgreSQL raises an error for a bad
/// value.
pub fn set_local(name: &CStr, value: &CStr) {
    set(name, value, pg_sys::GucContext::PGC_SUSET, pg_sys::GucAction::GUC_ACTION_LOCAL);
}

fn set(name: &CStr, value: &CStr, context: pg_sys::GucContext::Type, action: pg_sys::GucAction::Type) {
    let source = pg_sys::GucSource::PGC_S_SESSION;
    // SAFETY: C strings that live through the call, which copies them; inside a transaction.
    unsafe { pg_sys::set_config_option(name.as_ptr(), value.as_ptr(), context, source, action, true, 0, false) };
}

/// What happens at the end of [`with`] to settings that `work` has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// They keep the new values, as after a function with a SET clause.
    Keep,
    /// They get their old values back.
    Undo,
}

/// Runs `work` under these values of settings that any role may set. Afterwards, also after an error, they are as before.
pub fn with<T>(settings: &[(&CStr, &CStr)], changes: Changes, work: impl FnOnce() -> T) -> T {
    // SAFETY: the server does the same around functions with SET clauses, inside a transaction. After an error the
    // (sub)transaction's end restores the values of this level.
    let level = unsafe { pg_sys::NewGUCNestLevel() };
    for (name, value) in settings {
        set(name, value, pg_sys::GucContext::PGC_USERSET, pg_sys::GucAction::GUC_ACTION_SAVE);
    }
    let result = work();
    // SAFETY: the level that was made above.
    unsafe { pg_sys::AtEOXact_GUC(changes == Changes::Keep, level) };
    result
}

/// Runs `work` with at most `most` kB of memory to build an index (`maintenance_work_mem`).
pub fn with_maintenance_kb<T>(most: i32, work: impl FnOnce() -> T) -> T {
    // SAFETY: reads a setting of this process.
    let wanted = unsafe { pg_sys::maintenance_work_mem }.min(most);
    let value = CString::new(wanted.to_string()).expect("digits");
    with(&[(c"maintenance_work_mem", &value)], Changes::Keep, work)
}

/// A setting's value in this session; `None` if there is no such setting.
pub fn get(name: &CStr) -> Option<CString> {
    // SAFETY: the result lives until the next call; it is copied.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| CStr::from_ptr(value).to_owned())
    }
}

/// Runs `work` while output functions write times as ISO 8601 and numbers with all their digits, without a change of settings:
/// for work that writes values, and runs no statements.
pub fn with_exact_output<T>(work: impl FnOnce() -> T) -> T {
    struct Back(i32, i32);
    impl Drop for Back {
        fn drop(&mut self) {
            // SAFETY: assigns globals of this process.
            unsafe { (pg_sys::DateStyle, pg_sys::extra_float_digits) = (self.0, self.1) }
        }
    }
    // SAFETY: globals of this process, which has one thread that runs PostgreSQL.
    let _back = unsafe {
        let back = Back(pg_sys::DateStyle, pg_sys::extra_float_digits);
        (pg_sys::DateStyle, pg_sys::extra_float_digits) = (pg_sys::USE_ISO_DATES as i32, 3);
        back
    };
    work()
}

/// Refuses unknown settings under a prefix.
pub fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: a static C string, in _PG_init.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr());
    }
}
