//! Placeholders in a query: `:name`, found by PostgreSQL's own scanner, so that quotes, comments and casts are its own.
//!
//! The query's text keeps its length: `:name` becomes `$1` and spaces, and each `$1` is told from the others by its place. So
//! positions in errors are those of the caller's text, and a value never becomes part of a query.

use super::spi::Parameter;
use super::whole;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_char, c_int, c_void};

unsafe extern "C-unwind" {
    // scanner.h; not pgrx's wrappers: `whole` says why.
    fn scanner_init(
        text: *const c_char,
        extra: *mut pg_sys::core_yy_extra_type,
        keywords: *const pg_sys::ScanKeywordList,
        tokens: *const pg_sys::uint16,
    ) -> pg_sys::core_yyscan_t;
    fn core_yylex(value: *mut pg_sys::core_YYSTYPE, location: *mut c_int, scanner: pg_sys::core_yyscan_t) -> c_int;
    fn scanner_finish(scanner: pg_sys::core_yyscan_t);
}

/// A placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// Without the colon.
    pub name: String,
    /// The byte of the colon.
    pub at: usize,
}

/// Where a query has a placeholder with a value.
pub struct Place {
    /// The byte of the colon.
    pub at: usize,
    /// In bytes, with the colon.
    pub length: usize,
    /// Which of the values it is, from 0.
    pub value: usize,
}

/// What a colon is within brackets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bracket {
    /// `(`, and `ARRAY[`: as outside of them.
    Other,
    /// `ARRAY[`.
    Array,
    /// `a[`, in which a colon stands between the bounds of a slice.
    Slice,
}

/// The placeholders of a query in their order: a colon right before a letter or `_`, except between the bounds of a slice, where
/// they are written in parentheses. PostgreSQL raises the errors of its scanner.
pub fn find(text: &CStr) -> Vec<Placeholder> {
    let bytes = text.to_bytes();
    let mut found = Vec::new();
    let mut brackets = Vec::new();
    // Whether the token before was ARRAY, or stands where one is repeated: `ARRAY[[…], […]]`.
    let mut makes_array = false;
    each_token(text, |token, at| {
        let within = brackets.last().copied().unwrap_or(Bracket::Other);
        match u8::try_from(token).unwrap_or_default() {
            b'(' => brackets.push(Bracket::Other),
            b'[' => brackets.push(if makes_array { Bracket::Array } else { Bracket::Slice }),
            b')' | b']' => drop(brackets.pop()),
            b':' if within != Bracket::Slice => {
                let name = name_at(&bytes[at + 1..]);
                found.extend(name.map(|name| Placeholder { name: name.to_owned(), at }));
            }
            _ => {}
        }
        let is_in_array = brackets.last() == Some(&Bracket::Array);
        makes_array = match u8::try_from(token).unwrap_or_default() {
            b'[' | b',' => is_in_array,
            0 => name_at(&bytes[at..]).is_some_and(|word| word.eq_ignore_ascii_case("array")),
            _ => false,
        };
    });
    found
}

/// The name that bytes begin with: letters, digits and `_`, and nothing behind it that PostgreSQL takes for a part of a name.
fn name_at(bytes: &[u8]) -> Option<&str> {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let length = bytes.iter().position(|byte| !is_of_name(byte)).unwrap_or(bytes.len());
    let begins = bytes.first().is_some_and(|first| is_of_name(first) && !first.is_ascii_digit());
    let ends = bytes.get(length).is_none_or(|next| *next != b'$' && next.is_ascii());
    (begins && ends).then(|| str::from_utf8(&bytes[..length]).expect("ASCII"))
}

/// Passes each token's code, which is its character if it has only one, and its first byte.
fn each_token(text: &CStr, mut each: impl FnMut(c_int, usize)) {
    let (mut extra, mut value) = (pg_sys::core_yy_extra_type::default(), pg_sys::core_YYSTYPE::default());
    let (extra, mut location) = (&raw mut extra, 0);
    // SAFETY: the scanner copies the text, and its memory is the current context's; `extra` lives until it is finished.
    unsafe {
        let tokens = (&raw const pg_sys::ScanKeywordTokens).cast();
        let scanner = whole::call(text, || scanner_init(text.as_ptr(), extra, &raw const pg_sys::ScanKeywords, tokens));
        // The parser says it, too.
        (*extra).escape_string_warning = false;
        loop {
            let token = whole::call(text, || core_yylex(&mut value, &mut location, scanner));
            if token == 0 {
                break;
            }
            each(token, location.unsigned_abs() as usize);
        }
        scanner_finish(scanner);
    }
}

/// The text that is parsed: with a parameter of PostgreSQL, and as many bytes, in each place.
pub(super) fn masked(text: &CStr, places: &[Place]) -> CString {
    let mut bytes = text.to_bytes().to_vec();
    for Place { at, length, .. } in places {
        bytes[*at..*at + *length].fill(b' ');
        bytes[*at..*at + 2].copy_from_slice(b"$1");
    }
    CString::new(bytes).expect("no NUL came into it")
}

/// What the analysis of a query knows of its placeholders.
pub(super) struct Known<'k> {
    pub places: &'k [Place],
    pub values: &'k [Parameter],
}

/// Called when the analysis of a query begins.
///
/// # Safety
/// PostgreSQL calls it, with a live [`Known`] as the argument.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn prepare(state: *mut pg_sys::ParseState, known: *mut c_void) {
    // SAFETY: the caller guarantees it.
    unsafe {
        (*state).p_paramref_hook = Some(parameter);
        (*state).p_ref_hook_state = known;
    }
}

/// The parameter in a place; null where there is none, which PostgreSQL refuses.
#[pg_guard]
unsafe extern "C-unwind" fn parameter(
    state: *mut pg_sys::ParseState,
    reference: *mut pg_sys::ParamRef,
) -> *mut pg_sys::Node {
    // SAFETY: PostgreSQL passes live nodes, and the state that `prepare` set.
    unsafe {
        let Known { places, values } = &*(*state).p_ref_hook_state.cast::<Known<'_>>();
        let location = (*reference).location;
        let is_there = |place: &&Place| c_int::try_from(place.at) == Ok(location);
        let Some(Place { value, .. }) = places.iter().find(is_there) else { return std::ptr::null_mut() };
        let type_oid = values[*value].type_oid();
        let mut node = pgrx::PgBox::<pg_sys::Param>::alloc_node(pg_sys::NodeTag::T_Param);
        node.paramkind = pg_sys::ParamKind::PARAM_EXTERN;
        node.paramid = *value as c_int + 1;
        node.paramtype = type_oid;
        node.paramtypmod = -1;
        node.paramcollid = pg_sys::get_typcollation(type_oid);
        node.location = location;
        node.into_pg().cast()
    }
}
