// SPDX-License-Identifier: Apache-2.0
//! A model server's engine: what it does with its requests, and its metrics page.
//!
//! [`scheduler`] simulates the scheduler of one engine and fills [`counters`] in the [`bounds`] of its
//! server; [`pages`] defines each server's page as a [`template`], which is written with [`exposition`].

mod bounds;
mod counters;
mod exposition;
mod histogram;
mod lora;
mod pages;
mod scheduler;
mod template;

pub(crate) use counters::Counters;
pub(crate) use exposition::{Numbers, Page, bound_label, escape, labels};
pub(crate) use histogram::Histogram;
pub(crate) use pages::{Lie, PodView, template};
pub(crate) use scheduler::{Engine, Snapshot};
pub(crate) use template::Template;
