//! Objects written, read, listed and deleted in an S3 service that checks signatures, with and without faults.

use fhir_bulk_tests::s3::{Fault, KEY_ID, S3Server, SECRET_KEY};
use fhir_bulk_transfer::{
    Authorities, Call, Client, Download, Event, Keys, Limits, Object, ObjectName, Origin, Piece, Policy, Service,
    Stored, TransferError, Upload,
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

/// One that may ask the service of `object` and nobody else.
fn client(object: &Object, retries: u32) -> Client {
    let limits = Limits { connect: PATIENCE, idle: PATIENCE, redirects: 0, retries };
    Client::new(Policy::default().and_bucket_of(object), limits, Authorities::default())
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

/// Writes a whole object; its last word, and the id of its parts' upload.
fn write(object: Object, content: &[u8], retries: u32) -> (Stored, Option<String>) {
    let client = client(&object, retries);
    let mut upload = Upload::start(object, client).unwrap();
    for piece in content.chunks(300_000) {
        give(&mut upload, Piece::Bytes(piece.to_vec()));
    }
    give(&mut upload, Piece::End);
    last(&mut upload)
}

fn last(upload: &mut Upload) -> (Stored, Option<String>) {
    let mut parts = None;
    let last = poll("the end of the upload", || match upload.take()? {
        Stored::Parts(id) => {
            parts = Some(id);
            None
        }
        last => Some(last),
    });
    (last, parts)
}

fn read(origin: Origin, client: Client) -> Result<Vec<u8>, TransferError> {
    let (mut download, mut body) = (Download::start(origin, client).unwrap(), Vec::new());
    poll("the end of the download", || match download.take()? {
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
    for (key, size) in [("empty", 0), ("one", 1), ("a b/é+&=%.gz", 3 * MB), ("parts", 20 * MB), ("even", 16 * MB)] {
        let (object, content) = (object(&server.endpoint(), key), bytes(size));
        let (last, parts) = write(object.clone(), &content, 0);
        assert_eq!(last, Stored::Done, "{key}");
        assert_eq!(parts.is_some(), size >= 8 * MB, "{key}");
        assert!(server.object("bucket", key).unwrap() == content, "{key}");
        let client = client(&object, 0);
        assert!(read(Origin::Object(object), client).unwrap() == content, "{key}");
    }
    assert_eq!(server.unfinished(), [""; 0]);
}

#[test]
fn an_object_that_is_not_finished_is_never_seen_and_leaves_nothing() {
    let server = S3Server::new();
    for (name, parts) in [("before the first part", 0), ("after two parts", 2)] {
        let object = object(&server.endpoint(), "dropped");
        let client = client(&object, 0);
        let mut upload = Upload::start(object, client).unwrap();
        for piece in bytes(parts * 8 * MB + 1000).chunks(300_000) {
            give(&mut upload, Piece::Bytes(piece.to_vec()));
        }
        if parts > 0 {
            poll("parts", || matches!(upload.take(), Some(Stored::Parts(_))).then_some(()));
            assert!(!server.unfinished().is_empty());
        }
        assert_eq!(server.object("bucket", "dropped"), None);
        drop(upload);
        // Dropping waits for it.
        assert_eq!(server.unfinished(), [""; 0], "{name}");
        assert_eq!(server.object("bucket", "dropped"), None, "{name}");
    }
}

#[test]
fn dropping_an_upload_to_a_silent_service_takes_a_second_at_most() {
    let server = S3Server::new();
    let silent = server.behind(|_| Fault::Stall);
    let object = object(&silent.endpoint(), "stalled");
    let client = client(&object, 5);
    let mut upload = Upload::start(object, client).unwrap();
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
        // The first of: begin, part 1, part 2, part 3; completing is tried again only if it was not begun.
        for faulty in 0..4 {
            if matches!(fault, Fault::CutRequest(_)) && faulty == 0 {
                continue;
            }
            let proxy = server.behind(move |n| if n == faulty { fault } else { Fault::None });
            let (last, _) = write(object(&proxy.endpoint(), "again"), &content, 1);
            assert_eq!(last, Stored::Done, "{fault:?} {faulty}");
            assert_eq!(proxy.connections(), 6, "{fault:?} {faulty}");
            assert!(server.object("bucket", "again").unwrap() == content, "{fault:?} {faulty}");
        }
        // Begun, one part stored, then the fault for as long as it is tried.
        let server = S3Server::new();
        let proxy = server.behind(move |n| if (2..4).contains(&n) { fault } else { Fault::None });
        let (last, parts) = write(object(&proxy.endpoint(), "failed"), &content, 1);
        assert!(matches!(last, Stored::Failed(_)), "{fault:?}: {last:?}");
        assert!(parts.is_some());
        assert_eq!(server.object("bucket", "failed"), None, "{fault:?}");
        assert_eq!(server.unfinished(), [""; 0], "{fault:?}");
        assert!(!format!("{last:?}").contains("X-Amz"), "{last:?}");
    }
}

#[test]
fn who_may_not_write_is_told_with_the_services_code() {
    let server = S3Server::new();
    let keys = Keys { id: KEY_ID.into(), secret: "wrong".into(), token: None };
    let service = Service::new(&server.endpoint(), "us-east-1", true, keys).unwrap();
    for size in [10, 9 * MB] {
        let object = service.object(ObjectName { bucket: "bucket", key: "x" }).unwrap();
        let (last, _) = write(object, &bytes(size), 3);
        let expected = TransferError::Status { code: 403, reason: "Forbidden (SignatureDoesNotMatch)".into() };
        assert_eq!(last, Stored::Failed(expected));
    }
}

#[test]
fn parts_of_an_upload_that_died_are_given_up_by_their_id() {
    let server = S3Server::new();
    // The request that would give them up goes nowhere, as if the process had been killed.
    let proxy = server.behind(|n| if n < 2 { Fault::None } else { Fault::Stall });
    let dead = object(&proxy.endpoint(), "dead");
    let of_dead = client(&dead, 0);
    let mut upload = Upload::start(dead, of_dead).unwrap();
    for piece in bytes(9 * MB).chunks(300_000) {
        give(&mut upload, Piece::Bytes(piece.to_vec()));
    }
    let id = poll("parts", || match upload.take()? {
        Stored::Parts(id) => Some(id),
        other => panic!("{other:?}"),
    });
    drop(upload);
    assert!(!server.unfinished().is_empty());
    let object = object(&server.endpoint(), "dead");
    let client = client(&object, 0);
    answer(object.give_up(id, client).unwrap()).unwrap();
    assert_eq!(server.unfinished(), [""; 0]);
}

#[test]
fn objects_are_listed_by_prefix_and_deleted() {
    let server = S3Server::new();
    for key in ["jobs/1/b", "jobs/1/a c", "jobs/2/a", "other"] {
        server.put("bucket", key, key);
    }
    let object = object(&server.endpoint(), "jobs/1/a c");
    let list = |prefix: &str| {
        let call = service(&server.endpoint()).list("bucket".into(), prefix.into(), client(&object, 0));
        answer(call.unwrap()).unwrap()
    };
    assert_eq!(list("jobs/1/"), ["jobs/1/a c", "jobs/1/b"]);
    answer(object.clone().delete(client(&object, 0)).unwrap()).unwrap();
    assert_eq!(list("jobs/1/"), ["jobs/1/b"]);
    // What is gone is gone.
    answer(object.clone().delete(client(&object, 0)).unwrap()).unwrap();
    assert_eq!(list("nothing/"), [""; 0]);
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
