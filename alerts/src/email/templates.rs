//! Templates of mails: bundled, and overridable file by file from a folder.
//!
//! The sentences are in `en/` and `ko/` (`security`, `owner`, `action`, `gateway`, `quota`, `quotas`, `digest`,
//! `daily`, `test`; each as `.txt` and `.html`), shared parts beside these folders. Overrides are tried at start with incidents and quotas of every kind. So a broken one is an
//! error with file and line at start, and never a missing alert.
//!
//! Limits: an override has at most 256 KiB.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

macro_rules! bundled {
    ($($name:literal)+) => {
        &[$(($name, include_str!(concat!("../../templates/", $name))),)+]
    };
}

/// Pairs of a template's name and its source.
const BUNDLED: &[(&str, &str)] = bundled! {
    "layout.html" "facts.html" "signals.html" "answers.html" "samples.html" "taken.html" "others.html" "steps.html" "earlier.html"
    "chart.html" "rows.html" "actions.html"
    "facts.txt" "signals.txt" "answers.txt" "samples.txt" "taken.txt" "others.txt" "steps.txt" "earlier.txt" "rows.txt" "actions.txt"
    "en/security.html" "en/owner.html" "en/digest.html" "en/daily.html" "en/test.html"
    "en/action.html" "en/gateway.html" "en/quota.html" "en/quotas.html"
    "en/security.txt" "en/owner.txt" "en/digest.txt" "en/daily.txt" "en/test.txt"
    "en/action.txt" "en/gateway.txt" "en/quota.txt" "en/quotas.txt"
    "ko/security.html" "ko/owner.html" "ko/digest.html" "ko/daily.html" "ko/test.html"
    "ko/action.html" "ko/gateway.html" "ko/quota.html" "ko/quotas.html"
    "ko/security.txt" "ko/owner.txt" "ko/digest.txt" "ko/daily.txt" "ko/test.txt"
    "ko/action.txt" "ko/gateway.txt" "ko/quota.txt" "ko/quotas.txt"
};

/// The page about an incident on a terminal, which no folder replaces.
const EVIDENCE: (&str, &str) = ("evidence.txt", include_str!("../../templates/evidence.txt"));

const LARGEST: u64 = 256 << 10;
/// The most columns of a line of text in mails.
const COLUMNS: usize = 72;

/// Why a template can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("{}: {reason}", path.display())]
    Read { path: PathBuf, reason: String },
    #[error("{}: no template is called so; allowed: {}", path.display(), names())]
    Name { path: PathBuf },
    #[error("{}:{line}: {reason}", path.display())]
    Broken {
        path: PathBuf,
        /// Counts from 1; 0 means that the line isn't known.
        line: usize,
        reason: String,
    },
}

fn names() -> String {
    BUNDLED.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The templates of mails, by name.
pub(crate) struct MailTemplates {
    environment: Environment<'static>,
    folder: Option<PathBuf>,
}

impl MailTemplates {
    /// Returns the templates that come with the program.
    pub(crate) fn bundled() -> Result<Self, TemplateError> {
        Self::of_width(COLUMNS)
    }

    fn of_width(columns: usize) -> Result<Self, TemplateError> {
        let mut templates = Self { environment: environment(columns), folder: None };
        for (name, source) in BUNDLED {
            templates.add(name, (*source).to_owned())?;
        }
        Ok(templates)
    }

    /// Renders the page about an incident in lines of at most `columns` columns.
    pub(crate) fn evidence(view: &impl Serialize, columns: usize) -> Result<String, TemplateError> {
        let mut templates = Self::of_width(columns)?;
        let (name, source) = EVIDENCE;
        templates.add(name, source.to_owned())?;
        templates.render(name, view)
    }

    /// Returns the bundled templates, replaced by those of a folder where the names are the same.
    pub(crate) fn with_folder(folder: &Path) -> Result<Self, TemplateError> {
        let mut templates = Self::bundled()?;
        templates.folder = Some(folder.to_owned());
        for path in files(folder)? {
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            if BUNDLED.iter().all(|(known, _)| *known != name) {
                return Err(TemplateError::Name { path });
            }
            let source = read(&path)?;
            templates.add(&name, source)?;
        }
        Ok(templates)
    }

    fn add(&mut self, name: &str, source: String) -> Result<(), TemplateError> {
        self.environment.remove_template(name);
        self.environment
            .add_template_owned(name.to_owned(), source)
            .map_err(|error| self.broken(name, &error))
    }

    /// Fills a template with a view.
    pub(crate) fn render(&self, name: &str, view: &impl Serialize) -> Result<String, TemplateError> {
        let template = self.environment.get_template(name);
        let rendered = template.and_then(|template| template.render(Serde(view)));
        rendered.map_err(|error| self.broken(name, &error))
    }

    fn broken(&self, name: &str, error: &minijinja::Error) -> TemplateError {
        // If an included file is wrong, the innermost error has its name and line.
        let mut innermost = error;
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            if let Some(inner) = inner.downcast_ref::<minijinja::Error>() {
                innermost = inner;
            }
            source = inner.source();
        }
        let name = innermost.name().unwrap_or(name);
        let path = self.folder.as_ref().map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
        let reason = match innermost.detail() {
            Some(detail) => format!("{}: {detail}", innermost.kind()),
            None => innermost.kind().to_string(),
        };
        TemplateError::Broken { path, line: innermost.line().unwrap_or(0), reason }
    }
}

