//! The bytes of messages as they are on the wire. When a test here fails, the change breaks agents that
//! are already installed: add a field that may be absent, a new message or a protocol version instead.

#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

use hoody_protocol::{
    blob::{BlobReply, BlobRequest},
    bounded::{List, Text},
    codec::{self, Frame},
    command::{
        Account, CommandControl, CommandOutcome, CommandRequest, CommandUpdate, Ending, Order, OutputChunk,
        OutputStream, schema::Value,
    },
    container::{Cause, ContainerSpec, Desired, Limits, State, StatusReport},
    egress::{Credentials, EgressSpec, Upstream, UpstreamKind},
    exec::{
        Command, Connect, ExecRequest, Exit, ProcessEnd, ProcessInput, ProcessOutput, TerminalEnd, TerminalInfo,
        TerminalList, TerminalQuery, TerminalRequest, TerminalSize,
    },
    export::{ExportOffer, ExportOrder},
    firewall::{Action, FirewallRule, FirewallSpec, Match, PortRange, Ports},
    id::{
        ContainerId, ExecutionId, ExportId, OperationId, ProjectId, RuleId, ServerId, SnapshotId, TerminalId,
        TransferId, UserId,
    },
    image::{Digest, ImageConfig, ImageSpec},
    inspection::{Inspection, InspectionQuery, InspectionReply, SocketInfo},
    link::{
        CommandReply, Heartbeat, HelloReply, Refusal, RenewalOrder, Report, ReportAck, ReportBatch, ReportEntry,
        SpecQuery, SpecReply,
    },
    logs::{LogBatch, LogMore, LogPosition, LogRecord, LogRequest},
    operation::{OperationKind, OperationOutcome, OperationRequest},
    replica::{Age, KnownQuery, KnownReply, Moved, RelayPurpose, RelayReply, RelayRequest},
    snapshot::{HeldSnapshot, MovedSnapshot, Origin, SnapshotQuery, SnapshotReply},
    stats::{NodeStats, StatsBatch},
    stream_digest::StreamDigest,
    tag::Message,
    transfer::{
        DivergenceQuery, DivergenceReply, ReceiveOrder, RetainOrder, SendOrder, TransferData, TransferOffer,
        TransferProgress, TransferReply, TransferRequest,
    },
    version::SpecVersion,
};
use std::{collections::BTreeMap, fmt::Debug};

const CONTAINER: ContainerId = ContainerId::from_bytes([0x11; 12]);
const OPERATION: OperationId = OperationId::from_bytes([0x22; 12]);

fn golden<M: Message + PartialEq + Debug>(message: M, hex_bytes: &str) {
    let bytes = codec::encode(&message);
    assert_eq!(hex::encode(&bytes), hex_bytes, "{}", M::NAME);
    let (frame, rest): (Frame, &[u8]) = codec::split_frame(&bytes).unwrap().unwrap();
    assert_eq!((frame.decode::<M>().unwrap(), rest), (message, &[][..]));
}

#[test]
fn heartbeat() {
    golden(
        Heartbeat { now: 1_700_000_000_000, unacknowledged: 3 },
        "0000001e000ca2636e6f771b0000018bcfe568006e756e61636b6e6f776c656467656403",
    );
}

#[test]
fn questions_and_orders() {
    golden(
        SpecQuery { container: CONTAINER },
        "00000025 0017 a1 69 636f6e7461696e6572 7818 313131313131313131313131313131313131313131313131"
            .replace(' ', "")
            .as_str(),
    );
    golden(SpecReply { spec: None }, "000000070018a16473706563f6");
    golden(RenewalOrder {}, "000000010019a0");
}

#[test]
fn report_ack() {
    golden(ReportAck { position: 300 }, "0000000d001fa168706f736974696f6e19012c");
}

#[test]
fn hello_replies() {
    let server = ServerId::from_bytes([0x33; 12]);
    golden(
        HelloReply::Accepted {
            protocol: 1,
            server,
            now: 5,
            heartbeat_ms: 5000,
            allowed_networks: vec!["10.0.0.0/8".parse().unwrap()].try_into().unwrap(),
        },
        concat!(
            "00000067000ba1686163636570746564a56870726f746f636f6c016673657276657278183333333333333333333333333333",
            "33333333333333333333636e6f77056c6865617274626561745f6d7319138870616c6c6f7765645f6e6574776f726b7381a1",
            "625634850a00000008",
        ),
    );
    golden(
        HelloReply::Accepted { protocol: 1, server, now: 5, heartbeat_ms: 5000, allowed_networks: List::default() },
        concat!(
            "0000004b000ba1686163636570746564a46870726f746f636f6c016673657276657278183333333333333333",
            "33333333333333333333333333333333636e6f77056c6865617274626561745f6d73191388",
        ),
    );
    golden(
        HelloReply::Refused { cause: Cause::new("server_revoked", "no"), retry: false },
        concat!(
            "00000037000ba16772656675736564a2656361757365a264636f64656e7365727665725f7265766f6b656467",
            "6d657373616765626e6f657265747279f4",
        ),
    );
}

