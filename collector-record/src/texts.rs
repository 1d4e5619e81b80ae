// SPDX-License-Identifier: Apache-2.0
//! The texts of answers: what servers and backends wrote in words, which is no name. Addresses in them may hold secrets.

use std::borrow::Cow;
use std::sync::Arc;

use collector_core::raw::wire::SampleRecord;

use crate::entry::ErrorRecord;

/// What stands for a part of an address that was removed.
const REMOVED: &str = "***";

/// Changes each text of a sample, except for the warning under which pods are absent.
pub(crate) fn change_texts(sample: &mut SampleRecord, mut change: impl FnMut(&mut Arc<str>)) {
    sample.warnings.iter_mut().for_each(&mut change);
    let of_picker = sample.endpoint_picker.iter_mut().filter_map(|picker| picker.reason.as_mut());
    of_picker.for_each(&mut change);
    let of_replicas = sample.replicas.iter_mut().map(|row| &mut row.reasons);
    let of_load = sample.load.iter_mut().map(|row| &mut row.reasons);
    let reasons = std::iter::once(&mut sample.failed).chain(of_replicas).chain(of_load);
    reasons.flatten().for_each(|(_, reason)| change(reason));
}

/// Removes credentials and queries of addresses from a sample.
pub(crate) fn redact_sample(sample: &mut SampleRecord) {
    let redact = |text: &mut Arc<str>| {
        if let Cow::Owned(redacted) = redacted(text) {
            *text = redacted.into();
        }
    };
    sample.absent_warning.iter_mut().for_each(redact);
    change_texts(sample, redact);
}

/// Removes credentials and queries of addresses from an error.
pub(crate) fn redact_error(error: &mut ErrorRecord) {
    for text in [&mut error.subject, &mut error.detail, &mut error.remedy] {
        if let Cow::Owned(redacted) = redacted(text) {
            *text = redacted;
        }
    }
}

/// The text without the credentials and the query of each address in it.
fn redacted(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return text.into();
    }
    let mut all = String::with_capacity(text.len());
    let is_end = |it: char| it.is_whitespace() || "\"'`<>()".contains(it);
    for word in text.split_inclusive(is_end) {
        let (mut rest, end) = match word.char_indices().next_back() {
            Some((last, it)) if is_end(it) => word.split_at(last),
            _ => (word, ""),
        };
        while let Some((scheme, behind)) = rest.split_once("://") {
            all.extend([scheme, "://"]);
            let (address, query) = behind.split_at(behind.find(['?', '#']).unwrap_or(behind.len()));
            // There may be another address in the same word, behind a comma for example.
            let next = address.find("://");
            let next = next.map(|at| address[..at].trim_end_matches(in_scheme).len());
            let own = &address[..next.unwrap_or(address.len())];
            rest = next.map_or("", |next| &behind[next..]);
            let (authority, path) = own.split_at(own.find('/').unwrap_or(own.len()));
            match authority.rsplit_once('@') {
                Some((_, host)) => all.extend([REMOVED, "@", host]),
                None => all.push_str(authority),
            }
            all.push_str(path);
            if next.is_none()
                && let Some(sign) = query.get(..1)
            {
                all.extend([sign, REMOVED]);
                // The colon behind an address in a message.
                if query.ends_with(':') {
                    all.push(':');
                }
            }
        }
        all.extend([rest, end]);
    }
    all.into()
}

/// Whether the scheme of an address may contain this character.
fn in_scheme(it: char) -> bool {
    it.is_ascii_alphanumeric() || "+-.".contains(it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(redacted(text), expected);
    }

    #[test]
    fn credentials_and_queries_of_addresses_are_removed() {
        check("no address", "no address");
        check("at http://a:8000/metrics: refused", "at http://a:8000/metrics: refused");
        check("at http://a/m?key=b: refused", "at http://a/m?***: refused");
        check("http://u:p@a/m?key=b&c=d#e", "http://***@a/m?***");
        check("(\"https://u@a\", http://b?c)", "(\"https://***@a\", http://b?***)");
        check("http://a?u=http://b:c@d e", "http://a?*** e");
        check("http://", "http://");
        check("http://a,http://u:p@b/c", "http://a,http://***@b/c");
        check("up=http://a/b;next=https://u:p@c?d=e", "up=http://a/b;next=https://***@c?***");
    }
}