/// Columns of labels, if there is room for them.
const LABEL: usize = 22;

/// Returns the filters and functions of templates, for lines of at most `columns` columns.
fn environment(columns: usize) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    if let Ok(syntax) = syntax {
        environment.set_syntax(syntax);
    }
    environment.add_filter("wrap", move |text: &str, indent: Option<usize>| {
        wrap(text, (indent.unwrap_or(0), indent.unwrap_or(0)), columns)
    });
    environment.add_filter("item", move |text: &str, mark: &str| {
        let wrapped = wrap(text, (0, mark.width()), columns);
        format!("{mark}{wrapped}")
    });
    environment
        .add_filter("command", move |text: &str, indent: Option<usize>| command(text, indent, columns));
    environment.add_function("row", move |label: &str, value: &str| {
        let padding = LABEL.saturating_sub(label.width()).max(1);
        format!("{label}{}{}", " ".repeat(padding), wrap(value, (0, LABEL), columns))
    });
    environment
}

/// Breaks a text into lines of at most `columns` columns. The first line is indented by `first`, all others by `rest`;
/// all are as wide as `rest` allows. A line that would begin like a formula begins with `'` instead ([`clean`]).
///
/// [`clean`]: super::clean
fn wrap(text: &str, (first, rest): (usize, usize), columns: usize) -> String {
    let room = columns.saturating_sub(rest).max(8);
    let begin = |lines: &[String], word: &str| match !lines.is_empty() && word.starts_with(['=', '+', '@']) {
        true => "'",
        false => "",
    };
    let mut lines: Vec<String> = Vec::new();
    let mut now = String::new();
    for word in text.split_whitespace() {
        let mut word = word;
        if !now.is_empty() && now.width() + 1 + word.width() > room {
            lines.push(std::mem::take(&mut now));
        }
        now.push_str(if now.is_empty() { begin(&lines, word) } else { " " });
        // A word that is longer than a line is cut into pieces.
        while now.width() + word.width() > room {
            let mut end = 0;
            for (i, c) in word.char_indices() {
                let next = i + c.len_utf8();
                if end > 0 && now.width() + word[..next].width() > room {
                    break;
                }
                end = next;
            }
            now.push_str(&word[..end]);
            lines.push(std::mem::take(&mut now));
            word = &word[end..];
            now.push_str(begin(&lines, word));
        }
        now.push_str(word);
    }
    if !now.is_empty() || lines.is_empty() {
        lines.push(now);
    }
    format!("{}{}", " ".repeat(first), lines.join(&format!("\n{}", " ".repeat(rest))))
}

