// SPDX-License-Identifier: Apache-2.0
//! Which variants of a model are meant: by their accelerator, or all of them.

use collector_config::VariantSpec;
use collector_core::text::shortened;
use collector_core::{ModelRef, VariantName};

use super::MISSING;
use crate::commands::settings::Settings;
use crate::exit::Failure;
use crate::output::{ErrorDocument, nearest_first, quoted, variant_to_add};

fn specs_of<'a>(
    settings: &'a Settings,
    model: &'a ModelRef,
) -> impl Iterator<Item = &'a VariantSpec> {
    let variants = settings.loaded.config.variants.iter();
    variants.filter(|spec| spec.model == model.model && spec.namespace == model.namespace)
}

/// The configured variants of a model.
pub(super) fn variants_of(settings: &Settings, model: &ModelRef) -> Vec<VariantName> {
    specs_of(settings, model).map(|spec| spec.name.clone()).collect()
}

/// What a model without a configured variant is answered with.
pub(super) fn without_variants(model: &ModelRef) -> Failure {
    let document = ErrorDocument::new(MISSING, format!("{model} has no configured variant"));
    Failure::missing(document.with_hint(variant_to_add(model, "NAME", None)))
}

/// The one variant of the model on this accelerator, whose name may differ in case.
pub(super) fn variant_on(
    settings: &Settings,
    model: &ModelRef,
    accelerator: &str,
) -> Result<VariantName, Failure> {
    let of_model: Vec<(&VariantName, &str)> = specs_of(settings, model)
        .filter_map(|spec| Some((&spec.name, spec.accelerator.as_ref()?.as_str())))
        .collect();
    let named = |fits: &dyn Fn(&str) -> bool| -> Vec<&VariantName> {
        of_model.iter().filter(|(_, known)| fits(known)).map(|(name, _)| *name).collect()
    };
    let mut fitting = named(&|known| known == accelerator);
    if fitting.is_empty() {
        fitting = named(&|known| known.eq_ignore_ascii_case(accelerator));
    }
    match *fitting {
        [one] => Ok(one.clone()),
        [] => Err(no_such_accelerator(model, accelerator, &of_model)),
        _ => Err(Failure::usage(format!(
            "--accelerator {accelerator:?}: {} variants of {model} have it: {fitting:?}; use \
             --variant",
            fitting.len()
        ))),
    }
}

fn no_such_accelerator(
    model: &ModelRef,
    accelerator: &str,
    of_model: &[(&VariantName, &str)],
) -> Failure {
    let shown = shortened(accelerator);
    let message = format!("{model} has no variant on accelerator {shown:?}");
    let known = nearest_first(accelerator, of_model.iter().map(|(_, known)| *known));
    if known.is_empty() {
        let message = format!("{message}: none of its variants is configured with an accelerator");
        let hint = variant_to_add(model, "NAME", Some(accelerator));
        return Failure::missing(ErrorDocument::new(MISSING, message).with_hint(hint));
    }
    let message = format!("{message}; its variants have {}", quoted(known.iter().copied()));
    let known = known.into_iter().map(str::to_owned).collect();
    Failure::missing(ErrorDocument::new(MISSING, message).with_suggestions(known))
}
