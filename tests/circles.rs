//! Inside a crate files don't use each other in a circle: a module may use its parent and its children, siblings only
//! in one direction.
//!
//! Of every file the paths are read that begin with `crate`, `super` or `self`, in `use` and elsewhere. Names that a
//! module imports are followed to the file that defines them, so a parent that passes names on doesn't hide a circle.
//! Then the children of each module, each with all that is below it, must have an order in which nobody uses a later
//! one.
//!
//! Limits: code of `#[cfg(test)]` doesn't count. A use without a path isn't seen: methods of a value that was handed
//! over, and macros by textual scope. Modules of a file's own may not have a body, as these would need more than a scanner.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::docs::tracked;
use crate::harness::{read_text, repository};

/// Imports of imports that are followed.
const MOST_IMPORTS: usize = 8;

/// The names from a crate's root to a module.
type Module = Vec<String>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Into,
    Sign(char),
}

impl Token {
    fn is(&self, sign: char) -> bool {
        *self == Self::Sign(sign)
    }

    fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// The tokens of a source file, without comments, literals and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut tokens, mut place) = (Vec::new(), 0);
    while place < chars.len() {
        match (at(place), at(place + 1)) {
            ('/', '/') => {
                while place < chars.len() && at(place) != '\n' {
                    place += 1;
                }
            }
            ('/', '*') => {
                let mut depth = 0;
                loop {
                    match (at(place), at(place + 1)) {
                        ('/', '*') => (depth, place) = (depth + 1, place + 2),
                        ('*', '/') => (depth, place) = (depth - 1, place + 2),
                        _ => place += 1,
                    }
                    if depth == 0 || place >= chars.len() {
                        break;
                    }
                }
            }
            ('"', _) => place = after_string(&chars, place),
            ('\'', '\\') => {
                place += 3;
                while place < chars.len() && at(place) != '\'' {
                    place += 1;
                }
                place += 1;
            }
            ('\'', _) if at(place + 2) == '\'' => place += 3,
            ('\'', _) => {
                place += 1;
                while is_word(at(place)) {
                    place += 1;
                }
            }
            (':', ':') => {
                tokens.push(Token::Into);
                place += 2;
            }
            (c, _) if is_word(c) => {
                let from = place;
                while is_word(at(place)) {
                    place += 1;
                }
                let word: String = chars[from..place].iter().collect();
                let is_raw = ["r", "br", "cr"].contains(&&*word);
                let hashes = chars[place..].iter().take_while(|c| **c == '#').count();
                if is_raw && at(place + hashes) == '"' {
                    place = after_raw_string(&chars, place + hashes + 1, hashes);
                } else if !(["b", "c"].contains(&&*word) && matches!(at(place), '"' | '\'')) {
                    tokens.push(Token::Word(word));
                }
            }
            (c, _) => {
                if !c.is_whitespace() {
                    tokens.push(Token::Sign(c));
                }
                place += 1;
            }
        }
    }
    tokens
}

/// The place after a string that begins at `place`.
fn after_string(chars: &[char], mut place: usize) -> usize {
    place += 1;
    while place < chars.len() && chars[place] != '"' {
        place += if chars[place] == '\\' { 2 } else { 1 };
    }
    place + 1
}