/// Breaks a command of a shell before options and pipes, so that it can still be copied. A part that is longer than a
/// line stays whole.
fn command(text: &str, indent: Option<usize>, columns: usize) -> String {
    const CONTINUED: &str = " \\";
    let indent = indent.unwrap_or(0);
    let mut lines: Vec<String> = Vec::new();
    let mut now = " ".repeat(indent);
    let mut rest = text;
    while !rest.is_empty() {
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = [" -", " | "].iter().filter_map(|begin| Some(rest[first..].find(begin)? + first)).min();
        let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
        if now.width() > indent && now.width() + part.width() + CONTINUED.len() > columns {
            lines.push(std::mem::replace(&mut now, " ".repeat(indent + 1)) + CONTINUED);
        }
        now.push_str(part);
        rest = after;
    }
    lines.push(now);
    lines.join("\n")
}

/// Lists the files of a folder and of its direct subfolders, sorted by name, without hidden ones.
fn files(folder: &Path) -> Result<Vec<PathBuf>, TemplateError> {
    let broken = |path: &Path, error: std::io::Error| TemplateError::Read {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let list = |folder: &Path| -> Result<Vec<PathBuf>, TemplateError> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|error| broken(folder, error))? {
            let entry = entry.map_err(|error| broken(folder, error))?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    };
    let mut files = Vec::new();
    for path in list(folder)? {
        if path.is_dir() {
            files.extend(list(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<String, TemplateError> {
    let broken = |reason: String| TemplateError::Read { path: path.to_owned(), reason };
    let mut source = String::new();
    let file = File::open(path).map_err(|error| broken(error.to_string()))?;
    file.take(LARGEST + 1).read_to_string(&mut source).map_err(|error| broken(error.to_string()))?;
    if source.len() as u64 > LARGEST {
        return Err(broken(format!("it has more than {} KiB", LARGEST >> 10)));
    }
    Ok(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_begins_like_a_formula() {
        let filler = "x".repeat(COLUMNS - 2);
        for text in [format!("{filler} =1+1"), format!("{filler}xx=1+1"), format!("{filler} {filler}xx@sum")]
        {
            let wrapped = wrap(&text, (0, 0), COLUMNS);
            assert!(wrapped.lines().skip(1).any(|line| line.starts_with('\'')), "{wrapped}");
            assert!(!wrapped.lines().any(|line| line.starts_with(['=', '@'])), "{wrapped}");
            assert!(wrapped.lines().all(|line| line.width() <= COLUMNS), "{wrapped}");
        }
    }

    #[test]
    fn a_command_that_is_broken_is_the_same_command() {
        let short = "kcat -C -q -b broker.example:9092 -t topic -p 3 -o 88120447 -c 1";
        assert_eq!(command(short, Some(2), COLUMNS), format!("  {short}"));
        let long = "kcat -C -q -b a-rather-long-name-of-a-broker.eu-central-1.example:9092 -t t -p 3 -o 88120447 -c 1";
        let broken = command(long, Some(2), COLUMNS);
        assert!(broken.lines().count() > 1 && broken.lines().all(|line| line.width() <= COLUMNS), "{broken}");
        let joined = broken.replace("\\\n", "");
        assert_eq!(
            joined.split_whitespace().collect::<Vec<_>>(),
            long.split_whitespace().collect::<Vec<_>>()
        );
        assert_eq!(command(&"x".repeat(100), None, COLUMNS), "x".repeat(100));
        assert_eq!(command("", None, COLUMNS), "");
    }

    #[test]
    fn text_fits_its_columns() {
        let korean = "키가 유출된 것으로 보입니다 ".repeat(12);
        let long = format!("see {} now", "x".repeat(300));
        for text in [korean.as_str(), &long, "", "one"] {
            for (first, rest) in [(0, 0), (2, 2), (0, 22)] {
                let wrapped = wrap(text, (first, rest), COLUMNS);
                for (i, line) in wrapped.lines().enumerate() {
                    let before = if i == 0 { rest - first } else { 0 };
                    assert!(line.width() + before <= COLUMNS, "{line}");
                }
                let words = |text: &str| text.split_whitespace().collect::<String>();
                assert_eq!(words(&wrapped), words(text));
            }
        }
    }
}
