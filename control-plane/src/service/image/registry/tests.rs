//! Pulls from a registry that is honest, slow of mind or hostile.

use super::{
    testing::{Answer, INDEX, MANIFEST, TestRegistry},
    *,
};
use crate::{
    config::Registries,
    service::image::{blob_path, blobs::BlobError},
};
use hoody_protocol::{address::NotPublic, id::UserId, image::Digest};
use serde_json::{Value, json};
use std::collections::HashSet;
use zeroize::Zeroizing;

struct Fixture {
    data: tempfile::TempDir,
    registry: TestRegistry,
    settings: Registries,
    credentials: Option<Credentials>,
    holder: Holder,
}

impl Fixture {
    async fn new() -> Self {
        let registry = TestRegistry::start().await;
        let settings = Registries {
            allowed_networks: vec!["127.0.0.1/32".parse().unwrap()],
            plain_http: vec![registry.address.to_string()],
            certificate: None,
            max_image_bytes: 1 << 20,
        };
        Self { data: tempfile::tempdir().unwrap(), registry, settings, credentials: None, holder: Holder::Operator }
    }

    async fn pull(&self, rest: &str) -> Result<(ImageSpec, (u64, u64)), PullError> {
        self.pull_with(rest, |_| {}).await
    }

    async fn pull_with(
        &self,
        rest: &str,
        patience: impl FnOnce(&mut client::Patience),
    ) -> Result<(ImageSpec, (u64, u64)), PullError> {
        let mut client = Registry::new(&self.settings, Vec::new()).await.unwrap();
        patience(&mut client.patience);
        let request = PullRequest {
            reference: self.registry.reference(rest).parse().unwrap(),
            platform: "linux/amd64".parse().unwrap(),
            credentials: self.credentials.clone(),
            max_bytes: self.settings.max_image_bytes,
            holder: self.holder.clone(),
        };
        let progress = Progress::default();
        let pulled = pull(&client, &request, &Traces::new(self.data.path()), &progress).await?;
        Ok((pulled.spec, progress.bytes()))
    }

    /// Everything in the blob folder but its lock.
    fn files(&self) -> Vec<String> {
        let folder = std::fs::read_dir(self.data.path().join("blobs"));
        let names = folder.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != ".lock").collect()
    }
}

impl Fixture {
    /// Waits until the threads that wrote have ended.
    async fn nothing_left(&self) {
        let gone = async {
            while !self.files().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), gone).await;
        assert!(waited.is_ok(), "left: {:?}", self.files());
    }
}

/// A plain layer, which is not looked into here.
fn layer(seed: u8) -> Vec<u8> {
    (0..200_000u32).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed) & 0x7f).collect()
}

