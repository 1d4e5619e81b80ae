// SPDX-License-Identifier: Apache-2.0
//! Columns of text that fit the terminal.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::cells::UNKNOWN;
use super::terminal::{signs, width};

/// Blanks between two columns, and where room is scarce.
const GAP: usize = 3;
const NARROW_GAP: usize = 1;
/// Columns that a name is not cut below while another column can be left out.
const SHORT: usize = 12;
/// Columns that a name is never cut below.
const SHORTEST: usize = 4;

/// Columns aligned by what is seen, not by bytes. Where the terminal is too narrow, names are
/// shortened, and then columns are left out from the last one on; the first two stay. Without a header
/// nothing is cut.
pub(crate) fn aligned<'a>(
    header: impl IntoIterator<Item = &'a str>,
    rows: impl Iterator<Item = Vec<String>>,
) -> String {
    let header: Vec<&str> = header.into_iter().collect();
    aligned_by(&header, rows, &[])
}

/// The same, where columns are left out from the last title in `importance` on.
pub(crate) fn aligned_by(
    header: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    importance: &[&str],
) -> String {
    let rows = rows.collect();
    match width().filter(|_| !header.is_empty()) {
        Some(width) => fitted(header, rows, importance, width, signs().ellipsis),
        None => laid_out(header, rows, GAP),
    }
}

/// The same for rows of which the first may be a header, and nothing is cut.
pub(super) fn aligned_in_full(rows: Vec<Vec<String>>) -> String {
    laid_out(&[], rows, GAP)
}

fn laid_out(header: &[&str], rows: Vec<Vec<String>>, gap: usize) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .add_rows(rows);
    if !header.is_empty() {
        table.set_header(header.to_vec());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, u16::try_from(gap).unwrap_or(1)));
    }
    let mut text = String::new();
    for line in table.lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// One column: its place in the table, how wide it is, and how wide it may become.
struct Column {
    place: usize,
    least: usize,
    width: usize,
    full: usize,
}

fn fitted(
    header: &[&str],
    mut rows: Vec<Vec<String>>,
    importance: &[&str],
    available: usize,
    ellipsis: &str,
) -> String {
    let full = |place: usize| {
        let cells = rows.iter().filter_map(|row| row.get(place)).map(|cell| cell.width());
        cells.chain([header[place].width()]).max().unwrap_or(0)
    };
    let mut kept: Vec<Column> = (0..header.len())
        .map(|place| {
            let (title, full) = (header[place], full(place));
            // A column without a title is a picture; half of it is none. Half of a figure is another one.
            let cells = rows.iter().filter_map(|row| row.get(place));
            let is_whole = title.is_empty() || cells.into_iter().all(|cell| is_figure(cell));
            let least = if is_whole { full } else { full.min(SHORT.max(title.width())) };
            Column { place, least, width: full, full }
        })
        .collect();
    let needed = |columns: &[Column], gap: usize| {
        columns.iter().map(|column| column.width).sum::<usize>()
            + gap * columns.len().saturating_sub(1)
    };
    if needed(&kept, GAP) <= available {
        return laid_out(header, rows, GAP);
    }
    // The most important first; what is not listed is the least important, the last one least.
    kept.sort_by_key(|column| {
        let listed = importance.iter().position(|title| *title == header[column.place]);
        listed.map_or((1, column.place), |rank| (0, rank))
    });
    if needed(&kept, NARROW_GAP) > available {
        for column in &mut kept {
            column.width = column.least;
        }
    }
    while kept.len() > 2 && needed(&kept, NARROW_GAP) > available {
        kept.pop();
    }
    let mut spare = available.saturating_sub(needed(&kept, NARROW_GAP));
    for column in &mut kept {
        let more = spare.min(column.full - column.width);
        column.width += more;
        spare -= more;
    }
    let excess = needed(&kept, NARROW_GAP).saturating_sub(available);
    if let Some(first) = kept.first_mut() {
        first.width = first.width.saturating_sub(excess).max(SHORTEST.min(first.full));
    }
    kept.sort_by_key(|column| column.place);
    let cut = |text: &str, column: &Column| shortened(text, column.width, ellipsis);
    let titles: Vec<String> = kept.iter().map(|column| cut(header[column.place], column)).collect();
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    for row in &mut rows {
        let cells =
            kept.iter().map(|column| cut(row.get(column.place).map_or("", |cell| cell), column));
        *row = cells.collect();
    }
    laid_out(&titles, rows, NARROW_GAP)
}

