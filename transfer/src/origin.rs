//! Where a body is, and what comes of it.

use crate::error::TransferError;
use crate::failure::Failure;
use crate::request::{Response, parse};
use crate::s3::{self, Object};
use std::borrow::Cow;
use url::Url;

/// Where a body is.
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
    /// What is none, or has a user or password.
    pub fn url(text: &str) -> Result<Origin, TransferError> {
        parse(text).map(Origin::Url)
    }

    /// What to ask for now.
    pub(crate) fn request(&self) -> Cow<'_, Url> {
        match self {
            Origin::Url(url) => Cow::Borrowed(url),
            Origin::Object(object) => Cow::Owned(object.get()),
        }
    }

    /// What an answer that is not the body means.
    pub(crate) fn failure(&self, response: Response) -> Failure {
        match self {
            Origin::Url(_) => Failure::of_status(response.status(), response.headers()),
            Origin::Object(_) => s3::failure(response),
        }
    }
}

/// What a download has to hand over.
#[derive(Debug)]
pub enum Event {
    /// How many bytes the body has; comes before them, if the server says so.
    Length(u64),
    /// The next bytes of the body.
    Bytes(Vec<u8>),
    /// The body is whole.
    End,
    /// There is no more of it.
    Failed(TransferError),
}
