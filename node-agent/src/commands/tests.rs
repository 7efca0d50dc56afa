//! Real programs in control groups of their own; root only, as the agent.

use super::*;
use hoody_protocol::{
    bounded::Text,
    command::{Account, OutputStream},
};
use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
};

const PROGRAMS: &str = "built_in = ['disk-usage', 'agent-restart']\nprograms_as_root = true\n\
    memory_mib = 64\nprocesses = 30\n\
    programs = ['/bin/sh', '/usr/bin/env', '/usr/bin/id', '/nonexistent/program']";
/// For whatever ends by itself at once.
const DEADLINE: Duration = Duration::from_secs(30);

static NEXT: AtomicU32 = AtomicU32::new(0);

struct World {
    folder: tempfile::TempDir,
    settings: Settings,
    commands: Commands,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.commands.0.group.kill();
        let _ = self.commands.0.group.remove();
    }
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let policy = folder.path().join("commands.toml");
        fs::write(&policy, PROGRAMS).unwrap();
        let records = folder.path().join("records");
        fs::create_dir(&records).unwrap();
        let settings = Settings {
            folder: records,
            policy,
            cgroup: format!("/hoody-test-commands-{}-{number}", std::process::id()).into(),
            boot_id: "boot-1".to_owned(),
            pool: "/".into(),
        };
        let commands = Commands::open(settings.clone()).await.unwrap();
        Self { folder, settings, commands }
    }

    fn marker(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn run(&self, request: CommandRequest) -> (String, CommandOutcome) {
        let execution = self.commands.accept(request).await.unwrap();
        finished(&execution).await
    }

    fn processes(&self) -> usize {
        self.commands.0.group.processes().unwrap().len()
    }
}

