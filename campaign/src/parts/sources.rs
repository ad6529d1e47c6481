//! Loads and imports from a source that breaks, lies, changes and dawdles.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fhir_bulk_tests::http::{Request, Server};
use fhir_bulk_tests::kills::Random;
use fhir_bulk_tests::support::{rows, run, value};
use fhir_bulk_tests::{Client, gzip, wait_for};
use serde_json::{Value, json};

use crate::patients;
use crate::place::Place;
use crate::run::{Part, Run};

pub const PART: Part = Part {
    name: "sources",
    what: "loads and imports read from a source over HTTP that is cut, slow or busy, answers with wrong lengths, ranges, \
           redirects or heads, changes in mid-read, or sends broken gzip: each has exactly what one version of the source has, \
           or ends with an error and has nothing but whole committed lines of it",
    unit: "transfers",
    run: try_all,
};

/// Sources that are read at the same time.
const SIDE_BY_SIDE: usize = 6;
/// One that neither ends nor fails has hung: retries and their pauses take a part of it.
const WITHIN: Duration = Duration::from_secs(60);

/// What happens to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The connection ends within the body.
    Cut,
    /// Chunks without the last one.
    Unfinished,
    /// More bytes are announced than come.
    TooShort,
    /// Pieces of some bytes, with pauses.
    Slow,
    /// 503, 429, 500 or 404.
    Refused,
    /// To itself, or to nowhere.
    Redirect,
    /// No HTTP.
    Noise,
    /// A head without end.
    LongHead,
    /// Asked for a range, it sends another one, or the whole.
    WrongRange,
    WholeInsteadOfRange,
    /// From the second request on it has other content, and says so, or does not.
    Changed,
    ChangedSilently,
    /// A bit of the compressed stream is another one, or its end is missing though the length is right.
    BrokenGzip,
    ShortGzip,
}

const FAULTS: [Fault; 15] = [
    Fault::None,
    Fault::Cut,
    Fault::Unfinished,
    Fault::TooShort,
    Fault::Slow,
    Fault::Refused,
    Fault::Redirect,
    Fault::Noise,
    Fault::LongHead,
    Fault::WrongRange,
    Fault::WholeInsteadOfRange,
    Fault::Changed,
    Fault::ChangedSilently,
    Fault::BrokenGzip,
    Fault::ShortGzip,
];

/// A source, as it answers.
struct Source {
    fault: Fault,
    /// How many answers have it; later ones are right.
    times: usize,
    /// Two versions of its bytes.
    bytes: [Vec<u8>; 2],
    tagged: bool,
    random: Random,
    requests: usize,
}

/// What a source is, to say it when something does not hold.
#[derive(Debug)]
struct Attempt {
    fault: Fault,
    times: usize,
    lines: usize,
    gzip: bool,
    tagged: bool,
    import: bool,
    /// Each input of an import is stored as a whole or not at all.
    whole: bool,
    commit_rows: u64,
    number: u64,
}

type Sources = Arc<Mutex<HashMap<String, Source>>>;

fn try_all(run: &mut Run) {
    let place = Place::new(&["fhir_bulk.idle_timeout = '5s'"]);
    let sources = Sources::default();
    let of_server = sources.clone();
    let server = Server::new(move |request, stream| answer(&of_server, request, stream));
    let mut clients: Vec<Client> = (0..SIDE_BY_SIDE).map(|at| session(&place, at)).collect();
    let (mut whole, mut failed) = (0, 0);
    while run.goes_on() {
        let first = run.so_far() + 1;
        let attempts: Vec<(Attempt, u64)> = (first..first + SIDE_BY_SIDE as u64)
            .map(|number| (Attempt::new(&mut run.random, number), run.random.below(1 << 31)))
            .collect();
        let outcomes: Vec<Result<bool, String>> = thread::scope(|scope| {
            let threads: Vec<_> = (attempts.iter().zip(&mut clients).enumerate())
                .map(|(at, ((attempt, seed), client))| {
                    let (sources, server, place) = (&sources, &server, &place);
                    scope.spawn(move || attempt.make(place, client, sources, server, at, *seed))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("a panic, see above".into())))
                .collect()
        });
        for ((attempt, _), outcome) in attempts.iter().zip(outcomes) {
            run.tried(1);
            match outcome {
                Ok(true) => whole += 1,
                Ok(false) => failed += 1,
                Err(what) => run.found(format!("{attempt:?}: {what}")),
            }
        }
    }
    run.note(format!("{whole} came through whole, {failed} ended with an error"));
    place.end();
}

