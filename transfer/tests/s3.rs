//! Objects written, read, listed and deleted in an S3 service that checks signatures, with and without faults.

use fhir_bulk_tests::s3::{Fault, KEY_ID, S3Server, SECRET_KEY};
use fhir_bulk_transfer::{
    Authorities, Call, Client, Download, Event, Folder, Keys, Limits, Object, ObjectName, Origin, Piece, Policy,
    Service, TransferError, Upload,
};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
const MB: usize = 1 << 20;

fn service(endpoint: &str) -> Service {
    let keys = Keys { id: KEY_ID.into(), secret: SECRET_KEY.into(), token: None };
    Service::new(endpoint, "us-east-1", true, keys).unwrap()
}

fn object(endpoint: &str, key: &str) -> Object {
    service(endpoint).object(ObjectName { bucket: "bucket", key }).unwrap()
}

fn folder(endpoint: &str) -> Folder {
    service(endpoint).folder(ObjectName { bucket: "bucket", key: "job" }).unwrap()
}

/// One that may ask the service of `object` and nobody else.
fn client(object: &Object, retries: u32) -> Client {
    let limits = Limits { connect: PATIENCE, idle: PATIENCE, redirects: 0, retries };
    Client::new(Policy::default().and_below(object.bucket_url()), limits, Authorities::default())
}

/// Bytes in which no two places look alike.
fn bytes(count: usize) -> Vec<u8> {
    (0..count.div_ceil(10)).flat_map(|n| format!("{n:09}\n").into_bytes()).take(count).collect()
}

fn poll<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(state) = state() {
            return state;
        }
        assert!(start.elapsed() < PATIENCE, "{what} does not come");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Gives pieces until they are taken or the upload is over.
fn give(upload: &mut Upload, piece: Piece) {
    let mut piece = Some(piece);
    poll("room", || {
        piece = upload.give(piece.take()?);
        piece.is_none().then_some(())
    });
}

fn start(folder: &Folder, name: &str, retries: u32) -> Upload {
    folder.upload(name, client(&folder.object(name), retries)).unwrap()
}

/// Gives as many bytes, but not the end of them.
fn give_bytes(upload: &mut Upload, content: &[u8]) {
    for piece in content.chunks(300_000) {
        give(upload, Piece::Bytes(piece.to_vec()));
    }
}

/// Writes a whole object `name` of a folder.
fn write(folder: &Folder, name: &str, content: &[u8], retries: u32) -> Result<(), TransferError> {
    let mut upload = start(folder, name, retries);
    give_bytes(&mut upload, content);
    give(&mut upload, Piece::End);
    poll("the end of the upload", || upload.take())
}

fn clear(folder: Folder) -> Result<(), TransferError> {
    let client = client(&folder.object(""), 0);
    answer(folder.clear(client).unwrap())
}

fn read(origin: Origin, client: Client) -> Result<Vec<u8>, TransferError> {
    let (download, mut body) = (Download::start(origin, client).unwrap(), Vec::new());
    poll("the end of the download", || match download.wait(Duration::ZERO)? {
        Event::Length(_) => None,
        Event::Bytes(piece) => {
            body.extend_from_slice(&piece);
            None
        }
        Event::End => Some(Ok(())),
        Event::Failed(error) => Some(Err(error)),
    })
    .map(|()| body)
}

fn answer<T: Send + 'static>(mut call: Call<T>) -> Result<T, TransferError> {
    poll("an answer", || call.take())
}

#[test]
fn what_is_written_is_what_is_read() {
    let server = S3Server::new();
    let folder = folder(&server.endpoint());
    for (name, size) in [("empty", 0), ("one", 1), ("a b/é+&=%.gz", 3 * MB), ("parts", 20 * MB), ("even", 16 * MB)] {
        let content = bytes(size);
        assert_eq!(write(&folder, name, &content, 0), Ok(()), "{name}");
        let key = format!("job/{name}");
        assert!(server.object("bucket", &key).unwrap() == content, "{name}");
        let object = object(&server.endpoint(), &key);
        let client = client(&object, 0);
        assert!(read(Origin::Object(object), client).unwrap() == content, "{name}");
    }
    assert_eq!(server.unfinished(), [""; 0]);
    assert_eq!(server.keys("bucket").len(), 5, "no notes: {:?}", server.keys("bucket"));
}

