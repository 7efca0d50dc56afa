use super::*;

fn header(path: &str, kind: tar::EntryType, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(3);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn block(data: &[u8]) -> Vec<u8> {
    let mut block = data.to_vec();
    block.resize(data.len().next_multiple_of(512), 0);
    block
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let length = (1..).map(|digits| body + digits).find(|n| n.to_string().len() + body == *n).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn pax(records: &[Vec<u8>]) -> Vec<u8> {
    let data = records.concat();
    [header("x", tar::EntryType::XHeader, data.len() as u64), block(&data)].concat()
}

fn first(bytes: &[u8]) -> Result<Option<Entry>, Refusal> {
    match Archive::new(bytes).next_entry() {
        Ok(entry) => Ok(entry),
        Err((Stop::Refused(refusal), _)) => Err(refusal),
        Err((Stop::Failed(error), _)) => panic!("{error}"),
    }
}

#[test]
fn entries_follow_each_other_whether_their_data_is_read_or_not() {
    let bytes = [
        header("a", tar::EntryType::Regular, 3),
        block(b"abc"),
        header("b", tar::EntryType::Regular, 600),
        block(&[7; 600]),
        header("c/", tar::EntryType::Regular, 0),
        vec![0; 1024],
    ]
    .concat();
    let mut archive = Archive::new(&bytes[..]);
    let a = archive.next_entry().unwrap().unwrap();
    assert_eq!((a.path.as_slice(), a.owner, a.group, a.modified, a.mode), (&b"a"[..], 1, 2, (3, 0), 0o644));
    let mut text = String::new();
    archive.read_to_string(&mut text).unwrap();
    assert_eq!(text, "abc");
    assert_eq!(archive.next_entry().unwrap().unwrap().size, 600);
    assert_eq!(archive.next_entry().unwrap().unwrap().kind, Kind::Folder);
    assert!(archive.next_entry().unwrap().is_none());
}

#[test]
fn pax_records_override_and_hold_any_byte() {
    let value = b"one\ntwo\0=three\n";
    let bytes = [
        pax(&[
            record("path", "long/ü".as_bytes()),
            record("uid", b"77"),
            record("mtime", b"-1.25"),
            record("SCHILY.xattr.user.note", value),
            record("SCHILY.xattr.user.after", b"x"),
            record("comment", b"ignored"),
            record("gid", b""),
            record("linkpath", b""),
        ]),
        header("short", tar::EntryType::Regular, 0),
    ]
    .concat();
    let entry = first(&bytes).unwrap().unwrap();
    assert_eq!(entry.path, "long/ü".as_bytes());
    assert_eq!((entry.owner, entry.group, entry.modified), (77, 2, (-2, 750_000_000)));
    assert_eq!(entry.xattrs, [(b"user.note".to_vec(), value.to_vec()), (b"user.after".to_vec(), b"x".to_vec())]);
}

#[test]
fn damage_and_smuggling_are_refused() {
    let mut wrong_sum = header("a", tar::EntryType::Regular, 0);
    wrong_sum[0] = b'b';
    assert_eq!(first(&wrong_sum).unwrap_err(), Refusal::Malformed);
    assert_eq!(first(&header("a", tar::EntryType::Regular, 0)[..100]).unwrap_err(), Refusal::Malformed);
    let twice = [
        header("l", tar::EntryType::GNULongName, 2),
        block(b"x\0"),
        pax(&[record("path", b"y")]),
        header("z", tar::EntryType::Regular, 0),
    ];
    assert_eq!(first(&twice.concat()).unwrap_err(), Refusal::Malformed);
    for bad in [&b"99 path=x\n"[..], b"9 pathxx\n", b"x path=x\n", b"8 path=xy\n", b"10 uid=-1\n"] {
        let bytes = [header("x", tar::EntryType::XHeader, bad.len() as u64), block(bad)].concat();
        assert_eq!(first(&bytes).unwrap_err(), Refusal::Malformed, "{:?}", String::from_utf8_lossy(bad));
    }
    let alone = pax(&[record("path", b"y")]);
    assert_eq!(first(&alone).unwrap_err(), Refusal::Malformed);
    let huge = header("l", tar::EntryType::GNULongName, 8 << 30);
    assert_eq!(first(&huge).unwrap_err(), Refusal::PathTooLong);
    let sparse = header("s", tar::EntryType::GNUSparse, 0);
    assert_eq!(first(&sparse).unwrap_err(), Refusal::Kind);
    let foreign = [pax(&[record("gid", b"65536")]), header("a", tar::EntryType::Regular, 0)].concat();
    assert_eq!(first(&foreign).unwrap_err(), Refusal::Owner);
}

#[test]
fn padding_and_end_may_be_missing() {
    let whole = [header("a", tar::EntryType::Regular, 3), block(b"abc"), header("b", tar::EntryType::Regular, 5)];
    let whole = [whole.concat(), b"hello".to_vec()].concat();
    for padding in [0, 1, 506, 507, 507 + 512, 507 + 1024] {
        let bytes = [whole.clone(), vec![0; padding]].concat();
        let mut archive = Archive::new(&bytes[..]);
        archive.next_entry().unwrap().unwrap();
        assert_eq!(archive.next_entry().unwrap().unwrap().path, b"b");
        let mut text = String::new();
        archive.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(archive.next_entry().unwrap().is_none(), "{padding}");
        // Nor where nobody reads the data.
        let mut archive = Archive::new(&bytes[..]);
        archive.next_entry().unwrap().unwrap();
        archive.next_entry().unwrap().unwrap();
        assert!(archive.next_entry().unwrap().is_none(), "{padding}");
    }
    // But no byte of the data, nor of a header.
    for bytes in [&whole[..whole.len() - 1], &[&whole[..], &[0; 507], &[b'x'; 511][..]].concat()] {
        let mut archive = Archive::new(bytes);
        archive.next_entry().unwrap().unwrap();
        archive.next_entry().unwrap().unwrap();
        assert!(matches!(archive.next_entry(), Err((Stop::Refused(Refusal::Malformed), _))));
    }
}

#[test]
fn an_archive_that_ends_inside_a_file_is_an_error() {
    let bytes = [header("a", tar::EntryType::Regular, 600), block(b"abc")].concat();
    let mut archive = Archive::new(&bytes[..]);
    archive.next_entry().unwrap().unwrap();
    assert_eq!(archive.read_to_end(&mut Vec::new()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn no_input_makes_it_panic() {
    // Every single-byte change of a small archive.
    let whole = [pax(&[record("path", b"yy")]), header("z", tar::EntryType::Regular, 3), block(b"abc")].concat();
    for at in 0..whole.len() {
        for value in [0, b'9', 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let mut archive = Archive::new(&bytes[..]);
            while let Ok(Some(_)) = archive.next_entry() {}
        }
    }
}
