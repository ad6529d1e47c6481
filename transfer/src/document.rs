//! Reads a small document whole: within a time, and up to a size.

use crate::error::TransferError;
use crate::failure::Failure;
use crate::request::{Client, Status, parse};
use fhir_bulk_thread::Thread;
use std::io::Read as _;
use std::time::Duration;
use ureq::http::header::CACHE_CONTROL;

/// A document, and what its server says about keeping it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The body.
    pub bytes: Vec<u8>,
    /// Its Cache-Control, if it has one.
    pub cache_control: Option<String>,
}

impl Document {
    /// Requests a URL once, and waits for the whole body, for at most `time` in all, name servers included. The calling
    /// thread is blocked meanwhile.
    ///
    /// # Errors
    /// Those of the policy and of the network; another status than 200; a body of more than `most_bytes`.
    pub fn fetch(url: &str, client: Client, most_bytes: u64, time: Duration) -> Result<Document, TransferError> {
        let gone = |why: &dyn std::fmt::Display| TransferError::Network(format!("the request was not made: {why}"));
        let (of_thread, url) = (client.clone(), url.to_owned());
        let thread = Thread::start("fhir_bulk document", 1, move |hand| {
            hand.over(read(&url, &of_thread, most_bytes).map_err(|failure| failure.error));
        });
        let answer = thread.map_err(|error| gone(&error))?.wait(time);
        client.shut_down();
        match answer {
            Ok(Some(result)) => result,
            Ok(None) => Err(TransferError::Network(format!("no whole answer within {time:?}"))),
            Err(_) => Err(gone(&"its thread ended")),
        }
    }
}

fn read(url: &str, client: &Client, most_bytes: u64) -> Result<Document, Failure> {
    let response = client.get(&parse(url)?, &[])?;
    if response.status() != Status::OK {
        return Err(Failure::of_status(response.status(), response.headers()));
    }
    let cache_control = response.headers().get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let cache_control = cache_control.map(str::to_owned).reduce(|all, more| all + "," + &more);
    let mut bytes = Vec::new();
    let mut body = response.into_body().into_reader().take(most_bytes + 1);
    body.read_to_end(&mut bytes)
        .map_err(|error| Failure::of_transport("the connection broke: ", &ureq::Error::Io(error)))?;
    if bytes.len() as u64 > most_bytes {
        return Err(TransferError::Network(format!("the body has more than {most_bytes} bytes")).into());
    }
    Ok(Document { bytes, cache_control })
}
