//! Places on the kernel, in a mount namespace of each test's own: what its target does to them, and what stays mounted.

use super::*;
use crate::storage::mount;
use hoody_protocol::{
    bounded::Text,
    id::{ContainerId, ShareId},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

const NONE: Option<&str> = None;

/// A root file system as a container has it, and its folder of shares. All of it goes with the thread of the test.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// Runs `test` in a mount namespace of its own.
    fn run(test: impl FnOnce(&Self) + Send) {
        let work = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(NONE, "/", NONE, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NONE).unwrap();
            let world = Self { folder: tempfile::tempdir().unwrap() };
            for name in ["files", "root", "shares", "sources"] {
                fs::create_dir(world.at(name)).unwrap();
            }
            for name in ["files", "shares", "sources"] {
                mount(Some("t"), &world.at(name), Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
            }
            mount(Some(&world.at("files")), &world.at("root"), NONE, MsFlags::MS_BIND, NONE).unwrap();
            mount::make_shared(&world.at("root")).unwrap();
            for inside in ["srv", "proc", "etc"] {
                fs::create_dir(world.at("files").join(inside)).unwrap();
            }
            test(&world);
        };
        std::thread::scope(|scope| scope.spawn(work).join()).unwrap();
    }

    fn at(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    /// What the container has at `inside`, shares included.
    fn inside(&self, inside: &str) -> PathBuf {
        self.at("root").join(inside)
    }

    fn root(&self) -> Root {
        let files = fs::File::open(self.at("files")).unwrap().into();
        Root::open(&self.at("root"), files).unwrap().unwrap()
    }

    /// A share that is mounted below the folder of shares; its folder holds a file of its name.
    fn share(&self, name: &str, place: &str) -> ShareMount {
        let (source, target) = (self.at("sources").join(name), self.at("shares").join(name));
        for folder in [&source, &target] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(source.join(name), "x").unwrap();
        mount::unmount(&target).unwrap();
        mount(Some(&source), &target, NONE, MsFlags::MS_BIND, NONE).unwrap();
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(NONE, &target, NONE, flags, NONE).unwrap();
        ShareMount {
            id: ShareId::generate(),
            source: ContainerId::generate(),
            path: Text::truncated("/srv"),
            name: Text::truncated(name),
            place: Some(Text::truncated(place)),
            readonly: false,
            until: None,
        }
    }

    /// Brings places to `wanted`; gives what is not at its own.
    fn converge(&self, wanted: &[&ShareMount]) -> Vec<(usize, ShareProblem)> {
        self.root().converge(wanted, &self.at("shares")).unwrap().failures
    }

    /// Where anything is mounted in the root.
    fn mounted(&self) -> Vec<String> {
        let root = self.root();
        let found = mountinfo::below(&mountinfo::own().unwrap(), root.id, &root.path);
        let mut paths: Vec<String> = found.into_iter().map(|found| found.path.to_str().unwrap().to_owned()).collect();
        paths.sort();
        paths
    }
}

#[test]
fn a_share_stands_at_its_place_and_leaves_it_as_it_was() {
    World::run(|world| {
        let share = world.share("data", "/srv/new/deep");
        let placed = world.root().converge(&[&share], &world.at("shares")).unwrap();
        assert_eq!((placed.failures.len(), &placed.mounted[..], placed.is_clean), (0, &[0][..], false));
        assert!(world.inside("srv/new/deep/data").exists() && !world.at("files/srv/new/deep/data").exists());
        let again = world.root().converge(&[&share], &world.at("shares")).unwrap();
        assert!(again.failures.is_empty() && again.mounted.is_empty(), "{again:?}");
        assert_eq!(world.mounted(), ["srv/new/deep"]);
        // Elsewhere: where it was, nothing is left.
        let share = ShareMount { place: Some(Text::truncated("/opt")), ..share };
        assert!(world.converge(&[&share]).is_empty());
        assert_eq!(world.mounted(), ["opt"]);
        assert!(!world.at("files/srv/new").exists() && world.at("files/srv").exists());
        let placed = world.root().converge(&[], &world.at("shares")).unwrap();
        assert!(placed.is_clean && world.mounted().is_empty() && !world.at("files/opt").exists());
    });
}

#[test]
fn one_that_is_mounted_otherwise_than_wanted_is_mounted_again() {
    World::run(|world| {
        let share = world.share("data", "/srv/data");
        assert!(world.converge(&[&share]).is_empty());
        // Another folder under the same name, and more than is allowed.
        let other = world.share("other", "/srv/data");
        mount::unmount(&world.inside("srv/data")).unwrap();
        mount(Some(&world.at("sources/other")), &world.inside("srv/data"), NONE, MsFlags::MS_BIND, NONE).unwrap();
        assert!(world.converge(&[&share]).is_empty());
        assert!(world.inside("srv/data/data").exists() && world.mounted() == ["srv/data"]);
        let writable = MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
        mount(NONE, &world.inside("srv/data"), NONE, writable, NONE).unwrap();
        assert!(world.converge(&[&share]).is_empty());
        let flags = nix::sys::statvfs::statvfs(&world.inside("srv/data")).unwrap().flags();
        assert!(flags.contains(FsFlags::ST_NOSUID | FsFlags::ST_NODEV), "{flags:?}");
        assert!(world.converge(&[&other]).is_empty() && world.inside("srv/data/other").exists());
        // Read-only from now on.
        let flags =
            MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
        mount(NONE, &world.at("shares/other"), NONE, flags, NONE).unwrap();
        assert!(world.converge(&[&ShareMount { readonly: true, ..other }]).is_empty());
        let flags = nix::sys::statvfs::statvfs(&world.inside("srv/data")).unwrap().flags();
        assert!(flags.contains(FsFlags::ST_RDONLY), "{flags:?}");
    });
}

#[test]
fn the_target_leads_a_share_nowhere_but_inside() {
    World::run(|world| {
        let outside = world.at("outside");
        fs::create_dir(&outside).unwrap();
        symlink("/srv/real", world.inside("srv/link")).unwrap();
        fs::create_dir(world.inside("srv/real")).unwrap();
        symlink(&outside, world.inside("srv/out")).unwrap();
        symlink("../../../../../../../../..", world.inside("srv/up")).unwrap();
        symlink("/proc", world.inside("srv/proc")).unwrap();
        symlink("/etc", world.inside("srv/etc")).unwrap();
        symlink("/proc/self/root", world.inside("srv/magic")).unwrap();
        symlink("loop", world.inside("srv/loop")).unwrap();
        fs::write(world.inside("srv/file"), "x").unwrap();
        let taken = vec![(0, ShareProblem::PlaceTaken)];
        for place in ["out", "out/x", "up", "proc", "proc/x", "etc", "magic", "loop", "file", "file/x"] {
            let share = world.share("data", &format!("/srv/{place}"));
            assert_eq!(world.converge(&[&share]), taken, "{place}");
            assert!(world.mounted().is_empty(), "{place}: {:?}", world.mounted());
        }
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
        assert!(fs::read_dir(world.at("files/proc")).unwrap().next().is_none());
        let share = world.share("data", "/srv/link");
        assert!(world.converge(&[&share]).is_empty());
        assert_eq!(world.mounted(), ["srv/real"]);
    });
}

#[test]
fn a_folder_that_is_moved_takes_the_share_along_only_until_the_next_look() {
    World::run(|world| {
        let share = world.share("data", "/srv/a/b");
        assert!(world.converge(&[&share]).is_empty());
        fs::rename(world.inside("srv/a"), world.inside("srv/with space\\")).unwrap();
        assert_eq!(world.mounted(), ["srv/with space\\/b"]);
        let placed = world.root().converge(&[&share], &world.at("shares")).unwrap();
        assert_eq!((world.mounted(), placed.mounted.len()), (vec!["srv/a/b".to_owned()], 0), "nobody took it away");
        assert!(world.at("files/srv/with space\\/b").exists(), "what was moved is the tenant's");
        // Also where it is not wanted any more.
        fs::rename(world.inside("srv/a"), world.inside("etc/a")).unwrap();
        assert!(world.converge(&[]).is_empty() && world.mounted().is_empty());
    });
}

#[test]
fn of_two_that_lead_to_one_place_the_first_has_it() {
    World::run(|world| {
        symlink("/srv/real", world.inside("srv/link")).unwrap();
        fs::create_dir(world.inside("srv/real")).unwrap();
        let (one, other) = (world.share("one", "/srv/link"), world.share("other", "/srv/real"));
        let below = world.share("below", "/srv/real/below");
        let taken = |at: usize| (at, ShareProblem::PlaceTaken);
        // Whichever came first: it stays so with every look.
        for before in [vec![], vec![&other], vec![&below]] {
            world.converge(&before);
            for _ in 0..3 {
                assert_eq!(world.converge(&[&one, &other, &below]), [taken(1), taken(2)]);
                assert!(world.inside("srv/real/one").exists());
            }
            assert_eq!(world.mounted(), ["srv/real"]);
            assert!(!world.at("sources/one/below").exists(), "a folder was made in a source");
        }
        // One that stood where another now covers it goes with the next look.
        assert!(world.converge(&[&below]).is_empty());
        for look in 0..3 {
            assert_eq!(world.converge(&[&one, &below]), [taken(1)]);
            assert!(look == 0 || world.mounted() == ["srv/real"], "{:?}", world.mounted());
        }
        assert!(!world.at("sources/one/below").exists() && !world.at("files/srv/real/below").exists());
        // The other way round: what is older is not covered.
        assert!(world.converge(&[]).is_empty());
        for _ in 0..3 {
            assert_eq!(world.converge(&[&below, &one]), [taken(1)]);
            assert!(world.inside("srv/real/below/below").exists());
        }
        // A folder of a share is no place, whosever the share is.
        fs::create_dir(world.at("sources/one/sub")).unwrap();
        let sub = world.share("sub", "/srv/real/sub");
        assert!(world.converge(&[&one]).is_empty());
        assert_eq!(world.converge(&[&sub, &one]), [taken(0)]);
        // One in another, as they say themselves.
        let inner = world.share("inner", "/srv/link/inner");
        assert_eq!(world.converge(&[&one, &inner]), [taken(1)]);
        assert_eq!(world.converge(&[&inner, &one]), [taken(1)]);
        assert!(world.converge(&[]).is_empty() && world.mounted().is_empty());
    });
}

#[test]
fn nothing_but_what_was_found_is_taken_off() {
    World::run(|world| {
        let share = world.share("data", "/srv/data");
        mount(NONE, &world.at("shares/data"), NONE, MsFlags::MS_SHARED, NONE).unwrap();
        assert!(world.converge(&[&share]).is_empty());
        let root = world.root();
        let table = mountinfo::own().unwrap();
        let found = mountinfo::below(&table, root.id, &root.path).pop().unwrap();
        let other = Found { id: found.id + 1, path: found.path.clone() };
        let below = Found { id: found.id, path: "srv".into() };
        assert!(!root.detach(&other).unwrap() && !root.detach(&below).unwrap());
        assert_eq!(world.mounted(), ["srv/data"]);
        // What is mounted below /mnt/shares later is not mounted here, and the other way round.
        let table = String::from_utf8(table).unwrap();
        let group =
            |path: PathBuf| crate::shares::visible::peer_group(&table, path.to_str().unwrap()).map(str::to_owned);
        let (one, other) = (group(world.at("shares/data")), group(world.inside("srv/data")));
        assert!(one.is_some() && other.is_some() && one != other, "{one:?} {other:?}");
        assert!(root.detach(&found).unwrap() && world.mounted().is_empty());
    });
}

#[test]
fn a_container_that_does_not_run_has_no_places() {
    World::run(|world| {
        mount::unmount(&world.at("root")).unwrap();
        let files = fs::File::open(world.at("files")).unwrap();
        assert!(Root::open(Path::new(&world.at("root")), files.into()).unwrap().is_none());
    });
}
