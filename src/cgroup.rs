//! Control groups: where it is written what the groups of this process may use.
//!
//! Invariants: the process's own group comes first, then all above it; a path never leads out of
//! the tree of groups.

use std::path::{Path, PathBuf};

/// The folder of one group, in one of the two versions of control groups.
#[derive(Debug, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
    is_unified: bool,
}

impl Folder {
    /// The file that version 2 calls `unified` and version 1 `first`.
    pub fn file(&self, unified: &str, first: &str) -> PathBuf {
        self.path
            .join(if self.is_unified { unified } else { first })
    }
}

/// The groups that may limit what `controller` counts, by the text of `/proc/self/cgroup`: a line
/// a hierarchy, as `0::/path` (version 2) or `4:memory:/path` (version 1).
pub fn folders(groups: &str, controller: &str) -> Vec<Folder> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let is_unified = controllers.is_empty();
        let root = Path::new("/sys/fs/cgroup");
        let root = if is_unified {
            root.to_owned()
        } else if controllers.split(',').any(|name| name == controller) {
            root.join(controller)
        } else {
            continue;
        };
        folders.extend(ancestors(path).map(|path| Folder {
            path: root.join(path),
            is_unified,
        }));
    }
    folders
}

/// A limit as both versions write it: a number, or `max`.
pub fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The group and all above it, without their leading slash. Inside a container the path may be
/// the host's, of which only the root can be seen, or may climb out of what can be seen.
fn ancestors(path: &str) -> impl Iterator<Item = &Path> {
    let path = path.trim_start_matches('/');
    let path = if path.split('/').any(|part| part == "..") {
        ""
    } else {
        path
    };
    Path::new(path).ancestors()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(groups: &str) -> Vec<PathBuf> {
        let folders = folders(groups, "pids");
        let file = |folder: &Folder| folder.file("pids.max", "pids.limit");
        folders.iter().map(file).collect()
    }

    #[test]
    fn both_versions_are_found_from_the_own_group_up_to_the_root() {
        let found = files("4:cpu,pids:/a\n3:memory:/b\n0::/c/d\n");
        let wanted = [
            "pids/a/pids.limit",
            "pids/pids.limit",
            "c/d/pids.max",
            "c/pids.max",
            "pids.max",
        ];
        assert_eq!(
            found,
            wanted.map(|file| Path::new("/sys/fs/cgroup").join(file))
        );
    }

    #[test]
    fn a_path_never_leads_out_of_the_groups() {
        let found = files("0::/../../other\n");
        assert_eq!(found, [Path::new("/sys/fs/cgroup/pids.max")]);
        assert_eq!(files("garbage\n\n1:cpu:/a\n"), Vec::<PathBuf>::new());
    }

    #[test]
    fn odd_texts_are_no_limit() {
        for odd in ["", "max", "-1", "1k", "99999999999999999999999"] {
            assert_eq!(limit(odd), None, "{odd}");
        }
        assert_eq!(limit("512\n"), Some(512));
    }
}
