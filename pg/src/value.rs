//! Values of any type: prints them with PostgreSQL's output functions, and takes arrays and composites apart.

use super::{compat, datum};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::rc::Rc;

/// A column of a query's rows, or a member of a composite value.
pub struct Column {
    /// Its name.
    pub name: String,
    pub(super) kind: Type,
    /// The modifier of its type.
    pub(super) modifier: i32,
}

impl Column {
    /// The columns that are not dropped. They use memory of the current memory context, which must live as long as they do.
    ///
    /// # Safety
    /// `descriptor` is live.
    pub(super) unsafe fn all(descriptor: pg_sys::TupleDesc) -> Vec<Column> {
        // SAFETY: the caller guarantees it; indexes are below the count of attributes.
        unsafe {
            let attributes = (0..(*descriptor).natts as usize).map(|at| &*compat::attribute(descriptor, at));
            let live = attributes.filter(|attribute| !attribute.attisdropped);
            live.map(|attribute| {
                let mut modifier = attribute.atttypmod;
                pg_sys::getBaseTypeAndTypmod(attribute.atttypid, &mut modifier);
                let name = pgrx::name_data_to_str(&attribute.attname).to_owned();
                Column { name, kind: Type::of(attribute.atttypid), modifier }
            })
            .collect()
        }
    }

    /// A name that more than one of the columns has.
    pub fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        let mut seen = std::collections::HashSet::new();
        names.into_iter().find(|name| !seen.insert(*name))
    }
}

/// The kinds of type that the formats treat differently.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Category {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Text,
    Json,
    Jsonb,
    Bytea,
    Bits,
    Uuid,
    Array,
    Composite,
    /// A type that is not built in and has a function that casts it to json.
    Castable(*mut pg_sys::FmgrInfo),
    Other,
}

/// A type, with everything that printing its values needs.
pub(super) struct Type {
    pub(super) category: Category,
    output: *mut pg_sys::FmgrInfo,
    /// The memory for facts that are looked up later.
    memory: pg_sys::MemoryContext,
    /// The element type of the last array, and the members of the last composite: only a value says what it consists of.
    element: RefCell<Option<Rc<Element>>>,
    members: RefCell<Option<Rc<Members>>>,
}

struct Element {
    oid: pg_sys::Oid,
    kind: Type,
    length: i16,
    by_value: bool,
    align: std::ffi::c_char,
}

struct Members {
    /// The number of the type's definition: ALTER TYPE changes it.
    definition: u64,
    descriptor: pg_sys::TupleDesc,
    /// The attributes that are not dropped, and their indexes.
    columns: Vec<Column>,
    live: Vec<usize>,
    /// A name that two of them have.
    repeated: Option<String>,
}

impl Type {
    /// # Safety
    /// The current memory context lives as long as the type.
    pub(super) unsafe fn of(oid: pg_sys::Oid) -> Type {
        // SAFETY: catalogue look-ups inside a transaction; a domain's values are those of its base type.
        unsafe {
            let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
            pg_sys::getTypeOutputInfo(oid, &mut output, &mut is_varlena);
            Type {
                category: category(pg_sys::getBaseType(oid)),
                output: function(output),
                memory: pg_sys::CurrentMemoryContext,
                element: RefCell::default(),
                members: RefCell::default(),
            }
        }
    }

    /// # Safety
    /// `oid` is the type of an array's elements.
    unsafe fn element(&self, oid: pg_sys::Oid) -> Rc<Element> {
        if let Some(known) = self.element.borrow().as_ref().filter(|known| known.oid == oid) {
            return known.clone();
        }
        let (mut length, mut by_value, mut align) = (0, false, 0);
        // SAFETY: the caller guarantees it; the type's memory is live while the type is used.
        let element = unsafe {
            pg_sys::get_typlenbyvalalign(oid, &mut length, &mut by_value, &mut align);
            let kind = super::memory::in_context(self.memory, || Type::of(oid));
            Rc::new(Element { oid, kind, length, by_value, align })
        };
        *self.element.borrow_mut() = Some(element.clone());
        element
    }

