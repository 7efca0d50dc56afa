//! A command's stream: how far it is, piece by piece, until the control plane has stored how it ended.

use crate::commands::Commands;
use futures::{StreamExt, stream};
use hoody_protocol::{
    command::{CommandControl, CommandRequest, CommandUpdate},
    stream::{self as frames, StreamError},
};
use quinn::{RecvStream, SendStream};

/// Accepts the command and follows it to its end, or to that of the stream.
pub(super) async fn serve(
    send: &mut SendStream,
    recv: RecvStream,
    request: CommandRequest,
    commands: &Commands,
) -> Result<(), StreamError> {
    let (id, mut next) = (request.id, request.from);
    let execution = match commands.accept(request).await {
        Ok(execution) => execution,
        Err(cause) => {
            tracing::warn!(execution = %id, code = %cause.code, "a command was refused");
            return frames::write(send, &CommandUpdate::Refused(cause)).await;
        }
    };
    frames::write(send, &CommandUpdate::Accepted).await?;
    // A frame that has arrived in part is kept while something else is awaited.
    let controls = stream::unfold(recv, |mut recv| async {
        let control = frames::read::<CommandControl>(&mut recv).await;
        Some((control, recv))
    });
    let mut controls = std::pin::pin!(controls);
    loop {
        tokio::select! {
            (chunks, outcome) = execution.after(next) => {
                next += chunks.len() as u32;
                for chunk in chunks {
                    frames::write(send, &CommandUpdate::Output(chunk)).await?;
                }
                if let Some(outcome) = outcome {
                    frames::write(send, &CommandUpdate::Ended(outcome)).await?;
                    break;
                }
            }
            Some(control) = controls.next() => match control? {
                CommandControl::Cancel => execution.cancel(),
                CommandControl::Stored => {}
            },
        }
    }
    hoody_fault::point!("execution.told");
    while let Some(control) = controls.next().await {
        if control? == CommandControl::Stored {
            commands.stored(id);
            break;
        }
    }
    // The other side ends its part when it has read the end of ours.
    let _ = send.finish();
    Ok(())
}
