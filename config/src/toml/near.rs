//! Finds the allowed word that was probably meant.

/// Returns the candidate closest to `word`, at most a third of the word away in edits (insert, delete, replace, swap
/// neighbours). Case doesn't count, nor does `-` for `_`. Ties go to the first candidate.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Bytes of a word, at most, which bounds the quadratic distance. No key is that long.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let word = fold(word);
    let length = word.chars().count();
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &fold(candidate)), candidate))
        .filter(|&(edits, _)| edits <= (length / 3).max(1) && edits < length)
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, candidate)| candidate)
}

fn fold(word: &str) -> String {
    word.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_typing_errors_and_nothing_else() {
        let words = ["workers", "tick", "name", "bytes_in", "ms", "us"];
        for (typed, meant) in [
            ("wrokers", Some("workers")),
            ("worker", Some("workers")),
            ("Bytes-In", Some("bytes_in")),
            ("msec", None),
            ("m", None),
            ("mss", Some("ms")),
            ("brokers", Some("workers")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, words), meant, "{typed}");
        }
        assert_eq!(nearest(&"w".repeat(65), words), None);
    }
}
