//! What the figures were measured on.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};

/// As far as it can be told; what cannot is absent.
pub(crate) struct Machine {
    cpu: Option<String>,
    threads: Option<usize>,
    memory_gb: Option<u64>,
    os: Option<String>,
    kernel: Option<String>,
    rustc: Option<String>,
    prometheus: Option<String>,
}

impl Machine {
    pub(crate) fn of_this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            let value = line.trim_start_matches([':', '=', ' ', '\t']).trim_matches('"').trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        Self {
            cpu: value(&read("/proc/cpuinfo"), "model name"),
            threads: thread::available_parallelism().map(usize::from).ok(),
            memory_gb: memory
                .and_then(|kb| kb.trim_end_matches(" kB").parse::<u64>().ok())
                .map(|kb| (kb * 1024).div_ceil(1 << 30)),
            os: value(&read("/etc/os-release"), "PRETTY_NAME"),
            kernel: Some(read("/proc/sys/kernel/osrelease").trim().to_owned())
                .filter(|kernel| !kernel.is_empty()),
            rustc: version("rustc"),
            prometheus: version("prometheus")
                .map(|text| text.split(" (").next().unwrap_or(&text).replace(", version", "")),
        }
    }

    /// In one line, for people.
    pub(crate) fn line(&self) -> String {
        let unknown = || "unknown".to_owned();
        let count = |count: Option<String>| count.unwrap_or_else(unknown);
        let mut parts = vec![
            self.cpu.clone().unwrap_or_else(unknown),
            format!("{} threads", count(self.threads.map(|it| it.to_string()))),
            format!("{} GiB of memory", count(self.memory_gb.map(|it| it.to_string()))),
            format!("{} ({})", self.os.clone().unwrap_or_else(unknown), std::env::consts::ARCH),
            format!("kernel {}", self.kernel.clone().unwrap_or_else(unknown)),
            self.rustc.clone().unwrap_or_else(|| "rustc unknown".to_owned()),
        ];
        parts.extend(self.prometheus.clone());
        parts.join(", ")
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "cpu": self.cpu,
            "threads": self.threads,
            "memory_gb": self.memory_gb,
            "system": self.os,
            "kernel": self.kernel,
            "rustc": self.rustc,
            "prometheus": self.prometheus,
        })
    }
}

/// The first line of what a program says about itself.
fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    // Prometheus has said it on either.
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).ok()?;
    Some(said.lines().next()?.trim().to_owned())
}
