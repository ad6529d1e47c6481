//! Writes a sample of FHIR R4 resources as NDJSON, one file per type and/or one file with all types. Prints a line
//! for each file: type, number of resources, bytes of NDJSON, path.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fhir_bulk_sample::{ResourceType, Sample, Written};
use flate2::Compression;
use flate2::write::GzEncoder;

const USAGE: &str = "\
usage: sample [--out DIR] [--single FILE] [--resources N] [--seed S] [--plain]
  --out DIR        write DIR/<Type>.ndjson.gz for each type
  --single FILE    write all types to one file, patient by patient
  --resources N    how many resources in all (default 50000)
  --seed S         another seed, another sample (default 1)
  --plain          do not compress; files of --out are called <Type>.ndjson";

struct Options {
    out: Option<PathBuf>,
    single: Option<PathBuf>,
    resources: u64,
    seed: u64,
    plain: bool,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("sample: {reason}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sample: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { out: None, single: None, resources: 50_000, seed: 1, plain: false };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text:?} is not a number"));
        match argument.as_str() {
            "--out" => options.out = Some(value()?.into()),
            "--single" => options.single = Some(value()?.into()),
            "--resources" => options.resources = number(value()?)?,
            "--seed" => options.seed = number(value()?)?,
            "--plain" => options.plain = true,
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    if options.out.is_none() && options.single.is_none() {
        return Err("nothing to write: give --out, --single or both".into());
    }
    Ok(options)
}

fn run(options: &Options) -> io::Result<()> {
    let sample = Sample::new(options.seed, options.resources);
    if let Some(folder) = &options.out {
        fs::create_dir_all(folder)?;
        for of in ResourceType::ALL {
            let suffix = if options.plain { "ndjson" } else { "ndjson.gz" };
            let path = folder.join(format!("{}.{suffix}", of.name()));
            let written = write_file(&path, options.plain, |to| sample.write(of, to))?;
            report(of.name(), written, &path);
        }
    }
    if let Some(path) = &options.single {
        let written = write_file(path, options.plain, |to| sample.write_mixed(to))?;
        report("mixed", written, path);
    }
    Ok(())
}

fn report(what: &str, Written { resources, bytes }: Written, path: &Path) {
    println!("{what} {resources} {bytes} {}", path.display());
}

/// Writes to another name and renames at the end, so that an existing file is complete.
fn write_file(
    path: &Path,
    plain: bool,
    write: impl FnOnce(&mut dyn Write) -> io::Result<Written>,
) -> io::Result<Written> {
    let about = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file = BufWriter::new(File::create(&part).map_err(about)?);
    let written = if plain {
        write(&mut file)
    } else {
        let mut gzip = GzEncoder::new(&mut file, Compression::new(3));
        write(&mut gzip).and_then(|written| gzip.finish().map(|_| written))
    };
    let written = written.and_then(|written| file.flush().map(|()| written)).map_err(about)?;
    fs::rename(&part, path).map_err(about)?;
    Ok(written)
}