/// A session with a schema of its own.
fn session(place: &Place, at: usize) -> Client {
    let mut client = place.connect();
    run(
        &mut client,
        &format!("CREATE SCHEMA s{at}; SET fhir_bulk.data_schema = 's{at}'; SELECT bulk_create_table('Patient')"),
    );
    client
}

impl Attempt {
    fn new(random: &mut Random, number: u64) -> Attempt {
        let fault = *random.one_of(&FAULTS);
        let most = *random.one_of(&[20, 6000]);
        Attempt {
            fault,
            // Often fewer than are tried again, and sometimes for ever.
            times: if random.below(4) == 0 { usize::MAX } else { 1 + random.below(3) as usize },
            lines: 1 + random.below(most) as usize,
            gzip: matches!(fault, Fault::BrokenGzip | Fault::ShortGzip) || random.below(3) == 0,
            tagged: random.below(3) > 0,
            import: random.below(2) == 0,
            whole: random.below(2) == 0,
            commit_rows: 1 + random.below(2000),
            number,
        }
    }

    /// Whether all came, or an error; what does not hold is an error of its own.
    fn make(
        &self,
        place: &Place,
        client: &mut Client,
        sources: &Sources,
        server: &Server,
        at: usize,
        seed: u64,
    ) -> Result<bool, String> {
        let marks = [self.number * 2, self.number * 2 + 1];
        let bytes = marks.map(|mark| {
            let lines = patients::lines(0..self.lines, mark).into_bytes();
            if self.gzip { gzip(&lines) } else { lines }
        });
        let path = format!("/{}/Patient.ndjson{}", self.number, if self.gzip { ".gz" } else { "" });
        let source = Source {
            fault: self.fault,
            times: self.times,
            bytes,
            tagged: self.tagged,
            random: Random::new(seed),
            requests: 0,
        };
        sources.lock().unwrap().insert(path.clone(), source);
        run(client, &format!("TRUNCATE s{at}.patient"));
        let (url, start) = (server.url(&path), Instant::now());
        let error = if self.import { self.import(client, &url) } else { self.load(client, &url) };
        let took = start.elapsed();
        sources.lock().unwrap().remove(&path);
        if took > WITHIN {
            return Err(format!("it took {took:?}"));
        }
        let found = value(
            client,
            &format!(
                "SELECT count(*), coalesce(sum((resource ->> 'multipleBirthInteger')::bigint), 0),
                        coalesce(string_agg(DISTINCT resource #>> '{{name,0,family}}', ','), '') FROM s{at}.patient"
            ),
        );
        let sum = |count: usize| count * count.saturating_sub(1) / 2;
        let expected = |count: usize, mark: u64| format!("{count}|{}|{mark}", sum(count));
        let is_whole = marks.iter().any(|mark| found == expected(self.lines, *mark));
        match error {
            None if is_whole && self.fault_is_right(&found, marks) => Ok(true),
            None => Err(format!("no error, and {found}")),
            // The checksum stands at the end, and what came before is stored already.
            Some(_) if self.import && !self.whole && self.fault == Fault::BrokenGzip => Ok(false),
            Some(error) if self.import && !self.whole => {
                // What is committed is a beginning of one version; a whole one may still lack its end.
                let count: usize = found.split('|').next().and_then(|count| count.parse().ok()).unwrap_or(0);
                let is_beginning = count == 0 || marks.iter().any(|mark| found == expected(count, *mark));
                if is_beginning { Ok(false) } else { Err(format!("{error}, and {found}")) }
            }
            Some(_) if found == "0|0|" => Ok(false),
            Some(error) => Err(format!("{error}, and {found} of what is all or nothing")),
        }
        .and_then(|whole| self.sound(place, client, at).map(|()| whole))
    }

    /// Without a second version there is the first one only.
    fn fault_is_right(&self, found: &str, marks: [u64; 2]) -> bool {
        matches!(self.fault, Fault::Changed | Fault::ChangedSilently) || found.ends_with(&format!("|{}", marks[0]))
    }

    fn load(&self, client: &mut Client, url: &str) -> Option<String> {
        let result = client.simple_query(&format!("SELECT bulk_load('{url}', 'Patient')"));
        result.err().map(|error| {
            error
                .as_db_error()
                .map_or_else(|| error.to_string(), |error| format!("{}: {}", error.code().code(), error.message()))
        })
    }

    fn import(&self, client: &mut Client, url: &str) -> Option<String> {
        let id = format!("import-{}", self.number);
        let mode = if self.whole { "transaction" } else { "bulk" };
        let request = json!({"id": id, "mode": mode, "allowedRetryCount": 0, "inputs": [{"resourceType": "Patient", "url": url}]});
        let sql = format!("SET fhir_bulk.import_commit_rows = {}; SELECT bulk_import('{request}')", self.commit_rows);
        value(client, &sql);
        let mut last = Value::Null;
        wait_for("an import to end", || {
            let text = value(client, &format!("SELECT bulk_import_status('{id}')"));
            last = serde_json::from_str(&text).expect("a status is JSON");
            last["status"] != "active"
        });
        (last["inputs"][0]["status"] != "finished").then(|| last["inputs"][0].to_string())
    }

    fn sound(&self, place: &Place, client: &mut Client, at: usize) -> Result<(), String> {
        if !self.number.is_multiple_of(20) {
            return Ok(());
        }
        let wrong = place.unsound(client, &[&format!("s{at}.patient")]);
        if !wrong.is_empty() {
            return Err(format!("amcheck: {wrong:?}"));
        }
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'fhir_bulk job worker' AND state = 'idle in transaction'";
        if rows(client, idle) == ["0"] { Ok(()) } else { Err("a worker is left in a transaction".into()) }
    }
}

/// Answers one request, as the source's fault has it.
fn answer(sources: &Sources, request: &Request, stream: &mut TcpStream) {
    let plan = {
        let mut sources = sources.lock().unwrap();
        let Some(source) = sources.get_mut(&request.path) else {
            let _ = stream.write_all(&fhir_bulk_tests::http::status("404 Not Found", ""));
            return;
        };
        source.requests += 1;
        let fault = if source.requests <= source.times { source.fault } else { Fault::None };
        let changed = matches!(source.fault, Fault::Changed | Fault::ChangedSilently) && source.requests > 1;
        let tag = match (source.tagged, changed && source.fault == Fault::Changed) {
            (false, _) => String::new(),
            (true, changed) => format!("ETag: \"{}\"\r\n", u8::from(changed)),
        };
        let range = if fault == Fault::WholeInsteadOfRange { None } else { range_of(request, &tag) };
        // Those that change have to be asked again for the rest.
        let fault = if matches!(
            source.fault,
            Fault::Changed | Fault::ChangedSilently | Fault::WrongRange | Fault::WholeInsteadOfRange
        ) && source.requests == 1
        {
            Fault::Cut
        } else {
            fault
        };
        let at = source.random.below(1 << 30);
        Answer {
            fault,
            bytes: source.bytes[usize::from(changed)].clone(),
            tag,
            range,
            random: at,
            path: request.path.clone(),
        }
    };
    plan.send(stream);
}

/// The first byte that is asked for, unless it depends on another version.
fn range_of(request: &Request, tag: &str) -> Option<usize> {
    let header = |name: &str| {
        let lines = request.head.lines();
        lines
            .filter_map(|line| line.split_once(": "))
            .find(|(of, _)| of.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    };
    if header("If-Range").is_some_and(|wanted| !tag.contains(wanted)) {
        return None;
    }
    header("Range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

struct Answer {
    fault: Fault,
    bytes: Vec<u8>,
    tag: String,
    range: Option<usize>,
    random: u64,
    path: String,
}

impl Answer {
    fn send(mut self, stream: &mut TcpStream) {
        let random = self.random as usize;
        let _ = stream.set_nodelay(true);
        match self.fault {
            Fault::Refused => {
                let line = ["503 Busy", "429 Too Many", "500 Broken", "404 Not Found"][random % 4];
                let _ = stream.write_all(&fhir_bulk_tests::http::status(line, "Retry-After: 0\r\n"));
                return;
            }
            Fault::Redirect => {
                let to = ["/nowhere", &self.path, "http://127.0.0.1:1/", "file:///etc/passwd", "//[", ""][random % 6];
                let _ = stream.write_all(&fhir_bulk_tests::http::status("302 Found", &format!("Location: {to}\r\n")));
                return;
            }
            Fault::Noise => {
                let noise: Vec<u8> = (0..random % 2000).map(|at| ((at * random) >> 7) as u8).collect();
                let _ = stream.write_all(&noise);
                return;
            }
            Fault::LongHead => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
                for _ in 0..random % 30_000 {
                    if stream.write_all(b"X-Filler: 0123456789012345678901234567890123456789\r\n").is_err() {
                        return;
                    }
                }
                return;
            }
            Fault::BrokenGzip => {
                let at = random % self.bytes.len();
                self.bytes[at] ^= 1 << ((random >> 20) & 7);
            }
            // Nothing at all would be an empty source, which is right: content tells gzip, not a name.
            Fault::ShortGzip => self.bytes.truncate(1 + random % (self.bytes.len() - 1)),
            _ => {}
        }
        let whole = self.bytes.len();
        let start = self.range.filter(|start| *start < whole);
        let (line, range) = match start {
            Some(start) => {
                let told = if self.fault == Fault::WrongRange { start / 2 } else { start };
                ("206 Partial Content", format!("Content-Range: bytes {told}-{}/{whole}\r\n", whole - 1))
            }
            None => ("200 OK", String::new()),
        };
        let sent = match (start, self.fault) {
            (Some(start), Fault::WrongRange) => start / 2,
            (start, _) => start.unwrap_or(0),
        };
        let body = &self.bytes[sent..];
        let length = body.len() + if self.fault == Fault::TooShort { 1 + random % 5000 } else { 0 };
        let framing = if self.fault == Fault::Unfinished {
            "Transfer-Encoding: chunked\r\n".to_owned()
        } else {
            format!("Content-Length: {length}\r\n")
        };
        let head = format!("HTTP/1.1 {line}\r\n{range}{}{framing}Connection: close\r\n\r\n", self.tag);
        let cut = random % (body.len() + 1);
        let _ = match self.fault {
            Fault::Cut => stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..cut])),
            Fault::Unfinished => stream.write_all(head.as_bytes()).and_then(|()| {
                body[..cut].chunks(1 + random % 9000).try_for_each(|chunk| {
                    stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
                    stream.write_all(chunk)?;
                    stream.write_all(b"\r\n")
                })
            }),
            Fault::Slow => stream.write_all(head.as_bytes()).and_then(|()| {
                body.chunks(body.len() / 50 + 1).try_for_each(|piece| {
                    thread::sleep(Duration::from_millis(random as u64 % 10));
                    stream.write_all(piece)
                })
            }),
            _ => stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)),
        };
    }
}
