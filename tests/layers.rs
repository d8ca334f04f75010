//! House rules that the compiler does not check: who may see whom, sizes, words, and that the documents are true.

use std::fs;
use std::path::{Path, PathBuf};

/// Paths that begin with `place` name from the crates and modules in `heads` only what `allowed` lists.
struct Border {
    place: &'static str,
    heads: &'static [&'static str],
    allowed: &'static [&'static str],
}

const fn border(place: &'static str, heads: &'static [&'static str], allowed: &'static [&'static str]) -> Border {
    Border { place, heads, allowed }
}

/// Tests inside a file may see more; what stands behind the first `#[cfg(test)]` is not looked at.
const BORDERS: &[Border] = &[
    // Between crates: tpch, models, onnx -> quearn -> stage, backends; backends -> stage::low.
    border("stage/src/", &["quearn", "quearn_backends", "quearn_tpch", "quearn_models", "quearn_onnx"], &[]),
    border("backends/src/", &["quearn", "quearn_tpch", "quearn_models", "quearn_onnx"], &[]),
    border("backends/src/", &["quearn_stage"], &["low"]),
    border("src/", &["quearn_tpch", "quearn_models", "quearn_onnx"], &[]),
    border("tpch/src/", &["quearn_backends", "quearn_models"], &[]),
    border("models/src/", &["quearn_backends"], &[]),
    border("onnx/src/", &["quearn_backends", "quearn_tpch", "quearn_models"], &[]),
    // Inside stage: rep -> graph; low stands alone.
    border("stage/src/low/", &["crate"], &["low"]),
    border("stage/src/graph/", &["crate"], &["graph"]),
    border("stage/src/rep/", &["crate"], &["rep", "graph"]),
    // Inside the compiler.
    border("src/data/", &["crate"], &["data"]),
    border("src/data/", &["quearn_stage"], &["graph"]),
    border("src/data/", &["quearn_backends"], &["pages"]),
    border("src/io/", &["crate"], &["io", "data"]),
    border("src/io/", &["quearn_stage"], &["graph"]),
    border("src/io/", &["quearn_backends"], &["pages"]),
    border("src/eval/", &["crate"], &["eval", "data"]),
    border("src/eval/", &["quearn_backends"], &[]),
    border("src/estimate", &["crate"], &["data"]),
    border("src/estimate", &["quearn_stage"], &["graph"]),
    border("src/rewrite/", &["crate"], &["rewrite", "data", "eval", "estimate"]),
    border("src/rewrite/", &["quearn_stage"], &["graph"]),
    border("src/rewrite/", &["quearn_backends"], &[]),
    border("src/autodiff/", &["crate"], &["autodiff"]),
    border("src/autodiff/", &["quearn_stage"], &["graph", "rep"]),
    border("src/autodiff/", &["quearn_backends"], &[]),
    border("src/lower/", &["crate"], &["lower", "data", "estimate"]),
    border("src/lower/", &["quearn_stage"], &["graph", "low"]),
    border("src/lower/", &["quearn_backends"], &["abi"]),
    border("src/saved/", &["crate"], &["saved", "data", "error", "executable", "io", "lower"]),
    border("src/testing/", &["crate"], &["testing", "eval", "data"]),
    border(
        "src/training/",
        &["crate"],
        &[
            "training", "autodiff", "data", "error", "eval", "io", "results", "Profile", "Program", "Session", "State",
            "Tensors",
        ],
    ),
    border("src/training/", &["quearn_stage"], &["graph", "rep"]),
    border("src/training/", &["quearn_backends"], &[]),
    border("src/state", &["crate"], &["data", "error", "executable", "lower", "results"]),
];

/// Files that may name the session, beside its own.
const SEES_SESSION: &[&str] = &["src/lib.rs", "src/prelude.rs", "src/session.rs", "src/training/trainer.rs"];

#[test]
fn imports_go_one_way() {
    let mut problems = vec![];
    for file in rust_files() {
        let code = file.code();
        let code = code.split("#[cfg(test)]").next().unwrap_or(&code);
        let paths = paths(code, &file.module());
        for border in BORDERS.iter().filter(|b| file.path.starts_with(b.place)) {
            for (head, next) in &paths {
                if border.heads.contains(&head.as_str()) && !border.allowed.contains(&next.as_str()) {
                    problems.push(format!("{} must not see {head}::{next}", file.path));
                }
            }
        }
        let inside = file.path.starts_with("src/") && !SEES_SESSION.contains(&file.path.as_str());
        if inside && paths.iter().any(|(head, next)| head == "crate" && ["session", "Session"].contains(&next.as_str()))
        {
            problems.push(format!("{} must not see the session", file.path));
        }
    }
    none(problems);
}

#[test]
fn low_knows_neither_tables_nor_tensors() {
    let mut problems = vec![];
    for file in rust_files().into_iter().filter(|f| f.path.starts_with("stage/src/low/")) {
        let code = file.code();
        let identifiers = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        for identifier in identifiers {
            let lower = identifier.to_lowercase();
            if lower.contains("table") && !lower.contains("mutable") || lower.contains("tensor") {
                problems.push(format!("{}: `{identifier}`", file.path));
            }
        }
    }
    none(problems);
}

#[test]
fn files_are_small_and_say_what_they_are() {
    let mut problems = vec![];
    for file in rust_files() {
        if !file.text.starts_with("//!") {
            problems.push(format!("{} does not begin with //!", file.path));
        }
        let lines = file.text.lines().count();
        if lines > 800 {
            problems.push(format!("{} has {lines} lines, at most 800", file.path));
        }
    }
    none(problems);
}

#[test]
fn nothing_is_left_undone() {
    let mut problems = vec![];
    for file in rust_files() {
        let code = file.code();
        let mut marks = vec!["todo!", "unimplemented!", "#[ignore"];
        // A module shared by test files is compiled into each of them, and no one of them uses all of it.
        if !file.path.contains("tests/") {
            marks.push("allow(dead_code");
        }
        for mark in marks.iter().filter(|mark| code.contains(**mark)) {
            problems.push(format!("{}: {mark}", file.path));
        }
    }
    none(problems);
}

#[test]
fn nothing_depends_on_one_machine() {
    let machine = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let mut problems = vec![];
    for file in files(&["rs", "toml", "md", "stderr", "snap", "qir", ""]) {
        for path in machine.iter().filter(|path| file.text.contains(**path)) {
            problems.push(format!("{} names a path of one machine, {path}", file.path));
        }
        let builds = file.path.ends_with(".toml") || file.path.starts_with("scripts/") || file.path.starts_with(".ci/");
        if builds && file.text.contains("://") {
            problems.push(format!("{} names a host", file.path));
        }
    }
    none(problems);
}

#[test]
fn documents_are_short_and_true() {
    let mut problems = vec![];
    for (path, most) in [("README.md", 80), ("ARCHITECTURE.md", 200)] {
        let lines = read(path).lines().count();
        if lines > most {
            problems.push(format!("{path} has {lines} lines, at most {most}"));
        }
    }
    for command in ["scripts/demo", "scripts/test"] {
        if !read("README.md").lines().any(|line| line.split_whitespace().next() == Some(command)) {
            problems.push(format!("README.md does not show the command {command}"));
        }
    }
    for file in files(&["md"]) {
        let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        for link in links(&file.text).filter(|link| !root().join(folder).join(link).exists()) {
            problems.push(format!("{} links to {link}, which is not there", file.path));
        }
    }
    for place in code_spans(&read("ARCHITECTURE.md")).filter(|span| is_place(span) && !root().join(span).exists()) {
        problems.push(format!("ARCHITECTURE.md names {place}, which is not there"));
    }
    none(problems);
}

/// The rules above hold only if paths are found.
#[test]
fn paths_are_found() {
    let code = "use crate::{a::{x, y}, b}; use super::super::c::D; fn f() -> quearn_stage::low::Ty { super::e() }";
    let found = paths(code, &["lower".to_owned(), "scan".to_owned()]);
    let found: Vec<String> = found.iter().map(|(head, next)| format!("{head}::{next}")).collect();
    assert_eq!(found, ["crate::a", "crate::b", "quearn_stage::low", "crate::c", "crate::lower"]);
    let file = File { path: "src/a.rs".into(), text: "x /* 'y */ \"z\\\"\" 'w' <'v> r#\"u\"# // t\ns".into() };
    assert_eq!(file.code().split_whitespace().collect::<Vec<_>>(), ["x", "<'v>", "s"]);
}

/// Targets of the links in a Markdown text that are files.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    files.filter_map(|target| target.split('#').next())
}

/// What stands between single backticks.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn is_place(span: &str) -> bool {
    const ROOMS: [&str; 9] =
        ["stage/", "src/", "backends/", "tpch/", "models/", "onnx/", "tests/", "docs/", "scripts/"];
    ROOMS.iter().any(|room| span.starts_with(room)) && !span.contains(['*', '{', '<', ' '])
}

