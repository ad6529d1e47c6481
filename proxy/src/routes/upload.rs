//! Sends the body of a `$load` request to the database, as the data of a COPY.

use axum::body::Body;
use axum::http::{StatusCode, header};
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::database::session::Copy;
use crate::error::{Problem, Result};
use crate::request::call::Call;
use crate::request::parameters::Parameters;
use crate::request::parse;

/// Small pieces of a body are sent together, in up to so many bytes: less than the 128 kB from which malloc maps each anew.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces of at least this size are sent as they are.
const LARGE_BYTES: usize = PIECE_BYTES / 2;

/// The options of the COPY for a body. The result only contains fixed words and checked values.
///
/// # Errors
/// 400 for a bad value of an option, or a name that is not a type.
pub fn options(resource_type: Option<&str>, fhir: bool, parameters: &mut Parameters) -> Result<String> {
    let mut options = vec![format!("FORMAT {}", if fhir { "fhir" } else { "aidbox" })];
    if let Some(name) = resource_type {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Problem::bad_request(format!("{name:?} is not a resource type")));
        }
        options.push(format!("RESOURCE_TYPE '{name}'"));
    }
    for (name, option) in [("update", "UPDATE_HISTORY"), ("strip-nulls", "STRIP_NULLS")] {
        if parameters.flag(name)? {
            options.push(option.to_owned());
        }
    }
    match parameters.text("on_error").as_deref() {
        None => {}
        Some(word @ ("abort" | "skip")) => options.push(format!("ON_ERROR {word}")),
        Some(_) => return Err(Problem::bad_request("the parameter on_error is not abort or skip")),
    }
    if let Some(number) = parameters.text("max_errors") {
        let number: u64 =
            number.parse().map_err(|_| Problem::bad_request("the parameter max_errors is not a number"))?;
        options.push(format!("MAX_ERRORS {number}"));
    }
    Ok(options.join(", "))
}

/// Checks a body before it is read: its encoding, and its length if the request has one.
///
/// # Errors
/// 413 for a body that is too large; 415 for an encoding other than gzip.
pub fn check(call: &Call) -> Result<()> {
    let coding = parse::coding(&call.headers);
    if let Some(encoding) = coding.filter(|name| !["gzip", "x-gzip"].contains(&name.as_str())) {
        let why = format!("the Content-Encoding {encoding:?} is not known here; gzip is");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let most = call.app.config.max_upload;
    let announced = call.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > most) {
        return Err(too_large(most));
    }
    Ok(())
}

fn too_large(most: u64) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {most} bytes"))
}

/// Sends a body. Compressed bytes stay compressed: the load recognises gzip by its first bytes.
///
/// # Errors
/// 400 for a body that breaks off; 408 for one that stalls; 413 for one that is too large; those of the load.
pub async fn send(call: &Call, mut copy: Copy<'_>, mut body: Body) -> Result<()> {
    let most = call.app.config.max_upload;
    let (mut bytes, mut piece) = (0, BytesMut::with_capacity(PIECE_BYTES));
    loop {
        let frame = timeout(call.app.config.idle_timeout, body.frame()).await;
        let frame = frame.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body stalled"))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| Problem::bad_request("the body is incomplete").because(error))?;
        let Ok(data) = frame.into_data() else { continue };
        bytes += data.len() as u64;
        if bytes > most {
            return Err(too_large(most));
        }
        let is_large = data.len() >= LARGE_BYTES;
        if !piece.is_empty() && (is_large || piece.len() + data.len() > PIECE_BYTES) {
            copy.send(piece.split().freeze()).await?;
        }
        if is_large {
            copy.send(data).await?;
        } else {
            piece.extend_from_slice(&data);
        }
    }
    copy.send(piece.freeze()).await?;
    copy.finish().await?;
    call.app.metrics.uploaded(bytes);
    Ok(())
}
