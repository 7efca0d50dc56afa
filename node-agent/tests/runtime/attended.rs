//! Further processes that the agent looks after: what they may do, what ends them, and what is left of them.

use crate::harness::{Node, PATIENCE, until};
use hoody_agent::runtime::{Attend, AttendRequest, Attended, ExecRequest, Outputs, Runtime, RuntimeError};
use hoody_protocol::{exec::Exit, id::ContainerId};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

fn request(argv: &[&str]) -> AttendRequest {
    let command = ExecRequest { argv: argv.iter().map(|&text| text.into()).collect(), ..Default::default() };
    AttendRequest { command, terminal: None }
}

fn shell(script: &str) -> AttendRequest {
    request(&["/bin/sh", "-c", script])
}

/// Runs a process to its end; how it ended and what it wrote.
async fn output(node: &Node, id: ContainerId, request: &AttendRequest, input: &[u8]) -> (Exit, Vec<u8>, String) {
    let (mut process, outputs) = node.runtime.attend(id, request).await.unwrap();
    let Outputs::Pipes { mut stdin, mut stdout, mut stderr } = outputs else { panic!("pipes") };
    let (mut out, mut err) = (Vec::new(), String::new());
    let feed = async move {
        // A process need not read its input.
        let _ = stdin.write_all(input).await;
    };
    let all =
        async { tokio::join!(feed, stdout.read_to_end(&mut out), stderr.read_to_string(&mut err), process.ended()) };
    let (_, _, _, exit) = timeout(PATIENCE, all).await.expect("it ends");
    (exit, out, err)
}

/// The groups of execs of a container, and the processes in them.
fn groups(node: &Node, id: ContainerId) -> Vec<(PathBuf, String)> {
    let hierarchies = ["systemd", "unified", ""];
    let folders = hierarchies.iter().filter_map(|name| std::fs::read_dir(node.cgroup(name, id)).ok()).flatten();
    let paths = folders.map(|entry| entry.unwrap().path());
    let execs = paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("hoody-exec-"));
    execs.map(|path| (path.clone(), std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default())).collect()
}

fn nothing_left(node: &Node, id: ContainerId, first: i32) {
    until("only the first process is left", || {
        let folder = node.cgroup("unified", id);
        let procs = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap();
        groups(node, id).is_empty() && procs.split_whitespace().eq([first.to_string().as_str()])
    });
    // The monitor removes them after the group.
    until("no file of an exec is left", || {
        let mut files = std::fs::read_dir(node.path(&format!("run/containers/{id}"))).unwrap();
        files.all(|file| !file.unwrap().file_name().to_str().unwrap().starts_with("attended-"))
    });
}

#[tokio::test]
async fn codes_signals_and_streams_are_told_apart() {
    let node = Node::new();
    let bundle = node.bundle(&[]);
    let first = node.run(&bundle).await;
    let (exit, out, err) = output(&node, bundle.id, &shell("cat; echo oops >&2; exit 7"), b"hello").await;
    assert_eq!((exit, out.as_slice(), err.as_str()), (Exit::Code(7), b"hello".as_slice(), "oops\n"));
    let (exit, ..) = output(&node, bundle.id, &shell("kill -9 $$"), b"").await;
    assert_eq!(exit, Exit::Signal(9));
    let (exit, ..) = output(&node, bundle.id, &shell("exit 137"), b"").await;
    assert_eq!(exit, Exit::Code(137), "a code is no signal");
    let megabytes = vec![b'x'; 3 << 20];
    let (exit, out, _) = output(&node, bundle.id, &request(&["/bin/wc", "-c"]), &megabytes).await;
    assert_eq!((exit, String::from_utf8(out).unwrap().trim()), (Exit::Code(0), (3 << 20).to_string().as_str()));
    // By name too, and as somebody who does not own the node's pipes.
    let mut named = shell("echo named > /dev/stdout; id -u; id -g; id -G");
    named.command.user = "web".into();
    let (_, out, err) = output(&node, bundle.id, &named, b"").await;
    assert_eq!(String::from_utf8(out).unwrap(), "named\n33\n34\n34 110\n", "{err}");
    // Limits hold for it: in every hierarchy its group is the container's or below, of which it sees no more.
    let (_, out, _) = output(&node, bundle.id, &request(&["/bin/cat", "/proc/self/cgroup"]), b"").await;
    let out = String::from_utf8(out).unwrap();
    assert!(!out.is_empty() && !out.contains("/.."), "{out}");
    nothing_left(&node, bundle.id, first);
}