#[test]
fn operation_request() {
    let request = OperationRequest {
        id: OPERATION,
        container: CONTAINER,
        sequence: 7,
        begin_within_ms: 1000,
        kind: OperationKind::Restart,
    };
    golden(
        request,
        concat!(
            "0000006c0015a5626964781832323232323232323232323232323232323232323232323269636f6e7461696e",
            "657278183131313131313131313131313131313131313131313131316873657175656e6365076f626567696e",
            "5f77697468696e5f6d731903e8646b696e646772657374617274",
        ),
    );
}

#[test]
fn command_replies() {
    golden(CommandReply::Accepted, "000000090016686163636570746564");
    golden(
        CommandReply::Superseded { held: SpecVersion { epoch: 1, generation: 2 } },
        "000000260016a16a73757065727365646564a16468656c64a26565706f6368016a67656e65726174696f6e02",
    );
    golden(
        CommandReply::Refused(Cause::new("no_space", "full")),
        "000000250016a16772656675736564a264636f6465686e6f5f7370616365676d6573736167656466756c6c",
    );
    let outcome = OperationOutcome { id: OPERATION, container: CONTAINER, failure: None, bytes: None, at: 9 };
    golden(
        CommandReply::Done(outcome),
        concat!(
            "000000550016a164646f6e65a462696478183232323232323232323232323232323232323232323232326963",
            "6f6e7461696e65727818313131313131313131313131313131313131313131313131676661696c757265f662",
            "617409",
        ),
    );
}

#[test]
fn report_batch() {
    let report = StatusReport {
        container: CONTAINER,
        version: SpecVersion { epoch: 1, generation: 2 },
        state: State::Running,
        converged: true,
        cause: None,
        exit_code: Some(-1),
        address: Some([10, 0, 0, 2].into()),
        started_at: Some(8),
        firewall_error: None,
        limits_error: None,
        ssh_key_error: None,
        oom_kills: 0,
        egress: None,
        share_failures: Default::default(),
        at: 9,
    };
    let entries = vec![ReportEntry { position: 1, report: Report::Status(report) }].try_into().unwrap();
    golden(
        ReportBatch { entries },
        concat!(
            "000000bd001ea167656e747269657381a268706f736974696f6e01667265706f7274a166737461747573aa69",
            "636f6e7461696e657278183131313131313131313131313131313131313131313131316776657273696f6ea2",
            "6565706f6368016a67656e65726174696f6e026573746174656772756e6e696e6769636f6e766572676564f5",
            "656361757365f669657869745f636f6465206761646472657373840a0000026a737461727465645f6174086e",
            "6669726577616c6c5f6572726f72f662617409",
        ),
    );
}

#[test]
fn commands() {
    let id = ExecutionId::from_bytes([0x55; 12]);
    let values = [
        (Text::truncated("unit"), Value::Text(Text::truncated("ssh"))),
        (Text::truncated("lines"), Value::Integer(5)),
        (Text::truncated("all"), Value::Flag(true)),
    ];
    let parameters = BTreeMap::from(values).try_into().unwrap();
    let order = Order::BuiltIn { slug: Text::truncated("log-tail"), parameters };
    golden(
        CommandRequest { id, order, timeout_ms: 30_000, begin_within_ms: 10_000, from: 0 },
        concat!(
            "0000009a0032a56269647818353535353535353535353535353535353535353535353535656f72646572a1",
            "686275696c745f696ea264736c7567686c6f672d7461696c6a706172616d6574657273a363616c6ca16466",
            "6c6167f5656c696e6573a167696e74656765720564756e6974a16474657874637373686a74696d656f7574",
            "5f6d731975306f626567696e5f77697468696e5f6d731927106466726f6d00",
        ),
    );
    let order = Order::Custom {
        slug: Text::truncated("up"),
        argv: vec![Text::truncated("/usr/bin/uptime")].try_into().unwrap(),
        account: Account::Nobody,
        working_directory: Text::default(),
    };
    golden(
        CommandRequest { id, order, timeout_ms: 1, begin_within_ms: 2, from: 3 },
        concat!(
            "000000900032a56269647818353535353535353535353535353535353535353535353535656f72646572a1",
            "66637573746f6da464736c75676275706461726776816f2f7573722f62696e2f757074696d65676163636f",
            "756e74666e6f626f647971776f726b696e675f6469726563746f7279606a74696d656f75745f6d73016f62",
            "6567696e5f77697468696e5f6d73026466726f6d03",
        ),
    );
    golden(CommandControl::Cancel, "0000000700336663616e63656c");
    golden(CommandControl::Stored, "0000000700336673746f726564");
    golden(CommandUpdate::Accepted, "000000090034686163636570746564");
    let chunk = OutputChunk { index: 7, stream: OutputStream::Stderr, text: Text::truncated("no\n") };
    golden(
        CommandUpdate::Output(chunk),
        concat!("000000270034a1666f7574707574a365696e646578076673747265616d667374646572726474657874636e", "6f0a",),
    );
    let outcome = CommandOutcome {
        id,
        ending: Ending::Exited,
        exit_code: Some(1),
        truncated: false,
        started_at: Some(8),
        ended_at: 9,
        cause: None,
    };
    let reached = CommandOutcome { cause: Some(Cause::new("memory_limit", "m")), ..outcome.clone() };
    golden(
        CommandUpdate::Ended(reached),
        concat!(
            "000000820034a165656e646564a76269647818353535353535353535353535353535353535353535353535",
            "66656e64696e676665786974656469657869745f636f646501697472756e6361746564f46a737461727465",
            "645f61740868656e6465645f617409656361757365a264636f64656c6d656d6f72795f6c696d6974676d65",
            "7373616765616d",
        ),
    );
    golden(
        CommandUpdate::Ended(outcome),
        concat!(
            "0000005f0034a165656e646564a66269647818353535353535353535353535353535353535353535353535",
            "66656e64696e676665786974656469657869745f636f646501697472756e6361746564f46a737461727465",
            "645f61740868656e6465645f617409",
        ),
    );
}

