//! Everything that a container, or a whole server, may leave behind; read from the kernel, not from the
//! agent.

use crate::cluster::Server;
use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The routing table of captured packets.
const CAPTURED: &str = "26745";
/// The port of the relay's listeners.
const LISTENER_PORT: &str = ":20129";
const CGROUPS: &str = "/sys/fs/cgroup";
/// The time killed processes have to be gone.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// Every trace of a container on its server, one line each; empty where there is none. The journal and
/// the logs of the agent may name it.
pub fn of_container(server: &Server, container: &str) -> Result<Vec<String>> {
    let mut traces = Vec::new();
    for pid in processes_in(container)? {
        traces.push(format!("process {pid}: {}", command_line(pid)));
    }
    traces.extend(mounts(container)?.into_iter().map(|mount| format!("mount {}", mount.display())));
    traces.extend(cgroups(container).into_iter().map(|path| format!("cgroup {}", path.display())));
    let interface = format!("hy{}", &container[12..]);
    let links = output(server, "ip", &["-o", "link"])?;
    traces.extend(links.lines().filter(|line| line.contains(&interface)).map(|line| format!("link {line}")));
    let routes = output(server, "ip", &["route"])?;
    traces.extend(routes.lines().filter(|line| line.contains(&interface)).map(|line| format!("route {line}")));
    let rules = output(server, "nft", &["list", "ruleset"])?;
    let named = rules.lines().filter(|line| line.contains(container) || line.contains(&interface));
    traces.extend(named.map(|line| format!("nft {}", line.trim())));
    for folder in [server.pool().to_owned(), server.run_dir(), server.folder.join("state")] {
        let found = find(&folder, container, &server.folder.join("state/journal"));
        traces.extend(found.into_iter().map(|path| format!("file {}", path.display())));
    }
    Ok(traces)
}

/// The server's ends of its containers' links.
pub fn container_links(server: &Server) -> Result<Vec<String>> {
    let links = output(server, "ip", &["-br", "link"])?;
    let names = links.lines().filter_map(|line| line.split(['@', ' ']).next());
    Ok(names.filter(|name| name.starts_with("hy")).map(str::to_owned).collect())
}

/// What exists on a server, by kind; equal before and after whatever leaves nothing behind. Images that were
/// fetched meanwhile stay and do not count.
pub fn snapshot(server: &Server) -> Result<Vec<(String, Vec<String>)>> {
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        lines
    };
    let inside = format!("/{}/", server.name);
    let processes = processes_in(&inside)?.into_iter().map(|pid| command_line(pid) + "\n").collect();
    let mounts = mounts(&server.run_dir().display().to_string())?;
    let mut files = find(&server.run_dir(), "", Path::new(""));
    let state = server.folder.join("state");
    for folder in [state.join("containers"), state.join("blobs"), state.join("logs"), server.pool().join("staging")] {
        files.extend(find(&folder, "", Path::new("")));
    }
    files.extend(fs::read_dir(server.pool().join("containers"))?.flatten().map(|entry| entry.path()));
    for kept in fs::read_dir(server.pool().join("snapshots"))?.flatten() {
        files.push(kept.path());
        files.extend(fs::read_dir(kept.path())?.flatten().map(|entry| entry.path()));
    }
    let rules = output(server, "nft", &["--stateless", "list", "ruleset"])?;
    // The agent's own group in each hierarchy stays once it was made.
    let cgroups = cgroups(&server.name).into_iter().filter(|path| !path.ends_with(&server.name));
    Ok(vec![
        ("processes".into(), sorted(processes)),
        ("mounts".into(), sorted(mounts.iter().map(|path| format!("{}\n", path.display())).collect())),
        ("links".into(), sorted(output(server, "ip", &["-br", "link"])?)),
        ("routes".into(), sorted(output(server, "ip", &["route"])?)),
        (
            "policy routing".into(),
            sorted(output(server, "ip", &["rule"])? + &output(server, "ip", &["route", "show", "table", CAPTURED])?),
        ),
        ("listeners".into(), listeners(server)?),
        ("neighbours".into(), sorted(output(server, "ip", &["neigh", "show", "nud", "permanent"])?)),
        ("rules".into(), sorted(rules)),
        ("cgroups".into(), sorted(cgroups.map(|path| format!("{}\n", path.display())).collect())),
        ("files".into(), sorted(files.iter().map(|path| format!("{}\n", path.display())).collect())),
    ])
}

