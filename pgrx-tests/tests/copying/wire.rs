//! The protocol, message by message, as a client of one's own speaks it.

use crate::support::{patient, patients};
use fhir_bulk_tests::{Database, gzip};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

/// A connection that says just what it is told to.
pub struct Wire(pub UnixStream);

impl Wire {
    pub fn connect(database: &Database) -> Wire {
        let dsn = database.cluster().dsn("postgres", database.name());
        let part = |name: &str| dsn.split(' ').find_map(|part| part.strip_prefix(name)).unwrap();
        let socket = format!("{}/.s.PGSQL.{}", part("host="), part("port="));
        let mut wire = Wire(UnixStream::connect(socket).unwrap());
        let mut startup = vec![0, 3, 0, 0];
        for (name, value) in [("user", "postgres"), ("database", database.name())] {
            startup.extend([name, "\0", value, "\0"].concat().into_bytes());
        }
        startup.push(0);
        wire.0.write_all(&(startup.len() as u32 + 4).to_be_bytes()).unwrap();
        wire.0.write_all(&startup).unwrap();
        wire.read_until(b'Z');
        wire.query("SELECT bulk_load_result()");
        wire.read_until(b'Z');
        wire
    }

    pub fn send(&mut self, kind: u8, body: &[u8]) {
        self.0.write_all(&message(kind, body)).unwrap();
    }

    pub fn query(&mut self, text: &str) {
        self.send(b'Q', format!("{text}\0").as_bytes());
    }

    /// By the extended protocol, up to Execute.
    pub fn execute(&mut self, text: &str) {
        self.send(b'P', format!("\0{text}\0\0\0").as_bytes());
        self.send(b'B', &[0; 8]);
        self.send(b'E', &[0; 5]);
        self.send(b'H', &[]);
    }

    pub fn read(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (head[0], body)
    }

    /// The messages up to one of a kind.
    pub fn read_until(&mut self, kind: u8) -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            all.push(self.read());
            if all.last().unwrap().0 == kind {
                return all;
            }
        }
    }

    /// How a statement ended: its tag, or the SQLSTATE and message of its error; it is ready for the next one then.
    pub fn end(&mut self) -> String {
        let messages = self.read_until(b'Z');
        let (kind, body) = messages.iter().find(|(kind, _)| [b'C', b'E'].contains(kind)).expect("an end");
        let text = |body: &[u8]| String::from_utf8_lossy(body).trim_end_matches('\0').to_owned();
        if *kind == b'C' {
            return text(body);
        }
        let field =
            |code: u8| body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[code])).unwrap_or_default();
        format!("{} {}", text(field(b'C')), text(field(b'M')))
    }
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend((body.len() as u32 + 4).to_be_bytes());
    message.extend(body);
    message
}

pub const COPY: &str = "COPY bulk_resource FROM STDIN (FORMAT fhir)";

#[test]
fn a_copy_in_is_announced_as_one_stream_of_bytes_and_takes_them_however_they_are_cut() {
    let database = Database::new();
    let mut wire = Wire::connect(&database);
    for bytes in [patients(1..=20).into_bytes(), gzip(patients(1..=20).as_bytes())] {
        for size in [1, 7, bytes.len()] {
            wire.query(COPY);
            assert_eq!(wire.read(), (b'G', vec![1, 0, 1, 0, 1]));
            for piece in bytes.chunks(size) {
                wire.send(b'd', piece);
                wire.send(b'd', &[]);
            }
            wire.send(b'c', &[]);
            assert_eq!(wire.end(), "COPY 20");
        }
    }
}

#[test]
fn flush_and_sync_between_the_data_change_nothing() {
    let database = Database::new();
    let mut wire = Wire::connect(&database);
    wire.execute(COPY);
    assert_eq!(wire.read_until(b'G').last().unwrap().1, [1, 0, 1, 0, 1]);
    for number in 1..=3 {
        wire.send(b'd', format!("{}\n", patient(&format!("p-{number}"), number)).as_bytes());
        wire.send(b'H', &[]);
        wire.send(b'S', &[]);
    }
    wire.send(b'c', &[]);
    wire.send(b'S', &[]);
    assert_eq!(wire.end(), "COPY 3");
}