#[test]
fn blobs() {
    golden(
        BlobRequest { digest: Digest::from_bytes([0x44; 32]), offset: 65536 },
        concat!(
            "0000005d0028a26664696765737478477368613235363a343434343434343434343434343434343434343434",
            "3434343434343434343434343434343434343434343434343434343434343434343434343434343434343466",
            "6f66667365741a00010000",
        ),
    );
    golden(BlobReply::Found { size: 1 << 33 }, "000000160029a165666f756e64a16473697a651b0000000200000000");
}

#[test]
fn exports() {
    let export = ExportId::from_bytes([0x99; 12]);
    golden(
        ExportOrder { export, container: CONTAINER, document: b"{}".to_vec().try_into().unwrap() },
        concat!(
            "00000052005fa3666578706f7274781839393939393939393939393939393939393939393939393969636f6e",
            "7461696e6572781831313131313131313131313131313131313131313131313168646f63756d656e74427b7d",
        ),
    );
    golden(ExportOffer { export }, "000000220060a1666578706f72747818393939393939393939393939393939393939393939393939");
}

#[test]
fn replicas() {
    let server = ServerId::from_bytes([0x44; 12]);
    golden(
        RelayRequest { server, purpose: RelayPurpose::Question },
        concat!(
            "0000003300f0a266736572766572781834343434343434343434343434343434343434343434343467707572706f7365",
            "687175657374696f6e",
        ),
    );
    golden(
        RelayRequest { server, purpose: RelayPurpose::Conversation },
        concat!(
            "0000003700f0a266736572766572781834343434343434343434343434343434343434343434343467707572706f7365",
            "6c636f6e766572736174696f6e",
        ),
    );
    golden(
        RelayRequest { server, purpose: RelayPurpose::Transfer(TransferId::from_bytes([0x66; 12])) },
        concat!(
            "0000004e00f0a266736572766572781834343434343434343434343434343434343434343434343467707572706f7365",
            "a1687472616e736665727818363636363636363636363636363636363636363636363636",
        ),
    );
    golden(
        RelayRequest { server, purpose: RelayPurpose::Export(ExportId::from_bytes([0x99; 12])) },
        concat!(
            "0000004c00f0a266736572766572781834343434343434343434343434343434343434343434343467707572706f7365",
            "a1666578706f72747818393939393939393939393939393939393939393939393939",
        ),
    );
    golden(RelayReply::Opened, "0000000700f1666f70656e6564");
    golden(RelayReply::NotLinked, "0000000b00f16a6e6f745f6c696e6b6564");
    golden(RelayReply::TooMany, "0000000900f168746f6f5f6d616e79");
    golden(RelayReply::Late, "0000000500f1646c617465");
    golden(
        KnownQuery {
            servers: vec![server].try_into().unwrap(),
            containers: vec![CONTAINER].try_into().unwrap(),
            transfers: List::default(),
        },
        concat!(
            "0000005500f2a367736572766572738178183434343434343434343434343434343434343434343434346a636f6e7461",
            "696e657273817818313131313131313131313131313131313131313131313131697472616e736665727380",
        ),
    );
    golden(
        KnownReply::Server {
            server,
            stats: NodeStats { cores: 2, ..NodeStats::default() },
            age: Age { taken_at: 300, age_ms: 7 },
        },
        concat!(
            "0000010300f3a166736572766572a3667365727665727818343434343434343434343434343434343434343434343434",
            "657374617473aa65636f72657302706370755f627573795f70657263656e74fb0000000000000000646c6f616483fb00",
            "00000000000000fb0000000000000000fb0000000000000000726d656d6f72795f746f74616c5f627974657300716d65",
            "6d6f72795f757365645f62797465730070737761705f746f74616c5f6279746573006f737761705f757365645f627974",
            "65730070706f6f6c5f746f74616c5f6279746573006f706f6f6c5f757365645f62797465730068757074696d655f7300",
            "63616765a26874616b656e5f617419012c666167655f6d7307",
        ),
    );
    golden(
        KnownReply::Transfer {
            transfer: TransferId::from_bytes([0x66; 12]),
            moved: Moved { bytes: 65536, total: None, rate: Some(2.5), eta_s: None },
        },
        concat!(
            "0000005c00f3a1687472616e73666572a2687472616e7366657278183636363636363636363636363636363636363636",
            "36363636656d6f766564a46562797465731a0001000065746f74616cf66472617465fb4004000000000000656574615f",
            "73f6",
        ),
    );
}