/// Whether a cell holds a number, with or without a unit, or none.
fn is_figure(cell: &str) -> bool {
    cell == UNKNOWN || cell.trim_end_matches(['%', 's']).parse::<f64>().is_ok()
}

/// The text in at most `width` columns: its middle is left out, because names of pods differ at their ends.
pub(crate) fn shortened(text: &str, width: usize, ellipsis: &str) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(ellipsis.width());
    let head = taken(text.chars(), room / 2);
    let tail: Vec<char> = taken(text.chars().rev(), room - room / 2).into_iter().rev().collect();
    head.into_iter().chain(ellipsis.chars()).chain(tail).collect()
}

/// The first characters that fit.
fn taken(characters: impl Iterator<Item = char>, width: usize) -> Vec<char> {
    let mut left = width;
    characters
        .take_while(|c| {
            let wide = c.width().unwrap_or(0);
            let fits = wide <= left;
            left = left.saturating_sub(wide);
            fits
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [&str; 5] = ["POD", "VARIANT", "KV", "", "QUEUE"];
    const IMPORTANCE: [&str; 4] = ["POD", "QUEUE", "KV", "VARIANT"];

    fn at(width: usize) -> String {
        let row = ["llama-3-70b-h100-6f7d9c-x2x7k", "llama-3-70b-h100", "42.0%", "▁▂▃▄▅▆▇█", "17"];
        let other = ["llama-3-70b-h100-6f7d9c-9qwrt", "llama-3-70b-h100", "7.5%", "▁▁▁▁▁▁▁▁", "3"];
        let rows = [row, other].map(|row| row.map(str::to_owned).to_vec());
        fitted(&HEADER, rows.to_vec(), &IMPORTANCE, width, "…")
    }

    #[track_caller]
    fn check(width: usize, titles: &[&str], part: &str) {
        let text = at(width);
        for line in text.lines() {
            assert!(line.width() <= width, "{line:?} is wider than {width}");
        }
        assert_eq!(text.lines().count(), 3, "{text}");
        let header = text.lines().next().unwrap();
        assert_eq!(header.split_whitespace().collect::<Vec<_>>(), titles, "{text}");
        assert!(text.contains(part), "{part:?} is not in {text}");
    }

    #[test]
    fn a_wide_terminal_shows_everything() {
        check(200, &["POD", "VARIANT", "KV", "QUEUE"], "llama-3-70b-h100-6f7d9c-x2x7k   llama");
        check(68, &["POD", "VARIANT", "KV", "QUEUE"], "llama-3-70b-h100-6f7d9c-x2x7k llama-3-70b");
    }

    #[test]
    fn names_are_shortened_in_their_middle_before_a_column_is_left_out() {
        check(60, &["POD", "VARIANT", "KV", "QUEUE"], "-x2x7k");
        check(60, &["POD", "VARIANT", "KV", "QUEUE"], "▅▆▇█");
    }

    #[test]
    fn the_least_important_column_is_left_out_first() {
        check(40, &["POD", "VARIANT", "KV", "QUEUE"], "…");
        check(30, &["POD", "KV", "QUEUE"], "42.0%");
        check(20, &["POD", "QUEUE"], "17");
        check(12, &["POD", "QUEUE"], "ll…x7k");
    }

    #[test]
    fn a_figure_is_never_cut() {
        let rows = [["vllm:kv_cache_usage_perc", "0.00552412345678901", "12.5s"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec()).to_vec();
        let text = fitted(&["SERIES", "RAW", "AGE"], rows, &["SERIES", "RAW"], 34, "…");
        assert!(text.contains(" 0.00552412345678901"), "{text}");
        assert!(text.contains("…") && !text.contains("AGE"), "{text}");
        assert!(["-", "12", "0.5%", "1.5s"].into_iter().all(is_figure));
        assert!(["", "decode", "h100", "10.0.0.7:8000"].into_iter().all(|name| !is_figure(name)));
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(shortened("模型模型模型", 7, "…"), "模…型");
        assert_eq!(shortened("short", 7, "…"), "short");
        assert_eq!(shortened("abcdefghij", 7, "..."), "ab...ij");
    }
}
