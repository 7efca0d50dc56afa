//! On both databases: what is written is read back, and only what holds is mountable.

use super::*;
use crate::store::{
    Store,
    image::tests::{image, insert_container},
    testing::each_backend,
};
use hoody_protocol::time::now_ms;

async fn world(store: &Store) -> (super::super::container::ContainerRow, super::super::container::ContainerRow) {
    let spec = image("debian/12", b"x").spec;
    let (source, target) = (insert_container(store, &spec).await, insert_container(store, &spec).await);
    let mut rows = Vec::new();
    for id in [source, target] {
        rows.push(super::super::container::get(store, id).await.unwrap().unwrap());
    }
    // On one server.
    let mut tx = store.begin().await.unwrap();
    sqlx::query("UPDATE containers SET server_id = $1")
        .bind(rows[0].server.to_string())
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let (target, source) = (rows.pop().unwrap(), rows.pop().unwrap());
    (source, target)
}

fn share(source: &super::super::container::ContainerRow, target: Target) -> Share {
    Share {
        id: ShareId::generate(),
        source: source.spec.id,
        path: "/srv/data".to_owned(),
        target,
        readonly: true,
        alias: Some("data".to_owned()),
        place: Some("/srv/shared".to_owned()),
        label: None,
        description: Some("what is it".to_owned()),
        enabled: true,
        accepted: true,
        expires_at: None,
        expires_in_ms: false,
        expiry_notified: false,
        expired: false,
        created_by: source.spec.owner,
        created_at: 5,
        updated_at: 5,
        owner: source.spec.owner,
        project: source.spec.project,
        server: source.server,
        realms: source.realm_ids.clone(),
    }
}

#[tokio::test]
async fn only_what_holds_is_mountable() {
    each_backend(|store| async move {
        let (source, target) = world(&store).await;
        let to_project = share(&source, Target::Project(target.spec.project));
        let mut one = share(&source, Target::Container(target.spec.id));
        one.created_at = 6;
        one.updated_at = 6;
        let mut tx = store.begin().await.unwrap();
        for share in [&to_project, &one] {
            insert(&mut tx, share).await.unwrap();
            assert_eq!(lock(&mut tx, share.id).await.unwrap().as_ref(), Some(share));
        }
        let now = now_ms() as i64;
        let (id, project) = (target.spec.id, target.spec.project);
        let found = async |tx: &mut AnyConnection| {
            let found = mountable(tx, id, project, source.server, now).await.unwrap();
            found.into_iter().map(|share| share.id).collect::<Vec<_>>()
        };
        assert_eq!(found(&mut tx).await, [to_project.id, one.id], "oldest first");
        assert_eq!(mountable(&mut tx, id, project, ServerId::generate(), now).await.unwrap(), [], "another server");
        assert_eq!(mountable(&mut tx, source.spec.id, project, source.server, now).await.unwrap(), [], "the source");
        choose(&mut tx, to_project.id, id, false).await.unwrap();
        assert_eq!(found(&mut tx).await, [one.id], "refused");
        choose(&mut tx, to_project.id, id, true).await.unwrap();
        let choice = choice(&mut *tx, to_project.id, id).await.unwrap().unwrap();
        assert!(choice.mount && choice.updated_at >= choice.created_at);
        for change in [
            Share { enabled: false, ..one.clone() },
            Share { expires_at: Some(now), ..one.clone() },
            Share { expired: true, ..one.clone() },
        ] {
            update(&mut tx, &change).await.unwrap();
            assert_eq!(found(&mut tx).await, [to_project.id], "{change:?}");
        }
        update(&mut tx, &one).await.unwrap();
        let sql = "UPDATE containers SET deleted_at = 1 WHERE id = $1";
        sqlx::query(sql).bind(source.spec.id.to_string()).execute(&mut *tx).await.unwrap();
        assert_eq!(found(&mut tx).await, [], "the source is being deleted");
        // With the row of the source, or of the target, its shares go.
        super::super::container::purge(&mut tx, id).await.unwrap();
        assert_eq!(get(&mut *tx, one.id).await.unwrap(), None);
        super::super::container::purge(&mut tx, source.spec.id).await.unwrap();
        assert_eq!(get(&mut *tx, to_project.id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn ends_are_found_once() {
    each_backend(|store| async move {
        let (source, target) = world(&store).await;
        let mut one = share(&source, Target::Container(target.spec.id));
        one.expires_at = Some(1000);
        let mut tx = store.begin().await.unwrap();
        insert(&mut tx, &one).await.unwrap();
        assert_eq!(
            (due(&mut *tx, 999, 9).await.unwrap(), due(&mut *tx, 1000, 9).await.unwrap()),
            (vec![], vec![one.id])
        );
        assert_eq!(ending(&mut *tx, 1000, 9).await.unwrap(), [one.id]);
        one.expiry_notified = true;
        update(&mut tx, &one).await.unwrap();
        assert_eq!(ending(&mut *tx, 1000, 9).await.unwrap(), []);
        one.expired = true;
        update(&mut tx, &one).await.unwrap();
        assert_eq!(due(&mut *tx, 1000, 9).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn lists_show_what_a_user_sees() {
    each_backend(|store| async move {
        let (source, target) = world(&store).await;
        let one = share(&source, Target::Container(target.spec.id));
        let mut tx = store.begin().await.unwrap();
        insert(&mut tx, &one).await.unwrap();
        tx.commit().await.unwrap();
        let all = crate::store::scope::Scope::default();
        let seen = async |user, side| list(&store, user, side, &all, None).await.unwrap().len();
        let (source_owner, target_owner) = (source.spec.owner, target.spec.owner);
        assert_eq!((seen(source_owner, Side::Outgoing).await, seen(source_owner, Side::Incoming).await), (1, 0));
        assert_eq!((seen(target_owner, Side::Outgoing).await, seen(target_owner, Side::Incoming).await), (0, 1));
        let other = UserId::generate();
        assert_eq!((seen(other, Side::Outgoing).await, seen(other, Side::Incoming).await), (0, 0));
        let realm = RealmId::generate();
        assert_eq!(list(&store, source_owner, Side::Outgoing, &all, Some(realm)).await.unwrap(), []);
        assert_eq!(of_source(store.reader(), source.spec.id).await.unwrap(), std::slice::from_ref(&one));
        assert_eq!(incoming(store.reader(), target.spec.id, target.spec.project).await.unwrap(), [one]);
    })
    .await;
}
