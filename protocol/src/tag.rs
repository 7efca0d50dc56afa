//! Every message tag, in one place. A number is never used again: a removed message keeps its line,
//! marked as removed.

use crate::codec::{self, DecodeError, Frame};

/// Implemented by every message that is the body of a frame.
pub trait Message: serde::Serialize + serde::de::DeserializeOwned {
    /// The frame's tag.
    const TAG: u16;
    /// The message's name, for errors.
    const NAME: &'static str;
    /// Bytes of the largest body, checked before the body is read.
    const MAX_BYTES: usize;
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

macro_rules! tags {
    ($($tag:literal $type:path, $max:expr;)+) => {
        $(impl Message for $type {
            const TAG: u16 = $tag;
            const NAME: &'static str = stringify!($type);
            const MAX_BYTES: usize = $max;
        })+
        /// Every tag with its size limit; a tag that is not here is unknown.
        pub const ALL: &[(u16, usize)] = &[$(($tag, $max)),+];

        /// Decodes a frame as what its tag says and encodes it again, for property tests and fuzzing.
        pub fn reencode(frame: &Frame) -> Result<Vec<u8>, DecodeError> {
            match frame.tag {
                $($tag => frame.decode::<$type>().map(|message| codec::encode(&message)),)+
                unknown => Err(DecodeError::UnknownTag(unknown)),
            }
        }
    };
}

tags! {
    1 crate::enrol::EnrolRequest, 32 * KIB;
    2 crate::enrol::EnrolReply, 192 * KIB;
    3 crate::enrol::RenewRequest, 32 * KIB;
    10 crate::link::Hello, MIB;
    11 crate::link::HelloReply, 4 * KIB;
    12 crate::link::Heartbeat, KIB;
    20 crate::container::ContainerSpec, 2 * MIB;
    21 crate::operation::OperationRequest, 4 * KIB;
    22 crate::link::CommandReply, 4 * KIB;
    23 crate::link::SpecQuery, KIB;
    24 crate::link::SpecReply, 2 * MIB + 4 * KIB;
    25 crate::link::RenewalOrder, KIB;
    30 crate::link::ReportBatch, MIB;
    31 crate::link::ReportAck, KIB;
    32 crate::stats::StatsBatch, 4 * MIB;
    40 crate::blob::BlobRequest, KIB;
    41 crate::blob::BlobReply, 4 * KIB;
    50 crate::command::CommandRequest, 128 * KIB;
    51 crate::command::CommandControl, KIB;
    52 crate::command::CommandUpdate, 16 * KIB;
    60 crate::exec::ExecRequest, 256 * KIB;
    61 crate::exec::TerminalRequest, 256 * KIB;
    62 crate::exec::ProcessInput, 20 * KIB;
    63 crate::exec::ProcessOutput, 20 * KIB;
    64 crate::exec::TerminalQuery, KIB;
    65 crate::exec::TerminalList, 64 * KIB;
    66 crate::exec::TerminalEnd, KIB;
    67 crate::logs::LogRequest, KIB;
    68 crate::logs::LogMore, KIB;
    69 crate::logs::LogBatch, 512 * KIB;
    70 crate::inspection::InspectionQuery, KIB;
    71 crate::inspection::InspectionReply, 2 * MIB;
    80 crate::snapshot::SnapshotQuery, KIB;
    81 crate::snapshot::SnapshotReply, 8 * KIB;
    85 crate::transfer::TransferRequest, KIB;
    86 crate::transfer::SendOrder, 4 * KIB;
    87 crate::transfer::TransferOffer, KIB;
    88 crate::transfer::TransferReply, 4 * KIB;
    89 crate::transfer::TransferData, 260 * KIB;
    90 crate::transfer::TransferProgress, 4 * KIB;
    91 crate::transfer::ReceiveOrder, 8 * KIB;
    92 crate::transfer::DivergenceQuery, KIB;
    93 crate::transfer::DivergenceReply, 4 * KIB;
    95 crate::export::ExportOrder, 3 * MIB;
    96 crate::export::ExportOffer, KIB;
    97 crate::transfer::RetainOrder, 4 * KIB;
    240 crate::replica::RelayRequest, KIB;
    241 crate::replica::RelayReply, KIB;
    242 crate::replica::KnownQuery, 128 * KIB;
    243 crate::replica::KnownReply, 64 * KIB;
    255 crate::link::Refusal, 4 * KIB;
}

/// The size limit of a tag; `None` where the tag is unknown.
pub fn max_bytes(tag: u16) -> Option<usize> {
    ALL.iter().find(|(known, _)| *known == tag).map(|(_, max)| *max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_unique() {
        let mut tags: Vec<u16> = ALL.iter().map(|(tag, _)| *tag).collect();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), ALL.len());
    }
}
