// SPDX-License-Identifier: Apache-2.0
//! The process as Linux describes it in `/proc/self`, under the names that Prometheus' own clients have for it.

use std::fs;
use std::iter;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::ValueOf;
use crate::output::{Exposition, Series, series};

/// What is known of the process; `None` where the system does not say it.
#[derive(Default)]
struct Process {
    cpu_seconds: Option<f64>,
    started_at: Option<f64>,
    threads: Option<f64>,
    resident_bytes: Option<f64>,
    virtual_bytes: Option<f64>,
    open_files: Option<f64>,
    max_files: Option<f64>,
}

const PROCESS_SERIES: &[Series<ValueOf<Process>>] = series! {
    /// CPU time of the process, user and system.
    "process_cpu_seconds_total": Counter, |it| it.cpu_seconds;
    /// Memory of the process that is in RAM.
    "process_resident_memory_bytes": Gauge, |it| it.resident_bytes;
    /// Address space of the process.
    "process_virtual_memory_bytes": Gauge, |it| it.virtual_bytes;
    /// Open file descriptors, sockets among them.
    "process_open_fds": Gauge, |it| it.open_files;
    /// Most file descriptors that may be open; absent without a limit.
    "process_max_fds": Gauge, |it| it.max_files;
    /// Threads of the process.
    "process_threads": Gauge, |it| it.threads;
    /// When the process was started, as Unix time.
    "process_start_time_seconds": Gauge, |it| it.started_at;
};

/// Describes this process. It reads a few files of `/proc`, so it blocks for some microseconds.
pub(super) fn describe(page: &mut Exposition) {
    let process = Process::read();
    for series in PROCESS_SERIES {
        series.describe(page, iter::once(([], (series.value)(&process))));
    }
}

impl Process {
    fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut process = Self::parse(
            &read("/proc/self/stat"),
            &read("/proc/stat"),
            clock_ticks_per_second() as f64,
            page_size() as f64,
        );
        // The one that reads the directory is not one that stays open.
        process.open_files = fs::read_dir("/proc/self/fd").ok().map(|it| (it.count() - 1) as f64);
        process.max_files = getrlimit(Resource::Nofile).current.map(|limit| limit as f64);
        process
    }

    /// Reads what `proc_pid_stat(5)` and `proc_stat(5)` describe.
    fn parse(own: &str, system: &str, ticks: f64, page: f64) -> Self {
        // The second field is the program's name, which may hold blanks and brackets.
        let Some((_, fields)) = own.rsplit_once(')') else { return Self::default() };
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // The first field that is left is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let booted = system.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok());
        let started_at = |booted: f64| Some(booted + field(22)? / ticks);
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, kernel)| (user + kernel) / ticks),
            threads: field(20),
            started_at: booted.and_then(started_at),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * page),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_behind_the_programs_name_whatever_that_holds() {
        let own =
            "7 (a ) 9 9 b) S 1 7 7 0 -1 4194304 1 2 3 4 250 50 0 0 20 0 12 0 500 4096 3 18446";
        let process = Process::parse(own, "cpu 1 2\nbtime 1000\nprocesses 5\n", 100.0, 4096.0);
        assert_eq!(process.cpu_seconds, Some(3.0));
        assert_eq!(process.threads, Some(12.0));
        assert_eq!(process.started_at, Some(1005.0));
        assert_eq!(process.virtual_bytes, Some(4096.0));
        assert_eq!(process.resident_bytes, Some(3.0 * 4096.0));
        let unknown = Process::parse("", "", 100.0, 4096.0);
        assert_eq!((unknown.cpu_seconds, unknown.started_at), (None, None));
    }
}
