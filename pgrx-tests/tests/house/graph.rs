//! Finds which files of a crate use which others, by their `use` lines and the paths in their code. A re-exported name
//! counts for the file that defines it; tests within a file do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use syn::visit::Visit;
use syn::{Attribute, Item, UseTree, Visibility};

/// A module by its path from the crate's root.
type Module = Vec<String>;

/// The files of a crate.
pub struct Crate {
    files: BTreeMap<Module, Paths>,
}

/// The names in a file.
#[derive(Default)]
struct Paths {
    /// The paths in its code.
    used: BTreeSet<Vec<String>>,
    /// The names that the file re-exports, with their origins.
    exported: BTreeMap<String, Vec<String>>,
    /// How many modules within the file the place is in that is being read.
    inner: usize,
}

impl Crate {
    /// Reads all files below a folder.
    pub fn read(folder: &Path) -> Crate {
        let mut files = BTreeMap::new();
        read_folder(folder, &Vec::new(), &mut files);
        Crate { files }
    }

    /// How many files there are.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// The circles, each with its files.
    pub fn circles(&self) -> Vec<String> {
        let uses: BTreeMap<&Module, BTreeSet<Module>> =
            self.files.iter().map(|(module, paths)| (module, self.uses(module, paths))).collect();
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            uses.keys().map(|module| (*module, reachable(module, &uses))).collect();
        let mut circles = BTreeSet::new();
        for (module, others) in &reached {
            let circle: BTreeSet<&Module> =
                others.iter().copied().filter(|other| reached[*other].contains(*module)).collect();
            if circle.len() > 1 {
                let names = circle.iter().map(|module| name(module)).collect::<Vec<_>>();
                circles.insert(names.join(", "));
            }
        }
        circles.into_iter().collect()
    }

    fn uses(&self, module: &Module, paths: &Paths) -> BTreeSet<Module> {
        let found = paths.used.iter().filter_map(|path| self.file_of(module, path, 0));
        found.filter(|other| other != module).collect()
    }

    /// The file that a path leads to, through what files on the way re-export.
    fn file_of(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let first = path.first()?;
        let (mut at, rest) = match first.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (from.clone(), &path[1..]),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                (from[..from.len().checked_sub(ups)?].to_vec(), &path[ups..])
            }
            child if self.files.contains_key(&[from.clone(), vec![child.to_owned()]].concat()) => (from.clone(), path),
            _ => return None,
        };
        let mut rest = rest.iter();
        let mut next = rest.next();
        while let Some(part) = next {
            let deeper = [at.clone(), vec![part.clone()]].concat();
            if !self.files.contains_key(&deeper) {
                break;
            }
            at = deeper;
            next = rest.next();
        }
        let exported = next.and_then(|part| self.files.get(&at)?.exported.get(part));
        match exported {
            Some(path) if depth < 8 => self.file_of(&at, path, depth + 1).or(Some(at)),
            _ => Some(at),
        }
    }
}

fn name(module: &Module) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}

fn reachable<'a>(from: &Module, uses: &'a BTreeMap<&'a Module, BTreeSet<Module>>) -> BTreeSet<&'a Module> {
    let mut found = BTreeSet::new();
    let mut left: Vec<&Module> = uses[from].iter().collect();
    while let Some(module) = left.pop() {
        if found.insert(module) {
            left.extend(uses.get(module).into_iter().flatten());
        }
    }
    found
}

fn read_folder(folder: &Path, module: &Module, files: &mut BTreeMap<Module, Paths>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if path.is_dir() {
            read_folder(&path, &[module.clone(), vec![name]].concat(), files);
        } else if let Some(stem) = name.strip_suffix(".rs") {
            let own = match stem {
                "lib" | "main" | "mod" => module.clone(),
                stem => [module.clone(), vec![stem.to_owned()]].concat(),
            };
            let parsed = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
            let mut paths = Paths::default();
            paths.visit_file(&parsed);
            files.insert(own, paths);
        }
    }
}

impl Paths {
    fn take(&mut self, tree: &UseTree, before: &[String], is_exported: bool) {
        match tree {
            UseTree::Path(part) => self.take(&part.tree, &[before, &[part.ident.to_string()]].concat(), is_exported),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.take(tree, before, is_exported)),
            UseTree::Name(last) => self.name(&last.ident.to_string(), &last.ident.to_string(), before, is_exported),
            UseTree::Rename(last) => self.name(&last.rename.to_string(), &last.ident.to_string(), before, is_exported),
            UseTree::Glob(_) => drop(self.used.insert(self.as_of_file(before.to_vec()))),
        }
    }

    fn name(&mut self, shown: &str, own: &str, before: &[String], is_exported: bool) {
        let path = if own == "self" { before.to_vec() } else { [before, &[own.to_owned()]].concat() };
        let path = self.as_of_file(path);
        if is_exported {
            self.exported.insert(shown.to_owned(), path.clone());
        }
        self.used.insert(path);
    }

    /// A path as the file itself would write it: `super` in a module within the file is the file.
    fn as_of_file(&self, mut path: Vec<String>) -> Vec<String> {
        let ups = path.iter().take_while(|part| *part == "super").count();
        let within = ups.min(self.inner);
        path.drain(..within);
        if within > 0 && within == ups {
            path.insert(0, "self".to_owned());
        }
        path
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => &[],
        };
        let is_test = |attribute: &Attribute| {
            attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "test")
        };
        if attributes.iter().any(is_test) {
            return;
        }
        match item {
            Item::Use(item) => self.take(&item.tree, &[], !matches!(item.vis, Visibility::Inherited)),
            Item::Mod(module) if module.content.is_some() => {
                self.inner += 1;
                syn::visit::visit_item(self, item);
                self.inner -= 1;
            }
            _ => syn::visit::visit_item(self, item),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            let path = path.segments.iter().map(|part| part.ident.to_string()).collect();
            self.used.insert(self.as_of_file(path));
        }
        syn::visit::visit_path(self, path);
    }
}
