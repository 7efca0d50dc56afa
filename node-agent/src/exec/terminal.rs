//! One terminal. Its own task owns the process and reads what it shows; whoever is connected reads that from the ring.
//!
//! Output that the connected client has not taken is never overwritten: the program waits instead. After a connection
//! broke that goes on for [`super::ExecLimits::hold`], so that a client who connects again misses nothing; then the
//! oldest output gives way, as in any terminal that nobody looks at.

use super::{
    limits::{ExecLimits, Slot},
    ring::Ring,
};
use crate::runtime::{Attended, Console};
use hoody_protocol::{
    bounded::Text,
    container::Cause,
    exec::{Exit, PIECE_BYTES, ProcessEnd, TerminalInfo, TerminalSize},
    id::{ContainerId, TerminalId, UserId},
    time::{UnixMs, now_ms},
};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

/// How long what is left in the terminal is read after its program ended.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// How long a killed program has to be gone.
const GRACE: Duration = Duration::from_secs(3);

/// A terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) id: TerminalId,
    pub(super) container: ContainerId,
    pub(super) user: UserId,
    pub(super) program: Text<256>,
    pub(super) console: Console,
    opened_at: UnixMs,
    /// Somebody types, one at a time.
    pub(super) typing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// Something changed that a connected client waits for.
    pub(super) shown: Notify,
    /// Something changed that the terminal's task waits for.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    ring: Ring,
    /// Position up to which the client has taken what was shown.
    taken: u64,
    /// Bytes typed.
    input: u64,
    size: TerminalSize,
    /// Counts connections; the last one is the one that counts.
    connection: u64,
    connected: bool,
    /// When the last connection ended.
    left_at: Instant,
    active: Instant,
    active_at: UnixMs,
    ending: bool,
    end: Option<ProcessEnd>,
}

/// What there is for a connected client.
#[derive(Debug)]
pub(super) enum Next {
    Output(Vec<u8>),
    Ended(ProcessEnd),
    /// Somebody else connected.
    TakenOver,
    Nothing,
}

