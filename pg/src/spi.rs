//! Runs SQL statements with parameters, which may be arrays of whole columns.

use super::guc::{self, Changes};
use super::{datum, session, whole};
use crate::error::Result;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_long};

unsafe extern "C-unwind" {
    // spi.h; not pgrx's wrapper, as `whole` asks: triggers and constraints have their say in it.
    fn SPI_execute_with_args(
        statement: *const c_char,
        count: c_int,
        types: *mut pg_sys::Oid,
        values: *mut pg_sys::Datum,
        nulls: *const c_char,
        read_only: bool,
        most: c_long,
    ) -> c_int;
    fn SPI_prepare(statement: *const c_char, count: c_int, types: *mut pg_sys::Oid) -> pg_sys::SPIPlanPtr;
    fn SPI_keepplan(plan: pg_sys::SPIPlanPtr) -> c_int;
    fn SPI_execute_plan(
        plan: pg_sys::SPIPlanPtr,
        values: *mut pg_sys::Datum,
        nulls: *const c_char,
        read_only: bool,
        most: c_long,
    ) -> c_int;
    fn SPI_execute_plan_with_paramlist(
        plan: pg_sys::SPIPlanPtr,
        parameters: pg_sys::ParamListInfo,
        read_only: bool,
        most: c_long,
    ) -> c_int;
}

/// A statement's parameter.
pub struct Parameter {
    type_oid: pg_sys::Oid,
    /// `None` for NULL.
    value: Option<pg_sys::Datum>,
}

impl Parameter {
    /// A bigint.
    pub fn int8(value: i64) -> Parameter {
        Parameter { type_oid: pg_sys::INT8OID, value: Some(pg_sys::Datum::from(value)) }
    }

    /// A bigint or NULL.
    pub fn int8_or_null(value: Option<i64>) -> Parameter {
        Parameter { type_oid: pg_sys::INT8OID, value: value.map(pg_sys::Datum::from) }
    }

    /// An integer.
    pub fn int4(value: i32) -> Parameter {
        Parameter { type_oid: pg_sys::INT4OID, value: Some(pg_sys::Datum::from(value)) }
    }

    /// A boolean.
    pub fn boolean(value: bool) -> Parameter {
        Parameter::boolean_or_null(Some(value))
    }

    /// A boolean or NULL.
    pub fn boolean_or_null(value: Option<bool>) -> Parameter {
        Parameter { type_oid: pg_sys::BOOLOID, value: value.map(pg_sys::Datum::from) }
    }

    /// An oid.
    pub fn oid(value: pg_sys::Oid) -> Parameter {
        Parameter { type_oid: pg_sys::OIDOID, value: Some(value.into()) }
    }

    /// A NULL of type oid.
    pub fn no_oid() -> Parameter {
        Parameter { type_oid: pg_sys::OIDOID, value: None }
    }

    /// A timestamptz, in microseconds since 2000-01-01T00:00:00Z.
    pub fn timestamptz(micros: i64) -> Parameter {
        Parameter { type_oid: pg_sys::TIMESTAMPTZOID, value: Some(pg_sys::Datum::from(micros)) }
    }

    /// A text. Its datum must live until the statement ends.
    pub fn text(value: pg_sys::Datum) -> Parameter {
        Parameter { type_oid: pg_sys::TEXTOID, value: Some(value) }
    }

    /// A text from Rust.
    pub fn string(text: &str) -> Parameter {
        Parameter::text(datum::new_varlena(text.as_bytes()))
    }

    /// A text from Rust or NULL.
    pub fn string_or_null(text: Option<&str>) -> Parameter {
        text.map_or(Parameter { type_oid: pg_sys::TEXTOID, value: None }, Parameter::string)
    }

    /// A value of a built-in type, read from its text as PostgreSQL does; `None` for NULL.
    ///
    /// # Errors
    /// PostgreSQL's own, of class 22.
    pub fn read(type_oid: pg_sys::Oid, text: Option<&CStr>) -> Result<Parameter> {
        let value = text.map(|text| datum::read(type_oid, text)).transpose()?;
        Ok(Parameter { type_oid, value })
    }