#[test]
fn an_object_that_is_not_finished_is_never_seen_and_leaves_nothing() {
    let server = S3Server::new();
    let folder = folder(&server.endpoint());
    for parts in [0, 2] {
        let mut upload = start(&folder, "dropped", 0);
        give_bytes(&mut upload, &bytes(parts * 8 * MB + MB));
        if parts > 0 {
            poll("parts", || server.unfinished().iter().any(|name| name.contains("part-2")).then_some(()));
        }
        assert_eq!(server.object("bucket", "job/dropped"), None);
        drop(upload);
        // Dropping waits for it.
        assert_eq!(server.unfinished(), [""; 0], "{parts}");
        assert_eq!(server.keys("bucket"), [""; 0], "{parts}");
    }
}

#[test]
fn dropping_an_upload_to_a_silent_service_takes_a_second_at_most() {
    let server = S3Server::new();
    let silent = server.behind(|_| Fault::Stall);
    let mut upload = start(&folder(&silent.endpoint()), "stalled", 5);
    give(&mut upload, Piece::End);
    poll("a connection", || (silent.connections() > 0).then_some(()));
    let start = Instant::now();
    drop(upload);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn what_passes_is_tried_again_and_what_does_not_leaves_nothing() {
    let content = bytes(20 * MB);
    for fault in [Fault::Busy, Fault::CutAnswer(10), Fault::CutRequest(100_000)] {
        let server = S3Server::new();
        // The first of: begin, note, part 1, part 2, part 3. Then it is completed and the note removed.
        for faulty in 0..5 {
            if matches!(fault, Fault::CutRequest(_)) && faulty < 2 {
                continue;
            }
            let proxy = server.behind(move |n| if n == faulty { fault } else { Fault::None });
            assert_eq!(write(&folder(&proxy.endpoint()), "again", &content, 1), Ok(()), "{fault:?} {faulty}");
            assert_eq!(proxy.connections(), 8, "{fault:?} {faulty}");
            assert!(server.object("bucket", "job/again").unwrap() == content, "{fault:?} {faulty}");
            assert_eq!(server.keys("bucket"), ["job/again"]);
        }
        // Begun, noted, one part stored, then the fault for as long as it is tried.
        let server = S3Server::new();
        let proxy = server.behind(move |n| if (3..5).contains(&n) { fault } else { Fault::None });
        let failed = write(&folder(&proxy.endpoint()), "failed", &content, 1).unwrap_err();
        assert_eq!(server.keys("bucket"), [""; 0], "{fault:?}");
        assert_eq!(server.unfinished(), [""; 0], "{fault:?}");
        assert!(!format!("{failed:?}").contains("X-Amz"), "{failed:?}");
    }
}

#[test]
fn an_object_whose_last_answer_is_lost_is_there_and_counts_as_written() {
    let server = S3Server::new();
    let content = bytes(20 * MB);
    // Completed at the sixth request; at the seventh the service knows of no such upload.
    let proxy = server.behind(move |n| if n == 5 { Fault::CutAnswer(10) } else { Fault::None });
    assert_eq!(write(&folder(&proxy.endpoint()), "lost", &content, 1), Ok(()));
    assert!(server.object("bucket", "job/lost").unwrap() == content);
    assert_eq!((server.keys("bucket"), server.unfinished()), (vec!["job/lost".to_owned()], Vec::new()));
    // Before there is an object, the same answer is a failure.
    let mut upload = start(&folder(&server.endpoint()), "aborted", 0);
    give_bytes(&mut upload, &bytes(9 * MB));
    poll("a part", || server.unfinished().iter().any(|name| name.contains("part-1")).then_some(()));
    assert_eq!(clear(folder(&server.endpoint())), Ok(()));
    give(&mut upload, Piece::End);
    assert!(poll("the end", || upload.take()).is_err());
    assert_eq!((server.keys("bucket"), server.unfinished()), (Vec::new(), Vec::new()));
}

#[test]
fn who_may_not_write_is_told_with_the_services_code() {
    let server = S3Server::new();
    let keys = Keys { id: KEY_ID.into(), secret: "wrong".into(), token: None };
    let service = Service::new(&server.endpoint(), "us-east-1", true, keys).unwrap();
    let folder = service.folder(ObjectName { bucket: "bucket", key: "job" }).unwrap();
    let expected = TransferError::Status { code: 403, reason: "Forbidden (SignatureDoesNotMatch)".into() };
    for size in [10, 9 * MB] {
        assert_eq!(write(&folder, "x", &bytes(size), 3), Err(expected.clone()));
    }
    assert_eq!(clear(folder), Err(expected));
}

#[test]
fn what_an_upload_that_died_left_goes_with_its_folder() {
    let server = S3Server::new();
    // Begun, noted and one part; the request that would give it up goes nowhere, as if the process had been killed.
    let proxy = server.behind(|n| if n < 3 { Fault::None } else { Fault::Stall });
    let mut upload = start(&folder(&proxy.endpoint()), "dead", 0);
    give_bytes(&mut upload, &bytes(9 * MB));
    poll("a part", || server.unfinished().iter().any(|name| name.contains("part-1")).then_some(()));
    drop(upload);
    assert!(!server.unfinished().is_empty());
    assert_eq!(server.keys("bucket").len(), 1, "the note");
    let folder = folder(&server.endpoint());
    assert_eq!(write(&folder, "whole", b"whole", 0), Ok(()));
    assert_eq!(clear(folder.clone()), Ok(()));
    assert_eq!(server.unfinished(), [""; 0]);
    assert_eq!(server.keys("bucket"), [""; 0]);
    // What is gone is gone.
    assert_eq!(clear(folder), Ok(()));
}

#[test]
fn an_upload_is_noted_before_it_has_a_part() {
    let server = S3Server::new();
    let proxy = server.behind(|n| if n == 1 { Fault::Stall } else { Fault::None });
    let mut upload = start(&folder(&proxy.endpoint()), "noted", 0);
    give_bytes(&mut upload, &bytes(9 * MB));
    poll("the note", || (proxy.connections() > 1).then_some(()));
    assert!(server.unfinished().iter().all(|name| !name.contains("part-")), "{:?}", server.unfinished());
    drop(upload);
    assert_eq!(server.unfinished(), [""; 0]);
}

#[test]
fn a_folder_is_cleared_without_its_neighbours_and_whatever_others_put_there() {
    let server = S3Server::new();
    let keep = ["jobs/a", "jobs/ba", "jobs/bb/x", "other"];
    for key in keep.iter().chain(&["jobs/b/1", "jobs/b/deep/a cé", "jobs/b/.parts/x", "jobs/b/.parts/y"]) {
        server.put("bucket", key, "no\n../upload");
    }
    let folder = |bucket, key| service(&server.endpoint()).folder(ObjectName { bucket, key }).unwrap();
    assert_eq!(clear(folder("bucket", "jobs/b")), Ok(()));
    assert_eq!(clear(folder("bucket", "jobs/c/")), Ok(()));
    assert_eq!(server.keys("bucket"), keep);
    assert!(clear(folder("missing", "jobs/b")).unwrap_err().is_of_s3("NoSuchBucket"));
    // More than one answer can list.
    for n in 0..1100 {
        server.put("bucket", &format!("many/{n}"), "");
    }
    assert_eq!(clear(folder("bucket", "many")), Ok(()));
    assert_eq!(server.keys("bucket"), keep);
}

#[test]
fn a_presigned_url_needs_no_key_and_ends() {
    let server = S3Server::new();
    server.put("bucket", "file", "content");
    let object = object(&server.endpoint(), "file");
    let get = |url: &str| read(Origin::url(url).unwrap(), client(&object, 0));
    let url = object.presigned_get(Duration::from_secs(3600));
    assert_eq!(get(&url).unwrap(), b"content");
    for wrong in [url.replace("/file?", "/other?"), url.replace("Expires=3600", "Expires=7200")] {
        assert!(matches!(get(&wrong), Err(TransferError::Status { code: 403, .. })), "{wrong}");
    }
    let short = object.presigned_get(Duration::from_secs(1));
    poll("the end of the URL", || matches!(get(&short), Err(TransferError::Status { code: 403, .. })).then_some(()));
}

#[test]
fn an_object_whose_download_breaks_goes_on_where_it_broke() {
    let (server, content) = (S3Server::new(), bytes(3 * MB));
    server.put("bucket", "file", &content);
    let proxy = server.behind(|n| if n < 2 { Fault::CutAnswer(MB) } else { Fault::None });
    let object = object(&proxy.endpoint(), "file");
    let client = client(&object, 2);
    assert!(read(Origin::Object(object), client).unwrap() == content);
    assert_eq!(proxy.connections(), 3);
}
