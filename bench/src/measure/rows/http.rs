//! Dumps and loads through the HTTP proxy.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::super::bench::{Bench, Outcome};

/// What a body in chunks ends with when it is whole.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Reads all, as fast as it comes.
pub(super) fn dump(bench: &mut Bench) -> Outcome<f64> {
    let path = format!("/{}/$dump?fhir=true", bench.resource_type);
    let address = bench.proxy().address();
    let start = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let (mut buffer, mut end, mut bytes) = (vec![0; 256 << 10], Vec::new(), 0);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        if bytes == 0 && !buffer.starts_with(b"HTTP/1.1 200 ") {
            return Err(String::from_utf8_lossy(&buffer[..count]).into());
        }
        bytes += count as u64;
        end.extend_from_slice(&buffer[count.saturating_sub(LAST_CHUNK.len())..count]);
        end.drain(..end.len().saturating_sub(LAST_CHUNK.len()));
    }
    let seconds = start.elapsed().as_secs_f64();
    if end != LAST_CHUNK || bytes < bench.source_bytes / 2 {
        return Err("the dump is not whole".into());
    }
    Ok(seconds)
}

/// Sends the file as the body.
pub(super) fn load(bench: &mut Bench) -> Outcome<f64> {
    bench.empty_table()?;
    let (path, length) = (format!("/fhir/{}/$load", bench.resource_type), bench.source_bytes);
    let mut file = File::open(&bench.source)?;
    let address = bench.proxy().address();
    let start = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/ndjson\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    )?;
    io::copy(&mut file, &mut stream)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let seconds = start.elapsed().as_secs_f64();
    if !answer.starts_with("HTTP/1.1 200 ") {
        return Err(answer.into());
    }
    Ok(seconds)
}
