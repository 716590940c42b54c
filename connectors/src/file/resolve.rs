//! The files that a pattern matches.

use std::path::PathBuf;

use glob::MatchOptions;

use super::{FileError, Partition};

/// The most files that one pattern may match.
pub const MAX_FILES: usize = 10_000;

/// Returns the files that match `pattern`, in the byte order of their paths. Except for `**`, wildcards match
/// within one folder. They find no hidden file; a name written in full does. Folders are skipped, and links are
/// followed. A pipe or a device is read once, to its end.
///
/// # Errors
/// If the pattern is invalid, matches no file or more than [`MAX_FILES`], or if a match can't be inspected.
pub fn resolve(pattern: &str) -> Result<Vec<Partition>, FileError> {
    let options = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let list_error = |path: PathBuf, source| FileError::List {
        pattern: pattern.to_owned(),
        path: path.display().to_string(),
        source,
    };
    let matches = glob::glob_with(pattern, options)
        .map_err(|source| FileError::Pattern { pattern: pattern.to_owned(), source })?;
    let mut files = Vec::new();
    for path in matches {
        let path = path.map_err(|error| list_error(error.path().to_owned(), error.into()))?;
        let metadata = std::fs::metadata(&path).map_err(|source| list_error(path.clone(), source))?;
        if metadata.is_dir() {
            continue;
        }
        if files.len() == MAX_FILES {
            return Err(FileError::TooMany { pattern: pattern.to_owned() });
        }
        files.push((path, metadata));
    }
    if files.is_empty() {
        return Err(FileError::NoMatch { pattern: pattern.to_owned() });
    }
    files.sort_unstable_by(|(a, _), (b, _)| a.as_os_str().cmp(b.as_os_str()));
    Ok(files.into_iter().map(|(path, metadata)| Partition::file(path, &metadata)).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(pattern: &str) -> Vec<String> {
        let files = resolve(pattern).unwrap();
        files.iter().map(|file| file.path().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn files_come_in_the_order_of_their_paths_and_folders_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.log", "a.log", "a.log.1", ".hidden.log"] {
            fs::write(folder.path().join(name), "x\n").unwrap();
        }
        fs::create_dir(folder.path().join("c.log")).unwrap();
        fs::write(folder.path().join("c.log/inner.log"), "x\n").unwrap();
        let root = folder.path().display();
        assert_eq!(names(&format!("{root}/*.log")), ["a.log", "b.log"]);
        assert_eq!(names(&format!("{root}/**/*.log")), ["a.log", "b.log", "inner.log"]);
        assert_eq!(names(&format!("{root}/.hidden.log")), [".hidden.log"]);
    }

    #[test]
    fn a_pattern_without_files_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("only-a-folder")).unwrap();
        let pattern = format!("{}/*", folder.path().display());
        let error = resolve(&pattern).unwrap_err();
        assert!(matches!(error, FileError::NoMatch { .. }));
        assert!(error.to_string().contains(&pattern), "{error}");
        assert!(matches!(resolve("a/[").unwrap_err(), FileError::Pattern { .. }));
    }

    #[cfg(unix)]
    #[test]
    fn a_dangling_link_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("link.log")).unwrap();
        let error = resolve(&format!("{}/*.log", folder.path().display())).unwrap_err();
        assert!(matches!(error, FileError::List { .. }));
        assert!(error.to_string().contains("link.log"), "{error}");
    }

    #[test]
    fn more_files_than_allowed_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=MAX_FILES {
            fs::File::create(folder.path().join(format!("{number}.log"))).unwrap();
        }
        let pattern = format!("{}/*.log", folder.path().display());
        assert!(matches!(resolve(&pattern).unwrap_err(), FileError::TooMany { .. }));
        fs::remove_file(folder.path().join("0.log")).unwrap();
        assert_eq!(resolve(&pattern).unwrap().len(), MAX_FILES);
    }
}