#[test]
fn transfers() {
    let (transfer, base) = (TransferId::from_bytes([0x66; 12]), TransferId::from_bytes([0x77; 12]));
    golden(
        TransferRequest { transfer, offset: 65536 },
        concat!(
            "000000300055a2687472616e736665727818363636363636363636363636363636363636363636363636666f",
            "66667365741a00010000",
        ),
    );
    let order = SendOrder {
        transfer,
        container: CONTAINER,
        snapshot: Some(SnapshotId::from_bytes([0x88; 12])),
        base: Some(base),
        offset: 0,
        keep: vec![base].try_into().unwrap(),
    };
    golden(
        order.clone(),
        concat!(
            "000000b20056a6687472616e7366657278183636363636363636363636363636363636363636363636366963",
            "6f6e7461696e6572781831313131313131313131313131313131313131313131313168736e617073686f7478",
            "1838383838383838383838383838383838383838383838383864626173657818373737373737373737373737",
            "373737373737373737373737666f666673657400646b65657081781837373737373737373737373737373737",
            "3737373737373737",
        ),
    );
    golden(
        SendOrder { snapshot: None, base: None, keep: Default::default(), ..order },
        concat!(
            "000000500056a3687472616e7366657278183636363636363636363636363636363636363636363636366963",
            "6f6e7461696e65727818313131313131313131313131313131313131313131313131666f666673657400",
        ),
    );
    golden(
        TransferOffer { transfer, offset: 0, total: Some(1 << 33) },
        concat!(
            "0000003b0057a3687472616e736665727818363636363636363636363636363636363636363636363636666f",
            "66667365740065746f74616c1b0000000200000000",
        ),
    );
    golden(TransferReply::Begin { offset: 1 }, "000000100058a165626567696ea1666f666673657401");
    golden(
        TransferReply::Refused { cause: Cause::new("busy", "later"), retry: true },
        concat!(
            "000000300058a16772656675736564a2656361757365a264636f64656462757379676d657373616765656c61",
            "746572657265747279f5",
        ),
    );
    golden(TransferData::Piece(b"bytes".to_vec().try_into().unwrap()), "0000000d0059a1657069656365456279746573");
    golden(
        TransferData::End { bytes: 5, digest: StreamDigest::of(b"hello"), own_bytes: None },
        concat!(
            "0000005d0059a163656e64a265627974657305666469676573747847626c616b65333a656138663136336462",
            "3338363832393235653434393163356535386434626233353036656638633134656237386138366539303863",
            "3536323461363732303066",
        ),
    );
    golden(TransferProgress::Taken(1 << 20), "0000000c005aa16574616b656e1a00100000");
    golden(TransferProgress::Kept, "00000005005a646b657074");
}