    /// Its type.
    pub(super) fn type_oid(&self) -> pg_sys::Oid {
        self.type_oid
    }

    /// A bytea.
    pub fn bytea(bytes: &[u8]) -> Parameter {
        Parameter { type_oid: pg_sys::BYTEAOID, value: Some(datum::new_varlena(bytes)) }
    }

    /// A bigint[].
    pub fn int8s(values: impl Iterator<Item = i64>) -> Parameter {
        array(pg_sys::INT8ARRAYOID, pg_sys::INT8OID, &mut values.map(pg_sys::Datum::from).collect::<Vec<_>>(), None)
    }

    /// An oid[].
    pub fn oids(values: impl Iterator<Item = pg_sys::Oid>) -> Parameter {
        array(pg_sys::OIDARRAYOID, pg_sys::OIDOID, &mut values.map(pg_sys::Datum::from).collect::<Vec<_>>(), None)
    }

    /// A text[] from UTF-8.
    pub fn strings<'a>(values: impl Iterator<Item = &'a [u8]>) -> Parameter {
        Parameter::texts(&mut values.map(datum::new_varlena).collect::<Vec<_>>())
    }

    /// A bytea[].
    pub fn byteas<'a>(values: impl Iterator<Item = &'a [u8]>) -> Parameter {
        let mut values: Vec<_> = values.map(datum::new_varlena).collect();
        array(pg_sys::BYTEAARRAYOID, pg_sys::BYTEAOID, &mut values, None)
    }

    /// A text[].
    pub fn texts(values: &mut [pg_sys::Datum]) -> Parameter {
        array(pg_sys::TEXTARRAYOID, pg_sys::TEXTOID, values, None)
    }

    /// A jsonb[].
    pub fn jsonbs(values: &mut [pg_sys::Datum]) -> Parameter {
        array(pg_sys::JSONBARRAYOID, pg_sys::JSONBOID, values, None)
    }

    /// A timestamptz[] that may hold NULLs.
    pub fn timestamptzs(values: &[Option<i64>]) -> Parameter {
        let mut datums: Vec<_> = values.iter().map(|at| pg_sys::Datum::from(at.unwrap_or_default())).collect();
        let mut nulls: Vec<_> = values.iter().map(Option::is_none).collect();
        array(pg_sys::TIMESTAMPTZARRAYOID, pg_sys::TIMESTAMPTZOID, &mut datums, Some(&mut nulls))
    }
}

/// Parameters as SPI takes them: one array each of types, values and nulls.
pub(super) struct Arguments {
    pub types: Vec<pg_sys::Oid>,
    pub values: Vec<pg_sys::Datum>,
    /// `n` for NULL, else a space.
    pub nulls: Vec<c_char>,
}

impl Arguments {
    pub fn of(parameters: &[Parameter]) -> Arguments {
        let null = |p: &Parameter| if p.value.is_some() { b' ' } else { b'n' } as c_char;
        Arguments {
            types: parameters.iter().map(|p| p.type_oid).collect(),
            values: parameters.iter().map(|p| p.value.unwrap_or(pg_sys::Datum::null())).collect(),
            nulls: parameters.iter().map(null).collect(),
        }
    }

    /// The parameters of a plan, copied with their values into the current memory context.
    pub fn list(&self) -> pg_sys::ParamListInfo {
        self.list_flagged(pg_sys::PARAM_FLAG_CONST as u16)
    }

    fn list_flagged(&self, flags: u16) -> pg_sys::ParamListInfo {
        if self.types.is_empty() {
            return std::ptr::null_mut();
        }
        // SAFETY: a list of `count` parameters, which are all set before it is copied.
        unsafe {
            let list = pg_sys::makeParamList(self.count());
            for (at, type_oid) in self.types.iter().enumerate() {
                *(*list).params.as_mut_ptr().add(at) = pg_sys::ParamExternData {
                    value: self.values[at],
                    isnull: self.nulls[at] == b'n' as c_char,
                    pflags: flags,
                    ptype: *type_oid,
                };
            }
            pg_sys::copyParamList(list)
        }
    }