/// The relay's listeners, one for each container and protocol.
pub fn listeners(server: &Server) -> Result<Vec<String>> {
    let sockets = output(server, "ss", &["-Hlntu"])?;
    let local = sockets.lines().filter_map(|line| line.split_whitespace().nth(4));
    let mut found: Vec<String> = local.filter(|local| local.ends_with(LISTENER_PORT)).map(str::to_owned).collect();
    found.sort();
    Ok(found)
}

fn output(server: &Server, program: &str, arguments: &[&str]) -> Result<String> {
    let output = server.command(program).args(arguments).output().with_context(|| program.to_owned())?;
    anyhow::ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A container's own processes, without the conmon that watches it.
pub fn processes_of(container: &str) -> Result<Vec<i32>> {
    let mut found = processes_in(container)?;
    found.retain(|pid| !is_conmon_of(*pid, container));
    Ok(found)
}

/// Processes whose cgroups or command line name `what`.
pub fn processes_in(what: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        // What has ended and waits for the machine's init to collect it holds nothing.
        if is_zombie(pid) {
            continue;
        }
        if pid != std::process::id() as i32 && (cgroup.contains(what) || is_conmon_of(pid, what)) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the program's name, which is in parentheses and may hold any character.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

fn is_conmon_of(pid: i32, what: &str) -> bool {
    let line = command_line(pid);
    line.split(' ').next().is_some_and(|program| program.ends_with("conmon")) && line.contains(what)
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Mount points whose line in the mount table names `what`.
pub fn mounts(what: &str) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let point = |line: &str| line.split(' ').nth(4).map(PathBuf::from);
    Ok(table.lines().filter(|line| line.contains(what)).filter_map(point).collect())
}

/// Cgroup folders, deepest first, whose path names `what`.
pub fn cgroups(what: &str) -> Vec<PathBuf> {
    let mut found = find(Path::new(CGROUPS), what, Path::new(""));
    found.retain(|path| path.is_dir());
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}

/// Everything below `folder` whose name contains `what`, and folders below that.
fn find(folder: &Path, what: &str, except: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        if path == except {
            continue;
        }
        let named = entry.file_name().to_string_lossy().contains(what);
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if named {
            found.push(path.clone());
        }
        // What is below an image's or a container's root is not ours to search.
        let root = path.join("usr").is_dir() || path.join("bin").is_dir();
        if is_folder && (!root || (named && folder.starts_with(CGROUPS))) {
            found.extend(find(&path, what, except));
        }
    }
    found
}

/// Ends every process of a server's containers and removes its mounts and run folder.
pub(crate) fn end_all(server: &str, run_dir: &Path) -> Result<()> {
    let end = Instant::now() + END_DEADLINE;
    let inside = format!("/{server}/");
    loop {
        let mut left = processes_in(&inside)?;
        left.extend(processes_in(&run_dir.display().to_string())?);
        if left.is_empty() {
            break;
        }
        for pid in &left {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        anyhow::ensure!(Instant::now() < end, "processes do not end: {left:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut mounts = mounts(&run_dir.display().to_string())?;
    mounts.reverse();
    for mount in mounts {
        nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH)?;
    }
    match fs::remove_dir_all(run_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("remove the run folder"),
        _ => Ok(()),
    }
}

/// Removes a server's cgroups.
pub(crate) fn remove_cgroups(server: &str) {
    let inside = format!("/{server}");
    for path in find(Path::new(CGROUPS), server, Path::new("")) {
        if !path.to_string_lossy().contains(&inside) {
            continue;
        }
        let mut all = vec![path];
        let mut next = 0;
        while let Some(path) = all.get(next).cloned() {
            next += 1;
            let below = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
            all.extend(below.filter(|path| path.is_dir()));
        }
        for path in all.iter().rev() {
            // Absent, or removed with its parent's hierarchy.
            let _ = fs::remove_dir(path);
        }
    }
}
