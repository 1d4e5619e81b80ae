// SPDX-License-Identifier: Apache-2.0
//! The commit that a release is built from, for `collector version`.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A debug build is made again and again between commits, and a wrong commit is worse than none.
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = if is_release { packaged().or_else(checked_out) } else { None };
    println!("cargo::rustc-env=COLLECTOR_COMMIT={}", commit.unwrap_or_default());
}

/// The commit in a published package, where cargo writes it.
fn packaged() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    let commit = rest.split('"').nth(1)?;
    is_commit(commit).then(|| commit.to_owned())
}

/// The commit of the repository that this package is a folder of.
fn checked_out() -> Option<String> {
    // A package that was unpacked somewhere inside of another repository is not a part of it.
    if !Path::new("../.git").exists() {
        return None;
    }
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    for log in ["logs/HEAD", "HEAD"] {
        let path = git(&["rev-parse", "--git-path", log])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    is_commit(&commit).then_some(commit)
}

fn is_commit(text: &str) -> bool {
    text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
