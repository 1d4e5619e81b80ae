// SPDX-License-Identifier: Apache-2.0
//! Developer tasks: `cargo xtask --help`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool talks to its user"
)]

mod bench;
mod ci;
mod counts;
mod dist;
mod docs;
mod fuzz;
mod headers;
mod install;
mod loom;
mod miri;
mod mutants;
mod new_backend;
mod picture;
mod run;
mod test;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer tasks of the metrics collector.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing and run every test, including those with real servers.
    Test,
    /// Everything that must hold before a change is merged: format, lints, docs, features, tests, counts.
    Ci,
    /// Measure, and print the results with their goals.
    Bench(bench::Options),
    /// Count the instructions of hot code, and the memory over a simulated hour.
    Counts,
    /// Make target/packages: an archive, a Debian package, a bill of materials and checksums, and verify them.
    Dist(dist::Options),
    /// Check the links of all pages, and make a book of docs/ in target/book, for which it installs mdbook.
    Docs,
    /// Used by mdbook: lead links that leave the book to the repository.
    #[command(hide = true)]
    BookLinks {
        #[command(subcommand)]
        question: Option<docs::Question>,
    },
    /// Feed random pages to the scanner, compared with a simple reader, and random queries to the checks of the PromQL API.
    Fuzz {
        /// Duration.
        #[arg(value_name = "SECONDS", default_value_t = 30)]
        seconds: u32,
    },
    /// Check that each source file names the licence in its first line.
    Headers {
        /// Add the line where it is missing.
        #[arg(long)]
        fix: bool,
    },
    /// Run the engine's locks through every interleaving of their threads.
    Loom,
    /// Run the cache's tests under Miri, if a nightly toolchain has it.
    Miri,
    /// Break core, cache and engine in small ways, and count the breaks that no test detects. Takes hours.
    Mutants {
        /// For `cargo mutants`: `--file breaker.rs`, `--shard 1/4`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Print the licences of everything that the binary contains.
    Notices,
    /// Draw docs/demo.svg again: the demo in a terminal of 80x24.
    Picture,
    /// Take the pictures of docs/page.md again, in Chromium. Takes two minutes.
    Screenshots,
    /// Make the crate of a new backend, which compiles and passes the conformance suite.
    NewBackend {
        /// Name of the crate, in lower case with hyphens: `acme-backend`.
        name: String,
        /// Folder of the new crate [default: NAME at the top of the workspace].
        #[arg(long, value_name = "DIR")]
        path: Option<PathBuf>,
        /// Make it one that polls an HTTP server, in place of one that reads a file.
        #[arg(long)]
        http: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Args::parse().task {
        Task::Test => test::all(),
        Task::Ci => ci::all(),
        Task::Bench(options) => bench::run(&options),
        Task::Counts => counts::all(),
        Task::Dist(options) => dist::run(&options),
        Task::Docs => docs::make(),
        Task::BookLinks { question: Some(docs::Question::Supports { .. }) } => Ok(()),
        Task::BookLinks { question: None } => docs::lead_links_out(),
        Task::Fuzz { seconds } => fuzz::all(seconds),
        Task::Headers { fix: true } => headers::fix(),
        Task::Headers { fix: false } => headers::check(),
        Task::Loom => loom::all(),
        Task::Miri => miri::all(),
        Task::Mutants { arguments } => mutants::all(&arguments),
        Task::Notices => dist::print_notices(),
        Task::Picture => picture::draw(),
        Task::Screenshots => picture::screenshots(),
        Task::NewBackend { name, path, http } => {
            let template = if http { &new_backend::HTTP } else { &new_backend::FILE };
            new_backend::make_and_explain(template, &name, path)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
