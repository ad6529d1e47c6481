//! jsonb bytes that PostgreSQL would read alike but never write: equal values must be equal bytes.

mod common;

use common::encode;
use fhir_bulk_codec::error::IdRule;

/// The container's JEntries.
fn entries(jsonb: &[u8]) -> Vec<u32> {
    let words: Vec<u32> = jsonb.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let count = (words[0] & 0x0FFF_FFFF) as usize;
    let entries = if words[0] & 0x2000_0000 != 0 { 2 * count } else { count };
    words[1..=entries].to_vec()
}

/// Every 32nd JEntry holds an offset and all others a length (`JB_OFFSET_STRIDE`), names and values counted together.
#[track_caller]
fn has_postgresqls_strides(jsonb: &[u8], lengths: &[u32]) {
    let mut end = 0;
    let expected: Vec<u32> = lengths
        .iter()
        .enumerate()
        .map(|(index, length)| {
            end += length;
            if index % 32 == 0 { end | 0x8000_0000 } else { *length }
        })
        .collect();
    assert_eq!(entries(jsonb), expected);
}

#[test]
fn offsets_stand_where_postgresql_puts_them_in_objects_and_arrays() {
    for count in [1usize, 16, 17, 31, 32, 33, 47, 64, 65, 100] {
        let text = |index: usize| "v".repeat(index % 7);
        let members: Vec<_> = (0..count).map(|index| format!("\"k{index:03}\":\"{}\"", text(index))).collect();
        let object = encode(IdRule::Fhir, format!("{{\"id\":\"x\",{}}}", members.join(","))).unwrap().jsonb;
        let values: Vec<u32> = (0..count).map(|index| text(index).len() as u32).collect();
        has_postgresqls_strides(&object, &[vec![4; count], values.clone()].concat());

        let elements: Vec<_> = (0..count).map(|index| format!("\"{}\"", text(index))).collect();
        let line = format!("{{\"id\":\"x\",\"a\":[{}]}}", elements.join(","));
        let array = encode(IdRule::Fhir, line).unwrap().jsonb;
        // Header, two JEntries, the name and its padding stand before the array.
        has_postgresqls_strides(&array[16..], &values);
    }
}

/// `{"n": 1, "s": "abc", "t": {}, "u": [null, true, false, "é", -0.5]}`, as PostgreSQL 15 stores it.
#[test]
fn a_document_of_every_kind_has_postgresqls_bytes() {
    let line = r#"{"u":[null,true,false,"\u00e9",-0.5],"t":{},"id":"x","s":"abc","n":1}"#;
    let jsonb = encode(IdRule::Fhir, line).unwrap().jsonb;
    let hex: String = jsonb.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "0400002001000080010000000100000001000000080000100300000005000050240000506e7374752000000000800100616263000000002005000040000000c00000003000000020020000000a000010c3a9000020000000ffa08813"
    );
}
