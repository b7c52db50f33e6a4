//! Reading a request's body within bounds of size and time.

use std::time::Duration;

use axum::body::HttpBody;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::problem::{Name, Problem};

/// The longest body of `/v1/reports`, in bytes.
pub const REPORT_BYTES_MAX: usize = 1 << 20;

/// The longest body of any other request, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// How long a body may take to arrive.
pub(super) const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// Reads a body. One that is announced or turns out larger than `bytes_max` is not read on.
pub(super) async fn read<B>(body: B, bytes_max: usize) -> Result<Bytes, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    read_within(body, bytes_max, BODY_TIME_MAX).await
}

async fn read_within<B>(body: B, bytes_max: usize, time_max: Duration) -> Result<Bytes, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    match tokio::time::timeout(time_max, collect(body, bytes_max)).await {
        Ok(result) => result,
        Err(_) => Err(Problem::new(Name::RequestTimeout, format!("a body has {time_max:?} to arrive"))),
    }
}

async fn collect<B>(mut body: B, bytes_max: usize) -> Result<Bytes, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    // Small bodies come as one frame, which is handed on as it is.
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::malformed("the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + more.len() + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        if first.is_empty() {
            first = data;
        } else {
            more.extend_from_slice(&data);
        }
    }
    if more.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + more.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&more);
    Ok(whole.freeze())
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Name::TooLarge, format!("a body here has at most {bytes_max} bytes; send less at once"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[tokio::test]
    async fn a_body_over_the_bound_is_refused_announced_or_not() {
        let chunks = |count: usize| {
            Body::from_stream(futures_util::stream::iter(
                (0..count).map(|_| Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 1000]))),
            ))
        };
        let name = |result: Result<Bytes, Problem>| result.map(|b| b.len()).map_err(|p| p.name);
        assert_eq!(name(read(Body::from(vec![0; 5001]), 5000).await), Err(Name::TooLarge));
        assert_eq!(name(read(Body::from(vec![0; 5000]), 5000).await), Ok(5000));
        assert_eq!(name(read(chunks(6), 5000).await), Err(Name::TooLarge));
        assert_eq!(name(read(chunks(5), 5000).await), Ok(5000));
        assert_eq!(name(read(Body::empty(), 5000).await), Ok(0));
    }

    #[tokio::test]
    async fn a_body_that_never_ends_times_out() {
        let endless = futures_util::stream::pending::<Result<Bytes, std::convert::Infallible>>();
        let result = read_within(Body::from_stream(endless), 100, Duration::from_millis(5)).await;
        assert_eq!(result.unwrap_err().name, Name::RequestTimeout);
    }
}