#[tokio::test]
async fn an_image_is_found_by_platform_and_its_layers_become_blobs() {
    let fixture = Fixture::new().await;
    let (one, two) = (layer(1), layer(2));
    let other = fixture.registry.image("app/web", None, "arm64", &[&one]);
    let ours = fixture.registry.image("app/web", None, "amd64", &[&one, &two, &one]);
    let with_platform = |mut descriptor: Value, architecture: &str| {
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        descriptor
    };
    let manifests = json!([with_platform(other, "arm64"), with_platform(ours.clone(), "amd64")]);
    let index = fixture.registry.document("app/web", INDEX, Some("v1"), &json!({"manifests": manifests}));

    let (spec, bytes) = fixture.pull("app/web:v1").await.unwrap();
    let digests: Vec<Digest> = spec.layers.iter().map(|layer| layer.digest).collect();
    assert_eq!(digests, [Digest::of(&one), Digest::of(&two), Digest::of(&one)]);
    assert_eq!(std::fs::read(blob_path(fixture.data.path(), digests[1])).unwrap(), two);
    assert_eq!((bytes, fixture.files().len()), ((400_000, 400_000), 2), "each distinct layer once");
    assert_eq!((spec.config.command.len(), spec.config.user.as_str()), (1, "www"));

    // What is there is not fetched again, by whatever name.
    let before = fixture.registry.asked(&format!("app/web/blobs/{}", digests[1])).len();
    let (again, _) = fixture.pull(&format!("app/web@{}", index["digest"].as_str().unwrap())).await.unwrap();
    assert_eq!(again, spec);
    assert_eq!(fixture.registry.asked(&format!("app/web/blobs/{}", digests[1])).len(), before);
    assert!(matches!(fixture.pull("app/web:v2").await, Err(PullError::NotFound(_))));
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_was() {
    let fixture = Fixture::new().await;
    let content = layer(3);
    fixture.registry.image("app", Some("v1"), "amd64", &[&content]);
    let path = format!("app/blobs/{}", Digest::of(&content));
    fixture.registry.put(&path, Answer::BrokenOnce(150_000, content.clone()));
    let (_, bytes) = fixture.pull("app:v1").await.unwrap();
    assert_eq!(bytes, (200_000, 200_000));
    let ranges: Vec<String> = fixture.registry.asked(&path).into_iter().map(|(range, _)| range).collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    let from: u64 = ranges[1].strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    assert!((1..=150_000).contains(&from), "{ranges:?}");
    assert_eq!(std::fs::read(blob_path(fixture.data.path(), Digest::of(&content))).unwrap(), content);
}

#[tokio::test]
async fn what_another_process_began_is_gone_on_with_and_damage_is_noticed() {
    let fixture = Fixture::new().await;
    let content = layer(4);
    fixture.registry.image("app", Some("v1"), "amd64", &[&content]);
    let digest = Digest::of(&content);
    blobs::make_folder(fixture.data.path()).unwrap();
    let begun = blobs::partial_path(fixture.data.path(), "", digest);
    std::fs::write(&begun, &content[..1000]).unwrap();
    fixture.pull("app:v1").await.unwrap();
    assert_eq!(fixture.registry.asked(&format!("app/blobs/{digest}"))[0].0, "bytes=1000-");

    std::fs::remove_file(blob_path(fixture.data.path(), digest)).unwrap();
    std::fs::write(&begun, b"damaged").unwrap();
    let refused = fixture.pull("app:v1").await;
    assert!(matches!(refused, Err(PullError::Blob(BlobError::Mismatch { .. }))), "{refused:?}");
    fixture.pull("app:v1").await.unwrap();
}

#[tokio::test]
async fn who_only_knows_a_digest_does_not_get_the_layer() {
    let mut fixture = Fixture::new().await;
    let secret = layer(12);
    let digest = Digest::of(&secret);
    fixture.registry.image("private", Some("v1"), "amd64", &[&secret]);
    let owner = Holder::Account(UserId::generate(), HashSet::new());
    fixture.holder = owner.clone();
    fixture.pull("private:v1").await.unwrap();
    let path = format!("app/blobs/{digest}");
    fixture.registry.image("app", Some("v1"), "amd64", &[&secret]);
    fixture.registry.put(&path, Answer::Content("application/octet-stream", b"nothing of it".to_vec()));

    fixture.holder = Holder::Account(UserId::generate(), HashSet::new());
    fixture.pull("app:v1").await.unwrap_err();
    // Nor where its owner's transfer is about to end.
    std::fs::write(blobs::partial_path(fixture.data.path(), &owner.prefix(), digest), &secret).unwrap();
    fixture.pull("app:v1").await.unwrap_err();
    assert!(!fixture.registry.asked(&path).is_empty(), "it was not asked for");

    // Who has it need not fetch it again.
    fixture.holder = Holder::Account(UserId::generate(), HashSet::from([digest]));
    fixture.pull("app:v1").await.unwrap();
}

#[tokio::test]
async fn other_bytes_than_announced_leave_nothing() {
    let fixture = Fixture::new().await;
    let content = layer(5);
    fixture.registry.image("app", Some("v1"), "amd64", &[&content]);
    let path = format!("app/blobs/{}", Digest::of(&content));
    fixture.registry.put(&path, Answer::Content("x", layer(6)));
    let refused = fixture.pull("app:v1").await;
    assert!(matches!(refused, Err(PullError::Blob(BlobError::Mismatch { .. }))), "{refused:?}");
    fixture.registry.put(&path, Answer::Endless);
    let refused = fixture.pull("app:v1").await;
    assert!(matches!(refused, Err(PullError::TooLong { .. })), "{refused:?}");
    fixture.nothing_left().await;
}

#[tokio::test]
async fn documents_are_bounded_and_have_their_digest() {
    let fixture = Fixture::new().await;
    fixture.registry.put("app/manifests/endless", Answer::Endless);
    assert!(matches!(fixture.pull("app:endless").await, Err(PullError::Large { .. })));

    let mut descriptor = fixture.registry.image("app", None, "amd64", &[&layer(7)]);
    for depth in 0..6 {
        let tag = format!("deep{depth}");
        descriptor = fixture.registry.document("app", INDEX, Some(&tag), &json!({"manifests": [descriptor]}));
    }
    let refused = fixture.pull("app:deep5").await;
    assert!(matches!(refused, Err(PullError::Import(ImportError::Limit { .. }))), "{refused:?}");
    fixture.pull("app:deep3").await.unwrap();

    let pinned = Digest::of(b"another document");
    fixture.registry.put(&format!("app/manifests/{pinned}"), Answer::Content(MANIFEST, b"{}".to_vec()));
    let refused = fixture.pull(&format!("app@{pinned}")).await;
    assert!(matches!(refused, Err(PullError::Import(ImportError::Blob(_)))), "{refused:?}");

    fixture.registry.image("app", Some("arm"), "arm64", &[&layer(7)]);
    let refused = fixture.pull("app:arm").await.unwrap_err();
    assert_eq!(refused.cause().code.as_str(), "image_platform", "{refused}");
}

#[tokio::test]
async fn an_image_over_the_limit_is_not_begun() {
    let fixture = Fixture::new().await;
    let layers: Vec<Vec<u8>> = (0..6).map(layer).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    fixture.registry.image("app", Some("v1"), "amd64", &layers);
    let refused = fixture.pull("app:v1").await;
    assert!(matches!(refused, Err(PullError::ImageTooLarge { bytes: 1_200_000, .. })), "{refused:?}");
    assert!(fixture.registry.asked(&format!("app/blobs/{}", Digest::of(layers[0]))).is_empty());
}

#[tokio::test]
async fn nobody_is_led_to_where_a_pull_must_not_go() {
    let mut fixture = Fixture::new().await;
    let content = layer(8);
    fixture.registry.image("app", Some("v1"), "amd64", &[&content]);
    let path = format!("app/blobs/{}", Digest::of(&content));
    let port = fixture.registry.address.port();
    for (target, expected) in [
        ("https://127.0.0.2/x".to_owned(), Some(NotPublic::Loopback)),
        ("https://169.254.169.254/latest/meta-data/".to_owned(), Some(NotPublic::LinkLocal)),
        ("https://[::1]/x".to_owned(), Some(NotPublic::Loopback)),
        // "localhost" is not in the operator's list, whatever it resolves to.
        (format!("http://localhost:{port}/v2/{path}"), None),
        ("file:///etc/passwd".to_owned(), None),
    ] {
        fixture.registry.put(&path, Answer::Redirect(target.clone()));
        match (fixture.pull("app:v1").await.unwrap_err(), expected) {
            (PullError::Address { why, .. }, Some(expected)) => assert_eq!(why, expected, "{target}"),
            (PullError::Scheme(_), None) => {}
            (other, _) => panic!("{target}: {other:?}"),
        }
    }
    let round = format!("http://{}/v2/{path}", fixture.registry.address);
    fixture.registry.put(&path, Answer::Redirect(round));
    assert!(matches!(fixture.pull("app:v1").await, Err(PullError::Redirects(_))));

    // A name is judged by what it resolves to, and the registry itself like any other place.
    fixture.settings.plain_http.push(format!("localhost:{port}"));
    fixture.settings.allowed_networks.clear();
    let asked = fixture.registry.asked("").len();
    let client = Registry::new(&fixture.settings, Vec::new()).await.unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let request = PullRequest {
            reference: format!("{host}:{port}/app:v1").parse().unwrap(),
            platform: "linux/amd64".parse().unwrap(),
            credentials: None,
            max_bytes: u64::MAX,
            holder: Holder::Operator,
        };
        let refused = pull(&client, &request, &Traces::new(fixture.data.path()), &Progress::default()).await;
        assert!(matches!(refused, Err(PullError::Address { why: NotPublic::Loopback, .. })), "{host}: {refused:?}");
    }
    assert_eq!(fixture.registry.asked("").len(), asked, "nobody was asked");
}