    /// # Safety
    /// `oid` and `modifier` are those of a composite value.
    unsafe fn members(&self, oid: pg_sys::Oid, modifier: i32) -> Rc<Members> {
        // SAFETY: the caller guarantees it.
        let definition = unsafe { pg_sys::assign_record_type_identifier(oid, modifier) };
        let known = self.members.borrow().clone();
        if let Some(known) = known.filter(|known| known.definition == definition) {
            return known;
        }
        // SAFETY: the caller guarantees it; the copy is made in the type's memory.
        let members = unsafe {
            super::memory::in_context(self.memory, || {
                let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(oid, modifier);
                let count = (*descriptor).natts as usize;
                let live = (0..count).filter(|at| !(*compat::attribute(descriptor, *at)).attisdropped).collect();
                let columns = Column::all(descriptor);
                let repeated = Column::repeated(columns.iter().map(|column| column.name.as_str())).map(str::to_owned);
                Rc::new(Members { definition, descriptor, columns, live, repeated })
            })
        };
        *self.members.borrow_mut() = Some(members.clone());
        members
    }
}

/// What is needed to call a function.
///
/// # Safety
/// The current memory context lives as long as the function is called.
pub(super) unsafe fn function(oid: pg_sys::Oid) -> *mut pg_sys::FmgrInfo {
    // SAFETY: zeroed memory for one FmgrInfo, which fmgr_info_cxt fills.
    unsafe {
        let info = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast();
        pg_sys::fmgr_info_cxt(oid, info, pg_sys::CurrentMemoryContext);
        info
    }
}

/// # Safety
/// `oid` is a type but not a domain; the current memory context lives as long as the type.
unsafe fn category(oid: pg_sys::Oid) -> Category {
    match oid {
        pg_sys::BOOLOID => Category::Bool,
        pg_sys::INT2OID => Category::Int2,
        pg_sys::INT4OID => Category::Int4,
        pg_sys::INT8OID => Category::Int8,
        pg_sys::FLOAT4OID => Category::Float4,
        pg_sys::FLOAT8OID => Category::Float8,
        pg_sys::NUMERICOID => Category::Numeric,
        pg_sys::DATEOID => Category::Date,
        pg_sys::TIMEOID => Category::Time,
        pg_sys::UUIDOID => Category::Uuid,
        pg_sys::TIMESTAMPOID => Category::Timestamp,
        pg_sys::TIMESTAMPTZOID => Category::Timestamptz,
        pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => Category::Text,
        pg_sys::JSONOID => Category::Json,
        pg_sys::JSONBOID => Category::Jsonb,
        pg_sys::BYTEAOID => Category::Bytea,
        pg_sys::BITOID | pg_sys::VARBITOID => Category::Bits,
        pg_sys::ANYARRAYOID | pg_sys::RECORDARRAYOID => Category::Array,
        // SAFETY: catalogue look-ups.
        _ => unsafe {
            if pg_sys::get_element_type(oid) != pg_sys::InvalidOid {
                Category::Array
            } else if pg_sys::type_is_rowtype(oid) {
                Category::Composite
            } else {
                castable(oid)
            }
        },
    }
}

/// The category of a type by its cast to json. Like `to_json`, it does not look at casts of built-in types.
///
/// # Safety
/// As for [`category`].
unsafe fn castable(oid: pg_sys::Oid) -> Category {
    if oid.to_u32() < pg_sys::FirstNormalObjectId {
        return Category::Other;
    }
    let mut cast = pg_sys::InvalidOid;
    // SAFETY: a catalogue look-up.
    unsafe {
        let explicit = pg_sys::CoercionContext::COERCION_EXPLICIT;
        match pg_sys::find_coercion_pathway(pg_sys::JSONOID, oid, explicit, &mut cast) {
            pg_sys::CoercionPathType::COERCION_PATH_FUNC => Category::Castable(function(cast)),
            _ => Category::Other,
        }
    }
}

/// A value that is not NULL. Everything made from it lives until the next row.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    datum: pg_sys::Datum,
    kind: &'a Type,
}

