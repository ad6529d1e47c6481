//! Sends requests to an S3 service on a thread, and retries them after temporary failures.

use crate::error::TransferError;
use crate::failure::Failure;
use crate::request::{Client, Response, Status};
use crate::s3;
use fhir_bulk_thread::{Hand, Thread};
use std::io;
use std::os::fd::BorrowedFd;
use ureq::http::Method;
use ureq::http::header::{CONTENT_LENGTH, HeaderMap};
use url::Url;

/// Running requests. Drop ends them, their connection and their thread.
pub struct Call<T> {
    thread: Thread<Result<T, TransferError>>,
    client: Client,
}

impl<T: Send + 'static> Call<T> {
    pub(crate) fn start(
        client: Client,
        work: impl FnOnce(&Asker<'_, Result<T, TransferError>>) -> Result<T, Stop> + Send + 'static,
    ) -> io::Result<Self> {
        let of_thread = client.clone();
        let thread = Thread::start("fhir_bulk call", 1, move |hand: Hand<_>| {
            match work(&Asker { client: of_thread, hand: &hand }) {
                Ok(answer) => hand.over(Ok(answer)),
                Err(Stop::Unwanted) => false,
                Err(Stop::Failed(error)) => hand.over(Err(error)),
            };
        })?;
        Ok(Call { thread, client })
    }

    /// Becomes readable when there may be an answer.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.thread.wake_fd()
    }

    /// The answer, without waiting.
    pub fn take(&mut self) -> Option<Result<T, TransferError>> {
        let gone = || Err(TransferError::Network("the request's thread ended unexpectedly".into()));
        self.thread.take().unwrap_or_else(|_| Some(gone()))
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        self.client.shut_down();
    }
}

/// The reason why there is no answer.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The caller has dropped the call.
    Unwanted,
    Failed(TransferError),
}

impl From<TransferError> for Stop {
    fn from(error: TransferError) -> Stop {
        Stop::Failed(error)
    }
}

/// Sends requests to a service, from a thread.
pub(crate) struct Asker<'a, E> {
    pub client: Client,
    pub hand: &'a Hand<E>,
}

/// The answer of a service.
pub(crate) struct Answer {
    pub headers: HeaderMap,
    pub document: String,
}

impl<E: Send + 'static> Asker<'_, E> {
    /// Sends a body. `url` signs each attempt.
    pub fn send(&self, method: Method, url: impl Fn() -> Url, body: &[u8]) -> Result<Answer, Stop> {
        self.tried(|| answer(self.client.send(method.clone(), &url(), &[], Some(body))?))
    }

    /// Reads a document.
    pub fn get(&self, url: impl Fn() -> Url) -> Result<String, Stop> {
        self.tried(|| answer(self.client.send(Method::GET, &url(), &[], None)?)).map(|answer| answer.document)
    }

    /// Requests the length of an object.
    pub fn length(&self, url: impl Fn() -> Url) -> Result<Option<u64>, Stop> {
        let answer = self.tried(|| answer(self.client.send(Method::HEAD, &url(), &[], None)?))?;
        Ok(answer.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()))
    }

    /// Deletes something at the service. It is not an error if it does not exist.
    pub fn delete(&self, url: impl Fn() -> Url) -> Result<(), Stop> {
        self.tried(|| {
            let response = self.client.send(Method::DELETE, &url(), &[], None)?;
            match response.status() {
                Status::OK | Status::NO_CONTENT | Status::NOT_FOUND => Ok(()),
                _ => Err(s3::failure(response)),
            }
        })
    }

    fn tried<T>(&self, attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Stop> {
        self.client.again(|time| self.hand.wait(time), attempt)?.ok_or(Stop::Unwanted)
    }
}

fn answer(response: Response) -> Result<Answer, Failure> {
    if response.status() != Status::OK {
        return Err(s3::failure(response));
    }
    let (parts, mut body) = response.into_parts();
    let document = body.read_to_string().map_err(|error| Failure::of_transport("the connection broke: ", &error))?;
    Ok(Answer { headers: parts.headers, document })
}