#[tokio::test]
async fn credentials_go_to_the_realm_and_tokens_to_the_registry_alone() {
    let mut fixture = Fixture::new().await;
    let elsewhere = TestRegistry::start().await;
    fixture.settings.plain_http.push(elsewhere.address.to_string());
    let content = layer(9);
    let descriptor = fixture.registry.image("app", None, "amd64", &[&content]);
    let realm = format!("http://{}/v2/token", fixture.registry.address);
    let guarded = |then: Answer| Answer::Guarded {
        challenge: format!("Bearer realm=\"{realm}\",service=\"tests\""),
        authorization: "Bearer open-sesame",
        then: Box::new(then),
    };
    let basic = |then: Answer| Answer::Guarded {
        challenge: "Basic".to_owned(),
        authorization: "Basic YW5uOnNlY3JldC13b3Jk",
        then: Box::new(then),
    };
    let token = json!({"access_token": "open-sesame"}).to_string().into_bytes();
    fixture.registry.put("token", basic(Answer::Content("application/json", token)));
    let digest = descriptor["digest"].as_str().unwrap();
    let manifests = json!({"manifests": [descriptor]}).to_string().into_bytes();
    fixture.registry.put("app/manifests/v1", guarded(Answer::Content(INDEX, manifests)));
    let blob = format!("app/blobs/{}", Digest::of(&content));
    fixture.registry.put(&blob, guarded(Answer::Redirect(format!("http://{}/v2/cdn", elsewhere.address))));
    elsewhere.put("cdn", Answer::Content("x", content));

    let refused = fixture.pull("app:v1").await;
    assert!(matches!(refused, Err(PullError::Denied(_))), "{refused:?}");
    let password = Zeroizing::new("secret-word".to_owned());
    fixture.credentials = Some(Credentials { username: "ann".to_owned(), password });
    fixture.pull("app:v1").await.unwrap();
    assert_eq!(elsewhere.asked("cdn"), [(String::new(), String::new())], "no token goes elsewhere");
    let asked = fixture.registry.asked(&format!("app/manifests/{digest}"));
    assert_eq!(asked[0].1, "Bearer open-sesame", "the token is kept");

    // A wrong password is said once and not tried for ever.
    let password = Zeroizing::new("wrong".to_owned());
    fixture.credentials = Some(Credentials { username: "ann".to_owned(), password });
    let refused = fixture.pull("app:v1").await.unwrap_err();
    assert_eq!(refused.cause().code.as_str(), "registry_denied");
    assert!(!format!("{refused:?} {refused}").contains("wrong\""));
}