#[test]
fn transfers_for_containers_that_exist() {
    let (transfer, base) = (TransferId::from_bytes([0x66; 12]), TransferId::from_bytes([0x77; 12]));
    let origin = Origin { container: CONTAINER, snapshot: None, kept: None };
    golden(
        ReceiveOrder {
            transfer,
            container: CONTAINER,
            base: Some(base),
            origin: Some(origin),
            keep: vec![base].try_into().unwrap(),
            room_bytes: None,
            held: false,
            snapshots: Default::default(),
        },
        concat!(
            "000000b3005ba5687472616e7366657278183636363636363636363636363636363636363636363636366963",
            "6f6e7461696e6572781831313131313131313131313131313131313131313131313164626173657818373737",
            "373737373737373737373737373737373737373737666f726967696ea169636f6e7461696e65727818313131",
            "313131313131313131313131313131313131313131646b656570817818373737373737373737373737373737",
            "373737373737373737",
        ),
    );
    let plain = ReceiveOrder {
        transfer,
        container: CONTAINER,
        base: None,
        origin: None,
        keep: Default::default(),
        room_bytes: None,
        held: false,
        snapshots: Default::default(),
    };
    golden(
        plain.clone(),
        concat!(
            "00000048005ba2687472616e7366657278183636363636363636363636363636363636363636363636366963",
            "6f6e7461696e65727818313131313131313131313131313131313131313131313131",
        ),
    );
    golden(
        ReceiveOrder { room_bytes: Some(1 << 30), ..plain.clone() },
        concat!(
            "00000058005ba3687472616e7366657278183636363636363636363636363636363636363636363636366963",
            "6f6e7461696e657278183131313131313131313131313131313131313131313131316a726f6f6d5f62797465",
            "731a40000000",
        ),
    );
    golden(
        ReceiveOrder { held: true, ..plain.clone() },
        concat!(
            "0000004e005ba3687472616e7366657278183636363636363636363636363636363636363636363636366963",
            "6f6e7461696e657278183131313131313131313131313131313131313131313131316468656c64f5",
        ),
    );
    golden(
        ReceiveOrder { snapshots: vec![base].try_into().unwrap(), ..plain },
        concat!(
            "0000006d005ba3687472616e73666572781836363636363636363636363636363636363636363636363669636f6e7461696e",
            "6572781831313131313131313131313131313131313131313131313169736e617073686f7473817818373737373737373737",
            "373737373737373737373737373737",
        ),
    );
    golden(
        RetainOrder { container: CONTAINER, keep: vec![base].try_into().unwrap() },
        concat!(
            "000000450061a269636f6e7461696e6572781831313131313131313131313131313131313131313131313164",
            "6b656570817818373737373737373737373737373737373737373737373737",
        ),
    );
    golden(
        DivergenceQuery { container: CONTAINER, base },
        concat!(
            "00000044005ca269636f6e7461696e6572781831313131313131313131313131313131313131313131313164",
            "626173657818373737373737373737373737373737373737373737373737",
        ),
    );
    golden(DivergenceReply::Same, "00000005005d6473616d65");
    golden(DivergenceReply::Diverged, "00000009005d686469766572676564");
    golden(
        DivergenceReply::Failed(Cause::new("x", "y")),
        "0000001a005da1666661696c6564a264636f64656178676d6573736167656179",
    );
    let snapshot = SnapshotId::from_bytes([0x55; 12]);
    let request =
        |kind| OperationRequest { id: OPERATION, container: CONTAINER, sequence: 7, begin_within_ms: 1000, kind };
    golden(
        request(OperationKind::Sync { transfer, snapshot, origin: None }),
        concat!(
            "000000b10015a5626964781832323232323232323232323232323232323232323232323269636f6e7461696e",
            "657278183131313131313131313131313131313131313131313131316873657175656e6365076f626567696e",
            "5f77697468696e5f6d731903e8646b696e64a16473796e63a2687472616e7366657278183636363636363636",
            "3636363636363636363636363636363668736e617073686f7478183535353535353535353535353535353535",
            "35353535353535",
        ),
    );
    golden(
        request(OperationKind::Sync { transfer, snapshot, origin: Some(CONTAINER) }),
        concat!(
            "000000d20015a5626964781832323232323232323232323232323232323232323232323269636f6e7461696e",
            "657278183131313131313131313131313131313131313131313131316873657175656e6365076f626567696e",
            "5f77697468696e5f6d731903e8646b696e64a16473796e63a3687472616e7366657278183636363636363636",
            "3636363636363636363636363636363668736e617073686f7478183535353535353535353535353535353535",
            "35353535353535666f726967696e7818313131313131313131313131313131313131313131313131",
        ),
    );
}

#[test]
fn stats_batch() {
    let node = NodeStats { cores: 2, cpu_busy_percent: 12.5, ..NodeStats::default() };
    golden(
        StatsBatch { at: 1, node, containers: Default::default() },
        concat!(
            "000000d00020a362617401646e6f6465aa65636f72657302706370755f627573795f70657263656e74fb4029",
            "000000000000646c6f616483fb0000000000000000fb0000000000000000fb0000000000000000726d656d6f",
            "72795f746f74616c5f627974657300716d656d6f72795f757365645f62797465730070737761705f746f7461",
            "6c5f6279746573006f737761705f757365645f62797465730070706f6f6c5f746f74616c5f6279746573006f",
            "706f6f6c5f757365645f62797465730068757074696d655f73006a636f6e7461696e65727380",
        ),
    );
}

#[test]
fn refusal() {
    golden(
        Refusal { cause: Cause { code: Text::default(), message: Text::default() } },
        "0000001700ffa1656361757365a264636f646560676d65737361676560",
    );
}

