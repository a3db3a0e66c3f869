//! The runtime on a real file system below a temporary root. What needs a
//! booted systemd is in `tests/suite/runtime_files.rs`.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use fleet::desired::{Blobs, DesiredFile, DriftMode, DriftPolicy, HealthPolicy, Limit, OnFailure, PrunePolicy};
use fleet::name::FleetName;

use super::*;
use crate::ports::Reason as _;
use crate::ports::runtime::Inventory;

/// One device in a folder, and what its journal would hold.
struct Device {
    folder: tempfile::TempDir,
    runtime: FilesRuntime,
    inventory: Inventory,
    fleet: FleetName,
    app: AppName,
    revision: CommitId,
}

type Files<'a> = &'a [(&'a str, &'a str, u32)];

fn app(files: Files<'_>) -> (DesiredApp, Blobs) {
    let blobs: Blobs =
        files.iter().map(|(_, text, _)| (Digest::of(text.as_bytes()), Arc::from(text.as_bytes()))).collect();
    let files = files.iter().map(|(path, text, mode)| {
        ((*path).to_owned(), DesiredFile { content: Digest::of(text.as_bytes()), mode: *mode, owner: None })
    });
    let app = DesiredApp {
        name: "base".parse().unwrap(),
        depends_on: Vec::new(),
        spec: AppSpec::Files(FilesSpec { files: files.collect(), units: Vec::new() }),
        health: HealthPolicy { timeout_ms: 1, soak_ms: 0, checks: Vec::new() },
        drift: DriftPolicy { mode: DriftMode::Correct, ignore: Vec::new() },
        prune: PrunePolicy { enabled: true, max_delete: Limit::Percent(50), keep: Vec::new() },
        on_failure: OnFailure::Rollback,
        digest: Digest::of(b""),
    };
    (app, blobs)
}

impl Device {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("root/etc")).unwrap();
        Self {
            runtime: runtime(folder.path()),
            folder,
            inventory: Inventory::new(),
            fleet: "retail".parse().unwrap(),
            app: "base".parse().unwrap(),
            revision: "0".repeat(40).parse().unwrap(),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    fn task<'a>(&'a self, want: Option<&'a DesiredApp>, pins: &'a Pins, blobs: &'a Blobs) -> Task<'a> {
        let Self { fleet, app, revision, inventory, .. } = self;
        let (had, beside, back, borrowed) = (None, &[][..], false, &crate::ports::runtime::NOTHING);
        Task { fleet, app, revision, want, had, inventory, pins, blobs, beside, back, borrowed }
    }

    async fn plan(&self, want: Option<Files<'_>>) -> Result<Plan<Act>, RuntimeError> {
        let made = want.map(app);
        let (pins, none) = (Pins::new(), Blobs::new());
        let task = self.task(made.as_ref().map(|(app, _)| app), &pins, made.as_ref().map_or(&none, |(_, blobs)| blobs));
        self.runtime.plan(task).await
    }

    /// Plans and carries out, as the daemon does; the steps' count.
    async fn apply(&mut self, want: Option<Files<'_>>) -> Result<usize, RuntimeError> {
        let plan = self.plan(want).await?;
        let made = want.map(app);
        let (pins, none) = (Pins::new(), Blobs::new());
        self.inventory.extend(plan.inventory.clone());
        {
            let blobs = made.as_ref().map_or(&none, |(_, blobs)| blobs);
            let task = self.task(made.as_ref().map(|(app, _)| app), &pins, blobs);
            for step in &plan.steps {
                self.runtime.execute(task, step).await?;
                // A step whose effect is there already succeeds.
                self.runtime.execute(task, step).await?;
            }
        }
        self.inventory = plan.inventory;
        assert_eq!(self.plan(want).await?.steps.len(), 0, "a second plan has nothing to do");
        Ok(plan.steps.len())
    }
}

fn runtime(folder: &Path) -> FilesRuntime {
    let settings = FilesSettings { root: folder.join("root"), allow: vec!["/etc/app".into(), "/srv".into()] };
    FilesRuntime::new(&settings, &"device".parse().unwrap(), &folder.join("store")).unwrap()
}

const A: &str = "/etc/app/a.conf";