/// The place after a raw string whose text begins at `place`.
fn after_raw_string(chars: &[char], mut place: usize, hashes: usize) -> usize {
    let is_end = |place: usize| {
        chars[place] == '"' && chars[place + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    while place < chars.len() && !is_end(place) {
        place += 1;
    }
    place + 1 + hashes
}

/// Takes items of tests away; the names of those that are modules.
fn drop_tests(code: &mut Vec<Token>) -> Vec<String> {
    let mark = tokens("#[cfg(test)]");
    let mut modules = Vec::new();
    while let Some(from) = code.windows(mark.len()).position(|window| window == mark) {
        let mut place = from + mark.len();
        while code[place].is('#') {
            place = after_group(code, place + 1);
        }
        let item = place;
        if code[place].word() == Some("pub") {
            place += 1;
            place = if code[place].is('(') { after_group(code, place) } else { place };
        }
        let is_use = code[place].word() == Some("use");
        while !code[place].is(';') {
            let opens = "([{".chars().any(|sign| code[place].is(sign));
            let ends = code[place].is('{') && !is_use;
            place = if opens { after_group(code, place) } else { place + 1 };
            if ends {
                place -= 1;
                break;
            }
        }
        let module = code[item..=place].iter().skip_while(|token| token.word() != Some("mod"));
        modules.extend(module.skip(1).take(1).filter_map(Token::word).map(str::to_owned));
        code.drain(from..=place);
    }
    modules
}

/// A file of a crate: the paths that it names, and what it imports by which name.
#[derive(Debug, Default)]
struct Source {
    paths: Vec<Vec<String>>,
    /// Modules of which all names are imported.
    globs: Vec<Vec<String>>,
    imports: BTreeMap<String, Vec<String>>,
}

impl Source {
    fn read(name: &str, tokens: &[Token]) -> Self {
        let mut source = Self::default();
        let mut place = 0;
        while place < tokens.len() {
            let is_path_before = place > 0 && tokens[place - 1] == Token::Into;
            match &tokens[place] {
                Token::Word(word) if word == "use" && !is_path_before => {
                    place = source.import(tokens, place + 1, &[]);
                }
                Token::Word(word) if word == "mod" => {
                    let has_body = tokens.get(place + 2).is_some_and(|token| token.is('{'));
                    assert!(!has_body, "{name}: a module with a body, which this test doesn't follow");
                    place += 1;
                }
                Token::Word(word) if ["crate", "super", "self"].contains(&&**word) && !is_path_before => {
                    let mut path = vec![word.clone()];
                    place += 1;
                    while let (Some(Token::Into), Some(Token::Word(next))) =
                        (tokens.get(place), tokens.get(place + 1))
                    {
                        path.push(next.clone());
                        place += 2;
                    }
                    if path.len() > 1 {
                        source.paths.push(path);
                    }
                }
                _ => place += 1,
            }
        }
        source
    }

    /// Reads a tree of `use` from `place` on; returns the place after it.
    fn import(&mut self, tokens: &[Token], mut place: usize, prefix: &[String]) -> usize {
        let mut path = prefix.to_vec();
        loop {
            match &tokens[place] {
                Token::Into => place += 1,
                Token::Sign('{') => {
                    place += 1;
                    while !tokens[place].is('}') {
                        place = self.import(tokens, place, &path);
                        place += usize::from(tokens[place].is(','));
                    }
                    return place + 1;
                }
                Token::Sign('*') => {
                    let is_own =
                        path.first().is_some_and(|first| ["crate", "super", "self"].contains(&&**first));
                    if is_own {
                        self.globs.push(path);
                    }
                    return place + 1;
                }
                Token::Word(word) if word == "as" => {
                    let alias = tokens[place + 1].word().unwrap_or("_").to_owned();
                    self.found(alias, path);
                    return place + 2;
                }
                Token::Word(word) => {
                    // `{self}` is the module itself.
                    if word != "self" || path.is_empty() {
                        path.push(word.clone());
                    }
                    place += 1;
                }
                Token::Sign(_) => {
                    if let Some(last) = path.last().cloned() {
                        self.found(last, path);
                    }
                    return place;
                }
            }
        }
    }

    fn found(&mut self, name: String, path: Vec<String>) {
        self.paths.push(path.clone());
        self.imports.insert(name, path);
    }
}

/// The place after the group of brackets that begins at `place`.
fn after_group(tokens: &[Token], mut place: usize) -> usize {
    let mut depth = 0;
    loop {
        if let Token::Sign(sign) = tokens[place] {
            depth += i32::from("([{".contains(sign)) - i32::from(")]}".contains(sign));
        }
        place += 1;
        if depth == 0 {
            return place;
        }
    }
}

/// A crate's files by the modules that they are.
#[derive(Debug, Default)]
struct Crate(BTreeMap<Module, Source>);

impl Crate {
    /// Of pairs of a file's path, from the crate's folder, and its text.
    fn new<'a>(files: impl Iterator<Item = (&'a str, String)>) -> Self {
        let mut read = Vec::new();
        let mut tests: Vec<Module> = Vec::new();
        for (path, text) in files {
            let parts = Path::new(path).with_extension("");
            let mut module: Module =
                parts.iter().filter_map(|part| part.to_str()).map(str::to_owned).collect();
            module.pop_if(|last| ["mod", "lib", "main"].contains(&&**last));
            let mut code = tokens(&text);
            let of_tests = drop_tests(&mut code).into_iter();
            tests.extend(of_tests.map(|name| [&module[..], &[name]].concat()));
            read.push((module, path, code));
        }
        read.retain(|(module, ..)| !tests.iter().any(|of_tests| module.starts_with(of_tests)));
        Self(read.into_iter().map(|(module, path, code)| (module, Source::read(path, &code))).collect())
    }

    /// The module whose file defines what a path leads to, if it is one of this crate's.
    fn resolve(&self, from: &Module, path: &[String], steps: usize) -> Option<Module> {
        let mut at = from.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => (at, rest) = (Module::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|word| word == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            child => {
                at.push(child.to_owned());
                self.0.get(&at)?;
                rest = &rest[1..];
            }
        }
        while let Some((word, after)) = rest.split_first() {
            at.push(word.clone());
            if !self.0.contains_key(&at) {
                at.pop();
                // What the module doesn't import it defines.
                let imported = self.0.get(&at).and_then(|source| source.imports.get(word));
                let followed = imported.filter(|_| steps > 0).map(|imported| [imported, after].concat());
                return followed.and_then(|path| self.resolve(&at, &path, steps - 1)).or(Some(at));
            }
            rest = after;
        }
        Some(at)
    }

    /// The modules that a file uses. One that imports all names of another is taken to use everything that the other
    /// imports.
    fn used(&self, user: &Module, source: &Source) -> Vec<Module> {
        let used = source.paths.iter().filter_map(|path| self.resolve(user, path, MOST_IMPORTS));
        let globs = source.globs.iter().filter_map(|path| self.resolve(user, path, MOST_IMPORTS));
        let passed_on = globs.flat_map(|from| {
            let imports = self.0.get(&from).into_iter().flat_map(|source| source.imports.values());
            let found = imports.filter_map(|path| self.resolve(&from, path, MOST_IMPORTS));
            found.chain([from.clone()]).collect::<Vec<_>>()
        });
        used.chain(passed_on).collect()
    }

    /// Who uses whom among the children of each module, each child with all that is below it.
    fn uses(&self) -> BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> {
        let mut uses: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (user, source) in &self.0 {
            for used in self.used(user, source) {
                let common = user.iter().zip(&used).take_while(|(one, other)| one == other).count();
                if let (Some(one), Some(other)) = (user.get(common), used.get(common)) {
                    let among = uses.entry(user[..common].to_vec()).or_default();
                    among.entry(one.clone()).or_default().insert(other.clone());
                }
            }
        }
        uses
    }

    /// Circles, each as a module and those of its children that use each other.
    fn circles(&self) -> Vec<(Module, BTreeSet<String>)> {
        let mut circles = Vec::new();
        for (parent, uses) in self.uses() {
            let reach = |from: &String| {
                let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
                while let Some(next) = open.pop() {
                    open.extend(
                        uses.get(next).into_iter().flatten().filter(|used| seen.insert((*used).clone())),
                    );
                }
                seen
            };
            let reached: BTreeMap<&String, BTreeSet<String>> =
                uses.keys().map(|child| (child, reach(child))).collect();
            let together: BTreeSet<BTreeSet<String>> = reached
                .iter()
                .filter(|(child, seen)| seen.contains(**child))
                .map(|(child, seen)| {
                    let back = |other: &&&String| seen.contains(**other) && reached[**other].contains(*child);
                    reached.keys().filter(back).map(|other| (*other).clone()).collect()
                })
                .collect();
            circles.extend(together.into_iter().map(|names| (parent.clone(), names)));
        }
        circles
    }
}

