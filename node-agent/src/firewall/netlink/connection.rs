//! A netlink socket to netfilter, with a deadline on every exchange.
//!
//! The socket belongs to the network namespace of the thread that opens it, whichever thread uses it
//! later. Answers are told apart by sequence number: what a timed-out exchange left behind is skipped.

use super::{
    attribute::Attributes,
    batch::{Batch, HEADER_BYTES, close, put_header},
    wire::*,
};
use crate::firewall::error::{FirewallError, Object, Operation};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::{TimeVal, TimeValLike},
};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

/// How long one exchange may take.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(5);
/// Bytes the kernel may queue on the socket in either direction: a container's largest policy, with
/// two full port lists in each rule, is about 1 MiB.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// Bytes of one read; the kernel's answers are at most 32 KiB.
const READ_BYTES: usize = 128 << 10;
/// Questions sent at once, so that their answers fit the socket's buffer.
const QUESTIONS_AT_ONCE: usize = 64;
/// How often a listing is begun anew when somebody changed what it was reading.
const LISTING_TRIES: usize = 8;
/// Bytes of a netlink header.
const NETLINK_HEADER_BYTES: usize = 16;

/// A question to the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    bytes: Vec<u8>,
    object: Object,
}

impl Question {
    /// A question about one object; `message` is `NFT_MSG_…` or `IPCTNL_MSG_…`.
    pub(crate) fn new(
        subsystem: u16,
        message: u8,
        family: u8,
        object: Object,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Self {
        let mut bytes = Vec::new();
        put_header(&mut bytes, subsystem << 8 | u16::from(message), NLM_F_REQUEST, family, 0);
        body(&mut bytes);
        close(&mut bytes, 0);
        Self { bytes, object }
    }

    fn set(&mut self, sequence: u32, flags: u16) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    /// The address by which the kernel knows it.
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What the kernel tells its subscribers unasked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notice<'a> {
    /// Subsystem and message.
    pub(crate) kind: u16,
    /// The socket that ordered what is told.
    pub(crate) port: u32,
    /// The attributes.
    pub(crate) body: &'a [u8],
}

/// The notices of one read; ends at the first that is malformed.
pub(crate) fn notices(mut bytes: &[u8]) -> impl Iterator<Item = Notice<'_>> {
    std::iter::from_fn(move || {
        let (message, after) = split(bytes)?;
        let notice = Notice {
            kind: message.kind,
            port: u32::from_ne_bytes(bytes.get(12..16)?.try_into().ok()?),
            body: message.body,
        };
        bytes = after;
        Some(notice)
    })
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Connection {
    /// Opens it in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, FirewallError> {
        let failed = |action| move |source| FirewallError::Socket { action, source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open"))?;
        let port = socket.bind_auto().map_err(failed("bind"))?.port_number();
        // Connected to the kernel's address: nobody else's messages are queued.
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect"))?;
        socket.set_ext_ack(true).map_err(failed("configure"))?;
        socket.set_cap_ack(true).map_err(failed("configure"))?;
        // SAFETY: the descriptor stays open as long as `socket` lives, which is longer than `fd`.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        let options = || {
            setsockopt(&fd, sockopt::SndBufForce, &SOCKET_BUFFER_BYTES)?;
            setsockopt(&fd, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES)?;
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(EXCHANGE_LIMIT.as_secs() as i64))?;
            setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(EXCHANGE_LIMIT.as_secs() as i64))
        };
        options().map_err(|errno| failed("configure")(errno.into()))?;
        Ok(Self { socket, port, sequence: 1, buffer: vec![0; READ_BYTES] })
    }

    /// The address by which the kernel knows this socket.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Puts a transaction in force; on a refusal nothing has changed.
    pub(crate) fn commit(&mut self, batch: Batch) -> Result<(), FirewallError> {
        if batch.is_empty() {
            return Ok(());
        }
        let table = Object::Table(batch.table.clone());
        let first = self.take_sequence(batch.len() + 1);
        let batch = batch.finish(first);
        self.send(&batch.bytes)?;
        let mut refused = None;
        let mut done = false;
        self.receive(&table, |message| {
            let Some((operation, object)) =
                message.sequence.checked_sub(first).and_then(|at| batch.about.get(at as usize))
            else {
                return Ok(false);
            };
            if message.kind != NLMSG_ERROR {
                return Ok(false);
            }
            if let Some((source, detail)) = error_of(&message, &table)? {
                // The first refusal is the cause, those after it mostly its consequences.
                let (operation, object) = (*operation, object.clone());
                refused.get_or_insert(FirewallError::Refused { operation, object, detail, source });
                // Refused as a whole, before any of its changes was looked at.
                done |= message.sequence == first;
            }
            done |= message.sequence == batch.acknowledged;
            Ok(done)
        })?;
        refused.map_or(Ok(()), Err)
    }

    /// The answers to questions about single objects, in order; `None` for one that does not exist.
    pub(crate) fn ask(&mut self, questions: Vec<Question>) -> Result<Vec<Option<Vec<u8>>>, FirewallError> {
        let mut answers = Vec::with_capacity(questions.len());
        for mut questions in chunks(questions) {
            let first = self.take_sequence(questions.len());
            let mut bytes = Vec::new();
            for (sequence, question) in (first..).zip(&mut questions) {
                question.set(sequence, 0);
                bytes.extend_from_slice(&question.bytes);
            }
            self.send(&bytes)?;
            let start = answers.len();
            let object = questions[0].object.clone();
            self.receive(&object, |message| {
                // The kernel answers in the order of the questions.
                if message.sequence != first + (answers.len() - start) as u32 {
                    return Ok(false);
                }
                let object = &questions[answers.len() - start].object;
                if message.kind == NLMSG_ERROR {
                    match error_of(&message, object)? {
                        Some((source, _)) if source.raw_os_error() == Some(libc::ENOENT) => answers.push(None),
                        Some((source, detail)) => return Err(refusal(Operation::Read, object, detail, source)),
                        None => return Ok(false),
                    }
                } else {
                    answers.push(Some(message.body.to_vec()));
                }
                Ok(answers.len() - start == questions.len())
            })?;
        }
        Ok(answers)
    }

    /// Everything of a kind: the attributes of each object; nothing where what holds them is missing.
    pub(crate) fn list(&mut self, mut question: Question) -> Result<Vec<Vec<u8>>, FirewallError> {
        for _ in 0..LISTING_TRIES {
            let sequence = self.take_sequence(1);
            question.set(sequence, NLM_F_DUMP);
            self.send(&question.bytes)?;
            let (mut found, mut interrupted) = (Vec::new(), false);
            let object = &question.object;
            let mut missing = false;
            self.receive(object, |message| {
                if message.sequence != sequence {
                    return Ok(false);
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                if message.kind != NLMSG_DONE && message.kind != NLMSG_ERROR {
                    found.push(message.body.to_vec());
                    return Ok(false);
                }
                match error_of(&message, object)? {
                    Some((source, _)) if source.raw_os_error() == Some(libc::ENOENT) => missing = true,
                    // A listing that was given up is not at its end; reading on, as was just done, brings it there.
                    Some((source, _)) if source.raw_os_error() == Some(libc::EBUSY) => interrupted = true,
                    Some((source, detail)) => return Err(refusal(Operation::Read, object, detail, source)),
                    None => {}
                }
                Ok(true)
            })?;
            if missing {
                return Ok(Vec::new());
            }
            if !interrupted {
                return Ok(found);
            }
        }
        Err(FirewallError::Unsettled { object: question.object })
    }

    /// Orders single changes outside a transaction; for each, whether the object was there.
    pub(crate) fn order(&mut self, orders: Vec<Question>) -> Result<Vec<bool>, FirewallError> {
        let mut done = Vec::with_capacity(orders.len());
        for mut orders in chunks(orders) {
            let first = self.take_sequence(orders.len());
            let mut bytes = Vec::new();
            for (sequence, order) in (first..).zip(&mut orders) {
                order.set(sequence, NLM_F_ACK);
                bytes.extend_from_slice(&order.bytes);
            }
            self.send(&bytes)?;
            let start = done.len();
            let object = orders[0].object.clone();
            self.receive(&object, |message| {
                if message.sequence != first + (done.len() - start) as u32 || message.kind != NLMSG_ERROR {
                    return Ok(false);
                }
                let object = &orders[done.len() - start].object;
                match error_of(&message, object)? {
                    None => done.push(true),
                    Some((source, _)) if source.raw_os_error() == Some(libc::ENOENT) => done.push(false),
                    Some((source, detail)) => return Err(refusal(Operation::Delete, object, detail, source)),
                }
                Ok(done.len() - start == orders.len())
            })?;
        }
        Ok(done)
    }

    /// Reserves sequence numbers; starts over before they run out.
    fn take_sequence(&mut self, count: usize) -> u32 {
        let count = count as u32;
        if self.sequence.checked_add(count).is_none() {
            self.sequence = 1;
        }
        let first = self.sequence;
        self.sequence += count;
        first
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), FirewallError> {
        match self.socket.send(bytes, 0) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(FirewallError::Socket { action: "send on", source: io::ErrorKind::WriteZero.into() }),
            Err(source) => Err(FirewallError::Socket { action: "send on", source }),
        }
    }

    /// Hands over messages until `each` says that it has what it waits for.
    fn receive(
        &mut self,
        object: &Object,
        mut each: impl FnMut(Message<'_>) -> Result<bool, FirewallError>,
    ) -> Result<(), FirewallError> {
        let deadline = Instant::now() + EXCHANGE_LIMIT;
        let timeout = || FirewallError::Timeout { object: object.clone(), limit: EXCHANGE_LIMIT };
        loop {
            if Instant::now() > deadline {
                return Err(timeout());
            }
            let read = match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(timeout()),
                Err(source) => return Err(FirewallError::Socket { action: "receive from", source }),
            };
            let mut rest = &self.buffer[..read];
            while !rest.is_empty() {
                let (message, after) =
                    split(rest).ok_or_else(|| FirewallError::Malformed { object: object.clone() })?;
                if each(message)? {
                    return Ok(());
                }
                rest = after;
            }
        }
    }
}

