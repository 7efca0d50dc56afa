//! The trees of an image: what its layers up to one of them give, each unpacked once for all images that begin alike.
//!
//! A tree is known by the id of its chain of layers. That id is made as the OCI image specification makes a `ChainID`,
//! but from the blobs' digests and the way they are compressed: the node verifies those, and knows them before it
//! fetches anything. The digests of what is in the blobs, which the specification takes, are only somebody's word.
//!
//! Not every layer ends a tree of its own: one that brings little is unpacked again sooner than a tree is flushed,
//! committed and counted.

use hoody_protocol::image::{Compression, Digest, Layer};
use std::ops::Range;

/// Bytes of blobs that a tree below others adds at least.
const MIN_BYTES: u64 = 4 << 20;

/// One tree of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    /// Under which it is stored.
    pub(super) chain: Digest,
    /// The layers that make it from the tree before it, of the image's.
    pub(super) layers: Range<usize>,
}

/// The trees of an image with these layers, the lowest first. The last one is the image; there always is one.
pub(super) fn trees(layers: &[Layer]) -> Vec<Tree> {
    let mut trees = Vec::new();
    let (mut chain, mut begin, mut bytes) = (Digest::of(b""), 0, 0_u64);
    for (at, layer) in layers.iter().enumerate() {
        chain = link(chain, layer);
        bytes = bytes.saturating_add(layer.size);
        if bytes >= MIN_BYTES || at + 1 == layers.len() {
            trees.push(Tree { chain, layers: begin..at + 1 });
            (begin, bytes) = (at + 1, 0);
        }
    }
    if trees.is_empty() {
        trees.push(Tree { chain, layers: 0..0 });
    }
    trees
}

/// Under which trees an image with these layers is stored: nothing of them is collected while it is in use.
pub fn ids(layers: &[Layer]) -> Vec<Digest> {
    trees(layers).into_iter().map(|tree| tree.chain).collect()
}

/// The id of the image itself: of its last tree.
pub fn id(layers: &[Layer]) -> Digest {
    layers.iter().fold(Digest::of(b""), link)
}

fn link(below: Digest, layer: &Layer) -> Digest {
    let compression = match layer.compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    };
    // A container's archive is unpacked otherwise than a layer.
    let kind = if layer.archive_bytes.is_some() { " archive" } else { "" };
    Digest::of(format!("{below} {} {compression}{kind}", layer.digest).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, size: u64) -> Layer {
        Layer { digest: Digest::of(name.as_bytes()), size, compression: Compression::Gzip, archive_bytes: None }
    }

    #[test]
    fn images_that_begin_alike_have_trees_in_common() {
        let base = [layer("base", 30 << 20), layer("small", 100), layer("more", 5 << 20)];
        let one = [&base[..], &[layer("one", 10)]].concat();
        let two = [&base[..], &[layer("two", 10), layer("three", 20)]].concat();
        let (one, two, base) = (trees(&one), trees(&two), trees(&base));
        assert_eq!(one.iter().map(|tree| tree.layers.clone()).collect::<Vec<_>>(), [0..1, 1..3, 3..4]);
        assert_eq!(two.iter().map(|tree| tree.layers.clone()).collect::<Vec<_>>(), [0..1, 1..3, 3..5]);
        assert_eq!((&one[..2], &two[..2]), (&base[..], &base[..]));
        assert_ne!(one[2].chain, two[2].chain);
    }

    #[test]
    fn the_id_says_all_layers_their_order_and_how_each_is_read() {
        let (a, b) = (layer("a", 1), layer("b", 1));
        let plain = Layer { compression: Compression::None, ..a.clone() };
        let archive = Layer { archive_bytes: Some(1), ..a.clone() };
        let chains = [
            vec![],
            vec![a.clone()],
            vec![plain],
            vec![archive],
            vec![b.clone()],
            vec![a.clone(), b.clone()],
            vec![b, a],
        ];
        let mut ids: Vec<_> = chains.iter().map(|layers| id(layers)).collect();
        for (layers, id) in chains.iter().zip(&ids) {
            assert_eq!(self::ids(layers).last(), Some(id));
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 7);
    }
}
