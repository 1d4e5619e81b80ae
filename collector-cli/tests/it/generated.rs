// SPDX-License-Identifier: Apache-2.0
//! `version`, `completions` and `man`.

use std::process::{Command, Stdio};

use crate::process::{collector, run};

#[test]
fn the_version_has_a_commit_and_features() {
    let ended = run(&mut collector(), &["version", "-o", "json"]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let document = ended.json();
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
    // A debug build does not know its commit.
    assert!(document["commit"].is_null() || document["commit"].as_str().unwrap().len() >= 40);
    let features = document["features"].as_array().unwrap();
    assert!(features.iter().any(|feature| feature == "prometheus"), "{features:?}");
    assert_eq!(features.iter().any(|feature| feature == "epp"), cfg!(feature = "epp"));
    let text = run(&mut collector(), &["version"]).stdout;
    assert!(text.starts_with("collector   ") && text.contains("\nfeatures    "), "{text}");
    assert_eq!(run(&mut collector(), &["version", "-o", "wide"]).exit, 2);
}

#[test]
fn each_completion_script_is_one_for_its_shell() {
    for (shell, sign) in
        [("bash", "complete -F"), ("zsh", "#compdef collector"), ("fish", "complete -c collector")]
    {
        let ended = run(&mut collector(), &["completions", shell]);
        assert_eq!(ended.exit, 0, "{}", ended.stderr);
        assert!(ended.stdout.contains(sign), "{shell}: {}", ended.stdout);
        for word in ["custom-columns", "all-namespaces", "watch"] {
            assert!(ended.stdout.contains(word), "{word:?} is not completed in {shell}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &ended.stdout).unwrap();
        // Where the shell is installed, it reads the script without running it.
        let parsed = Command::new(shell).arg("-n").arg(file.path()).stderr(Stdio::piped()).output();
        if let Ok(parsed) = parsed {
            let stderr = String::from_utf8_lossy(&parsed.stderr);
            assert!(parsed.status.success() && stderr.is_empty(), "{shell}: {stderr}");
        }
    }
    assert_eq!(run(&mut collector(), &["completions", "cobol"]).exit, 2);
}

#[test]
fn each_command_has_a_manual_page() {
    for (command, title) in [
        (&[][..], ".TH COLLECTOR 1"),
        (&["check"], ".TH COLLECTOR-CHECK 1"),
        (&["get", "replicas"], ".TH COLLECTOR-GET-REPLICAS 1"),
    ] {
        let ended = run(collector().arg("man"), command);
        assert_eq!(ended.exit, 0, "{}", ended.stderr);
        assert!(ended.stdout.contains(title), "{}", &ended.stdout[..200]);
        assert!(ended.stdout.contains("\\-\\-config"), "{command:?} has no options");
    }
    let wrong = run(&mut collector(), &["man", "get", "nodes"]);
    assert_eq!((wrong.exit, wrong.stdout.as_str()), (2, ""));
}
