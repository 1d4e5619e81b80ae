// SPDX-License-Identifier: Apache-2.0
//! The program under measurement, run as a user runs it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// For one answer of the program's API.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The program, in an environment in which nothing but what the caller sets configures it.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// `collector serve`, killed when this is dropped.
pub(crate) struct Serving {
    process: Child,
    address: SocketAddr,
}

impl Serving {
    /// Starts the program on a free port.
    pub(crate) fn start(program: &Path, configuration: &Path) -> Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let process = command(program)
            .args(["serve", "--log-level", "warn", "--listen"])
            .arg(free.to_string())
            .arg("--config")
            .arg(configuration)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { process, address: free })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// An error when the program has ended; it has said why on stderr.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        let ended = self.process.try_wait()?;
        ensure!(ended.is_none(), "collector serve ended: {ended:?}");
        Ok(())
    }

    /// The JSON under a path of the API.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        serde_json::from_str(&self.text(path)?).with_context(|| format!("{path}: no JSON"))
    }

    /// The sum over the series of a counter in its self-metrics that have this label, or any.
    pub(crate) fn counter(&self, family: &str, label: &str) -> Result<f64> {
        let page = self.text("/metrics")?;
        let value = |line: &str| {
            let rest = line.strip_prefix(family)?;
            let of_family = rest.starts_with(['{', ' ']) && rest.contains(label);
            of_family.then(|| rest.rsplit_once(' ')?.1.parse::<f64>().ok())?
        };
        Ok(page.lines().filter_map(value).sum())
    }

    /// The body under a path.
    pub(crate) fn text(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let host = self.address;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        ensure!(head.contains(" 200 "), "{path}: {head}");
        Ok(body.to_owned())
    }

    /// Tells it to read its configuration again.
    pub(crate) fn reload(&self) -> Result<()> {
        let process = Pid::from_child(&self.process);
        kill_process(process, Signal::HUP).context("cannot send SIGHUP")
    }

    /// Time that it has spent on a processor so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu(self.process.id())
    }

    /// Memory in RAM now, and the most there ever was, in bytes.
    pub(crate) fn memory(&self) -> Result<(f64, f64)> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok((kibibytes(&status, "VmRSS")?, kibibytes(&status, "VmHWM")?))
    }
}

/// `collector sim`, killed when this is dropped: a fleet in a process of its own, so that what it costs
/// is told apart from what is measured.
pub(crate) struct Simulating {
    process: Child,
}

impl Simulating {
    /// Starts a fleet, which writes its targets to a file once it listens.
    pub(crate) fn start(program: &Path, fleet: &Path, targets: &Path) -> Result<Self> {
        let process = command(program)
            .args(["sim", "--listen", "127.0.0.1:0", "--log-level", "error", "--fleet"])
            .arg(fleet)
            .arg("--targets")
            .arg(targets)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { process })
    }

    /// An error when the program has ended.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        let ended = self.process.try_wait()?;
        ensure!(ended.is_none(), "collector sim ended: {ended:?}");
        Ok(())
    }

    /// Time that it has spent on a processor so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu(self.process.id())
    }
}

impl Drop for Simulating {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// User and system time of a process, from `/proc/PID/stat`, which counts in hundredths of a second
/// (`USER_HZ` is 100 on every Linux that is still about).
fn cpu(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("{path} is not as it should be"))?;
    Ok(Duration::from_millis(ticks * 10))
}

/// Fields 14 and 15. The second is the program's name in parentheses, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It has nothing to save, and the figures are taken.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn kibibytes(status: &str, key: &str) -> Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let line = line.with_context(|| format!("no {key} in the process's status"))?;
    let number: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
    Ok(number * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        let status = "Name:\tcollector\nVmHWM:\t   20480 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kibibytes(status, "VmRSS").unwrap().to_bits(), 1_048_576_f64.to_bits());
        assert!(kibibytes(status, "VmSwap").is_err());
    }

    #[test]
    fn processor_time_is_read_as_the_kernel_writes_it() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 99 1 2";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("12 (a) S 1"), None);
    }
}
