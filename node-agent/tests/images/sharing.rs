//! Images that begin alike: what is the same is fetched and unpacked once, and kept as long as one needs it.

use super::*;
use hoody_agent::storage::{BtrfsPool, PoolConfig, QuotaMode};
use hoody_protocol::bounded::Text;
use std::collections::HashSet;

/// More than makes a tree of its own, and compressed as large (xorshift).
fn noise() -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..NOISE_BYTES).map(byte).collect()
}

const NOISE_BYTES: u64 = 5 << 20;

/// A layer large enough for a tree of its own.
fn large(name: &str) -> Archive {
    Archive::default().file(name, &noise()).file("last", name.as_bytes())
}

/// A layer that is a container's archive, with one large file.
fn exported(f: &Fixture, name: &str) -> Layer {
    let archive = Archive::default().file("container.json", b"{}").folder("rootfs/");
    let archive = archive.file(&format!("rootfs/{name}"), &noise()).end();
    Layer { archive_bytes: Some(archive.len() as u64), ..f.layer(archive, Compression::None) }
}

fn small(name: &str) -> Archive {
    Archive::default().file(name, b"small").file("last", name.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_images_have_in_common_is_unpacked_once() {
    let f = Fixture::new().await;
    let base = f.layer(large("base").end(), Compression::None);
    let own = |name: &str| f.layer(small(name).end(), Compression::None);
    let (one, two) = (image(vec![base.clone(), own("one")]), image(vec![base.clone(), own("two")]));
    let one_root = f.store.ensure(&one).await.unwrap();
    assert_eq!(f.opened().len(), 2);
    let two_root = f.store.ensure(&two).await.unwrap();
    assert_eq!(f.opened().len(), 3, "the base was fetched again");
    // The base alone is an image, too, and there.
    let base_root = f.store.ensure(&image(vec![base.clone()])).await.unwrap();
    assert_eq!(f.opened().len(), 3);
    assert_eq!(entries(&f.scratch.pool().join("images")).len(), 3);
    for (root, names, last) in [
        (&one_root, &["base", "last", "one"][..], "one"),
        (&two_root, &["base", "last", "two"], "two"),
        (&base_root, &["base", "last"], "base"),
    ] {
        assert_eq!(entries(root), names);
        assert_eq!(fs::read_to_string(root.join("last")).unwrap(), last);
        assert!(fs::write(root.join("x"), "").is_err(), "{last} is writable");
    }
    // The same blocks of the disk stand for the file in all of them.
    let blocks = |root: &Path| run("filefrag", ["-v".as_ref(), root.join("base").as_os_str()]);
    let extents = |root: &Path| blocks(root).lines().filter(|line| line.contains("..")).map(String::from).collect();
    let (first, second): (Vec<String>, Vec<String>) = (extents(&one_root), extents(&two_root));
    assert!(!first.is_empty());
    let places = |lines: &[String]| -> Vec<String> {
        lines.iter().filter_map(|line| line.split(':').nth(2).map(str::to_owned)).collect()
    };
    assert_eq!(places(&first), places(&second));
    // Another configuration of the same layers is the same tree.
    let configured = hoody_protocol::image::ImageConfig { workdir: Text::truncated("/srv"), ..Default::default() };
    let configured = ImageSpec::new(one.layers.clone(), configured);
    assert_ne!(configured.digest, one.digest);
    assert_eq!(f.store.ensure(&configured).await.unwrap(), one_root);
    assert_eq!(f.blobs(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_made_at_once_share_the_making_of_what_they_have_in_common() {
    let f = Fixture::new().await;
    let base = f.layer(large("base").zstd(), Compression::Zstd);
    let images: Vec<ImageSpec> = (0..6)
        .map(|n| image(vec![base.clone(), f.layer(small(&format!("own{n}")).gzip(), Compression::Gzip)]))
        .collect();
    for made in futures::future::join_all(images.iter().map(|image| f.store.ensure(image))).await {
        made.unwrap();
    }
    assert_eq!(entries(&f.scratch.pool().join("images")).len(), 7);
    assert_eq!(f.opened().len(), 7, "the base was fetched more than once");
    assert_eq!(entries(&f.scratch.pool().join("staging")), [""; 0]);
    assert_eq!(f.blobs(), [""; 0]);
}

/// A making that is cut off goes on behind the last tree that is whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_unpacked_before_a_failure_or_a_crash_stays() {
    let f = Fixture::new().await;
    let layers: Vec<Layer> = ["one", "two"].map(|name| f.layer(large(name).end(), Compression::None)).into();
    let wrong = vec![7; layers[1].size as usize];
    let good = f.source.blobs.lock().unwrap().insert(layers[1].digest, wrong).unwrap();
    let spec = image(layers.clone());
    f.store.ensure(&spec).await.unwrap_err();
    assert_eq!(entries(&f.scratch.pool().join("images")), [chain::id(&layers[..1]).hex()]);
    assert_eq!(entries(&f.scratch.pool().join("staging")), [""; 0]);
    f.source.blobs.lock().unwrap().insert(layers[1].digest, good);
    // Another process, after a crash in the middle of the second.
    let half = f.scratch.pool().join("staging").join(format!("{}-0", tree(&spec)));
    run("btrfs", ["subvolume".as_ref(), "create".as_ref(), half.as_os_str()]);
    let before = f.opened().len();
    let again = ImageStore::open(config(&f.scratch), f.source.clone()).await.unwrap();
    let root = again.ensure(&spec).await.unwrap();
    assert_eq!(entries(&root), ["last", "one", "two"]);
    assert!(f.opened().len() <= before + 1, "the first layer was fetched again");
    assert_eq!(f.blobs(), [""; 0]);
    assert_eq!(entries(&f.scratch.pool().join("staging")), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_image_in_use_is_made_of_never_goes() {
    let f = Fixture::with(|config| config.keep = Duration::ZERO).await;
    let base = f.layer(large("base").end(), Compression::None);
    let own = |name: &str| f.layer(small(name).end(), Compression::None);
    let (kept, unused) = (image(vec![base.clone(), own("kept")]), image(vec![base.clone(), own("unused")]));
    f.store.ensure(&kept).await.unwrap();
    f.store.ensure(&unused).await.unwrap();
    let named: HashSet<Digest> = chain::ids(&kept.layers).into_iter().collect();
    assert_eq!(named.len(), 2);
    assert_eq!(f.store.collect(&move || named.clone()).await.unwrap(), [chain::id(&unused.layers)]);
    // It costs its own layer to have it again.
    let before = f.opened().len();
    f.store.ensure(&unused).await.unwrap();
    assert_eq!(f.opened().len(), before + 1);
    // Nobody names any: all go, and what was made from the base keeps its files until then.
    let root = f.store.ensure(&kept).await.unwrap();
    let only_image = HashSet::from([chain::id(&kept.layers)]);
    assert_eq!(f.store.collect(&move || only_image.clone()).await.unwrap().len(), 2);
    assert_eq!(entries(&root), ["base", "kept", "last"]);
    assert_eq!(fs::metadata(root.join("base")).unwrap().len(), 5 << 20);
    assert_eq!(f.store.collect(&HashSet::new).await.unwrap().len(), 1);
    f.nothing_left();
}

/// The limit is on the image, whatever of it was there before.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_counts_towards_the_limit_of_an_image() {
    let f = Fixture::with(|config| config.max_unpacked_bytes = 8 << 20).await;
    let base = f.layer(large("base").end(), Compression::None);
    let more = f.layer(large("more").end(), Compression::None);
    f.store.ensure(&image(vec![base.clone()])).await.unwrap();
    let error = f.store.ensure(&image(vec![base, more])).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::LayerRefused { refusal: Refusal::TooManyBytes, .. }), "{error:?}");
    assert_eq!(entries(&f.scratch.pool().join("images")).len(), 1);
    assert_eq!(f.blobs(), [""; 0]);
}

/// An archive is one layer of an image as any other, wherever it stands: what is made of it is private and counts, what it
/// stands on is neither.
#[tokio::test(flavor = "multi_thread")]
async fn archives_share_trees_and_only_what_is_made_of_them_is_private() {
    let f = Fixture::with(|config| config.keep = Duration::from_secs(3600)).await;
    // Counting is on, as where an agent runs.
    let config = PoolConfig { pool: f.scratch.pool(), mounts: f.scratch.mounts(), quota: QuotaMode::Simple };
    BtrfsPool::open(config).await.unwrap();
    let base = f.layer(large("base").end(), Compression::None);
    let (mine, more) = (exported(&f, "mine"), exported(&f, "more"));
    // The same blob, taken for an ordinary layer.
    let plain = Layer { archive_bytes: None, ..mine.clone() };
    let own = f.layer(small("own").end(), Compression::None);
    let images = [
        (image(vec![base.clone()]), &["base", "last"][..], 0),
        (image(vec![mine.clone()]), &["mine"], 1),
        (image(vec![base.clone(), mine.clone()]), &["base", "last", "mine"], 1),
        (image(vec![mine.clone(), own]), &["last", "mine", "own"], 1),
        (image(vec![mine.clone(), more]), &["mine", "more"], 2),
        (image(vec![base, plain]), &["base", "container.json", "last", "rootfs"], 0),
    ];
    // All at once, and each tree is made once: six images, of which two begin with the base and two with the archive.
    let made = futures::future::join_all(images.iter().map(|(image, ..)| f.store.ensure(image))).await;
    assert_eq!(entries(&f.scratch.pool().join("images")).len(), 6);
    for ((_, names, archives), root) in images.iter().zip(made) {
        let root = root.unwrap();
        assert_eq!(entries(&root), *names);
        let counted = xattr::get(&root, "trusted.hoody.inherited_bytes").unwrap();
        let counted = counted.map(|text| String::from_utf8(text).unwrap().parse::<u64>().unwrap());
        // Some metadata counts as well, but never what is below an archive.
        let expected = (*archives > 0).then(|| archives * NOISE_BYTES..archives * NOISE_BYTES + (1 << 20));
        assert_eq!(expected.is_some(), counted.is_some(), "{names:?}: {counted:?}");
        assert!(expected.is_none_or(|range| range.contains(&counted.unwrap())), "{names:?}: {counted:?}");
    }
    assert_eq!(f.blobs(), [""; 0]);
    // Somebody has the image above the archive: it and the archive stay, and so does whatever is not private.
    let names = |kept: &[&ImageSpec]| -> Vec<String> {
        let mut trees: Vec<String> = kept.iter().map(|image| tree(image)).collect();
        trees.sort();
        trees
    };
    let left = || entries(&f.scratch.pool().join("images"));
    let [(base, ..), (alone, ..), _, (above, ..), _, (plain, ..)] = &images;
    let named: HashSet<Digest> = chain::ids(&above.layers).into_iter().collect();
    assert_eq!(f.store.collect(&move || named.clone()).await.unwrap().len(), 2);
    assert_eq!(left(), names(&[base, alone, above, plain]));
    assert_eq!(f.store.collect(&HashSet::new).await.unwrap().len(), 2);
    assert_eq!(left(), names(&[base, plain]));
}