#[test]
fn a_client_that_gives_up_is_told_its_own_reason_and_one_that_says_nonsense_is_refused() {
    let database = Database::new();
    let mut wire = Wire::connect(&database);
    wire.query(COPY);
    wire.read_until(b'G');
    wire.send(b'd', patients(1..=3).as_bytes());
    wire.send(b'f', b"the disk is on fire\0");
    assert_eq!(wire.end(), "57014 COPY from stdin failed: the disk is on fire");
    wire.query(COPY);
    wire.read_until(b'G');
    wire.query("SELECT 1");
    assert_eq!(wire.end(), "08P01 unexpected message type 0x51 during COPY from stdin");
    wire.query("SELECT count(*) FROM pg_class WHERE relname = 'patient'");
    assert_eq!(wire.end(), "SELECT 1");
}

#[test]
fn data_that_comes_after_an_error_is_passed_over() {
    let database = Database::new();
    let mut wire = Wire::connect(&database);
    for extended in [false, true] {
        if extended {
            wire.execute(COPY)
        } else {
            wire.query(COPY)
        }
        wire.read_until(b'G');
        wire.send(b'd', b"{\"id\": }\n");
        // Not before the error has come, which no CopyDone has asked for.
        assert_eq!(wire.read().0, b'E');
        wire.send(b'd', patients(1..=1000).as_bytes());
        wire.send(b'c', &[]);
        if extended {
            wire.send(b'S', &[]);
        }
        wire.read_until(b'Z');
        wire.query("SELECT 1");
        assert_eq!(wire.end(), "SELECT 1");
    }
}

#[test]
fn a_copy_out_is_announced_as_one_stream_of_bytes() {
    let database = Database::new();
    let mut wire = Wire::connect(&database);
    wire.query(COPY);
    wire.send(b'd', patients(1..=3000).as_bytes());
    wire.send(b'c', &[]);
    assert_eq!(wire.end(), "COPY 3000");
    wire.query("COPY patient TO STDOUT (FORMAT fhir)");
    let messages = wire.read_until(b'Z');
    assert_eq!(messages[0], (b'H', vec![1, 0, 1, 0, 1]));
    let mut kinds: Vec<u8> = messages.iter().map(|(kind, _)| *kind).collect();
    kinds.dedup();
    assert_eq!(kinds, b"HdcCZ");
    let lines =
        messages.iter().filter(|(kind, _)| *kind == b'd').flat_map(|(_, body)| body).filter(|byte| **byte == b'\n');
    assert_eq!(lines.count(), 3000);
}

#[test]
fn an_empty_binary_copy_is_no_lines_however_it_is_cut() {
    let database = Database::new();
    let mut wire = Wire::connect(&database);
    let empty = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff";
    for size in [1, 11, 20, 21] {
        wire.query(COPY);
        wire.read_until(b'G');
        // The server sees some of the pieces one by one.
        for piece in empty.chunks(size) {
            wire.send(b'd', piece);
            std::thread::yield_now();
        }
        wire.send(b'c', &[]);
        assert_eq!(wire.end(), "COPY 0", "{size}");
    }
    wire.query(COPY);
    wire.read_until(b'G');
    wire.send(b'd', empty);
    wire.send(b'd', b"x");
    wire.send(b'c', &[]);
    assert!(wire.end().starts_with("22P04 the data looks like COPY's binary format"));
    // The reason of one who gives up is in the encoding of its client.
    wire.query("SET client_encoding = 'LATIN1'");
    wire.read_until(b'Z');
    wire.query(COPY);
    wire.read_until(b'G');
    wire.send(b'f', b"gr\xfcn\0");
    let messages = wire.read_until(b'Z');
    assert!(messages.iter().any(|(kind, body)| *kind == b'E' && body.windows(4).any(|part| part == b"gr\xfcn")));
}
