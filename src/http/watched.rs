//! Reports how the body of a response ends.
//!
//! A response is delivered when its last byte was handed to the server that writes it to the
//! client. Whether the client received it no proxy can know.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use http::Response;
use http::header::CONTENT_LENGTH;
use hyper::body::{Body as _, Frame, SizeHint};

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    /// Its last byte was handed over.
    Complete,
    /// It was dropped before that: the client left, or the upstream broke off.
    Cut,
}

/// Calls a function once, when the body of a response ends.
pub(crate) fn watch(
    response: Response<Body>,
    on_end: impl FnOnce(BodyEnd) + Send + 'static,
) -> Response<Body> {
    let announced = response.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    let left = announced.or_else(|| response.body().size_hint().exact());
    response.map(|body| {
        Body::new(Watched {
            body,
            left,
            on_end: Some(Box::new(on_end)),
        })
    })
}

struct Watched {
    body: Body,
    /// Bytes that are not handed over yet, if their number is known. A server that has them all
    /// does not ask whether there are more.
    left: Option<u64>,
    /// `None` after it was called.
    on_end: Option<Box<dyn FnOnce(BodyEnd) + Send>>,
}

impl Watched {
    fn end(&mut self, end: BodyEnd) {
        if let Some(on_end) = self.on_end.take() {
            on_end(end);
        }
    }

    fn is_over(&self) -> bool {
        self.left == Some(0) || self.body.is_end_stream()
    }
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            None => self.end(BodyEnd::Complete),
            Some(Err(_)) => self.end(BodyEnd::Cut),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let handed_over = data.len() as u64;
                    self.left = self.left.map(|left| left.saturating_sub(handed_over));
                }
                if frame.is_trailers() || self.is_over() {
                    self.end(BodyEnd::Complete);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let is_over = self.is_over();
        self.end(if is_over {
            BodyEnd::Complete
        } else {
            BodyEnd::Cut
        });
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io;

    use futures::{StreamExt, stream};
    use http::HeaderValue;
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;

    use super::*;

    /// How a response ended that a client read in this way.
    async fn end_of<F: Future<Output = ()>>(
        response: Response<Body>,
        read: impl FnOnce(Body) -> F,
    ) -> BodyEnd {
        let (end, mut ended) = mpsc::unbounded_channel();
        let watched = watch(response, move |how| end.send(how).unwrap());
        read(watched.into_body()).await;
        let how = ended.try_recv().unwrap();
        assert!(ended.recv().await.is_none(), "reported once");
        how
    }

    #[tokio::test]
    async fn end_of_a_body_is_reported_once() {
        let to_its_end = async |body: Body| {
            let _ = body.collect().await;
        };
        let one_frame = async |mut body: Body| {
            let _ = body.frame().await;
        };
        let unread = async |body: Body| drop(body);
        let pieces = || {
            let pieces = stream::iter(["a", "b"].map(Ok::<_, Infallible>));
            Response::new(Body::from_stream(pieces))
        };
        assert_eq!(end_of(pieces(), to_its_end).await, BodyEnd::Complete);
        assert_eq!(end_of(pieces(), one_frame).await, BodyEnd::Cut);
        assert_eq!(end_of(pieces(), unread).await, BodyEnd::Cut);
        let known = || Response::new(Body::from("a"));
        assert_eq!(end_of(known(), one_frame).await, BodyEnd::Complete);
        assert_eq!(end_of(known(), unread).await, BodyEnd::Cut);
        let empty = || Response::new(Body::empty());
        assert_eq!(end_of(empty(), unread).await, BodyEnd::Complete);
        let announced = |length: &'static str| {
            let piece = stream::iter([Ok::<_, Infallible>("a")]);
            let mut response = Response::new(Body::from_stream(piece.chain(stream::pending())));
            let length = HeaderValue::from_static(length);
            response.headers_mut().insert(CONTENT_LENGTH, length);
            response
        };
        assert_eq!(end_of(announced("1"), one_frame).await, BodyEnd::Complete);
        assert_eq!(end_of(announced("2"), one_frame).await, BodyEnd::Cut);
        assert_eq!(end_of(announced("0"), unread).await, BodyEnd::Complete);
        assert_eq!(end_of(announced("?"), one_frame).await, BodyEnd::Cut);
        let broken = stream::iter([Ok("a"), Err(io::Error::other("gone"))]);
        let broken = Response::new(Body::from_stream(broken));
        assert_eq!(end_of(broken, to_its_end).await, BodyEnd::Cut);
    }
}
