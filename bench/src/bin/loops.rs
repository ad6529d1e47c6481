//! One of the hot loops, so many times: `loops encode-aidbox|encode-fhir|write-aidbox|write-fhir|view-csv RUNS`. Prints how many
//! bytes of NDJSON a run takes or makes. For profilers; `scripts/profile.sh` counts its instructions.

use std::hint::black_box;
use std::process::ExitCode;

use fhir_bulk_bench::loops::{Encode, Flatten, Write, lines};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, runs] = arguments.as_slice() else { return usage() };
    let Ok(runs) = runs.parse::<usize>() else { return usage() };
    let lines = lines();
    let mut bytes: usize = lines.iter().map(Vec::len).sum();
    let fhir = name.ends_with("-fhir");
    match name.as_str() {
        "encode-aidbox" | "encode-fhir" => {
            let mut encode = Encode::new(&lines, fhir);
            for _ in 0..runs {
                black_box(encode.run());
            }
        }
        "write-aidbox" | "write-fhir" => {
            let mut write = Write::new(&lines, fhir);
            for _ in 0..runs {
                bytes = black_box(write.run());
            }
        }
        "view-csv" => {
            let mut flatten = Flatten::new(&lines);
            for _ in 0..runs {
                black_box(flatten.run());
            }
        }
        _ => return usage(),
    }
    println!("{bytes}");
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: loops encode-aidbox|encode-fhir|write-aidbox|write-fhir|view-csv RUNS");
    ExitCode::from(2)
}