fn chunks(mut questions: Vec<Question>) -> impl Iterator<Item = Vec<Question>> {
    std::iter::from_fn(move || {
        let rest = questions.split_off(questions.len().min(QUESTIONS_AT_ONCE));
        let chunk = std::mem::replace(&mut questions, rest);
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn refusal(operation: Operation, object: &Object, detail: Option<String>, source: io::Error) -> FirewallError {
    FirewallError::Refused { operation, object: object.clone(), detail, source }
}

fn split(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let header = bytes.get(..NETLINK_HEADER_BYTES)?;
    let length = u32::from_ne_bytes(header[..4].try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(header[4..6].try_into().ok()?);
    let flags = u16::from_ne_bytes(header[6..8].try_into().ok()?);
    let sequence = u32::from_ne_bytes(header[8..12].try_into().ok()?);
    // Answers of netfilter have its header in front of the attributes, those of netlink itself not.
    let skip = if kind == NLMSG_ERROR || kind == NLMSG_DONE { NETLINK_HEADER_BYTES } else { HEADER_BYTES };
    let body = bytes.get(skip..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((Message { kind, flags, sequence, body }, after))
}

/// The error of an answer, with the kernel's remark; `None` where it is an acknowledgement.
fn error_of(message: &Message<'_>, object: &Object) -> Result<Option<(io::Error, Option<String>)>, FirewallError> {
    let malformed = || FirewallError::Malformed { object: object.clone() };
    let code =
        message.body.get(..4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes).ok_or_else(malformed)?;
    if code == 0 {
        return Ok(None);
    }
    let mut detail = None;
    if message.flags & NLM_F_ACK_TLVS != 0 {
        // Behind the code stands the refused message: only its header, or all of it.
        let refused = &message.body[4..];
        let length = refused.get(..4).and_then(|length| length.try_into().ok()).map(u32::from_ne_bytes);
        let length = if message.flags & NLM_F_CAPPED != 0 {
            NETLINK_HEADER_BYTES
        } else {
            length.ok_or_else(malformed)? as usize
        };
        let remark = refused.get(length.next_multiple_of(4)..).unwrap_or_default();
        detail = Attributes(remark).text(NLMSGERR_ATTR_MSG).map(str::to_owned);
    }
    Ok(Some((io::Error::from_raw_os_error(code.wrapping_neg()), detail)))
}
