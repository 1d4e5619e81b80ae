// SPDX-License-Identifier: Apache-2.0
//! The pictures in the docs: of the demo, and of the page.

use anyhow::Result;

use crate::install;
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

/// Runs the test that takes the pictures of the page in Chromium.
pub(crate) fn screenshots() -> Result<()> {
    install::chromium()?;
    let test = "page::pictures::the_pictures_show_the_page_as_it_is";
    step(
        "take the pictures of docs/page.md",
        cargo(&["test", "--package", "collector-cli", "--test", "it", "--"])
            .args(["--exact", "--ignored", test])
            .env("COLLECTOR_REQUIRE_REAL_SERVERS", "1"),
    )
}
