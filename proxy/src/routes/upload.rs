//! Resources as the body of a request: handed to the database piece by piece, and loaded from there.

use axum::body::Body;
use axum::http::{StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::time::timeout;
use tokio_postgres::types::Type;

use crate::database::session::Session;
use crate::error::{Problem, Result};
use crate::request::call::Call;
use crate::request::parse::{self, Object, Parameters};

/// What `bulk_load` calls the bytes that this transaction has staged.
pub const SOURCE: &str = "staged://";
/// How many bytes go to the database at a time.
const PIECE_BYTES: usize = 256 << 10;

/// The options of a load whose body has no room for them.
///
/// # Errors
/// 400 for a value that an option cannot have.
pub fn options(parameters: &mut Parameters) -> Result<String> {
    let mut options = Object::default();
    for name in ["update", "strip-nulls"] {
        if parameters.flag(name)? {
            options.insert(name, true);
        }
    }
    if let Some(word) = parameters.text("on_error") {
        options.insert("on_error", word);
    }
    if let Some(number) = parameters.text("max_errors") {
        let number: u64 = number.parse().map_err(|_| Problem::bad_request("the parameter max_errors is no number"))?;
        options.insert("max_errors", number);
    }
    Ok(options.text())
}

/// Stages a body in the session's transaction. Compressed bytes stay so: the load tells them by their content.
///
/// # Errors
/// 400 for a body that breaks off; 408 for one that stalls; 413 for one that is too large; 415 for an encoding other
/// than gzip; those of the function.
pub async fn stage(call: &Call, session: &Session, mut body: Body) -> Result<()> {
    let coding = parse::coding(&call.headers);
    if let Some(encoding) = coding.filter(|name| !["gzip", "x-gzip"].contains(&name.as_str())) {
        let why = format!("the Content-Encoding {encoding:?} is not known here; gzip is");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let most = call.app.config.max_upload;
    let too_large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {most} bytes"));
    let announced = call.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > most) {
        return Err(too_large());
    }
    let (mut bytes, mut piece) = (0, BytesMut::with_capacity(PIECE_BYTES));
    loop {
        let frame = timeout(call.app.config.idle_timeout, body.frame()).await;
        let frame = frame.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body stalled"))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| Problem::bad_request("the body did not come whole").because(error))?;
        let Ok(mut data) = frame.into_data() else { continue };
        bytes += data.len() as u64;
        if bytes > most {
            return Err(too_large());
        }
        while piece.len() + data.len() >= PIECE_BYTES {
            piece.extend_from_slice(&data.split_to(PIECE_BYTES - piece.len()));
            send(session, &piece.split().freeze()).await?;
        }
        piece.extend_from_slice(&data);
    }
    send(session, &piece.freeze()).await?;
    call.app.metrics.uploaded(bytes);
    Ok(())
}

async fn send(session: &Session, piece: &Bytes) -> Result<()> {
    session.value("bulk_load_stage($1)", &[(&piece.as_ref(), Type::BYTEA)]).await.map(drop)
}
