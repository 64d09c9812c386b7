//! Two texts line by line: what stays, what goes, what comes.

use maud::{Markup, html};

/// A line of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Minus(&'a str),
    Plus(&'a str),
}

/// Longer texts are compared as a whole: the table grows with the product of both.
const LINES_MAX: usize = 1_000;
/// Unchanged lines around a change.
const AROUND: usize = 3;

/// The longest common subsequence tells what stays.
fn compare<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let (a, b): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    if a.len() > LINES_MAX || b.len() > LINES_MAX {
        let gone = a.into_iter().map(Line::Minus);
        return gone.chain(b.into_iter().map(Line::Plus)).collect();
    }
    let width = b.len() + 1;
    let mut length = vec![0_u32; (a.len() + 1) * width];
    let get = |table: &[u32], i: usize, j: usize| table.get(i * width + j).copied().unwrap_or(0);
    for (i, left) in a.iter().enumerate().rev() {
        for (j, right) in b.iter().enumerate().rev() {
            let best = if left == right {
                get(&length, i + 1, j + 1) + 1
            } else {
                get(&length, i + 1, j).max(get(&length, i, j + 1))
            };
            if let Some(cell) = length.get_mut(i * width + j) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    loop {
        match (a.get(i), b.get(j)) {
            (Some(left), Some(right)) if left == right => {
                lines.push(Line::Same(left));
                (i, j) = (i + 1, j + 1);
            }
            (Some(left), Some(_)) if get(&length, i + 1, j) >= get(&length, i, j + 1) => {
                lines.push(Line::Minus(left));
                i += 1;
            }
            (Some(left), None) => {
                lines.push(Line::Minus(left));
                i += 1;
            }
            (_, Some(right)) => {
                lines.push(Line::Plus(right));
                j += 1;
            }
            (None, None) => return lines,
        }
    }
}

/// What changed between two texts, with some lines around.
pub(super) fn diff(old: &str, new: &str) -> Markup {
    let lines = compare(old, new);
    let changed: Vec<usize> = lines
        .iter()
        .enumerate()
        .filter_map(|(n, l)| (!matches!(l, Line::Same(_))).then_some(n))
        .collect();
    if changed.is_empty() {
        return html! { p.soft { "They say the same." } };
    }
    let near = |n: usize| {
        let at = changed.partition_point(|c| c + AROUND < n);
        changed.get(at).is_some_and(|c| *c <= n + AROUND)
    };
    html! {
        ul.diff aria-label="What changed" {
            @for (n, line) in lines.iter().enumerate() {
                @if near(n) {
                    @match line {
                        Line::Same(text) => li { (text) },
                        Line::Minus(text) => li.minus { span.hidden { "removed: " } (text) },
                        Line::Plus(text) => li.plus { span.hidden { "added: " } (text) },
                    }
                } @else if n > 0 && near(n - 1) { li.gap aria-hidden="true" { "  …" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_goes_and_comes_is_told_apart() {
        use Line::{Minus, Plus, Same};
        let lines = compare("a\nb\nc\n", "a\nx\nc\nd\n");
        assert_eq!(lines, [Same("a"), Minus("b"), Plus("x"), Same("c"), Plus("d")]);
        assert_eq!(compare("", "a"), [Plus("a")]);
        assert_eq!(compare("a", ""), [Minus("a")]);
        assert!(compare("", "").is_empty());
    }

    #[test]
    fn far_lines_are_left_out_and_all_is_escaped() {
        let old = (0..30).map(|n| format!("line {n}\n")).collect::<String>();
        let new = old.replace("line 15\n", "<b>\n");
        let text = diff(&old, &new).into_string();
        assert!(text.contains("&lt;b&gt;") && !text.contains("<b>"), "{text}");
        assert!(text.contains("line 12") && !text.contains("line 11<"), "{text}");
        assert!(diff("a", "a").into_string().contains("the same"));
    }
}