#[tokio::test]
async fn it_has_no_more_than_the_first_process() {
    let node = Node::new();
    let bundle = node.bundle(&["/bin/sh", "-c", "cat /proc/self/status; exec sleep 1000"]);
    node.run(&bundle).await;
    until("the first process said what it has", || node.log(bundle.id).contains("Seccomp:"));
    let keys = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp:"];
    let of = |text: &str| -> Vec<String> {
        text.lines().filter(|line| keys.iter().any(|key| line.starts_with(key))).map(str::to_owned).collect()
    };
    let first = of(&node.log(bundle.id));
    let (_, out, _) = output(&node, bundle.id, &request(&["/bin/cat", "/proc/self/status"]), b"").await;
    assert_eq!(of(&String::from_utf8(out).unwrap()), first);
    assert_eq!(first.len(), keys.len());
    let script = "cat /proc/self/uid_map; for n in user pid mnt net ipc uts cgroup; do stat -Lc %i /proc/self/ns/$n; stat -Lc %i /proc/1/ns/$n; done";
    let (_, out, err) = output(&node, bundle.id, &shell(script), b"").await;
    let text = String::from_utf8(out).unwrap();
    let mut lines = text.lines();
    assert!(lines.next().unwrap().split_whitespace().nth(1) == Some(&node.ids.first.to_string()), "{text}");
    let inodes: Vec<&str> = lines.collect();
    assert_eq!(inodes.len(), 14, "{text} {err}");
    for pair in inodes.chunks(2) {
        assert_eq!(pair[0], pair[1], "{text}");
    }
    // The limits are the container's: its cgroups with a controller hold the process itself.
    let (_, out, _) = output(&node, bundle.id, &request(&["/bin/cat", "/proc/self/cgroup"]), b"").await;
    let text = String::from_utf8(out).unwrap();
    for controller in ["memory", "pids", "cpu"] {
        let line = text.lines().find(|line| line.contains(&format!(":{controller}:")));
        assert!(line.is_none_or(|line| !line.contains("hoody-exec-")), "{text}");
    }
}

#[tokio::test]
async fn the_end_of_it_or_of_whoever_asked_ends_everything_that_it_started() {
    let node = Node::new();
    let bundle = node.bundle(&[]);
    let first = node.run(&bundle).await;
    // Its own end: a grandchild in a session of its own holds the output open.
    let (exit, out, _) = output(&node, bundle.id, &shell("sh -c 'sleep 1000 & sleep 1000' & echo over"), b"").await;
    assert_eq!((exit, out.as_slice()), (Exit::Code(0), b"over\n".as_slice()));
    nothing_left(&node, bundle.id, first);
    // It is killed.
    let tree =
        shell("sh -c 'sleep 1000 & sleep 1000' & sleep 1000 & trap '' TERM HUP INT; while true; do sleep 1; done");
    let (mut process, _outputs) = node.runtime.attend(bundle.id, &tree).await.unwrap();
    until("it has grandchildren", || groups(&node, bundle.id)[0].1.lines().count() >= 4);
    process.kill();
    assert_eq!(timeout(PATIENCE, process.ended()).await.unwrap(), Exit::Signal(9));
    nothing_left(&node, bundle.id, first);
    // Nobody is interested any more.
    let (process, outputs) = node.runtime.attend(bundle.id, &tree).await.unwrap();
    until("it has grandchildren", || groups(&node, bundle.id)[0].1.lines().count() >= 4);
    drop((process, outputs));
    nothing_left(&node, bundle.id, first);
    // A start that is given up.
    let given_up = timeout(Duration::from_millis(10), node.runtime.attend(bundle.id, &tree)).await;
    drop(given_up);
    nothing_left(&node, bundle.id, first);
}

