//! The rate of a link: a token bucket (tc-tbf(8)) on each end, which limits what that end sends.
//!
//! Both directions are shaped where they are sent, so nothing needs to be received and thrown away: the
//! container's own sockets wait (its end is in its namespace, but changing it takes NET_ADMIN over that
//! namespace, which nobody inside has), and what is sent to it queues for at most [`QUEUE_MS`] at the host's
//! end. A policer would need a kernel module that not every kernel has, and makes TCP stutter; a limit in
//! nftables can only drop.

use super::{NetworkError, netlink::Session};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE, Nla, NlasIterator};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage, TcOption},
};

const KIND: &str = "tbf";
/// What may pass at once, in milliseconds of the rate…
const BURST_MS: u64 = 10;
/// …but at least one packet as large as segmentation offload makes them, which would be cut up otherwise.
const MIN_BURST_BYTES: u64 = 128 << 10;
/// The longest time that something waits, in milliseconds of the rate.
const QUEUE_MS: u64 = 50;

/// Numbers of `linux/pkt_sched.h`.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const LINK_LAYER_ETHERNET: u8 = 1;
/// Where rate and queue stand in `struct tc_tbf_qopt`.
const RATE_OFFSET: usize = 8;
const QUEUE_OFFSET: usize = 24;

/// Limits what the link sends to `mbit` megabits per second; `None` takes a limit away.
pub(super) async fn set(session: &Session, link: u32, mbit: Option<u32>) -> Result<(), NetworkError> {
    // Indexes of interfaces are positive in the kernel; the crate takes them signed.
    let mut message = TcMessage::with_index(link as i32);
    message.header.parent = TcHandle::ROOT;
    let Some(mbit) = mbit else {
        return match session.request("remove rate", RouteNetlinkMessage::DelQueueDiscipline(message), 0).await {
            // There is none but the kernel's own.
            Err(error) if !error.is_errno(libc::ENOENT) && !error.is_errno(libc::EINVAL) => Err(error),
            _ => Ok(()),
        };
    };
    message.attributes = vec![TcAttribute::Kind(KIND.to_owned()), TcAttribute::Options(options(mbit))];
    let message = RouteNetlinkMessage::NewQueueDiscipline(message);
    session.request("set rate", message, NLM_F_CREATE | NLM_F_REPLACE).await?;
    Ok(())
}

/// True where the link sends through a bucket of this rate.
pub(super) async fn stands(session: &Session, link: u32, mbit: u32) -> Result<bool, NetworkError> {
    let message = TcMessage::with_index(link as i32);
    let found = session.dump("read rate", RouteNetlinkMessage::GetQueueDiscipline(message)).await?;
    let (bytes_per_second, _, queue) = bucket(mbit);
    let wanted = Some((saturated(bytes_per_second), queue));
    Ok(found.into_iter().any(|reply| match reply {
        // Kernels before 6.2 list those of every link.
        RouteNetlinkMessage::NewQueueDiscipline(found) => {
            found.header.index == link as i32
                && found.header.parent == TcHandle::ROOT
                && found.attributes.contains(&TcAttribute::Kind(KIND.to_owned()))
                && parameters_of(&found.attributes).and_then(|parameters| rate_and_queue(&parameters)) == wanted
        }
        _ => false,
    }))
}

/// The bucket's parameters in what the kernel tells of it: the crate leaves the options of this kind in one piece.
fn parameters_of(attributes: &[TcAttribute]) -> Option<Vec<u8>> {
    let options = attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.first(),
        _ => None,
    })?;
    let mut bytes = vec![0; options.value_len()];
    options.emit_value(&mut bytes);
    let parameters = NlasIterator::new(&bytes).map_while(Result::ok).find(|option| option.kind() == TCA_TBF_PARMS);
    parameters.map(|option| option.value().to_vec())
}

/// Bytes per second, and the bytes that may wait.
fn rate_and_queue(parameters: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| parameters.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    Some((number(RATE_OFFSET)?, number(QUEUE_OFFSET)?))
}

/// Bytes per second, bytes that may pass at once, bytes that may wait.
fn bucket(mbit: u32) -> (u64, u32, u32) {
    let bytes_per_second = u64::from(mbit) * 1_000_000 / 8;
    let burst = saturated((bytes_per_second * BURST_MS / 1000).max(MIN_BURST_BYTES));
    (bytes_per_second, burst, saturated(u64::from(burst) + bytes_per_second * QUEUE_MS / 1000))
}

fn options(mbit: u32) -> Vec<TcOption> {
    let (bytes_per_second, burst, queue) = bucket(mbit);
    let option = |kind, value: Vec<u8>| TcOption::Other(DefaultNla::new(kind, value));
    vec![
        option(TCA_TBF_PARMS, parameters(saturated(bytes_per_second), queue)),
        option(TCA_TBF_RATE64, bytes_per_second.to_ne_bytes().to_vec()),
        option(TCA_TBF_BURST, burst.to_ne_bytes().to_vec()),
    ]
}

/// `struct tc_tbf_qopt`: rate, peak rate (none), bytes that may wait, and two fields that `TCA_TBF_BURST`
/// stands for.
fn parameters(bytes_per_second: u32, queue_bytes: u32) -> Vec<u8> {
    let rate = rate_specification(LINK_LAYER_ETHERNET, bytes_per_second);
    let no_peak = rate_specification(0, 0);
    [&rate[..], &no_peak[..], &queue_bytes.to_ne_bytes()[..], &[0; 8][..]].concat()
}

/// `struct tc_ratespec`; all but the link layer and the rate belongs to tables that are no longer used.
fn rate_specification(link_layer: u8, bytes_per_second: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[1] = link_layer;
    bytes[8..].copy_from_slice(&bytes_per_second.to_ne_bytes());
    bytes
}

fn saturated(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