    pub fn count(&self) -> i32 {
        self.types.len() as i32
    }
}

fn array(
    type_oid: pg_sys::Oid,
    element: pg_sys::Oid,
    values: &mut [pg_sys::Datum],
    nulls: Option<&mut [bool]>,
) -> Parameter {
    let (mut length, mut by_value, mut align) = (0, false, 0);
    let (mut dimensions, mut lower_bounds) = (values.len() as i32, 1);
    // SAFETY: `values` are `dimensions` datums of type `element`, with as many `nulls`; they are copied.
    let array = unsafe {
        pg_sys::get_typlenbyvalalign(element, &mut length, &mut by_value, &mut align);
        pg_sys::construct_md_array(
            values.as_mut_ptr(),
            nulls.map_or(std::ptr::null_mut(), <[bool]>::as_mut_ptr),
            1,
            &mut dimensions,
            &mut lower_bounds,
            element,
            i32::from(length),
            by_value,
            align,
        )
    };
    Parameter { type_oid, value: Some(pg_sys::Datum::from(array)) }
}

/// Runs a statement with the current role's rights. Returns how many rows it processed. PostgreSQL raises its errors.
pub fn execute(statement: &CStr, parameters: &[Parameter]) -> u64 {
    run(statement, parameters, How::Once, |_| ())
}

/// As [`execute`], for large parameters on which the plan does not depend. Otherwise the plan has parameters as constants,
/// and planners copy constants again and again, Citus's a dozen times.
pub fn execute_large(statement: &CStr, parameters: &[Parameter]) -> u64 {
    let mut arguments = Arguments::of(parameters);
    // SAFETY: the arrays have `count` elements; list and plan live until SPI_finish. An error skips it; then the
    // transaction's end cleans up.
    unsafe {
        pg_sys::SPI_connect();
        let list = arguments.list_flagged(0);
        let (count, types) = (arguments.count(), arguments.types.as_mut_ptr());
        let status = whole::call_for_client(|| {
            let plan = SPI_prepare(statement.as_ptr(), count, types);
            if plan.is_null() { -1 } else { SPI_execute_plan_with_paramlist(plan, list, false, 0) }
        });
        assert!(status >= 0, "SPI_execute_plan_with_paramlist: {status}");
        let processed = pg_sys::SPI_processed;
        pg_sys::SPI_finish();
        processed
    }
}

/// Runs a query and returns its first column as text, without NULLs.
pub fn texts(query: &CStr, parameters: &[Parameter]) -> Vec<String> {
    texts_of(query, parameters, How::Once)
}

/// As [`texts`], for a query on catalogues only, with the current role's rights: its names and operators are those of
/// pg_catalog, independent of the caller's search_path.
pub fn catalog_texts(query: &CStr, parameters: &[Parameter]) -> Vec<String> {
    guc::with(&[(c"search_path", session::SAFE_SEARCH_PATH)], Changes::Undo, || texts(query, parameters))
}

/// As [`texts`], under the active snapshot instead of a new one.
pub fn texts_in_snapshot(query: &CStr, parameters: &[Parameter]) -> Vec<String> {
    texts_of(query, parameters, How::InSnapshot)
}

/// Statements of the extension's own whose plans this session keeps, one for each text: planning one costs more than running
/// it. They are few, and each has the same types of parameters each time.
pub mod kept {
    use super::{CStr, How, Parameter, datum, pg_sys, run, texts_of};

    /// As [`super::execute`].
    pub fn execute(statement: &CStr, parameters: &[Parameter]) -> u64 {
        run(statement, parameters, How::Kept, |_| ())
    }

    /// As [`super::texts`].
    pub fn texts(query: &CStr, parameters: &[Parameter]) -> Vec<String> {
        texts_of(query, parameters, How::Kept)
    }

    /// As [`super::texts_in_snapshot`].
    pub fn texts_in_snapshot(query: &CStr, parameters: &[Parameter]) -> Vec<String> {
        texts_of(query, parameters, How::KeptInSnapshot)
    }

