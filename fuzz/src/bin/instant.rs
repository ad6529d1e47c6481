//! libFuzzer on [`fhir_bulk_fuzz::instant`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fhir_bulk_fuzz::instant::check(data));