/// Sends a signal to the monitor of the process in this group.
fn signal_monitor(group: &str, signal: Signal) {
    let monitors = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let text = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.contains("exec-monitor") && text.contains(group)
    });
    for monitor in monitors {
        let pid: i32 = monitor.file_name().to_str().unwrap().parse().unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }
}

/// A monitor that stands still until this is dropped.
struct Stopped(String);

impl Stopped {
    fn of(group: &str) -> Self {
        signal_monitor(group, Signal::SIGSTOP);
        Self(group.to_owned())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal_monitor(&self.0, Signal::SIGCONT);
    }
}

/// The first process of a container stays for as long as anything else in it is not waited for: here, a process whose
/// monitor stands still.
#[tokio::test]
async fn what_comes_while_the_container_ends_is_told_so() {
    let node = Node::new();
    let bundle = node.bundle(&[]);
    let first = node.run(&bundle).await;
    let (mut process, _outputs) = node.runtime.attend(bundle.id, &request(&["/bin/sleep", "1000"])).await.unwrap();
    let (folder, _) = groups(&node, bundle.id).remove(0);
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let stopped = Stopped::of(&name);
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    for _ in 0..3 {
        let error = node.runtime.attend(bundle.id, &request(&["/bin/true"])).await.unwrap_err();
        assert!(matches!(error, RuntimeError::State { state: "exited", .. }), "{error}");
    }
    let path = format!("/proc/{first}/stat");
    let stat = std::fs::read_to_string(&path).expect("the first process is still there");
    assert!(!stat.contains(") Z"), "it has not ended yet: {stat}");
    drop(stopped);
    assert_eq!(timeout(PATIENCE, process.ended()).await.unwrap(), Exit::Signal(9));
    timeout(PATIENCE, node.runtime.wait(bundle.id)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_is_killed_leaves_what_the_next_sweep_ends() {
    let node = Node::new();
    let bundle = node.bundle(&[]);
    let first = node.run(&bundle).await;
    let (mut process, _outputs) = node.runtime.attend(bundle.id, &request(&["/bin/sleep", "1000"])).await.unwrap();
    let (folder, _) = groups(&node, bundle.id).remove(0);
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    signal_monitor(&name, Signal::SIGKILL);
    assert_eq!(timeout(PATIENCE, process.ended()).await.unwrap(), Exit::Unknown);
    assert_eq!(groups(&node, bundle.id)[0].1.lines().count(), 1, "it still runs");
    until("it is swept away", || {
        let runtime = node.runtime.clone();
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(runtime.sweep_execs())).unwrap();
        groups(&node, bundle.id).is_empty()
    });
    nothing_left(&node, bundle.id, first);
}

#[tokio::test]
async fn what_cannot_be_started_says_why_and_leaves_nothing() {
    let node = Node::new();
    let bundle = node.bundle(&[]);
    let first = node.run(&bundle).await;
    let refused = async |request: &AttendRequest| node.runtime.attend(bundle.id, request).await.unwrap_err();
    let error = refused(&request(&["no-such-program"])).await;
    assert!(matches!(&error, RuntimeError::Start { reason, .. } if reason.contains("no-such-program")), "{error}");
    let mut elsewhere = request(&["/bin/true"]);
    elsewhere.command.cwd = "/no/such/folder".into();
    let error = refused(&elsewhere).await;
    assert!(matches!(error, RuntimeError::Start { .. }), "{error}");
    for user in ["nobody-here", "70000", "../root", "root:nogroup"] {
        let mut other = request(&["/bin/true"]);
        other.command.user = user.into();
        assert!(matches!(refused(&other).await, RuntimeError::Bundle { .. }), "{user}");
    }
    nothing_left(&node, bundle.id, first);
    // The accounts are the container's own, also where it plants a link to the node's.
    std::fs::remove_file(node.root().join("etc/passwd")).unwrap();
    let secret = node.path("secret");
    std::fs::write(&secret, "planted:x:0:0::/:\n").unwrap();
    std::os::unix::fs::symlink(&secret, node.root().join("etc/passwd")).unwrap();
    let mut planted = request(&["/bin/true"]);
    planted.command.user = "planted".into();
    assert!(matches!(refused(&planted).await, RuntimeError::Bundle { .. }));
    node.runtime.pause(bundle.id).await.unwrap();
    let error = refused(&request(&["/bin/true"])).await;
    assert!(matches!(error, RuntimeError::State { state: "paused", .. }), "{error}");
    node.runtime.resume(bundle.id).await.unwrap();
    node.runtime.delete(bundle.id).await.unwrap();
    assert!(matches!(refused(&request(&["/bin/true"])).await, RuntimeError::State { .. }));
    assert_eq!(node.traces(), Vec::<String>::new());
}

async fn until_shown(outputs: &Outputs, shown: &mut String, what: &str) {
    let Outputs::Terminal(console) = outputs else { panic!("a terminal") };
    let mut buffer = [0; 1024];
    let found = async {
        while !shown.contains(what) {
            let count = console.read(&mut buffer).await.unwrap();
            assert!(count > 0, "{shown}");
            shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    assert!(timeout(PATIENCE, found).await.is_ok(), "{what:?} is not in {shown:?}");
}

/// A child that the terminal's signals go to: of a process group of its own, the one in the foreground.
fn is_in_foreground_below_shell(pid: &str) -> bool {
    let field = |pid: &str, number: usize| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(number).map(str::to_owned)
    };
    // The fields behind the name: state, parent, group, session, terminal, foreground group.
    let (group, foreground, session) = (field(pid, 2), field(pid, 5), field(pid, 3));
    group.is_some() && group == foreground && group != session
}

#[tokio::test]
async fn a_terminal_is_one() {
    let node = Node::new();
    let bundle = node.bundle(&[]);
    let first = node.run(&bundle).await;
    let mut shell = request(&["/bin/sh"]);
    shell.terminal = Some((101, 33));
    shell.command.user = "web".into();
    let (mut process, outputs): (Attended, Outputs) = node.runtime.attend(bundle.id, &shell).await.unwrap();
    let Outputs::Terminal(console) = &outputs else { panic!("a terminal") };
    let mut shown = String::new();
    console.write_all(b"/bin/busybox stty size; echo $TERM; test -t 0 && echo is-$((40+2))\n").await.unwrap();
    until_shown(&outputs, &mut shown, "is-42").await;
    assert!(shown.contains("33 101") && shown.contains("xterm"), "{shown}");
    console.resize(80, 25).unwrap();
    console.write_all(b"/bin/busybox stty size; echo $((50+1))\n").await.unwrap();
    until_shown(&outputs, &mut shown, "51").await;
    assert!(shown.contains("25 80"), "{shown}");
    // Ctrl-C reaches what is in the foreground.
    console.write_all(b"sleep 1000; echo ended-$((60+1))\n").await.unwrap();
    until("it sleeps", || groups(&node, bundle.id)[0].1.lines().any(is_in_foreground_below_shell));
    // What is typed before the shell is back at its prompt, it may throw away.
    until_shown(&outputs, &mut shown, "ended-$((60+1))").await;
    shown.clear();
    console.write_all(b"\x03").await.unwrap();
    until_shown(&outputs, &mut shown, "$ ").await;
    console.write_all(b"exit 3\n").await.unwrap();
    assert_eq!(timeout(PATIENCE, process.ended()).await.unwrap(), Exit::Code(3));
    drop(outputs);
    nothing_left(&node, bundle.id, first);
}