#[tokio::test]
async fn delivers_updates_rolls_back_and_leaves() {
    let mut device = Device::new();
    let one: Files = &[(A, "one", 0o644), ("/etc/app/d/e/b", "same", 0o4750)];
    let two: Files = &[(A, "two, longer", 0o600), ("/srv/new", "new", 0o644), ("/etc/app/d/e/b", "same", 0o4750)];
    assert_eq!(device.apply(Some(one)).await.unwrap(), 2);
    assert_eq!(device.read(A), "one");
    assert_eq!(std::fs::metadata(device.path("/etc/app/d/e/b")).unwrap().mode() & 0o7777, 0o4750);
    assert_eq!(std::fs::metadata(device.path("/etc/app/d")).unwrap().mode() & 0o7777, 0o755);
    let untouched = std::fs::metadata(device.path("/etc/app/d/e/b")).unwrap().ino();

    assert_eq!(device.apply(Some(two)).await.unwrap(), 2);
    assert_eq!((device.read(A).as_str(), device.read("/srv/new").as_str()), ("two, longer", "new"));
    // Rolling back is planning for the former state: former bytes and mode, and what was new is gone.
    assert_eq!(device.apply(Some(one)).await.unwrap(), 3);
    assert_eq!(device.read(A), "one");
    assert_eq!(std::fs::metadata(device.path(A)).unwrap().mode() & 0o7777, 0o644);
    assert!(!device.path("/srv").exists());
    assert_eq!(std::fs::metadata(device.path("/etc/app/d/e/b")).unwrap().ino(), untouched, "what is as desired stays");

    assert_eq!(device.apply(None).await.unwrap(), 5);
    assert!(device.inventory.is_empty());
    assert!(device.path("/etc").exists() && !device.path("/etc/app").exists());
}

#[tokio::test]
async fn drift_is_repaired_in_every_form() {
    let mut device = Device::new();
    let want: Files = &[(A, "right", 0o644)];
    device.apply(Some(want)).await.unwrap();
    let file = device.path(A);
    let drifts: [&dyn Fn(); 5] = [
        &|| std::fs::write(&file, "wrong").unwrap(),
        &|| std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap(),
        &|| std::fs::remove_file(&file).unwrap(),
        &|| std::fs::remove_dir_all(file.parent().unwrap()).unwrap(),
        &|| {
            std::fs::remove_file(&file).unwrap();
            symlink("/etc/hostname", &file).unwrap();
        },
    ];
    for (case, drift) in drifts.iter().enumerate() {
        drift();
        assert_eq!(device.apply(Some(want)).await.unwrap(), 1, "case {case}");
        assert_eq!(device.read(A), "right", "case {case}");
        assert!(std::fs::symlink_metadata(&file).unwrap().is_file());
    }
}

#[tokio::test]
async fn what_burgee_did_not_make_stays() {
    let mut device = Device::new();
    std::fs::create_dir_all(device.path("/etc/app")).unwrap();
    std::fs::write(device.path(A), "mine").unwrap();
    let error = device.apply(Some(&[(A, "burgee's", 0o644)])).await.unwrap_err();
    assert_eq!(error.reason(), "ForeignObject");
    assert!(error.to_string().contains(A) && error.hint().is_some(), "{error}");
    assert_eq!(device.read(A), "mine");
    // As desired already: adopted without a step, and from then on owned.
    std::fs::set_permissions(device.path(A), PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(device.apply(Some(&[(A, "mine", 0o644)])).await.unwrap(), 0);
    assert_eq!(device.apply(Some(&[(A, "burgee's", 0o644)])).await.unwrap(), 1);
    // A folder that was there before stays, with what others put into it.
    std::fs::write(device.path("/etc/app/other"), "x").unwrap();
    device.apply(None).await.unwrap();
    assert!(!device.path(A).exists() && device.path("/etc/app/other").exists());
}

#[tokio::test]
async fn a_file_that_appears_after_the_plan_is_not_overwritten() {
    let device = Device::new();
    let want: Files = &[(A, "burgee's", 0o644)];
    let plan = device.plan(Some(want)).await.unwrap();
    std::fs::create_dir_all(device.path("/etc/app")).unwrap();
    std::fs::write(device.path(A), "mine").unwrap();
    let (made, blobs) = app(want);
    let error =
        device.runtime.execute(device.task(Some(&made), &Pins::new(), &blobs), &plan.steps[0]).await.unwrap_err();
    assert_eq!((error.reason(), device.read(A).as_str()), ("Changed", "mine"));
    assert_eq!(std::fs::read_dir(device.path("/etc/app")).unwrap().count(), 1, "no temporary file is left");
}

#[tokio::test]
async fn links_lead_nowhere() {
    let mut device = Device::new();
    let outside = device.folder.path().join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("a.conf"), "outside").unwrap();
    symlink(&outside, device.path("/etc/app")).unwrap();
    let want: Files = &[(A, "x", 0o644)];
    let error = device.apply(Some(want)).await.unwrap_err();
    assert_eq!(error.reason(), "Refused");
    assert!(error.to_string().contains("/etc/app is a link"), "{error}");
    // Also when it comes between plan and step, and when something is to be removed.
    std::fs::remove_file(device.path("/etc/app")).unwrap();
    let plan = device.plan(Some(want)).await.unwrap();
    symlink(&outside, device.path("/etc/app")).unwrap();
    let (made, blobs) = app(want);
    let error =
        device.runtime.execute(device.task(Some(&made), &Pins::new(), &blobs), &plan.steps[0]).await.unwrap_err();
    assert_eq!(error.reason(), "Changed");
    device.inventory = plan.inventory;
    assert_eq!(device.apply(None).await.unwrap(), 0);
    assert_eq!(std::fs::read_to_string(outside.join("a.conf")).unwrap(), "outside");
    for path in ["/etc/app/../passwd", "/etc/passwd", "etc/app/a", "/etc/app"] {
        let error = Device::new().apply(Some(&[(path, "x", 0o644)])).await.unwrap_err();
        assert_eq!(error.reason(), "Refused", "{path}: {error}");
    }
}

