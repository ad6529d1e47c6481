//! Datums: reads a column's bytes in place, and returns results to PostgreSQL with one copy.

use crate::error::{Error, or_raise};
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{IntoDatum, PgSqlErrorCode, PgTryBuilder, pg_sys, pgrx_resolved_type};
use std::collections::TryReserveError;
use std::ffi::CStr;

/// Defines the type of an SQL result that is already a datum, in the memory context in which it was made.
macro_rules! ready_datum {
    ($name:ident, $sql:literal, $type_oid:ident, $doc:literal) => {
        #[doc = $doc]
        pub struct $name(pg_sys::Datum);

        // SAFETY: the name is that of PostgreSQL's own type.
        unsafe impl SqlTranslatable for $name {
            const TYPE_IDENT: &'static str = pgrx_resolved_type!($name);
            const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
            const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal($sql));
            const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal($sql)));
        }

        // SAFETY: the datum has the type that RETURN_SQL names.
        unsafe impl BoxRet for $name {
            unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
                // SAFETY: the function's result, made in the context that PostgreSQL expects results in.
                unsafe { fcinfo.return_raw_datum(self.0) }
            }
        }

        // For columns of a row.
        impl IntoDatum for $name {
            fn into_datum(self) -> Option<pg_sys::Datum> {
                Some(self.0)
            }

            fn type_oid() -> pg_sys::Oid {
                pg_sys::$type_oid
            }
        }
    };
}

ready_datum!(Text, "text", TEXTOID, "A `text` result.");
ready_datum!(Bytea, "bytea", BYTEAOID, "A `bytea` result.");
ready_datum!(Jsonb, "jsonb", JSONBOID, "A `jsonb` result.");
ready_datum!(Regclass, "regclass", REGCLASSOID, "A `regclass` result.");
ready_datum!(Timestamptz, "timestamptz", TIMESTAMPTZOID, "A `timestamptz` result.");

/// A `jsonb` argument: its bytes after the length header, not read as JSON.
pub struct JsonbBytes<'a>(pub &'a [u8]);

// SAFETY: the name is that of PostgreSQL's own type.
unsafe impl SqlTranslatable for JsonbBytes<'_> {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(JsonbBytes);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

// SAFETY: jsonb is stored as bytea is; pgrx detoasts both in the same way. Its readers do not ask for alignment in memory.
unsafe impl<'fcx> ArgAbi<'fcx> for JsonbBytes<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> JsonbBytes<'fcx> {
        // SAFETY: the caller guarantees it.
        JsonbBytes(unsafe { <&[u8]>::unbox_arg_unchecked(arg) })
    }
}

impl Text {
    /// Copies `line` into a new datum of the current memory context.
    pub fn new(line: &[u8]) -> Text {
        Text(new_varlena(line))
    }
}

impl Bytea {
    /// Copies `bytes` into a new datum of the current memory context.
    pub fn new(bytes: &[u8]) -> Bytea {
        Bytea(new_varlena(bytes))
    }
}

impl Jsonb {
    /// Copies jsonb's bytes, without their length header, into a new datum of the current memory context.
    pub fn new(bytes: &[u8]) -> Jsonb {
        Jsonb(new_varlena(bytes))
    }

    /// Reads JSON text with PostgreSQL's own parser, which raises its errors.
    pub fn parse(text: &CStr) -> Jsonb {
        Jsonb(input(pg_sys::JSONBOID, text))
    }
}

impl Timestamptz {
    /// A moment in microseconds since 2000-01-01T00:00:00Z.
    pub fn new(micros: i64) -> Timestamptz {
        Timestamptz(micros.into())
    }
}

impl Regclass {
    /// The `regclass` of a relation.
    pub fn new(relation: pg_sys::Oid) -> Regclass {
        Regclass(relation.into())
    }
}

/// The largest allocation for a value (MaxAllocSize, memutils.h).
const MAX_BYTES: usize = 0x3FFF_FFFF;