/// Pairs of a head (`crate` or a crate of the workspace) and the name behind it, for every path in the code.
fn paths(code: &str, module: &[String]) -> Vec<(String, String)> {
    let mut found = vec![];
    for head in ["crate", "quearn", "quearn_stage", "quearn_backends", "quearn_tpch", "quearn_models", "quearn_onnx"] {
        for rest in after(code, head) {
            found.extend(names(rest).map(|name| (head.to_owned(), name)));
        }
    }
    for rest in after(code, "super") {
        let (mut depth, mut rest) = (1, rest);
        while let Some(next) = rest.strip_prefix("super::") {
            (depth, rest) = (depth + 1, next);
        }
        match module.len().checked_sub(depth) {
            Some(0) => found.extend(names(rest).map(|name| ("crate".to_owned(), name))),
            Some(kept) => found.push(("crate".to_owned(), module[..kept][0].clone())),
            None => {}
        }
    }
    found
}

/// What stands behind each `head::` that begins a path.
fn after<'c>(code: &'c str, head: &str) -> Vec<&'c str> {
    let path = format!("{head}::");
    let begins = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    code.match_indices(&path).filter(|(at, _)| begins(*at)).map(|(at, _)| &code[at + path.len()..]).collect()
}

/// The names at the beginning of the rest of a path: one, or those of a `{…}` group.
fn names(rest: &str) -> impl Iterator<Item = String> {
    let first =
        |text: &str| text.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned();
    let mut found = vec![];
    if let Some(group) = rest.strip_prefix('{') {
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                '}' => {
                    found.push(first(&group[start..at]));
                    break;
                }
                ',' if depth == 0 => {
                    found.push(first(&group[start..at]));
                    start = at + 1;
                }
                _ => {}
            }
        }
    } else {
        found.push(first(rest));
    }
    found.into_iter().filter(|name| !name.is_empty() && name != "self")
}

