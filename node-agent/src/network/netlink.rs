//! Requests to the kernel over route netlink (rtnetlink(7)). Each operation opens a socket of its own:
//! it costs microseconds, and a reply that comes too late cannot be taken for another request's.

use super::{
    NetworkError,
    namespace::{self, Namespace},
};
use futures::StreamExt;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use std::{future::Future, io};
use tokio::{runtime, task::JoinHandle, time::Instant};

/// Attempts to read a list that changes while it is read.
const DUMP_ATTEMPTS: usize = 5;

/// A netlink socket in one namespace, for one operation on one interface, with one deadline.
#[derive(Debug)]
pub(super) struct Session {
    handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
    /// For errors.
    interface: String,
    deadline: Instant,
}

impl Session {
    /// A session in the caller's namespace.
    pub(super) fn open(interface: &str, deadline: Instant) -> Result<Self, NetworkError> {
        let (connection, handle) = connect(interface)?;
        Ok(Self { handle, connection: tokio::spawn(connection), interface: interface.to_owned(), deadline })
    }

    /// A session inside `namespace`; `first` runs inside it before.
    pub(super) async fn open_inside(
        namespace: &Namespace,
        interface: &str,
        deadline: Instant,
        first: impl FnOnce() -> Result<(), NetworkError> + Send + 'static,
    ) -> Result<Self, NetworkError> {
        let interface = format!("{interface} of process {}", namespace.pid());
        let (runtime, name) = (runtime::Handle::current(), interface.clone());
        let work = move || {
            first()?;
            // The socket registers itself with the runtime's poller.
            let _runtime = runtime.enter();
            let (connection, handle) = connect(&name)?;
            Ok((runtime.spawn(connection), handle))
        };
        let (connection, handle) =
            namespace::run(Some(namespace), &interface, "enter namespace", deadline, work).await?;
        Ok(Self { handle, connection, interface, deadline })
    }

    /// The interface this session is about, for errors.
    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    /// When the session's operation must be done.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Sends a request with these flags and waits for the kernel's acknowledgement; returns what came
    /// before it.
    pub(super) async fn request(
        &self,
        action: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetworkError> {
        Ok(self.exchange(action, message, flags | NLM_F_REQUEST | NLM_F_ACK).await?.0)
    }

    /// Asks for a list.
    pub(super) async fn dump(
        &self,
        action: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetworkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let (replies, interrupted) = self.exchange(action, message.clone(), NLM_F_REQUEST | NLM_F_DUMP).await?;
            if !interrupted {
                return Ok(replies);
            }
        }
        Err(NetworkError::Interrupted { action })
    }

    async fn exchange(
        &self,
        action: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), NetworkError> {
        let interface = || self.interface.clone();
        let refused = |source| NetworkError::Kernel { action, interface: interface(), source };
        let work = async {
            let mut request = NetlinkMessage::from(message);
            request.header.flags = flags;
            let lost = || NetworkError::ConnectionLost { action, interface: interface() };
            let mut stream = self.handle.clone().request(request).map_err(|_| lost())?;
            let (mut replies, mut interrupted) = (Vec::new(), false);
            while let Some(reply) = stream.next().await {
                interrupted |= reply.header.flags & NLM_F_DUMP_INTR != 0;
                match reply.payload {
                    NetlinkPayload::InnerMessage(reply) => replies.push(reply),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(refused(error.to_io())),
                    NetlinkPayload::Done(done) if done.code != 0 => {
                        return Err(refused(io::Error::from_raw_os_error(done.code.saturating_abs())));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok((replies, interrupted)),
                    _ => {}
                }
            }
            // Without an acknowledgement nothing is known: never taken for success.
            Err(lost())
        };
        match tokio::time::timeout_at(self.deadline, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(NetworkError::Deadline { action, interface: interface() }),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn connect(interface: &str) -> Result<(impl Future<Output = ()> + Send + use<>, rtnetlink::Handle), NetworkError> {
    let (mut connection, handle, _) = rtnetlink::new_connection()
        .map_err(|source| NetworkError::Socket { interface: interface.to_owned(), source })?;
    connection.set_forward_ack(true);
    connection.set_forward_done(true);
    Ok((connection, handle))
}
