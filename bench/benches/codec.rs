//! The hot loops in bytes of NDJSON a second: `cargo bench -p fhir_bulk_bench`.
//!
//! Beside them what the fastest JSON parsers do with the same lines: sonic-rs into its values, simd-json onto its tape,
//! neither of which is jsonb yet; and serde_json into its values.
#![allow(missing_docs, reason = "criterion's macros make a function")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fhir_bulk_bench::loops::{Encode, Write, lines};
use std::hint::black_box;

fn parse(criterion: &mut Criterion) {
    let lines = lines();
    let bytes: usize = lines.iter().map(Vec::len).sum();
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Bytes(bytes as u64));
    for (name, fhir) in [("encode Aidbox", false), ("encode FHIR", true)] {
        let mut encode = Encode::new(&lines, fhir);
        group.bench_function(name, |bencher| bencher.iter(|| black_box(encode.run())));
    }
    group.bench_function("sonic-rs", |bencher| {
        bencher.iter(|| {
            for line in &lines {
                black_box(sonic_rs::from_slice::<sonic_rs::Value>(line).expect("valid"));
            }
        });
    });
    group.bench_function("simd-json tape", |bencher| {
        // It parses in place: each run has copies of its own, which are not timed.
        let mut buffers = simd_json::Buffers::default();
        let parse = |mut lines: Vec<Vec<u8>>| {
            for line in &mut lines {
                black_box(simd_json::to_tape_with_buffers(line, &mut buffers).expect("valid").0.len());
            }
            lines
        };
        bencher.iter_batched(|| lines.clone(), parse, BatchSize::LargeInput);
    });
    group.bench_function("serde_json", |bencher| {
        bencher.iter(|| {
            for line in &lines {
                black_box(serde_json::from_slice::<serde_json::Value>(line).expect("valid"));
            }
        });
    });
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let lines = lines();
    let mut group = criterion.benchmark_group("write");
    for (name, fhir) in [("write Aidbox", false), ("write FHIR", true)] {
        let mut write = Write::new(&lines, fhir);
        group.throughput(Throughput::Bytes(write.run() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(write.run())));
    }
    group.finish();
}

criterion_group!(codec, parse, write);
criterion_main!(codec);
