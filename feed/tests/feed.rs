//! A feed as a backend uses it: blocks in, chunks out, dropped at any time.

use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::ndjson::ReadError;
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_feed::{Blocks, Change, Event, Failure, Feed, Item, Plan, Position, Refusal, Source};
use std::collections::VecDeque;
use std::io::{self, Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn plan() -> Plan {
    Plan {
        encoder: Encoder::new(IdRule::Aidbox, "ex:createdAt"),
        resource_type: None,
        is_type: |name| !name.contains(' '),
        merge: String::new(),
        strip_nulls: false,
        skip: false,
        max_line_bytes: 1 << 20,
        share: None,
        start: Position::default(),
    }
}

fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|n| format!("{{\"id\":\"{n}\",\"resourceType\":\"T{}\",\"n\":{n}}}\n", n % 3)).collect()
}

fn event(feed: &mut Feed) -> Event {
    let start = Instant::now();
    loop {
        if let Some(event) = feed.take() {
            return event;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "the feed says nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Every line as `position: type/id` or its refusal, and how it ends.
fn all(feed: &mut Feed) -> (Vec<String>, Event) {
    let mut found = Vec::new();
    loop {
        let chunk = match event(feed) {
            Event::Lines(chunk) => chunk,
            last => return (found, last),
        };
        for at in 0.. {
            let Some((position, item)) = chunk.get(at) else { break };
            found.push(match item {
                Item::Row(row) => format!("{}:{} {}/{}", position.lines, position.bytes, row.resource_type, row.id),
                Item::Refused(refused) => format!(
                    "{}:{} {:?} from {} {}",
                    position.lines,
                    position.bytes,
                    refused.why,
                    refused.offset,
                    String::from_utf8_lossy(&refused.line[..refused.line.len().min(20)])
                ),
            });
        }
    }
}

fn checksum(text: &str) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(text.as_bytes());
    crc.sum()
}

fn read(plan: Plan, bytes: impl Into<Vec<u8>>) -> (Vec<String>, Event) {
    all(&mut Feed::start(plan, Source::Reader(Box::new(io::Cursor::new(bytes.into())))).unwrap())
}

#[test]
fn every_line_comes_in_order_and_a_feed_that_starts_at_any_of_them_goes_on_the_same() {
    let text = format!("\n{}\r\n\n{}", lines(0..20_000), lines(20_000..20_003).trim_end());
    let (whole, last) = read(plan(), text.clone());
    assert_eq!(whole.len(), 20_003);
    assert_eq!(whole[0], "2:45 T0/0".replace("45", &(1 + lines(0..1).len()).to_string()));
    assert!(matches!(last, Event::End(end) if end.bytes == text.len() as u64 && end.lines == 20_006), "{last:?}");
    for at in [0, 1, 7_000, 19_999, 20_001, 20_002] {
        let (place, _) = whole[at].split_once(' ').unwrap();
        let (lines, bytes) = place.split_once(':').unwrap();
        let (lines, bytes) = (lines.parse().unwrap(), bytes.parse().unwrap());
        let start = Position { lines, bytes, checksum: checksum(&text[..bytes as usize]) };
        let (rest, last) = read(Plan { start, ..plan() }, text.clone());
        assert_eq!(rest, whole[at + 1..], "from {start:?}");
        assert!(matches!(last, Event::End(end) if end.bytes == text.len() as u64), "{last:?}");
    }
}

#[test]
fn a_source_that_has_changed_before_the_start_gives_nothing() {
    let text = lines(0..20_000);
    let start = Position { lines: 10_000, bytes: lines(0..10_000).len() as u64, checksum: checksum(&lines(0..10_000)) };
    let of = |text: &str| read(Plan { start, ..plan() }, text);
    assert_eq!(of(&text).0.len(), 10_000);
    let shorter = of(&lines(0..9999));
    assert!(matches!(shorter, (found, Event::Failed(Failure::Changed(Change::Shorter))) if found.is_empty()));
    let other = of(&text.replacen("T1", "T9", 1));
    assert!(matches!(other, (found, Event::Failed(Failure::Changed(Change::Other))) if found.is_empty()));
    // What is behind it may.
    assert_eq!(of(&(text + &lines(0..1))).0.len(), 10_001);
}

#[test]
fn a_bad_line_is_the_last_one_unless_it_may_be_passed_over() {
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(2 << 20));
    let text = format!("{}{{\n{}{long}\n[]\n{{\"id\":\"y\",\"resourceType\":\"a b\"}}\n", lines(0..1), lines(1..2));
    let (found, last) = read(plan(), text.clone());
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].contains("Bad("), "{found:?}");
    assert!(matches!(last, Event::End(_)), "{last:?}");
    let (found, _) = read(Plan { skip: true, ..plan() }, text.clone());
    let kinds = ["T0/0", "Bad(", "T1/1", "TooLong(1048576)", "NotAnObject", "InvalidType(\"a b\")"];
    assert_eq!(found.len(), kinds.len(), "{found:?}");
    for (line, kind) in found.iter().zip(kinds) {
        assert!(line.contains(kind), "{line}: {kind}");
    }
    assert!(found[3].starts_with(&format!("4:{} ", text.find("[]").unwrap())), "{found:?}");
    let (found, _) = read(Plan { resource_type: Some("T0".into()), ..plan() }, lines(0..2));
    assert!(found[1].contains(&format!("{:?}", Refusal::ForeignType("T1".into()))), "{found:?}");
}