    /// Runs a query and returns its first column, a bytea, without NULLs.
    pub fn byteas(query: &CStr, parameters: &[Parameter]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        run(query, parameters, How::Kept, |rows| {
            // SAFETY: SPI's result of `numvals` tuples, whose first column the query makes a bytea; it is detoasted in SPI's
            // memory, and copied.
            unsafe {
                let columns = (*rows).tupdesc;
                assert_eq!(pg_sys::SPI_gettypeid(columns, 1), pg_sys::BYTEAOID, "the column is no bytea");
                for at in 0..(*rows).numvals as usize {
                    let mut is_null = false;
                    let value = pg_sys::SPI_getbinval(*(*rows).vals.add(at), columns, 1, &mut is_null);
                    if !is_null {
                        found.push(datum::varlena_bytes(value).to_vec());
                    }
                }
            }
        });
        found
    }
}

fn texts_of(query: &CStr, parameters: &[Parameter], how: How) -> Vec<String> {
    let mut found = Vec::new();
    run(query, parameters, how, |rows| {
        // SAFETY: SPI's result of `numvals` tuples; SPI_getvalue makes a C string in SPI's memory, or null.
        unsafe {
            for at in 0..(*rows).numvals as usize {
                let value = pg_sys::SPI_getvalue(*(*rows).vals.add(at), (*rows).tupdesc, 1);
                if !value.is_null() {
                    found.push(CStr::from_ptr(value).to_string_lossy().into_owned());
                }
            }
        }
    });
    found
}

/// How a statement is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Planned with its parameters, under a new snapshot.
    Once,
    /// The same under the active snapshot.
    InSnapshot,
    /// By the plan that is kept of it, under a new snapshot.
    Kept,
    /// The same under the active snapshot.
    KeptInSnapshot,
}

thread_local! {
    /// The plans that this session keeps, by their statements. PostgreSQL makes them again when what they depend on changes.
    static PLANS: RefCell<HashMap<CString, pg_sys::SPIPlanPtr>> = RefCell::default();
}

fn run(statement: &CStr, parameters: &[Parameter], how: How, rows: impl FnOnce(*mut pg_sys::SPITupleTable)) -> u64 {
    let mut arguments = Arguments::of(parameters);
    // SAFETY: the arrays have `count` elements. An error skips SPI_finish; then the transaction's end cleans up, but not a plan
    // that is kept.
    unsafe {
        pg_sys::SPI_connect();
        let Arguments { types, values, nulls } = &mut arguments;
        let (count, types, values, nulls) =
            (types.len() as i32, types.as_mut_ptr(), values.as_mut_ptr(), nulls.as_ptr());
        let is_kept = matches!(how, How::Kept | How::KeptInSnapshot);
        let in_snapshot = matches!(how, How::InSnapshot | How::KeptInSnapshot);
        let plan = is_kept.then(|| plan_of(statement, count, types));
        let status = whole::call_for_client(|| match plan {
            Some(plan) => SPI_execute_plan(plan, values, nulls, in_snapshot, 0),
            None => SPI_execute_with_args(statement.as_ptr(), count, types, values, nulls, in_snapshot, 0),
        });
        assert!(status >= 0, "a statement of SPI: {status}");
        if !pg_sys::SPI_tuptable.is_null() {
            rows(pg_sys::SPI_tuptable);
        }
        let processed = pg_sys::SPI_processed;
        pg_sys::SPI_finish();
        processed
    }
}

/// The plan that is kept of a statement.
///
/// # Safety
/// SPI is connected; there are `count` types.
unsafe fn plan_of(statement: &CStr, count: c_int, types: *mut pg_sys::Oid) -> pg_sys::SPIPlanPtr {
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(statement).copied()) {
        return plan;
    }
    // SAFETY: the caller's.
    let plan = unsafe {
        whole::call_for_client(|| {
            let plan = SPI_prepare(statement.as_ptr(), count, types);
            if !plan.is_null() {
                SPI_keepplan(plan);
            }
            plan
        })
    };
    assert!(!plan.is_null(), "SPI_prepare");
    PLANS.with_borrow_mut(|plans| plans.insert(statement.to_owned(), plan));
    plan
}