#[tokio::test]
async fn a_registry_that_hardly_sends_does_not_keep_its_place() {
    let fixture = Fixture::new().await;
    let content = layer(10);
    fixture.registry.image("app", Some("v1"), "amd64", &[&content]);
    let path = format!("app/blobs/{}", Digest::of(&content));
    fixture.registry.put(&path, Answer::Trickle(1000, Duration::from_millis(20), content.clone()));
    let short = |patience: &mut client::Patience| patience.stall = Duration::from_millis(200);
    let refused = tokio::time::timeout(Duration::from_secs(60), fixture.pull_with("app:v1", short)).await;
    let refused = refused.expect("it is waited for on and on");
    assert!(matches!(refused, Err(PullError::Stalled { .. })), "{refused:?}");
    assert_eq!(fixture.registry.asked(&path).len(), pace::MAX_STALLS as usize + 1, "networks fail for a moment");
    fixture.nothing_left().await;

    // Nor does one that answers no question.
    fixture.registry.put("app/manifests/v2", Answer::Silence);
    let short = |patience: &mut client::Patience| patience.find = Duration::from_millis(200);
    let refused = fixture.pull_with("app:v2", short).await;
    assert!(matches!(refused, Err(PullError::Slow(_))), "{refused:?}");
}

#[tokio::test]
async fn a_pull_that_took_too_long_leaves_nothing() {
    let fixture = Fixture::new().await;
    let (small, content) = (layer(13), layer(14));
    fixture.registry.image("app", Some("v1"), "amd64", &[&small, &content]);
    let path = format!("app/blobs/{}", Digest::of(&content));
    fixture.registry.put(&path, Answer::Trickle(1000, Duration::from_secs(1), content));
    let short = |patience: &mut client::Patience| patience.pull = Duration::from_secs(2);
    let refused = fixture.pull_with("app:v1", short).await;
    assert!(matches!(refused, Err(PullError::Deadline(_))), "{refused:?}");
    assert!(!fixture.registry.asked(&path).is_empty());
    fixture.nothing_left().await;
}
