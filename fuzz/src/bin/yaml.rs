//! libFuzzer on [`fhir_bulk_fuzz::yaml`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fhir_bulk_fuzz::yaml::check(data));
