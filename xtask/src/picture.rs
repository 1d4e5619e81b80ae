//! The picture of the demo in the README.

use anyhow::Result;

use crate::run::{cargo, step};

/// Runs the demo's own test, which otherwise compares the picture, in writing mode.
pub(crate) fn draw() -> Result<()> {
    let test = "commands::demo::picture::the_picture_shows_the_demo_as_it_is";
    step(
        "draw docs/demo.svg",
        cargo(&["test", "--package", "collector-cli", "--lib", "--", "--exact", test])
            .env("UPDATE_DOCS", "1"),
    )
}