impl Terminal {
    pub(super) fn new(
        (id, container, user): (TerminalId, ContainerId, UserId),
        program: &str,
        console: Console,
        size: TerminalSize,
    ) -> Self {
        let (now, now_ms) = (Instant::now(), now_ms());
        let state = State {
            ring: Ring::default(),
            taken: 0,
            input: 0,
            size,
            connection: 0,
            connected: false,
            left_at: now,
            active: now,
            active_at: now_ms,
            ending: false,
            end: None,
        };
        Self {
            id,
            container,
            user,
            program: Text::truncated(program),
            console,
            opened_at: now_ms,
            typing: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
            shown: Notify::new(),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn info(&self) -> TerminalInfo {
        let state = self.state();
        TerminalInfo {
            id: self.id,
            user: self.user,
            program: self.program.clone(),
            connected: state.connected,
            size: state.size,
            position: state.ring.end(),
            opened_at: self.opened_at,
            active_at: state.active_at,
        }
    }

    /// True once its program has ended; it is only kept for somebody who wants to know how.
    pub(super) fn has_ended(&self) -> bool {
        self.state().end.is_some()
    }

    /// Connects somebody who has seen everything up to `after`. Returns the connection's number, the position of
    /// what follows and the bytes typed so far; `None` where nothing was ever shown at that position.
    pub(super) fn connect(&self, after: Option<u64>) -> Option<(u64, u64, u64)> {
        let mut state = self.state();
        let position = after.unwrap_or(0).max(state.ring.start());
        if position > state.ring.end() {
            return None;
        }
        state.connection += 1;
        state.connected = true;
        state.taken = position;
        self.shown.notify_waiters();
        self.changed.notify_one();
        Some((state.connection, position, state.input))
    }

    /// The connection has ended; nothing where a newer one has taken over.
    pub(super) fn disconnect(&self, connection: u64) {
        let mut state = self.state();
        if state.connection == connection {
            state.connected = false;
            state.left_at = Instant::now();
            self.changed.notify_one();
        }
    }

    /// What was shown from `position` on.
    pub(super) fn next(&self, connection: u64, position: u64) -> Next {
        let state = self.state();
        if state.connection != connection {
            return Next::TakenOver;
        }
        let bytes = state.ring.read(position, PIECE_BYTES);
        match &state.end {
            _ if !bytes.is_empty() => Next::Output(bytes),
            Some(end) => Next::Ended(end.clone()),
            None => Next::Nothing,
        }
    }

    /// The client has taken everything before `position`.
    pub(super) fn took(&self, connection: u64, position: u64) {
        let mut state = self.state();
        if state.connection == connection {
            state.taken = state.taken.max(position.min(state.ring.end()));
            self.changed.notify_one();
        }
    }

    pub(super) fn typed(&self, bytes: usize) {
        let mut state = self.state();
        state.input += bytes as u64;
        state.active = Instant::now();
        state.active_at = now_ms();
    }

    pub(super) fn resize(&self, size: TerminalSize) {
        self.state().size = size;
        // One that is closed has no size any more.
        let _ = self.console.resize(size.columns, size.rows);
    }

    /// Ends it.
    pub(super) fn end(&self) {
        self.state().ending = true;
        self.changed.notify_one();
    }

    fn show(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.ring.push(bytes);
        state.active = Instant::now();
        state.active_at = now_ms();
        self.shown.notify_waiters();
    }

    /// How much may be read now, and when to look again.
    fn room(&self, limits: &ExecLimits) -> (usize, Option<Instant>) {
        let state = self.state();
        let held_until = state.left_at + limits.hold;
        match state.connected {
            true => (state.ring.room(state.taken), None),
            false if Instant::now() < held_until => (state.ring.room(state.taken), Some(held_until)),
            false => (PIECE_BYTES, None),
        }
    }

    fn ending(&self) -> bool {
        self.state().ending
    }

    fn idle_at(&self, limits: &ExecLimits) -> Instant {
        self.state().active + limits.terminal_idle
    }

    /// Looks after the process until it has ended; then its end is there for whoever is connected.
    pub(super) async fn run(&self, mut process: Attended, limits: &ExecLimits, slot: Slot) {
        let too_old = Instant::now() + limits.terminal_age;
        let mut buffer = vec![0; PIECE_BYTES];
        let mut open = true;
        let (exit, cause) = loop {
            let (room, look_again) = self.room(limits);
            let most = room.min(PIECE_BYTES);
            let look_again = look_again.unwrap_or(too_old);
            let idle = self.idle_at(limits);
            tokio::select! {
                read = self.console.read(&mut buffer[..most]), if open && most > 0 => match read {
                    Ok(count @ 1..) => self.show(&buffer[..count]),
                    Ok(0) | Err(_) => open = false,
                },
                exit = process.ended() => break (exit, None),
                () = self.changed.notified() => {
                    if self.ending() {
                        break self.kill(&mut process, "ended", "it was ended").await;
                    }
                }
                () = sleep_until(look_again), if look_again < too_old => {}
                () = sleep_until(idle) => {
                    // Something may have been typed or shown since.
                    if Instant::now() >= self.idle_at(limits) {
                        break self.kill(&mut process, "idle", "nothing was typed or shown for too long").await;
                    }
                }
                () = sleep_until(too_old) => {
                    break self.kill(&mut process, "too_old", "it has reached the age at which terminals end").await;
                }
            }
        };
        let rest = async {
            while open {
                match self.console.read(&mut buffer).await {
                    Ok(count @ 1..) => self.show(&buffer[..count]),
                    Ok(0) | Err(_) => open = false,
                }
            }
        };
        let _ = timeout(LAST_OUTPUT, rest).await;
        drop((process, slot));
        let (started_at, ended_at) = (self.opened_at, now_ms());
        self.state().end = Some(ProcessEnd { exit, cause, output_dropped: 0, error_dropped: 0, started_at, ended_at });
        self.shown.notify_waiters();
    }

    async fn kill(&self, process: &mut Attended, code: &str, message: &str) -> (Exit, Option<Cause>) {
        process.kill();
        let exit = timeout(GRACE, process.ended()).await.unwrap_or(Exit::Unknown);
        (exit, Some(Cause::new(code, message)))
    }
}