#[test]
fn files_do_not_use_each_other_in_a_circle() {
    let tracked = tracked();
    let roots = tracked.iter().filter_map(|file| match file.strip_suffix("/src/lib.rs") {
        Some(name) if !name.contains('/') => Some((name, format!("{name}/src/"))),
        _ => (file == "cli/main.rs").then(|| ("cli", "cli/".to_owned())),
    });
    let mut circles = Vec::new();
    let mut crates = 0;
    for (name, folder) in roots {
        let files = tracked.iter().filter_map(|file| file.strip_prefix(&folder));
        let files = files.filter(|file| file.ends_with(".rs"));
        let found = Crate::new(files.map(|file| (file, read_text(&repository().join(&folder).join(file)))));
        assert!(found.0.len() > 5 && !found.uses().is_empty(), "{name} is read: {found:?}");
        circles.extend(found.circles().into_iter().map(|(parent, names)| {
            let parent = [name].into_iter().chain(parent.iter().map(String::as_str)).collect::<Vec<_>>();
            (parent.join("::"), names)
        }));
        crates += 1;
    }
    assert!(crates >= 7, "{crates}");
    assert!(circles.is_empty(), "files use each other in a circle: {circles:#?}");
}

#[test]
fn circles_are_found_through_the_names_that_a_parent_passes_on() {
    let circles = |files: &[(&'static str, &str)]| {
        let read = Crate::new(files.iter().map(|(path, text)| (*path, (*text).to_owned())));
        let names = |(_, names): (Module, BTreeSet<String>)| names.into_iter().collect::<Vec<_>>().join(", ");
        read.circles().into_iter().map(names).collect::<Vec<_>>()
    };
    let parent =
        ("lib.rs", "mod a;\nmod b;\nmod c;\npub use self::b::{Thing, Other as Renamed};\nfn of_parent() {}");
    let c = ("c/mod.rs", "mod deep;");
    let deep = ("c/deep.rs", "fn f() { crate::of_parent() }");
    let b = |text| ("b.rs", text);
    let direct = ("a.rs", "use crate::b::{self, Thing};");
    assert_eq!(circles(&[parent, c, deep, direct, b("fn f() { super::a::g() }")]), ["a, b"]);
    assert_eq!(circles(&[parent, c, deep, direct, b("use super::{c, of_parent};")]), [""; 0]);
    let passed_on =
        ("a.rs", "fn f(x: &'static str, c: char) -> super::Renamed { if c == '\"' {} super::Renamed }");
    assert_eq!(circles(&[parent, c, deep, passed_on, b("use crate::a::X as _;")]), ["a, b"]);
    let all = ("c/deep.rs", "pub(super) use crate::a::X;");
    assert_eq!(circles(&[parent, c, all, direct, b("use super::c::deep::*;")]), ["a, b, c"]);
    let below = ("c/deep.rs", "use crate::a::X;");
    assert_eq!(circles(&[parent, c, below, direct, b("use crate::c;")]), ["a, b, c"]);
    let quoted = "// use crate::a;\nconst X: &str = r#\"use \"crate::a::X\"#;\n/* crate::a::X */";
    assert_eq!(circles(&[parent, c, deep, direct, b(quoted)]), [""; 0]);
    let tests =
        "#[cfg(test)]\n#[allow(unused)]\nmod tests { use crate::a::X; }\n#[cfg(test)]\nuse crate::a::{Y, Z};";
    assert_eq!(circles(&[parent, c, deep, direct, b(tests)]), [""; 0]);
    let of_tests = [("b.rs", "#[cfg(test)]\nmod tests;"), ("b/tests.rs", "use crate::a::X;")];
    assert_eq!(circles(&[parent, c, deep, direct, of_tests[0], of_tests[1]]), [""; 0]);
}
