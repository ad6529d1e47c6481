//! The origin of a download, and the events that the download sends.

use crate::error::TransferError;
use crate::failure::Failure;
use crate::request::{Response, parse};
use crate::s3::{self, Object};
use std::borrow::Cow;
use url::Url;

/// The origin of a body.
#[derive(Clone, Debug)]
pub enum Origin {
    /// At a URL.
    Url(Url),
    /// In an S3 service.
    Object(Object),
}

impl Origin {
    /// An http or https URL.
    ///
    /// # Errors
    /// It is not such a URL, or it has a user or password.
    pub fn url(text: &str) -> Result<Origin, TransferError> {
        parse(text).map(Origin::Url)
    }

    /// The URL for a request now; an S3 URL is signed for it.
    pub(crate) fn request(&self) -> Cow<'_, Url> {
        match self {
            Origin::Url(url) => Cow::Borrowed(url),
            Origin::Object(object) => Cow::Owned(object.get()),
        }
    }

    /// The failure of a response that is not the body.
    pub(crate) fn failure(&self, response: Response) -> Failure {
        match self {
            Origin::Url(_) => Failure::of_status(response.status(), response.headers()),
            Origin::Object(_) => s3::failure(response),
        }
    }
}

/// An event of a download.
#[derive(Debug)]
pub enum Event {
    /// The length of the body. It comes before the bytes, if the server tells it.
    Length(u64),
    /// The next bytes of the body.
    Bytes(Vec<u8>),
    /// The body is complete.
    End,
    /// The download failed.
    Failed(TransferError),
}