/// The content of a value. For variants without content, [`Value::text`] has the text.
pub enum Content<'a> {
    /// A boolean.
    Bool(bool),
    /// `smallint`, `integer` or `bigint`.
    Int(i64),
    /// `real`.
    Float4(f32),
    /// `double precision`.
    Float8(f64),
    /// `numeric`.
    Numeric,
    /// Days since 2000-01-01, or one of [`INFINITE_DATES`].
    Date(i32),
    /// Microseconds since midnight, up to 24:00:00.
    Time(i64),
    /// Microseconds since 2000-01-01T00:00:00, or one of [`INFINITE_TIMES`].
    Timestamp(i64),
    /// The same in UTC.
    Timestamptz(i64),
    /// A character type.
    Text(&'a [u8]),
    /// The text of a `json`.
    Json(&'a [u8]),
    /// The bytes of a `jsonb`, after the length header.
    Jsonb(&'a [u8]),
    /// Bytes.
    Bytea(Bytes<'a>),
    /// `bit` or `bit varying`.
    Bits,
    /// The 16 bytes of a `uuid`.
    Uuid(&'a [u8]),
    /// An array of any dimensions.
    Array(Array<'a>),
    /// A row of a named type, or a record.
    Composite(Composite<'a>),
    /// A value with a cast to json.
    Castable(CastToJson<'a>),
    /// Any other.
    Other,
}

/// PostgreSQL's `infinity` and `-infinity` (date.h).
pub const INFINITE_DATES: [i32; 2] = [i32::MAX, i32::MIN];
/// PostgreSQL's `infinity` and `-infinity` (timestamp.h).
pub const INFINITE_TIMES: [i64; 2] = [i64::MAX, i64::MIN];

impl<'a> Value<'a> {
    /// # Safety
    /// The datum has this type. It and the current memory context live for `'a`.
    pub(super) unsafe fn new(datum: pg_sys::Datum, kind: &'a Type) -> Value<'a> {
        Value { datum, kind }
    }

    /// Its text, printed under the session's settings.
    pub fn text(&self) -> &'a [u8] {
        // SAFETY: as `new` requires; the output function's result is a C string in the current memory context.
        unsafe {
            match self.kind.category {
                Category::Text | Category::Json => datum::text_bytes(self.datum),
                _ => CStr::from_ptr(pg_sys::OutputFunctionCall(self.kind.output, self.datum)).to_bytes(),
            }
        }
    }

    /// Its content.
    pub fn content(&self) -> Content<'a> {
        let number = self.datum.value();
        // SAFETY: as `new` requires, the datum is of the category's type.
        unsafe {
            match self.kind.category {
                Category::Bool => Content::Bool(number as u8 != 0),
                Category::Int2 => Content::Int((number as i16).into()),
                Category::Int4 => Content::Int((number as i32).into()),
                Category::Int8 => Content::Int(number as i64),
                Category::Float4 => Content::Float4(f32::from_bits(number as u32)),
                Category::Float8 => Content::Float8(f64::from_bits(number as u64)),
                Category::Numeric => Content::Numeric,
                Category::Date => Content::Date(number as i32),
                Category::Time => Content::Time(number as i64),
                Category::Timestamp => Content::Timestamp(number as i64),
                Category::Timestamptz => Content::Timestamptz(number as i64),
                Category::Text => Content::Text(datum::text_bytes(self.datum)),
                Category::Json => Content::Json(datum::text_bytes(self.datum)),
                Category::Jsonb => Content::Jsonb(datum::varlena_bytes(self.datum)),
                Category::Bytea => Content::Bytea(Bytes(self.datum, PhantomData)),
                Category::Bits => Content::Bits,
                Category::Uuid => Content::Uuid(std::slice::from_raw_parts(self.datum.cast_mut_ptr::<u8>(), 16)),
                Category::Array => Content::Array(Array(*self)),
                Category::Composite => Content::Composite(Composite(*self)),
                Category::Castable(cast) => Content::Castable(CastToJson { datum: self.datum, cast, row: PhantomData }),
                Category::Other => Content::Other,
            }
        }
    }
}

/// A `bytea`; [`Bytes::get`] decompresses and fetches it.
pub struct Bytes<'a>(pg_sys::Datum, PhantomData<&'a ()>);

impl<'a> Bytes<'a> {
    /// Its bytes.
    pub fn get(&self) -> &'a [u8] {
        // SAFETY: made only for values of type bytea that live for 'a.
        unsafe { datum::text_bytes(self.0) }
    }
}

/// A value whose type has a cast to json.
pub struct CastToJson<'a> {
    datum: pg_sys::Datum,
    cast: *mut pg_sys::FmgrInfo,
    row: PhantomData<&'a ()>,
}

impl<'a> CastToJson<'a> {
    /// JSON text.
    pub fn json(&self) -> &'a [u8] {
        // SAFETY: the cast takes values of this type and returns json.
        unsafe {
            let no_collation = pg_sys::InvalidOid;
            datum::text_bytes(pg_sys::FunctionCall1Coll(self.cast, no_collation, self.datum))
        }
    }
}

/// An array.
pub struct Array<'a>(Value<'a>);

/// The elements of an array, in the order of its memory: the last dimension varies fastest.
pub struct Elements {
    dimensions: Vec<usize>,
    values: Vec<Option<pg_sys::Datum>>,
    element: Rc<Element>,
}

impl Array<'_> {
    /// Takes it apart.
    pub fn elements(&self) -> Elements {
        let Value { datum, kind } = self.0;
        // SAFETY: the datum is an array. Its header has the element type, and the dimensions follow the header.
        unsafe {
            pg_sys::check_stack_depth();
            let array: *mut pg_sys::ArrayType = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
            let element = kind.element((*array).elemtype);
            let sizes = std::slice::from_raw_parts(array.add(1).cast::<i32>(), (*array).ndim as usize);
            let (mut datums, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            let Element { oid, length, by_value, align, .. } = *element;
            pg_sys::deconstruct_array(array, oid, length.into(), by_value, align, &mut datums, &mut nulls, &mut count);
            let values = (0..count as usize).map(|at| (!*nulls.add(at)).then(|| *datums.add(at))).collect();
            Elements { dimensions: sizes.iter().map(|size| *size as usize).collect(), values, element }
        }
    }
}

impl Elements {
    /// How many elements each dimension has; none for an empty array.
    pub fn dimensions(&self) -> &[usize] {
        &self.dimensions
    }

    /// All elements; `None` for NULL.
    pub fn values(&self) -> impl Iterator<Item = Option<Value<'_>>> {
        self.values.iter().map(|value| value.map(|datum| Value { datum, kind: &self.element.kind }))
    }
}