async fn finished(execution: &Execution) -> (String, CommandOutcome) {
    let wait = async {
        let (mut text, mut next) = (String::new(), 0);
        loop {
            let (chunks, outcome) = execution.after(next).await;
            next += chunks.len() as u32;
            text.extend(chunks.iter().map(|chunk| chunk.text.as_str()));
            if let Some(outcome) = outcome {
                return (text, outcome);
            }
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("it is over in time")
}

fn request(order: Order, timeout: Duration) -> CommandRequest {
    CommandRequest {
        id: ExecutionId::generate(),
        order,
        timeout_ms: timeout.as_millis() as u64,
        begin_within_ms: 10_000,
        from: 0,
    }
}

fn custom(argv: &[&str], account: Account) -> Order {
    let argv: Vec<_> = argv.iter().map(|part| Text::truncated(*part)).collect();
    let (slug, working_directory) = (Text::truncated("test"), Text::default());
    Order::Custom { slug, argv: argv.try_into().unwrap(), account, working_directory }
}

fn shell(script: &str) -> CommandRequest {
    request(custom(&["/bin/sh", "-c", script], Account::Root), DEADLINE)
}

fn built_in(slug: &str) -> CommandRequest {
    request(Order::BuiltIn { slug: Text::truncated(slug), parameters: Default::default() }, DEADLINE)
}

fn refused(answer: Result<Execution, Cause>) -> String {
    answer.unwrap_err().code.to_string()
}

#[tokio::test]
async fn a_program_gets_nothing_of_the_agents() {
    let world = World::new().await;
    let (text, outcome) = world.run(request(custom(&["/usr/bin/env"], Account::Root), DEADLINE)).await;
    let mut names: Vec<_> = text.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!((names, outcome.exit_code), (vec!["HOME", "LANG", "PATH"], Some(0)));

    let script = "cd /proc/self/fd && echo * && pwd -P >/dev/null && cd / && nice && cat /proc/self/cgroup && \
        grep NoNewPrivs /proc/self/status && ulimit -c";
    let (text, _) = world.run(shell(script)).await;
    let mut lines = text.lines();
    // 0, 1 and 2, and the shell's own of the folder, at most.
    assert!(lines.next().unwrap().split(' ').count() <= 4, "{text}");
    assert_eq!(lines.next(), Some("10"), "{text}");
    assert!(text.contains(world.settings.cgroup.to_str().unwrap()), "{text}");
    assert!(text.contains("NoNewPrivs:\t1"), "{text}");

    let (text, _) = world.run(request(custom(&["/usr/bin/id"], Account::Nobody), DEADLINE)).await;
    assert_eq!(text.trim(), "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)");
}

#[tokio::test]
async fn both_streams_and_the_exit_code_are_told() {
    let world = World::new().await;
    let execution = world.commands.accept(shell("echo out; echo err >&2; exit 3")).await.unwrap();
    let (text, outcome) = finished(&execution).await;
    assert!(text.contains("out\n") && text.contains("err\n"), "{text}");
    assert_eq!((outcome.ending, outcome.exit_code, outcome.truncated), (Ending::Exited, Some(3), false));
    let (chunks, _) = execution.after(0).await;
    let stream = |stream| chunks.iter().filter(move |chunk| chunk.stream == stream).count();
    assert_eq!((stream(OutputStream::Stdout), stream(OutputStream::Stderr)), (1, 1));
    let (_, outcome) = world.run(shell("kill -9 $$")).await;
    assert_eq!(outcome.exit_code, Some(137));
}

#[tokio::test]
async fn the_timeout_ends_everything_that_was_started() {
    let world = World::new().await;
    // One child that ignores the request to end, one that left session and group.
    let script = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 1000' &) ; sleep 1000 & echo up; wait; wait";
    let request = CommandRequest { timeout_ms: 700, ..shell(script) };
    let started = std::time::Instant::now();
    let (text, outcome) = world.run(request).await;
    assert_eq!((text.as_str(), outcome.ending, outcome.exit_code), ("up\n", Ending::TimedOut, None));
    assert_eq!(world.processes(), 0);
    assert!(started.elapsed() >= process::GRACE, "they had time to end");
}

#[tokio::test]
async fn what_stays_behind_a_program_that_ended_goes_too() {
    let world = World::new().await;
    let (text, outcome) = world.run(shell("(setsid sleep 1000 &); echo done")).await;
    assert_eq!((text.as_str(), outcome.ending), ("done\n", Ending::Exited));
    assert_eq!(world.processes(), 0);
}

#[tokio::test]
async fn it_ends_when_it_is_asked_to() {
    let world = World::new().await;
    let execution = world.commands.accept(shell("echo up; sleep 1000")).await.unwrap();
    let (chunks, _) = execution.after(0).await;
    assert_eq!(&*chunks[0].text, "up\n");
    execution.cancel();
    assert_eq!(finished(&execution).await.1.ending, Ending::Cancelled);
    assert_eq!(world.processes(), 0);
}

#[tokio::test]
async fn ten_mebibytes_become_one() {
    let world = World::new().await;
    let (text, outcome) = world.run(shell("head -c 10485760 /dev/zero | tr '\\0' x; exit 7")).await;
    assert_eq!((text.len(), outcome.truncated), (1 << 20, true));
    assert_eq!(outcome.exit_code, Some(7), "it was not stopped by its full pipe");
}

/// Nothing is left of any command, in no hierarchy.
fn nothing_is_left(world: &World, id: ExecutionId) {
    assert_eq!(world.processes(), 0);
    for folder in world.commands.0.group.child(&id.to_string()).folders() {
        assert!(!folder.exists(), "{} stays", folder.display());
    }
}

#[tokio::test]
async fn a_fork_bomb_reaches_its_limit_and_goes_as_a_whole() {
    let world = World::new().await;
    // Each starts two more, for ever; what cannot start one tries again.
    let bomb = "f() { while :; do f & f & wait; done; }; f 2>/dev/null";
    let request = CommandRequest { timeout_ms: 1500, ..shell(bomb) };
    let id = request.id;
    let execution = world.commands.accept(request).await.unwrap();
    let mut most = 0;
    let (text, outcome) = {
        let over = finished(&execution);
        tokio::pin!(over);
        loop {
            tokio::select! {
                over = &mut over => break over,
                () = tokio::time::sleep(Duration::from_millis(20)) => most = most.max(world.processes()),
            }
        }
    };
    // A bomb may also go out by itself, where its first shell gives up.
    assert!(matches!(outcome.ending, Ending::TimedOut | Ending::Exited), "{outcome:?} {text}");
    assert_eq!(outcome.cause.expect("it is told").code.as_str(), "process_limit");
    assert!(most <= 30, "{most} processes");
    nothing_is_left(&world, id);

    // What was not reached is not told.
    let (_, outcome) = world.run(shell("exit 1")).await;
    assert_eq!(outcome.cause, None);
}

#[tokio::test]
async fn a_memory_hog_is_ended_and_the_server_is_not() {
    let world = World::new().await;
    // `tail` keeps what has no end of line.
    let request = shell("head -c 1073741824 /dev/zero | tail -n 1 | wc -c; echo survived; exit 9");
    let id = request.id;
    let (text, outcome) = world.run(request).await;
    assert!(!text.contains("1073741824"), "{text}");
    let cause = outcome.cause.expect("it is told");
    assert_eq!(cause.code.as_str(), "memory_limit");
    assert!(cause.message.contains("64 MiB"), "{}", cause.message.as_str());
    assert_ne!(outcome.exit_code, Some(0));
    nothing_is_left(&world, id);
    let (score, _) = world.run(shell("cat /proc/self/oom_score_adj")).await;
    assert_eq!(score, "500\n", "commands end before containers do");
}

#[tokio::test]
async fn the_same_request_runs_once_also_for_the_next_agent() {
    let world = World::new().await;
    let marker = world.marker("runs");
    let request = shell(&format!("echo once >> {}", marker.display()));
    let id = request.id;
    world.run(request.clone()).await;
    world.run(request.clone()).await;
    let late = CommandRequest { begin_within_ms: 0, ..request.clone() };
    world.run(late.clone()).await;
    world.commands.stored(id);
    world.run(late).await;

    let again = Commands::open(world.settings.clone()).await.unwrap();
    let (text, outcome) = finished(&again.accept(request).await.unwrap()).await;
    assert_eq!((text.as_str(), outcome.exit_code), ("", Some(0)), "what was stored is not told again");
    assert_eq!(fs::read_to_string(marker).unwrap(), "once\n");
}

#[tokio::test]
async fn what_is_not_allowed_or_not_right_does_not_run() {
    let world = World::new().await;
    let marker = world.marker("ran");
    let touch = format!("echo > {}", marker.display());
    let code = async |request: CommandRequest| refused(world.commands.accept(request).await);
    assert_eq!(code(CommandRequest { begin_within_ms: 0, ..shell(&touch) }).await, "too_late");
    assert_eq!(code(CommandRequest { timeout_ms: 0, ..shell(&touch) }).await, "invalid_timeout");
    assert_eq!(code(CommandRequest { timeout_ms: u64::MAX, ..shell(&touch) }).await, "invalid_timeout");
    assert_eq!(code(built_in("log-tail")).await, "not_allowed");
    assert_eq!(code(built_in("no-such")).await, "not_allowed");
    let bad = |argv: &[&str]| request(custom(argv, Account::Root), DEADLINE);
    assert_eq!(code(bad(&["/bin/sh", "-c", "a\nb"])).await, "invalid_command");
    assert_eq!(code(bad(&["/bin/ls"])).await, "not_allowed");
    assert_eq!(code(bad(&[])).await, "not_allowed");
    let parameters = [(Text::truncated("x"), hoody_protocol::command::schema::Value::Flag(true))];
    let parameters = std::collections::BTreeMap::from(parameters).try_into().unwrap();
    let order = Order::BuiltIn { slug: Text::truncated("disk-usage"), parameters };
    assert_eq!(code(request(order, DEADLINE)).await, "invalid_parameters");

    let (_, outcome) = world.run(bad(&["/nonexistent/program"])).await;
    assert!(matches!(outcome.ending, Ending::Failed(_)), "{outcome:?}");
    assert_eq!(outcome.started_at, None);
    fs::remove_file(&world.settings.policy).unwrap();
    assert_eq!(code(shell(&touch)).await, "not_allowed", "without a policy nothing is allowed");
    assert!(!marker.exists());
}

#[tokio::test]
async fn no_more_run_at_once_than_may() {
    let world = World::new().await;
    let mut running = Vec::new();
    for _ in 0..MAX_RUNNING {
        running.push(world.commands.accept(shell("sleep 1000")).await.unwrap());
    }
    assert_eq!(refused(world.commands.accept(shell("true")).await), "busy");
    running.iter().for_each(Execution::cancel);
    for execution in &running {
        finished(execution).await;
    }
    assert_eq!(world.run(shell("true")).await.1.exit_code, Some(0));
}

/// A record as an agent leaves it that was killed while the command ran.
fn leave(world: &World, request: CommandRequest) -> CommandRequest {
    let record = Record { request: request.clone(), boot_id: "boot-1".to_owned(), at: 1, outcome: None, stored: None };
    world.commands.0.records.save(&record).unwrap();
    request
}

async fn after(world: &World, boot_id: &str, request: CommandRequest) -> CommandOutcome {
    let next = Commands::open(Settings { boot_id: boot_id.to_owned(), ..world.settings.clone() }).await.unwrap();
    finished(&next.accept(request).await.unwrap()).await.1
}

#[tokio::test]
async fn the_next_agent_ends_what_runs_and_says_so() {
    let world = World::new().await;
    let request = leave(&world, shell("sleep 1000"));
    let group = world.commands.0.group.child(&request.id.to_string());
    let limits = Policy::parse(PROGRAMS).unwrap().limits();
    let program = plan(&request.order, limits, Path::new("/")).unwrap().program;
    let mut child = process::spawn(&program, &group).unwrap();
    assert!(world.processes() > 0);
    let outcome = after(&world, "boot-1", request.clone()).await;
    assert_eq!((outcome.ending, outcome.exit_code), (Ending::Interrupted, None));
    assert_eq!(world.processes(), 0);
    child.wait().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_ends_leaves_nothing_running() {
    let world = World::new().await;
    let request = shell("(setsid sleep 1000 &); echo up; sleep 1000");
    let execution = world.commands.accept(request.clone()).await.unwrap();
    execution.after(0).await;
    world.commands.end_all().await;
    assert_eq!(world.processes(), 0);
    assert_eq!(refused(world.commands.accept(shell("true")).await), "busy");
    assert_eq!(after(&world, "boot-1", request).await.ending, Ending::Interrupted);
}

#[tokio::test]
async fn restart_and_reboot_are_known_by_what_comes_after() {
    let world = World::new().await;
    let restart = leave(&world, built_in("agent-restart"));
    let outcome = after(&world, "boot-1", restart).await;
    assert_eq!((outcome.ending, outcome.exit_code), (Ending::Exited, Some(0)));

    let reboot = leave(&world, built_in("reboot"));
    let outcome = after(&world, "boot-2", reboot).await;
    assert_eq!((outcome.ending, outcome.exit_code), (Ending::Exited, Some(0)));
    let reboot = leave(&world, built_in("reboot"));
    let outcome = after(&world, "boot-1", reboot).await;
    assert_eq!(outcome.ending, Ending::Interrupted, "the server did not go down");
}

#[tokio::test]
async fn the_agent_is_asked_to_end_for_its_restart() {
    let world = World::new().await;
    world.commands.accept(built_in("agent-restart")).await.unwrap();
    tokio::time::timeout(DEADLINE, world.commands.restart_asked()).await.unwrap();
}
