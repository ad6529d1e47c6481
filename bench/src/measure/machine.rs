//! What a measurement was made on.

use std::fs;

use fhir_bulk_tests::Client;

use super::bench::Outcome;

/// Processor, cores, memory, PostgreSQL: one line.
pub(super) fn describe(client: &mut Client) -> Outcome<String> {
    let version: String = client.query_one("SELECT current_setting('server_version')", &[])?.get(0);
    let version = version.split(' ').next().unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let memory = memory.map_or(String::new(), |kb| format!(", {} GB of memory", (kb + (1 << 19)) >> 20));
    Ok(format!("PostgreSQL {version}, {cores} cores of {processor}{memory}"))
}
