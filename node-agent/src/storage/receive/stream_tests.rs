use super::*;

const HEADER: &[u8] = b"btrfs-stream\0\x01\0\0\0";

fn command(number: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        body.extend(kind.to_le_bytes());
        body.extend((value.len() as u16).to_le_bytes());
        body.extend(*value);
    }
    let mut command = (body.len() as u32).to_le_bytes().to_vec();
    command.extend(number.to_le_bytes());
    command.extend([0; 4]);
    command.extend(body);
    command
}

/// What the stream behind a right header is refused with at its first command.
fn refusal(bytes: &[u8]) -> Malformed {
    let stream = [HEADER, bytes].concat();
    let mut commands = Commands::open(stream.as_slice()).unwrap_or_else(|_| panic!("the header is right"));
    match commands.next() {
        Err(ReadError::Malformed(malformed)) => malformed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands_are_read_one_by_one() {
    let mut stream = HEADER.to_vec();
    stream.extend(command(1, &[(15, b"x"), (1, &[7; 16]), (2, &9u64.to_le_bytes())]));
    stream.extend(command(15, &[(15, b"a/b"), (18, &5u64.to_le_bytes()), (19, b"data")]));
    stream.extend(command(21, &[]));
    let mut commands = Commands::open(stream.as_slice()).unwrap_or_else(|_| panic!("the header is right"));
    assert_eq!(commands.next().unwrap(), Command::Subvolume { uuid: [7; 16], generation: 9 });
    assert_eq!(commands.next().unwrap(), Command::Write { path: b"a/b", offset: 5, data: b"data" });
    assert_eq!(commands.next().unwrap(), Command::End);
    assert!(matches!(commands.next(), Err(ReadError::Malformed(Malformed::Truncated))));
}

#[test]
fn other_headers_are_refused() {
    for header in [&b"btrfs-stream\0\x02\0\0\0"[..], b"BTRFS-stream\0\x01\0\0\0", b"btrfs-stream\0\x01"] {
        assert!(matches!(Commands::open(header), Err(ReadError::Malformed(_))), "{header:?}");
    }
}

#[test]
fn what_the_kernel_does_not_write_is_refused() {
    assert_eq!(refusal(&command(25, &[])), Malformed::Command(25));
    assert_eq!(refusal(&command(3, &[])), Malformed::Attributes(3));
    assert_eq!(refusal(&command(3, &[(15, b"a"), (15, b"b")])), Malformed::Attributes(3));
    assert_eq!(refusal(&command(3, &[(15, b"a"), (25, b"b")])), Malformed::Attributes(3));
    assert_eq!(refusal(&command(3, &[(15, b"a"), (0, b"b")])), Malformed::Attributes(3));
    assert_eq!(refusal(&command(17, &[(15, b"a"), (4, &[0; 7])])), Malformed::Attributes(17));
    let late = [&0u64.to_le_bytes()[..], &1_000_000_000u32.to_le_bytes()].concat();
    assert_eq!(refusal(&command(20, &[(15, b"a"), (11, &late), (10, &late)])), Malformed::Attributes(20));
    assert_eq!(refusal(&[0, 0, 1, 0, 3, 0, 0, 0, 0, 0]), Malformed::Truncated);
    assert_eq!(refusal(&[1, 0, 1, 0, 3, 0, 0, 0, 0, 0]), Malformed::TooLong(65537));
    assert_eq!(refusal(&[3, 0, 0, 0, 3, 0, 0, 0, 0, 0, 15, 0, 9]), Malformed::Attributes(3), "half an attribute");
    assert_eq!(refusal(&[5, 0, 0, 0, 3, 0, 0, 0, 0, 0, 15, 0, 9, 0, 1]), Malformed::Attributes(3), "a long one");
    assert_eq!(refusal(b"\x01"), Malformed::Truncated);
}
