// SPDX-License-Identifier: Apache-2.0
//! systemd's notify protocol (`Type=notify`, `notify-reload`, `WatchdogSec`): lines of text to the socket that
//! `NOTIFY_SOCKET` names. Without it, nothing happens.

use std::env;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The manager of this process, if it wants to be told.
pub(super) struct Systemd {
    socket: Option<UnixDatagram>,
}

impl Systemd {
    /// The manager that the environment names.
    pub(super) fn from_env() -> Self {
        let socket = env::var("NOTIFY_SOCKET").ok().filter(|name| !name.is_empty());
        let socket = socket.and_then(|name| match connect(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(socket = name, %error, "Cannot notify systemd: NOTIFY_SOCKET is ignored");
                None
            }
        });
        Self { socket }
    }

    /// It serves.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// It reads its configuration again; [`ready`](Self::ready) follows, however that ends.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// It ends.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// It lives.
    pub(super) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// How often [`alive`](Self::alive) has to be said: twice in the time that the manager waits. `None`: never.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.socket.as_ref()?;
        let of_us =
            env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let micros: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        (of_us && micros > 1).then(|| Duration::from_micros(micros / 2))
    }

    fn tell(&self, text: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(text.as_bytes())
        {
            tracing::debug!(%error, "Cannot notify systemd");
        }
    }
}

/// Never blocks: a manager that does not read must not stop us.
fn connect(name: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match name.strip_prefix('@') {
        None => socket.connect(name)?,
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.connect_addr(&address)?;
        }
        #[cfg(not(target_os = "linux"))]
        Some(_) => return Err(std::io::ErrorKind::Unsupported.into()),
    }
    Ok(socket)
}