#[test]
fn processes() {
    let command = Command {
        argv: vec![Text::truncated("ls")].try_into().unwrap(),
        env: std::collections::BTreeMap::from([(Text::truncated("A"), Text::truncated("1"))]).try_into().unwrap(),
        cwd: Text::truncated("/"),
        user: Text::truncated("web"),
    };
    golden(
        ExecRequest { container: CONTAINER, command, limit_ms: 60_000, output_bytes: 1 << 20 },
        "0000006d003ca469636f6e7461696e6572781831313131313131313131313131313131313131313131313167636f6d6d616e64a4646172677681626c7363656e76a16141613163637764612f647573657263776562686c696d69745f6d7319ea606c6f75747075745f62797465731a00100000",
    );
    golden(ProcessInput::Data(b"x\n".to_vec().try_into().unwrap()), "00000009003ea1646461746142780a");
    golden(ProcessInput::End, "00000004003e63656e64");
    golden(
        ProcessInput::Resize(TerminalSize { columns: 80, rows: 24 }),
        "0000001a003ea166726573697a65a267636f6c756d6e73185064726f77731818",
    );
    golden(ProcessInput::Credit(32_768), "0000000b003ea166637265646974198000");
    golden(ProcessOutput::Started, "00000008003f6773746172746564");
    golden(
        ProcessOutput::Connected { position: 5, input: 2 },
        "0000001d003fa169636f6e6e6563746564a268706f736974696f6e0565696e70757402",
    );
    golden(ProcessOutput::Output(b"o".to_vec().try_into().unwrap()), "0000000a003fa1666f7574707574416f");
    golden(ProcessOutput::Error(b"e".to_vec().try_into().unwrap()), "00000009003fa1656572726f724165");
    golden(ProcessOutput::Credit(32_768), "0000000b003fa166637265646974198000");
    let end = ProcessEnd {
        exit: Exit::Signal(9),
        cause: Some(Cause::new("timeout", "t")),
        output_dropped: 1,
        error_dropped: 0,
        started_at: 1_700_000_000_000,
        ended_at: 1_700_000_001_000,
    };
    golden(
        ProcessOutput::Ended(end),
        "00000079003fa165656e646564a66465786974a1667369676e616c09656361757365a264636f64656774696d656f7574676d65737361676561746e6f75747075745f64726f70706564016d6572726f725f64726f70706564006a737461727465645f61741b0000018bcfe5680068656e6465645f61741b0000018bcfe56be8",
    );
    golden(
        ProcessOutput::Failed(Cause::new("not_running", "n")),
        "00000024003fa1666661696c6564a264636f64656b6e6f745f72756e6e696e67676d657373616765616e",
    );
}

#[test]
fn terminals() {
    let (terminal, user) = (TerminalId::from_bytes([0x33; 12]), UserId::from_bytes([0x44; 12]));
    let size = TerminalSize { columns: 80, rows: 24 };
    let request = |how| TerminalRequest { terminal, container: CONTAINER, user, size, how };
    golden(
        request(Connect::New(Command::default())),
        "0000009e003da5687465726d696e616c781833333333333333333333333333333333333333333333333369636f6e7461696e65727818313131313131313131313131313131313131313131313131647573657278183434343434343434343434343434343434343434343434346473697a65a267636f6c756d6e73185064726f7773181863686f77a1636e6577a464617267768063656e76a06363776460647573657260",
    );
    golden(
        request(Connect::Again { after: Some(7) }),
        "00000091003da5687465726d696e616c781833333333333333333333333333333333333333333333333369636f6e7461696e65727818313131313131313131313131313131313131313131313131647573657278183434343434343434343434343434343434343434343434346473697a65a267636f6c756d6e73185064726f7773181863686f77a165616761696ea165616674657207",
    );
    golden(
        TerminalQuery { container: CONTAINER },
        "000000250040a169636f6e7461696e65727818313131313131313131313131313131313131313131313131",
    );
    let info = TerminalInfo {
        id: terminal,
        user,
        program: Text::truncated("sh"),
        connected: true,
        size,
        position: 7,
        opened_at: 1,
        active_at: 2,
    };
    golden(
        TerminalList { terminals: vec![info].try_into().unwrap() },
        "000000960041a1697465726d696e616c7381a86269647818333333333333333333333333333333333333333333333333647573657278183434343434343434343434343434343434343434343434346770726f6772616d62736869636f6e6e6563746564f56473697a65a267636f6c756d6e73185064726f7773181868706f736974696f6e07696f70656e65645f617401696163746976655f617402",
    );
    golden(
        TerminalEnd { container: CONTAINER, terminal },
        "000000480042a269636f6e7461696e65727818313131313131313131313131313131313131313131313131687465726d696e616c7818333333333333333333333333333333333333333333333333",
    );
}

#[test]
fn logs() {
    let position = LogPosition { part: 1_700_000_000_000_000_000, offset: 42 };
    let request = LogRequest {
        container: CONTAINER,
        tail: Some(100),
        since: None,
        until: None,
        output: true,
        error: false,
        after: Some(position),
        follow: true,
    };
    golden(
        request,
        "0000006f0043a869636f6e7461696e65727818313131313131313131313131313131313131313131313131647461696c18646573696e6365f665756e74696cf6666f7574707574f5656572726f72f4656166746572a264706172741b17979cfe362a0000666f6666736574182a66666f6c6c6f77f5",
    );
    golden(LogMore { bytes: 65_536 }, "0000000c0044a16562797465731a00010000");
    let record = LogRecord { at: 1, error: true, partial: false, text: b"hi".to_vec().try_into().unwrap(), position };
    golden(
        LogBatch { records: vec![record].try_into().unwrap(), lost: false, end: true },
        "000000530045a3677265636f72647381a562617401656572726f72f5677061727469616cf4647465787442686968706f736974696f6ea264706172741b17979cfe362a0000666f6666736574182a646c6f7374f463656e64f5",
    );
}

