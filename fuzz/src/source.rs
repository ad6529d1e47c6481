//! Where sources are: lists of what is allowed, URLs, names of objects, headers, and the pages of an S3 service.

use fhir_bulk_transfer::{Headers, Keys, ObjectName, Origin, Page, Policy, Service, check_name, join};

/// Checks three lines: a list of what is allowed, a URL, and a URL or header relative to it; what follows them is a page of S3.
pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (allowed, url, other, page) = (line(), line(), line(), line());
    policy(allowed, url, other);
    object(url);
    if let Some((name, value)) = other.split_once(": ")
        && Headers::new([(name, value)]).is_ok()
    {
        assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\t'), "{value:?} is sent");
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'), "{name:?} is sent");
    }
    if let Ok(read) = Page::read(page, "p/", Some("from")) {
        assert!(read.next.as_deref() != Some("from"));
        assert!(read.objects.iter().all(|object| object.key.starts_with("p/")), "{page}");
    }
}

fn policy(allowed: &str, url: &str, other: &str) {
    let Ok(policy) = Policy::parse(allowed) else { return };
    let is_allowed = check_name(url, &policy).is_ok();
    // A narrower policy allows no more.
    if let Ok(narrower) = policy.clone().within(&[other.to_owned()]) {
        assert!(is_allowed || check_name(url, &narrower).is_err(), "{url} is allowed within {other} only");
    }
    assert!(!is_allowed || Origin::url(url).is_ok(), "{url} is allowed, but no origin");
    let Ok(joined) = join(url, other) else { return };
    assert!(joined.starts_with("http://") || joined.starts_with("https://"), "{joined}");
    // What was joined once stays where it is.
    assert_eq!(join(url, &joined).as_deref(), Ok(joined.as_str()));
    assert_eq!(check_name(&joined, &policy), check_name(&join(&joined, "").expect("a URL"), &policy));
}

/// The request for an object reaches this object.
fn object(url: &str) {
    let Ok(name) = ObjectName::parse(url) else {
        return;
    };
    assert_eq!(format!("s3://{}/{}", name.bucket, name.key), url);
    let keys = Keys { id: "ID".into(), secret: "SECRET".into(), token: None };
    let service = Service::new("http://127.0.0.1:1/base", "r", true, keys).expect("a service");
    let Ok(object) = service.object(name) else { return };
    let signed = object.presigned_get(std::time::Duration::from_secs(60));
    let path = signed.split_once('?').map_or(signed.as_str(), |(path, _)| path);
    let sent = path.strip_prefix("http://127.0.0.1:1/base/").unwrap_or_else(|| panic!("{path} is elsewhere"));
    let (bucket, key) = sent.split_once('/').unwrap_or_else(|| panic!("{path} has no key"));
    assert_eq!((bucket, decoded(key)), (name.bucket, name.key.as_bytes().to_vec()), "{signed}");
}

/// Without percent encoding.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16)).expect("a digit");
        out.push(if byte == b'%' { (digit() * 16 + digit()) as u8 } else { byte });
    }
    out
}
