//! The place in a query that calls a function, and what it keeps from one row to the next.

use super::memory::keep_in;
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{pg_sys, pgrx_resolved_type};
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The place of a call: an argument that SQL does not see and only PostgreSQL can pass.
#[derive(Clone, Copy)]
pub struct Site(pg_sys::FunctionCallInfo);

// SAFETY: SQL has no such type, and pgrx leaves the argument out of the SQL declaration.
unsafe impl SqlTranslatable for Site {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(Site);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::Skip);
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::Skip));
}

// SAFETY: done as pgrx passes a FunctionCallInfo to a function.
unsafe impl<'fcx> ArgAbi<'fcx> for Site {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Site {
        // SAFETY: the caller guarantees it.
        Site(unsafe { pg_sys::FunctionCallInfo::unbox_arg_unchecked(arg) })
    }

    fn is_virtual_arg() -> bool {
        true
    }
}

thread_local! {
    /// What places keep, by the addresses of their look-up of the function. That has a member for such things, but PostgreSQL
    /// uses it for functions that return sets.
    static KEPT: RefCell<HashMap<usize, Rc<dyn Any>>> = RefCell::default();
}

/// Kept in the memory of a look-up: its Drop forgets what the place keeps.
struct Gone(usize);

impl Drop for Gone {
    fn drop(&mut self) {
        // The value's own Drop runs after the borrow.
        let _kept = KEPT.with_borrow_mut(|kept| kept.remove(&self.0));
    }
}

impl Site {
    /// What the place keeps: what `make` has made for the first of the query's rows. `None` if one of the `arguments`, counted
    /// from 0, of which it is made, may differ by row.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn kept<T: 'static, E>(
        &self,
        arguments: &[i32],
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Option<Rc<T>>, E> {
        // SAFETY: PostgreSQL passed the call, which still runs.
        let info = unsafe { (*self.0).flinfo };
        let known = KEPT.with_borrow(|kept| kept.get(&info.addr()).cloned());
        if let Some(known) = known {
            return Ok(known.downcast().ok());
        }
        // SAFETY: as above; the look-up lives in its memory.
        unsafe {
            if info.is_null() || !arguments.iter().all(|at| pg_sys::get_fn_expr_arg_stable(info, *at)) {
                return Ok(None);
            }
            let made = Rc::new(make()?);
            keep_in((*info).fn_mcxt, Gone(info.addr()));
            KEPT.with_borrow_mut(|kept| kept.insert(info.addr(), made.clone()));
            Ok(Some(made))
        }
    }
}
