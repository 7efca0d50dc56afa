//! Recognises and undoes compression.

use hoody_protocol::image::Compression;
use std::io::{self, BufReader, Read};

/// RFC 1952, 2.3.1.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// RFC 8878, 3.1.1.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The largest window that a zstd frame may ask for, as a power of two of bytes: what the `zstd`
/// program writes without `--long`, with room for that.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// How the file is compressed, by its first bytes; reads at most 4 of them.
pub(in crate::service::image) fn sniff(file: &mut impl Read) -> io::Result<Compression> {
    let mut head = Vec::with_capacity(ZSTD_MAGIC.len());
    file.take(ZSTD_MAGIC.len() as u64).read_to_end(&mut head)?;
    Ok(if head.starts_with(&GZIP_MAGIC) {
        Compression::Gzip
    } else if head.starts_with(&ZSTD_MAGIC) {
        Compression::Zstd
    } else {
        Compression::None
    })
}

/// Undoes the compression.
pub(in crate::service::image) fn decompress(
    file: impl Read + 'static,
    compression: Compression,
) -> io::Result<Box<dyn Read>> {
    Ok(match compression {
        Compression::None => Box::new(BufReader::new(file)),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::new(file)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}
