//! How much a backend grows while it moves a lot: its anonymous memory (`RssAnon`), without shared buffers.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use fhir_bulk_tests::SetAtEnd;

use super::bench::{Bench, Outcome};
use super::report::Grown;
use fhir_bulk_sample::{ResourceType, Sample};

/// The contract's bound, in MB.
const BOUND_MB: f64 = 64.0;

/// A load and a dump of about `bytes` of NDJSON, each in a session of its own.
pub(super) fn measure(bench: &mut Bench, bytes: u64) -> Outcome<Vec<Grown>> {
    let folder = bench.cluster.shared_folder("memory");
    let source = folder.join("Procedure.ndjson");
    eprint!("memory: making {} MB … ", bytes >> 20);
    let mut file = io::BufWriter::new(fs::File::create(&source)?);
    let mut written = 0;
    for seed in 0.. {
        if written >= bytes {
            break;
        }
        written += Sample::new(seed, 40_000).write(ResourceType::Observation, &mut file)?.bytes;
    }
    io::Write::flush(&mut file)?;
    fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    eprintln!("loading and dumping them");
    let load = format!("SELECT bulk_load('file://{}', 'Observation', fhir => true)", source.display());
    bench.empty_table()?;
    let dump = "COPY (SELECT bulk_dump_chunks('Observation', fhir => true)) TO STDOUT (FORMAT binary)";
    let mut all = vec![
        grown(bench, "load", written, |client| Ok(client.batch_execute(&load)?))?,
        grown(bench, "dump", written, |client| {
            io::copy(&mut client.copy_out(dump)?, &mut io::sink())?;
            Ok(())
        })?,
    ];
    bench.empty_table()?;
    all.push(grown(bench, "COPY FROM STDIN", written, |client| {
        let mut writer = client.copy_in("COPY observation FROM STDIN (FORMAT fhir)")?;
        io::copy(&mut fs::File::open(&source)?, &mut writer)?;
        writer.finish()?;
        Ok(())
    })?);
    all.push(grown(bench, "COPY TO STDOUT", written, |client| {
        io::copy(&mut client.copy_out("COPY observation TO STDOUT (FORMAT fhir)")?, &mut io::sink())?;
        Ok(())
    })?);
    fs::remove_file(source)?;
    Ok(all)
}

fn grown(
    bench: &Bench,
    name: &'static str,
    bytes: u64,
    work: impl FnOnce(&mut fhir_bulk_tests::Client) -> Outcome<()>,
) -> Outcome<Grown> {
    let mut client = bench.cluster.connect("postgres", "bench");
    client.batch_execute("LOAD 'fhir_bulk'")?;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let before = anonymous_kb(pid);
    let (peak, done) = (AtomicU64::new(before), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(anonymous_kb(pid), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(10));
            }
        });
        let _end = SetAtEnd(&done);
        work(&mut client)
    })?;
    let growth_mb = (peak.into_inner().saturating_sub(before)) as f64 / 1024.0;
    Ok(Grown { name, bytes, growth_mb, bound_mb: BOUND_MB })
}

fn anonymous_kb(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}
