//! libFuzzer on [`fhir_bulk_fuzz::signed`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fhir_bulk_fuzz::signed::check(data));