/// A composite value.
pub struct Composite<'a>(Value<'a>);

/// The members of a composite value.
pub struct Row {
    values: Vec<Option<pg_sys::Datum>>,
    members: Rc<Members>,
}

impl Composite<'_> {
    /// Takes it apart.
    pub fn row(&self) -> Row {
        let Value { datum, kind } = self.0;
        // SAFETY: the datum is a composite, whose header has its type; the arrays have room for its attributes.
        unsafe {
            pg_sys::check_stack_depth();
            let header: pg_sys::HeapTupleHeader = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
            let fields = (*header).t_choice.t_datum;
            let members = kind.members(fields.datum_typeid, fields.datum_typmod);
            let mut tuple = pg_sys::HeapTupleData { t_data: header, ..Default::default() };
            tuple.t_len = pgrx::varsize_4b(header.cast()) as u32;
            let count = (*members.descriptor).natts as usize;
            let (mut values, mut nulls) = (vec![pg_sys::Datum::from(0); count], vec![false; count]);
            pg_sys::heap_deform_tuple(&mut tuple, members.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            let values = members.live.iter().map(|at| (!nulls[*at]).then(|| values[*at])).collect();
            Row { values, members }
        }
    }
}

impl Row {
    /// A name that two of the members have.
    pub fn repeated(&self) -> Option<&str> {
        self.members.repeated.as_deref()
    }

    /// Names and values, in order; `None` for NULL.
    pub fn members(&self) -> impl Iterator<Item = (&str, Option<Value<'_>>)> {
        self.members
            .columns
            .iter()
            .zip(&self.values)
            .map(|(column, value)| (column.name.as_str(), value.map(|datum| Value { datum, kind: &column.kind })))
    }
}
