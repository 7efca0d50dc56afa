use super::*;
use proptest::prelude::*;

const MIB: i64 = 1 << 20;

fn server(number: u8) -> ServerRow {
    let mut id = [0; 12];
    id[11] = number;
    ServerRow {
        id: ServerId::from_bytes(id),
        name: format!("server-{number}"),
        status: "enrolled".to_owned(),
        online: true,
        architecture: "amd64".to_owned(),
        free_cpu_millis: 4000,
        free_memory_bytes: 4096 * MIB,
        free_disk_bytes: 40960 * MIB,
        free_containers: 10,
        project_containers: 0,
        owned: true,
        kvm: false,
        pool_level: 0,
        draining: false,
    }
}

fn limits() -> Limits {
    Limits { cpu_millis: 1000, memory_bytes: 512 << 20, disk_bytes: 4096 << 20, pids: 512, network_mbit: None }
}

fn ranked(servers: &[ServerRow]) -> Vec<u8> {
    let limits = limits();
    let ids = rank(servers, Demand { limits: &limits, architecture: Some("amd64"), kvm: false }).unwrap();
    ids.iter().map(|id| id.as_bytes()[11]).collect()
}

fn refused(change: impl Fn(&mut ServerRow)) -> Reason {
    let mut candidate = server(1);
    change(&mut candidate);
    let limits = limits();
    let rejections =
        rank(&[candidate], Demand { limits: &limits, architecture: Some("amd64"), kvm: false }).unwrap_err();
    assert_eq!(rejections[0].server, "server-1");
    rejections[0].reason.clone()
}

#[test]
fn the_fullest_server_that_fits_comes_first() {
    let mut servers = [server(1), server(2), server(3)];
    servers[1].free_memory_bytes = 512 * MIB;
    servers[2].free_memory_bytes = 511 * MIB;
    assert_eq!(ranked(&servers), [2, 1]);
    servers[1].free_memory_bytes = servers[0].free_memory_bytes;
    servers[1].free_cpu_millis = 1000;
    assert_eq!(ranked(&servers), [2, 1]);
}

#[test]
fn a_project_is_spread_before_servers_are_filled() {
    let mut servers = [server(1), server(2)];
    servers[0].free_memory_bytes = 600 * MIB;
    servers[0].project_containers = 1;
    assert_eq!(ranked(&servers), [2, 1]);
}

#[test]
fn every_server_has_its_reason() {
    assert_eq!(refused(|s| s.status = "created".into()), Reason::NotEnrolled);
    assert_eq!(refused(|s| s.status = "disabled".into()), Reason::Disabled);
    assert_eq!(refused(|s| s.status = "revoked".into()), Reason::Revoked);
    assert_eq!(refused(|s| s.online = false), Reason::Offline);
    assert_eq!(refused(|s| s.free_containers = 0), Reason::Full);
    assert_eq!(refused(|s| s.pool_level = 95), Reason::PoolFull);
    assert!(matches!(refused(|s| s.architecture = "arm64".into()), Reason::Architecture { .. }));
    assert!(matches!(refused(|s| s.free_memory_bytes = -1), Reason::Memory { free: 0, .. }));
    assert!(matches!(refused(|s| s.free_cpu_millis = 999), Reason::Cpu { free: 999, wanted: 1000 }));
    assert!(matches!(refused(|s| s.free_disk_bytes = 4095 * MIB), Reason::Disk { .. }));
    assert_eq!(
        refused(|s| s.free_memory_bytes = 100 * MIB).to_string(),
        "512 MiB of memory are needed, 100 MiB are free"
    );
}

#[test]
fn without_servers_there_is_nothing_to_reject() {
    let limits = limits();
    assert_eq!(rank(&[], Demand { limits: &limits, architecture: Some("amd64"), kvm: false }), Err(vec![]));
}

