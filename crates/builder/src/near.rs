//! Which word somebody meant who wrote another.

/// How many letters must change to make one text of the other (Levenshtein). Long texts count by
/// their length alone.
pub(crate) fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len() > 256 || other.len() > 256 || one.len().abs_diff(other.len()) > 64 {
        return one.len().max(other.len());
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (n, a) in one.iter().enumerate() {
        let mut corner = row[0];
        row[0] = n + 1;
        for (m, b) in other.iter().enumerate() {
            let change = corner + usize::from(a != b);
            corner = row[m + 1];
            row[m + 1] = change.min(corner + 1).min(row[m] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// The known word that is most like this one, if any is alike: a third of the letters may differ, and
/// small letters are like large ones.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let letters = word.chars().count();
    let apart = known.into_iter().map(|k| (distance(&word, &k.to_ascii_lowercase()), k));
    apart.filter(|(apart, _)| apart * 3 <= letters).min().map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_like_those_that_few_letters_make_of_it() {
        let known = ["soft_serial", "server", "hosts"];
        for (word, want) in [
            ("soft_serail", Some("soft_serial")),
            ("Server", Some("server")),
            ("serve", Some("server")),
            ("host", Some("hosts")),
            ("notes.txt", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), want, "{word}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
