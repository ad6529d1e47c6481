//! libFuzzer on [`fhir_bulk_fuzz::source`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fhir_bulk_fuzz::source::check(data));
