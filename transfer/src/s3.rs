//! Objects of an S3 service, and signed URLs for requests to them.

use crate::error::TransferError;
use crate::failure::Failure;
use crate::object_name::ObjectName;
use crate::request::{Response, parse};
use rusty_s3::actions::{GetObject, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use std::fmt;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// How long a signed request is valid. Each attempt is signed again.
pub(crate) const SIGNED_FOR: Duration = Duration::from_secs(900);
/// How many bytes of an error document are read to find its code.
const ERROR_BYTES: u64 = 64 << 10;

/// A service, and the access key for it.
#[derive(Clone)]
pub struct Service {
    endpoint: Url,
    region: String,
    style: UrlStyle,
    credentials: Arc<Credentials>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({}, {})", self.endpoint, self.region)
    }
}

/// An access key. It is never shown.
#[derive(Clone)]
pub struct Keys {
    /// The access key's id.
    pub id: String,
    /// The secret access key.
    pub secret: String,
    /// The session token of temporary keys.
    pub token: Option<String>,
}

impl Service {
    /// The service at `endpoint`, an http or https URL. Its buckets are paths below it (`path_style`), or the first part of
    /// the host name.
    ///
    /// # Errors
    /// The endpoint is not such a URL.
    pub fn new(endpoint: &str, region: &str, path_style: bool, keys: Keys) -> Result<Service, TransferError> {
        let credentials = match keys.token {
            Some(token) => Credentials::new_with_token(keys.id, keys.secret, token),
            None => Credentials::new(keys.id, keys.secret),
        };
        Ok(Service {
            endpoint: parse(endpoint)?,
            region: region.to_owned(),
            style: if path_style { UrlStyle::Path } else { UrlStyle::VirtualHost },
            credentials: Arc::new(credentials),
        })
    }

    /// An object of the service.
    ///
    /// # Errors
    /// The bucket must be part of the host name, but cannot.
    pub fn object(&self, name: ObjectName<'_>) -> Result<Object, TransferError> {
        Ok(Object {
            bucket: Bucket::new(self.endpoint.clone(), self.style, name.bucket.to_owned(), self.region.clone())
                .map_err(|error| TransferError::BadUrl(format!("bucket \"{}\": {error}", name.bucket)))?,
            credentials: self.credentials.clone(),
            key: name.key.to_owned(),
        })
    }
}

/// An object that can be requested.
#[derive(Clone)]
pub struct Object {
    pub(crate) bucket: Bucket,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) key: String,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({}, {})", self.bucket.base_url(), self.key)
    }
}

impl Object {
    /// A URL that reads the object without other credentials. It is valid for the time `valid`, at most seven days.
    pub fn presigned_get(&self, valid: Duration) -> String {
        GetObject::new(&self.bucket, Some(&self.credentials), &self.key).sign(valid).into()
    }

    /// The URL of its bucket.
    pub fn bucket_url(&self) -> &Url {
        self.bucket.base_url()
    }

    pub(crate) fn get(&self) -> Url {
        GetObject::new(&self.bucket, Some(&self.credentials), &self.key).sign(SIGNED_FOR)
    }
}

/// The failure of a service's answer, with the code from S3's error document: 403 may be a wrong key, a wrong signature or a
/// wrong clock.
pub(crate) fn failure(response: Response) -> Failure {
    let (parts, body) = response.into_parts();
    let mut document = String::new();
    let read = body.into_reader().take(ERROR_BYTES).read_to_string(&mut document);
    let mut failure = Failure::of_status(parts.status, &parts.headers);
    if let (Ok(_), Some(code), TransferError::Status { reason, .. }) = (read, code(&document), &mut failure.error) {
        reason.push_str(&format!(" ({code})"));
    }
    failure
}

pub(crate) fn code(document: &str) -> Option<&str> {
    let (_, rest) = document.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    (code.len() < 100 && !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(endpoint: &str, path_style: bool) -> Service {
        let keys = Keys { id: "ID".into(), secret: "SECRET".into(), token: Some("TOKEN".into()) };
        Service::new(endpoint, "us-east-1", path_style, keys).unwrap()
    }

    #[test]
    fn a_key_never_leads_to_another_object_than_it_names() {
        for url in [
            "s3://bucket/../other/secret",
            "s3://bucket/a/../../other/secret",
            "s3://bucket/./a",
            "s3://bucket/..",
            "s3://bucket/a\n",
            "s3://../other/secret",
            "s3://./secret",
            "s3://bucket",
            "s3://bucket/",
            "s3:///key",
            "s3://buc ket/key",
            "s3://bucket@host/key",
            "s3://bucket:80/key",
            "S3://bucket/key",
        ] {
            assert!(matches!(ObjectName::parse(url), Err(TransferError::BadUrl(_))), "{url}");
        }
        for (url, path) in [
            ("s3://bucket/a/b.gz", "/bucket/a/b.gz"),
            ("s3://bucket//etc/x", "/bucket//etc/x"),
            ("s3://bucket/a%2Fb", "/bucket/a%252Fb"),
            ("s3://bucket/%2e%2e/b", "/bucket/%252e%252e/b"),
            ("s3://bucket/a\\..\\b", "/bucket/a%5C..%5Cb"),
            ("s3://bucket/a?b#c d", "/bucket/a%3Fb%23c%20d"),
            ("s3://bucket/..a/b..", "/bucket/..a/b.."),
        ] {
            let object = service("http://h", true).object(ObjectName::parse(url).unwrap()).unwrap();
            assert_eq!(object.get().path(), path, "{url}");
        }
    }

    #[test]
    fn a_bucket_is_a_path_or_a_host_as_told() {
        let name = ObjectName::parse("s3://bucket/k").unwrap();
        let host = |path_style| service("https://s3.example.org/base", path_style).object(name).unwrap().get();
        assert_eq!((host(true).host_str(), host(true).path()), (Some("s3.example.org"), "/base/bucket/k"));
        assert_eq!((host(false).host_str(), host(false).path()), (Some("bucket.s3.example.org"), "/base/k"));
        let odd = ObjectName::parse("s3://Buc_ket/k").unwrap();
        assert!(service("https://s3.example.org", false).object(odd).is_err());
    }

    #[test]
    fn secrets_do_not_show() {
        let object = service("http://h", true).object(ObjectName::parse("s3://bucket/key").unwrap()).unwrap();
        let shown = format!("{object:?} {:?}", service("http://h", true));
        for secret in ["SECRET", "TOKEN", "\"ID\""] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(!object.presigned_get(SIGNED_FOR).contains("SECRET"));
        assert!(object.presigned_get(Duration::from_secs(3600)).contains("X-Amz-Expires=3600"));
    }

    #[test]
    fn the_code_of_an_error_is_a_word_or_none() {
        assert_eq!(code("<Error><Code>NoSuchKey</Code><Message>m</Message></Error>"), Some("NoSuchKey"));
        for document in ["", "<Code>", "<Code></Code>", "<Code>a b</Code>", "<Code>\n</Code>", "</Code><Code>x"] {
            assert_eq!(code(document), None, "{document}");
        }
    }
}