fn any_server() -> impl Strategy<Value = ServerRow> {
    (any::<u8>(), any::<bool>(), 0..5000i64, 0..2048i64, 0..9000i64, 0..3i64, 0..4i64, 0..4usize).prop_map(
        |(number, online, cpu, memory, disk, containers, project, status)| ServerRow {
            online,
            architecture: ["amd64", "amd64", "", "arm64"][usize::from(number % 4)].to_owned(),
            status: ["enrolled", "enrolled", "disabled", "revoked"][status].to_owned(),
            free_cpu_millis: cpu,
            free_memory_bytes: memory * MIB,
            free_disk_bytes: disk * MIB,
            free_containers: containers,
            project_containers: project,
            ..server(number)
        },
    )
}

/// The choice as the documentation of [`rank`] words it, by comparing every server with every other.
fn brute_force(servers: &[ServerRow], limits: &Limits) -> Vec<ServerId> {
    let fits = |server: &&ServerRow| {
        let free = [server.free_cpu_millis, server.free_memory_bytes, server.free_disk_bytes, server.free_containers];
        let wanted = [i64::from(limits.cpu_millis), limits.memory_bytes as i64, limits.disk_bytes as i64, 1];
        let enough = free.iter().zip(wanted).all(|(free, wanted)| *free >= wanted);
        enough && server.online && server.status == "enrolled" && ["", "amd64"].contains(&server.architecture.as_str())
    };
    let better = |one: &ServerRow, other: &ServerRow| {
        let keys = |s: &ServerRow| [s.project_containers, s.free_memory_bytes, s.free_cpu_millis, s.free_disk_bytes];
        keys(one) < keys(other) || (keys(one) == keys(other) && one.id < other.id)
    };
    let fitting: Vec<&ServerRow> = servers.iter().filter(fits).collect();
    let place = |server: &ServerRow| fitting.iter().filter(|other| better(other, server)).count();
    let mut placed: Vec<Option<ServerId>> = vec![None; fitting.len()];
    for server in &fitting {
        placed[place(server)] = Some(server.id);
    }
    placed.into_iter().flatten().collect()
}

proptest! {
    /// Placing one container after the other where the scheduler says, every server stays within what it has.
    #[test]
    fn never_over_commits_and_is_deterministic(
        mut servers in proptest::collection::vec(any_server(), 0..6),
        demands in proptest::collection::vec((10..2000u32, 16..800u64, 16..4000u64), 1..20),
    ) {
        for (number, server) in servers.iter_mut().enumerate() {
            server.id = super::tests::server(number as u8).id;
        }
        for (cpu_millis, memory, disk) in demands {
            let limits = Limits { cpu_millis, memory_bytes: memory << 20, disk_bytes: disk << 20, pids: 64, network_mbit: None };
            let demand = Demand { limits: &limits, architecture: Some("amd64"), kvm: false };
            let ranked = rank(&servers, demand);
            let mut reversed = servers.clone();
            reversed.reverse();
            match (&ranked, rank(&reversed, demand)) {
                (Ok(ids), Ok(again)) => prop_assert_eq!(ids, &again),
                (Err(reasons), Err(again)) => prop_assert!(reasons.len() == servers.len() && again.len() == servers.len()),
                _ => prop_assert!(false, "the order of candidates decided"),
            }
            prop_assert_eq!(ranked.clone().unwrap_or_default(), brute_force(&servers, &limits));
            let Ok(ids) = ranked else { continue };
            let chosen = servers.iter_mut().find(|server| server.id == ids[0]).unwrap();
            prop_assert!(chosen.online && chosen.status == "enrolled");
            chosen.free_cpu_millis -= i64::from(cpu_millis);
            chosen.free_memory_bytes -= (memory << 20) as i64;
            chosen.free_disk_bytes -= (disk << 20) as i64;
            chosen.free_containers -= 1;
            prop_assert!(chosen.free_cpu_millis >= 0 && chosen.free_memory_bytes >= 0);
            prop_assert!(chosen.free_disk_bytes >= 0 && chosen.free_containers >= 0);
        }
    }
}
