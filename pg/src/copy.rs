//! Reads a COPY statement from its parse tree.

use crate::error::{Error, Result};
use crate::query::Query;
use crate::whole::call_for_client;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, c_char, c_int};

/// A COPY.
pub struct Copy<'a> {
    plan: *mut pg_sys::PlannedStmt,
    /// The client's text, in which positions are counted.
    text: &'a CStr,
}

/// What is copied.
pub enum Subject {
    /// A table, view or the like.
    Relation,
    /// The rows of a query.
    Query,
}

/// Where from, or where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End<'a> {
    /// STDIN or STDOUT.
    Client,
    /// A file on the server.
    File(&'a CStr),
    /// A program on the server.
    Program(&'a CStr),
}

/// An option between the parentheses.
#[derive(Clone, Copy, Debug)]
pub struct CopyOption<'a> {
    /// Its name, in lower case unless it is quoted.
    pub name: &'a CStr,
    /// Its value.
    pub value: OptionValue<'a>,
    /// Its position in the client's text, in characters from 1.
    pub position: Option<i32>,
}

/// An option's value, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionValue<'a> {
    /// None.
    Missing,
    /// A word or a string.
    Text(&'a CStr),
    /// A whole number that is not large.
    Integer(i32),
    /// Any other number.
    Number(&'a CStr),
    /// A list or `*`.
    Other,
}

unsafe extern "C-unwind" {
    // namespace.h; not pgrx's wrapper: `whole` says why.
    fn RangeVarGetRelidExtended(
        relation: *const pg_sys::RangeVar,
        lock: c_int,
        flags: u32,
        callback: pg_sys::RangeVarGetRelidCallback,
        argument: *mut std::ffi::c_void,
    ) -> pg_sys::Oid;
}

impl<'a> Copy<'a> {
    /// # Safety
    /// The statement is a COPY that lives as long as 'a.
    pub(super) unsafe fn new(plan: *mut pg_sys::PlannedStmt, text: &'a CStr) -> Copy<'a> {
        Copy { plan, text }
    }

    fn statement(&self) -> &'a pg_sys::CopyStmt {
        // SAFETY: by the maker.
        unsafe { &*(*self.plan).utilityStmt.cast() }
    }

    /// Whether it is COPY … FROM, not COPY … TO.
    pub fn is_from(&self) -> bool {
        self.statement().is_from
    }

    /// What is copied.
    pub fn subject(&self) -> Subject {
        if self.statement().relation.is_null() { Subject::Query } else { Subject::Relation }
    }

    /// Where from, or where to.
    pub fn end(&self) -> End<'a> {
        match text(self.statement().filename) {
            None => End::Client,
            Some(command) if self.statement().is_program => End::Program(command),
            Some(path) => End::File(path),
        }
    }

    /// Whether it has a list of columns.
    pub fn has_columns(&self) -> bool {
        !self.statement().attlist.is_null()
    }

    /// Whether it has WHERE.
    pub fn has_condition(&self) -> bool {
        !self.statement().whereClause.is_null()
    }

    /// All values of the option `format`; more than one is an error.
    pub(super) fn formats(&self) -> impl Iterator<Item = &'a CStr> {
        self.elements().filter_map(|element| match value(element.arg) {
            OptionValue::Text(name) if text(element.defname) == Some(c"format") => Some(name),
            _ => None,
        })
    }

    /// The options in their order.
    pub fn options(&self) -> impl Iterator<Item = CopyOption<'a>> {
        self.elements().map(|element| CopyOption {
            name: text(element.defname).unwrap_or_default(),
            value: value(element.arg),
            position: self.position(element.location),
        })
    }

    fn elements(&self) -> impl Iterator<Item = &'a pg_sys::DefElem> + use<'a> {
        let list = self.statement().options;
        // SAFETY: a live list of DefElems, or null for none.
        unsafe {
            let count = if list.is_null() { 0 } else { (*list).length as usize };
            (0..count).map(move |at| &*(*(*list).elements.add(at)).ptr_value.cast())
        }
    }

    fn position(&self, location: c_int) -> Option<i32> {
        let before = usize::try_from(location).ok().and_then(|end| self.text.to_bytes().get(..end))?;
        // The server's encoding is UTF8.
        i32::try_from(String::from_utf8_lossy(before).chars().count() + 1).ok()
    }

    /// The relation that the search path finds, locked until the transaction ends: for writing in COPY … FROM, else for
    /// reading. PostgreSQL raises an error if there is none.
    pub fn lock_relation(&self) -> pg_sys::Oid {
        let lock = if self.is_from() { pg_sys::RowExclusiveLock } else { pg_sys::AccessShareLock };
        let relation = self.statement().relation;
        // SAFETY: a live node; no callback.
        unsafe { call_for_client(|| RangeVarGetRelidExtended(relation, lock as c_int, 0, None, std::ptr::null_mut())) }
    }

    /// Plans and starts the query of the COPY, as COPY does. PostgreSQL raises the errors in it.
    ///
    /// # Errors
    /// 0A000 for SELECT INTO, for a statement without rows, and for one that rules turn into several.
    pub fn open_query(&self) -> Result<Query> {
        // SAFETY: a live, raw parse tree of the text.
        unsafe {
            let (query, plan) = (self.statement().query, self.plan);
            Query::open_tree(query, self.text, ((*plan).stmt_location, (*plan).stmt_len))
        }
    }

    /// The error for a feature of COPY that the extension's formats do not have.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
    }
}

fn text<'a>(pointer: *const c_char) -> Option<&'a CStr> {
    // SAFETY: a C string of the parse tree, or null.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) })
}

fn value<'a>(node: *const pg_sys::Node) -> OptionValue<'a> {
    use pg_sys::NodeTag::{T_Float, T_Integer, T_String};
    if node.is_null() {
        return OptionValue::Missing;
    }
    // SAFETY: a live node, whose tag has its kind.
    unsafe {
        match (*node).type_ {
            T_String => OptionValue::Text(text((*node.cast::<pg_sys::String>()).sval).unwrap_or_default()),
            T_Integer => OptionValue::Integer((*node.cast::<pg_sys::Integer>()).ival),
            T_Float => OptionValue::Number(text((*node.cast::<pg_sys::Float>()).fval).unwrap_or_default()),
            _ => OptionValue::Other,
        }
    }
}
