// SPDX-License-Identifier: Apache-2.0
//! `collector completions` and `collector man`: files that are made of the command line.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::settings::one_form;
use crate::args::{Cli, GlobalArgs, ManArgs};
use crate::exit::{Exit, Failure};
use crate::output::print;

/// What the foot of a manual page says.
const SOURCE: &str = concat!("collector ", env!("CARGO_PKG_VERSION"));

/// The script that completes the command line in a shell.
pub(super) fn completions(global: &GlobalArgs, shell: Shell) -> Result<Exit, Failure> {
    one_form(global)?;
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "collector", &mut script);
    printed(&script)
}

/// The manual page of the program, or of one of its commands.
pub(super) fn man(global: &GlobalArgs, args: &ManArgs) -> Result<Exit, Failure> {
    one_form(global)?;
    let mut command = Cli::command();
    command.build();
    let mut title = command.get_name().to_owned();
    for name in &args.command {
        let found = command.find_subcommand(name).cloned().ok_or_else(|| {
            Failure::usage(format!("{title} has no command {name:?}; see `collector --help`"))
        })?;
        title = format!("{title}-{}", found.get_name());
        command = found;
    }
    let mut page = Vec::new();
    let command = command.display_name(title.clone());
    let rendered = Man::new(command).title(title.to_uppercase()).source(SOURCE).render(&mut page);
    rendered.map_err(|error| Failure::other(format!("cannot write the page: {error}")))?;
    printed(&page)
}

fn printed(text: &[u8]) -> Result<Exit, Failure> {
    print(&String::from_utf8_lossy(text))?;
    Ok(Exit::Success)
}