#[test]
fn a_source_that_breaks_says_in_which_line_after_what_came_before() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(lines(0..1000).as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    assert_eq!(read(plan(), packed.clone()).0.len(), 1000);
    let (found, last) = read(plan(), &packed[..packed.len() - 20]);
    assert!(!found.is_empty());
    let line = found.len() as u64 + 1;
    assert!(
        matches!(&last, Event::Failed(Failure::Source { error: ReadError::Io(_), line: at }) if *at == line),
        "{last:?} after {line} lines"
    );
    // A feed whose blocks are given.
    let mut feed = Feed::start(plan(), Source::Given).unwrap();
    feed.give(Ok(lines(0..10).into_bytes()));
    assert!(feed.has_room());
    feed.give(Err(io::Error::other("broken")));
    assert!(!feed.has_room());
    let (found, last) = all(&mut feed);
    assert_eq!(found.len(), 10);
    assert!(matches!(&last, Event::Failed(Failure::Source { line: 11, .. })), "{last:?}");
}

#[test]
fn what_a_slow_source_has_given_is_not_kept_back_until_there_is_more() {
    let mut feed = Feed::start(plan(), Source::Given).unwrap();
    for round in 0..3 {
        assert!(feed.has_room());
        feed.give(Ok((lines(round..round + 1) + "{\"id\":").into_bytes()));
        let Event::Lines(chunk) = event(&mut feed) else { panic!("no lines") };
        assert!(chunk.get(0).is_some() && chunk.get(1).is_none());
        feed.give(Ok(b"\"half\",\"resourceType\":\"T0\"}\n".to_vec()));
        let Event::Lines(chunk) = event(&mut feed) else { panic!("no lines") };
        assert!(chunk.get(0).is_some() && chunk.get(1).is_none());
    }
    feed.give(Ok(Vec::new()));
    assert!(matches!(event(&mut feed), Event::End(Position { lines: 6, .. })));
}

/// A block, once it is waited for, and then the end.
struct Late(VecDeque<Vec<u8>>);

impl Blocks for Late {
    fn next(&mut self, wait: Duration) -> Option<io::Result<Vec<u8>>> {
        (!wait.is_zero()).then(|| Ok(self.0.pop_front().unwrap_or_default()))
    }
}

#[test]
fn the_thread_reads_the_rest_after_the_blocks_that_were_given() {
    let mut feed = Feed::start(plan(), Source::Given).unwrap();
    let text = lines(0..1000).into_bytes();
    let (given, rest) = text.split_at(text.len() / 3);
    for piece in given.chunks(given.len() / 7) {
        assert!(feed.has_room());
        feed.give(Ok(piece.to_vec()));
    }
    feed.give_rest(Box::new(Late(rest.chunks(rest.len() / 5).map(<[u8]>::to_vec).collect())));
    assert!(!feed.has_room(), "nothing may be given after the rest");
    let (found, last) = all(&mut feed);
    assert_eq!(found, read(plan(), text.clone()).0);
    assert!(matches!(last, Event::End(Position { lines: 1000, .. })), "{last:?}");
}

/// Lines without end, counted.
struct Endless(Arc<AtomicU64>, String);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.1.len());
        buffer[..count].copy_from_slice(&self.1.as_bytes()[..count]);
        self.0.fetch_add(count as u64, Ordering::Relaxed);
        // A line is never cut: the text is shorter than any buffer that is asked to be filled.
        Ok(count)
    }
}

