//! Streams of logs: one batch for each message that asks for one.

use crate::logs::Logs;
use hoody_protocol::{
    container::Cause,
    link::Refusal,
    logs::{LogMore, LogRequest},
    stream::{self, StreamError},
};
use quinn::{RecvStream, SendStream};

/// Answers until the log has ended or nobody asks any more.
pub(super) async fn serve(
    mut send: SendStream,
    mut recv: RecvStream,
    logs: &Logs,
    request: LogRequest,
) -> Result<(), StreamError> {
    let _ = send.set_priority(stream::EXEC_PRIORITY);
    let mut reader = logs.reader(&request);
    loop {
        let more: LogMore = match stream::read(&mut recv).await {
            Ok(more) => more,
            Err(StreamError::Finished | StreamError::Read(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let batch = tokio::select! {
            (next, batch) = reader.next(more.bytes as usize) => {
                reader = next;
                batch
            }
            // Whoever asked has gone while there was nothing to say.
            _ = send.stopped() => return Ok(()),
        };
        match batch {
            Ok(batch) => {
                stream::write_patiently(&mut send, &batch).await?;
                if batch.end {
                    let _ = send.finish();
                    let _ = send.stopped().await;
                    return Ok(());
                }
            }
            Err(error) => {
                tracing::error!(container = %request.container, error = &error as &dyn std::error::Error, "read a log");
                let cause = Cause::new("log_unreadable", "the log could not be read");
                return stream::write(&mut send, &Refusal { cause }).await;
            }
        }
    }
}
