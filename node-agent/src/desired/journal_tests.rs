use super::*;
use hoody_protocol::id::{ContainerId, OperationId};

fn outcome(number: u64) -> Report {
    Report::Outcome(OperationOutcome {
        id: OperationId::from_bytes([number as u8; 12]),
        container: ContainerId::from_bytes([1; 12]),
        failure: None,
        bytes: None,
        at: number,
    })
}

async fn append(journal: &Journal, number: u64) -> Option<u64> {
    let position = journal.append_held(outcome(number)).await?;
    journal.release(position);
    Some(position)
}

async fn positions(journal: &Journal) -> Vec<u64> {
    journal.next_after(0).await.iter().map(|entry| entry.position).collect()
}

#[tokio::test]
async fn entries_survive_a_restart_until_acknowledged_and_positions_never_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    {
        let journal = Journal::open(&path).unwrap();
        for number in 1..=3 {
            assert_eq!(append(&journal, number).await, Some(number));
        }
        journal.acknowledge(1).await;
        assert_eq!(append(&journal, 4).await, Some(4), "the acknowledgement before it is durable too");
        assert_eq!(positions(&journal).await, [2, 3, 4]);
    }
    let journal = Journal::open(&path).unwrap();
    assert_eq!(positions(&journal).await, [2, 3, 4], "what was acknowledged is never sent again");
    journal.acknowledge(4).await;
    journal.acknowledged(4).await;
    assert_eq!(append(&journal, 5).await, Some(5));
    drop(journal);
    let journal = Journal::open(&path).unwrap();
    assert_eq!(positions(&journal).await, [5]);
    journal.acknowledge(5).await;
    assert_eq!(append(&journal, 6).await, Some(6));
    assert_eq!(journal.unacknowledged(), 1);
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_is_no_loss() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path).unwrap();
    append(&journal, 1).await;
    append(&journal, 2).await;
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let journal = Journal::open(&path).unwrap();
    assert_eq!(positions(&journal).await, [1]);
    assert_eq!(journal.lost(), 0);
    assert_eq!(append(&journal, 3).await, Some(2), "what was torn off was never handed out");
}

#[tokio::test]
async fn damage_in_the_middle_costs_the_damaged_lines_alone_and_stays_known_until_it_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path).unwrap();
    for number in 1..=5 {
        append(&journal, number).await;
    }
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    let starts: Vec<usize> = (0..whole.len()).filter(|index| *index == 0 || whole[index - 1] == b'\n').collect();
    let entry = |number: usize| starts[number]..starts.get(number + 1).copied().unwrap_or(whole.len());
    // A flipped bit; a hole of zeros over two lines, as of a page that was never written; both.
    let flip = |bytes: &mut Vec<u8>, number: usize| bytes[entry(number).start + 20] ^= 1;
    let hole = |bytes: &mut Vec<u8>, first: usize| bytes[entry(first).start..entry(first + 1).end].fill(0);
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);
    let cases: [(Damage<'_>, &[u64]); 4] = [
        (&|bytes| flip(bytes, 2), &[1, 3, 4, 5]),
        (&|bytes| hole(bytes, 2), &[1, 5]),
        (&|bytes| bytes[entry(0)].fill(b'x'), &[2, 3, 4, 5]),
        (&|bytes| bytes.fill(0), &[]),
    ];
    for (number, (damage, kept)) in cases.into_iter().enumerate() {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let journal = Journal::open(&path).unwrap();
        let lost = journal.lost();
        assert!(lost > 0, "case {number}");
        if !kept.is_empty() {
            assert_eq!(positions(&journal).await, kept, "case {number}");
        }
        let next = append(&journal, 6).await.unwrap();
        assert!(next > 1_000_000, "a position that may have been given is not given again: {next}");
        drop(journal);
        // Not forgotten by an agent that ends before it could say so.
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.lost(), lost, "case {number}");
        assert_eq!(journal.unacknowledged(), kept.len() + 1);
        journal.loss_reported();
        assert_eq!(journal.lost(), 0);
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().lost(), 0);
    }
}

#[tokio::test]
async fn without_room_for_a_new_file_the_old_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path).unwrap();
    append(&journal, 1).await;
    append(&journal, 2).await;
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    // Nothing can be written beside it.
    let beside = path.with_extension("tmp");
    std::fs::create_dir(&beside).unwrap();
    let journal = Journal::open(&path).unwrap();
    append(&journal, 2).await;
    assert_eq!(positions(&journal).await, [1, 2]);
    drop(journal);
    std::fs::remove_dir(&beside).unwrap();
    assert_eq!(positions(&Journal::open(&path).unwrap()).await, [1, 2]);
}

#[tokio::test]
async fn a_held_entry_and_what_follows_it_wait_for_its_release() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("journal")).unwrap();
    append(&journal, 1).await;
    let held = journal.append_held(outcome(2)).await.unwrap();
    append(&journal, 3).await;
    assert_eq!(positions(&journal).await, [1]);
    journal.release(held);
    assert_eq!(positions(&journal).await, [1, 2, 3]);
}

#[test]
fn impossible_positions_count_as_damage() {
    let entry = |position| ReportEntry { position, report: outcome(1) };
    let file = |next: u64, positions: &[u64]| {
        let entries = positions.iter().map(|position| entry(*position)).collect();
        String::from_utf8(lines::content(next, &entries)).unwrap().into_bytes()
    };
    for (bytes, kept) in [
        (file(0, &[]), 0),
        (file(u64::MAX, &[1]), 1),
        (file(1, &[0, 1]), 1),
        (file(1, &[1, u64::MAX]), 1),
        (file(1, &[2, 2, 1, 3]), 2),
        (lines::with_checksums(format!("1\n{{\"acked\":{}}}\n", u64::MAX).as_bytes()), 0),
    ] {
        let loaded = lines::read(&bytes);
        assert!(loaded.damaged > 0, "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(loaded.entries.len(), kept);
        assert!(loaded.acked() < loaded.next);
    }
}
