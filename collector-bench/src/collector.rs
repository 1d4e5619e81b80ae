//! The program under measurement, run as a user runs it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
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

    /// An error when the program has ended; it has said why on stderr.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        let ended = self.process.try_wait()?;
        ensure!(ended.is_none(), "collector serve ended: {ended:?}");
        Ok(())
    }

    /// The JSON under a path of the API.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let host = self.address;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        ensure!(head.contains(" 200 "), "{path}: {head}");
        serde_json::from_str(body).with_context(|| format!("{path}: no JSON"))
    }

    /// Memory in RAM now, and the most there ever was, in bytes.
    pub(crate) fn memory(&self) -> Result<(f64, f64)> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok((kibibytes(&status, "VmRSS")?, kibibytes(&status, "VmHWM")?))
    }
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
}
