//! Collection of images that no container names.

use super::*;
use std::collections::HashSet;

/// Bytes that do not fit beside what the tests leave.
const HUGE: u64 = 1 << 30;

fn none() -> HashSet<Digest> {
    HashSet::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_go_when_nobody_names_them_for_long_and_never_before() {
    let f = Fixture::with(|config| config.keep = Duration::from_secs(3600)).await;
    let (one, two) = (f.image([Archive::default().file("x", b"1")]), f.image([Archive::default().file("x", b"2")]));
    f.store.ensure(&one).await.unwrap();
    f.store.ensure(&two).await.unwrap();
    assert_eq!(f.store.collect(&none).await.unwrap(), []);

    let mark = |image: &ImageSpec| f.scratch.pool().join("used").join(tree(image));
    let grow_old = |image: &ImageSpec| run("touch", ["-d", "2 hours ago", mark(image).to_str().unwrap()]);
    grow_old(&one);
    grow_old(&two);
    let named = chain::id(&one.layers);
    let deleted = f.store.collect(&move || HashSet::from([named])).await.unwrap();
    assert_eq!(deleted, [chain::id(&two.layers)]);
    assert_eq!(entries(&f.scratch.pool().join("images")), [tree(&one)]);
    assert_eq!(entries(&f.scratch.pool().join("used")), [tree(&one)]);
    // Being named was its last use.
    assert_eq!(f.store.collect(&none).await.unwrap(), []);
    // So is being asked for.
    grow_old(&one);
    f.store.ensure(&one).await.unwrap();
    assert_eq!(f.store.collect(&none).await.unwrap(), []);
    // The age outlives the agent; where the mark is lost it begins anew.
    grow_old(&one);
    let again =
        ImageStore::open(ImageConfig { keep: Duration::from_secs(3600), ..config(&f.scratch) }, f.source.clone());
    let again = again.await.unwrap();
    fs::remove_file(mark(&one)).unwrap();
    assert_eq!(again.collect(&none).await.unwrap(), []);
    grow_old(&one);
    assert_eq!(again.collect(&none).await.unwrap(), [chain::id(&one.layers)]);
    assert_eq!(again.collect(&none).await.unwrap(), []);
    f.nothing_left();
    again.ensure(&one).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_fit_makes_the_unused_ones_go() {
    let f = Fixture::new().await;
    let (kept, unused) = (f.image([Archive::default().file("x", b"1")]), f.image([Archive::default().file("x", b"2")]));
    f.store.ensure(&kept).await.unwrap();
    f.store.ensure(&unused).await.unwrap();
    let huge = image(vec![Layer {
        digest: Digest::of(b"?"),
        size: HUGE,
        compression: Compression::None,
        archive_bytes: None,
    }]);
    let refused = f.store.ensure(&huge).await.unwrap_err();
    assert!(matches!(refused.root(), ImageError::NoSpace { .. }), "{refused:?}");
    tokio::time::timeout(Duration::from_secs(10), f.store.short_of_room()).await.unwrap();
    let named = chain::id(&kept.layers);
    assert_eq!(f.store.collect(&move || HashSet::from([named])).await.unwrap(), [chain::id(&unused.layers)]);
    // Room is short until somebody says so again.
    assert_eq!(f.store.collect(&none).await.unwrap(), []);
}

/// Somebody comes to name an image just after it was seen that nobody does: it is made again, and not deleted
/// behind the back of who has found it.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_never_deleted_from_under_somebody_who_names_it() {
    let f = Arc::new(Fixture::with(|config| config.keep = Duration::ZERO).await);
    let spec = f.image([Archive::default().file("x", b"1")]);
    f.store.ensure(&spec).await.unwrap();
    let (seen, begin) = tokio::sync::oneshot::channel();
    let (found, finding) = std::sync::mpsc::channel();
    let user = tokio::spawn({
        let (f, spec) = (f.clone(), spec.clone());
        async move {
            begin.await.unwrap();
            let root = f.store.ensure(&spec).await.unwrap();
            // The collector may be gone already.
            let _ = found.send(());
            root
        }
    });
    let once = Mutex::new(Some((seen, finding)));
    let in_use = move || {
        if let Some((seen, finding)) = once.lock().unwrap().take() {
            seen.send(()).unwrap();
            // Where nothing holds the user back, it finds the image now.
            let _ = finding.recv_timeout(Duration::from_millis(500));
        }
        HashSet::new()
    };
    assert_eq!(f.store.collect(&in_use).await.unwrap(), [chain::id(&spec.layers)]);
    let root = user.await.unwrap();
    assert_eq!(fs::read(root.join("x")).unwrap(), b"1", "deleted after it was found");
}
