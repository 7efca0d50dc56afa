//! What is armed, and dying there.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::OpenOptions,
    io::Write,
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
};

/// What the environment says; read once.
#[derive(Debug)]
struct Setting {
    point: Option<String>,
    folder: Option<PathBuf>,
}

/// The armed point, as it was named, and how often it was reached since it is.
#[derive(Debug, Default)]
struct Count {
    armed: String,
    hits: u32,
}

static SETTING: OnceLock<Setting> = OnceLock::new();
static COUNT: Mutex<Count> = Mutex::new(Count { armed: String::new(), hits: 0 });

/// A point was reached: dies here where it is the armed one.
pub fn reach(name: &'static str) {
    let setting = SETTING.get_or_init(|| Setting {
        point: std::env::var("HOODY_FAULT_POINT").ok(),
        folder: std::env::var_os("HOODY_FAULT_FOLDER").map(PathBuf::from),
    });
    if setting.point.is_none() && setting.folder.is_none() {
        return;
    }
    // Held to the end, so that of several threads at once each counts.
    let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut armed = setting.point.clone().unwrap_or_default();
    if let Some(folder) = &setting.folder {
        let reached = OpenOptions::new().create(true).append(true).open(folder.join("reached"));
        if let Err(error) = reached.and_then(|mut file| writeln!(file, "{name}")) {
            eprintln!("fault point {name} was not written down: {error}");
        }
        if let Ok(text) = std::fs::read_to_string(folder.join("armed")) {
            armed = text.trim().to_owned();
        }
    }
    if count.armed != armed {
        *count = Count { armed, hits: 0 };
    }
    let (point, hit) = parse(&count.armed);
    if point != name {
        return;
    }
    count.hits += 1;
    if count.hits >= hit {
        eprintln!("fault point {name} reached: killed here");
        // Without unwinding and without anybody's farewell: as power that fails, but for the disk's caches.
        let _ = kill(Pid::this(), Signal::SIGKILL);
        loop {
            std::thread::park();
        }
    }
}

fn parse(armed: &str) -> (&str, u32) {
    match armed.split_once(':') {
        Some((point, hit)) => (point, hit.parse().unwrap_or(1)),
        None => (armed, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_with_and_without_a_hit() {
        assert_eq!(parse("record.write"), ("record.write", 1));
        assert_eq!(parse("record.write:3"), ("record.write", 3));
        assert_eq!(parse(""), ("", 1));
    }
}