#[test]
fn inspection() {
    golden(
        InspectionQuery { container: CONTAINER },
        "000000250046a169636f6e7461696e65727818313131313131313131313131313131313131313131313131",
    );
    golden(InspectionReply::NotRunning, "0000000c00476b6e6f745f72756e6e696e67");
    let socket = SocketInfo {
        protocol: Text::truncated("tcp"),
        ip: std::net::Ipv4Addr::LOCALHOST.into(),
        port: 80,
        user: Text::truncated("root"),
        owner: None,
    };
    let inspection =
        Inspection { process_count: 1, sockets: vec![socket].try_into().unwrap(), ..Inspection::default() };
    golden(
        InspectionReply::Running(Box::new(inspection)),
        "000000750047a16772756e6e696e67a56970726f636573736573806d70726f636573735f636f756e740167736f636b65747381a56870726f746f636f6c63746370626970a162563484187f00000164706f72741850647573657264726f6f74656f776e6572f6687365727669636573f6697472756e6361746564f4",
    );
}

#[test]
fn snapshots() {
    let snapshot = SnapshotId::from_bytes([0x55; 12]);
    let request =
        |kind| OperationRequest { id: OPERATION, container: CONTAINER, sequence: 7, begin_within_ms: 1000, kind };
    golden(
        request(OperationKind::CreateSnapshot { snapshot }),
        "000000990015a5626964781832323232323232323232323232323232323232323232323269636f6e7461696e657278183131313131313131313131313131313131313131313131316873657175656e6365076f626567696e5f77697468696e5f6d731903e8646b696e64a16f6372656174655f736e617073686f74a168736e617073686f747818353535353535353535353535353535353535353535353535",
    );
    golden(
        request(OperationKind::RestoreSnapshot { snapshot }),
        "0000009a0015a5626964781832323232323232323232323232323232323232323232323269636f6e7461696e657278183131313131313131313131313131313131313131313131316873657175656e6365076f626567696e5f77697468696e5f6d731903e8646b696e64a170726573746f72655f736e617073686f74a168736e617073686f747818353535353535353535353535353535353535353535353535",
    );
    golden(
        request(OperationKind::DeleteSnapshot { snapshot }),
        "000000990015a5626964781832323232323232323232323232323232323232323232323269636f6e7461696e657278183131313131313131313131313131313131313131313131316873657175656e6365076f626567696e5f77697468696e5f6d731903e8646b696e64a16f64656c6574655f736e617073686f74a168736e617073686f747818353535353535353535353535353535353535353535353535",
    );
    let outcome = OperationOutcome { id: OPERATION, container: CONTAINER, failure: None, bytes: Some(4096), at: 9 };
    golden(
        CommandReply::Done(outcome),
        "0000005e0016a164646f6e65a5626964781832323232323232323232323232323232323232323232323269636f6e7461696e65727818313131313131313131313131313131313131313131313131676661696c757265f665627974657319100062617409",
    );
    golden(
        SnapshotQuery { container: CONTAINER },
        "000000250050a169636f6e7461696e65727818313131313131313131313131313131313131313131313131",
    );
    let held = HeldSnapshot { id: snapshot, exclusive_bytes: Some(16_384) };
    golden(
        SnapshotReply::Held(vec![held].try_into().unwrap()),
        "000000380051a16468656c6481a262696478183535353535353535353535353535353535353535353535356f6578636c75736976655f6279746573194000",
    );
    golden(
        SnapshotReply::Failed(Cause::new("io", "no")),
        "0000001c0051a1666661696c6564a264636f646562696f676d657373616765626e6f",
    );
}