#[test]
fn a_source_is_read_no_further_ahead_than_a_few_chunks_and_not_at_all_once_it_is_dropped() {
    for text in [lines(0..100), "\n".repeat(1000)] {
        let read = Arc::new(AtomicU64::new(0));
        let feed = Feed::start(plan(), Source::Reader(Box::new(Endless(read.clone(), text.clone())))).unwrap();
        if text.starts_with('{') {
            // No chunk is taken: the thread stops by itself.
            let mut before = 0;
            loop {
                std::thread::sleep(Duration::from_millis(200));
                let now = read.load(Ordering::Relaxed);
                if now == before && now > 0 {
                    break;
                }
                before = now;
            }
            assert!(before < 16 << 20, "{before} bytes");
        }
        drop(feed);
        let after = read.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(read.load(Ordering::Relaxed), after);
    }
}

/// Ends the thread by a panic.
struct Defect;

impl Read for Defect {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("a defect, on purpose")
    }
}

#[test]
fn a_thread_that_is_gone_is_told_and_not_waited_for() {
    let mut feed = Feed::start(plan(), Source::Reader(Box::new(Defect))).unwrap();
    assert!(matches!(event(&mut feed), Event::Failed(Failure::Lost)));
}

/// Where it has no core of its own, the thread makes a chunk when one is asked for and no others.
#[test]
fn a_feed_that_is_held_back_makes_what_is_asked_for() {
    let text = lines(0..100_000);
    let read = Arc::new(AtomicU64::new(0));
    let mut feed =
        Feed::start(plan(), Source::Reader(Box::new(Counted(io::Cursor::new(text.clone()), read.clone())))).unwrap();
    feed.pace().run_ahead(false);
    let Event::Lines(_) = event(&mut feed) else { panic!("no lines") };
    // What it made before it was held back has room in the channel, or is one chunk more.
    let taken = |read: &AtomicU64| read.load(Ordering::Relaxed);
    let settled = |read: &AtomicU64| {
        let mut last = taken(read);
        loop {
            std::thread::sleep(Duration::from_millis(50));
            if taken(read) == last {
                return last;
            }
            last = taken(read);
        }
    };
    let first = settled(&read);
    assert!(first < text.len() as u64 / 2, "{first} of {} bytes are read", text.len());
    feed.pace().run_ahead(true);
    // As far as there is room, of which there is some now.
    let Event::Lines(_) = event(&mut feed) else { panic!("no lines") };
    let start = Instant::now();
    while taken(&read) == first {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not run ahead");
        std::thread::sleep(Duration::from_millis(1));
    }
    let (rest, last) = all(&mut feed);
    assert!(matches!(last, Event::End(position) if position.lines == 100_000), "{last:?}");
    assert!(rest.len() < 100_000);
    // One that is held back ends with its feed: dropping it gives up on a thread that does not, and leaves it the source.
    let held_back = Arc::new(AtomicU64::new(0));
    let mut feed =
        Feed::start(plan(), Source::Reader(Box::new(Counted(io::Cursor::new(text), held_back.clone())))).unwrap();
    feed.pace().run_ahead(false);
    event(&mut feed);
    drop(feed);
    assert_eq!(Arc::strong_count(&held_back), 1);
}

struct Counted<R>(R, Arc<AtomicU64>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Gives one block, and then nothing any more.
struct Stalled(Option<Vec<u8>>, Arc<AtomicU64>);

impl Blocks for Stalled {
    fn next(&mut self, wait: Duration) -> Option<io::Result<Vec<u8>>> {
        let block = self.0.take();
        if block.is_none() {
            std::thread::sleep(wait);
        }
        block.map(Ok)
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn of_a_source_that_stalls_all_that_has_come_is_there_and_nobody_waits_for_more_in_vain() {
    let gone = Arc::new(AtomicU64::new(0));
    let source = Stalled(Some(lines(0..10).into_bytes()), gone.clone());
    let mut feed = Feed::start(plan(), Source::Blocks(Box::new(source))).unwrap();
    let Event::Lines(chunk) = event(&mut feed) else { panic!("no lines") };
    assert!(chunk.get(9).is_some() && chunk.get(10).is_none());
    drop(feed);
    let start = Instant::now();
    while gone.load(Ordering::Relaxed) == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "the thread still waits");
        std::thread::sleep(Duration::from_millis(1));
    }
}
