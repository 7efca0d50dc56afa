//! What a first process wrote: kept beyond its runs, in two parts, and read across them.

use crate::harness::{Node, PATIENCE, until};
use hoody_agent::{
    logs::{self, Logs},
    runtime::Runtime,
};
use hoody_protocol::{id::ContainerId, logs::LogRequest};
use tokio::time::timeout;

fn request(container: ContainerId) -> LogRequest {
    LogRequest {
        container,
        tail: None,
        since: None,
        until: None,
        output: true,
        error: true,
        after: None,
        follow: false,
    }
}

async fn lines(logs: &Logs, request: LogRequest) -> Vec<String> {
    let mut reader = logs.reader(&request);
    let (mut found, mut begun) = (Vec::new(), String::new());
    loop {
        let (next, batch) = timeout(PATIENCE, reader.next(1 << 20)).await.expect("in time");
        let batch = batch.unwrap();
        for record in &*batch.records {
            begun.push_str(&String::from_utf8_lossy(&record.text));
            // What comes faster than conmon reads arrives in parts.
            if !record.partial {
                found.push(std::mem::take(&mut begun));
            }
        }
        if batch.end {
            return found;
        }
        reader = next;
    }
}

#[tokio::test]
async fn it_survives_runs_and_ends_with_the_container() {
    let node = Node::new();
    let logs = Logs::new(node.config.log_dir.clone());
    let bundle = node.bundle(&["/bin/sh", "-c", "echo first; echo problem >&2"]);
    for _ in 0..2 {
        node.run(&bundle).await;
        timeout(PATIENCE, node.runtime.wait(bundle.id)).await.unwrap().unwrap();
        node.runtime.delete(bundle.id).await.unwrap();
    }
    let mut all = lines(&logs, request(bundle.id)).await;
    all.sort();
    assert_eq!(all, ["first", "first", "problem", "problem"]);
    let errors = LogRequest { output: false, ..request(bundle.id) };
    assert_eq!(lines(&logs, errors).await, ["problem", "problem"]);
    node.runtime.forget(bundle.id).await.unwrap();
    assert_eq!(std::fs::read_dir(&node.config.log_dir).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_replaced_is_kept_as_the_previous_part() {
    let mut node = Node::new();
    node.config.log_max_bytes = 64 << 10;
    node.runtime = hoody_agent::runtime::OciRuntime::new(node.config.clone()).unwrap();
    let logs = Logs::new(node.config.log_dir.clone());
    let keeping = tokio::spawn(logs::keep(logs.clone()));
    // A third of a part at a time, and the next when that was read: a reader that keeps up misses nothing.
    let script = "i=0; while test $i -lt 3000; do echo line $i of a log that starts over; i=$((i+1)); \
        test $((i%200)) = 0 && while ! test -e /tmp/read-$i; do sleep 0.01; done; done; exec sleep 1000";
    let bundle = node.bundle(&["/bin/sh", "-c", script]);
    node.run(&bundle).await;
    let follow = LogRequest { follow: true, ..request(bundle.id) };
    let mut reader = logs.reader(&follow);
    let (mut followed, mut begun) = (0, String::new());
    while followed < 3000 {
        let (next, batch) = timeout(PATIENCE, reader.next(1 << 20)).await.expect("in time");
        let batch = batch.unwrap();
        assert!(!batch.lost, "behind line {followed}");
        for record in &*batch.records {
            begun.push_str(&String::from_utf8_lossy(&record.text));
            if !record.partial {
                assert_eq!(begun, format!("line {followed} of a log that starts over"));
                begun.clear();
                followed += 1;
                if followed % 200 == 0 {
                    std::fs::write(bundle.rootfs.join(format!("tmp/read-{followed}")), "").unwrap();
                }
            }
        }
        reader = next;
    }
    until("the previous part is there", || node.config.log_dir.join(format!("{}.log.1", bundle.id)).exists());
    let kept = lines(&logs, request(bundle.id)).await;
    assert!(kept.len() > 600 && kept.len() < 3000, "{} lines", kept.len());
    assert_eq!(kept.last().unwrap(), "line 2999 of a log that starts over");
    for (first, second) in kept.iter().zip(&kept[1..]) {
        let number = |line: &str| line.split(' ').nth(1).unwrap().parse::<u32>().unwrap();
        assert_eq!(number(first) + 1, number(second), "no hole between the parts");
    }
    let size: u64 =
        std::fs::read_dir(&node.config.log_dir).unwrap().map(|it| it.unwrap().metadata().unwrap().len()).sum();
    assert!(size < 4 * (64 << 10), "{size}");
    keeping.abort();
}