/// What protocol 2 is about: an agent that does not know these fields would let the container out.
#[test]
fn specification_with_egress() {
    let text = Text::truncated;
    let config = ImageConfig {
        command: vec![text("/bin/sh")].try_into().unwrap(),
        env: BTreeMap::new().try_into().unwrap(),
        workdir: text("/"),
        user: Text::default(),
        stop_signal: Text::default(),
    };
    let rule = FirewallRule {
        id: RuleId::from_bytes([0x66; 12]),
        enabled: true,
        action: Action::Allow,
        matches: Match::Tcp(Ports {
            source: List::default(),
            destination: vec![PortRange::new(443, 443).unwrap()].try_into().unwrap(),
        }),
        peer: None,
        host: Some(Text::truncated("api.example.com")),
        description: Text::default(),
    };
    let upstream = Upstream {
        kind: UpstreamKind::Socks5,
        host: Text::truncated("proxy.example.com"),
        port: 1080,
        credentials: Some(Credentials { username: Text::truncated("u"), password: Text::truncated("p") }),
        dns: vec![[9, 9, 9, 9].into()].try_into().unwrap(),
    };
    let spec = ContainerSpec {
        id: CONTAINER,
        project: ProjectId::from_bytes([0x44; 12]),
        owner: UserId::from_bytes([0x55; 12]),
        version: SpecVersion { epoch: 1, generation: 2 },
        sequence: 3,
        desired: Desired::Running { run: 1 },
        autostart: true,
        hostname: Text::truncated("web"),
        image: ImageSpec::new(List::default(), config),
        env: BTreeMap::new().try_into().unwrap(),
        limits: Limits { cpu_millis: 1000, memory_bytes: 1 << 28, disk_bytes: 1 << 30, pids: 512, network_mbit: None },
        dns: List::default(),
        firewall: FirewallSpec { ingress: List::default(), egress: vec![rule].try_into().unwrap() },
        egress: Some(EgressSpec::Proxy(upstream)),
        ssh_public_key: None,
        kvm: false,
        ramdisk: None,
        shares: List::default(),
        origin: None,
        transfer: None,
        moved: false,
        snapshots: Default::default(),
    };
    golden(
        spec.clone(),
        concat!(
            "000002a10014ae62696478183131313131313131313131313131313131313131313131316770726f6a656374781834343434",
            "3434343434343434343434343434343434343434656f776e6572781835353535353535353535353535353535353535353535",
            "35356776657273696f6ea26565706f6368016a67656e65726174696f6e026873657175656e6365036764657369726564a167",
            "72756e6e696e67a16372756e01696175746f7374617274f568686f73746e616d656377656265696d616765a3666469676573",
            "7478477368613235363a64656432623264353932383361623861626133356261373465346166633665346138616438333833",
            "646333323061613334643363336536363464313962663365666c61796572738066636f6e666967a567636f6d6d616e648167",
            "2f62696e2f736863656e76a067776f726b646972612f6475736572606b73746f705f7369676e616c6063656e76a0666c696d",
            "697473a46a6370755f6d696c6c69731903e86c6d656d6f72795f62797465731a100000006a6469736b5f62797465731a4000",
            "0000647069647319020063646e7380686669726577616c6ca267696e6772657373806665677265737381a762696478183636",
            "3636363636363636363636363636363636363636363667656e61626c6564f566616374696f6e65616c6c6f77676d61746368",
            "6573a163746370a266736f75726365806b64657374696e6174696f6e81821901bb1901bb6470656572f664686f73746f6170",
            "692e6578616d706c652e636f6d6b6465736372697074696f6e6066656772657373a16570726f7879a5646b696e6466736f63",
            "6b733564686f73747170726f78792e6578616d706c652e636f6d64706f72741904386b63726564656e7469616c73a2687573",
            "65726e616d6561756870617373776f7264617063646e73818409090909",
        ),
    );
    golden(
        ContainerSpec { egress: Some(EgressSpec::Block), firewall: FirewallSpec::default(), ..spec.clone() },
        concat!(
            "000001c10014ae62696478183131313131313131313131313131313131313131313131316770726f6a656374781834343434",
            "3434343434343434343434343434343434343434656f776e6572781835353535353535353535353535353535353535353535",
            "35356776657273696f6ea26565706f6368016a67656e65726174696f6e026873657175656e6365036764657369726564a167",
            "72756e6e696e67a16372756e01696175746f7374617274f568686f73746e616d656377656265696d616765a3666469676573",
            "7478477368613235363a64656432623264353932383361623861626133356261373465346166633665346138616438333833",
            "646333323061613334643363336536363464313962663365666c61796572738066636f6e666967a567636f6d6d616e648167",
            "2f62696e2f736863656e76a067776f726b646972612f6475736572606b73746f705f7369676e616c6063656e76a0666c696d",
            "697473a46a6370755f6d696c6c69731903e86c6d656d6f72795f62797465731a100000006a6469736b5f62797465731a4000",
            "0000647069647319020063646e7380686669726577616c6ca267696e67726573738066656772657373806665677265737365",
            "626c6f636b",
        ),
    );
    let moved = MovedSnapshot { id: SnapshotId::from_bytes([0x99; 12]), transfer: TransferId::from_bytes([0x88; 12]) };
    golden(
        ContainerSpec {
            egress: None,
            firewall: FirewallSpec::default(),
            transfer: Some(TransferId::from_bytes([0x77; 12])),
            moved: true,
            snapshots: vec![moved].try_into().unwrap(),
            ..spec
        },
        concat!(
            "0000022a0014b062696478183131313131313131313131313131313131313131313131316770726f6a656374781834343434",
            "3434343434343434343434343434343434343434656f776e6572781835353535353535353535353535353535353535353535",
            "35356776657273696f6ea26565706f6368016a67656e65726174696f6e026873657175656e6365036764657369726564a167",
            "72756e6e696e67a16372756e01696175746f7374617274f568686f73746e616d656377656265696d616765a3666469676573",
            "7478477368613235363a64656432623264353932383361623861626133356261373465346166633665346138616438333833",
            "646333323061613334643363336536363464313962663365666c61796572738066636f6e666967a567636f6d6d616e648167",
            "2f62696e2f736863656e76a067776f726b646972612f6475736572606b73746f705f7369676e616c6063656e76a0666c696d",
            "697473a46a6370755f6d696c6c69731903e86c6d656d6f72795f62797465731a100000006a6469736b5f62797465731a4000",
            "0000647069647319020063646e7380686669726577616c6ca267696e6772657373806665677265737380687472616e736665",
            "727818373737373737373737373737373737373737373737373737656d6f766564f569736e617073686f747381a262696478",
            "18393939393939393939393939393939393939393939393939687472616e7366657278183838383838383838383838383838",
            "38383838383838383838",
        ),
    );
}