/// A file of the repository.
struct File {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl File {
    /// The text with comments, strings and characters blanked out.
    fn code(&self) -> String {
        let mut code = String::with_capacity(self.text.len());
        let mut rest = self.text.as_str();
        while let Some(c) = rest.chars().next() {
            let skipped = blank(rest);
            let taken = if skipped > 0 { skipped } else { c.len_utf8() };
            if skipped == 0 {
                code.push(c);
            } else {
                code.push(' ');
            }
            rest = &rest[taken..];
        }
        code
    }

    /// Names of the modules down to the one that the file is.
    fn module(&self) -> Vec<String> {
        let inside = self.path.split_once("src/").map_or("", |(_, inside)| inside).trim_end_matches(".rs");
        let parts = inside.split('/').filter(|part| !["lib", "main", "mod", ""].contains(part));
        parts.map(str::to_owned).collect()
    }
}

/// Bytes of the comment, string or character that the text begins with; 0 if it is none.
fn blank(text: &str) -> usize {
    let until = |open: usize, close: &str| text[open..].find(close).map_or(text.len(), |at| open + at + close.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return until(2, "*/");
    }
    for (open, close) in [("r###\"", "\"###"), ("r##\"", "\"##"), ("r#\"", "\"#"), ("r\"", "\"")] {
        if text.starts_with(open) {
            return until(open.len(), close);
        }
    }
    match text.as_bytes() {
        [b'"', ..] => quoted(text, '"'),
        [b'\'', b'\\', ..] => quoted(text, '\''),
        [b'\'', ..] => match text[1..].chars().next() {
            Some(c) if text[1 + c.len_utf8()..].starts_with('\'') => c.len_utf8() + 2,
            _ => 0,
        },
        _ => 0,
    }
}

/// Bytes of a quoted text with its quotes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn rust_files() -> Vec<File> {
    let mut files = files(&["rs"]);
    // Those are small programs that must not compile.
    files.retain(|file| !file.path.contains("tests/ui/"));
    files
}

/// The files with one of these endings ("" is none).
fn files(endings: &[&str]) -> Vec<File> {
    let mut paths = vec![];
    walk(&root(), &mut paths);
    let ending = |path: &PathBuf| path.extension().map_or(String::new(), |e| e.to_string_lossy().into_owned());
    paths.retain(|path| endings.contains(&ending(path).as_str()));
    let relative = |path: &Path| path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/");
    let file = |path: PathBuf| Some(File { path: relative(&path), text: fs::read_to_string(&path).ok()? });
    paths.into_iter().filter_map(file).collect()
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        match path.is_dir() {
            true if name == "target" || name.starts_with('.') && name != ".ci" && name != ".config" => {}
            true => walk(&path, paths),
            // In a linked work tree it says where the repository is.
            false if name == ".git" => {}
            false => paths.push(path),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
