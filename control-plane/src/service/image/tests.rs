//! Tests of the catalogue on both databases.

use super::*;
use crate::store::{
    image::tests::{image, insert_container, put_image},
    testing::each_backend,
};
use hoody_protocol::image::Digest;

fn write_blob(data: &Path, content: &[u8]) -> Digest {
    let digest = Digest::of(content);
    std::fs::create_dir_all(data.join("blobs")).unwrap();
    std::fs::write(blob_path(data, digest), content).unwrap();
    digest
}

#[tokio::test]
async fn deleting_an_image_spares_the_blobs_that_others_name() {
    each_backend(|store| async move {
        let data = tempfile::tempdir().unwrap();
        let deleted = put_image(&store, &image("debian/12", b"deleted")).await;
        let running = put_image(&store, &image("debian/11", b"running")).await;
        put_image(&store, &image("alpine/3", b"other")).await;
        insert_container(&store, &running.spec).await;
        let digests = [&b"deleted"[..], b"running", b"other"].map(|content| write_blob(data.path(), content));
        for id in [deleted.id, running.id] {
            delete(&store, data.path(), id).await.unwrap();
        }
        let left = digests.map(|digest| blob_path(data.path(), digest).exists());
        assert_eq!(left, [false, true, true]);
        assert!(matches!(delete(&store, data.path(), deleted.id).await, Err(ServiceError::NotFound("image"))));
    })
    .await;
}

#[tokio::test]
async fn nothing_is_collected_while_an_import_goes_on() {
    let (_folder, store) = crate::store::testing::sqlite().await;
    let data = tempfile::tempdir().unwrap();
    let digest = write_blob(data.path(), b"half an image");
    let import = BlobFolder::lock(data.path(), Duration::ZERO).unwrap();
    let refused = collect_blobs(&store, data.path()).await;
    assert!(matches!(refused, Err(CollectError::Blob(BlobError::Busy(_)))), "{refused:?}");
    assert!(blob_path(data.path(), digest).exists());
    drop(import);
    assert_eq!(collect_blobs(&store, data.path()).await.unwrap(), Collected { blobs: 1, bytes: 13 });
}

#[tokio::test]
async fn bounds_are_validated_and_applied() {
    let (_folder, store) = crate::store::testing::sqlite().await;
    put_image(&store, &image("debian/12", b"one")).await;
    let list = async |price: Bounds, rating: Bounds| {
        super::list(&store, Wanted { price, rating, ..Wanted::default() }, Order::Name, 20, 0).await.map(|(_, n)| n)
    };
    let bounds = |min, max| Bounds { min, max };
    let any = Bounds::default();
    assert_eq!(list(any, any).await.unwrap(), 1);
    assert_eq!(list(bounds(Some(0.0), Some(5.0)), bounds(Some(0.0), Some(5.0))).await.unwrap(), 1);
    assert_eq!(list(bounds(Some(0.01), None), any).await.unwrap(), 0);
    assert_eq!(list(any, bounds(Some(0.5), None)).await.unwrap(), 0);
    for (price, rating, field) in [
        (bounds(Some(-1.0), None), any, "min_price"),
        (bounds(None, Some(f64::NAN)), any, "max_price"),
        (bounds(Some(2.0), Some(1.0)), any, "min_price"),
        (any, bounds(None, Some(5.1)), "max_rating"),
    ] {
        match list(price, rating).await {
            Err(ServiceError::Invalid(details)) => assert!(details.contains_key(field), "{field}: {details:?}"),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn clients_names_are_resolved_against_the_catalogue() {
    let (_folder, store) = crate::store::testing::sqlite().await;
    for name in ["debian/11", "debian/12"] {
        put_image(&store, &image(name, name.as_bytes())).await;
    }
    for (wanted, found) in [("debian", Some("debian/12")), ("debian:11", Some("debian/11")), ("ubuntu", None)] {
        let row = resolve(&store, wanted).await.unwrap();
        assert_eq!(row.as_ref().map(|row| row.name.as_str()), found, "{wanted}");
    }
}