/// A new varlena in the current memory context. Raises 54000 if the bytes are too many for a value.
pub(super) fn new_varlena(bytes: &[u8]) -> pg_sys::Datum {
    let size = bytes.len() + pg_sys::VARHDRSZ;
    if size > MAX_BYTES {
        let message = format!("a row of {} bytes is longer than a value can be", bytes.len());
        let error = Error::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message);
        or_raise::<()>(Err(error.hint("bulk_dump_chunks() and dump_sql_chunks() return it in chunks.")))
    }
    // SAFETY: `palloc` returns `size` bytes or raises; all of them are written. `palloc` limits the size to below 1 GB, so
    // that the length fits its 30 bits.
    unsafe {
        let start = pg_sys::palloc(size).cast::<u8>();
        pgrx::set_varsize_4b(start.cast(), size as i32);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(pg_sys::VARHDRSZ), bytes.len());
        pg_sys::Datum::from(start)
    }
}

/// Asks the processor for the first lines of a row's value, all at once: a walk over jsonb would wait for each of them. Also for
/// what is before it: PostgreSQL fills a page from its end, so there the next row is, which can come while this one is worked on.
#[inline]
pub(super) fn prefetch(bytes: &[u8]) {
    /// The size of a line.
    #[cfg(target_arch = "x86_64")]
    const LINE: usize = 64;
    /// What most resources have.
    #[cfg(target_arch = "x86_64")]
    const LINES: usize = 24;
    /// The lines before the value where the next row is; the row's own other columns are nearer.
    #[cfg(target_arch = "x86_64")]
    const NEXT: std::ops::Range<usize> = 2..20;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has the instruction, which reads nothing: any address will do.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        for line in bytes.chunks(LINE).take(LINES) {
            _mm_prefetch::<{ _MM_HINT_T0 }>(line.as_ptr().cast());
        }
        for line in NEXT {
            _mm_prefetch::<{ _MM_HINT_T1 }>(bytes.as_ptr().wrapping_sub(LINE * line).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// The bytes of a variable-length value (text, jsonb, bytea), decompressed and fetched from TOAST where needed.
/// They start at a multiple of 4, which jsonb needs.
///
/// # Safety
/// `datum` is a non-NULL varlena; `'a` ends no later than the varlena and the current memory context.
pub unsafe fn varlena_bytes<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: the caller guarantees it. `pg_detoast_datum` always gives a 4-byte header; it is not called for what has one, as
    // most values do: a call is guarded, and takes longer than the rest.
    unsafe {
        let stored = datum.cast_mut_ptr();
        let varlena = if pgrx::varatt_is_4b_u(stored) { stored } else { pg_sys::pg_detoast_datum(stored) };
        std::slice::from_raw_parts(pgrx::vardata_4b(varlena).cast::<u8>(), pgrx::varsize_4b(varlena) - pg_sys::VARHDRSZ)
    }
}

/// The bytes of a variable-length value that needs no alignment, such as text.
///
/// # Safety
/// As for [`varlena_bytes`].
pub unsafe fn text_bytes<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: the caller guarantees it.
    unsafe {
        let stored = datum.cast_mut_ptr();
        let is_plain = pgrx::varatt_is_4b_u(stored) || pgrx::varatt_is_1b(stored) && !pgrx::varatt_is_1b_e(stored);
        let varlena = if is_plain { stored } else { pg_sys::pg_detoast_datum_packed(stored) };
        std::slice::from_raw_parts(pgrx::vardata_any(varlena).cast::<u8>(), pgrx::varsize_any_exhdr(varlena))
    }
}

/// Whether a variable-length value has these bytes. It is decompressed and fetched from TOAST only if it has as many.
///
/// # Safety
/// As for [`varlena_bytes`].
pub(super) unsafe fn varlena_equals(datum: pg_sys::Datum, bytes: &[u8]) -> bool {
    // SAFETY: the caller guarantees it. The size is that with a header of 4 bytes, whatever header the value has.
    unsafe { pg_sys::toast_raw_datum_size(datum) == bytes.len() + pg_sys::VARHDRSZ && text_bytes(datum) == bytes }
}

/// Variable-length values in one buffer, as datums that PostgreSQL can read in place.
#[derive(Default)]
pub struct Values {
    bytes: Vec<u8>,
}

/// A value in [`Values`]. Later values are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value(usize);

/// A number whose order is that of the first 16 bytes.
pub fn prefix(bytes: &[u8]) -> u128 {
    let mut first = [0; 16];
    let length = bytes.len().min(first.len());
    first[..length].copy_from_slice(&bytes[..length]);
    u128::from_be_bytes(first)
}

impl Values {
    /// The most bytes that a value takes besides its own.
    pub const HEAD_BYTES: usize = pg_sys::VARHDRSZ + 3;

    /// Appends a value whose bytes `write` appends. It starts at a multiple of 4, as jsonb needs.
    ///
    /// # Errors
    /// The errors of `write`; then nothing is appended.
    pub fn push<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Value, E> {
        let before = self.bytes.len();
        let start = before.next_multiple_of(4);
        self.bytes.resize(start + pg_sys::VARHDRSZ, 0);
        if let Err(error) = write(&mut self.bytes) {
            self.bytes.truncate(before);
            return Err(error);
        }
        let size = self.bytes.len() - start;
        assert!(size < 1 << 30, "a value beyond 1 GB");
        // SET_VARSIZE_4B on a little-endian machine (varatt.h); the codec builds on no other.
        self.bytes[start..start + pg_sys::VARHDRSZ].copy_from_slice(&((size as u32) << 2).to_le_bytes());
        Ok(Value(start))
    }

    /// The value as a datum. It is valid until the next change of these values.
    pub fn datum(&self, value: Value) -> pg_sys::Datum {
        let start = &self.bytes[value.0..];
        debug_assert!(start.as_ptr().addr().is_multiple_of(4), "malloc aligns to 16");
        pg_sys::Datum::from(start.as_ptr())
    }

    /// The value's bytes, without their header.
    pub fn bytes(&self, value: Value) -> &[u8] {
        let head = &self.bytes[value.0..];
        let size = head.first_chunk().map_or(0, |size| u32::from_le_bytes(*size) >> 2) as usize;
        &head[pg_sys::VARHDRSZ..size]
    }

    /// The size of the buffer in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The size of the memory that it has, in bytes.
    pub fn room(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes memory for so many more bytes.
    ///
    /// # Errors
    /// Out of memory.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), TryReserveError> {
        self.bytes.try_reserve_exact(bytes)
    }

    /// Removes all values, and frees memory beyond `keep` bytes.
    pub fn clear(&mut self, keep: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(keep);
    }
}

/// Reads a timestamptz as PostgreSQL does, in microseconds since 2000-01-01T00:00:00Z.
///
/// # Errors
/// PostgreSQL's own, of class 22.
pub fn timestamptz(text: &CStr) -> Result<i64, Error> {
    read(pg_sys::TIMESTAMPTZOID, text).map(|value| value.value() as i64)
}

/// Makes a value of a built-in type of its text.
///
/// # Errors
/// PostgreSQL's own, of class 22.
pub(super) fn read(type_oid: pg_sys::Oid, text: &CStr) -> Result<pg_sys::Datum, Error> {
    // The input functions of built-in types have no side effects to undo.
    PgTryBuilder::new(|| Ok(input(type_oid, text))).catch_others(|error| Err(Error::from(error))).execute()
}

/// Makes a value of its text with the type's own input function, which raises its errors.
pub fn input(type_oid: pg_sys::Oid, text: &CStr) -> pg_sys::Datum {
    let (mut function, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: a live type; the input function reads its C string only.
    unsafe {
        pg_sys::getTypeInputInfo(type_oid, &mut function, &mut parameter);
        pg_sys::OidInputFunctionCall(function, text.as_ptr().cast_mut(), parameter, -1)
    }
}
