//! Casts of texts to types, as `CAST(text AS type)` does them in SQL.

use super::class::Class;
use super::compat;
use super::memory::Scratch;
use super::value::{Column, Type, Value, function};
use crate::error::{Error, Result};
use pgrx::{PgTryBuilder, pg_sys};
use std::ffi::CStr;
use std::panic::AssertUnwindSafe;

/// A cast to a built-in type.
pub struct Cast {
    to: Column,
    input: *mut pg_sys::FmgrInfo,
    /// What the input function wants to know beside the text.
    parameter: pg_sys::Oid,
    /// Makes a value fit the length, or the precision and the scale, of the type; null for a type without them.
    fit: *mut pg_sys::FmgrInfo,
}

impl Cast {
    /// The cast to a type by its name: `pg_catalog.date`, `numeric(10,2)`. It uses memory of the current memory context, which
    /// must live as long as it does. PostgreSQL raises the error for a name that is none.
    pub fn new(type_name: &CStr) -> Cast {
        let (mut input, mut parameter, mut fit) = (pg_sys::InvalidOid, pg_sys::InvalidOid, pg_sys::InvalidOid);
        // SAFETY: catalogue look-ups inside a transaction; the functions' memory is the current one.
        unsafe {
            let (oid, modifier) = compat::type_by_name(type_name);
            pg_sys::getTypeInputInfo(oid, &mut input, &mut parameter);
            if modifier >= 0 {
                pg_sys::find_typmod_coercion_function(oid, &mut fit);
            }
            let fit = if fit == pg_sys::InvalidOid { std::ptr::null_mut() } else { function(fit) };
            let to = Column { name: String::new(), kind: Type::of(oid), modifier };
            Cast { to, input: function(input), parameter, fit }
        }
    }

    /// The class of its values.
    pub fn class(&self) -> Class {
        self.to.class()
    }

    /// Whether the type has a length, or a precision and a scale.
    pub fn has_length(&self) -> bool {
        !self.fit.is_null()
    }

    /// Casts a text, and passes the value to `take`. Memory is that of `scratch`, and is free afterwards.
    ///
    /// # Errors
    /// PostgreSQL's own, of class 22, and those of `take`.
    pub fn of<T>(&self, text: &CStr, scratch: &mut Scratch, take: impl FnOnce(&Value<'_>) -> Result<T>) -> Result<T> {
        scratch.run(|| {
            // Functions of built-in types have no side effects to undo.
            let cast = AssertUnwindSafe(|| Ok(self.datum(text)));
            let datum = PgTryBuilder::new(cast).catch_others(|error| Err(Error::from(error))).execute()?;
            // SAFETY: the datum has this type, and lives until the scratch memory is freed.
            take(&unsafe { Value::new(datum, &self.to.kind) })
        })
    }

    fn datum(&self, text: &CStr) -> pg_sys::Datum {
        let Cast { to, input, parameter, fit } = self;
        // SAFETY: the input function reads its C string only; the other one takes values of the type, and casts explicitly.
        unsafe {
            let datum = pg_sys::InputFunctionCall(*input, text.as_ptr().cast_mut(), *parameter, -1);
            if fit.is_null() {
                return datum;
            }
            let no_collation = pg_sys::InvalidOid;
            pg_sys::FunctionCall3Coll(*fit, no_collation, datum, to.modifier.into(), true.into())
        }
    }
}