#[tokio::test]
async fn a_cut_between_any_two_steps_is_made_good() {
    let one: Files = &[(A, "one", 0o644), ("/etc/app/x", "x", 0o644), ("/etc/app/old/y", "y", 0o644)];
    let two: Files = &[(A, "two", 0o644), ("/etc/app/x", "xx", 0o600), ("/srv/z", "z", 0o644)];
    for cut in 0..5 {
        let mut device = Device::new();
        device.apply(Some(one)).await.unwrap();
        let plan = device.plan(Some(two)).await.unwrap();
        assert_eq!(plan.steps.len(), 5);
        // Journalled before the first step.
        device.inventory.extend(plan.inventory.clone());
        {
            let (made, blobs) = app(two);
            let pins = Pins::new();
            for step in &plan.steps[..cut] {
                device.runtime.execute(device.task(Some(&made), &pins, &blobs), step).await.unwrap();
            }
        }
        // What a write that was cut leaves is overwritten or swept.
        std::fs::write(device.path("/etc/app/.burgee-tmp-0123456789ab"), "half").unwrap();
        device.runtime = runtime(device.folder.path());
        let back = cut % 2 == 0;
        device.apply(Some(if back { one } else { two })).await.unwrap();
        assert_eq!(device.read(A), if back { "one" } else { "two" });
        assert_eq!(device.path("/srv").exists(), !back);
        assert_eq!(device.path("/etc/app/old").exists(), back);
        device.apply(None).await.unwrap();
        assert!(!device.path("/etc/app").exists(), "the stale temporary file does not hold the folder");
    }
}

#[tokio::test]
async fn a_change_wakes_and_is_not_lost_by_cancelling() {
    let mut device = Device::new();
    device.apply(Some(&[(A, "right", 0o644)])).await.unwrap();
    let soon = |millis| Duration::from_millis(millis);
    // Its own writes are told, too; then it is quiet, also for what is nobody's.
    let _ = tokio::time::timeout(soon(1000), device.runtime.changed()).await;
    std::fs::write(device.path("/etc/app/unrelated"), "x").unwrap();
    assert!(tokio::time::timeout(soon(600), device.runtime.changed()).await.is_err());
    std::fs::write(device.path(A), "wrong").unwrap();
    for _ in 0..3 {
        assert!(tokio::time::timeout(soon(100), device.runtime.changed()).await.is_err(), "cancelled while debouncing");
    }
    tokio::time::timeout(soon(2000), device.runtime.changed()).await.unwrap();
    assert!(tokio::time::timeout(soon(600), device.runtime.changed()).await.is_err());
    std::fs::remove_dir_all(device.path("/etc/app")).unwrap();
    tokio::time::timeout(soon(2000), device.runtime.changed()).await.unwrap();
    // The folder that is made anew is watched again.
    device.apply(Some(&[(A, "right", 0o644)])).await.unwrap();
    let _ = tokio::time::timeout(soon(1000), device.runtime.changed()).await;
    std::fs::remove_file(device.path(A)).unwrap();
    tokio::time::timeout(soon(2000), device.runtime.changed()).await.unwrap();
}

#[tokio::test]
async fn health_is_that_the_files_are_there() {
    let mut device = Device::new();
    let want: Files = &[(A, "right", 0o644)];
    device.apply(Some(want)).await.unwrap();
    let (made, blobs) = app(want);
    let pins = Pins::new();
    let verdict = device.runtime.health(device.task(Some(&made), &pins, &blobs)).await.unwrap();
    assert_eq!(verdict, Verdict { health: Health::Healthy, message: String::new() });
    std::fs::remove_file(device.path(A)).unwrap();
    let verdict = device.runtime.health(device.task(Some(&made), &pins, &blobs)).await.unwrap();
    assert_eq!(verdict, Verdict { health: Health::Missing, message: format!("{A} is missing") });
    assert!(device.runtime.logs(device.task(Some(&made), &pins, &blobs), 5).await.is_err());
    device.runtime.prepare(device.task(Some(&made), &pins, &blobs)).await.unwrap();
    assert!(device.runtime.prepare(device.task(Some(&made), &pins, &Blobs::new())).await.is_err());
}

#[test]
fn names_of_units() {
    let cases = [
        ("a.service", true),
        ("a@b.service", true),
        ("dev-disk\\x2d1.mount", true),
        ("burgee-agent.service", false),
        ("a@.service", false),
        ("a", false),
        (".service", false),
        ("a.container", false),
        ("../a.service", false),
        ("-a b.service", false),
    ];
    for (name, holds) in cases {
        assert_eq!(check_unit(name).is_ok(), holds, "{name}");
    }
}
