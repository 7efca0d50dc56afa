//! A backup holds everything, goes from one database into the other, and a damaged one changes nothing.

use super::*;
use crate::store::{
    Store, link_testing,
    testing::{self, each_backend},
};
use std::collections::BTreeMap;

async fn filled(store: &Store) {
    crate::store::settings::initialise(store).await.unwrap();
    let server = link_testing::server(store, "one").await;
    let spec = link_testing::container(store, server, 3, vec![]).await;
    link_testing::operation(store, server, spec.id, 4, i64::MAX).await;
    let odd = "UPDATE projects SET color = '''\"\\ \u{e9}\u{1F600}\n', max_containers = 9223372036854775807";
    link_testing::execute(store, odd.to_owned()).await;
}

/// Every row of every table, as a backup has them.
async fn content(store: &Store) -> BTreeMap<String, Vec<String>> {
    let mut file = Vec::new();
    dump(store, &mut file).await.unwrap();
    let text = String::from_utf8(zstd::decode_all(file.as_slice()).unwrap()).unwrap();
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines().skip(1) {
        match serde_json::from_str::<Table>(line) {
            Ok(table) => current = table.table,
            Err(_) if line.starts_with('[') => tables.entry(current.clone()).or_default().push(line.to_owned()),
            Err(_) => {}
        }
    }
    tables.values_mut().for_each(|rows| rows.sort());
    tables
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_into_either_database_and_begins_an_epoch() {
    let (_folder, origin) = testing::sqlite().await;
    filled(&origin).await;
    let mut file = Vec::new();
    let dumped = dump(&origin, &mut file).await.unwrap();
    assert!(dumped.rows >= 6, "{dumped:?}");
    // What a restore makes of it is what an epoch begun there would have made, but for the epoch's number.
    let before = content(&origin).await;
    each_backend(move |store| {
        let (file, before) = (file.clone(), before.clone());
        async move {
            let refused = load(&store, file.as_slice(), Target::Empty).await.unwrap_err();
            assert!(matches!(refused, BackupError::NotEmpty), "{refused}");
            let first = load(&store, file.as_slice(), Target::Replace).await.unwrap();
            assert_eq!((first.rows, first.begun.containers, first.begun.operations), (dumped.rows, 1, 1));
            let after = content(&store).await;
            for table in ["servers", "projects", "settings", "containers", "users", "operations"] {
                assert_eq!(after[table].len(), before[table].len(), "{table}");
            }
            assert_eq!(after["projects"], before["projects"], "what an epoch does not touch is the same");
            // The same backup once more: a version never stands for two contents.
            let again = load(&store, file.as_slice(), Target::Replace).await.unwrap();
            assert!(again.begun.epoch > first.begun.epoch);
            // References are enforced again at once.
            let orphan = "INSERT INTO join_tokens (id, server_id, secret_hash, expires_at, created_at) \
                          VALUES ('a', 'nobody', 'x', 1, 1)";
            let mut tx = store.begin().await.unwrap();
            let broken = sqlx::raw_sql(orphan).execute(&mut *tx).await.map_err(StoreError::from).unwrap_err();
            assert!(matches!(broken, StoreError::MissingReference), "{broken}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_newer_backup_changes_nothing_and_a_served_database_is_not_replaced() {
    each_backend(|store| async move {
        filled(&store).await;
        let mut file = Vec::new();
        dump(&store, &mut file).await.unwrap();
        let before = content(&store).await;
        let text = String::from_utf8(zstd::decode_all(file.as_slice()).unwrap()).unwrap();
        let packed = |text: &str| zstd::encode_all(text.as_bytes(), 3).unwrap();
        let cut: Vec<&str> = text.lines().collect();
        let without_a_row: Vec<&str> =
            text.lines().filter(|line| !line.contains("tenant") && !line.contains("#000")).collect();
        let mut flipped = file.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x40;
        let cases = [
            packed(&cut[..cut.len() - 1].join("\n")),
            packed(&text.replace("{\"rows\":", "{\"rows\":1")),
            packed(&without_a_row.join("\n").replace("max_containers", "max_kontainers")),
            packed(&text.replacen("\"migrations\":[1,", "\"migrations\":[1,2,", 1)),
            packed(&text.replace("hoody-backup-1", "hoody-backup-9")),
            file[..file.len() / 2].to_vec(),
            flipped,
            b"nonsense".to_vec(),
        ];
        for (number, case) in cases.iter().enumerate() {
            let refused = load(&store, case.as_slice(), Target::Replace).await;
            assert!(refused.is_err(), "case {number}");
            assert_eq!(content(&store).await, before, "case {number}");
        }
        crate::store::replica::begin(&store, "serving", None).await.unwrap();
        let refused = load(&store, file.as_slice(), Target::Replace).await.unwrap_err();
        assert!(matches!(refused, BackupError::InUse), "{refused}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_of_one_moment_though_others_write() {
    each_backend(|store| async move {
        filled(&store).await;
        // Two settings that always change together must never be seen apart.
        let write = |value: u32| {
            format!(
                "INSERT INTO settings (key, value) VALUES ('a', '{value}'), ('b', '{value}') \
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            )
        };
        link_testing::execute(&store, write(0)).await;
        let writer = tokio::spawn({
            let store = store.clone();
            async move {
                for value in 1..200 {
                    link_testing::execute(&store, write(value)).await;
                }
            }
        });
        while !writer.is_finished() {
            let settings = content(&store).await.remove("settings").unwrap();
            let value = |key: &str| {
                let found = settings.iter().find(|row| row.starts_with(&format!("[\"{key}\""))).unwrap();
                found.replacen(key, "", 1)
            };
            assert_eq!(value("a"), value("b"));
        }
        writer.await.unwrap();
    })
    .await;
}
