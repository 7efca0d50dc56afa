//! Typed refusals: the stable words that agents and operators see.

use hoody_protocol::{
    container::Cause,
    link::Refusal,
    stream::{self, MALFORMED, StreamError},
};
use quinn::{RecvStream, SendStream};

/// The message's tag is unknown, or not expected there.
pub(super) const UNEXPECTED: &str = "unexpected_message";
/// The bytes are not a valid message.
pub(super) const MALFORMED_MESSAGE: &str = "malformed_message";
/// Try again later.
pub(super) const UNAVAILABLE: &str = "unavailable";
/// The key is not the pinned one.
pub(super) const WRONG_KEY: &str = "wrong_key";
/// The signing request is not acceptable.
pub(super) const INVALID_REQUEST: &str = "invalid_request";
/// The server was revoked.
pub(super) const REVOKED: &str = "server_revoked";
/// The server is disabled for now.
pub(super) const DISABLED: &str = "server_disabled";
/// Another agent with the same identity is linked.
pub(super) const IDENTITY_IN_USE: &str = "identity_in_use";
/// The node asks for this more often than makes sense.
pub(super) const TOO_OFTEN: &str = "too_often";
/// There is no such server.
pub(super) const UNKNOWN_SERVER: &str = "server_unknown";

/// Try again later; nothing internal is told.
pub(super) fn unavailable() -> Cause {
    Cause::new(UNAVAILABLE, "the control plane could not do this now: try again later")
}

/// Answers a message that is not understood. True where the stream is still at the beginning of a
/// message, so that it can go on; otherwise it was ended.
pub(super) async fn refuse(send: &mut SendStream, recv: &mut RecvStream, error: &StreamError) -> bool {
    let cause = match error {
        StreamError::Decode(decode) if error.keeps_sync() => Cause::new(UNEXPECTED, decode.to_string()),
        StreamError::Decode(_) | StreamError::Truncated | StreamError::Deadline => {
            Cause::new(MALFORMED_MESSAGE, error.to_string())
        }
        StreamError::Finished | StreamError::Read(_) | StreamError::Write(_) => return false,
    };
    // Where even this cannot be written, the stream or connection is gone, and the next read says so.
    let written = stream::write(send, &Refusal { cause }).await.is_ok();
    if written && error.keeps_sync() {
        return true;
    }
    let _ = send.finish();
    let _ = recv.stop(MALFORMED);
    false
}
